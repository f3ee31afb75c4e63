"""advice.md: what is recommended, what it costs, and what it follows from."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from analysis.advise import ready
from analysis.advise.advice import Advice, kept, named, notes
from analysis.advise.choose import Judged
from analysis.advise.subject import SEEDS
from experiments.markdown import markdown
from experiments.measure.memory.units import human
from experiments.progress import span

ALONE = """\
Alone: this type keeps its update, cut to r, the others none; the gain is over no update at all. Left out: the others
keep theirs, whole."""
METHOD = """\
The largest adapter is trained, its updates are cut to their best approximations of rank k (Eckart and Young), and the
model is scored on validation data: a cut is a look, not a training, and the same rank trained from the start often does
better. ± and bounds are 95%, of seeds and items (a two-way analysis of variance). More is in docs/advice.md."""
NOT_TESTED = """\
The test set was not read. `CONFIRM=1` trains this, the common default (r = 8 on q and v) and the largest with three
other seeds each, and reads it once."""


def page(advice: Advice) -> str:
    """advice.md."""
    found, plan = advice.found, advice.plan
    curve = [(f"r = {max(one.pick.ranks)}", one) for one in found.curve]
    smaller = [
        (named(kept(advice.subject, one.pick)) + (", trained on" if one.pick.healed else ""), one)
        for one in found.candidates
    ]
    blocks = [
        f"# Advice: {advice.subject.model} on {advice.subject.task}",
        f"> **{advice.sentence}**",
        _reason(advice),
        "![the advice as a picture](advice.png)",
        _facts(advice),
        *(f"**Note.** {text[0].upper()}{text[1:]}." for text in notes(advice)),
        _confirmed(advice) if advice.confirmed else NOT_TESTED,
        f"## Quality against rank\n\nAll types, cut to r.\n\n{_judged(advice, curve)}",
        f"## What each weight type is worth\n\n{_worth(advice)}\n\n{ALONE}",
        f"## Layers\n\n{_layers(advice)}" if found.layers else "",
        f"## Smaller adapters\n\n{_judged(advice, smaller)}" if smaller else "",
        f"## The learning rate\n\nValidation loss at r = {plan.r_max}, by share of the examples.\n\n{_rates(advice)}",
        f"## How it was found\n\n{plan.runs} runs, as much training as {plan.worth:.3g} whole ones, and at most "
        f"{plan.looks} looks for each of {len(SEEDS)} seeds: {plan.share(advice.size):.0%} of the time of a sweep of "
        f"{plan.sweep} runs.\n\n{METHOD}",
        f"## Settings\n\n{_settings(advice)}",
    ]
    return "\n\n".join(filter(None, blocks)) + "\n"


def _reason(advice: Advice) -> str:
    best, found = advice.found.best, advice.found
    below = max(0.0, -advice.factor * best.bound)
    return (
        f"By its one-sided 95% bound at most {below:.2g} {advice.unit} below r = {advice.plan.r_max} on all types, of "
        f"whose parameters it has {best.parameters / found.largest.parameters:.1%}. The margin is "
        f"{advice.factor * found.margin:.2g} {advice.unit}; {len(SEEDS)} seeds, validation data."
    )


def _facts(advice: Advice) -> str:
    best, own = advice.found.best, advice.own
    floor = "" if advice.floor is None else f"{advice.shown(advice.floor):.1f}"
    rows = {
        f"expected validation {advice.metric}": advice.text(best.score),
        f"that of r = {advice.plan.r_max} on all types": advice.text(advice.found.largest.score),
        "that of the head alone": floor,
        "parameters of the adapter": f"{best.parameters:,}",
        "stored, with the head": human(4 * (best.parameters + advice.head)),
        "memory of a training step": own.held,
        "a training here": f"about {span(own.run(advice.plan.epochs))}: {advice.plan.epochs} × {own.train:,} examples",
    }
    return markdown(pd.DataFrame([row for row in rows.items() if row[1]], columns=["", "recommended"]))


def _confirmed(advice: Advice) -> str:
    rows = [
        {
            "trained anew": one.name,
            "setting": named(one.ranks),
            "parameters": f"{one.parameters:,}",
            f"test {advice.metric}": advice.text(one.score),
            f"the advice minus this ({advice.unit})": advice.text(one.ours, True) if number else "",
        }
        for number, one in enumerate(advice.confirmed)
    ]
    return f"## Confirmed on test data\n\n{markdown(pd.DataFrame(rows))}\n\nThree seeds that the advice has not used."


def _judged(advice: Advice, rows: Sequence[tuple[str, Judged]]) -> str:
    table = [
        {
            "kept": name,
            "parameters": f"{one.parameters:,}",
            f"validation {advice.metric}": advice.text(one.score),
            f"beside the largest ({advice.unit})": advice.text(one.above, True),
            "its bound": f"{advice.factor * one.bound:+.2g}",
            "within the margin": "yes" if advice.found.holds(one) else "",
        }
        for name, one in rows
    ]
    return markdown(pd.DataFrame(table))


def _worth(advice: Advice) -> str:
    nothing = advice.found.curve[0].score.value
    rows = []
    for own in advice.found.worth:
        gains = {max(one.pick.ranks): advice.factor * (one.score.value - nothing) for one in own.alone}
        first = next(iter(gains.values()))
        rows.append(
            {
                "weight type": own.unit,
                "parameters at r = 1": f"{own.parameters:,}",
                **{f"alone, r = {r} ({advice.unit})": f"{gain:+.2g}" for r, gain in gains.items()},
                f"r = 1, for 10,000 parameters ({advice.unit})": f"{1e4 * first / own.parameters:+.2g}",
                f"left out ({advice.unit})": advice.text(own.without.above, True),
            }
        )
    return markdown(pd.DataFrame(rows))


def _layers(advice: Advice) -> str:
    rows = [
        (f"{block[0]} to {block[-1]}" if len(block) > 1 else f"{block[0]}", advice.text(one.above, True))
        for one in advice.found.layers
        for block in [one.pick.without]
    ]
    return markdown(pd.DataFrame(rows, columns=["layers left out", f"beside the largest ({advice.unit})"]))


def _rates(advice: Advice) -> str:
    tried = pd.DataFrame(advice.rate.tried)
    texts = ["diverged" if pd.isna(loss) else f"{loss:.4f}" for loss in tried["loss"]]
    tried["text"] = [text + ", collapsed" * lost for text, lost in zip(texts, tried["collapsed"], strict=True)]
    wide = tried.pivot_table(index="lr", columns="share", values="text", aggfunc="first").fillna("")
    wide.columns = pd.Index([f"{share:.0%}" for share in wide.columns])
    return markdown(wide.reset_index().astype({"lr": str}))


def _settings(advice: Advice) -> str:
    subject, lr = advice.subject, advice.rate.lr
    fused = "A module here has several weight types: peft adapts all of it, at the largest of their ranks." * (
        ready.modules(subject, advice.ranks).shared
    )
    one = f" They have one rank for all: {named(advice.plain)}." if advice.plain != advice.ranks else ""
    texts = [
        "peft, as Python ([adapter_config.json](adapter_config.json) says the same):",
        f"```python\n{ready.python(ready.peft(subject, advice.ranks))}```",
        fused,
        f"LLaMA-Factory, then axolotl.{one}",
        f"```yaml\n{ready.llama_factory(subject, advice.plain, lr)}```",
        f"```yaml\n{ready.axolotl(subject, advice.plain, lr)}```",
    ]
    return "\n\n".join(filter(None, texts))
