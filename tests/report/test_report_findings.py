"""What a report draws, against slow twins and against the record's own scores."""

from __future__ import annotations

import base64
import io
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from retrieval_bench.evaluation import metrics
from retrieval_bench.report import plots
from retrieval_bench.report.evidence import gather, label_names
from retrieval_bench.report.findings import find, front
from retrieval_bench.report.gallery import choose, heat_map
from retrieval_bench.report.page import render
from tests.support.evidences import GALLERY, METHODS, QUERY, saved


@given(st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), max_size=12))
def test_the_front_is_what_nothing_beats(points: list[tuple[int, int]]) -> None:
    kept = front([cost for cost, _ in points], [quality for _, quality in points])

    def beaten(cost: int, quality: int) -> bool:
        return any(
            other <= cost and better >= quality and (other, better) != (cost, quality) for other, better in points
        )

    assert {points[place] for place in kept} == {point for point in points if not beaten(*point)}
    assert len(kept) == len({points[place] for place in kept})
    assert kept == sorted(kept, key=lambda place: points[place][0])


@pytest.mark.parametrize("whole", [True, False])
def test_curves_pass_through_the_records_scores(tmp_path: Path, whole: bool) -> None:
    evidence = gather(saved(tmp_path, whole=whole))
    found = find(evidence)
    for row in evidence.record.rows:
        hits = dict(found.hit_rates[row.method])
        both = {k: (recall, precision) for k, recall, precision in found.precision_recall[row.method]}
        for k in (1, 5, 10):
            assert hits[k] == pytest.approx(row.scores[f"hit_rate@{k}"], abs=1e-12)
            expected = (row.scores[f"recall@{k}"], row.scores[f"precision@{k}"])
            assert both[k] == pytest.approx(expected, abs=1e-12)
        assert both[12] == pytest.approx((1.0, np.mean((QUERY[:, None] == GALLERY).sum(1)) / 12))


def test_slices_add_up_to_the_accuracy(tmp_path: Path) -> None:
    evidence = gather(saved(tmp_path))
    (sizes,) = find(evidence).slices
    assert [part.name for part in sizes.slices] == ["1", "2", "4", "5"]
    assert [part.queries for part in sizes.slices] == [5, 5, 5, 5]
    assert set(sizes.slices[0].scores) == set(METHODS) - {"random"}
    for row in evidence.contestants:
        means = [part.scores[row.method]["accuracy"].mean for part in sizes.slices]
        assert np.mean(means) == pytest.approx(row.scores["accuracy"])
        right = metrics.accuracy(evidence.judged(row.method))
        assert means[2] == right[QUERY == 2].mean()


def test_slices_by_what_the_arrays_know(tmp_path: Path) -> None:
    """Category, class size and attributes need no dataset; each part has its count and its interval."""
    evidence = gather(saved(tmp_path))
    more = {
        "query_categories": QUERY // 2,
        "category_names": np.array(["low", "high"]),
        "query_class_sizes": np.array([0, 1, 30, 30])[QUERY],
        "query_attributes/rotation_deg": np.linspace(-90.0, 90.0, 20),
    }
    richer = type(evidence)(evidence.name, evidence.record, {**evidence.arrays, **more})
    ways = {way.by: way for way in find(richer).slices}
    assert list(ways) == ["category", "class size", "relevant images", "|rotation_deg|"]
    _, low = ways["category"].slices
    assert (low.name, low.queries, low.products) == ("low", 10, 2)
    right = metrics.accuracy(evidence.judged("sift"))
    assert low.scores["sift"]["accuracy"].mean == right[QUERY < 2].mean()
    assert [part.name for part in ways["class size"].slices] == ["none", "1", "more than 20"]
    page = render([richer])
    for part in ways["|rotation_deg|"].slices:
        score = part.scores["sift"]["accuracy"]
        assert score.low is not None
        assert score.low <= score.mean <= score.high
        assert f"{score.low:.2f} to {score.high:.2f}" in page
    assert "|rotation_deg|: 0." in page


def test_a_hostile_attribute_is_text(tmp_path: Path) -> None:
    evidence = gather(saved(tmp_path))
    bad = "<script>alert(1)</script>"
    more = {f"query_attributes/{bad}": np.array([bad, "\u202eright"])[QUERY % 2], "label_names": np.array([bad] * 4)}
    page = render([type(evidence)(evidence.name, evidence.record, {**evidence.arrays, **more})])
    assert bad not in page
    assert "&lt;script&gt;" in page
    assert "[U+202E]right" in page


