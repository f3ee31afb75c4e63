"""A column and a topic of the made-up tables of text2sql: what its cells are, and how a question speaks of it."""

from dataclasses import dataclass

from experiments.tasks._sql_values import Numbers, Words


@dataclass(frozen=True)
class Column:
    """A column, its cells, and the words for it.

    headers are the names that it may have in a table, phrases those that it may have in a question. equal, more and
    less are what may follow the topic's noun ("films") to say that the cell is, is above, is below {}; further ones are
    made of the phrases. `many` is the plural of a text column's phrase. Numbers can be summed if `total`; those that
    are `counted` say how many there are of what the phrases name.
    """

    headers: tuple[str, ...]
    phrases: tuple[str, ...]
    values: Words | Numbers
    many: str = ""
    equal: tuple[str, ...] = ()
    more: tuple[str, ...] = ()
    less: tuple[str, ...] = ()
    highest: tuple[str, ...] = ("highest", "largest", "maximum", "greatest", "top")
    lowest: tuple[str, ...] = ("lowest", "smallest", "minimum", "least")
    total: bool = False
    counted: bool = False

    @property
    def type(self) -> str:
        """`text` or `number`."""
        return "text" if isinstance(self.values, Words) else "number"


@dataclass(frozen=True)
class Topic:
    """What a row is, as one and as many; the first column is the one that names it."""

    one: str
    many: str
    columns: tuple[Column, ...]


def topic(nouns: str, *columns: Column) -> Topic:
    """A topic; nouns are `one|many`."""
    one, many = nouns.split("|")
    return Topic(one, many, columns)


def text(names: str, many: str, values: Words, equal: str = "") -> Column:
    """A column of texts. Here and below alternatives have bars between them; a name after ~ is a header only."""
    return Column(*_names(names), values, many, _split(equal))


def number(names: str, values: Numbers, more: str = "", less: str = "", equal: str = "", total: bool = False) -> Column:
    """A column of numbers."""
    return Column(*_names(names), values, "", _split(equal), _split(more), _split(less), total=total)


def count(names: str, low: int, high: int) -> Column:
    """How many there are of something."""
    return Column(*_names(names), Numbers(low, high), total=True, counted=True)


def year(names: str, done: str, low: int = 1950, high: int = 2020) -> Column:
    """The year in which something was `done`: "released"."""
    equal, more, less = (
        (f"{done} in {{}}",),
        (f"{done} after {{}}", f"{done} later than {{}}"),
        (f"{done} before {{}}",),
    )
    superlatives = (("latest", "most recent", "last"), ("earliest", "first"))
    return Column(*_names(names), Numbers(low, high), "", equal, more, less, *superlatives)


def _names(names: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    headers = tuple(name.removeprefix("~").replace(" ", "_") for name in names.split("|"))
    return headers, tuple(name for name in names.split("|") if not name.startswith("~"))


def _split(forms: str) -> tuple[str, ...]:
    return tuple(forms.split("|")) if forms else ()
