"""The page: safe, whole, alone, and with the record's own numbers."""

from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from retrieval_bench.records.files import save
from retrieval_bench.records.schema import Failure, Interval, OpenSet, Row, Statistics
from retrieval_bench.report import plots, table
from retrieval_bench.report.evidence import Evidence, gather
from retrieval_bench.report.lines import three_digits
from retrieval_bench.report.markup import Markup, joined, tag, text, visible
from retrieval_bench.report.page import render
from tests.support.evidences import METHODS, Read, assert_safe, read_page, saved
from tests.support.paths import ROOT
from tests.support.records import failed, record, row

HOSTILE = "\"><script src=//evil.example>alert(1)</script><img src=x onerror='alert(2)'>&amp;</style>"


def page(folder: Path, *others: Path) -> Read:
    return read_page(render([gather(each) for each in (folder, *others)]))


def test_a_page_is_safe_and_has_every_section(tmp_path: Path) -> None:
    read = page(saved(tmp_path))
    assert_safe(read)
    anchors = {value[1:] for value in read.values("href")}
    assert anchors <= set(read.values("id"))
    assert anchors == {
        *("results", "cost", "pairs", "curves", "latency", "slices", "confusion", "roc", "gallery"),
        *("definitions", "methods", "environment"),
    }
    assert len(read.values("id")) == len(set(read.values("id")))


def test_hostile_names_are_text(tmp_path: Path) -> None:
    names = (HOSTILE.replace("/", "∕"), "a\u202eb", "x\x00y", "fig")
    hostile = saved(
        tmp_path / "r",
        {HOSTILE: "local", "b<i>": "color", "c&d": "hash"},
        names=names,
        more=(failed("vgg16", HOSTILE),),
        dataset={"name": HOSTILE, "spec": HOSTILE, "notices": (HOSTILE,)},
        settings={"weights": HOSTILE},
        command=("python -m benchmark", "run", HOSTILE),
        environment={"processor": HOSTILE, "libraries": {HOSTILE: HOSTILE}},
    )
    read = page(hostile)
    assert_safe(read)
    assert HOSTILE in read.text
    assert names[0] in read.text
    assert "a[U+202E]b" in read.text
    assert "\u202e" not in read.text
    raw = render([gather(hostile)])
    assert "<script" not in raw
    assert "onerror='" not in raw


def test_only_markup_is_not_escaped() -> None:
    assert tag("b", "<", Markup("<i></i>"), None, ["&", 3]) == "<b>&lt;<i></i>&amp;3</b>"
    assert tag("td", title='"\n<', class_="x") == '<td title="&#34; &lt;" class="x"></td>'
    assert joined("a", Markup("<br>")) == "a<br>"
    assert text("'") == "&#39;"
    assert visible("a\u200b\ud800") == "a[U+200B][U+D800]"
    for name in ("onclick", "style", "onLoad"):
        with pytest.raises(ValueError, match="not allowed"):
            tag("b", **{name: "x"})


def test_the_headline_table_is_the_records(tmp_path: Path) -> None:
    folder = saved(tmp_path, more=(failed("vgg16", "no weights"),))
    evidence = gather(folder)
    headline = page(folder).tables[0]
    shown = table.columns(evidence.record)
    assert [head for head in headline[0] if head != "0 to 1"] == ["method", *(column.head for column in shown)]
    for cells, expected in zip(headline[1:], table.grid(evidence.record, shown), strict=True):
        if "failed" in expected:
            assert cells == [expected[0], "failed"]
        else:
            assert cells[:2] + cells[3:] == expected


def test_latencies_are_the_records(tmp_path: Path) -> None:
    folder = saved(tmp_path)
    (latency,) = [one for one in page(folder).tables if one[0][0] == "ms"]
    for cells, row_ in zip(latency[1:], gather(folder).record.rows, strict=True):
        parts = [
            three_digits(row_.times[f"{phase}_{part}"].value or 0)
            for phase in ("decode", "extract", "search", "end_to_end")
            for part in ("p50", "p95", "p99")
        ]
        assert cells == [row_.method, *parts]


def test_pairs_are_the_records_and_change_sign_with_their_order(tmp_path: Path) -> None:
    folder = saved(tmp_path)
    compared = gather(folder).record.comparisons["accuracy"]
    (matrix,) = [one for one in page(folder).tables if one[0][0] == "" and len(one) == 4 and "(local)" not in one[0][1]]
    heads = matrix[0][1:]
    cells = {(line[0], head): cell for line in matrix[1:] for head, cell in zip(heads, line[1:], strict=True)}
    checked = 0
    for pair in compared.pairs:
        if "random" in (pair.first, pair.second):
            continue
        for key, mean in (((pair.first, pair.second), pair.mean), ((pair.second, pair.first), -pair.mean)):
            assert cells[key].strip("()") == f"{mean:+.3f}"
            assert cells[key].startswith("(") == (pair.p_holm > 0.05)
            checked += 1
    assert checked == 6


