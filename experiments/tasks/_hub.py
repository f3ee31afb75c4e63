"""Data of the hub, which is asked first whether it answers: `datasets` waits and tries again for minutes."""

from __future__ import annotations

from typing import Any

import datasets

from experiments import hub


def load_dataset(repository: str, *configuration: str, **options: Any) -> Any:
    """`datasets.load_dataset`, from the cache alone where the hub does not answer. Raises ConnectionError with what is
    wrong with the hub, if it is that, and else what the libraries raise."""
    reason = hub.reach(repository, "dataset")
    try:
        return datasets.load_dataset(repository, *configuration, **options)
    except Exception as error:  # the hub's client raises errors of several libraries
        if reason:
            raise ConnectionError(reason) from error
        raise
