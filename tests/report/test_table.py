from __future__ import annotations

import csv
import io
import re

import pytest

from retrieval_bench.records.schema import (
    ClassifierFacts,
    Comparison,
    Interval,
    OpenSet,
    Pair,
    Skipped,
    Statistics,
    TimeFigure,
)
from retrieval_bench.report import table
from retrieval_bench.report.lines import ends, three_digits
from tests.support.records import failed, record, row


def test_terminal_shows_every_method_and_figure() -> None:
    text = table.terminal(record(row("sift"), row("resnet50[untrained]")))
    head, *rest = text.splitlines()
    assert head.split()[:2] == ["method", "accuracy"]
    (line,) = (line for line in rest if line.startswith("sift"))
    assert {"0.500", "0.450", "0.750", "0.375", "12.3", "1,234", "4,096", "n/a"} <= set(line.split())
    assert any(line.startswith("resnet50[untrained] ") for line in rest)
    assert "this network has learned nothing" in text


@pytest.mark.parametrize("width", [40, 60, 80, 100, 140])
def test_terminal_fits_and_says_what_it_left_out(width: int) -> None:
    text = table.terminal(record(row("sift"), row("mobilenet_v3_small[untrained]")), width)
    assert max(map(len, text.splitlines())) <= max(width, 45)
    assert "accuracy" in text
    if width < 100:
        assert "Too narrow for" in text


def test_several_queries_at_once_have_lines_of_their_own() -> None:
    """In terminal and Markdown; a percentile without a value is n/a; nothing where none was timed."""
    figures = {f"concurrency_4_{part}": TimeFigure(value=2.5, unit="ms", n=50) for part in ("p50", "p95")}
    figures["concurrency_4_p99"] = TimeFigure(value=None, unit="ms", n=50)
    figures["concurrency_4_throughput"] = TimeFigure(value=1234.5, unit="queries/s", n=50)
    timed = record(row("sift").model_copy(update={"times": figures}), settings={"concurrency": (4,)})
    assert ["sift", "4", "2.50", "2.50", "n/a", "1,234"] in [
        line.split() for line in table.terminal(timed).splitlines()
    ]
    assert "| sift | 4 | 2.50 | 2.50 | n/a | 1,234 |" in table.markdown(timed)
    assert "at once" not in table.terminal(record(row("sift")))


def test_a_failed_method_is_a_row_and_a_sentence() -> None:
    text = table.terminal(record(row(), failed("vgg16", "no weights for vgg16")))
    assert "failed" in next(line for line in text.splitlines() if line.startswith("vgg16"))
    assert "vgg16 failed: no weights for vgg16" in text


def test_the_ceiling_of_a_metric_is_told() -> None:
    assert "A perfect ranking reaches f1@10 0.571 here." in table.terminal(record(row()))


def test_what_was_left_out_is_told() -> None:
    skipped = (Skipped(split="query", id="a.jpg", reason="damaged", detail="x"),)
    dataset = {"skipped": skipped, "notices": ("3 of 13 queries left out",)}
    text = table.terminal(record(row(), dataset=dataset))
    assert "1 unusable images skipped" in text
    assert "3 of 13 queries left out" in text
    assert "did not finish" not in text


def test_times_beside_other_processes_are_told() -> None:
    beside, calm = row("sift").model_copy(update={"other_processes": 0.341}), row("orb")
    text = table.terminal(record(beside, calm.model_copy(update={"other_processes": 0.09})))
    assert "Other processes took up to 34 % of the cores while sift was timed" in text
    assert "Other processes" not in table.terminal(record(calm))


@pytest.mark.parametrize(("alone", "told"), [(1181.0, True), (60.0, False)])
def test_an_image_that_takes_much_longer_alone_than_in_bulk_is_told(alone: float, told: bool) -> None:
    figures = {
        "extract_p50": TimeFigure(value=alone, unit="ms", n=128),
        "extract_throughput": TimeFigure(value=100.0, unit="images/s", n=128),
    }
    text = table.terminal(record(row("resnet18").model_copy(update={"times": figures})))
    assert ("resnet18: one image alone takes 1181 ms to describe, but 20 ms of a thread in bulk" in text) is told
    assert ("in bulk" in text) is told


