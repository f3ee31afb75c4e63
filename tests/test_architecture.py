"""The house: arrows point downwards only, there are no circles, and mathematics neither reads files nor draws."""

import ast
import graphlib
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
BELOW = {  # package -> what it may import of this repository
    "lora": {"lora"},
    "experiments": {"experiments", "lora"},
    "analysis": {"analysis", "experiments", "lora"},
    "bench": {"bench", "analysis", "experiments", "lora"},
}
NOT_MATHS = {"pathlib", "os", "io", "csv", "json", "tempfile", "matplotlib", "seaborn", "PIL", "experiments"}
FILES = [path for package in BELOW for path in sorted((ROOT / package).rglob("*.py"))]
MODULES = {".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path for path in FILES}


def imports(module: str, everywhere: bool) -> Iterator[str]:
    """The modules that a module imports, from anywhere in it, or only those that importing it runs."""
    todo: list[ast.AST] = [ast.parse(MODULES[module].read_text(encoding="utf-8"))]
    while todo:
        node = todo.pop()
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{module}: a relative import"
            inside = [f"{node.module}.{alias.name}" for alias in node.names]
            yield from (name if name in MODULES else str(node.module) for name in inside)
        later = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        types = isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        todo += ast.iter_child_nodes(node) if everywhere or not (later or types) else getattr(node, "orelse", [])


def test_arrows_point_downwards() -> None:
    arrows = [(module, name) for module in MODULES for name in imports(module, everywhere=True)]
    wrong = [
        f"{module} -> {name}"
        for module, name in arrows
        if (top := name.partition(".")[0]) in BELOW and top not in BELOW[module.partition(".")[0]]
    ]
    assert not wrong, wrong


def test_the_core_needs_no_more_than_the_readme_says() -> None:
    arrows = {
        name.partition(".")[0]
        for module in MODULES
        if module.startswith("lora")
        for name in imports(module, everywhere=True)
    }
    assert arrows - sys.stdlib_module_names == {"lora", "torch", "numpy", "safetensors"}


def test_no_circles() -> None:
    graph = {module: {name for name in imports(module, everywhere=False) if name in MODULES} for module in MODULES}
    graphlib.TopologicalSorter(graph).prepare()  # raises CycleError, with the circle


def test_maths_neither_reads_files_nor_draws() -> None:
    maths = [module for module in MODULES if module.startswith("analysis.maths.")]
    arrows = [(module, name) for module in maths for name in imports(module, everywhere=True)]
    assert arrows
    wrong = [f"{module} -> {name}" for module, name in arrows if name.partition(".")[0] in NOT_MATHS]
    wrong += [f"{m} -> {name}" for m, name in arrows if name.startswith("analysis.") and name not in maths]
    assert not wrong, wrong
