"""Controls of every run, the rules that it must keep, and which rule each planted defect breaks."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from retrieval_bench import search
from retrieval_bench.compare.diff import diff
from retrieval_bench.core import Dataset, Judged, NotComparable, Ranking, Searcher, Split
from retrieval_bench.evaluation import metrics
from retrieval_bench.experiment import features, quality, sanity_checks
from retrieval_bench.experiment.prepare import Plan, prepare
from retrieval_bench.experiment.runner import run
from retrieval_bench.methods.parse import Method, parse_method
from retrieval_bench.records.files import load_rankings
from retrieval_bench.records.schema import Record
from retrieval_bench.registry import BACKENDS, Entry, Spec
from retrieval_bench.system.cache import FeatureCache
from tests.support.methods import MeanColor, spec
from tests.support.paths import ROOT
from tests.support.shop import shop

assert search  # importing it fills the registry


class Grey(MeanColor):
    """One number an image: far from perfect."""

    def transform(self, images: Sequence[np.ndarray]) -> np.ndarray:
        return super().transform(images).mean(axis=1, keepdims=True)


class Position(MeanColor):
    """What stands where: the picture in 6 x 6 cells, a family of its own beside the mean colour."""

    def transform(self, images: Sequence[np.ndarray]) -> np.ndarray:
        return np.array([image[::8, ::8].reshape(-1) for image in images], np.float32).reshape(len(images), -1)


def plan(data: Dataset, *methods: Method | str, **changes: Any) -> Plan:
    specs = tuple(parse_method(method) if isinstance(method, str) else method for method in methods)
    source = Spec(Entry(data.name, lambda root: data, "for tests"), {})
    return Plan(**({"methods": specs, "dataset": source, "threads": 1, "k": (1, 5, 10)} | changes))


@pytest.fixture(scope="module")
def data() -> Dataset:
    """12 labels of 9 images: enough queries for every rule."""
    return shop(12, 9)


@pytest.fixture(scope="module")
def honest(data: Dataset, tmp_path_factory: pytest.TempPathFactory) -> tuple[Record, dict[str, np.ndarray]]:
    folder = tmp_path_factory.mktemp("honest")
    record = run(plan(data, spec("mean", Grey), spec("position", Position)), folder)
    return record, load_rankings(folder, record)


def broken(record: Record, arrays: dict[str, np.ndarray], method: str = "mean", **scores: float) -> str:
    """What is said of a record in which one row has these scores."""
    rows = [
        row if row.method != method else row.model_copy(update={"scores": row.scores | scores}) for row in record.rows
    ]
    return "; ".join(sanity_checks.violations(record.model_copy(update={"rows": tuple(rows)}), arrays))


def test_every_run_has_its_controls_asked_for_or_not(data: Dataset, honest: tuple) -> None:
    record, arrays = honest
    assert record.status == "finished"
    assert record.violations == ()
    assert tuple(record.controls) == sanity_checks.CONTROLS
    assert {row.method for row in record.rows} == {"mean", "position"}
    for name, ceiling in record.ceilings.items():
        assert record.controls["oracle"][name] == pytest.approx(ceiling, abs=1e-12)
    assert record.controls["chance"]["accuracy"] == pytest.approx(9 / 108)
    assert record.controls["duplicates"] == record.controls["constant"], "no image occurs twice"
    assert abs(record.controls["random"]["accuracy"] - 9 / 108) < 0.15
    assert record.controls["constant"]["accuracy"] == np.mean(data.query.labels == data.gallery.labels[0])
    assert len(arrays["n_relevant"]) >= sanity_checks.ENOUGH_QUERIES


def test_duplicates_are_found_by_their_bytes_alone(data: Dataset) -> None:
    leaked = replace(data.query, images=data.gallery.images)  # each query's own picture lies in the gallery
    leaky = Dataset("leaky", data.train, data.gallery, leaked, data.label_names, data.category_names)
    found = sanity_checks.controls(prepare(plan(leaky)), 0, "exact")
    assert found["duplicates"]["accuracy"] == 1.0
    assert found["duplicates"]["map"] < 0.5
    assert found["random"]["accuracy"] == 1.0


def test_controls_leave_themselves_out(data: Dataset) -> None:
    both = Dataset("loo", data.train, data.gallery, data.gallery, data.label_names, data.category_names, True)
    found = sanity_checks.controls(prepare(plan(both)), 0, "exact")
    assert found["duplicates"] == found["constant"]
    assert found["chance"]["accuracy"] == pytest.approx(8 / 107)
    assert found["oracle"]["recall@10"] == 1.0


def test_equality_ranks_as_a_sort_would() -> None:
    gallery = np.array([3, 1, 3, 2])
    found = sanity_checks.ExactMatchSearcher(gallery)(np.array([3, 9, 3]), 4, np.array([-1, 0, 2]))
    assert found.indices.tolist() == [[0, 2, 1, 3], [1, 2, 3, -1], [0, 1, 3, -1]]
    assert found.distances[0].tolist() == [0, 0, 1, 1]
    assert found.distances[2].tolist() == [0, 1, 1, np.inf]


def test_the_closed_form_is_what_a_perfect_ranking_scores(honest: tuple) -> None:
    record, arrays = honest
    assert sanity_checks.closed_form(arrays["n_relevant"], arrays["query_labels"], record) == pytest.approx(
        record.ceilings, abs=1e-12
    )


def test_hits_everywhere_and_a_bad_ranking_is_no_ranking(honest: tuple) -> None:
    record, arrays = honest
    low = {"random": record.controls["random"] | {"hit_rate@10": 0.3}}
    record = record.model_copy(update={"controls": record.controls | low})
    assert "every query finds one certain image" in broken(
        record, arrays, **{"hit_rate@10": 1.0, "precision@10": 0.15, "map": 0.2}
    )
    assert broken(record, arrays, **{"hit_rate@10": 0.99, "precision@10": 0.15, "map": 0.2}) == ""
    assert broken(record, arrays, **{"hit_rate@10": 1.0, "precision@10": 0.6, "map": 0.2}) == "", "a rich gallery"


def test_better_than_the_oracle_is_impossible(honest: tuple) -> None:
    record, arrays = honest
    assert "precision@10 0.950000 is above what the oracle reaches, 0.900000" in broken(
        record, arrays, **{"precision@10": 0.95}
    )


def test_equal_scores_of_different_methods(honest: tuple) -> None:
    record, arrays = honest
    assert record.rows[0].scores["map@r"] < 1
    same = dict(record.rows[0].scores)
    assert "equal scores to the last digit" in broken(record, arrays, "position", **same)
    rows = tuple(
        row.model_copy(update={"scores": same, "method": f"sift:words={number}"})
        for number, row in enumerate(record.rows)
    )
    again = {
        f"{name}/{what}": arrays[f"mean/{what}"]
        for name in ("sift:words=0", "sift:words=1")
        for what in ("indices", "distances")
    }
    assert sanity_checks.violations(record.model_copy(update={"rows": rows}), arrays | again) == (), (
        "options may change nothing"
    )


@pytest.mark.parametrize(("one", "other", "told"), [("mean", "mean@trim", False), ("mean@trim", "position@trim", True)])
def test_a_cleaned_method_may_equal_itself_and_no_other(honest: tuple, one: str, other: str, told: bool) -> None:
    """Where there is no border, trimming changes nothing."""
    record, arrays = honest
    mean = next(row for row in record.rows if row.method == "mean")
    rows = tuple(mean.model_copy(update={"method": name}) for name in (one, other))
    of_mean = {key.removeprefix("mean/"): array for key, array in arrays.items() if key.startswith("mean/")}
    known = {f"{name}/{key}": array for name in (one, other) for key, array in of_mean.items()}
    found = sanity_checks.violations(record.model_copy(update={"rows": rows}), arrays | known)
    assert any("equal scores" in sentence for sentence in found) is told


def test_an_image_found_twice(honest: tuple) -> None:
    record, arrays = honest
    indices = arrays["mean/indices"].copy()
    indices[3, 1] = indices[3, 0]
    assert "1 queries found one gallery image twice" in broken(record, arrays | {"mean/indices": indices})


def test_a_run_that_breaks_a_rule_is_saved_and_failed(data: Dataset, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(sanity_checks, "violations", lambda *words, **names: ("this cannot be",))
    record = run(plan(data, spec("mean", Grey)), tmp_path)
    assert (record.status, record.violations) == ("failed", ("this cannot be",))
    assert (tmp_path / "rankings.npz").exists()
    assert diff(record, record).broken[0] == "the run of the first record failed: this cannot be"


# Planted defects. Each test plants one and shows what it runs into; docs/guards.md has the list.


def test_the_list_of_planted_defects_is_whole() -> None:
    planted = set(re.findall(r"^def (test_planted_\w+)", Path(__file__).read_text(encoding="utf-8"), re.MULTILINE))
    listed = re.findall(r"`(test_planted_\w+)`", (ROOT / "docs" / "guards.md").read_text(encoding="utf-8"))
    assert len(listed) == len(set(listed))
    assert set(listed) == planted


def test_planted_off_by_one_k_in_a_metric(data: Dataset, tmp_path: Path, monkeypatch: Any) -> None:
    """Caught by a guard: the ceilings and the oracle are compared with a closed form that uses no metric."""
    right = metrics._hits

    def short(judged: Judged, k: int) -> np.ndarray:
        hits = right(judged, k).copy()
        hits[:, k - 1 :] = hits[:, k - 1 :] & (k == 1)  # the last place is never looked at
        return hits

    monkeypatch.setattr(metrics, "_hits", short)
    record = run(plan(data, spec("mean", Grey)), tmp_path)
    assert record.status == "failed"
    assert any("precision@5" in sentence and "definition" in sentence for sentence in record.violations)


def test_planted_off_by_one_k_in_the_search(data: Dataset, tmp_path: Path) -> None:
    """Caught by a guard: an oracle whose nearest is dropped is none."""

    class Dropping:
        def __init__(self, inner: Searcher) -> None:
            self.inner, self.bytes = inner, inner.bytes

        def __call__(self, queries: Any, k: int, exclude: np.ndarray | None = None) -> Ranking:
            found = self.inner(queries, k, exclude)
            # The nearest comes last: everything is off by one rank.
            return Ranking(np.roll(found.indices, -1, axis=1), np.sort(found.distances, axis=1))

    def off(gallery: np.ndarray, distance: Any = "cosine") -> Searcher:
        return Dropping(BACKENDS["exact"].build(gallery, distance))

    BACKENDS("off-by-one", about="for tests")(off)
    try:
        record = run(plan(data, spec("mean", Grey), backend="off-by-one"), tmp_path)
    finally:
        del BACKENDS._entries["off-by-one"]
    assert record.status == "failed"
    assert any(sentence.startswith("the oracle") for sentence in record.violations)


def test_planted_self_match(data: Dataset, tmp_path: Path) -> None:
    """Caught by a guard: a query's own row is among what it found."""
    both = Dataset("loo", data.train, data.gallery, data.gallery, data.label_names, data.category_names, True)

    class Blind:
        def __init__(self, inner: Searcher) -> None:
            self.inner, self.bytes = inner, inner.bytes

        def __call__(self, queries: Any, k: int, exclude: np.ndarray | None = None) -> Ranking:
            return self.inner(queries, k)  # forgets whom it must not find

    def forgetful(gallery: np.ndarray, distance: Any = "cosine") -> Searcher:
        return Blind(BACKENDS["exact"].build(gallery, distance))

    BACKENDS("forgetful", about="for tests")(forgetful)
    try:
        record = run(plan(both, spec("mean", Grey), backend="forgetful", k=(1, 5)), tmp_path)
    finally:
        del BACKENDS._entries["forgetful"]
    assert record.status == "failed"
    assert record.rows[0].status == "failed", "nothing that was ranked so is ever shown"
    assert "the controls cannot be computed" in record.violations[0]


