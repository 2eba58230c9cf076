"""`embeddings:FILE` as a row: the numbers of its vectors, and nothing that nobody measured."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from retrieval_bench.compare.diff import diff
from retrieval_bench.core import BenchError, Dataset, Images, Setup
from retrieval_bench.experiment.features import described
from retrieval_bench.experiment.prepare import prepare
from retrieval_bench.experiment.quality import QualityResult, quality
from retrieval_bench.experiment.runner import check, run
from retrieval_bench.images.reading import ImageBytes
from retrieval_bench.methods.parse import parse_method
from retrieval_bench.methods.pipeline import Pipeline
from retrieval_bench.records.files import load
from retrieval_bench.records.schema import Record
from retrieval_bench.registry import fill
from retrieval_bench.report.table import caption, columns, terminal, tidy_csv
from retrieval_bench.search.index import topk
from retrieval_bench.system.cache import FeatureCache
from retrieval_bench.system.progress import silent
from tests.support.runs import plan
from tests.support.shop import shop

fill()
D = 6


def vectors_of(data: Dataset, seed: int = 0) -> dict[str, np.ndarray]:
    """id -> vector, near those of its label."""
    rng = np.random.default_rng(seed)
    centres = rng.standard_normal((len(data.label_names), D))
    return {
        item: (centres[label] + 0.7 * rng.standard_normal(D)).astype(np.float32)
        for split in data.splits.values()
        for item, label in zip(split.ids, split.labels.tolist(), strict=True)
    }


def stored(file: Path, vectors: dict[str, np.ndarray]) -> Path:
    np.savez(file, ids=np.array(list(vectors)), vectors=np.stack(list(vectors.values())))
    return file


def found(data: Dataset, method: str) -> QualityResult:
    asked = plan(data, method)
    trial = prepare(asked)
    pipeline = Pipeline(asked.methods[0], asked.setup, "exact")
    pipeline.meet(trial.dataset)
    return quality(pipeline, trial, asked.setup, FeatureCache(None), silent)


class Undecodable:
    """Images that nobody may look at."""

    def __init__(self, images: Images) -> None:
        self._images = images

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, row: int) -> np.ndarray:
        raise AssertionError("an image was decoded")

    def read(self, row: int) -> bytes:
        raise AssertionError("an image was read")

    def digest(self, row: int) -> str:
        return self._images.digest(row)

    def take(self, rows: Sequence[int]) -> Images:
        return Undecodable(self._images.take(rows))


def undecodable(data: Dataset) -> Dataset:
    return data.with_splits({name: replace(one, images=Undecodable(one.images)) for name, one in data.splits.items()})


@pytest.mark.parametrize("distance", ["cosine", "euclidean", "inner"])
def test_the_ranking_is_that_of_the_vectors_and_no_image_is_decoded(distance: str, tmp_path: Path) -> None:
    data = undecodable(shop(4, 3))
    known = vectors_of(data)
    file = stored(tmp_path / "v.npz", known)
    ranking = found(data, f"embeddings:{file}:distance={distance}").ranking
    gallery, queries = (np.stack([known[item] for item in split.ids]) for split in (data.gallery, data.query))
    right = topk(queries, gallery, len(gallery), {"inner": "inner_product"}.get(distance, distance))
    np.testing.assert_array_equal(ranking.indices, right.indices)


def test_splits_may_have_files_of_their_own(tmp_path: Path) -> None:
    data = shop(4, 3)
    known = vectors_of(data)
    one = found(data, f"embeddings:{stored(tmp_path / 'all.npz', known)}")
    files = {
        name: stored(tmp_path / f"{name}.npz", {item: known[item] for item in split.ids})
        for name, split in data.splits.items()
    }
    three = found(data, f"embeddings:{files['gallery']}:query={files['query']}:train={files['train']}")
    assert three.scores == one.scores
    np.testing.assert_array_equal(three.ranking.indices, one.ranking.indices)
    method = parse_method(f"embeddings:{files['gallery']}:query={files['query']}:train={files['train']}:centre=yes")
    asked = plan(data, method)
    _, rows = described(method, asked, data.gallery, {"gallery": data.gallery})  # as with --learn-from gallery
    centred = np.stack([known[item] for item in data.gallery.ids])
    centred -= centred.mean(axis=0)
    np.testing.assert_allclose(rows["gallery"], centred / np.linalg.norm(centred, axis=1, keepdims=True), atol=1e-6)
    short = stored(tmp_path / "short.npz", {item: known[item][:4] for item in data.query.ids})
    with pytest.raises(
        BenchError, match=r"short\.npz holds vectors of 4 numbers and .*gallery\.npz of 6; all splits need"
    ):
        found(data, f"embeddings:{files['gallery']}:query={short}")


def test_what_is_missing_is_said_before_anything_is_computed(tmp_path: Path) -> None:
    data = shop(4, 3)
    known = vectors_of(data)
    gone = data.query.ids[1]
    file = stored(tmp_path / "v.npz", {item: row for item, row in known.items() if item != gone})
    with pytest.raises(BenchError, match=f"v.npz has nothing for 1 of 12 images: '{gone}'; its ids must be"):
        check(plan(data, f"embeddings:{file}"))
    with pytest.raises(BenchError, match="there is no file"):
        check(plan(data, f"embeddings:{tmp_path / 'none.npz'}"))


def test_train_is_not_needed_where_nothing_is_learned(tmp_path: Path) -> None:
    data = shop(4, 3)
    known = {item: row for item, row in vectors_of(data).items() if item not in data.train.ids}
    file = stored(tmp_path / "v.npz", known)
    assert found(data, f"embeddings:{file}").scores["accuracy"] > 0.5
    with pytest.raises(BenchError, match="nothing for 12 of 12 images"):
        found(data, f"embeddings:{file}:whiten=3")


def test_files_are_checked_for_normalisation(tmp_path: Path) -> None:
    data = shop(4, 3)
    known = vectors_of(data)
    unit = {item: row / np.linalg.norm(row) for item, row in known.items()}
    for vectors, distance, told in (
        (known, "inner", r"not normalised \(lengths .* to .*\): inner products prefer long ones"),
        (known, "euclidean", r"not normalised .*: lengths count in the distance"),
        (known, "cosine", None),
        (unit, "inner", None),
    ):
        method = parse_method(f"embeddings:{stored(tmp_path / 'v.npz', vectors)}:distance={distance}")
        sentences = Pipeline(method, Setup(), "exact").meet(data)
        if told is None:
            assert sentences == ()
        else:
            assert len(sentences) == 1
            assert re.search(told, sentences[0]), sentences[0]


def test_rows_of_no_image_and_joins_by_file_name_are_counted(tmp_path: Path) -> None:
    data = shop(4, 3)
    known = vectors_of(data)
    moved = {re.sub(r"^query/\d", "old", item): row for item, row in known.items()}
    file = stored(tmp_path / "v.npz", moved | {"x.png": np.ones(D, np.float32)})
    assert Pipeline(parse_method(f"embeddings:{file}"), Setup(), "exact").meet(data) == (
        "1 of 37 rows of v.npz are of no image here",
        "12 images have their vector in v.npz by file name alone",
    )


def test_whitening_is_learned_from_train_and_kept_under_the_file(tmp_path: Path) -> None:
    data = shop(4, 3)
    file = stored(tmp_path / "v.npz", vectors_of(data))
    method, cache = parse_method(f"embeddings:{file}:whiten=3:dtype=float16"), FeatureCache(tmp_path / "cache")
    asked = plan(data, method, cache=cache)
    trial = prepare(asked)

    def fit() -> QualityResult:
        return quality(Pipeline(method, asked.setup, "exact"), trial, asked.setup, cache, silent)

    first, again = fit(), fit()
    assert (first.features.fit, again.features.fit) == ("learned", "from cache")
    assert (first.features.dim, first.features.dtype, first.features.bytes_per_image) == (3, "float16", 6)
    assert first.scores == again.scores
    stored(file, vectors_of(data, seed=1))
    assert fit().features.fit == "learned"


def test_wrong_options_are_sentences(tmp_path: Path) -> None:
    data = shop(4, 3)
    file = stored(tmp_path / "v.npz", vectors_of(data))
    np.save(tmp_path / "v.npy", np.zeros((2, 2)))
    for options, sentence in (
        ("ms=-1", "ms=-1 must be at least 0"),
        ("whiten=3:distance=inner", "drop distance=inner"),
        (f"query={tmp_path / 'v.npy'}:ids=ids.txt", "is of one file; put the ids of each into NAME.ids.txt"),
        (f"query={tmp_path / 'none.npz'}", "there is no file"),
    ):
        with pytest.raises(BenchError, match=sentence):
            Pipeline(parse_method(f"embeddings:{file}:{options}"), Setup(), "exact")
    with pytest.raises(BenchError, match="reads a file and sees no picture, so there is nothing to clean"):
        Pipeline(parse_method(f"embeddings:{file}@trim"), Setup(), "exact")
    with pytest.raises(BenchError, match="makes none of pixels"):
        Pipeline(parse_method(f"embeddings:{file}"), Setup(), "exact").members[0].extractor.transform([])


def test_a_plus_within_the_name_of_a_file_joins_nothing() -> None:
    method = parse_method("embeddings:a+b/v+w.npz:ms=3.5+color+rrf")
    assert [str(member) for member in method.members] == ["embeddings:a+b/v+w.npz:ms=3.5", "color"]
    assert str(method) == "embeddings:a+b/v+w.npz:ms=3.5+color+rrf"


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Record, Path]:
    """One run with all that a row of vectors can be part of."""
    folder = tmp_path_factory.mktemp("run")
    data = shop(4, 3)
    file = stored(folder / "v.npz", vectors_of(data))
    methods = [f"embeddings:{file}{more}" for more in (":ms=12.5", "+hsv", "+phash+rrf", "+qe=3", "+reciprocal")]
    asked = plan(data, *methods, classifiers=("knn",), perturb=("blur",), severities=(1,), concurrency=(2,))
    return run(asked, folder / "out"), folder / "out"


RUNS = pytest.mark.slow(reason="a run of five methods")


@RUNS
def test_it_is_fused_reranked_and_classified(whole: tuple[Record, Path]) -> None:
    record, folder = whole
    assert record.status == "finished"
    assert [row.status for row in record.rows] == ["ok"] * 5
    assert load(folder) == record
    plain, scores, ranks, expanded, _ = record.rows
    assert plain.family == "file"
    assert plain.weights is not None
    assert len(plain.weights["sha256"]) == 64
    assert plain.classifiers["knn"].scores["accuracy"] > 0.5
    assert {part.name.partition(":")[0] for part in scores.parts} == {"embeddings", "hsv"}
    assert ranks.features is not None
    assert expanded.scores != plain.scores


@RUNS
def test_a_stated_time_is_shown_as_stated_and_never_as_measured(whole: tuple[Record, Path]) -> None:
    record, _ = whole
    plain, *others = record.rows
    assert plain.stated["end_to_end_p50"].value == 12.5
    assert "end_to_end_p50" not in plain.times
    assert "12.5 (stated)" in terminal(record)
    assert any(line.startswith("(stated):") for line in caption(record))
    assert "end_to_end_p50 stated [ms]" in tidy_csv(record)
    times = {column.head: column.cell for column in columns(record) if column.head in ("query ms", "p95", "images/s")}
    assert [cell(plain) for cell in times.values()] == ["12.5 (stated)", "n/a", "n/a"]
    for row in others:
        assert [cell(row) for cell in times.values()] == ["n/a"] * 3
        assert row.times["search_p50"].value > 0
    assert not any("end_to_end" in change.name for change in diff(record, record).speed)


@RUNS
def test_what_means_nothing_for_stored_vectors_is_told(whole: tuple[Record, Path]) -> None:
    for row in whole[0].rows:
        assert row.robustness == ()
        assert "no perturbed query was asked" in " ".join(row.notices)
        assert "several queries at once were not timed" in " ".join(row.notices)
        assert not any(name.startswith("concurrency") for name in row.times)


@RUNS
def test_a_method_that_fails_for_its_file_fails_alone(tmp_path: Path) -> None:
    file = tmp_path / "damaged.npz"
    file.write_bytes(b"PK\x03\x04 and no more")
    record = run(plan(shop(4, 3), f"embeddings:{file}", "phash"), tmp_path / "out")
    assert [row.status for row in record.rows] == ["failed", "ok"]
    assert record.rows[0].error is not None
    assert "damaged.npz" in record.rows[0].error.sentence


def test_a_file_that_is_not_there_is_told_before_any_method_starts(tmp_path: Path) -> None:
    with pytest.raises(BenchError, match=r"embeddings:none\.npz: there is no file"):
        run(plan(shop(4, 3), "phash", f"embeddings:{tmp_path / 'none.npz'}"), tmp_path / "out")
    assert not (tmp_path / "out" / "run.json").exists()


def test_where_only_files_are_asked_the_screening_is_left_out_and_told(tmp_path: Path) -> None:
    data = undecodable(shop(4, 3))
    file = stored(tmp_path / "v.npz", vectors_of(data))
    trial = prepare(plan(data, f"embeddings:{file}"))
    assert trial.dataset.notices[-1].startswith("no image was decoded")
    with pytest.raises(AssertionError, match="an image was read"):
        prepare(plan(data, f"embeddings:{file}", "hsv"))


def test_other_commands_get_its_vectors(tmp_path: Path) -> None:
    data = shop(4, 3)
    known = vectors_of(data)
    method = parse_method(f"embeddings:{stored(tmp_path / 'v.npz', known)}")
    _, rows = described(method, plan(data, method), data.train, {"gallery": data.gallery})
    np.testing.assert_array_equal(rows["gallery"], [known[item] for item in data.gallery.ids])


def test_a_query_in_the_gallery_has_one_vector_and_does_not_find_itself(tmp_path: Path) -> None:
    data = shop(4, 3)
    alone = replace(data, query=data.gallery, leave_one_out=True)
    got = found(alone, f"embeddings:{stored(tmp_path / 'v.npz', vectors_of(data))}")
    assert not (got.ranking.indices == np.arange(12)[:, None]).any()


def test_images_of_the_same_bytes_keep_vectors_of_their_own(tmp_path: Path) -> None:
    data = shop(4, 3)
    known = vectors_of(data)
    same = ImageBytes([data.gallery.images.read(0)] * 12)
    data = data.with_splits({"gallery": replace(data.gallery, images=same), "query": replace(data.query, images=same)})
    got = found(data, f"embeddings:{stored(tmp_path / 'v.npz', known)}")
    np.testing.assert_array_equal(got.queries, [known[item] for item in data.query.ids])
