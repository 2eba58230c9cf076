"""Advice from records with planted ties, dominance, limits and costs; the power of comparisons; the command."""

from __future__ import annotations

import json
import math
import re
import shlex
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from retrieval_bench.choosing import advice_text
from retrieval_bench.choosing.candidates import candidates_of
from retrieval_bench.choosing.cost_file import MeasuredSearch, measured_search
from retrieval_bench.choosing.growth import Growth
from retrieval_bench.choosing.power import POWER, error_of_interval, products_needed, standard_error
from retrieval_bench.choosing.recommend import Advice, ChoiceQuestion, recommend
from retrieval_bench.core import BenchError
from retrieval_bench.evaluation.bootstrap import resampled_means
from retrieval_bench.records.files import save
from retrieval_bench.report.evidence import Evidence
from tests.support.command import call
from tests.support.paths import ROOT
from tests.support.planted import costs, planted
from tests.support.records import failed, row

CLUSTERS = np.repeat(np.arange(40), 4)


def chance(share: float, seed: int) -> np.ndarray:
    """Right in about this share of the products, whole products at a time."""
    rng = np.random.default_rng(seed)
    return ((rng.random(40)[CLUSTERS] < share) & (rng.random(160) < 0.97)).astype(float)


BEST = chance(0.8, 1)
WINS, MISSES = (np.flatnonzero(np.add.reduceat(BEST, np.arange(0, 160, 4)) == seen) for seen in (4, 0))
TIED = np.where(np.isin(CLUSTERS, WINS[:6]), 0.0, np.where(np.isin(CLUSTERS, MISSES[:4]), 1.0, BEST))
"""Of the products, it loses six and wins four."""
POOR = chance(0.2, 2)
RIGHT = {"sift": BEST, "color": TIED, "phash": POOR, "hog": POOR * TIED}
PRICES = {
    "sift": costs(30.0, 4096, 9.0),
    "color": costs(10.0, 1024, 2.0),
    "phash": costs(2.0, 8, 0.0),
    "hog": costs(12.0, 2048, 3.0),  # color beats it in everything
}


def shop(name: str = "one", **changes) -> Evidence:
    return planted(RIGHT, CLUSTERS, PRICES, name, **changes)


def said(advice: Advice) -> str:
    return " ".join(advice_text.text(advice).split())


# --- who is taken -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rankings", [False, True])
def test_of_those_that_cannot_be_told_apart_the_cheapest_is_taken(rankings: bool) -> None:
    advice = recommend([shop(rankings=rankings)], ChoiceQuestion())
    assert advice.best is not None
    assert advice.take is not None
    assert (advice.best.name, advice.take.name) == ("sift", "color")
    assert [one.name for one in advice.group] == ["sift", "color"]
    assert advice.front == {"sift", "color", "phash"}
    assert "Take color." in said(advice)
    assert "No limit was given" in said(advice)
    assert "hog" in said(advice)


def test_times_that_repeat_no_better_count_as_equal() -> None:
    prices = {**PRICES, "sift": costs(10.9, 512, 9.0)}
    advice = recommend([planted(RIGHT, CLUSTERS, prices)], ChoiceQuestion())
    assert advice.take is not None
    assert advice.take.name == "sift"
    assert "(10.0 ms of color count as equal)" in said(advice)
    prices["sift"] = costs(11.1, 512, 9.0)
    assert recommend([planted(RIGHT, CLUSTERS, prices)], ChoiceQuestion()).take is not advice.take


def test_a_group_of_one_is_told_as_such() -> None:
    advice = recommend([shop()], ChoiceQuestion(max_fit_s=0.5))
    assert [one.name for one in advice.group] == ["phash"]
    assert "Of 4 methods, 1 keeps within 0.5 s of learning. Its map@r is" in said(advice)


