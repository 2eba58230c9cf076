"""Text of a table: what every reader takes apart in the same way."""

from __future__ import annotations

import csv
import io

from hypothesis import given
from hypothesis import strategies as st

from retrieval_bench.system.csv_text import csv_of_columns, csv_text

cells = st.text(st.characters(codec="utf-8") | st.sampled_from('\r\n",; '))


@given(st.lists(st.lists(cells, min_size=2, max_size=2)))
def test_records_come_back(records: list[list[str]]) -> None:
    text = csv_text(records)
    assert list(csv.reader(io.StringIO(text, newline=""), strict=True)) == records
    plain = [record for record in records if not set("\r\n") & set("".join(record))]
    assert csv_text(plain).count("\n") == len(plain)
    assert "\r" not in csv_text(plain)


def test_a_carriage_return_is_quoted() -> None:
    assert csv_text([["a\rb", 1], ["c", 2.5]]) == '"a\rb",1\nc,2.5\n'


def test_a_row_may_lack_columns() -> None:
    assert csv_of_columns(["a", "b"], [{"a": 1, "b": None}, {"b": "x"}]) == "a,b\n1,\n,x\n"