@pytest.mark.parametrize("status", ["running", "interrupted"])
def test_a_run_that_did_not_finish_says_so(status: str) -> None:
    assert "The run did not finish" in table.terminal(record(row(), status=status))


def test_hostile_names_neither_style_nor_break_a_table() -> None:
    hostile = "[bold]x|y[/bold]"
    assert hostile in table.terminal(record(row(hostile)))
    line = next(line for line in table.markdown(record(row(hostile))).splitlines() if "bold" in line)
    assert line.count("|") - line.count("\\|") == table.markdown(record(row())).splitlines()[0].count("|")


def test_markdown_explains_its_columns() -> None:
    text = table.markdown(record(row()))
    for head in text.splitlines()[0].strip("| ").split(" | ")[1:]:
        assert f"- **{head}**: " in text


def test_how_sure_a_number_is_stands_beside_it() -> None:
    sift = row("sift", intervals={"accuracy": Interval(low=0.42, high=0.58)})
    pair = Pair(first="sift", second="hog", mean=0.1, low=-0.1, high=0.2, p=0.3, p_holm=0.3)
    same = Comparison(pairs=(pair,), groups={"sift": "a", "hog": "ab"})
    text = table.terminal(record(sift, row("hog"), comparisons={"accuracy": same}))
    line = next(line for line in text.splitlines() if line.startswith("sift")).split()
    assert line[1:4] == ["0.500", "0.420-0.580", "a"]
    assert next(line for line in text.splitlines() if line.startswith("hog")).split()[2:4] == ["n/a", "ab"]
    assert "Methods that share a letter" in text
    (first, _) = csv.DictReader(io.StringIO(table.tidy_csv(record(sift, row("hog")))))
    assert (first["accuracy low"], first["accuracy high"]) == ("0.42", "0.58")


def test_heads_have_their_columns() -> None:
    svm = ClassifierFacts(
        scores={"accuracy": 0.625, "macro_f1": 0.6125}, times={"fit": TimeFigure(value=2.5, unit="s")}
    )
    refused = ClassifierFacts(error="hog keeps no vector")
    one = record(
        row("sift", classifiers={"svm": svm}), row("hog", heads={"svm": refused}), settings={"classifiers": ("svm",)}
    )
    text = table.terminal(one)
    assert re.search(r"map@r +svm +svm f1 ", text.splitlines()[0])
    assert {"0.625", "0.613"} <= set(next(line for line in text.splitlines() if line.startswith("sift")).split())
    assert "No svm: hog keeps no vector." in text
    sift, hog = csv.DictReader(io.StringIO(table.tidy_csv(one)))
    assert (sift["svm accuracy"], sift["svm macro_f1"], sift["svm fit [s]"]) == ("0.625", "0.6125", "2.5")
    assert hog["svm accuracy"] == ""


def test_csv_is_complete_and_in_full_precision() -> None:
    rows = list(csv.DictReader(io.StringIO(table.tidy_csv(record(row(), failed())))))
    assert rows[0]["accuracy"] == "0.5"
    assert rows[0]["end_to_end_p50 [ms]"] == "12.345"
    assert rows[0]["end_to_end_p95 [ms]"] == ""
    assert rows[0]["bytes_per_image"] == "4096"
    assert rows[1]["status"] == "failed"
    assert rows[1]["error"] == "no weights"
    assert rows[1]["accuracy"] == ""


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0.0000"), (0.01234, "0.0123"), (0.1234, "0.123"), (1.234, "1.23"), (12.34, "12.3"), (1234.5, "1,234")],
)
def test_figures_have_three_digits_and_no_exponent(value: float, text: str) -> None:
    assert three_digits(value) == text


def test_sentences_from_outside_stay_words() -> None:
    """File names reach the table in sentences of errors: no tag, no turned direction, no order to the terminal."""
    broken = failed("vgg16", "no <b>file</b> \u202eevil\x1b[2J | here")
    assert "no &lt;b>file&lt;/b> [U+202E]evil[U+001B][2J | here" in table.markdown(record(broken))
    assert "no <b>file</b> [U+202E]evil[U+001B][2J | here" in table.terminal(record(broken))
    cells = table.markdown(record(row("a<b>|c"))).splitlines()[2]
    assert cells.startswith("| a&lt;b>\\|c |")


