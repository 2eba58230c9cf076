"""The first line tells what divides cells, by the names that a reader knows."""

from __future__ import annotations

import pytest

from retrieval_bench.system.csv_dialect import told_delimiter

KNOWN = ("path", "label")


@pytest.mark.parametrize(
    ("text", "delimiter"),
    [
        ("path,label\na.png,x;y\n", ","),
        ("Path; Label\na.png;x,y\n", ";"),
        ("path\tlabel\n", "\t"),
        ("path|label\n", "|"),
        ("\n\npath;label\n", ";"),
        ("path;label;a, b, c, d\n", ";"),  # known names count before the number of cells
        ('"path";"label"\n', ";"),
        ("nothing;that;is known\n", ";"),
        ("", ","),
        ("path;label\n" + "a;b\n" * 100_000, ";"),
        ("x" * 200_000, ","),  # longer than csv reads as one cell
    ],
)
def test_the_first_line_tells(text: str, delimiter: str) -> None:
    assert told_delimiter(text, KNOWN) == delimiter