def test_planted_self_match_in_a_saved_ranking(data: Dataset, tmp_path: Path) -> None:
    both = Dataset("loo", data.train, data.gallery, data.gallery, data.label_names, data.category_names, True)
    record = run(plan(both, spec("mean", Grey)), tmp_path)
    assert record.status == "finished"
    arrays = load_rankings(tmp_path, record)
    arrays["mean/indices"][:, 0] = arrays["exclude"]
    assert "mean: 108 queries found themselves" in sanity_checks.violations(record, arrays)


@pytest.mark.slow(reason="several whole runs")
def test_planted_shuffled_labels(data: Dataset, honest: tuple, tmp_path: Path) -> None:
    """Caught by a guard, as no method does better than chance, and by the diff, as the splits are others."""
    labels = np.random.default_rng(0).permutation(data.gallery.labels)
    shuffled = data.with_splits({"gallery": replace(data.gallery, labels=labels)})
    record = run(plan(shuffled, spec("mean", Grey), "phash", "color"), tmp_path)
    families = ("color", "hash", "global")
    rows = tuple(row.model_copy(update={"family": name}) for row, name in zip(record.rows, families, strict=True))
    told = sanity_checks.violations(record.model_copy(update={"rows": rows}), load_rankings(tmp_path, record))
    assert any("does better than chance" in sentence for sentence in told)
    with pytest.raises(NotComparable, match="fingerprint"):
        diff(honest[0], record)


