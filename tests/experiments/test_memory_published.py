"""Tables of planned memory: shipped configs, others' figures, what fits, and the store of plans."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st

from experiments import names
from experiments.measure.memory import fits, paper_figures, plans, published
from experiments.measure.memory.contenders import CONTENDERS, Contender, setup, traits
from experiments.measure.memory.network import network_config
from experiments.measure.memory.plans import Plans, identity
from experiments.measure.memory.schemas import SETUPS
from experiments.measure.memory.setup import Plan, Setup
from experiments.measure.memory.units import human
from lora.config import InputError

PUBLISHED = {  # billions of parameters, as published: exact, or in digits of the model's paper
    "llama-7b": (6.738, 3), "llama-13b": (13.016, 3), "llama-30b": (32.529, 3), "llama-70b": (68.977, 3),
    "mixtral-8x7b": (46.7, 1), "mixtral-8x22b": (140.6, 1), "gpt3-175b": (174.6, 1),
}  # fmt: skip


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A folder with the config of a small Llama."""
    folder = tmp_path_factory.mktemp("models") / "tiny-llama"
    transformers.LlamaConfig(
        hidden_size=64, intermediate_size=176, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
        vocab_size=96, max_position_embeddings=256, architectures=["LlamaForCausalLM"],
    ).save_pretrained(folder)  # fmt: skip
    return str(folder)


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> list[Setup]:
    """Plans are made up, and the setups they were asked for are listed: 16 bytes a parameter of AMP, else 2."""
    asked: list[Setup] = []

    def plan(wanted: Setup) -> Plan:
        asked.append(wanted)
        params = traits(wanted.model["path"]).parameters
        trained = params if wanted.method["name"] == "full" else params // 1000
        states = {"weights": 2 * params, "master": 0, "gradients": 2 * trained, "optimizer": 4 * trained}
        if wanted.precision == "amp":
            states |= {"master": 4 * trained, "optimizer": 8 * trained}
        rest = {"activations": 10**6 * wanted.batch * wanted.length, "logits": 10**9, "temporary": 5}
        peak = sum(states.values()) + sum(rest.values())
        return Plan(params, trained, 2 * trained, **states, **rest, peak=peak, notes=("a note", "and; another"))

    monkeypatch.setattr("experiments.measure.memory.planner.plan", plan)
    return asked


@pytest.mark.parametrize("name", PUBLISHED)
def test_shipped_configs_have_the_published_number_of_parameters(name: str) -> None:
    billions, digits = PUBLISHED[name]
    assert round(traits(name).parameters / 1e9, digits) == billions


def test_every_shipped_config_is_tested_and_its_file_is_a_plain_config() -> None:
    assert list(names.shipped()) == sorted(PUBLISHED)
    config = network_config("config:llama-70b")
    assert (config.num_key_value_heads, config.num_attention_heads, config.model_type) == (8, 64, "llama")
    with torch.device("meta"):
        layer = transformers.AutoModel.from_config(config).layers[0]
    assert layer.self_attn.k_proj.weight.shape == (1024, 8192)


def test_traits_tell_language_models_from_classifiers_and_rotary_from_learnt_positions(tiny: str) -> None:
    assert traits(tiny)[1:] == ("q+k+v+o+gate+up+down", True, 256, 1 << 20, None)
    assert traits("minilm")[1:] == ("q+k+v+o+up+down", False, 512, 512, None)
    assert traits("gpt3-175b")[1:] == ("q+k+v+o+up+down", True, 2048, 2048, None)
    assert traits("mixtral-8x7b").weight_types == "q+k+v+o"  # experts are one tensor, no linear module


def test_estimates_are_llama_factorys() -> None:
    table = published.estimates().set_index(["method", "bits", "size"])["bytes"]
    assert len(table) == 7 * 6
    assert table["Full AMP", "AMP", "8x22B"] == 2_400_000_000_000
    assert table["QLoRA", "4", "7B"] == 6_000_000_000
    assert [published.nominal(size) for size in ("7B", "8x7B", "8x22B")] == [7 * 10**9, 56 * 10**9, 176 * 10**9]


