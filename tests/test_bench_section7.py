"""Section 7 at scale: the numbers are those of dense SVDs, whatever W comes from, and one W is in memory at a time."""

import itertools
import weakref
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from tiny_models import tiny_model

from analysis.weights.pretrained import Weights
from analysis.weights.sites import Site
from bench import projections, section7
from bench.projections import Single

Q = Site("0", "q")


def dense_phi(first: np.ndarray, second: np.ndarray, i: int, j: int) -> float:
    return float(np.linalg.norm(first[:, :i].T @ second[:, :j]) ** 2 / min(i, j))


@pytest.mark.parametrize("shape", [(300, 300), (260, 330), (330, 260)])
@pytest.mark.parametrize("spectrum", projections.SPECTRA)
def test_numbers_are_those_of_dense_svds(spectrum: str, shape: tuple[int, int]) -> None:
    _, square = next(projections.drawn(330, 1, spectrum, seed=3))
    W = np.ascontiguousarray(square[: shape[0], : shape[1]])
    updates = projections.adapters(Q, shape, 16, seed=5)
    found = section7.from_factors(W, updates)

    exact = W.astype(np.float64)
    U_w, _, Vh_w = np.linalg.svd(exact)
    expected = {"norm_w": np.linalg.norm(exact)}
    svds = {}
    for name, update in updates.items():
        A, B = update.factors()
        delta_w, r = B @ A, len(A)
        U, _, Vh = np.linalg.svd(delta_w)
        svds[name] = U[:, :r], Vh[:r].T
        projection = np.linalg.norm(U[:, :r].T @ exact @ Vh[:r].T)
        expected |= {
            f"norm_delta_w, {name}": np.linalg.norm(delta_w),
            f"projection_delta_w, {name}": projection,
            f"amplification, {name}": np.linalg.norm(delta_w) / projection,
            f"projection_w, r={r}": np.linalg.norm(U_w[:, :r].T @ exact @ Vh_w[:r].T),
        }
    for name, value in expected.items():
        assert found.norms[name] == pytest.approx(value, rel=1e-5), name
    chance = {name: value for name, value in found.norms.items() if name not in expected}
    assert list(chance) == ["projection_random, r=8", "projection_random, r=16"]
    # The root of the mean square is r ||W||_F / sqrt(d k); one draw scatters about it by less than a half.
    for r, value in zip((8, 16), chance.values(), strict=True):
        assert value == pytest.approx(r * np.linalg.norm(exact) / np.prod(shape) ** 0.5, rel=0.5)

    pairs = {f"W, {name}": ((U_w, Vh_w.T), svd) for name, svd in svds.items()}
    pairs["r8, r16"] = svds["r8"], svds["r16"]
    pairs["r16, r16, seed 1"] = svds["r16"], svds["r16, seed 1"]
    assert set(found.phi) == {f"{name}, {side}" for name in pairs for side in ("left", "right")}
    for name, (first, second) in pairs.items():
        for side, one, other in zip(("left", "right"), first, second, strict=True):
            grid = found.phi[f"{name}, {side}"]
            for i, j in itertools.product((1, 3, 8, grid.shape[0]), (1, 2, grid.shape[1])):
                assert grid[i - 1, j - 1] == pytest.approx(dense_phi(one, other, i, j), abs=1e-5), (name, side, i, j)


def test_falling_spectrum_is_what_it_says() -> None:
    _, W = next(projections.drawn(600, 1, "falling"))
    S = np.linalg.svd(W.astype(np.float64), compute_uv=False)
    slope = np.polyfit(np.log(np.arange(2, 65)), np.log(S[1:64]), 1)[0]
    assert slope == pytest.approx(-0.45, abs=0.05)


def test_weights_and_adapters_are_drawn_anew_at_each_site_and_alike_at_each_call() -> None:
    first, second = ([W for _, W in projections.drawn(20, 2, "flat")] for _ in range(2))
    assert all(np.array_equal(one, other) for one, other in zip(first, second, strict=True))
    assert not any(np.array_equal(one, other) for one, other in itertools.combinations(first, 2))
    assert [site for site, _ in projections.drawn(20, 2, "flat")] == [
        Site("0", "q"), Site("0", "v"), Site("1", "q"), Site("1", "v"),
    ]  # fmt: skip
    here, again, there = (projections.adapters(site, (20, 20), 12) for site in (Q, Q, Site("0", "v")))
    factors = {name: update.factors() for name, update in here.items()}
    assert [A.shape for A, _ in factors.values()] == [(8, 20), (12, 20), (12, 20)]
    assert not np.array_equal(factors["r12"][0], factors["r12, seed 1"][0])
    assert all(np.array_equal(factors[name][1], update.factors()[1]) for name, update in again.items())
    assert not any(np.array_equal(factors[name][1], update.factors()[1]) for name, update in there.items())


