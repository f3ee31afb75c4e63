"""Protocol 2, the preset desk: every study, how a rate is chosen, and when a run has collapsed."""

import csv
import json
import os
import re
import shlex
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grid
import pytest
import yaml
from hydra import compose, initialize_config_module
from hydra._internal.callbacks import Callbacks
from hydra.core.global_hydra import GlobalHydra
from hydra.types import HydraContext
from omegaconf import DictConfig, OmegaConf

from experiments import collapse, only, places, tasks
from experiments.jobs import job
from experiments.records import sweep as listed
from experiments.store import definition, run_id
from experiments.sweep import Entry
from experiments.tasks import rotten_tomatoes
from hydra_plugins.sweep_launcher import SweepLauncher
from lora.config import InputError

Cli = Callable[..., Any]  # conftest.cli
CONF = Path(__file__).parents[2] / "experiments" / "conf"
STUDIES = sorted(path.stem for path in CONF.glob("study/[!_]*.yaml") if path.stem != "none")
ROOT = CONF.parents[1]
GUIDE = ROOT / "docs" / "evidence.md"
CLASSIFIERS = ("alpha", "compare_methods", "init", "rank_ablation", "rank_data", "scaling", "steps", "table2")
VALIDATION = ("validation", "loss")
AT_ONE_RATE = ("alpha",)  # the study that asks what one rate for all does


@pytest.fixture(autouse=True, scope="module")
def conf() -> Iterator[None]:
    GlobalHydra.instance().clear()
    with initialize_config_module("experiments.conf", version_base="1.3"):
        yield


def study(name: str, *more: str) -> DictConfig:
    return compose("config", [f"study={name}", "preset=desk", *more], return_hydra_config=True)


@pytest.mark.parametrize("name", STUDIES)
def test_every_setting_of_every_study_has_a_rate_of_its_own(name: str) -> None:
    config = study(name)
    sweeper = config.hydra.sweeper
    swept = str(sweeper.params.get("training.lr", config.training.lr))
    assert swept == "tuned" or (name in AT_ONE_RATE and swept.endswith(",tuned"))
    for point in sweeper.get("points") or []:
        assert "training.lr=" not in point or "method=frozen" in point, point
    own = {key: value for key, value in config.tuning.at.items() if key not in ("seed", "method.budget", "method.r")}
    assert not own, own
    if name != "weight_types":
        assert not {"method.r", "method.budget"} & set(config.tuning.at)
    else:  # which names a budget where a rank is bought
        assert (config.tuning.at["method.budget"], config.tuning.at["method.r"]) == (
            config.method.budget,
            config.method.r,
        )
    assert config.tuning.by == "loss" and config.tuning.extend <= 4
    report = {int(seed) for seed in str(sweeper.params["seed"]).split(",")}
    assert len(report) >= 3 and not report & set(config.tuning.seeds)


@pytest.mark.parametrize("name", STUDIES)
def test_the_first_runs_of_every_study_have_a_config(name: str) -> None:
    """One job of each model, task and method: its head alone, or the first of its rates, or the run."""
    kinds = {}
    for words in grid.jobs(study(name)):
        said = dict(word.partition("=")[::2] for word in words)
        kinds.setdefault(tuple(said.get(key) for key in ("model", "task", "method")), words)
    for words in kinds.values():
        config = grid.job_config(f"study={name}", "preset=desk", *words).copy()
        assert next(job(config, print)), words


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_classifiers_have_one_recipe(name: str) -> None:
    training, task = (OmegaConf.to_container(part, resolve=True) for part in (study(name).training, study(name).task))
    assert isinstance(training, dict) and isinstance(task, dict)
    assert (training["epochs"], training["batch_size"], training["head_lr"]) == (2, 16, 3e-2)
    assert (training["warmup_ratio"], training["warmup_steps"], training["schedule"]) == (0.1, None, "linear")
    assert (task["train_examples"], task["test_examples"]) == (4000, None)
    assert task["film_shares"] == [0.4, 0.1, 0.5]


def test_settings_that_studies_share_are_one_run() -> None:
    """Of LoRA on q+v with r = 8: the same seeds and the same run, so that it is trained once."""
    ids = {}
    words = ["task=rotten_tomatoes", "training.lr=1e-3", "seed=3", "method.r=8", "method.weight_types=q+v"]
    for name in ("rank_ablation", "compare_methods", "subspace", "spectrum", "scaling", "memory_methods", "table2"):
        content: Any = OmegaConf.to_container(study(name, *words), resolve=True)
        ids[name] = run_id(definition(content))
    assert len(set(ids.values())) == 1, ids


