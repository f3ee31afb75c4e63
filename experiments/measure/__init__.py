"""What is measured beside training: commands that write CSV files into a study's folder, by `schemas`."""
