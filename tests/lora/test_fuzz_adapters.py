"""Adapters from a seeded generator: the outputs that peft gives, or a refusal; nothing else. `FUZZ_N` and `FUZZ_SEED`
say how many and which."""

import os
import warnings
from pathlib import Path

import pytest
import torch
from made_up_adapters import MadeUp, make
from tiny_models import assert_equal, assert_identical, logits, state

from analysis.weights import updates
from lora.config import InputError
from lora.interop import load_peft
from lora.model import lora_layers

NUMBER, SEED = int(os.environ.get("FUZZ_N", "120")), int(os.environ.get("FUZZ_SEED", "0"))
BATCH = 20


def outcome(case: MadeUp) -> str:
    """What became of one adapter. Fails for a wrong output, a traceback, or a model that is not as it was."""
    model = case.model()
    before = state(model)
    refusal = ""
    try:
        load_peft(model, case.folder)
    except InputError as error:
        refusal = f"{case.told}: {error}"
    if refusal:
        assert "\n" not in refusal and len(refusal) < 2500, refusal
        assert not case.readable or case.broken, refusal
        assert not any(lora_layers(model)), refusal
        assert_identical(model, before)
        return "refused"
    assert not case.broken, case.told
    assert_equal(logits(model), case.outputs, case.told)
    # The same reader gives compare its updates: those that were attached, and every other tensor is accounted for.
    found = updates.read(case.folder)
    there = dict(lora_layers(model))
    assert {update.module for update in found.values()} == set(there), case.told
    for update in found.values():
        own = torch.from_numpy(update.apply(torch.eye(update.shape[1]).numpy()))
        layer = there[update.module]
        part = layer.parts[0]
        expected = part.scaling * layer.lora_B[part.name] @ layer.lora_A[part.name]
        torch.testing.assert_close(own.float(), expected.detach(), msg=lambda text: f"{case.told}: {text}")
    found.account()
    return "read"


@pytest.mark.parametrize("first", range(SEED, SEED + NUMBER, BATCH))
def test_as_peft_reads_them_or_refused(first: int, tmp_path: Path) -> None:
    warnings.simplefilter("ignore")
    outcomes = []
    for seed in range(first, min(first + BATCH, SEED + NUMBER)):
        case = make(seed, tmp_path / str(seed))
        if case is not None:
            outcomes.append(outcome(case))
    assert outcomes  # peft itself refuses some of what is drawn, but not all of it
