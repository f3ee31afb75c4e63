"""Spectra and ranks of the update of full fine-tuning and of LoRA, and what they share."""

from pathlib import Path

from analysis import spectrum_figures, table_md, tables, update_runs
from analysis.spectrum_measures import measure, spectra_table
from analysis.spectrum_report import report
from analysis.spectrum_tables import named, ranks_summary, short_names

BASE = True  # reads the pretrained weights
LEFT_OUT = ["settings", "r", "other_run_id", "chance_low"]  # of overlap.csv, which is large


def build(study_dir: Path, runs_dir: Path, base: str | None = None) -> list[Path]:
    """Writes runs.csv, spectra.csv, ranks.csv, angles.csv, overlap.csv, table.csv, table.md and the figures. Returns
    their paths.

    base: as of `analysis.update_runs.load`. Raises InputError as that does, and if an update is zero.
    """
    runs, groups = update_runs.load(study_dir, runs_dir, base)
    names = short_names(runs)
    found = measure(groups)
    found = found._replace(
        ranks=named(found.ranks, names), angles=named(found.angles, names), overlap=named(found.overlap, names)
    )
    outputs = [study_dir / f"{name}.csv" for name in ("runs", "spectra", "ranks", "angles", "overlap", "table")]
    overlap = found.overlap[[name for name in found.overlap if name not in LEFT_OUT]]
    frames = (spectra_table(found.spectra), found.ranks, found.angles, overlap, ranks_summary(found.ranks))
    runs[tables.RUNS_COLUMNS].to_csv(outputs[0], index=False)
    for frame, path in zip(frames, outputs[1:], strict=True):
        frame.to_csv(path, index=False, float_format="%.4g")
    text = report(
        found, update_runs.quality(runs), update_runs.precision_note(groups),
        tables.failure_lines(tables.read_sweep(study_dir).failed),
    )  # fmt: skip
    table_md.write(study_dir / "table.md", text, runs)
    figures = [
        spectrum_figures.draw_spectra(found.spectra, names, study_dir / "spectra.png"),
        spectrum_figures.draw_ranks(found.ranks, study_dir / "ranks.png"),
        spectrum_figures.draw_intruders(found.ranks, study_dir / "intruders.png"),
    ]
    if not found.overlap.empty:
        figures.append(spectrum_figures.draw_overlap(found.overlap, study_dir / "overlap.png"))
    return [*outputs, study_dir / "table.md", *figures]
