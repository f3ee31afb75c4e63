from pathlib import Path

import pytest
from pages import make_results

from analysis.report import pictures

encode, ENCODED = pictures.encode, dict[tuple[bytes, int, int], pictures.Picture]()


@pytest.fixture(autouse=True)
def encoded_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same picture is in many reports of these tests: it is encoded once, which is what takes the time."""

    def once(path: Path, width: int, quality: int) -> pictures.Picture:
        key = (path.read_bytes(), width, quality)
        if key not in ENCODED:
            ENCODED[key] = encode(path, width, quality)
        return ENCODED[key]

    monkeypatch.setattr(pictures, "encode", once)


@pytest.fixture
def results(tmp_path: Path) -> Path:
    folder = tmp_path / "results" / "desk"
    make_results(folder)
    return folder
