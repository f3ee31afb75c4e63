"""The house: arrows point downwards only, there are no circles, and mathematics neither reads files nor draws."""

import graphlib
import sys

from tests.structure import graph, imports, modules

BELOW = {  # package -> what it may import of this repository
    "lora": {"lora"},
    "experiments": {"experiments", "lora"},
    "analysis": {"analysis", "experiments", "lora"},
    "bench": {"bench", "analysis", "experiments", "lora"},
    "lora_lab": {"lora_lab", "analysis", "experiments"},
}
NOT_MATHS = {"pathlib", "os", "io", "csv", "json", "tempfile", "matplotlib", "seaborn", "PIL", "experiments"}
MODULES = modules()
ARROWS = [(module, name) for module, path in MODULES.items() for name in imports(path, MODULES)]


def top(name: str) -> str:
    return name.partition(".")[0]


def test_arrows_point_downwards() -> None:
    wrong = [
        f"{module} -> {name}" for module, name in ARROWS if top(name) in BELOW and top(name) not in BELOW[top(module)]
    ]
    assert not wrong, wrong


def test_the_core_needs_no_more_than_the_readme_says() -> None:
    needed = {top(name) for module, name in ARROWS if top(module) == "lora"}
    assert needed - sys.stdlib_module_names == {"lora", "torch", "numpy", "safetensors"}


def test_no_circles() -> None:
    graphlib.TopologicalSorter(graph(deep=False)).prepare()  # raises CycleError, with the circle


def test_maths_neither_reads_files_nor_draws() -> None:
    maths = [(module, name) for module, name in ARROWS if module.startswith("analysis.maths.")]
    assert maths
    wrong = [f"{module} -> {name}" for module, name in maths if top(name) in NOT_MATHS]
    wrong += [
        f"{m} -> {name}" for m, name in maths if top(name) == "analysis" and not name.startswith("analysis.maths.")
    ]
    assert not wrong, wrong