def test_a_limit_binds_where_loosening_it_lets_a_better_one_in() -> None:
    advice = recommend([shop()], ChoiceQuestion(max_p95_ms=20, max_bytes=900, max_fit_s=600))
    assert [one.name for one in advice.fitting] == ["phash"]
    (size,) = [one for one in advice.loosenings if one.lets_in is not None]
    assert size.limit.key == "bytes_per_image"
    assert size.to == 1024
    assert size.lets_in is not None
    assert size.lets_in.name == "color"
    assert size.verdict is not None
    assert size.verdict.different
    assert "with 1,024 bytes an image, color would come in" in said(advice)
    assert "a significant difference" in said(advice)
    assert "No method left out is better." in said(recommend([shop()], ChoiceQuestion(max_p95_ms=50)))
    both = recommend([planted(RIGHT, CLUSTERS, PRICES)], ChoiceQuestion(max_p95_ms=11, max_bytes=2048))
    assert "To let a better one in (sift), more than one limit" in said(both)


def test_where_nothing_fits_the_nearest_miss_is_told() -> None:
    advice = recommend([shop()], ChoiceQuestion(max_p95_ms=8, max_bytes=4))
    assert advice.take is None
    assert advice.nearest is not None
    assert (advice.nearest[0].name, advice.nearest[1]) == ("phash", 2.0)  # 8 bytes of 4; 10 ms would be nearer in time
    assert "Nothing fits" in said(advice)
    assert "it takes 8 bytes an image where 4 are allowed, 2.0 times the limit" in said(advice)
    assert "The best by map@r, sift" in said(advice)


def test_what_the_record_does_not_say_fits_no_limit() -> None:
    prices = {**PRICES, "color": costs(10.0, 1024, None)}
    advice = recommend([planted(RIGHT, CLUSTERS, prices, more=[failed("vgg16")])], ChoiceQuestion(max_fit_s=5))
    assert "color" not in [one.name for one in advice.fitting]
    assert advice.unknown == {"color": ("fit",)}
    assert "whether color keeps the limit of fit: it was read from the cache" in said(advice)
    assert "Left out: vgg16 failed in the run." in said(advice)
    every = {name: costs(1.0, fit=None) for name in RIGHT}
    nothing = recommend([planted(RIGHT, CLUSTERS, every)], ChoiceQuestion(max_fit_s=5))
    assert nothing.nearest is None
    assert "Of each, the record lacks a number that a limit asks for." in said(nothing)


def test_a_limit_of_nothing_has_no_nearest_miss() -> None:
    nothing = recommend([planted(RIGHT, CLUSTERS, PRICES)], ChoiceQuestion(max_p95_ms=0))
    assert nothing.nearest is None
    assert "Each takes more than a limit of 0, or the record lacks a number that a limit asks for." in said(nothing)


# --- several records --------------------------------------------------------------------------------------------------


def halves(**changes) -> list[Evidence]:
    parts = (("sift", "phash"), ("color", "hog"))
    return [
        planted({name: RIGHT[name] for name in names}, CLUSTERS, PRICES, f"r{number}", **changes)
        for number, names in enumerate(parts)
    ]


def test_records_with_rankings_are_compared_query_by_query() -> None:
    whole, parts = (
        recommend([shop(rankings=True)], ChoiceQuestion()),
        recommend(halves(rankings=True), ChoiceQuestion()),
    )
    assert {one.name for one in parts.group} == {one.name for one in whole.group}
    ours = {(one.method, other.method): parts.telling.between(one, other) for one in parts.candidates
            for other in parts.candidates if one is not other}  # fmt: skip
    for one in whole.candidates:
        for other in whole.candidates:
            if one is not other:
                theirs, again = whole.telling.between(one, other), ours[one.method, other.method]
                assert again.mean == pytest.approx(theirs.mean)
                assert again.p_holm == theirs.p_holm
                assert again.low == pytest.approx(theirs.low)


