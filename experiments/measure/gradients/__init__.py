"""Is LoRA's backward pass what the algebra says, and what does it cost? Formulas against autograd, first steps, FLOPs.

    python -m experiments.measure.gradients --preset quick --out results/quick/gradients

writes checks.csv, steps.csv and flops.csv, of which `studies.gradients` makes the tables and the figure.
"""
