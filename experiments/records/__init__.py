"""Records of runs: `results/<preset>/<study>/records.jsonl.gz` has all that tables and figures need of a study's runs.

A line a run, and no adapter: some kilobytes where the runs take gigabytes. `schema` says what a line holds, `archive`
reads and writes the file, `transfer` moves runs into it and out of it, `source` is where the analysis reads runs.
"""