def test_one_projection_is_in_memory_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    alive: list[weakref.ref[Single]] = []
    draw = projections._draw

    def watched(size: int, spectrum: str, seed: np.random.SeedSequence) -> Single:
        assert all(reference() is None for reference in alive)
        W = draw(size, spectrum, seed)
        alive.append(weakref.ref(W))
        return W

    monkeypatch.setattr(projections, "_draw", watched)
    row = section7.layers(projections.drawn(40, 3, "flat"), 6, 4, "flat")
    assert len(alive) == 6
    assert row["projections"] == 6


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_a_sharded_checkpoint_takes_the_same_path(kind: str, tmp_path: Path) -> None:
    model = tiny_model(kind)
    model.save_pretrained(tmp_path, max_shard_size="20KB")
    assert len(list(tmp_path.glob("*.safetensors"))) > 1
    weights = Weights.open(str(tmp_path))
    places = projections.sites(weights)
    assert {site.weight_type for site in places} == {"q", "v"}

    def in_memory() -> Iterator[tuple[Site, Single]]:
        for site in places:
            layer = model.base_model.get_submodule(weights.sites[site][0]).weight.detach()
            if kind == "gpt2":  # a Conv1D of q, k and v together, which holds the transpose
                width = layer.shape[0]
                start = {"q": 0, "v": 2 * width}[site.weight_type]
                layer = layer.T[start : start + width].contiguous()
            yield site, layer.numpy()

    stored = dict(section7.walk(projections.stored(weights, places), 4))
    kept = dict(section7.walk(in_memory(), 4))
    assert list(stored) == places
    for site, found in stored.items():
        assert max(section7.differences(found, kept[site])) < 1e-6, "fp32 sums, in the order of memory"


def test_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    threads = torch.get_num_threads()
    arguments = ["--compare", "200", "--size", "96", "--layers", "2", "--rank", "12", "--threads", str(threads)]
    assert section7.main([*arguments, "--out", str(tmp_path)]) == 0
    table = pd.read_csv(tmp_path / "section7.csv")
    assert table["W"].tolist() == ["200 x 200"] * 2 + ["96 x 96"]
    assert table["weights"].tolist() == ["flat", "falling", "falling"]
    assert table["projections"].tolist() == [1, 1, 4]
    both = table[:2]
    assert (both["norms differ by"] < 1e-5).all() and (both["phi differs by"] < 1e-5).all()
    assert (both["of which W, s"] <= both["dense, s"]).all()
    assert table.loc[2, "dense, s":].isna().all()
    text = (tmp_path / "section7.md").read_text()
    assert "r = 12 and of one with r = 8" in text and f"with {threads} threads" in text
    said = capsys.readouterr().out
    assert "200, delta_w, r12, seed 1: dense SVD" in said and "1 of 4 projections: layer 0, q" in said
    assert said.splitlines()[-1] == f"{tmp_path}/section7.csv"


def test_command_line_with_a_checkpoint(tmp_path: Path) -> None:
    model = tiny_model("bert")
    model.save_pretrained(tmp_path / "model")
    arguments = ["--compare", "--rank", "4", "--checkpoint", str(tmp_path / "model"), "--out", str(tmp_path)]
    assert section7.main(arguments) == 0
    [row] = pd.read_csv(tmp_path / "section7.csv").to_dict("records")
    layers = model.config.num_hidden_layers
    assert (row["projections"], row["weights"]) == (2 * layers, str(tmp_path / "model"))
    assert row["W"] == f"{model.config.hidden_size} x {model.config.hidden_size}"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--rank", "100", "--size", "96"], "error: --rank 100 is more than a projection of 96 x 96 has"),
        (["--compare", "32", "--size", "96"], "error: --rank 64 is more than a projection of 32 x 32 has"),
        (["--layers", "0"], "error: argument --layers: '0' is no whole number of at least 1"),
        (["--spectrum", "white"], "error: --spectrum = white; there are: flat, falling"),
        (["--checkpoint", "no/such/folder/here"], "error: "),
    ],
)
def test_bad_input_is_one_line(
    arguments: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert section7.main([*arguments, "--out", str(tmp_path)]) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith(message)
    assert not list(tmp_path.iterdir())


def test_a_checkpoint_must_have_what_is_asked_of_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tiny_model("bert").save_pretrained(tmp_path / "model")
    assert section7.main(["--compare", "--rank", "64", "--checkpoint", str(tmp_path / "model")]) == 2
    assert "--rank 64 is more than" in capsys.readouterr().err
