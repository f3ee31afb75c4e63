"""runtime.checkpointing: the same gradients from fewer stored activations, and nothing else that changes."""

from pathlib import Path
from typing import Any

import pytest
import torch
from command import Cli
from networks import BATCH, METHODS, PAD, ROWS, adapted, network, padded, randomise_trained
from steps import kept
from torch import Tensor

from experiments import methods
from experiments.compute import checkpoint_activations
from experiments.prompts import contexts
from experiments.store import Store
from lora.config import InputError
from lora.model import trainable_parameters

DROPOUT = {
    "bert": {"hidden_dropout_prob": 0.2, "attention_probs_dropout_prob": 0.2},
    "deberta-v2": {"hidden_dropout_prob": 0.2, "attention_probs_dropout_prob": 0.2},
    "gpt2": {"resid_pdrop": 0.2, "attn_pdrop": 0.2, "embd_pdrop": 0.2},
    "llama": {"attention_dropout": 0.2},
}
OTHERS = {"freeze": {"name": "freeze", "layers": 1}, "dora": {**METHODS["lora"], "dora": True, "dropout": 0.2}}


def gradients(model: Any, **inputs: Tensor) -> dict[str, Tensor]:
    torch.manual_seed(5)
    loss = model(**inputs).loss
    loss.backward()
    return {name: p.grad for name, p in trainable_parameters(model).items() if p.grad is not None}


PAIRS = [(kind, name) for kind in DROPOUT for name in [*METHODS, *OTHERS] if not (kind == "llama" and "bitfit" in name)]


@pytest.mark.parametrize(("kind", "name"), PAIRS)
def test_the_same_gradients_with_dropout(kind: str, name: str) -> None:
    found = []
    for checkpointing in (False, True):
        model = adapted(kind, {**METHODS, **OTHERS}[name], **DROPOUT[kind]).train()
        randomise_trained(model)
        if checkpointing:
            checkpoint_activations(model)
        found.append(gradients(model, **BATCH))
    plain, again = found
    assert plain.keys() == again.keys() and plain
    for key, gradient in plain.items():
        torch.testing.assert_close(again[key], gradient, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("name", ["prefix_embed", "prefix_layer", "lora+prefix_layer"])
def test_infixes_of_a_language_model(name: str) -> None:
    text = padded(ROWS)
    batch = {**text, "labels": text["input_ids"].masked_fill(text["attention_mask"] == 0, -100), "use_cache": False}
    found = []
    for checkpointing in (False, True):
        model = network("llama", "ForCausalLM", attention_dropout=0.2).train()
        methods.apply(model, METHODS[name], [])
        randomise_trained(model)
        if checkpointing:
            checkpoint_activations(model)
        with contexts(model, torch.tensor([3, 1, 2])):
            found.append(gradients(model, **batch))
    for key, gradient in found[0].items():
        torch.testing.assert_close(found[1][key], gradient, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("name", ["full", "lora"])
def test_less_is_kept(name: str) -> None:
    model = adapted("bert", METHODS[name]).train()
    before = kept(model)
    checkpoint_activations(model)
    assert kept(model) < 0.5 * before


def test_frozen_layers_stay_out_of_the_backward_pass() -> None:
    model = adapted("llama", OTHERS["freeze"]).train()
    checkpoint_activations(model)
    seen = []
    model.model.layers[1].register_forward_hook(lambda _, args, output: seen.append(output.requires_grad))
    model.model.layers[2].register_forward_hook(lambda _, args, output: seen.append(output.requires_grad))
    model(**BATCH).loss.backward()
    assert seen == [False, True]


def test_generation_keeps_its_cache() -> None:
    model = network("llama", "ForCausalLM")
    ids = torch.tensor([[2, 9, 17]])
    options = {"max_new_tokens": 6, "do_sample": False, "pad_token_id": PAD}
    before = model.generate(ids, **options)
    checkpoint_activations(model)
    model.train().eval()
    lengths: list[int] = []
    model.model.layers[0].register_forward_pre_hook(lambda _, args: lengths.append(args[0].shape[1]))
    assert torch.equal(model.generate(ids, **options), before)
    assert lengths == [3] + [1] * (len(lengths) - 1)


def test_a_model_that_cannot() -> None:
    model = network("bert")
    model.supports_gradient_checkpointing = False
    with pytest.raises(InputError, match="runtime.checkpointing = true is not possible: .* set it to false"):
        checkpoint_activations(model)


def test_it_is_no_part_of_what_a_run_is(cli: Cli, tiny: list[str], tmp_path: Path) -> None:
    results = {}
    for value in ("true", "false"):
        folder = tmp_path / value
        assert cli(*tiny, f"runtime.checkpointing={value}", f"results_dir={folder}").code == 0
        (run,) = (path for path in (folder / "runs").iterdir() if path.name[0] != ".")
        results[value] = run.name, Store(folder / "runs").metrics(run.name)["metrics"]
    (name, scores), (other, others) = results.values()
    assert name == other
    for one, two in zip(scores, others, strict=True):
        assert one["value"] == pytest.approx(two["value"], abs=1e-3)
