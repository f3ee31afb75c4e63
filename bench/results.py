"""Where measurements go."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from analysis.kit.tables import markdown


def write(name: str, frame: pd.DataFrame, note: str, out: Path) -> None:
    """Print the table and write it to `out`, as <name>.csv and, with `note`, as <name>.md."""
    out.mkdir(parents=True, exist_ok=True)
    frame.to_csv(out / f"{name}.csv", index=False)
    text = f"{markdown(frame.astype(object))}\n\n{note}\n"
    (out / f"{name}.md").write_text(text)
    print(f"\n{text}{out}/{name}.csv", flush=True)
