"""One module a study, named as its folder: `build(study_dir, runs_dir)` writes its tables and figures."""