def test_definitions_and_command_stand_on_the_page(tmp_path: Path) -> None:
    folder = saved(tmp_path, command=("python -m benchmark", "run", "--data-root", "my shop"))
    read = page(folder)
    assert "python -m benchmark run --data-root 'my shop'" in read.text
    assert "rel(1)" in read.text
    assert gather(folder).record.dataset.fingerprint in read.text


def test_queries_without_an_answer_have_a_section_where_there_are_some(tmp_path: Path) -> None:
    told = OpenSet(
        answerable=36,
        unanswerable=20,
        scores={"auroc": 0.918, "rejected@95": 0.5},
        intervals={"auroc": Interval(low=0.618, high=0.987), "rejected@95": Interval(low=0.0, high=0.881)},
        threshold=0.4,
    )
    asked = row("color").model_copy(update={"open_set": told})
    page_with = render([Evidence("r", record(asked, row("phash")), no_arrays="none")])
    assert "20 queries have no answer in the gallery, 36 have one" in page_with
    assert {"0.918", "0.618-0.987", "0.500", "0.000-0.881"} <= set(re.findall(r"<td[^>]*>([^<]+)</td>", page_with))
    assert "Queries without an answer" not in render([Evidence("r", record(row("color")), no_arrays="none")])


def test_a_failed_row_and_an_interrupted_run_are_told(tmp_path: Path) -> None:
    folder = saved(
        tmp_path,
        more=(failed("vgg16", "no weights for vgg16"),),
        status="interrupted",
        settings={"methods": (*METHODS, "vgg16", "hog")},
    )
    read = page(folder)
    assert_safe(read)
    assert "vgg16 failed: no weights for vgg16" in read.text
    assert "This run is interrupted: it has 5 methods; also planned: hog." in read.text


def test_without_rankings_the_page_says_so_and_goes_on(tmp_path: Path) -> None:
    folder = saved(tmp_path)
    (folder / "rankings.npz").unlink()
    read = page(folder)
    assert_safe(read)
    assert "rankings.npz: cannot be read" in read.text
    assert {"results", "cost", "latency", "environment"} <= set(read.values("id"))
    assert not {"curves", "slices", "confusion", "roc", "gallery"} & set(read.values("id"))


def test_other_rankings_than_the_records_are_refused(tmp_path: Path) -> None:
    folder = saved(tmp_path)
    np.savez(folder / "rankings.npz", query_ids=np.array(["x"]))
    assert "not the rankings that run.json beside it names" in page(folder).text


@pytest.mark.parametrize(
    ("methods", "absent"),
    [
        ({"sift": "local"}, {"cost", "pairs", "gallery"}),
        ({"random": "control"}, {"cost", "pairs", "gallery", "slices"}),
    ],
)
def test_one_method_alone(tmp_path: Path, methods: dict[str, str], absent: set[str]) -> None:
    read = page(saved(tmp_path, methods))
    assert_safe(read)
    assert not absent & set(read.values("id"))
    assert {"results", "curves", "environment"} <= set(read.values("id"))


def test_no_heads_no_roc(tmp_path: Path) -> None:
    read = page(saved(tmp_path, classifiers=()))
    assert_safe(read)
    assert "roc" not in read.values("id")
    assert "confusion" in read.values("id")


def test_a_record_in_which_all_failed(tmp_path: Path) -> None:
    save(record(failed("vgg16"), failed("sift")), tmp_path, {})
    read = page(tmp_path)
    assert_safe(read)
    assert read.text.count("no weights") >= 2


def test_the_page_says_how_intervals_are_computed(tmp_path: Path) -> None:
    known = {"resamples": 10_000, "level": 0.95, "seed": 0, "clusters": 4}
    new = page(saved(tmp_path / "new", statistics=Statistics(**known, intervals="the rule", differences="the other")))
    assert "Of a mean: the rule. Of a difference: the other." in new.text
    assert "bootstrap" not in new.text
    old = page(saved(tmp_path / "old", statistics=Statistics(**known)))
    assert "come from a cluster bootstrap: the 4 labels are drawn with replacement" in old.text