@pytest.mark.slow(reason="two runs")
def test_planted_vocabulary_from_the_query_split(data: Dataset, tmp_path: Path, monkeypatch: Any) -> None:
    """Caught by a guard: the record says what was learned from, and it is not train."""
    right = quality.part_features

    def cheating(part: Any, pipeline: Any, wanted: Any, train: Split, *others: Any) -> Any:
        return right(part, pipeline, wanted, data.query, *others)

    monkeypatch.setattr(quality, "part_features", cheating)
    record = run(plan(data, "sift:words=2:keypoints=20:reduce=4"), tmp_path)
    assert record.rows[0].status == "ok", record.rows[0].error
    assert record.status == "failed"
    assert "learned from images that are not the train split" in record.violations[0]


@pytest.mark.slow(reason="two runs")
def test_planted_stale_cache(data: Dataset, tmp_path: Path, monkeypatch: Any) -> None:
    """Caught by a guard: features from the cache are compared with some that are computed now."""

    class Changed(Grey):
        def transform(self, images: Sequence[np.ndarray]) -> np.ndarray:
            return 255 - super().transform(images)

    monkeypatch.setattr(features, "code_version", lambda *sources: "never changes")
    cache = FeatureCache(tmp_path / "cache")
    first = run(plan(data, spec("mean", Grey), cache=cache), tmp_path / "a")
    assert first.rows[0].status == "ok"
    assert run(plan(data, spec("mean", Grey), cache=cache), tmp_path / "b").rows[0].status == "ok"
    stale = run(plan(data, spec("mean", Changed), cache=cache), tmp_path / "c").rows[0]
    assert stale.status == "failed"
    assert stale.error is not None
    assert "in the cache are not those that it computes now" in stale.error.sentence