def test_records_without_rankings_are_told_apart_by_intervals_that_do_not_overlap() -> None:
    advice = recommend(halves(), ChoiceQuestion())
    assert "are told apart only where their intervals do not overlap" in said(advice)
    (sift, color) = advice.group
    between = advice.telling.between(sift, color)
    assert between.p_holm is None
    assert between.low == pytest.approx(sift.low - color.high)
    assert "they were not compared query by query" in said(advice)
    assert not [one for one in advice.group if one.name in ("phash", "hog")]


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"dataset": {"fingerprint": "cd" * 32}}, "the dataset's fingerprint differs"),
        ({"settings": {"seed": 7}}, "the seed differs"),
        ({"settings": {"learn_from": "gallery"}}, "the split that methods learned from differs"),
    ],
)
def test_records_of_other_data_are_not_mixed(changes, what: str) -> None:
    with pytest.raises(BenchError, match=f"^one and two cannot be mixed, not comparable: {what}"):
        recommend([shop(), shop("two", **changes)], ChoiceQuestion())


def test_the_same_method_of_two_records_has_two_names_and_other_machines_are_warned_of() -> None:
    advice = recommend([shop(), shop("two", environment={"processor": "another"})], ChoiceQuestion(max_p95_ms=20))
    assert {"sift [1]", "sift [2]"} <= {one.name for one in advice.candidates}
    (warning,) = [one for one in advice.warnings if "different machines" in one]
    assert "two: another" in warning
    assert not recommend([shop()], ChoiceQuestion(max_p95_ms=20)).warnings


def test_another_backend_is_no_other_question() -> None:
    assert recommend([shop(), shop("two", settings={"backend": "faiss:hnsw"})], ChoiceQuestion()).approximate


# --- other metrics ----------------------------------------------------------------------------------------------------


def test_a_metric_that_nobody_compared_is_compared_from_rankings_or_refused() -> None:
    advice = recommend([shop(rankings=True, compared=False)], ChoiceQuestion(prefer="accuracy"))
    assert [one.name for one in advice.group] == ["sift", "color"]
    assert advice.undecided[0].verdict.p_holm is not None
    bare = shop(compared=False)
    rows = [one.model_copy(update={"intervals": {}}) for one in bare.record.rows]
    with pytest.raises(BenchError, match="nothing says which rows differ in map@r"):
        recommend([Evidence("old", bare.record.model_copy(update={"rows": tuple(rows)}))], ChoiceQuestion())
    with pytest.raises(BenchError, match="--prefer blue: the records have accuracy, map@r"):
        recommend([shop()], ChoiceQuestion(prefer="blue"))


def test_a_metric_of_which_less_is_better_is_refused() -> None:
    bad = shop()
    facts = {name: one.model_copy(update={"higher_is_better": False}) for name, one in bad.record.metrics.items()}
    with pytest.raises(BenchError, match="less of it is better"):
        recommend([Evidence("bad", bad.record.model_copy(update={"metrics": facts}))], ChoiceQuestion())


# --- time among more images -------------------------------------------------------------------------------------------


def times(name: str, images: float | None, growths=None, **price: float):
    at_40 = {"p95": 10.0, "search": 2.0} | price
    one = planted({name: BEST, "sift": BEST}, CLUSTERS, {"sift": costs(11.0, search=1.0), name: costs(**at_40)})
    found, _ = candidates_of([one], "map@r", images, growths)
    return next(each for each in found if each.method == name)


def test_search_grows_and_the_rest_does_not() -> None:
    assert times("color", None).p95_ms == 10
    assert times("color", 20).p95_ms == 10  # no time is taken to shrink
    more = times("color", 400)
    assert more.p95_ms == pytest.approx(8 + 2 * 10)
    assert more.p95_least_ms == 10
    assert advice_text.p95(more) == "10.0-28.0"
    assert more.estimated
    assert not more.far
    far = times("color", 401)
    assert far.far
    assert advice_text.p95(far).startswith("~")
    graph = times("color on faiss:hnsw", 400)
    assert graph.p95_ms == pytest.approx(8 + 2 * math.log(400) / math.log(40))


def test_a_fixed_shortlist_does_not_grow() -> None:
    """The search of sift+verify takes 2 ms, that of sift alone 1 ms: the other ms is of the shortlist."""
    assert times("sift+verify=20", 400).p95_ms == pytest.approx(8 + 1 + 1 * 10)
    assert times("sift+qe=5", 400).p95_ms == pytest.approx(8 + 2 * 10)  # which searches again


