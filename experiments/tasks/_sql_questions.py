"""How text2sql asks: a question in words for a query on a table of a topic, its conditions in the query's order."""

from collections.abc import Mapping, Sequence
from random import Random

from experiments.tasks._sql_columns import Column, Topic
from experiments.tasks._sql_query import Query, Value, literal

ASKED = ("What is", "What's", "What was", "Can you tell me", "Do you know", "Could you look up")  # end in ?
TOLD = ("Tell me", "Give me", "Find", "Name", "Show", "I want to know", "Please give", "Look up", "Report")  # end in .
LISTED = ("List", "Name", "Show", "Give me", "Find", "I want a list of", "Which are", "What are", "Who or what are")
SUMS = ("total {}", "combined {}", "sum of the {}", "overall {}", "summed {}")
MEANS = ("average {}", "mean {}", "average of the {}", "typical {}")
COUNTS = ("number of {}", "count of {}", "total number of {}")
COUNTING = ("How many {} are there", "How many {} are listed", "How many {} does the table have", "Count the {}")
Forms = Mapping[str, tuple[str, ...]]

# What follows the topic's noun to state a condition, and what states it in a clause of its own.
MODIFIERS: Forms = {
    "=": (
        "with {a} {phrase} of {value}",
        "whose {phrase} is {value}",
        "having {value} as {phrase}",
        "with {phrase} {value}",
    ),
    ">": (
        "with {a} {phrase} above {value}",
        "with {a} {phrase} of more than {value}",
        "whose {phrase} is greater than {value}",
        "with {a} {phrase} over {value}",
        "whose {phrase} exceeds {value}",
        "with {phrase} higher than {value}",
    ),
    "<": (
        "with {a} {phrase} below {value}",
        "with {a} {phrase} of less than {value}",
        "whose {phrase} is smaller than {value}",
        "with {a} {phrase} under {value}",
        "whose {phrase} does not reach {value}",
        "with {phrase} lower than {value}",
    ),
}
COUNTED: Forms = {
    "=": ("with {value} {phrase}", "with exactly {value} {phrase}", "having {value} {phrase}"),
    ">": ("with more than {value} {phrase}", "with over {value} {phrase}", "having more than {value} {phrase}"),
    "<": ("with fewer than {value} {phrase}", "with less than {value} {phrase}", "having under {value} {phrase}"),
}
CLAUSES: Forms = {
    "=": ("the {phrase} is {value}", "{phrase} is {value}", "the {phrase} was {value}", "{value} is the {phrase}"),
    ">": ("the {phrase} is above {value}", "the {phrase} is more than {value}", "{phrase} is over {value}",
          "the {phrase} is larger than {value}", "the {phrase} exceeds {value}"),
    "<": ("the {phrase} is below {value}", "the {phrase} is less than {value}", "{phrase} is under {value}",
          "the {phrase} is smaller than {value}", "the {phrase} stays below {value}"),
}  # fmt: skip
LINKS = ("when", "where", "if", "given that")
TERSE: Forms = {
    "=": ("{phrase} {value}", "{phrase} of {value}", "{a} {phrase} of {value}"),
    ">": ("{phrase} above {value}", "{phrase} over {value}", "{phrase} of more than {value}"),
    "<": ("{phrase} below {value}", "{phrase} under {value}", "{phrase} of less than {value}"),
}


def question(rng: Random, topic: Topic, columns: Sequence[Column], query: Query) -> str:
    """One of the many questions for a query; `columns` are those of the table. Each value is in it as it is."""
    style = rng.choice(("noun", "noun", "noun", "clause", "clause", "terse")) if query.conditions else "all"
    head, mark = _head(rng, topic, columns, query, style)
    if style == "all":
        text = head + rng.choice(("", "", f" of all {topic.many}", f" for all {topic.many}", " in the table"))
    elif style == "noun":
        text = _about(rng, topic, head, _modifiers(rng, topic, columns, query))
    else:
        text = _given(rng, style, head, columns, query)
    return _casual(rng, text, mark)


def _about(rng: Random, topic: Topic, head: str, modifiers: str) -> str:
    """A question about the rows that the modifiers leave."""
    if head.endswith((topic.one, topic.many)):
        return f"{head} {modifiers}"
    if rng.random() < 0.15:
        return f"{rng.choice(('For', 'Among', 'Of'))} the {topic.many} {modifiers}, {_lower(head)}"
    return f"{head} {rng.choice(('of', 'for'))} the {topic.many} {modifiers}"