@pytest.mark.parametrize("name", ["section7", "memory_methods", "qlora", "weight_types"])
def test_language_models_have_one_recipe_in_all_studies(name: str) -> None:
    config = study("spectrum" if name == "section7" else name)
    (place,) = (place for place in config.hydra.sweeper.places if "smollm2" in place)
    words = ["method=lora", "method.r=8", "method.weight_types=q+v", "training.lr=1e-3", "seed=1"]
    own = [part for part in place.split() if not part.startswith("when:")]
    here: Any = OmegaConf.to_container(study("spectrum" if name == "section7" else name, *own, *words), resolve=True)
    there: Any = OmegaConf.to_container(study("forgetting", "model=smollm2", "task=text2sql", *words), resolve=True)
    if name == "weight_types":  # which buys ranks
        here["method"]["budget"] = there["method"]["budget"] = None
    assert run_id(definition(here)) == run_id(definition(there))
    assert (there["task"]["train_examples"], there["training"]["epochs"], there["task"]["test_examples"]) == (
        512,
        2,
        800,
    )
    assert there["tuning"]["seeds"] == here["tuning"]["seeds"] == [1000]


COMMANDS = re.findall(r"^ +(make ([a-z0-9-]+) PRESET=desk(?: ARGS='.*')?) +# (\d+) \+", GUIDE.read_text(), re.M)


def handed_on(command: str) -> list[str]:
    """The words that `lora-lab study` is given by a command of the guide, as make and its shell hand them on."""
    environment = {name: value for name, value in os.environ.items() if name not in ("MAKEFLAGS", "MAKELEVEL", "ARGS")}
    run = subprocess.run(
        [*shlex.split(command), "--dry-run"], cwd=ROOT, env=environment, capture_output=True, text=True, check=True
    )
    (line,) = (line for line in run.stdout.splitlines() if "lora_lab study" in line)
    words = shlex.split(line)
    return words[words.index("study") + 1 :]


def jobs(study: str, words: list[str]) -> list[Entry]:
    """The jobs of a study that a command does, composed as the launcher does it, and not begun."""
    config = compose("config", [f"study={study}", "preset=desk"], return_hydra_config=True)
    config.hydra.overrides.task = [f"study={study}", *map(only.typed, words)]
    launcher, context = SweepLauncher(), HydraContext(GlobalHydra.instance().config_loader(), Callbacks())
    launcher.setup(hydra_context=context, task_function=lambda _: None, config=config)
    entries = [Entry("", launcher.composed(job)) for job in grid.jobs(config)]
    places.set_study_dir([entry.config for entry in entries], words)
    return only.keep(entries)


@pytest.mark.parametrize(("command", "target", "runs"), COMMANDS, ids=lambda value: value[:50])
def test_the_commands_of_the_guide_are_as_many_runs_as_it_says(command: str, target: str, runs: str) -> None:
    study, *words = handed_on(command)
    words = words[words.index("--") + 1 :] if "--" in words else words
    targets = {yaml.safe_load(path.read_text())["make"]: path.stem for path in listed.STUDIES.glob("*.yaml")}
    assert study == targets[target]
    found = jobs(study, words)
    assert len(found) == int(runs)
    assert {entry.config.study_dir for entry in found} == {f"results/desk/{study}"}


def test_the_guide_has_a_command_for_each_block() -> None:
    assert len(COMMANDS) == GUIDE.read_text().count("   make ") >= 14


def test_half_of_the_films_are_for_the_test() -> None:
    parts = rotten_tomatoes.split_by_film(rotten_tomatoes.reviews(), 0, (0.4, 0.1, 0.5))
    films = [set(part["film"]) for part in parts]
    assert not (films[0] & films[1] or films[0] & films[2] or films[1] & films[2])
    assert [len(found) / 507 for found in films] == pytest.approx([0.4, 0.1, 0.5], abs=0.01)
    assert len(parts[0]) >= 4000 and len(parts[1]) >= 1000 and len(parts[2]) >= 6000
    task: Any = OmegaConf.to_container(study("rank_ablation").task, resolve=True)
    data = tasks.load(task)
    assert isinstance(data, tasks.TaskData)
    assert (len(data.train), len(data.validation), len(data.test)) == (4000, 1000, len(parts[2]))


@pytest.mark.parametrize("shares", [(0.5, 0.5), (0.4, 0.1, 0.6), (0.0, 0.5, 0.5)])
def test_shares_that_are_none_are_refused(shares: tuple[float, ...]) -> None:
    with pytest.raises(InputError, match=r"task.film_shares = .*: give those of train, validation and test"):
        rotten_tomatoes.split_by_film(rotten_tomatoes.reviews(), 0, shares)


