"""The folder of a study's results: the study's own, or one beside it for a model or data that the user has named."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from pathlib import Path

from omegaconf import DictConfig

from experiments import tasks
from experiments.paths import user_path, write

MARK = "@"  # between a study and the place of its runs, in the name of a folder
ORIGIN = ".origin"  # in such a folder: which files it is of


def study_of(folder: Path) -> str:
    """The study whose results a folder holds: `rank_ablation` of `rank_ablation@reviews`."""
    return folder.name.partition(MARK)[0]


def set_study_dir(configs: Sequence[DictConfig], given: Sequence[str]) -> None:
    """Give the jobs of a sweep their folder, `study_dir`. `given`: the overrides that the user has typed.

    A model or a task that is named there is in the folder's name: `rank_ablation@minilm_reviews`, so that its results
    stand beside those of others. Two models or files of one name, in different places, have two folders.
    """
    if not configs[0].study.name:
        return
    keys = {override.lstrip("+~").partition("=")[0] for override in given}
    models = [str(config.model.path) for config in configs] if keys & {"model", "model.path", "model.name"} else []
    paths = {f"task.{field}" for field in tasks.PATH_FIELDS if field != "data_dir"}  # which is where a task lies
    data = [_data(config) for config in configs] if keys & {"task", "task.name", *paths} else []
    called = (user_path(str(config.model.name)).name or "model" for config in (configs if models else ()))
    names = [*dict.fromkeys(called), *dict.fromkeys(name for name, _ in data)]
    if not names:
        return
    origin = "\n".join([*dict.fromkeys(models), *dict.fromkeys(place for _, place in data)])
    folder = _free(Path(f"{configs[0].study_dir}{MARK}{'_'.join(map(plain, names))}"), origin)
    for config in configs:
        config.study_dir = str(folder)


def _data(config: DictConfig) -> tuple[str, str]:
    """A task's name, and where its data are."""
    places = [str(config.task[field]) for field in tasks.PATH_FIELDS if config.task.get(field) is not None]
    name = config.task.name or (Path(places[0]).stem if places else "task")
    return str(name), "|".join([str(name), *(str(user_path(place).absolute()) for place in places)])


def plain(name: str) -> str:
    """A name as a part of a folder's: what a shell or another system would stumble over is a dash."""
    return re.sub(r"[^\w.+-]+", "-", name).strip("-.") or "x"


def _free(folder: Path, origin: str) -> Path:
    """`folder`, or one of a longer name if results of other files have that."""
    mark = folder / ORIGIN
    if mark.exists() and mark.read_text(encoding="utf-8") != origin:
        folder = folder.with_name(f"{folder.name}-{hashlib.sha256(origin.encode()).hexdigest()[:4]}")
        mark = folder / ORIGIN
    if not mark.exists():
        write(mark, origin)
    return folder
