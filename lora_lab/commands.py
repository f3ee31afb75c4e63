"""The sub-commands of `lora-lab`: where each is, what it is for, and examples. None of their modules is imported."""

from __future__ import annotations

from importlib.util import find_spec
from typing import NamedTuple


class Command(NamedTuple):
    """`where` is MODULE:FUNCTION, which gets the arguments and returns the exit code; `own_help`: it answers --help."""

    name: str
    where: str
    about: str
    examples: tuple[str, ...]
    own_help: bool = True


COMMANDS = (
    Command(
        "run",
        "experiments.run:start",
        "one training run, or a grid of runs; a stored run is not computed again",
        (
            "lora-lab run method.r=4 seed=1",
            "lora-lab run --model FacebookAI/roberta-base --task reviews.csv training.lr=tuned",
            "lora-lab run -m method.r=1,2,4,8 seed=0,1,2",
            "lora-lab run preset=smoke --cfg job     prints every setting, and trains nothing",
        ),
        own_help=False,
    ),
    Command(
        "study",
        "analysis.lab:main",
        "a table or figure of the paper, from its runs to its pictures",
        (
            "lora-lab study rank_ablation",
            "lora-lab study rank_ablation preset=desk engine.jobs=2",
            "lora-lab study rank_ablation --task reviews.csv method.r=2,4,8 seed=0,1,2",
            "lora-lab study forgetting --text notes.txt -- preset=smoke     options of its measurement, then settings",
        ),
        own_help=False,
    ),
    Command(
        "advise",
        "analysis.advise.__main__:main",
        "which rank, weights and learning rate for your model and data",
        (
            "lora-lab advise --task reviews.csv --budget 20m",
            "lora-lab advise --model FacebookAI/roberta-base --task glue/sst2 --confirm",
        ),
    ),
    Command(
        "compare",
        "analysis.compare.__main__:main",
        "any adapters side by side: how alike they are, what they do to which weights",
        ("lora-lab compare RUN_ID some/peft-adapter --base asset:minilm",),
    ),
    Command(
        "shrink",
        "analysis.shrink.__main__:main",
        "an adapter made smaller, without training",
        ("lora-lab shrink some/peft-adapter --energy 0.9 --format peft --out small",),
    ),
    Command(
        "extract",
        "analysis.extract.__main__:main",
        "the update of a fully fine-tuned model as an adapter",
        ("lora-lab extract tuned-model/ --base its/base-model --rank 16 --out adapter",),
    ),
    Command(
        "memory",
        "experiments.measure.memory.__main__:main",
        "how much memory a training step takes, without taking it",
        ("lora-lab memory --model llama-7b --method full,lora --batch 1 --length 2048",),
    ),
    Command(
        "claims",
        "analysis.claims.__main__:main",
        "the scoreboard: a verdict on each claim of the paper and of guides",
        ("lora-lab claims results/quick",),
    ),
    Command(
        "report",
        "analysis.report.__main__:main",
        "all studies of a preset on one page",
        ("lora-lab report results/quick",),
    ),
    Command(
        "records",
        "experiments.records.__main__:main",
        "stored runs: pack, unpack, verify, prune, export to a tracker",
        ("lora-lab records pack results/quick", "lora-lab records export results/runs --to tensorboard --out boards"),
    ),
    Command(
        "tables",
        "analysis.study:main",
        "tables and figures again, from stored runs or from records",
        ("lora-lab tables results/desk",),
    ),
    Command(
        "bench",
        "lora_lab.bench:main",
        "speed, against peft + transformers.Trainer and against dense SVDs",
        ("lora-lab bench training", "lora-lab bench section7 --size 1024 --compare 2048 --layers 2"),
    ),
)


def available() -> dict[str, Command]:
    """The commands whose module is there."""
    return {command.name: command for command in COMMANDS if _is_there(command.where.partition(":")[0])}


def _is_there(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:  # of the package that it would be in
        return False
