"""Names of models and data: near ones here first, then the hub, which may be there, silent, or switched off."""

import http.server
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from huggingface_hub import constants

from experiments import hub, names
from lora.config import InputError


@pytest.fixture(autouse=True)
def untouched(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """No cache, an online process, and what the hub says is asked anew."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    hub.reach.cache_clear()
    yield
    hub.reach.cache_clear()


@pytest.fixture
def answering(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[int, str], list[str]]]:
    """Starts a hub that answers every request with a status and an error code; gives the list of paths it is asked."""
    asked: list[str] = []
    servers = []

    def start(status: int, code: str = "") -> list[str]:
        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                if "org" in self.path:  # the library asks other things too
                    asked.append(self.path)
                body = b'{"id": "org/there", "siblings": []}'
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                if code:
                    self.send_header("X-Error-Code", code)
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
        monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{server.server_port}")
        return asked

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def refusal(name: str, *also: str) -> str:
    with pytest.raises(InputError) as caught:
        hub.require(name, also=also)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_the_hub_has_it(answering: Callable[..., list[str]]) -> None:
    asked = answering(200)
    hub.require("org/there")
    hub.require("org/there")
    assert asked == ["/api/models/org/there"]  # once for a name


def test_the_hub_does_not_have_it(answering: Callable[..., list[str]]) -> None:
    answering(404, "RepoNotFound")
    message = refusal("roberta-bas")
    assert message.startswith("there is no model roberta-bas here; did you mean roberta_base")
    assert "Looked at: folders, the models of this suite (deberta_v2_xxlarge, " in message
    assert message.endswith("the hub's cache; the hub has no such model, or keeps it private")
    assert not constants.HF_HUB_OFFLINE


@pytest.mark.parametrize(("status", "offline"), [(403, False), (429, False), (503, True)])
def test_other_answers(answering: Callable[..., list[str]], status: int, offline: bool) -> None:
    """What the libraries would ask again and again is no answer; of the rest, they say what is wrong."""
    answering(status)
    assert bool(hub.reach("org/there")) is offline
    assert constants.HF_HUB_OFFLINE is offline


def test_a_silent_hub_is_waited_for_once(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{silent.getsockname()[1]}")
        monkeypatch.setattr(hub, "SECONDS", 0.2)
        assert refusal("minlm").endswith("the hub did not answer within 0.2 s")
        monkeypatch.setattr(hub, "SECONDS", 3600)  # so that a second wait would not pass unseen
        assert "did you mean minilm (asset:minilm)?" in refusal("minlm-")
        assert "offline" in hub.reach("nyu-mll/glue", "dataset")


def test_a_hub_that_cannot_be_reached(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))  # bound, but not listening: refused
        monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{closed.getsockname()[1]}")
        assert "the hub cannot be reached (ConnectError" in refusal("nosuch")


def test_offline_asks_nobody_and_reads_the_cache(
    monkeypatch: pytest.MonkeyPatch, answering: Callable[..., list[str]], tmp_path: Path
) -> None:
    asked = answering(200)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert refusal("org/there").endswith("the hub is not asked: offline (HF_HUB_OFFLINE)")
    snapshot = tmp_path / "cache" / "models--org--there" / "snapshots" / "0123"
    snapshot.mkdir(parents=True)
    (snapshot / "config.json").write_text("{}")
    hub.require("org/there")
    assert hub.locate("org/there") == "org/there"
    assert asked == []


def test_names_that_no_hub_has(answering: Callable[..., list[str]], tmp_path: Path) -> None:
    asked = answering(200)
    (tmp_path / "runs" / "0a1b2c3d4e5f").mkdir(parents=True)
    near = f"{tmp_path}/runs/0a1b2c3d4e5f"
    assert f"did you mean {near}?" in refusal(near[:-1])
    assert "did you mean 0a1b2c3d4e5f?" in refusal("a/b/0a1b2c3d4e5", "0a1b2c3d4e5f")
    assert asked == []


def test_folders(tmp_path: Path) -> None:
    (tmp_path / "my_model").mkdir()
    assert hub.locate(str(tmp_path / "my_model")) == str(tmp_path / "my_model")
    with pytest.raises(InputError, match="does not exist: .*did you mean my_model, which is beside it"):
        hub.locate(str(tmp_path / "my_modle"))
    with pytest.raises(InputError, match="no config 'lama-7b' ships; did you mean llama-7b or llama-70b"):
        hub.locate("config:lama-7b")


@pytest.mark.parametrize(
    ("name", "known", "expected"),
    [
        ("minilmm", ["smollm2", "minilm"], ["minilm"]),
        ("Roberta-Base", ["roberta_base", "gpt2_large"], ["roberta_base"]),
        ("sst2", ["glue/sst2", "e2e"], ["glue/sst2"]),
        ("glue/sst", ["text/sst2", "glue/sst2", "e2e"], ["glue/sst2"]),
        ("xyz", ["minilm"], []),
        ("a", [], []),
    ],
)
def test_near_names(name: str, known: list[str], expected: list[str]) -> None:
    assert names.near(name, known)[: len(expected) or 1] == expected


def test_no_wait_is_measured_in_minutes() -> None:
    """What the suite waits in all, whatever the libraries' own limits are."""
    assert hub.SECONDS <= 10
    assert hub.reach("a/b/c") == "the hub has no such names"  # such a name is not asked for
