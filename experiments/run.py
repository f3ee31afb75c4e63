"""One run from one config, or (study=…, or -m) a grid of runs. A stored run is not computed again.

python -m experiments.run method.r=4 seed=1
python -m experiments.run study=rank_ablation preset=desk engine.jobs=2
python -m experiments.run study=amplification preset=desk only.model=minilm only.method.r=4,8      a part of a study
python -m experiments.run --model FacebookAI/roberta-base --task 'my reviews.csv'     a hub id or folder, a data file
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence
from typing import Any

if __name__ == "__main__":  # Ctrl-C while the rest is imported: nothing was begun
    signal.signal(signal.SIGINT, lambda *_: os._exit(130))

import hydra
from hydra.errors import HydraException
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from experiments import commands, only, own, suggest
from experiments.sweep import Entry


@hydra.main(version_base="1.3", config_path="conf", config_name="config")
def main(config: DictConfig) -> None:
    """Compute, or find, the run of `config`. Grids come by `hydra_plugins.sweep_launcher`."""
    commands.do([Entry("", config)])


def command() -> commands.Done:
    """Run `main`: bad input is one line and exit code 2, and the other runs of a study are done all the same."""
    commands.done = commands.Done(0, None)
    sys.argv[1:] = own.typed([only.typed(word) for word in sys.argv[1:]])
    os.environ["HYDRA_FULL_ERROR"] = "1"  # errors reach us instead of being printed with a traceback
    # Threads that wait must not spin: beside other work on the same cores that makes a step several times slower.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    signal.signal(signal.SIGINT, signal.default_int_handler)
    before: Any = signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C: no worker outlives the parent
    try:
        main()
    except (HydraException, OmegaConfBaseException) as error:
        return commands.refused(suggest.in_one_line(error, sys.argv[1:]))
    except OSError as error:  # Hydra writes the grid into the results folder
        return commands.refused(commands.reason(error))
    except KeyboardInterrupt:
        print("interrupted: what was finished is stored, the same command continues", file=sys.stderr)
        return commands.Done(130, None)
    finally:
        signal.signal(signal.SIGTERM, before)
    return commands.done


def start(arguments: Sequence[str]) -> int:
    """The exit code of `command` for these arguments."""
    sys.argv[1:] = arguments
    if "RANK" not in os.environ:
        return command().code
    from experiments import processes  # torchrun has started this one, among others

    return processes.lead(lambda: command().code)


if __name__ == "__main__":
    sys.exit(start(sys.argv[1:]))
