"""The code that a study is derived by: its own module and what that imports, without comments and docstrings.

Nothing is imported to find it, so that a study that is current is answered at once.
"""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Iterable, Iterator
from importlib.metadata import version
from pathlib import Path
from types import CodeType

ROOT = Path(__file__).parents[2]
PACKAGES = ("analysis", "lora")  # of ours, in which imports are followed
OTHERS = ("numpy", "scipy", "pandas", "matplotlib", "seaborn")  # whose versions tables and figures depend on
ALWAYS = "analysis.kit.safe"  # goes over what every study has written


def digest(study: str, root: Path = ROOT) -> str:
    """Hash of what the modules of a study do, of the paper's tables that they name, and of the versions of OTHERS."""
    found = hashlib.sha256()
    texts: set[str] = set()
    for name, text in sorted(modules(study, root).items()):
        # Compiled, which leaves out docstrings and asserts, and is many times as fast as ast.dump.
        parts = list(_parts(compile(text, name, "exec", dont_inherit=True, optimize=2)))
        found.update("\n".join([name, *map(repr, parts)]).encode())
        texts |= {part for part in parts if isinstance(part, str)}
    for path in sorted((root / "analysis" / "paper").glob("*.csv")):
        if any(path.stem in text for text in texts):
            found.update(path.read_bytes())
    found.update(" ".join(map(version, OTHERS)).encode())
    return found.hexdigest()


def _parts(code: CodeType) -> Iterator[object]:
    """All that a code object does, without the lines that it is on."""
    yield from (code.co_qualname, code.co_code, code.co_exceptiontable, code.co_argcount, code.co_kwonlyargcount)
    yield from (code.co_flags, code.co_names, code.co_varnames, code.co_freevars, code.co_cellvars)
    yield from (part for constant in code.co_consts for part in _constant(constant))


def _constant(value: object) -> Iterator[object]:
    if isinstance(value, CodeType):
        yield from _parts(value)
    elif isinstance(value, tuple):
        yield len(value)
        yield from (part for one in value for part in _constant(one))
    else:  # sets have no order
        yield sorted(map(repr, value)) if isinstance(value, frozenset) else value


def modules(study: str, root: Path = ROOT) -> dict[str, str]:
    """The text of a study's modules by name: its own, and all in PACKAGES that they import, be it in a function."""
    own = f"analysis.studies.{study}"
    left = [f"{own}.study" if _path(f"{own}.study", root) else own, ALWAYS]
    found: dict[str, str] = {}
    while left:
        name = left.pop()
        if name in found or name.partition(".")[0] not in PACKAGES:
            continue
        path = _path(name, root)
        if path is None:
            continue
        found[name] = path.read_text(encoding="utf-8")
        left += [".".join(name.split(".")[:end]) for end in range(1, name.count(".") + 1)]  # packages are run too
        left += _imported(ast.parse(found[name]).body, name if path.name == "__init__.py" else name.rpartition(".")[0])
    return found


def _path(name: str, root: Path) -> Path | None:
    place = root.joinpath(*name.split("."))
    paths = (place.with_suffix(".py"), place / "__init__.py")
    return next((path for path in paths if path.is_file()), None)


def _imported(body: Iterable[ast.stmt], package: str) -> Iterator[str]:
    """Names of all that may be a module, in statements of a module of `package`."""
    for node in body:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: 1 - node.level or None] if node.level else []
            whole = ".".join([*above, *([node.module] if node.module else [])])
            yield whole
            yield from (f"{whole}.{alias.name}" for alias in node.names)
        for field in ("body", "orelse", "finalbody", "handlers", "cases"):
            yield from _imported(getattr(node, field, ()), package)
