"""A table on disk as rows of text: CSV in the dialects that spreadsheets and pandas write, JSONL, and Parquet."""

from __future__ import annotations

import codecs
import csv
import io
import json
import re
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from retrieval_bench.core import BenchError, printable
from retrieval_bench.system.csv_dialect import DELIMITERS, header, told_delimiter

SUFFIXES_OF_TABLES = (".csv", ".tsv", ".jsonl", ".parquet")

IN_A_LIST = "\x1f"
"""Between the values of a cell that is a list, in JSONL and Parquet."""

_BYTE_ORDER_MARKS = {
    codecs.BOM_UTF32_LE: "utf-32",  # before UTF-16, whose mark is the first half of it
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
_SEP = re.compile(r'"?sep=(.)"?[,;\t ]*(?:\r\n|\r|\n)', re.I)
_INDEX = re.compile(r"|Unnamed: \d+|__index_level_\d+__")
"""What pandas calls an index that it writes beside the columns."""


@dataclass
class Table:
    """columns: the names that occur, in order. rows: (line from 1 at which the row begins, column -> text) of each. A
    file without lines has its rows counted from 1.

    header: the line of the columns' names, 0 where each row names its own. notices: what was passed over.
    """

    columns: list[str]
    rows: list[tuple[int, dict[str, str]]]
    header: int = 0
    notices: list[str] = field(default_factory=list)


def at_line(file: Path, line: int, problem: str) -> BenchError:
    """The error sentence about one line of a file."""
    return BenchError(f"{printable(file)}, {called_line(file)} {line}: {problem}")


def called_line(file: Path) -> str:
    """What the number before a row's cells counts: lines of text, or rows where the format has no lines."""
    return "row" if file.suffix.lower() == ".parquet" else "line"


def read_table(
    file: Path, known: Collection[str], kept_as_text: Collection[str], content: bytes | None = None
) -> Table:
    """Read a whole table.

    Args:
        file: a file with one of `SUFFIXES_OF_TABLES`.
        known: names, in lower case, by which the header of a CSV file tells its delimiter.
        kept_as_text: columns, in lower case, whose values must be text or whole numbers, not true, false or fractions.
        content: the bytes of a file that lies elsewhere; None: they are read from the file.

    Returns:
        The table; cells are stripped, and those that are empty in JSONL and Parquet are absent.

    Raises:
        BenchError: The file cannot be read, or is no such table; the sentence names the line.
    """
    suffix = file.suffix.lower()
    if suffix == ".parquet":
        return _by_rows(file, _parquet_rows(file, content), kept_as_text)
    if content is None:
        try:
            content = file.read_bytes()
        except OSError as error:
            raise BenchError(f"dataset manifest: {printable(file)} cannot be read: {error.strerror}") from None
    text = _text(file, content)
    if suffix == ".jsonl":
        return _by_rows(file, _jsonl_rows(file, text), kept_as_text)
    return _csv_table(file, text, known)


def _text(file: Path, data: bytes) -> str:
    encoding = next((name for mark, name in _BYTE_ORDER_MARKS.items() if data.startswith(mark)), "")
    if not encoding and b"\0" in data[:2]:  # UTF-16 without a mark: the first character is ASCII
        encoding = "utf-16-be" if data[:1] == b"\0" else "utf-16-le"
    if encoding:
        try:
            return data.decode(encoding)
        except UnicodeDecodeError as error:
            raise BenchError(f"{printable(file)} begins as {encoding.upper()} and is not ({error.reason})") from None
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise at_line(file, line, f"byte {data[error.start]:#04x} is not UTF-8; save the file as UTF-8") from None


def _csv_table(file: Path, text: str, known: Collection[str]) -> Table:
    said = _SEP.match(text)
    start, text = (1, text[said.end() :]) if said else (0, text)
    delimiter = told_delimiter(text, known)
    if said and not header(text, delimiter, known)[0]:
        delimiter = said[1]  # one that is told by no header
    lines = _csv_lines(file, text, delimiter, start)
    header_line, cells = next(lines, (start + 1, []))
    table = Table([], [], header_line)
    dropped = {place for place, name in enumerate(cells) if not name or (not place and _INDEX.fullmatch(name))}
    names = {place: name for place, name in enumerate(cells) if place not in dropped}
    twice = sorted({name for name in names.values() if list(names.values()).count(name) > 1})
    if twice:
        raise at_line(
            file,
            header_line,
            f"the columns {', '.join(cells)} are not named uniquely: {', '.join(twice)} is there twice",
        )
    table.columns = list(names.values())
    for line, row in lines:
        if len(row) != len(cells):
            many = DELIMITERS.get(delimiter, f"{delimiter!r}")
            raise at_line(file, line, f"{len(row)} cells for {len(cells)} columns; quote cells that hold {many}")
        filled = [place for place in dropped if row[place]]
        if any(filled):  # the first column may be an index; any other has been forgotten in the header
            place = next(place for place in filled if place)
            raise at_line(file, line, f"{row[place]!r} is in a column without a name, column {place + 1}; name it")
        table.rows.append((line, {name: row[place] for place, name in names.items()}))
    if 0 in dropped:
        table.notices.append("the first column has no name of its own: it is taken for pandas' index and not read")
    return table


def _csv_lines(file: Path, text: str, delimiter: str, before: int) -> Iterator[tuple[int, list[str]]]:
    """(line, stripped cells) of each record that is not empty. before: lines that `text` no longer has."""
    stream = io.StringIO(text, newline="")
    try:
        reader = csv.reader(stream, delimiter=delimiter, skipinitialspace=delimiter != " ", strict=True)
    except (TypeError, ValueError):
        raise at_line(file, 1, f"sep={delimiter!r} cannot divide cells; write a comma, semicolon or tab") from None
    done = before
    try:
        for row in reader:
            line, done = done + 1, before + reader.line_num  # a quoted cell may span lines: name the first one
            cells = [cell.strip() for cell in row]
            if any(cells):
                yield line, cells
    except csv.Error as error:
        raise at_line(file, done + 1, f"not valid CSV: {error}") from None


def _jsonl_rows(file: Path, whole: str) -> Iterator[tuple[int, dict[str, Any]]]:
    for line, text in enumerate(whole.split("\n"), 1):  # not splitlines(): U+2028 may stand in a JSON string
        if not text.strip():
            continue
        try:
            record = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise at_line(file, line, f"not valid JSON: {error}") from None
        if not isinstance(record, dict):
            raise at_line(file, line, f"a JSON {type(record).__name__}, not an object with the columns as its keys")
        yield line, record


def _parquet_rows(file: Path, content: bytes | None) -> Iterator[tuple[int, dict[str, Any]]]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise BenchError(
            f"{printable(file)} needs pyarrow, which is not installed; install it by pip install "
            "'retrieval-bench[parquet]', or write the table as CSV"
        ) from None
    try:
        table = pyarrow.parquet.read_table(file if content is None else pyarrow.BufferReader(content))
    except (OSError, ValueError, pyarrow.ArrowException) as error:
        raise BenchError(f"{printable(file)} cannot be read as Parquet: {error}") from None
    names = table.column_names
    if len(set(names)) < len(names):
        raise BenchError(f"{printable(file)}: the columns {', '.join(names)} are not named uniquely")
    yield from enumerate(table.to_pylist(), 1)


def _by_rows(file: Path, records: Iterable[tuple[int, dict[str, Any]]], kept_as_text: Collection[str]) -> Table:
    """A table each of whose rows names its columns."""
    table = Table([], [])
    for line, record in records:
        cells = {}
        for key, value in record.items():
            if key not in table.columns:
                table.columns.append(key)
            if value is not None:
                cells[key] = _cell(file, line, key, value, kept_as_text)
        table.rows.append((line, cells))
    indexes = [name for name in table.columns if _INDEX.fullmatch(name)]
    if indexes:
        table.columns = [name for name in table.columns if name not in indexes]
        for _, cells in table.rows:
            for name in indexes:
                cells.pop(name, None)
        table.notices.append(f"the column {', '.join(map(repr, indexes))} is taken for pandas' index and not read")
    return table


def _cell(file: Path, line: int, key: str, value: Any, kept_as_text: Collection[str]) -> str:
    of_text = key.strip().casefold() in kept_as_text
    if isinstance(value, list) and of_text and all(isinstance(one, (str, int)) for one in value):
        return IN_A_LIST.join(_cell(file, line, key, one, kept_as_text) for one in value)
    if isinstance(value, str):
        if not value.isascii() and any("\ud800" <= letter <= "\udfff" for letter in value):
            raise at_line(file, line, f"{key} {value!r} is not text: half a surrogate pair")
        return value.strip()
    if of_text and isinstance(value, float) and value != value:  # pandas writes a missing text as NaN
        return ""
    if isinstance(value, (dict, list, bytes)) or (isinstance(value, (bool, float)) and of_text):
        told = _shortly(value)
        raise at_line(file, line, f"{key} is {told}; it must be text or a whole number")
    return str(value)


def _shortly(value: Any) -> str:
    encode: Callable[[Any], str] = json.dumps
    try:
        return encode(value)[:40]
    except (TypeError, ValueError):
        return repr(value)[:40]
