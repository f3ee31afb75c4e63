"""Load a pretrained model and its tokenizer, in the precision that is fast here or quantised."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import torch
import transformers
from torch import nn

from experiments import quantization
from experiments.config import ModelSettings
from experiments.hub import locate
from experiments.tasks import TaskData
from lora.config import InputError

SAFE = {"trust_remote_code": False}  # code that a model's folder brings is never run, and never asked about

transformers.logging.set_verbosity_error()  # it reports a new head as a problem, and draws bars of its own
transformers.logging.disable_progress_bar()


Loaded = tuple[transformers.PreTrainedModel, transformers.PreTrainedTokenizerBase]


class Runtime(NamedTuple):
    """Where a model runs, and in which precision: frozen weights and activations in `dtype`, trained ones fp32.

    sharded: it is not brought there when it is loaded, but a layer at a time, its share alone (`experiments.parallel`),
    or while it is needed (`experiments.offload`).
    """

    device: torch.device
    dtype: torch.dtype
    sharded: bool = False

    @property
    def autocast(self) -> torch.autocast:
        """Context that computes in `dtype` with fp32 parameters."""
        return torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.dtype == torch.bfloat16)


def has_native_bf16(device: torch.device) -> bool:
    """True if bf16 is faster than fp32 here. A CPU without the instructions emulates it, tens of times slower."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return device.type == "cpu" and torch.ops.mkldnn._is_mkldnn_bf16_supported()


def choose_runtime(device: str = "auto", precision: str = "auto", threads: int | None = None) -> Runtime:
    """Resolve `auto`. Raises InputError for a device that is not here or an unknown precision."""
    if threads:
        torch.set_num_threads(threads)
    here = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if device == "auto":
        device = next((name for name in ("cuda", "mps") if here[name]), "cpu")
    if not here.get(device):
        raise InputError(f"runtime.device = {device} is not available here: use cpu or auto")
    place = torch.device(device)
    if precision == "auto":
        precision = "bf16" if has_native_bf16(place) else "fp32"
    if precision not in ("bf16", "fp32"):
        raise InputError(f"runtime.precision = {precision}: choose auto, bf16 or fp32")
    return Runtime(place, torch.bfloat16 if precision == "bf16" else torch.float32)


@functools.cache  # a sweep asks for it in every run
def skeleton(path: str) -> transformers.PreTrainedModel:
    """A model's pretrained body as its config describes it, on the meta device: modules and shapes, no weights.

    Raises InputError if the config cannot be found or read.
    """
    place = locate(path)
    try:
        config = transformers.AutoConfig.from_pretrained(place, **SAFE)
        with torch.device("meta"):
            return transformers.AutoModel.from_config(config, **SAFE)
    except Exception as error:  # a malformed config ends in an error of any kind
        raise _unreadable(path, error) from error


def _unreadable(path: str, error: Exception) -> InputError:
    reason = " ".join(str(error).split())[:300]
    known = isinstance(error, OSError | ValueError | RuntimeError) and reason
    return InputError(f"model {path} cannot be loaded: {reason if known else f'{type(error).__name__}: {reason}'}")


def _described(
    path: str, place: str, options: Mapping[str, Any]
) -> tuple[transformers.PreTrainedTokenizerBase, transformers.PreTrainedConfig]:
    """A model's tokenizer and its config. Raises InputError if one cannot be read, and for a config that ships."""
    if path.startswith("config:"):
        raise InputError(
            f"model {path} is a config without weights, which can be planned (lora-lab memory) but not trained: give a "
            "hub id or a folder"
        )
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(place, **SAFE)
        return tokenizer, transformers.AutoConfig.from_pretrained(place, **options, **SAFE)
    except Exception as error:  # a malformed file ends in an error of any kind
        raise _unreadable(path, error) from error


def _check_weights(path: str, network: transformers.PreTrainedModel, read: Mapping[str, Any]) -> None:
    """Raises InputError if pretrained weights are not there, or of another shape: they would be random, unsaid.

    A task's head may be, and the pooler of a BERT that was stored without one.
    """
    new = tuple(f"{name}." for name in head_modules(network)) if network.base_model is not network else ()
    if network.get_output_embeddings() is not None:
        new = ()  # what writes is pretrained
    missing = sorted(name for name in read["missing_keys"] if not name.startswith(new) and ".pooler." not in f".{name}")
    if missing:
        raise InputError(
            f"model {path} cannot be loaded: its files lack {len(missing)} weights of a {network.config.model_type} "
            f"model, {missing[0]} among them: is the model whole, and its config the right one?"
        )
    for name, found, wanted in sorted(read["mismatched_keys"]):
        if not name.startswith(new):
            raise InputError(
                f"model {path} cannot be loaded: {name} is {tuple(found)}, by its config it is {tuple(wanted)}"
            )


