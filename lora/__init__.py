"""LoRA, the core: inject, train, merge, save. Knows nothing of tasks, configs of experiments, or results."""
