"""The maker of each claim of runs: a claim without one fails the tests."""

from made_up import (
    WRITTEN,
    Maker,
    alpha_slope,
    alpha_spread,
    both_zero,
    checkpointing,
    falling,
    few_examples,
    forgets_less,
    larger_base,
    latency,
    measured_third,
    more_data,
    planned_third,
    prompts_below,
    q_alone,
    quarter_faster,
    rates,
    regret,
    two,
)
from made_up_updates import (
    amplified,
    contrast,
    intruders,
    not_emphasised,
    q_higher_rank,
    ranks,
    seeds,
    shares_with_full,
    small_rank_amplifies,
    top_of_w,
    truncation,
)

QV, Q, K = ({"weight_types": types, "budget": 100} for types in ("q+v", "q", "k"))
EXACT, TWO_BITS, LOFTQ = {"quantization": "none"}, {"quantization": "int2"}, {"label": "loftq"}
FULL, GALORE, BADAM = ({"label": label} for label in ("full", "galore", "badam"))


def both(key: str, study: str, ours: dict[str, object], theirs: dict[str, object], *decoys: dict[str, object],
         text: str = "") -> dict[str, Maker]:  # fmt: skip
    """The makers of a claim of classifiers, and of the same where text is written; text: its study there."""
    written = [WRITTEN | part for part in (ours, theirs, *decoys)]
    return {key: two(study, ours, theirs, *decoys), f"{key}_text": two(text or study, *written)}


SIZES = [
    {"label": "prefix_embed", "settings": f"l_p={size}", "trainable_params": 10 * size} for size in (64, 4, 16)
]  # fmt: skip
MAKERS: dict[str, Maker] = {
    **both("small_rank", "rank_ablation", {"r": 64}, {"r": 8}, {"r": 16}, {"r": 4}, {"r": 64, "label": "dora"},
           text="rank_generation"),
    **both("rank_one", "rank_ablation", {"r": 8}, {"r": 1}, {"r": 2}, {"r": 1, "weight_types": "q"}, text="table15"),
    "q_alone": q_alone,
    **both("grows_safely", "scaling", {"r": 64}, {"r": 8}, {"r": 4}, text="table15"),
    "beyond_64": two("rank_generation", *(WRITTEN | {"r": r} for r in (128, 64, 192, 8))),
    "larger_base": larger_base,
    "more_data": more_data,
    **both("qv_for_the_budget", "weight_types", QV, K, Q, QV | {"budget": 7}),
    **both("types_over_rank", "weight_types", {"weight_types": "q+k+v+o", "budget": 100}, K, Q, K | {"budget": 7}),
    **both("all_layers", "weight_types", {"weight_types": "q+k+v+o+up+down", "budget": 100}, QV, QV | {"budget": 7}),
    "top_shared": ranks(1, 1),
    "top_above_chance": ranks(1, 1),
    "only_the_top": contrast,
    "seeds_share": seeds("few"),
    "q_shares_more": seeds("all"),
    "amplifies_smallest": amplified("norm_delta_w", "projection_delta_w", 4),
    "amplifies_largest": amplified("norm_delta_w", "projection_delta_w", 64),
    "not_emphasised": not_emphasised,
    "already_in_w": amplified("projection_delta_w", "projection_random"),
    "twice_random": amplified("projection_delta_w", "projection_random"),
    "small_rank_beyond_chance": small_rank_amplifies,
    "top_of_w": top_of_w,
    "q_higher_rank": q_higher_rank("lora"),
    "q_higher_rank_full": q_higher_rank("full"),
    "intruders": intruders,
    "shares_with_full": shares_with_full,
    "full_is_low_rank": truncation,
    **both("as_good_as_full", "compare_methods", {}, FULL, {"settings": "worse"}, text="table3"),
    **both(
        "above_adapters", "compare_methods", {}, {"label": "adapter_h", "trainable_params": 1100},
        {"label": "adapter_l", "settings": "m=9", "trainable_params": 1000},
        {"label": "adapter_l", "settings": "m=99", "trainable_params": 2000, "validation": 1}, text="table3",
    ),
    "bitfit_below": two("compare_methods", {"label": "bitfit"}, {}),
    **both("prefixes_fall", "scaling", *SIZES, text="table15"),
    **both("with_prefixes", "compare_methods", {"label": "lora+prefix_embed"}, {}, text="table15"),
    **{f"{label}_better": two("compare_methods", {"label": label}, {}) for label in ("rslora", "dora", "lora_plus")},
    **{f"{label}_better": two("init", {"label": label}, {}) for label in ("pissa", "lora_ga")},
    "alpha_spread_smallest": alpha_spread(4),
    "alpha_spread_largest": alpha_spread(64),
    "alpha_slope": alpha_slope,
    "both_zero": both_zero,
    "ten_times_the_rate": rates,
    "few_examples": few_examples,
    "prompts_below": prompts_below,
    "forgets_less": forgets_less,
    "merged_is_free": latency("lora_merged"),
    "adapters_slow_down": latency("adapter_h", "adapter_l"),
    "small_batches": falling("batch"),
    "short_inputs": falling("length"),
    "quarter_faster": quarter_faster,
    "third_of_memory_large": planned_third(7e9, 1e8),
    "third_of_memory_small": planned_third(1e8, 7e9),
    "third_of_memory_measured": measured_third,
    "checkpointing_a_third": checkpointing,
    **both("four_bits_suffice", "qlora", {"quantization": "nf4"}, EXACT, TWO_BITS, TWO_BITS | LOFTQ),
    **both("two_bits_lose", "qlora", TWO_BITS, EXACT, {"quantization": "nf4"}, TWO_BITS | LOFTQ),
    **both("loftq_better", "qlora", TWO_BITS | LOFTQ, TWO_BITS, EXACT, EXACT | LOFTQ),
    **both("galore_as_full", "memory_methods", GALORE, FULL, BADAM),
    "advice": regret,
    **both("badam_as_full", "memory_methods", BADAM, FULL, GALORE),
}  # fmt: skip
