from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

import retrieval_bench.extractors
from retrieval_bench.core import BenchError, Dataset, Distance, Ranking, Split
from retrieval_bench.evaluation import metrics
from retrieval_bench.evaluation.relevance import judge, rank_gallery
from retrieval_bench.evaluation.uncertainty import COMPARED, comparisons
from retrieval_bench.experiment import in_process, quality, sanity_checks
from retrieval_bench.experiment.device_choice import resolve_device
from retrieval_bench.experiment.prepare import prepare
from retrieval_bench.experiment.runner import DEFAULT_METHODS, check, run, unique
from retrieval_bench.images.reading import ImageBytes
from retrieval_bench.methods.parse import Method, parse_method
from retrieval_bench.records.files import load, load_rankings
from retrieval_bench.records.schema import ImageCounts, Record, Row
from retrieval_bench.registry import BACKENDS
from retrieval_bench.system.cache import FeatureCache
from tests.support.methods import Centred, MeanColor, spec
from tests.support.runs import plan
from tests.support.shop import shop

assert retrieval_bench.extractors  # importing it fills the registry


class Broken(MeanColor):
    def transform(self, images: Sequence[np.ndarray]) -> np.ndarray:
        raise RuntimeError("out of luck")


class Interrupted(MeanColor):
    def transform(self, images: Sequence[np.ndarray]) -> np.ndarray:
        raise KeyboardInterrupt


class Marked(MeanColor):
    mark = "untrained"
    weights = {"source": "random initialisation, seed 0", "sha256": "00"}  # noqa: RUF012


def recomputed(folder: Path, record: Record) -> dict[str, dict[str, float]]:
    """All scores, from the saved files alone."""
    arrays = load_rankings(folder, record)
    scores = {}
    for row in record.rows:
        if row.status == "ok":
            found = {name: arrays[f"{row.method}/{name}"] for name in ("indices", "distances", "relevant_ranks")}
            judged = judge(
                arrays["query_labels"],
                arrays["gallery_labels"],
                Ranking(found["indices"], found["distances"]),
                arrays["n_relevant"],
                found["relevant_ranks"],
            )
            scores[row.method] = metrics.scores(judged, record.settings.k)
    return scores


NAMES = ("color", "phash", "sift:words=16", "hog", "random", "oracle")


@dataclass(frozen=True)
class Whole:
    record: Record
    folder: Path
    rows: list[Row]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Whole:
    """One run of NAMES on one thread that several tests look at: its record, its folder, the rows as they came."""
    folder, rows = tmp_path_factory.mktemp("whole"), list[Row]()
    return Whole(run(plan(shop(5, 4), *NAMES, threads=1), folder, on_row=rows.append), folder, rows)


def test_a_run_from_data_to_record(whole: Whole) -> None:
    data, record = shop(5, 4), whole.record
    assert record.status == "finished"
    assert [row.method for row in record.rows] == list(NAMES)
    assert [row.status for row in record.rows] == ["ok"] * len(NAMES)
    assert tuple(whole.rows) == record.rows
    assert load(whole.folder) == record
    assert record.dataset.fingerprint == data.fingerprint
    assert record.dataset.images == ImageCounts(train=20, gallery=20, query=20)

    scores = {row.method: row.scores for row in record.rows}
    assert {name: scores["oracle"][name] for name in record.ceilings} == record.ceilings
    assert not any(name.startswith(("knn", "macro")) for name in record.ceilings)
    assert scores["oracle"]["accuracy"] == scores["oracle"]["map"] == 1.0
    assert scores["oracle"]["f1@10"] == pytest.approx(2 * 0.4 * 1 / 1.4)
    assert scores["random"]["accuracy"] < 0.6 < scores["color"]["accuracy"]
    assert recomputed(whole.folder, record) == scores


def test_every_time_is_told_with_its_count(whole: Whole) -> None:
    row = whole.record.rows[NAMES.index("color")]
    for phase in ("decode", "extract", "search", "end_to_end"):
        assert row.times[f"{phase}_p50"].value > 0
        assert row.times[f"{phase}_p95"].n == 20
        assert row.times[f"{phase}_p99"].value is None
    for name in (
        "load",
        "jit",
        "index_build",
        "search_throughput",
        "extract_throughput",
        "peak_memory",
        "added_memory",
    ):
        assert row.times[name].value >= 0, name
    assert row.features is not None
    assert row.features.bytes_per_image == 4 * row.features.dim
    assert row.features.index_bytes > 0


