"""How large the packages are, and how much one opens to understand a study: `python tests/structure.py [STUDY…]`.

Read from the files alone (nothing is imported): lines, modules, arrows, floors (modules on the longest chain of imports
within a package) and, for a study, the modules of analysis that its own imports lead to.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Collection, Iterator, Mapping
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGES = ("lora", "experiments", "analysis", "bench", "lora_lab")
Graph = Mapping[str, frozenset[str]]


def modules() -> dict[str, Path]:
    """Dotted name -> file, of all modules of the packages."""
    files = [path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))]
    return {".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path for path in files}


def imports(path: Path, known: Collection[str], deep: bool = True) -> frozenset[str]:
    """What a file imports, those among `known` by their whole names; `deep`: in its functions and for types too."""
    nodes = _nodes(ast.parse(path.read_text(encoding="utf-8")), deep)
    return frozenset(name for node in nodes for name in _names(node, known))


def graph(deep: bool = True) -> dict[str, frozenset[str]]:
    """Module -> the modules of these packages that it imports."""
    known = modules()
    return {name: (imports(path, known, deep) & known.keys()) - {name} for name, path in known.items()}


def lines(path: Path) -> int:
    return len(path.read_text(encoding="utf-8").splitlines())


def floors(arrows: Graph) -> int:
    """Modules on the longest chain of imports. Raises CycleError if there is a circle."""
    height: dict[str, int] = {}
    for name in TopologicalSorter(arrows).static_order():
        height[name] = 1 + max((height[other] for other in arrows[name]), default=0)
    return max(height.values())


def reached(start: str, arrows: Graph) -> set[str]:
    """`start` and all modules that its imports lead to."""
    seen: set[str] = set()
    waiting = [start]
    while waiting:
        name = waiting.pop()
        if name not in seen:
            seen.add(name)
            waiting += arrows[name]
    return seen


def _nodes(tree: ast.AST, deep: bool) -> Iterator[ast.AST]:
    for node in ast.iter_child_nodes(tree):
        later = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        types = isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        if deep or not (later or types):
            yield node
            yield from _nodes(node, deep)


def _names(node: ast.AST, known: Collection[str]) -> Iterator[str]:
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        members = [f"{node.module}.{alias.name}" for alias in node.names]
        yield from (member if member in known else str(node.module) for member in members)


def _within(package: str, arrows: Graph) -> dict[str, frozenset[str]]:
    inside = {name for name in arrows if name.split(".")[0] == package}
    return {name: arrows[name] & inside for name in inside}


def main(studies: list[str]) -> None:
    known, arrows = modules(), graph(deep=False)
    for package in PACKAGES[:3]:
        own = _within(package, arrows)
        size = sum(lines(known[name]) for name in own)
        try:
            high: int | str = floors(own)
        except CycleError as error:
            high = f"a circle ({' -> '.join(error.args[1])})"
        print(f"{package}: {size} lines, {len(own)} modules, {sum(map(len, own.values()))} arrows, floors: {high}")
    print(f"the product: {sum(lines(path) for name, path in known.items() if not name.startswith('bench'))} lines")
    for study in studies:
        start = f"analysis.studies.{study}"
        start = f"{start}.study" if f"{start}.study" in known else start
        opened = {name for name in reached(start, arrows) if name.startswith("analysis.") and lines(known[name])}
        print(f"{study}: {len(opened)} files, {sum(lines(known[name]) for name in opened)} lines of analysis")


if __name__ == "__main__":
    main(sys.argv[1:])