def test_confusions_count_every_query(tmp_path: Path) -> None:
    evidence = gather(saved(tmp_path))
    found = find(evidence).confusions
    assert [(one.method, one.classifier) for one in found] == [
        (name, head) for head in ("", "knn") for name in ("sift", "color", "phash")
    ]
    for one in found:
        (row,) = [row for row in evidence.record.rows if row.method == one.method]
        expected = row.classifiers[one.classifier].scores["accuracy"] if one.classifier else row.scores["accuracy"]
        assert one.accuracy == pytest.approx(expected)
        assert one.matrix.sum() == 20
        assert one.labels == ("apple", "pear", "plum", "fig")
        for mistake in one.mistakes:
            row_, column = one.labels.index(mistake.expected), one.labels.index(mistake.found)
            assert row_ != column
            assert (mistake.count, mistake.of) == (one.matrix[row_, column], 5)
        counts = [mistake.count for mistake in one.mistakes]
        assert counts == sorted(counts, reverse=True)


def test_roc_areas_are_the_records(tmp_path: Path) -> None:
    evidence = gather(saved(tmp_path))
    found = find(evidence).rocs
    assert len(found) == 3
    for one in found:
        (row,) = [row for row in evidence.record.rows if row.method == one.method]
        assert one.area == row.classifiers["knn"].scores["macro_roc_auc"]
        assert np.trapezoid(one.macro, one.false_positive_rate) == pytest.approx(one.area, abs=0.02)


def test_the_gallery_shows_what_it_says(tmp_path: Path) -> None:
    evidence = gather(saved(tmp_path))
    chosen = choose(evidence)
    assert chosen is not None
    right = {name: metrics.accuracy(evidence.judged(name)) > 0 for name in ("sift", "color", "phash")}
    assert {method for _, method in chosen.champions} == set(right)
    names = [method for _, method in chosen.champions]
    for i, one in enumerate(names):
        for j, other in enumerate(names):
            assert chosen.won[i, j] == sum(right[one] & ~right[other])
    assert chosen.duels
    for duel in chosen.duels:
        labels = [int(QUERY[example.query]) for example in duel.examples]
        assert len(labels) == len(set(labels)) <= 4
        for example in duel.examples:
            assert right[duel.winner][example.query]
            assert not right[duel.loser][example.query]
    assert chosen.unsolved == sum(~np.any(list(right.values()), axis=0))
    for example in chosen.hardest:
        assert not any(one[example.query] for one in right.values())


def test_labels_are_named_by_their_folder_or_their_number(tmp_path: Path) -> None:
    assert label_names(gather(saved(tmp_path / "a"))) == ["apple", "pear", "plum", "fig"]
    shared = gather(saved(tmp_path / "b", names=("x", "x", "plum", "fig")))
    assert label_names(shared) == ["label 0", "label 1", "plum", "fig"]


def test_a_heat_map_of_many_labels_stays_small() -> None:
    for n, side in ((13, 13), (240, 240), (1001, 201)):
        kind, data = heat_map(np.eye(n, dtype=np.int64)).split(",")
        assert kind == "data:image/png;base64"
        with Image.open(io.BytesIO(base64.b64decode(data))) as image:
            assert image.size == (side, side)
            pixels = np.asarray(image.convert("RGBA"))
        assert (pixels[np.arange(side), np.arange(side), 3] > 0).all()
        assert pixels[0, -1, 3] == 0
        assert pixels[0, 0, 2] > pixels[0, 0, 0]  # right ones are blue


@given(st.floats(-1e6, 1e6), st.floats(1e-3, 1e6))
def test_linear_ticks_are_few_round_and_inside(low: float, span: float) -> None:
    ticks = plots.linear_ticks(low, low + span)
    assert 2 <= len(ticks) <= 8
    assert all(low - span * 1e-6 <= tick <= low + span * (1 + 1e-6) for tick in ticks)


@given(st.floats(1e-6, 1e6), st.floats(1.6, 1e9))
def test_log_ticks_are_few_and_inside(low: float, factor: float) -> None:
    ticks = plots.log_ticks(low, low * factor)
    assert len(ticks) <= 7
    assert all(low * 0.99 <= tick <= low * factor * 1.01 for tick in ticks)
    assert ticks == sorted(set(ticks))


def test_names_beside_points_do_not_overlap() -> None:
    points = [plots.Spot(f"method-{n}", n, 1.0 + n % 3 * 0.01, 0.5 + n * 0.001) for n in range(9)]
    drawn = plots.spots(points, [], plots.Axis("x", 0.5, 2.0, log=True), plots.Axis("y", 0.0, 1.0), "t")
    assert drawn.count("<circle") == 9
    assert 1 <= drawn.count('class="name"') <= 9