def _set_pad(path: str, tokenizer: transformers.PreTrainedTokenizerBase, network: transformers.PreTrainedModel) -> None:
    """Pads are the end mark where there are none. Raises InputError if the model has no embedding for them."""
    if tokenizer.pad_token is None:
        if tokenizer.eos_token is None:
            raise InputError(
                f"model {path}: its tokenizer has neither a padding nor an end token, so texts of several lengths fit "
                "in no batch: name one as pad_token in its tokenizer_config.json"
            )
        tokenizer.pad_token = tokenizer.eos_token
    known = network.get_input_embeddings().weight.shape[0]
    if tokenizer.pad_token_id >= known:
        raise InputError(
            f"model {path}: the padding token {tokenizer.pad_token!r} has the id {tokenizer.pad_token_id}, but there "
            f"are embeddings for {known} tokens: name one of these as pad_token in its tokenizer_config.json"
        )
    network.config.pad_token_id = tokenizer.pad_token_id


def check_tokens(rows: Iterable[Mapping[str, Any]], network: transformers.PreTrainedModel) -> None:
    """Raises InputError for a row whose input_ids are none, or beyond the model's embeddings."""
    known = network.get_input_embeddings().weight.shape[0]
    for number, row in enumerate(rows, start=1):
        ids = row["input_ids"]
        if not ids:
            raise InputError(
                f"example {number}: the tokenizer makes no token of it, and has no start mark: leave such texts out"
            )
        if max(ids) >= known:
            raise InputError(
                f"example {number}: the tokenizer has a token with the id {max(ids)}, but there are embeddings for "
                f"{known} tokens: are tokenizer and model of one kind?"
            )


def set_dropout(config: Any, dropout: float | None) -> None:
    """Every dropout of a model's config is this one, if there is one."""
    if dropout is None:
        return
    for name in [name for name in config.to_dict() if name.endswith(("dropout", "dropout_prob", "pdrop"))]:
        setattr(config, name, float(dropout))


def head_modules(model: nn.Module) -> list[str]:
    """Names of the modules outside the pretrained body: what the task needs and pretraining did not give."""
    return [
        name
        for name, child in model.named_children()
        if name != model.base_model_prefix and next(child.parameters(), None) is not None
    ]


def load_classifier(model: ModelSettings, data: TaskData, runtime: Runtime) -> Loaded:
    """A pretrained model with a new classification (or one-output regression) head, drawn from torch's current seed.

    The body is in `runtime.dtype`, or quantised where the model's config says so, the head in fp32. Raises InputError
    if the model cannot be found, read or quantised.
    """
    options = {
        "num_labels": len(data.label_names) or 1,
        "problem_type": "single_label_classification" if data.label_names else "regression",
    }
    network, tokenizer = _load(transformers.AutoModelForSequenceClassification, model, runtime, options)
    for name in head_modules(network):
        network.get_submodule(name).float()
    return network, tokenizer


def load_language_model(model: ModelSettings, runtime: Runtime) -> Loaded:
    """A pretrained causal language model in `runtime.dtype`, or quantised where its config says so.

    Raises InputError if it is none, or cannot be read or quantised.
    """
    body = skeleton(model.path)  # before weights are read, which such a model need not have
    if hasattr(body, "encoder"):
        raise InputError(f"model {model.path} is a {body.config.model_type} model, which does not write text")
    return _load(transformers.AutoModelForCausalLM, model, runtime, {})


def load_body(model: ModelSettings, runtime: Runtime) -> Loaded:
    """A pretrained body without any head, as `load_language_model` loads one with. Raises InputError as that."""
    return _load(transformers.AutoModel, model, runtime, {})


def _load(kind: Any, model: ModelSettings, runtime: Runtime, options: Mapping[str, Any]) -> Loaded:
    path = locate(model.path)
    tokenizer, config = _described(model.path, path, options)
    set_dropout(config, model.dropout)
    try:
        # The backward pass of scaled_dot_product_attention is slow on CPUs at these lengths.
        config._attn_implementation = "eager" if runtime.device.type == "cpu" else "sdpa"
        network, read = kind.from_pretrained(
            path,
            config=config,
            dtype=runtime.dtype,
            ignore_mismatched_sizes=True,  # a head for another number of labels is drawn anew
            output_loading_info=True,
            **SAFE,
        )
    except Exception as error:  # a damaged file ends in an error of any kind
        raise _unreadable(model.path, error) from error
    _check_weights(model.path, network, read)
    _set_pad(model.path, tokenizer, network)
    place = torch.device("cpu") if runtime.sharded else runtime.device
    if model.quantization is not None:
        quantization.quantize(network, model.quantization, place)
    return network.to(place), tokenizer
