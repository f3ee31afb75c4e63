"""What a training step of a method will take, before anything is loaded.

The trainer's own step, of the real architecture with the method applied to it, runs on fake tensors
(torch._subclasses.FakeTensorMode), which have shapes and no data. Whatever it makes and frees is counted.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from transformers import PreTrainedModel

from experiments import method_settings, quantization
from experiments.checks import check_parallel
from experiments.layers import layers
from experiments.measure.memory import depth, network, sharded, training_step
from experiments.measure.memory.fake import fake
from experiments.measure.memory.setup import LABELS, Plan, Setup
from experiments.measure.memory.trace import FORWARD, GRADIENT, LOGITS, STEP, Bytes, Trace
from experiments.method_settings import BAdam
from experiments.methods import lora
from experiments.problems.base import Problem, Rows
from lora.config import InputError
from lora.model import base_parameters, lora_layers, trainable_parameters

# Parts beside those of a step: the end of the forward pass, and what lasts beyond a step: states and fp32 copies.
KEPT, LASTING, MASTER = "kept", "lasting", "master"


def plan(setup: Setup, devices: int = 1) -> Plan:
    """The bytes of a step of `setup`; with several devices those of one of them, which computes the rows of `setup` and
    holds its share of the frozen weights (runtime.parallel=fsdp).

    Raises InputError for a model, a method or sizes that cannot be, as the modules do that it is made of.
    """
    if devices > 1:
        check_parallel("fsdp", setup.model.get("quantization"), setup.method)
    path, asked = setup.model["path"], setup.model.get("quantization")
    config = network.network_config(path)
    network.model_class(config, path, setup.targets is not None)
    stored = network.stored_as(config, path)
    if stored not in (None, asked):
        raise InputError(f"model {path} is stored in {stored}: model.quantization = {asked or 'null'} is not of it")
    rows = training_step.rows(config, setup)
    adapters = method_settings.lora(setup.method)
    if adapters is not None:
        lora.config(adapters)  # a start that cannot be is an error, though another one takes its place below
    with fake(training_step.chosen(rows), len(rows) > 1, setup.device):
        started = dataclasses.replace(setup, method=_without_values(setup))
        problem = training_step.adapt(network.build(setup), rows, started, training_step.runtime(setup, "cpu"))
        try:
            return _plan(problem, rows, started, devices)
        except ValueError as error:  # such as a model's own rules for the length of its inputs
            reason = " ".join(str(error).split())[:300]
            raise error if isinstance(error, InputError) else InputError(f"model {path}: {reason}") from error


def _without_values(setup: Setup) -> dict[str, Any]:
    """The method, with a start of A and B that needs no values of weights or gradients: the shapes are the same."""
    starts = {"loftq": "gaussian"} if setup.model.get("quantization") else {"lora_ga": "pissa"}
    init = setup.method.get("init")
    return {**setup.method, **({"init": starts[init]} if init in starts else {})}


def _plan(problem: Problem, rows: Rows, setup: Setup, devices: int) -> Plan:
    model = problem.model
    trainable = sum(parameter.numel() for parameter in trainable_parameters(model).values())
    checkpoint = _checkpoint(model)
    training_step.optimizer(problem, setup, training_step.method(setup))  # BAdam chooses what is active
    runs = depth.runs(layers(model))
    short = _traced(problem, rows, setup, *depth.kept(runs))
    long = [(run, _traced(problem, rows, setup, *depth.kept(runs, run))) for run in runs if run.size > depth.SHORT]
    parts = depth.extrapolated(short.parts, [(run, own.parts) for run, own in long])
    kept, lasting = parts.pop(KEPT), parts.pop(LASTING)
    peak = max(parts.values(), key=Counter.total)
    replaced = [weight for _, layer in lora_layers(model) for weight in layer.kept]
    weights = _bytes([*model.parameters(), *model.buffers(), *replaced, *quantization.tensors(model)])
    if devices > 1:
        weights -= sharded.saved(model, devices)
    gradients = parts[STEP][GRADIENT]
    named = {FORWARD: kept[FORWARD], LOGITS: short.logits, GRADIENT: gradients, STEP: lasting[STEP]}
    return Plan(
        total_params=quantization.size(model).numbers,
        trainable_params=trainable,
        checkpoint_bytes=checkpoint,
        weights=weights,
        master=lasting[MASTER],
        gradients=gradients,
        optimizer=lasting[STEP],
        activations=kept[FORWARD],
        logits=short.logits,
        temporary=peak.total() - sum(min(peak[kind], size) for kind, size in named.items()),
        peak=weights + lasting[MASTER] + peak.total(),
        notes=tuple(_notes(model, setup)),
    )


class _Traced(NamedTuple):
    """The parts of a step, and the most bytes of logits at one time."""

    parts: dict[str, Bytes]
    logits: int


def _traced(
    problem: Problem, rows: Rows, setup: Setup, numbers: Sequence[int], names: Sequence[tuple[str, ...]]
) -> _Traced:
    """A step of the model with these of its layers alone, which have these names."""
    output = problem.model.get_output_embeddings()
    trace = Trace((problem.weight(rows), LABELS if output is None else len(output.weight)), setup.device == "cpu")
    badam = isinstance(method_settings.optimizer(setup.method), BAdam)  # AdamW's steps of what is active
    with depth.shortened(problem.model, numbers) as blocks:
        optimizer = training_step.optimizer(problem, setup, {"name": "full"} if badam else setup.method)
        trained = [own for group in optimizer.param_groups for own in group["params"] if own.requires_grad]
        hooks = [parameter.register_post_accumulate_grad_hook(trace.gradient) for parameter in trained]
        with trace, depth.watched(trace, blocks, names):
            training_step.gradients(problem, rows, optimizer)
            passes = trace.step(STEP)
            with trace.paused():
                halves = _to_masters(trained) if setup.precision == "amp" else []
            optimizer.step()
            states = trace.live[STEP]
            optimizer.step()  # from the second step on there are states
        for part in passes:
            trace.peaks[part][STEP] += states
        for parameter, hook in zip(trained, hooks, strict=True):
            parameter.grad = None
            hook.remove()
        if setup.precision == "amp":
            training_step.cast(problem.model, torch.bfloat16)
    lasting = Counter({STEP: states, MASTER: 2 * _bytes(halves)})
    return _Traced({**trace.peaks, KEPT: trace.kept, LASTING: lasting}, trace.most_logits)


def _to_masters(trained: Sequence[Tensor]) -> list[Tensor]:
    """Turn 16-bit parameters into their fp32 copies, with fp32 gradients; returns the 16-bit gradients."""
    gradients = []
    for parameter in trained:
        gradient, parameter.grad = parameter.grad, None
        if gradient is not None:
            parameter.data, parameter.grad = parameter.data.float(), gradient.float()
            gradients.append(gradient)
    return gradients


def _checkpoint(model: PreTrainedModel) -> int:
    """Bytes of the tensors that `lora.io.save` writes."""
    others = [parameter for parameter in base_parameters(model).values() if parameter.requires_grad]
    adapters = [layer.stored(part.name) for _, layer in lora_layers(model) for part in layer.parts]
    return sum(tensor.nbytes for tensor in (*others, *(tensor for own in adapters for tensor in own.values())))


def _bytes(tensors: Iterable[Tensor]) -> int:
    """Bytes of the storages of tensors, of each once."""
    storages = [tensor.untyped_storage() for tensor in tensors]
    return sum({storage._cdata: storage.nbytes() for storage in storages}.values())


def _notes(model: PreTrainedModel, setup: Setup) -> list[str]:
    """What was assumed, and what may surprise."""
    config = model.config.get_text_config()
    bits, optimizer = setup.model.get("quantization"), setup.method.get("optimizer")
    experts, each = (getattr(config, name, None) for name in ("num_local_experts", "num_experts_per_tok"))
    found = {
        f"each token is computed by {each} of {experts} experts, no matter by which": experts,
        "the weights of experts are in no linear layer: they are not quantised": experts and bits,
        "the weights of experts are in no linear layer: GaLore does not project them": experts
        and optimizer == "galore",
        "a step in which GaLore takes its directions anew": optimizer == "galore",
        "the turn of BAdam's first block, which keeps the activations of all layers": optimizer == "badam",
        "layers of LLM.int8() keep their inputs even where activations are computed again": bits == "int8"
        and setup.checkpointing,
        "int8 on a GPU is planned with the kernels that bitsandbytes has for CPUs": bits == "int8"
        and setup.device == "cuda",
        "the optimizer reads 16-bit gradients: there are none in fp32": setup.precision == "amp",
        "fused attention; without the workspaces of CUDA's libraries": setup.device == "cuda",
    }
    return [note for note, holds in found.items() if holds]
