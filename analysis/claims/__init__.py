"""The scoreboard: claims of the paper and of guides to LoRA, each judged on the tables of the studies."""