def test_the_oracle_is_never_timed(whole: Whole) -> None:
    assert "extract_p50" not in whole.record.rows[NAMES.index("oracle")].times


@pytest.mark.slow(reason="a whole run a thread count")
def test_thread_counts_do_not_change_a_bit(whole: Whole, tmp_path: Path) -> None:
    run(plan(shop(5, 4), *NAMES, threads=2), tmp_path)
    assert (tmp_path / "rankings.npz").read_bytes() == (whole.folder / "rankings.npz").read_bytes()


def test_a_failing_method_is_a_row_and_the_others_finish(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    record = run(plan(shop(), spec("broken", Broken), spec("mean", MeanColor)), tmp_path)
    broken, mean = record.rows
    assert (broken.status, mean.status) == ("failed", "ok")
    assert broken.error is not None
    assert broken.error.sentence == "RuntimeError: out of luck"
    assert "in transform" in (broken.error.traceback or "")
    assert "broken failed: RuntimeError: out of luck" in caplog.text
    assert recomputed(tmp_path, record).keys() == {"mean"}


def test_an_interrupt_keeps_what_was_finished(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        run(plan(shop(), spec("mean", MeanColor), spec("stop", Interrupted), spec("late", MeanColor)), tmp_path)
    record = load(tmp_path)
    assert record.status == "interrupted"
    assert [row.method for row in record.rows] == ["mean"]
    assert recomputed(tmp_path, record).keys() == {"mean"}


@pytest.fixture
def compared(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The methods of every call of `uncertainty.comparisons`."""
    calls: list[list[str]] = []

    def counted(values: Mapping[str, Any], *others: Any) -> Any:
        calls.append(list(values))
        return comparisons(values, *others)

    monkeypatch.setattr(in_process, "comparisons", counted)
    return calls


@pytest.mark.slow(reason="a run with robustness")
def test_methods_are_compared_once_when_all_are_there(tmp_path: Path, compared: list[list[str]]) -> None:
    names = [f"mean{number}" for number in range(4)]
    record = run(plan(shop(), *(spec(name, MeanColor) for name in names)), tmp_path)
    assert compared == [names]
    assert len(load(tmp_path).comparisons["accuracy"].pairs) == 6
    assert load(tmp_path) == record


@pytest.mark.slow(reason="a run of several methods")
def test_an_interrupt_compares_what_was_finished_once(tmp_path: Path, compared: list[list[str]]) -> None:
    with pytest.raises(KeyboardInterrupt):
        run(plan(shop(), spec("mean", MeanColor), spec("also", MeanColor), spec("stop", Interrupted)), tmp_path)
    assert compared == [["mean", "also"]]
    record = load(tmp_path)
    assert record.status == "interrupted"
    assert record.comparisons.keys() == set(COMPARED)


@pytest.mark.slow(reason="a run of several methods")
def test_an_interrupt_of_the_controls_keeps_all_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(sanity_checks, "controls", stop)
    with pytest.raises(KeyboardInterrupt):
        run(plan(shop(), spec("mean", MeanColor), spec("also", MeanColor)), tmp_path)
    record = load(tmp_path)
    assert record.status == "interrupted"
    assert [row.method for row in record.rows] == ["mean", "also"]
    assert record.comparisons.keys() == set(COMPARED)


def test_an_interrupt_before_anything_finished_leaves_the_earlier_record_alone(tmp_path: Path) -> None:
    before = run(plan(shop(), spec("mean", MeanColor)), tmp_path)
    with pytest.raises(KeyboardInterrupt):
        run(plan(shop(), spec("stop", Interrupted)), tmp_path)
    assert load(tmp_path) == before


@pytest.mark.slow(reason="three runs")
def test_an_earlier_record_is_kept_unless_it_is_to_be_overwritten(tmp_path: Path) -> None:
    first = run(plan(shop(), spec("mean", MeanColor)), tmp_path)
    run(plan(shop(), spec("mean", MeanColor), seed=1), tmp_path)
    (earlier,) = (tmp_path / "earlier").iterdir()
    assert load(earlier) == first
    run(plan(shop(), spec("mean", MeanColor), seed=2), tmp_path, overwrite=True)
    assert len(list((tmp_path / "earlier").iterdir())) == 1
    assert load(tmp_path).settings.seed == 2


def test_the_second_run_computes_no_feature_and_learns_nothing(tmp_path: Path) -> None:
    cache = FeatureCache(tmp_path / "cache")
    data = shop(5, 4)
    Centred.fits = 0
    methods = (spec("centred", Centred), spec("mean", MeanColor))
    first = run(plan(data, *methods, cache=cache), tmp_path / "1")
    second = run(plan(data, *methods, cache=cache), tmp_path / "2")
    assert Centred.fits == 1
    assert [row.features.computed for row in first.rows] == [40, 40]
    assert [(row.features.computed, row.features.from_cache) for row in second.rows] == [(0, 40), (0, 40)]
    assert [row.features.fit for row in second.rows] == ["from cache", "nothing to learn"]
    assert second.rows[0].times["fit"].value is None
    assert second.rows[0].times["extract_p50"].value > 0
    assert (tmp_path / "1" / "rankings.npz").read_bytes() == (tmp_path / "2" / "rankings.npz").read_bytes()


@pytest.mark.slow(reason="two runs")
def test_features_learned_from_other_images_are_not_taken(tmp_path: Path) -> None:
    cache = FeatureCache(tmp_path / "cache")
    data = shop(5, 4)
    run(plan(data, spec("centred", Centred), cache=cache), tmp_path / "1")
    other = data.with_splits({"train": data.train.take(range(7))})
    (row,) = run(plan(other, spec("centred", Centred), cache=cache), tmp_path / "2").rows
    assert (row.features.fit, row.features.from_cache) == ("learned", 0)


def test_a_method_that_learns_needs_train(tmp_path: Path) -> None:
    data = shop()
    bare = data.with_splits({"train": data.train.take([])})
    learns, does_not = run(plan(bare, spec("centred", Centred), spec("mean", MeanColor)), tmp_path).rows
    assert does_not.status == "ok"
    assert learns.error is not None
    assert "learns from train images and this dataset has none" in learns.error.sentence


def test_the_mark_is_part_of_the_name_everywhere(tmp_path: Path) -> None:
    record = run(plan(shop(), spec("net", Marked)), tmp_path)
    assert record.rows[0].method == "net[untrained]"
    assert record.rows[0].weights == Marked.weights
    assert "net[untrained]/indices" in load_rankings(tmp_path, record)


def test_the_record_holds_every_option_and_what_was_read_back(whole: Whole) -> None:
    record = whole.record
    assert record.rows[NAMES.index("phash")].params == {"size": 8}
    assert record.environment.thread_counts["numba"] == 1
    assert record.environment.thread_counts["opencv"] == 1
    assert record.environment.allocator


@pytest.mark.slow(reason="two runs")
def test_options_given_or_by_default_share_the_cache(tmp_path: Path) -> None:
    cache = FeatureCache(tmp_path / "cache")
    run(plan(shop(), "phash", cache=cache), tmp_path / "1")
    (row,) = run(plan(shop(), "phash:size=8", cache=cache), tmp_path / "2").rows
    assert (row.method, row.features.computed) == ("phash:size=8", 0)


@pytest.mark.slow(reason="two runs")
def test_other_preprocessing_of_the_same_weights_is_not_taken_from_the_cache(tmp_path: Path) -> None:
    def network(recipe: str) -> type:
        weights = {"source": "a.pth", "sha256": "00", "recipe": recipe}
        return type("Network", (MeanColor,), {"weights": weights})

    cache = FeatureCache(tmp_path / "cache")
    computed = []
    for recipe in ("V1", "V2", "V1"):
        (row,) = run(plan(shop(), spec("net", network(recipe)), cache=cache), tmp_path / "out").rows
        computed.append(row.features.computed)
    assert computed == [24, 24, 0]


def test_numba_is_pinned_from_the_first_method_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import numba

    seen = []
    monkeypatch.setattr(
        quality,
        "rank_gallery",
        lambda *args, **more: seen.append(numba.get_num_threads()) or rank_gallery(*args, **more),
    )
    run(plan(shop(), "phash", threads=1), tmp_path)
    assert seen == [1]


def test_single_queries_are_masked_with_their_own_row(tmp_path: Path) -> None:
    data = shop(4, 3)
    both = Dataset("loo", data.train, data.gallery, data.gallery, *names(data), leave_one_out=True)
    asked: list[tuple[bytes, list[int]]] = []

    @BACKENDS("spy", about="remembers what it was asked")
    def spy(gallery: np.ndarray, distance: str):
        class Spy:
            bytes = 0

            def __call__(self, queries: np.ndarray, k: int, exclude: np.ndarray | None = None) -> Ranking:
                if len(queries) == 1:
                    asked.append((queries.tobytes(), np.asarray(exclude).ravel().tolist()))
                return BACKENDS["exact"].build(gallery, distance)(queries, k, exclude)

        return Spy()

    try:
        run(plan(both, spec("mean", MeanColor), backend="spy"), tmp_path)
    finally:
        del BACKENDS._entries["spy"]
    features = MeanColor().transform([data.gallery.images[row] for row in range(12)])
    row_of = {feature.tobytes(): row for row, feature in enumerate(features)}
    assert len(asked) >= 12
    assert all(mask == [row_of[query]] for query, mask in asked)


def test_a_large_chunk_is_given_whole(tmp_path: Path) -> None:
    class Wide(MeanColor):
        chunk = 100
        sizes: ClassVar[list[int]] = []

        def transform(self, images: Sequence[np.ndarray]) -> np.ndarray:
            self.sizes.append(len(images))
            return super().transform(images)

    run(plan(shop(5, 4), spec("wide", Wide)), tmp_path)
    assert Wide.sizes[:2] == [20, 20]


def test_check_finds_what_a_run_would_refuse() -> None:
    data = shop()
    bare = data.with_splits({"train": data.train.take([])})
    with pytest.raises(BenchError, match="this dataset has none"):
        check(plan(bare, "hog"))
    with pytest.raises(BenchError, match="words=-1"):
        check(plan(data, "sift:words=-1"))
    with pytest.raises(BenchError, match="cannot be used"):
        check(plan(spoiled(data, [3, 7]), "color"))
    assert check(plan(data, "color", "sift")).fingerprint == data.fingerprint


def spoiled(data: Dataset, rows: Sequence[int], part: str = "query") -> Dataset:
    split = data.splits[part]
    encoded = [b"<html>404</html>" if row in rows else split.images.read(row) for row in range(len(split))]
    return data.with_splits({part: Split(split.ids, split.labels, ImageBytes(encoded), split.categories)})


def test_bad_images_are_skipped_counted_and_listed(tmp_path: Path) -> None:
    data = spoiled(shop(5, 4), [3, 7])
    record = run(plan(data, "color", max_bad=0.05), tmp_path)
    assert record.dataset.images.query == 18
    assert [item.id for item in record.dataset.skipped] == [data.query.ids[3], data.query.ids[7]]
    assert {item.reason for item in record.dataset.skipped} == {"not an image"}
    assert record.rows[0].status == "ok"


def test_too_many_bad_images_stop_the_run(tmp_path: Path) -> None:
    with pytest.raises(BenchError, match=r"2 of 60 images cannot be used .*--max-bad"):
        run(plan(spoiled(shop(5, 4), [3, 7]), "color"), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_queries_without_an_answer_are_left_out_and_counted(tmp_path: Path) -> None:
    data = shop(5, 4)
    gallery = data.gallery.take(np.flatnonzero(data.gallery.labels != 2))
    record = run(plan(data.with_splits({"gallery": gallery}), "oracle"), tmp_path)
    assert record.dataset.queries_left_out == 4
    assert record.rows[0].scores["accuracy"] == 1.0
    assert any("4 of 20 queries left out" in notice for notice in record.dataset.notices)


def test_a_gallery_that_answers_nothing_is_refused() -> None:
    data = shop(6, 2)
    parts = {
        "gallery": data.gallery.take(np.flatnonzero(data.gallery.labels < 3)),
        "query": data.query.take(np.flatnonzero(data.query.labels >= 3)),
    }
    with pytest.raises(BenchError, match="no query has an image of its label"):
        prepare(plan(data.with_splits(parts), "color"))


def test_k_beyond_the_gallery() -> None:
    data = shop(2, 3)
    with pytest.raises(BenchError, match="--k 7 is more than the 6 gallery images"):
        prepare(plan(data, "color", k=(1, 7)))
    trial = prepare(plan(data, "color"))
    assert trial.k == (1, 5)
    assert any("k is 1, 5" in notice for notice in trial.dataset.notices)


def names(data: Dataset) -> tuple[tuple[str, ...], tuple[str, ...]]:
    return data.label_names, data.category_names


def test_leave_one_out_never_finds_itself(tmp_path: Path) -> None:
    data = shop(4, 3)
    both = Dataset("loo", data.train, data.gallery, data.gallery, *names(data), leave_one_out=True)
    record = run(plan(both, spec("mean", MeanColor), "oracle"), tmp_path)
    arrays = load_rankings(tmp_path, record)
    own = np.arange(len(data.gallery))
    for method in ("mean", "oracle"):
        indices = arrays[f"{method}/indices"]
        assert not (indices == own[:, None]).any()
        assert (np.sort(indices, axis=1)[:, 0] == -1).all()
    assert arrays["n_relevant"].tolist() == [2] * 12
    assert record.rows[1].scores["map"] == 1.0
    assert recomputed(tmp_path, record)["mean"] == record.rows[0].scores


def test_leave_one_out_may_not_ask_for_the_whole_gallery() -> None:
    data = shop(2, 3)
    both = Dataset("loo", data.train, data.gallery, data.gallery, *names(data), leave_one_out=True)
    with pytest.raises(BenchError, match="--k 6 is more than the 5 gallery images"):
        prepare(plan(both, "color", k=(6,)))


@pytest.mark.slow(reason="two runs")
def test_the_limit_is_part_of_the_record(tmp_path: Path) -> None:
    record = run(plan(shop(5, 4), "color", limit=10), tmp_path)
    assert record.settings.limit == 10
    assert record.dataset.images == ImageCounts(train=10, gallery=10, query=10)
    assert record.dataset.fingerprint != shop(5, 4).fingerprint


def test_methods_named_twice_run_once() -> None:
    specs = tuple(parse_method(name) for name in ("color", "phash", "color"))
    assert [str(one) for one in unique(specs)] == ["color", "phash"]


def test_the_default_line_up_has_one_of_each_family_and_the_controls() -> None:
    families = [parse_method(name).family for name in DEFAULT_METHODS]
    assert families == ["local", "gradient", "hash", "color", "deep", "deep", "control", "control"]


def test_device() -> None:
    specs = (parse_method("color"),)
    assert resolve_device("auto", specs) == resolve_device("cpu", specs) == "cpu"
    import torch

    if not torch.cuda.is_available():
        with pytest.raises(BenchError, match="sees no CUDA device"):
            resolve_device("cuda", specs)
        assert resolve_device("auto", (parse_method("resnet18"),)) == "cpu"


@pytest.mark.parametrize(
    ("method", "arrays"),
    [
        ("color+hsv", ["vector"]),
        ("color+phash+concat:dims=6", ["vector"]),
        ("color+phash+rrf", ["color", "phash"]),
        ("moments+hsv+vote", ["moments", "hsv"]),
        ("phash+qe=2", ["vector"]),
        ("color+reciprocal=5:k1=3", ["vector"]),
        ("hsv+phash+verify=4+reciprocal=5:k1=3", ["vector", "verify=4"]),
    ],
)
@pytest.mark.slow(reason="a run for each kind")
def test_joined_and_reranked_methods_are_rows_like_any_other(tmp_path: Path, method: str, arrays: list[str]) -> None:
    record = run(plan(shop(4, 3), method), tmp_path)
    (row,) = record.rows
    assert (row.method, row.status) == (method, "ok"), row.error
    assert row.scores["accuracy"] > 0.4
    assert recomputed(tmp_path, record) == {method: row.scores}
    for name in (
        "decode_p50",
        "extract_p50",
        "search_p50",
        "end_to_end_p50",
        "extract_throughput",
        "search_throughput",
    ):
        assert row.times[name].value > 0
    assert row.features is not None
    members = [part for part in row.parts if "=" not in part.name or ":" in part.name]
    assert row.family == ("fusion" if len(members) > 1 else row.family)
    if arrays == ["vector"]:
        assert row.features.dtype == ("bit" if method.startswith("phash") else "float32")
    else:
        assert row.features.bytes_per_image >= sum(part.bytes_per_image for part in row.parts if part.name in arrays)
    if any(part.weight for part in row.parts):
        assert sum(part.weight for part in row.parts if part.weight is not None) == pytest.approx(1)


@pytest.mark.slow(reason="two runs")
def test_a_join_takes_what_its_members_left_in_the_cache(tmp_path: Path) -> None:
    data = shop(4, 3)
    cached = {"cache": FeatureCache(tmp_path / "cache")}
    run(plan(data, "color", "hsv", **cached), tmp_path / "a")
    (row,) = run(plan(data, "color+hsv", **cached), tmp_path / "b").rows
    assert row.features is not None
    assert row.features.computed == 24  # both of train, which nobody wanted when they ran alone
    assert row.times["fit"].value is None, "what color learned before is not in it"
    (again,) = run(plan(data, "color+hsv", **cached), tmp_path / "c").rows
    assert again.features is not None
    assert again.features.computed == 0
    assert again.scores == row.scores


def test_a_member_that_fails_is_named_and_takes_only_its_row_down(tmp_path: Path) -> None:
    broken = Method((*parse_method("hsv").members, *spec("broken", Refusing).members))
    record = run(plan(shop(), broken, "hsv"), tmp_path)
    failed, fine = record.rows
    assert failed.status == "failed"
    assert failed.error is not None
    assert "broken, which is part of it, failed: the extractor returned NaN" in failed.error.sentence
    assert fine.status == "ok"


class Refusing(MeanColor):
    def transform(self, images: Sequence[np.ndarray]) -> np.ndarray:
        return np.full((len(images), 3), np.nan, np.float32)


def test_members_that_see_nothing_are_counted_apart(tmp_path: Path) -> None:
    blank = Method((*parse_method("hsv").members, *spec("blank", Blank).members))
    (row,) = run(plan(shop(), blank), tmp_path).rows
    assert row.status == "ok"
    assert row.features is not None
    assert row.features.zero_rows == 0
    assert {part.name: part.zero_rows for part in row.parts} == {"hsv": 0, "blank": 24}
    assert row.scores["accuracy"] > 0.4


class Blank(MeanColor):
    distance: Distance = "cosine"

    def transform(self, images: Sequence[np.ndarray]) -> np.ndarray:
        return np.zeros((len(images), 3), np.float32)


def test_marks_of_members_are_shown(tmp_path: Path) -> None:
    marked = Method(
        (*parse_method("hsv").members, *spec("net", MarkedBlank).members), steps=parse_method("hsv+qe").steps
    )
    (row,) = run(plan(shop(), marked), tmp_path).rows
    assert row.method == "hsv+net[untrained]+qe"
    assert row.weights == MarkedBlank.weights


class MarkedBlank(Blank):
    mark = "untrained"
    weights = {"source": "random initialisation, seed 0", "sha256": "00"}  # noqa: RUF012


def test_what_cannot_be_joined_is_refused_before_anything_runs(tmp_path: Path) -> None:
    with pytest.raises(BenchError, match="oracle sees the labels and cannot be joined"):
        check(plan(shop(), "hsv+oracle"))
    (row,) = run(plan(shop(), "moments+hsv"), tmp_path).rows
    assert row.error is not None
    assert "join it by +concat, +rrf or +vote" in row.error.sentence


@pytest.mark.slow(reason="a whole run")
def test_ties_are_told_where_equal_distances_decide(tmp_path: Path) -> None:
    record = run(plan(shop(4, 3), "phash:size=2", "random"), tmp_path)
    tied, free = record.rows
    assert free.ties == {}
    for name, ties in tied.ties.items():
        assert ties.worst - 1e-12 <= ties.expected <= ties.best + 1e-12
        assert ties.worst - 1e-12 <= tied.scores[name] <= ties.best + 1e-12
    assert tied.ties["accuracy"].best > tied.ties["accuracy"].worst
    arrays = load_rankings(tmp_path, record)
    assert (arrays["phash:size=2/tie_sizes"] > 1).any()
    assert "random/tie_sizes" not in arrays