def test_a_measured_growth_is_taken_in_place_of_the_line() -> None:
    growth = Growth((10, 20, 40, 80), (1.0, 1.0, 1.0, 1.0), "n", 0.5, 0.001, 0.1)
    one = times("color", 500, {"color": growth})
    assert one.p95_ms == pytest.approx(8 + 2.0 * (0.5 + 0.5))  # the record's p95 is twice its median
    assert not one.far
    assert times("color", 801, {"color": growth}).far


def test_costs_without_a_number_of_images_are_refused() -> None:
    with pytest.raises(BenchError, match="say among how many by --images N"):
        recommend([shop()], ChoiceQuestion(), MeasuredSearch({}, "elsewhere"))


def test_more_images_are_warned_of_and_an_index_is_proposed() -> None:
    measured = MeasuredSearch({}, "elsewhere")
    advice = recommend([shop()], ChoiceQuestion(max_p95_ms=20, images=2e6), measured)
    text = said(advice)
    assert "Nothing is sure to fit" in text
    assert "The nearest is color" in text
    assert "so it may fit, or take up to" in text
    assert "Among 2,000,000 it will be lower" in text
    assert "was measured on another processor (elsewhere)" in text
    assert "`cost RECORD --images 2000000 --backends faiss:hnsw`" in text
    assert "whether color, phash and hog keep within 20 ms: the record says it of fewer images only" in text


@pytest.mark.parametrize("content", ["", "[]", '{"growth": {}}', '{"growth": {"a": {"query_ms": 3}}, "processor": ""}'])
def test_a_file_that_holds_no_costs_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "c.json").write_text(content)
    with pytest.raises(BenchError, match="is no file of costs; make one with"):
        measured_search(tmp_path / "c.json")
    with pytest.raises(BenchError, match="cannot be read"):
        measured_search(tmp_path / "nowhere.json")


def test_costs_are_read_back(tmp_path: Path) -> None:
    line = {"sizes": [1, 2], "values": [1.0, 2.0], "shape": "n", "start": 0.0, "slope": 1.0, "residual": 0.0}
    (tmp_path / "c.json").write_text(json.dumps({"growth": {"color": {"query_ms": line}}, "processor": "here"}))
    found = measured_search(tmp_path / "c.json")
    assert found.query_ms["color"].at(7) == 7
    assert found.processor == "here"


# --- power ------------------------------------------------------------------------------------------------------------


def test_so_many_products_show_the_difference_in_four_of_five_trials() -> None:
    """Against a simulation: means of products are normal around 0.05, and a two-sided test asks for p <= alpha."""
    alpha, mean, spread = 0.01, 0.05, 0.3
    n = math.ceil(products_needed(mean, spread / math.sqrt(50), 50, alpha))
    seen = np.random.default_rng(0).normal(mean, spread, (4000, n))
    found = stats.ttest_1samp(seen, 0, axis=1).pvalue <= alpha
    assert found.mean() == pytest.approx(POWER, abs=0.02)
    textbook = ((stats.norm.ppf(0.995) + stats.norm.ppf(0.8)) * spread / mean) ** 2
    assert products_needed(mean, spread / math.sqrt(50), 50, alpha) == pytest.approx(textbook)
    assert products_needed(0.0, 0.1, 50) == math.inf


def test_the_standard_error_is_that_of_the_bootstrap_over_products() -> None:
    differences = BEST - POOR
    drawn = resampled_means(differences[:, None], CLUSTERS, 4000, 0).std()
    error = standard_error(differences, CLUSTERS)
    assert error == pytest.approx(drawn, rel=0.05)
    reach = float(stats.t.ppf(0.975, 39)) * error
    assert error_of_interval(-reach, reach, 40) == pytest.approx(error)
    assert math.isnan(standard_error(differences, np.zeros(160, int)))


