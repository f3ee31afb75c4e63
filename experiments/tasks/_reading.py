"""The user's data files as text, JSON and tables. What cannot be read is one line that names the file and the place."""

import codecs
import csv
import io
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd

from lora.config import InputError

UTF_8 = "utf-8-sig"  # the byte order mark, if there is one, is no text
MARKS = {  # the longer ones first: that of UTF-32 begins with that of UTF-16
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
READ_AHEAD = 4096  # bytes from which UTF-16 without a mark is told


def read_text(path: Path, encoding: str | None = None, option: bool = False) -> str:
    """The text of a file as `decoded` has it, every line break a line feed."""
    return decoded(path, encoding, option).replace("\r\n", "\n").replace("\r", "\n")


def decoded(path: Path, encoding: str | None = None, option: bool = False) -> str:
    """The text of a file in `encoding` (None: UTF-8), line breaks as they are in it.

    option: whether the user can name the encoding as task.encoding, which the error then says. Raises InputError for a
    file that is missing, unreadable or in another encoding, which it names as far as the bytes tell, and for an
    encoding that there is not.
    """
    if encoding is not None:
        check_encoding(encoding)
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from error
    likely = likely_encoding(content)
    if encoding is None and likely not in (None, "cp1252", "latin-1"):
        raise InputError(f"{path} is not UTF-8: it looks like {likely}{_advice(likely, option)}")
    try:
        return content.decode(encoding or UTF_8)
    except ValueError as error:  # UnicodeError is one; some codecs raise others
        if encoding is not None:
            tried = f"{path} cannot be read with task.encoding = {encoding}: {error}"
            raise InputError(tried + (f"; it looks like {likely}" if likely else "; it is valid UTF-8")) from error
        raise InputError(f"{path} is not UTF-8: {error}; it looks like {likely}{_advice(likely, option)}") from error


def check_encoding(encoding: object) -> None:
    """Raises InputError if `encoding` is no text encoding of Python."""
    try:
        known = isinstance(encoding, str) and codecs.lookup(encoding)._is_text_encoding
    except (LookupError, ValueError):  # ValueError: a null character in it
        known = False
    if not known:
        raise InputError(f"task.encoding = {encoding!r}: no such text encoding; examples are utf-8, cp1252, utf-16")


def likely_encoding(content: bytes) -> str | None:
    """What bytes that are not UTF-8 are in, by their marks, zeros and C1 controls; None if they are UTF-8."""
    for mark, name in MARKS.items():
        if content.startswith(mark):
            return name
    head = content[:READ_AHEAD]
    for name, zeros in (("utf-16-le", head[1::2]), ("utf-16-be", head[::2])):
        # Text in a Western language is half zeros. UTF-8 has zeros only where someone wrote a null character.
        if len(zeros) > 1 and zeros.count(0) > 0.4 * len(zeros):
            return name
    try:
        content.decode("utf-8")
    except UnicodeDecodeError:
        try:
            content.decode("cp1252")  # five bytes are no character in it
        except UnicodeDecodeError:
            return "latin-1"
        return "cp1252"
    return None


def _advice(likely: str | None, option: bool) -> str:
    return f"; task.encoding={likely} reads it so, or save it as UTF-8" if option else "; save it as UTF-8"


def parse_json(text: str, where: str) -> Any:
    """The value that a JSON text is. Raises InputError, beginning with `where`, for what is no JSON, a number of more
    digits than Python reads, lists in lists without end, and half a surrogate pair, which is no character."""
    try:
        value = json.loads(text)
        if "\\u" in text:
            json.dumps(value, ensure_ascii=False).encode()
    except json.JSONDecodeError as error:
        raise InputError(f"{where} is not JSON: {error}") from error
    except UnicodeEncodeError as error:
        half = f"\\u{ord(error.object[error.start]):04x}"
        raise InputError(f"{where} has {half} alone, half of a surrogate pair, which is no character") from error
    except RecursionError as error:
        raise InputError(f"{where} is nested too deeply to be data") from error
    except ValueError as error:
        most = sys.get_int_max_str_digits()
        raise InputError(f"{where} has an integer of more than {most} digits: write it as a text") from error
    return value


def json_lines(path: Path, encoding: str | None = None, option: bool = False) -> Iterator[tuple[int, Any]]:
    """(number of the line, value) of each line that is not blank. Raises InputError as `read_text`, `parse_json`."""
    # At line feeds alone: other characters that Python takes for line breaks may stand in a JSON text.
    for number, line in enumerate(read_text(path, encoding, option).split("\n"), start=1):
        if line.strip():
            yield number, parse_json(line, f"{path}: line {number}")


def read_table(
    path: Path, sep: str, quoting: int = csv.QUOTE_NONE, encoding: str | None = None, option: bool = False, **more: Any
) -> pd.DataFrame:
    """A table, every cell a string: words such as NA and None are text, not missing values.

    `more` goes to pandas.read_csv. Raises InputError as `read_text`, and for a file that is empty or not a table.
    """
    text = decoded(path, encoding, option)
    more |= {"dtype": str, "keep_default_na": False}
    try:
        if "header" not in more:
            first = pd.read_csv(io.StringIO(text), sep=sep, quoting=quoting, header=None, nrows=1, **more)  # type: ignore[call-overload]
            _refuse_twice(path, first.iloc[0].tolist())
        frame: pd.DataFrame = pd.read_csv(io.StringIO(text), sep=sep, quoting=quoting, **more)  # type: ignore[call-overload]
    except pd.errors.EmptyDataError as error:
        raise InputError(f"{path} is empty") from error
    except (pd.errors.ParserError, UnicodeEncodeError) as error:
        raise InputError(f"{path} is not a table: {str(error).strip()}") from error
    if not isinstance(frame.index, pd.RangeIndex):  # pandas takes the surplus fields for an index
        raise InputError(f"{path}: the rows have more fields than the header")
    return frame


def _refuse_twice(path: Path, names: list[str]) -> None:
    """Raises InputError if two columns have one name: pandas calls the second by another."""
    for name in names:
        if name and names.count(name) > 1:
            raise InputError(f"{path} has {names.count(name)} columns named '{name}': leave one")


def read(path: Path, encoding: str | None = None) -> pd.DataFrame:
    """The table in a file, indexed by the line on which a row starts; cells are strings, or what a JSONL file has.

    CSV may quote fields, TSV may not (a quotation mark is text). What a row lacks is an empty string. Raises
    InputError for an unknown file type, and a file that cannot be read or has no rows.
    """
    ending = path.suffix.lower()
    if ending == ".jsonl":
        return _read_jsonl(path, encoding)
    if ending not in (".csv", ".tsv"):
        raise InputError(f"{path}: unknown file type '{path.suffix}'; there are: .csv, .tsv, .jsonl")
    sep, quoting = (",", csv.QUOTE_MINIMAL) if ending == ".csv" else ("\t", csv.QUOTE_NONE)
    return _by_line(read_table(path, sep, quoting, encoding, option=True, skip_blank_lines=False))


def _by_line(table: pd.DataFrame) -> pd.DataFrame:
    """Index the rows by line number; blank lines go."""
    # A quoted field may span lines, so that the rows after it start later.
    breaks = table.apply(lambda column: column.str.count("\n")).sum(axis=1).cumsum().shift(fill_value=0)
    table.index = pd.Index(range(2, len(table) + 2)) + breaks.astype(int)
    return table[(table != "").any(axis=1)]


def _read_jsonl(path: Path, encoding: str | None) -> pd.DataFrame:
    rows: dict[int, dict[str, Any]] = {}
    for number, row in json_lines(path, encoding, option=True):
        if not isinstance(row, dict):
            raise InputError(f"{path}: line {number} is not a JSON object")
        rows[number] = row
    if not rows:
        raise InputError(f"{path} is empty")
    # Objects, lest a missing value turn a column of integers into floats: the label 1 must not become 1.0.
    table = pd.DataFrame(list(rows.values()), index=list(rows), dtype=object)
    return table.where(table.notna(), "")
