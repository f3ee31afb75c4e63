"""Regular expressions that a file brings along: matched as Python's re matches them, and as peft's own function."""

import random

import pytest
from peft.utils.other import get_pattern_key

from lora.config import InputError
from lora.formats import patterns
from lora.formats.patterns import first_match, peft_patterns

NAMES = ["model.layers.0.self_attn.q_proj", "model.layers.10.mlp.up_proj", "lm_head", "_orig_mod.model.layers.0.q_proj"]
PIECES = [
    "q_proj",
    r"\.",
    ".",
    "layers",
    "^model",
    "0",
    "10",
    "(q|up)",
    "[01]",
    r"\d+",
    ".*",
    "mlp",
    "self_attn",
    "lm_head",
]


@pytest.mark.parametrize("seed", range(10))
def test_as_peft_matches_them(seed: int) -> None:
    rng = random.Random(seed)
    simple = [piece for piece in PIECES if not set(piece) & set("(*+")]
    pieces = PIECES if seed % 5 == 0 else simple  # the others are matched in a process of their own
    keys = ["".join(rng.choices(pieces, k=rng.randint(1, 5))) for _ in range(8)]
    keys += [rng.choice(NAMES).replace(".", rng.choice([".", r"\."])) for _ in range(3)]
    keys = list(dict.fromkeys(rng.sample(keys, len(keys))))
    found = first_match(peft_patterns(keys), NAMES, "here")
    expected = [get_pattern_key(keys, name) for name in NAMES]
    assert [keys.index(key) if key in keys else None for key in expected] == [
        None if index is None and key not in keys else index for index, key in zip(found, expected, strict=True)
    ]


def test_thousands_of_names_are_looked_up() -> None:
    """What save_peft writes for a large model: no expression is compiled for a key that is a name."""
    keys = [rf"^model\.layers\.{number}\.self_attn\.q_proj" for number in range(3000)]
    names = [f"model.layers.{number}.self_attn.q_proj" for number in range(3000)]
    assert first_match(peft_patterns(keys), names, "here") == list(range(3000))


@pytest.mark.parametrize("pattern", ["(a+)+b", "(" * 5000, "(", "a" * 20_000])
def test_what_does_not_end_or_is_none_is_refused(pattern: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patterns, "SECONDS", 1)
    with pytest.raises(InputError, match=r"^config.json: rank_pattern") as raised:
        first_match(peft_patterns([pattern]), ["a" * 60], "config.json: rank_pattern")
    assert "\n" not in str(raised.value)