def test_a_record_of_an_earlier_version_without_intervals(tmp_path: Path) -> None:
    read = page(saved(tmp_path, statistics=None, comparisons={}))
    assert_safe(read)
    assert "pairs" not in read.values("id")


def test_a_gallery_that_was_not_ranked_whole(tmp_path: Path) -> None:
    read = page(saved(tmp_path, whole=False))
    assert_safe(read)
    assert "curves" in read.values("id")


def test_without_data_the_page_says_so_and_names_what_was_found(tmp_path: Path) -> None:
    text = page(saved(tmp_path, dataset={"spec": "folder", "root": "/nowhere/shop"})).text
    assert "Images are not shown: dataset folder: /nowhere/shop is not a directory" in text
    assert "✓" in text
    assert "✗" in text
    assert "plum" in text


class Perturbed(Row):
    """A row of a run with perturbed queries."""

    robustness: tuple[Any, ...] = ()


def test_robustness_is_drawn_where_the_record_has_it() -> None:
    at = [SimpleNamespace(perturbation="blur", severity=n, scores={"accuracy": 0.5 - n / 20}) for n in (3, 1, 5)]
    rows = [Perturbed(**{**vars(row("sift")), "robustness": at}), row("color")]
    read = read_page(render([Evidence("r", record(*rows), no_arrays="none")]))
    assert_safe(read)
    assert "robustness" in read.values("id")
    assert "accuracy against blur" in read.values("aria-label")
    points = [value for name, key, value in read.attributes if (name, key) == ("polyline", "points")][-1]
    found = [tuple(map(float, point.split(","))) for point in points.split()]
    expected = [(0, 0.5), (1, 0.45), (3, 0.35), (5, 0.25)]
    for (across, down), (severity, accuracy) in zip(found, expected, strict=True):
        wide, high = plots.WIDTH - plots.LEFT - plots.RIGHT, plots.HEIGHT - plots.TOP - plots.BOTTOM
        assert (across - plots.LEFT) / wide * 5 == pytest.approx(severity, abs=0.005)
        assert (plots.HEIGHT - plots.BOTTOM - down) / high == pytest.approx(accuracy, abs=0.005)
    assert "robustness" not in read_page(render([Evidence("r", record(row()))])).values("id")
    said = record(*rows, perturbations={"blur": "sigma <1> to 5"})
    assert "sigma &lt;1&gt; to 5." in render([Evidence("r", said, no_arrays="none")])


def test_several_records_of_the_same_data_share_a_table(tmp_path: Path) -> None:
    first = saved(tmp_path / "a")
    second = saved(tmp_path / "b", {"hog": "gradient"}, classifiers=())
    read = page(first, second)
    assert_safe(read)
    combined = read.tables[0]
    assert [line[:2] for line in combined[1:]] == [*([name, "1"] for name in METHODS), ["hog", "2"]]
    for number, folder in enumerate((first, second), start=1):
        assert f"{number}. {folder}" in read.text
    assert "group" not in combined[0]
    accuracy = combined[0].index("accuracy")
    assert combined[1][accuracy] == f"{gather(first).record.rows[0].scores['accuracy']:.3f}"
    assert len(read.values("id")) == len(set(read.values("id")))
    assert {value[1:] for value in read.values("href")} <= set(read.values("id"))


def test_records_of_different_data_are_not_put_in_one_table(tmp_path: Path) -> None:
    read = page(saved(tmp_path / "a"), saved(tmp_path / "b", dataset={"fingerprint": "cd" * 32}))
    assert_safe(read)
    assert "must not stand in one table" in read.text
    assert read.tables[0][0][1] == "accuracy"


def test_a_method_that_failed_with_a_traceback_shows_its_sentence_alone() -> None:
    error = Failure(kind="ValueError", sentence="it broke", traceback="Traceback: secret")
    evidence = Evidence("r", record(row(), row("x", status="failed", scores={}, error=error)), no_arrays="none")
    text = render([evidence])
    assert "x failed: it broke" in text
    assert "secret" not in text


def test_the_same_records_give_the_same_page(tmp_path: Path) -> None:
    folder = saved(tmp_path)
    assert render([gather(folder)]) == render([gather(folder)])


@pytest.mark.slow(reason="a page with all pictures of a record")
def test_the_page_of_the_reference_record_is_light() -> None:
    whole = render([gather(ROOT / "results" / "reference" / "products")])
    assert_safe(read_page(whole))
    assert whole.count("data:image/jpeg;base64,") > 100
    assert len(whole.encode()) < 1.5e6
