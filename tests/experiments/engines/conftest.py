"""A Slurm of this test session, and the command that a scenario starts."""

import os
from collections.abc import Iterator
from pathlib import Path

import one_node_slurm
import pytest
from scenarios import Command


@pytest.fixture(scope="session")
def slurm_conf() -> Iterator[Path]:
    """The slurm.conf of a Slurm of one node, of this process's own."""
    pytest.importorskip("submitit", reason="submitit is not installed")
    missing = one_node_slurm.missing()
    if missing:
        pytest.skip(f"slurm-wlm and munge are not installed: there is no {missing[0]}")
    with one_node_slurm.cluster() as conf:
        yield conf


@pytest.fixture
def command(tiny: list[str], tmp_path: Path) -> Command:
    """The command on a model and data that take a second, off the network."""
    overrides = [override for override in tiny if not override.startswith("training.lr")]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    return Command([*overrides, "runtime.device=cpu"], tmp_path / "results", environment)