@pytest.mark.parametrize(
    ("accuracy", "majority", "collapsed"),
    [
        (0.50, 0.5, True), (0.5199, 0.5, True), (0.53, 0.5, False), (0.40, 0.5, True), (None, 0.5, None),
        (0.9, None, None),
        (0.955, 0.95, True), (0.962, 0.95, False),  # of 95%, half a point is a tenth of what is left
    ],
)  # fmt: skip
def test_when_a_run_has_collapsed(accuracy: float | None, majority: float | None, collapsed: bool | None) -> None:
    assert collapse.check(accuracy, majority).collapsed is collapsed


def test_a_rate_is_tried_with_each_seed_and_beside_the_head_alone(cli: Cli, tiny: list[str], tmp_path: Path) -> None:
    own = [part for part in tiny if not part.startswith("training.lr")]
    words = ["training.lr=tuned", "tuning.lr_grid=[1e-12,3e-3]", "tuning.extend=0", "tuning.by=loss", "method=full"]
    result = cli(*own, *words, "tuning.seeds=[7,8]", "tuning.floor=head_only", "head_lr=1e-3", "training.epochs=4")
    assert result.code == 0, result.err
    found: dict[tuple[str, float, int], dict[str, Any]] = {}
    for folder in (tmp_path / "results" / "runs").iterdir():
        if not folder.name.startswith("."):
            config = yaml.safe_load((folder / "config.yaml").read_text())
            key = config["method"]["name"], float(config["training"]["lr"]), config["seed"]
            found[key] = json.loads((folder / "metrics.json").read_text())
    ((_, chosen, _),) = [key for key in found if key[2] == 0]
    tried = {("full", lr, seed) for lr in (1e-12, 3e-3) for seed in (7, 8)}
    assert set(found) == tried | {("head_only", 1e-3, seed) for seed in (7, 8)} | {("full", chosen, 0)}
    assert {one["validation_metric"] for one in found.values()} == {"loss"}
    assert len(re.findall(r"^(?:\[\S+\] )?floor [0-9a-f]{12}  .* head_only ", result.out, re.M)) == 2
    assert chosen == _by_the_rule(found)


def _by_the_rule(found: dict[tuple[str, float, int], dict[str, Any]]) -> float:
    """The rate that docs/evidence.md says is taken, from what the runs have stored."""
    loss, worst = dict[float, float](), dict[float, int]()
    for lr in (1e-12, 3e-3):
        runs = [found["full", lr, seed] for seed in (7, 8)]
        floors = [found["head_only", 1e-3, seed]["validation_accuracy"] for seed in (7, 8)]
        losses = [row["value"] for run in runs for row in run["metrics"] if (row["split"], row["metric"]) == VALIDATION]
        loss[lr] = sum(losses) / 2
        above = [run["validation_accuracy"] - floor > 0.02 for run, floor in zip(runs, floors, strict=True)]
        worst[lr] = 2 if any(run["collapsed"] for run in runs) else 1 - all(above)
    left = [lr for lr in loss if worst[lr] == min(worst.values())]
    return min(left) if min(worst.values()) == 2 else min(left, key=lambda lr: loss[lr])


def test_a_floor_without_a_rate_of_its_own_is_one_line(cli: Cli, tiny: list[str]) -> None:
    own = [part for part in tiny if not part.startswith("training.lr")]
    result = cli(*own, "training.lr=tuned", "tuning.floor=head_only")
    assert result.code == 2 and "tuning.floor is a head trained alone, at a rate of its own: give head_lr" in result.err


def test_methods_of_one_seed_see_the_same_data_in_the_same_order(cli: Cli, tiny: list[str], tmp_path: Path) -> None:
    data = tmp_path / "lengths.csv"
    data.write_text(
        "text,label\n" + "".join(f"{'word ' * (1 + row % 13)}{row},{'ab'[row % 2]}\n" for row in range(120))
    )
    own = [*(part for part in tiny if not part.startswith("task.path")), f"task.path={data}"]
    for method in ("lora", "bitfit", "full"):
        assert cli(*own, f"method={method}", "seed=5").code == 0
    assert cli(*own, "method=lora", "seed=6").code == 0
    orders: dict[int, set[tuple[str, ...]]] = {}
    for folder in (tmp_path / "results" / "runs").iterdir():
        if not folder.name.startswith("."):
            seed = yaml.safe_load((folder / "config.yaml").read_text())["seed"]
            rows = list(csv.DictReader((folder / "history.csv").read_text().splitlines()))
            orders.setdefault(seed, set()).add(tuple(row["tokens"] for row in rows))
    assert len(orders[5]) == len(orders[6]) == 1
    assert orders[5] != orders[6]
