"""Spectra and ranks of the update of full fine-tuning and of LoRA, and what they share."""

from collections.abc import Sequence
from pathlib import Path

from analysis.kit import measured, table_md, tables
from analysis.studies.spectrum import figures as spectrum_figures
from analysis.studies.spectrum import measures as spectrum_measures
from analysis.studies.spectrum.measures import Measures, full_pairs, seed_pairs
from analysis.studies.spectrum.report import report
from analysis.studies.spectrum.tables import described, ranks_summary, short_names
from analysis.weights import update_runs

BASE = True  # reads the pretrained weights
MEASURED = tuple(f"{name}.csv" for name in Measures._fields)
DIGITS = 5
PAIR = ["run_id", "other_run_id"]


def build(study_dir: Path, runs_dir: Path, base: str | None = None) -> list[Path]:
    """Measures what ranks.csv, spectra.csv, angles.csv and overlap.csv lack. Writes runs.csv, table.csv, table.md and
    the figures from them. Returns their paths.

    base: as of `weights.update_runs.trained`. Raises InputError as that and `load` there, and if an update is zero.
    """
    runs = update_runs.load(study_dir, runs_dir)
    each = update_runs.of_each(runs)
    names = short_names(runs)
    run_ids, seeds, full = measured.ids(each["run_id"]), seed_pairs(each), full_pairs(each)
    wanted: list[tuple[list[str], Sequence[tuple[str, ...]]]] = [
        (["run_id"], run_ids), (["run_id"], run_ids), (PAIR, seeds), (PAIR, full)
    ]  # fmt: skip
    stored = [measured.Rows(study_dir / name, *rows) for name, rows in zip(MEASURED, wanted, strict=True)]
    lacking = {run_id for rows in stored for key in rows.missing for run_id in key}
    if lacking:
        groups = update_runs.trained(runs, lacking, study_dir, runs_dir, base)
        for rows, new in zip(stored, spectrum_measures.measure(groups, seeds, full), strict=True):
            rows.add(new, DIGITS)
    found = Measures(*(described(rows.frame, each, names) for rows in stored))
    stored[0].write(found.ranks)  # methods may be called otherwise beside others

    outputs = [study_dir / name for name in ("runs.csv", "table.csv", "table.md")]
    runs[tables.RUNS_COLUMNS].to_csv(outputs[0], index=False)
    ranks_summary(found.ranks).to_csv(outputs[1], index=False, float_format=_four_digits)
    text = report(
        found, update_runs.quality(runs), update_runs.precision_note(runs),
        tables.failure_lines(tables.read_sweep(study_dir).failed),
    )  # fmt: skip
    table_md.write(outputs[2], text, runs)
    figures = [
        spectrum_figures.draw_spectra(found.spectra, list(names.values()), study_dir / "spectra.png"),
        spectrum_figures.draw_ranks(found.ranks, study_dir / "ranks.png"),
        spectrum_figures.draw_intruders(found.ranks, study_dir / "intruders.png"),
    ]
    if not found.overlap.empty:
        figures.append(spectrum_figures.draw_overlap(found.overlap, study_dir / "overlap.png"))
    return [*(rows.path for rows in stored if rows.path.is_file()), *outputs, *figures]


def _four_digits(value: object) -> str:
    # From five, to which the numbers of this table have been rounded from the first: 0.956145 is 0.9562.
    return f"{float(f'{value:.5g}'):.4g}"