def test_differences_from_the_estimates_are_explained_to_the_byte(tmp_path: Path, counted: list[Setup]) -> None:
    table = published.beside(Plans(tmp_path), ["7B", "8x7B"])
    assert len(table) == 2 * len(CONTENDERS)
    parts = table[["by_parameters", "by_states", "by_rest"]]
    assert (parts.sum(axis=1) == table["peak"] - table["theirs"]).all()
    row = table.set_index(["ours", "size"]).loc["full, AMP", "7B"]
    assert row["by_states"] == -2 * row["total_params"]  # 16 bytes, not 18
    assert "16 bytes a parameter (weights 2, fp32 copy 4, gradients 2, optimizer 8), theirs 18 (" in row["why"]
    assert "6.738B parameters, not 7B" in row["why"]
    mixture = table.set_index(["ours", "size"]).loc["full, AMP", "8x7B"]
    assert mixture["why"].index("46.7B parameters, not 56B, its experts share") < mixture["why"].index("16 bytes")
    last = table.iloc[-1]["why"]
    assert (
        "2.0 GB more at the peak (activations 1.0 GB, logits 1.0 GB, batch 1, length 1024), theirs leaves 4.0 GB"
        in last
    )
    assert "experts are no linear layers, and stay in 16 bits), theirs 0.25 (weights in 2 bits)" in last
    assert "theirs is 108.0 GB below its own rule" in mixture["why"]
    assert {asked.checkpointing for asked in counted} == {True}


def test_plans_are_made_once_and_read_again(tmp_path: Path, counted: list[Setup], tiny: str) -> None:
    wanted = setup(tiny, CONTENDERS[0], 2, 16, checkpointing=False)
    first = Plans(tmp_path)(wanted)
    again = Plans(tmp_path)
    assert again(wanted) == first and len(counted) == 1
    again(setup(tiny, CONTENDERS[0], 2, 16, checkpointing=True))
    assert len(counted) == 2 and len(again.results.rows) == 2
    (tmp_path / "setups.csv").write_text("setup,model\n1")
    with pytest.raises(InputError, match=r"setups.csv is damaged; delete it"):
        Plans(tmp_path)


def test_a_changed_config_in_the_same_folder_is_another_setup(tiny: str, tmp_path: Path) -> None:
    wanted = setup(tiny, CONTENDERS[0], 2, 16, checkpointing=False)
    before = identity(wanted)
    config = transformers.AutoConfig.from_pretrained(tiny)
    config.save_pretrained(tmp_path)
    moved = Setup(**{**vars(wanted), "model": {**wanted.model, "path": str(tmp_path)}})
    assert identity(moved) == before
    config.num_hidden_layers = 3
    config.save_pretrained(tmp_path)
    assert identity(moved) != before


def test_a_row_names_the_setup() -> None:
    wanted = setup("smollm2", CONTENDERS[-1], 4, 32, checkpointing=False)
    row = plans.row(wanted, Plan(9, 3, 6, 1, 2, 3, 4, 5, 6, 7, 20, ("x", "y")))
    assert list(row) == SETUPS.names
    assert (row["model"], row["method"], row["quantization"], row["targets"]) == ("smollm2", "lora", "int2", "31")
    assert row["settings"] == "r=8, q+k+v+o+gate+up+down" and row["notes"] == "x | y"


def test_human_units() -> None:
    assert [human(size) for size in (0, 999, 999.6, 12_345, 13_476_831_744, 2.8e12, -5e6)] == [
        "0 B", "999 B", "1.00 kB", "12.3 kB", "13.5 GB", "2.80 TB", "-5.00 MB",
    ]  # fmt: skip


phase = st.tuples(st.integers(0, 10**9), st.integers(0, 10**6), st.integers(0, 10**3))


@given(
    st.lists(phase, min_size=1, max_size=3),
    st.lists(st.integers(1, 10**10), min_size=1, max_size=4),
    st.integers(1, 1000),
    st.integers(0, 10**6),
)
@settings(max_examples=100, deadline=None)
def test_largest_is_what_a_search_one_by_one_finds(
    phases: list[tuple[int, int, int]], capacities: list[int], most: int, less: int
) -> None:
    calls = []
    sizes = [max(a + b * x + c * x * x for a, b, c in phases) for x in range(1, most + 1)]
    sizes[0] -= less  # one row takes less than what the others say

    def peak(x: int) -> int:
        calls.append(x)
        return sizes[x - 1]

    known: dict[int, int] = {}
    for capacity in capacities:
        found = fits.largest(peak, capacity, known, most)
        assert found == sum(size <= capacity for size in sizes)
    assert len(calls) == len(set(calls)) <= 40 * len(capacities)


