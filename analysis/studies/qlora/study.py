"""LoRA on base weights in 16, 8, 4 and 2 bits (QLoRA), and LoftQ's start: quality, memory, and the untrained base."""

from pathlib import Path

from analysis.kit import language_runs, table_md, tables, tuning
from analysis.studies.qlora import figure as qlora_figure
from analysis.studies.qlora import report as qlora_report
from analysis.studies.qlora import runs as qlora_runs
from analysis.studies.qlora import tables as qlora_tables
from experiments.measure.schemas import QUANTIZED_BASE, QUANTIZED_WEIGHTS

MEASURED = (QUANTIZED_BASE.file, QUANTIZED_WEIGHTS.file)


def build(study_dir: Path, runs_dir: Path) -> list[Path]:
    """Writes runs.csv, table.csv (a row a quantisation, start and metric: the task's own and the test loss), bases.csv
    (the untrained bases), table.md, qlora.png and, if rates were tuned, learning_rates.csv.

    Returns their paths. Raises InputError if the runs or MEASURED are missing or damaged, or if a quantisation has two
    runs of a seed or runs of different learning rates.
    """
    runs = qlora_runs.load(study_dir, runs_dir)
    test = tables.in_role(runs, "study")
    test = test[(test["split"] == "test") & (test["main"] | (test["metric"] == "loss"))]
    tuning.check(test[test["main"]], study_dir)
    weights = qlora_runs.read(study_dir, QUANTIZED_WEIGHTS, test)
    base = qlora_tables.bases(qlora_runs.read(study_dir, QUANTIZED_BASE, test), weights)
    table = qlora_tables.tabulate(test, base)
    failed = qlora_runs.load_failed(study_dir, runs_dir)
    rates = tuning.rates(runs, failed)

    outputs = {name: study_dir / name for name in ("runs.csv", "table.csv", "bases.csv", "table.md", "qlora.png")}
    runs[[*tables.RUNS_COLUMNS, "quantization"]].to_csv(outputs["runs.csv"], index=False)
    table.to_csv(outputs["table.csv"], index=False, float_format="%.6g")
    base.to_csv(outputs["bases.csv"], index=False, float_format="%.6g")
    failures = language_runs.failures(study_dir, failed)
    text = qlora_report.report(table, base, qlora_tables.errors_by_type(weights), not rates.empty, failures)
    table_md.write(outputs["table.md"], text, runs)
    qlora_figure.draw(table, test, base, outputs["qlora.png"])
    if not rates.empty:
        outputs["learning_rates.csv"] = study_dir / "learning_rates.csv"
        rates.to_csv(outputs["learning_rates.csv"], index=False, float_format="%.6g")
    return list(outputs.values())