def test_an_end_that_is_not_certain_is_not_shown_as_certain() -> None:
    assert ends(0.9999, 1.0) == ("0.999", "1.000")
    assert ends(0.0, 0.0001) == ("0.000", "0.001")
    assert ends(0.0, 1.0, 2) == ("0.00", "1.00")
    assert ends(0.4234, 0.5678, 2) == ("0.42", "0.57")
    assert ends(1.0, 1.0) == ("1.000", "1.000"), "an earlier version's bootstrap, as it was"


def test_a_table_says_how_its_record_computed_the_intervals() -> None:
    sift = row("sift", intervals={"accuracy": Interval(low=0.42, high=0.58)})
    known = {"resamples": 10, "level": 0.95, "seed": 0, "clusters": 4}
    assert "bootstrap over labels" in table.markdown(record(sift, statistics=Statistics(**known)))
    new = table.markdown(record(sift, statistics=Statistics(**known, intervals="Wilson's ...")))
    assert "by Wilson's formula" in new
    assert "bootstrap" not in new


def aside(auroc: float = 0.75, unavailable: str = "") -> OpenSet:
    if unavailable:
        return OpenSet(answerable=10, unanswerable=4, unavailable=unavailable)
    return OpenSet(
        answerable=10,
        unanswerable=4,
        scores={"auroc": auroc, "rejected@95": 0.25},
        intervals={"auroc": Interval(low=0.6, high=0.9), "rejected@95": Interval(low=0.0, high=0.96)},
        threshold=0.125,
    )


def test_queries_without_an_answer_are_shown_where_asked_for() -> None:
    shown = record(row("sift", open_set=aside()), row("hsv+rrf", open_set=aside(unavailable="rrf ranks")), row("hog"))
    usual = table.terminal(shown)
    assert "auroc" not in usual
    assert "`show --unknown` says how well each method could have told" in usual
    asked = table.terminal(shown, unknown=True)
    line = next(line for line in asked.splitlines() if line.startswith("sift"))
    assert line.split()[-4:] == ["0.750", "0.600-0.900", "0.250", "0.000-0.960"]
    assert next(line for line in asked.splitlines() if line.startswith("hsv+rrf")).split()[-4:] == ["n/a"] * 4
    assert "4 queries without an answer against 10 with one" in asked
    assert "No auroc of hsv+rrf: rrf ranks." in asked
    assert "--unknown" not in asked
    assert "| rejected@95 |" in table.markdown(shown, unknown=True)
    (first, *_) = csv.DictReader(io.StringIO(table.tidy_csv(shown)))
    assert (first["auroc"], first["auroc high"], first["unanswerable queries"]) == ("0.75", "0.9", "4")


def test_the_mark_of_learning_from_the_gallery_is_explained_where_a_row_has_it() -> None:
    settings = {"learn_from": "gallery"}
    marked = table.terminal(record(row("phash"), row("color[gallery]"), settings=settings))
    assert "[gallery]: learned from the images that it is searched in, not from train." in marked
    unmarked = table.terminal(record(row("phash"), settings=settings))
    assert "learned from" not in unmarked


def test_classifiers_that_all_failed_learned_from_nothing() -> None:
    settings = {"learn_from": "gallery"}
    learned = table.terminal(record(row(classifiers={"knn": {"scores": {}}}), settings=settings))
    assert "Classifiers learned from the gallery" in learned
    refused = table.terminal(record(row(classifiers={"knn": {"error": "they would know"}}), settings=settings))
    assert "No knn: they would know." in refused
    assert "Classifiers learned" not in refused


def test_who_asks_for_queries_without_an_answer_hears_that_there_are_none() -> None:
    assert "the record knows of no query without an answer" in table.terminal(record(row()), unknown=True)


def test_where_all_queries_have_an_answer_nothing_is_said_of_it() -> None:
    usual = record(row())
    assert "No auroc" not in table.terminal(usual)
    assert "unknown" not in table.terminal(usual)
    assert "auroc" not in table.tidy_csv(usual)
