"""A seeded generator of peft adapters: every option of LoRA's that peft has, and files as people have them."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import peft
import torch
from safetensors.torch import load_file, save_file
from tiny_models import logits, randomise, tiny_model
from torch import Tensor, nn

LINEAR = {
    "llama": ["q_proj", "k_proj", "v_proj", "o_proj", "up_proj", "gate_proj", "down_proj"],
    "bert": ["query", "key", "value", "intermediate.dense", "attention.output.dense"],
    "gpt2": ["c_attn", "attn.c_proj", "c_fc"],
}
EMBEDDING = {"llama": "embed_tokens", "bert": "word_embeddings", "gpt2": "wte"}
HEAD = {"llama": "lm_head", "bert": "classifier", "gpt2": "lm_head"}
LAYERS = {"llama": "layers", "bert": "layer", "gpt2": "h"}
NORM = {"llama": "norm", "bert": "LayerNorm", "gpt2": "ln_f"}


class MadeUp(NamedTuple):
    """An adapter folder, the model that it is for, and its outputs by peft.

    told      what it is made of, for a reader of a failed test
    readable  it uses nothing that is refused: it has to be read
    broken    what has been done to its files makes it unreadable: it has to be refused
    """

    folder: Path
    model: Callable[[], nn.Module]
    outputs: Tensor
    told: str
    readable: bool
    broken: bool


def make(seed: int, folder: Path) -> MadeUp | None:
    """One adapter; None where peft itself refuses what was drawn."""
    rng = random.Random(seed)
    kind = rng.choice(["llama", "llama", "bert", "gpt2"])
    size = {"tie_word_embeddings": rng.random() < 0.5} if kind == "llama" else {}
    rows = 70 if kind == "llama" and rng.random() < 0.15 else None

    def model() -> nn.Module:
        found = tiny_model(kind, **size)
        if rows:
            torch.manual_seed(0)
            found.resize_token_embeddings(rows)
        return found

    options, readable = _options(rng, kind, size.get("tie_word_embeddings", kind == "gpt2"))
    told = f"seed {seed}: {kind} {size} {rows or ''} {options}"
    try:
        own = peft.get_peft_model(model(), peft.LoraConfig(**options))
        randomise(own, seed)
        _train_rest(own, seed)
        own.save_pretrained(folder, save_embedding_layers=True if rows else "auto", safe_serialization=True)
        outputs = logits(peft.PeftModel.from_pretrained(model(), folder).eval()).detach()
    except (ValueError, TypeError, KeyError, RuntimeError, NotImplementedError, AttributeError, AssertionError):
        return None
    name, broken = _change(rng, folder)
    return MadeUp(folder, model, outputs, f"{told}; file: {name}", readable, broken)


def _options(rng: random.Random, kind: str, tied: bool) -> tuple[dict[str, Any], bool]:
    """Options of a LoraConfig, and whether they are all of a kind that is read."""
    linear = LINEAR[kind]
    targets: Any = rng.sample(linear, rng.randint(1, 3))
    options: dict[str, Any] = {"r": rng.randint(1, 5), "lora_alpha": rng.choice([1, 3, 12, 0.5])}
    special = rng.random()
    if special < 0.15:
        targets = r".*\.({})".format("|".join(re.escape(one) for one in targets))
    elif special < 0.25:
        targets = "all-linear"
    elif special < 0.4:
        targets = [*targets, rng.choice([EMBEDDING[kind], HEAD[kind]])]
    options["target_modules"] = targets
    adapted = [one for one in linear if one in targets] if isinstance(targets, list) else linear
    dora = rng.random() < 0.2
    options |= {"use_dora": dora, "use_rslora": rng.random() < 0.3}
    options["bias"] = rng.choice(["none", "none", "all", "lora_only"])
    if rng.random() < 0.4:
        options["rank_pattern"] = {rng.choice(adapted): rng.randint(1, 7)}
    if rng.random() < 0.4:
        layers = rng.choice([r"0\.", r"[01]\.", r"1\.", rf"{LAYERS[kind]}.(0|1)."])
        options["alpha_pattern"] = {rf"{layers}.*{rng.choice(adapted)}": 48, rng.choice(adapted): 5}
    if isinstance(targets, list) and rng.random() < 0.2:
        options["layers_to_transform"] = rng.choice([0, [1], [0, 1]])
        options["layers_pattern"] = rng.choice([None, LAYERS[kind], [LAYERS[kind]]])
    if rng.random() < 0.2:
        options["exclude_modules"] = rng.choice([[f"0.{adapted[0]}"], rf".*\.0\..*{adapted[0]}"])
    if rng.random() < 0.35:
        options["modules_to_save"] = rng.sample([HEAD[kind], EMBEDDING[kind], NORM[kind]], rng.randint(1, 2))
    if kind == "llama" and rng.random() < 0.2:
        options["ensure_weight_tying"] = True
    options["init_lora_weights"] = rng.choice(
        [True] * 5 + [False, "gaussian", "eva", "orthogonal", "mica", "olora", "pissa"]
    )
    other: dict[str, Any] = rng.choice([{}] * 24 + [
        {"lora_bias": True}, {"trainable_token_indices": [1, 5]}, {"target_parameters": ["q_proj.weight"]},
        {"layer_replication": [[0, 2], [0, 1]]}, {"monteclora_config": {}}, {"velora_config": {"num_groups": 4}},
        {"kasa_config": {}}, {"alora_invocation_tokens": [1, 2]},
    ])  # fmt: skip
    options |= other
    embedded = isinstance(targets, list) and EMBEDDING[kind] in targets
    shared = tied and (embedded or options.get("ensure_weight_tying"))
    readable = (
        options["init_lora_weights"] not in ("olora", "pissa")
        and not set(other) - {"monteclora_config", "velora_config"}
        and not (dora and (embedded or shared))
    )
    return options, readable


def _train_rest(model: nn.Module, seed: int) -> None:
    """Move what is trained beside A and B as training would."""
    torch.manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.requires_grad and "lora_" not in name:
                parameter += 0.1 * torch.randn_like(parameter)


def _prefix(*parts: str) -> Callable[[str], str]:
    return lambda name: "".join(parts) + name


RENAMED: dict[str, Callable[[str], str]] = {
    "as it is": lambda name: name,
    "compiled": _prefix("_orig_mod."),
    "distributed": _prefix("module."),
    "both": _prefix("module.", "_orig_mod."),
    "fsdp": lambda name: re.sub(r"(layers?\.\d+\.|\bh\.\d+\.)", r"\1_fsdp_wrapped_module.", name, count=1),
    "adapter's name": lambda name: re.sub(r"\.(lora_\w+?)(\.weight)?$", r".\1.default\2", name),
    "magnitude.weight": lambda name: re.sub(r"(lora_magnitude_vector)$", r"\1.weight", name),
}
BROKEN = ("nan", "inf", "int8", "float8", "no B", "extra matrix", "empty", "no A at all", "another r", "two adapters")


def _change(rng: random.Random, folder: Path) -> tuple[str, bool]:
    """Change the files of an adapter; says how, and whether nobody can read them now."""
    path = folder / "adapter_model.safetensors"
    tensors = load_file(path)
    if rng.random() < 0.25:
        how = rng.choice(BROKEN)
        _break(how, folder, tensors, rng)
        return how, True
    how = rng.choice(list(RENAMED))
    renamed = {RENAMED[how](name): value for name, value in tensors.items()}
    form = rng.choice(["safetensors", "safetensors", "bin", "both", "parameters"])
    if form == "bin":
        torch.save(renamed, folder / "adapter_model.bin")
        path.unlink()
    elif form == "parameters":
        torch.save({name: nn.Parameter(value) for name, value in renamed.items()}, folder / "adapter_model.bin")
        path.unlink()
    else:
        save_file(renamed, path)
        if form == "both":  # peft takes the safetensors
            torch.save({name: value + 1 for name, value in renamed.items()}, folder / "adapter_model.bin")
    return f"{how}, {form}", False


def _break(how: str, folder: Path, tensors: dict[str, Tensor], rng: random.Random) -> None:
    name = rng.choice([one for one in tensors if re.search("lora_(embedding_)?A", one)] or list(tensors))
    other = re.sub(r"(lora_(?:embedding_)?)A", r"\1B", name)
    if how in ("nan", "inf"):
        tensors[name].view(-1)[0] = float(how)
    elif how in ("int8", "float8"):
        tensors[name] = tensors[name].to(torch.int8 if how == "int8" else torch.float8_e4m3fn)
    elif how == "no B":
        del tensors[other]
    elif how == "extra matrix":
        tensors["base_model.model.none.such.weight"] = torch.ones(3, 3)
    elif how in ("empty", "no A at all"):
        tensors = {} if how == "empty" else {one: value for one, value in tensors.items() if ".lora_" not in one}
    elif how == "another r":
        path = folder / "adapter_config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | {"r": 29, "rank_pattern": {}}))
    elif how == "two adapters":
        for one in [one for one in tensors if ".lora_A.weight" in one or ".lora_B.weight" in one]:
            for own in ("sql", "chat"):
                tensors[one.replace(".weight", f".{own}.weight")] = tensors[one].clone()
        tensors["base_model.model.x.lora_A.sql.weight"] = torch.ones(2, 2)
    save_file(tensors, folder / "adapter_model.safetensors")
