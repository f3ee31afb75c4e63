"""How much of the effect of full fine-tuning's update, and of LoRA's, is in its top k directions."""

from pathlib import Path

from analysis.kit import measured, naming, table_md, tables
from analysis.studies.spectrum.tables import named, short_names
from analysis.studies.truncation import tables as truncation_tables
from analysis.studies.truncation.figure import draw_truncation
from analysis.studies.truncation.report import report
from analysis.weights import update_runs
from experiments.measure.schemas import TRUNCATION

MEASURED = (TRUNCATION.file,)
CUT = ("full", "lora")


def build(study_dir: Path, runs_dir: Path) -> list[Path]:
    """Writes runs.csv, table.csv (a row a run and k), table.md and truncation.png from truncation.csv, which
    experiments.measure.truncation leaves in the folder. Returns their paths.

    Raises InputError if a method has two runs of a seed, and if truncation.csv is missing or damaged, or lacks a run.
    """
    runs = naming.arranged(tables.in_role(tables.load_runs(study_dir, runs_dir), "study"))
    each = runs.drop_duplicates("run_id")
    tables.check_seeds(each, [*update_runs.PLACE, "label", "settings"], study_dir)
    cut = runs[runs["label"].isin(CUT)]
    rows = measured.read(study_dir, TRUNCATION, set(cut["run_id"]))[truncation_tables.COLUMNS]
    effects = truncation_tables.effects(rows, named(cut, short_names(runs)))
    outputs = [study_dir / name for name in ("runs.csv", "table.csv", "table.md")]
    runs[tables.RUNS_COLUMNS].to_csv(outputs[0], index=False)
    effects.to_csv(outputs[1], index=False, float_format="%.6g")
    failed = tables.failure_lines(tables.read_sweep(study_dir).failed)
    table_md.write(outputs[2], report(effects, update_runs.quality(runs), failed), runs)
    return [*outputs, draw_truncation(effects, study_dir / "truncation.png")]
