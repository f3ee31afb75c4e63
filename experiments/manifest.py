"""Whether the folder of a run is as it was written: manifest.json, written last, has size and SHA-256 of each file."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

import yaml

MANIFEST = "manifest.json"


def damage(folder: Path) -> str:
    """What is wrong with the folder of a stored run, by the sizes of its files, or nothing.

    A run is whole if each file of its manifest is there with its size, and metrics.json with its hash. Runs of before
    there were manifests need a readable metrics.json alone. Hashes of large files are compared by `verify`.
    """
    try:
        if not isinstance(json.loads((folder / "metrics.json").read_bytes()), dict):
            return "metrics.json is no object"
        config = yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8"))
        if not isinstance(config, dict):
            return "config.yaml is no mapping"
        manifest = folder / MANIFEST
        expected = json.loads(manifest.read_bytes()) if manifest.exists() else {}
        for name, (size, found) in expected.items():
            file = folder / name
            if not file.is_file():
                return f"{name} is missing"
            if file.stat().st_size != size:
                return f"{name} has {file.stat().st_size} bytes, not {size}"
            if name == "metrics.json" and digest(file) != found:
                return f"{name} has changed"
    except (OSError, ValueError, TypeError, AttributeError, yaml.YAMLError) as error:
        return f"{type(error).__name__}: {' '.join(str(error).split())}"
    return ""


def verify(folder: Path) -> str:
    """As `damage`, with the hash of every file."""
    found = damage(folder)
    if not found and (folder / MANIFEST).exists():
        for name, (_, expected) in json.loads((folder / MANIFEST).read_bytes()).items():
            if digest(folder / name) != expected:
                return f"{name} has changed"
    return found


def seal(folder: Path) -> None:
    """Write the manifest, and everything to the disk: a rename that outlives a power cut must not show empty files."""
    files = sorted(file for file in folder.rglob("*") if file.is_file())
    manifest = {str(file.relative_to(folder)): [file.stat().st_size, digest(file)] for file in files}
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=0))
    for place in [*files, folder / MANIFEST, *(path for path in folder.rglob("*") if path.is_dir()), folder]:
        sync(place)


def digest(file: Path) -> str:
    """SHA-256 of a file, in hex."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def sync(place: Path) -> None:
    """Returns when a file or folder is on the disk."""
    opened = os.open(place, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)