def _given(rng: Random, style: str, head: str, columns: Sequence[Column], query: Query) -> str:
    """A question with the conditions as clauses, or, if it is terse, with little more than names and values."""
    forms, links = (CLAUSES, LINKS) if style == "clause" else (TERSE, ("for", "with", "given"))
    scope = _joined(rng, [_state(rng, forms, columns[i], operator, value) for i, operator, value in query.conditions])
    link = rng.choice(links)
    if style == "clause" and rng.random() < 0.3:
        return f"{link.capitalize()} {scope}, {_lower(head)}"
    return f"{head} {link} {scope}"


def _head(rng: Random, topic: Topic, columns: Sequence[Column], query: Query, style: str) -> tuple[str, str]:
    """What is asked for, without the conditions, and the mark at the end."""
    column = columns[query.column]
    phrase = rng.choice(column.phrases)
    names_row = column is topic.columns[0]
    if query.aggregate == "COUNT":
        many = topic.many if names_row and rng.random() < 0.7 else column.many
        if rng.random() < 0.6:
            text = rng.choice(COUNTING).format(many)
            # "How many players playing for …": what follows the noun must follow it at once.
            if names_row and style == "noun":
                text = rng.choice(("How many {}", "Count the {}", "What is the number of {}")).format(topic.many)
            return text, "." if text.startswith("Count") else "?"
        return _ask(rng, rng.choice(COUNTS).format(many))
    if not query.aggregate:
        return _plain(rng, topic, column, phrase, names_row)
    if column.counted and query.aggregate == "SUM" and style != "noun" and rng.random() < 0.3:
        return f"How many {phrase} are there in total", "?"
    noun = f"number of {phrase}" if column.counted else phrase
    words = {"MAX": column.highest, "MIN": column.lowest, "SUM": SUMS, "AVG": MEANS}[query.aggregate]
    word = rng.choice(words)
    return _ask(rng, word.format(noun) if "{}" in word else f"{word} {noun}")


def _plain(rng: Random, topic: Topic, column: Column, phrase: str, names_row: bool) -> tuple[str, str]:
    """The head of a question for the cells as they are."""
    if names_row and rng.random() < 0.6:
        if rng.random() < 0.3:
            return f"What is the {topic.one}", "?"
        start = rng.choice(LISTED)
        return f"{start} the {topic.many}", "?" if start.startswith(("Wh",)) else "."
    if column.counted:
        return _ask(rng, f"number of {phrase}")
    if column.type == "text" and rng.random() < 0.25:
        start = rng.choice(LISTED)
        return f"{start} the {column.many}", "?" if start.startswith("Wh") else "."
    return _ask(rng, phrase)


def _ask(rng: Random, noun: str) -> tuple[str, str]:
    return (f"{rng.choice(ASKED)} the {noun}", "?") if rng.random() < 0.65 else (f"{rng.choice(TOLD)} the {noun}", ".")


def _modifiers(rng: Random, topic: Topic, columns: Sequence[Column], query: Query) -> str:
    """The conditions as what follows the topic's noun."""
    modifiers = []
    for index, operator, value in query.conditions:
        column = columns[index]
        own = {"=": column.equal, ">": column.more, "<": column.less}[operator]
        if own and (column is topic.columns[0] or rng.random() < 0.6):
            modifiers.append(rng.choice(own).format(_said(value)))
        else:
            modifiers.append(_state(rng, COUNTED if column.counted else MODIFIERS, column, operator, value))
    return _joined(rng, modifiers)


def _state(rng: Random, forms: Forms, column: Column, operator: str, value: Value) -> str:
    phrase = rng.choice(column.phrases)
    if column.counted and forms is CLAUSES:
        phrase = f"number of {phrase}"
    return rng.choice(forms[operator]).format(a="an" if phrase[0] in "aeio" else "a", phrase=phrase, value=_said(value))


def _said(value: Value) -> str:
    return value if isinstance(value, str) else literal(value)


def _joined(rng: Random, parts: list[str]) -> str:
    if len(parts) < 3 or rng.random() < 0.3:
        return " and ".join(parts)
    return f"{', '.join(parts[:-1])} and {parts[-1]}"


def _lower(head: str) -> str:
    return head if head.startswith("I ") else head[0].lower() + head[1:]


def _casual(rng: Random, text: str, mark: str) -> str:
    """Some write without a mark at the end, or without a capital at the start."""
    if rng.random() < 0.15:
        text = _lower(text)
    return text if rng.random() < 0.15 else text + mark