VOCABULARY = "sift:words=2:keypoints=20:reduce=4"


def other_train(data: Dataset) -> Dataset:
    """The same gallery and queries, and a train split that lacks every second image."""
    return data.with_splits({"train": data.train.take(range(0, len(data.train), 2))})


@pytest.mark.slow(reason="several whole runs")
def test_a_vocabulary_belongs_to_its_train_split_and_its_libraries(
    data: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No defect: what is stored of another split, or by another numpy, is never even looked at."""
    cache = FeatureCache(tmp_path / "cache")
    fits = [run(plan(which, VOCABULARY, cache=cache), tmp_path / "a").rows[0] for which in (data, other_train(data))]
    again = run(plan(data, VOCABULARY, cache=cache), tmp_path / "b").rows[0]
    monkeypatch.setattr(features, "library_versions", lambda: {"numpy": "another"})
    newer = run(plan(data, VOCABULARY, cache=cache), tmp_path / "c").rows[0]
    assert [row.features.fit for row in (*fits, again, newer) if row.features] == [
        *("learned", "learned", "from cache", "learned")
    ]


@pytest.mark.slow(reason="several whole runs")
def test_planted_stale_vocabulary_of_another_train_split(
    data: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Caught by the store, though the key forgets the split: a fit says what it was learned from. The features that
    were made with it are caught by a guard: they are not those that are computed now."""
    right = features.recipe_key
    monkeypatch.setattr(features, "recipe_key", lambda recipe: right({**recipe, "learned_from": None}))
    cache = FeatureCache(tmp_path / "cache")
    first = run(plan(data, VOCABULARY, cache=cache), tmp_path / "a").rows[0]
    assert first.features is not None
    assert first.features.fit == "learned"
    second = run(plan(other_train(data), VOCABULARY, cache=cache), tmp_path / "b").rows[0]
    assert "was learned with another learned_from; it is learned again" in caplog.text
    assert second.error is not None
    assert "in the cache are not those that it computes now" in second.error.sentence


@pytest.mark.slow(reason="several whole runs")
def test_planted_stale_vocabulary_of_another_library(
    data: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Caught by the store, though the key forgets the libraries."""
    right = features.recipe_key
    monkeypatch.setattr(features, "recipe_key", lambda recipe: right({**recipe, "libraries": None}))
    cache = FeatureCache(tmp_path / "cache")
    run(plan(data, VOCABULARY, cache=cache), tmp_path / "a")
    monkeypatch.setattr(features, "library_versions", lambda: {"scikit-learn": "0.1"})
    row = run(plan(data, VOCABULARY, cache=cache), tmp_path / "b").rows[0]
    assert row.features is not None
    assert row.features.fit == "learned"
    assert "was learned with another libraries" in caplog.text


@pytest.mark.slow(reason="several whole runs")
def test_planted_vocabulary_copied_over_another(
    data: Dataset, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Caught by the store: the file of one split under the name of another."""
    fits = []
    for name, which in (("a", data), ("b", other_train(data))):
        run(plan(which, VOCABULARY, cache=FeatureCache(tmp_path / name)), tmp_path / "out")
        fits += (tmp_path / name).glob("fits/*/*.npz")
    one, other = fits
    one.write_bytes(other.read_bytes())
    row = run(plan(data, VOCABULARY, cache=FeatureCache(tmp_path / "a")), tmp_path / "out").rows[0]
    assert row.status == "ok"
    assert row.features is not None
    assert row.features.fit == "learned"
    assert "was learned with another learned_from" in caplog.text


@pytest.mark.slow(reason="several whole runs")
def test_planted_swapped_weights(data: Dataset, tmp_path: Path) -> None:
    """Caught by the diff where the file is another, and by a guard where two networks are in truth one."""

    def network(sha: str) -> type[Grey]:
        return type("Network", (Grey,), {"weights": {"source": f"{sha}.pth", "sha256": sha}})

    one = run(plan(data, spec("net", network("aa"))), tmp_path / "one")
    other = run(plan(data, spec("net", network("bb"))), tmp_path / "other")
    with pytest.raises(NotComparable, match="net has other weights"):
        diff(one, other)
    both = run(plan(data, spec("net-a", network("aa")), spec("net-b", network("bb"))), tmp_path / "both")
    assert both.status == "failed"
    assert "net-a and net-b have equal scores to the last digit" in both.violations[0]
