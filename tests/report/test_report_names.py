"""Long names on a page: short, one for each method, and explained."""

from __future__ import annotations

from pathlib import Path

import pytest

from retrieval_bench.report import table
from retrieval_bench.report.evidence import gather
from retrieval_bench.report.names import ROOM, names_of
from retrieval_bench.report.page import render
from tests.support.evidences import METHODS, read_page, saved
from tests.support.records import record, row

LONG = "squeezenet1_0:pool=rmac:flip=true:whiten=512:level=0.5"
OTHER = "squeezenet1_0:weights=mine/squeezenet1_0-shop.pth:pool=avg"


def test_parts_with_options_become_numbers_that_are_the_same_in_every_name() -> None:
    methods = [LONG, f"{LONG}+sift+color", "sift", f"{OTHER}+{LONG}[untrained]", OTHER, "resnet50:pool=gem[untrained]"]
    names = names_of(methods)
    assert names.short == {
        LONG: "squeezenet1_0(1)",
        f"{LONG}+sift+color": "squeezenet1_0(1)+sift+color",
        "sift": "sift",
        f"{OTHER}+{LONG}[untrained]": "squeezenet1_0(2)+squeezenet1_0(1)[untrained]",
        OTHER: "squeezenet1_0(2)",
        "resnet50:pool=gem[untrained]": "resnet50(3)[untrained]",
    }
    assert names.parts == {
        "squeezenet1_0(1)": LONG,
        "squeezenet1_0(2)": OTHER,
        "resnet50(3)": "resnet50:pool=gem",
    }
    assert names.of([f"{LONG}+sift+color", "sift"]) == {"squeezenet1_0(1)": LONG}


@pytest.mark.parametrize("name", ["sift", "phash:size=16", "a" * ROOM, "sift+dense-sift+color+hog+lbp"])
def test_short_names_and_names_without_options_stay(name: str) -> None:
    assert names_of([name]).short == {name: name}
    assert names_of([name]).parts == {}


def test_every_place_of_a_page_uses_the_short_name_and_says_once_what_it_means(tmp_path: Path) -> None:
    families = dict(METHODS) | {LONG: "deep", f"{LONG}+sift": "fusion"}
    folder = saved(tmp_path, families)
    evidence = gather(folder)
    names = names_of(row.method for row in evidence.record.rows)
    short = evidence.renamed(names)
    assert [row.method for row in short.finished] == [names.short[row.method] for row in evidence.finished]
    for method in families:
        assert (short.arrays[f"{names.short[method]}/indices"] == evidence.arrays[f"{method}/indices"]).all()
    groups = evidence.record.comparisons["accuracy"].groups
    assert short.record.comparisons["accuracy"].groups == {names.short[method]: each for method, each in groups.items()}
    page = read_page(render([evidence]))
    assert page.text.count(LONG) == 1
    assert "squeezenet1_0(1)+sift" in page.text
    assert [line[0] for line in page.tables[0][1:]] == [names.short[method] for method in families]


def test_a_narrow_terminal_has_short_names_before_columns_go() -> None:
    one = record(row("sift"), row(f"{LONG}+sift"), row(OTHER))
    assert LONG in table.terminal(one).splitlines()[3]
    lines = table.terminal(one, 160).splitlines()
    assert [line.split()[0] for line in lines[2:5]] == ["sift", "squeezenet1_0(1)+sift", "squeezenet1_0(2)"]
    assert f"squeezenet1_0(1) = {LONG}" in lines
    assert not [line for line in lines if line.startswith("Too narrow")]