def test_the_advice_says_how_many_more_products_would_decide() -> None:
    (with_rankings,) = recommend([shop(rankings=True)], ChoiceQuestion()).undecided
    verdict = with_rankings.verdict
    error = standard_error(BEST - TIED, CLUSTERS)
    pairs = recommend([shop()], ChoiceQuestion()).telling.verdicts.values()
    still_open = sum(not one.different for one in pairs)
    assert verdict.needed == pytest.approx(products_needed(verdict.mean, error, 40, 0.05 / still_open))
    (without,) = recommend([shop()], ChoiceQuestion()).undecided
    assert without.verdict.needed == pytest.approx(verdict.needed, rel=0.5)  # by the interval alone
    same = planted({"sift": BEST, "color": BEST}, CLUSTERS, PRICES)
    assert "no difference was seen" in said(recommend([same], ChoiceQuestion()))


# --- the command ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    where = tmp_path_factory.mktemp("recommend") / "record"
    one = shop(rankings=True, more=[row("random", family="control", scores={"accuracy": 0.0, "map@r": 0.0})])
    arrays = dict(one.arrays)
    arrays["random/indices"], arrays["random/distances"] = arrays["hog/indices"], arrays["hog/distances"]
    save(one.record, where, arrays)
    return where


def test_the_command_says_it_in_80_columns_and_as_json(folder: Path) -> None:
    told = call("recommend", folder, "--max-p95-ms", 20, "--images", "1e6")
    assert told.exit_code == 1
    assert max(map(len, told.stdout.splitlines())) <= 80
    told = call("recommend", folder, "--max-p95-ms", 20)
    assert told.exit_code == 0, told.output
    assert max(map(len, told.stdout.splitlines())) <= 80
    facts = json.loads(call("recommend", folder, "--max-p95-ms", 20, "--json").stdout)
    assert facts["schema_version"] == 1
    assert (facts["take"], facts["fits"], facts["products"]) == ("color", True, 40)
    assert [one["name"] for one in facts["rows"]] == ["color", "phash", "hog", "sift"]
    assert facts["rows"][-1]["over"] == ["p95_ms"]
    assert facts["limits"][0]["lets_in"] == "sift"
    assert facts["paragraph"].split()[:2] == ["Take", "color."]
    assert any(name.startswith("texture") for name in facts["not_tried"]["families"])


def test_the_command_refuses_other_data_and_bad_records(folder: Path, tmp_path: Path) -> None:
    other = shop(dataset={"fingerprint": "cd" * 32})
    save(other.record, tmp_path / "other", {})
    told = call("recommend", folder, tmp_path / "other")
    assert told.exit_code == 2
    assert "cannot be mixed, not comparable: the dataset's fingerprint differs" in told.output
    assert call("recommend", tmp_path / "nowhere").exit_code == 2
    assert call("recommend", folder, "--images", 0).exit_code == 2
    assert call("recommend", folder, "--max-bytes", -1).exit_code == 2
    for option in ("--images", "--max-p95-ms", "--max-bytes", "--max-fit-s"):
        told = call("recommend", folder, option, "inf", "--json")
        assert told.exit_code == 2
        assert "must be finite" in told.output


def test_the_report_begins_with_it(folder: Path, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    told = call("report", folder, "--max-p95-ms", 20, "--no-images", "--out", page)
    assert told.exit_code == 0, told.output
    text = page.read_text()
    assert text.index('id="recommendation"') < text.index('id="results"')
    assert "Take color." in text
    assert "limit 20" in text
    told = call("report", folder, "--recommend", "--format", "csv")
    assert told.exit_code == 2
    assert "`recommend --json`" in told.output


ALTERED = re.compile(r"^Not tried: .*?\n(?! )", re.M | re.S)
"""What changes with everything that is registered."""


def test_the_examples_of_the_page_are_what_the_command_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    page = (ROOT / "docs" / "recommend.md").read_text(encoding="utf-8")
    examples = re.findall(r"^```\n\$ python -m benchmark (recommend .*?[^\\])\n(.*?)^```$", page, re.M | re.S)
    assert len(examples) == 4
    for line, shown in examples:
        told = call(*shlex.split(line.replace("\\\n", " ")))
        assert told.exit_code in (0, 1)
        assert ALTERED.sub("", told.stdout) == ALTERED.sub("", shown)