def test_three_plans_are_enough_for_all_cards_where_the_peak_is_affine() -> None:
    calls = []

    def peak(x: int) -> int:
        calls.append(x)
        return 14_000_000_000 + 123_456_789 * x

    known: dict[int, int] = {}
    found = [fits.largest(peak, card * fits.GIB, known) for card in (80, 32, 24, 16)]
    assert found == [int((card * fits.GIB - 14_000_000_000) // 123_456_789) for card in (80, 32, 24, 16)]
    assert len(calls) == 3


def test_what_is_said_to_fit_fits_and_one_more_does_not(tiny: str, tmp_path: Path) -> None:
    contender, cards = CONTENDERS[5], (0.008,)  # GiB: for the tiny model
    request = fits.Request((tiny,), (contender,), lengths=(64,), cards=cards, reserve=0.0)
    table = fits.fits(Plans(tmp_path), request)
    assert len(table) == 2 * len(cards) * 2
    assert table["batch"].max() > 4 and table.loc[table["asked"] == "length", "length"].max() > 128
    plans = Plans(tmp_path)
    for row in table.itertuples(index=False):
        capacity = row.card * fits.GIB
        more = (row.batch + 1, row.length) if row.asked == "batch" else (1, row.length + fits.STEP)
        for size, fitting in (((row.batch, row.length), True), (more, False)):
            if min(size) > 0:
                assert (plans(setup(tiny, contender, *size, row.checkpointing)).peak <= capacity) == fitting, (
                    row,
                    size,
                )


def test_a_row_that_does_not_fit_is_not_tried_at_greater_lengths(
    tiny: str, tmp_path: Path, counted: list[Setup]
) -> None:
    request = fits.Request((tiny,), CONTENDERS[:1], lengths=(16, 128), cards=(0.001,), reserve=0.0)
    table = fits.fits(Plans(tmp_path), request)
    assert (table.loc[table["asked"] == "batch", "batch"] == 0).all()
    assert {asked.length for asked in counted} == {16, fits.STEP}


def test_lengths_end_where_learnt_positions_do(tmp_path: Path, counted: list[Setup]) -> None:
    table = fits.fits(Plans(tmp_path), fits.Request(("minilm",), CONTENDERS[:1], lengths=(512, 2048), cards=(1e6,)))
    assert set(table["length"]) == {512}
    long = fits.fits(Plans(tmp_path), fits.Request(("minilm",), CONTENDERS[:1], lengths=(2048,), cards=(1e6,)))
    assert set(long["length"]) == {512} and set(long["asked"]) == {"batch", "length"}


def test_figures_of_the_paper(tmp_path: Path, counted: list[Setup]) -> None:
    table = paper_figures.figures(Plans(tmp_path)).set_index("quantity")
    assert table["ratio"].tolist() == pytest.approx((table["ours"] / table["theirs"]).tolist())
    assert table.loc["bytes of a trained parameter, AMP", "ours"] == pytest.approx(16)
    assert table.loc["checkpoint, full", "ours"] == pytest.approx(349.2, abs=0.1)
    assert {(asked.method["name"], asked.model["name"]) for asked in counted} == {
        ("full", "gpt3-175b"), ("lora", "gpt3-175b"), ("lora", "llama-7b"),
    }  # fmt: skip


@pytest.fixture(scope="module")
def lora_of_gpt3() -> Callable[[], Plan]:
    from experiments.measure.memory.planner import plan

    made = plan(
        setup("gpt3-175b", Contender("", "lora", "pure16", ("method.r=4", "method.weight_types=q+v")), 1, 64, True)
    )
    return lambda: made


def test_gpt3s_adapter_has_the_papers_size(lora_of_gpt3: Callable[[], Plan]) -> None:
    made = lora_of_gpt3()
    assert made.trainable_params == 96 * 2 * 2 * 12288 * 4 == 18_874_368
    assert made.gradients == 2 * made.trainable_params
    assert made.weights == pytest.approx(2 * (174_604_259_328 + made.trainable_params), rel=1e-3)
