"""Rankings that were cut, edited, or written by another program: one sentence, whatever is wrong with them."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest

from retrieval_bench.compare.reload import values_of
from retrieval_bench.core import BenchError
from retrieval_bench.experiment.runner import run
from retrieval_bench.records.files import RANKINGS_FILE, load, load_own_rankings, load_rankings
from retrieval_bench.records.schema import Rankings, Record
from retrieval_bench.system.files import write_whole
from tests.support.runs import plan
from tests.support.shop import shop


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Record, dict[str, np.ndarray]]:
    folder = tmp_path_factory.mktemp("record")
    record = run(plan(shop(5, 4), "color", "random", classifiers=("knn",)), folder)
    return folder, record, load_rankings(folder, record)


def written(folder: Path, record: Record, content: bytes) -> Record:
    """The record with these rankings, whose hash it names."""
    (folder / RANKINGS_FILE).write_bytes(content)
    stamp = Rankings(file=RANKINGS_FILE, sha256=hashlib.sha256(content).hexdigest())
    record = record.model_copy(update={"rankings": stamp})
    (folder / "run.json").write_text(record.to_json())
    return record


def saved(folder: Path, record: Record, arrays: dict[str, np.ndarray]) -> Record:
    np.savez(folder / "made.npz", **arrays)
    return written(folder, record, (folder / "made.npz").read_bytes())


@pytest.mark.parametrize("keep", [0, 100, 3000, -30])
def test_a_file_that_was_cut_is_refused(made: tuple, tmp_path: Path, keep: int) -> None:
    folder, record, _ = made
    cut = written(tmp_path, record, (folder / RANKINGS_FILE).read_bytes()[:keep])
    with pytest.raises(BenchError, match="not a whole npz file"):
        load_rankings(tmp_path, cut)


@pytest.mark.parametrize(
    ("name", "change", "said"),
    [
        ("n_relevant", None, "it lacks n_relevant"),
        ("query_labels", None, "it lacks query_labels"),
        ("query_ids", None, "it lacks query_ids"),
        ("query_ids", lambda a: np.repeat(a[:1], len(a)), "query_ids names an image twice"),
        ("color/indices", None, "it lacks color/indices"),
        ("color/distances", None, "it lacks color/distances"),
        ("color/heads/knn/scores", None, "it lacks scores or predictions of color/heads/knn"),
        ("color/indices", lambda a: a[:3], r"color/indices has the shape 3 x \d+, not 20 x \d+"),
        ("color/distances", lambda a: a[:, :2], "color/distances has the shape 20 x 2, not 20 x"),
        ("color/indices", lambda a: a + 1000, "names rows that the gallery of 20 images does not have"),
        ("color/indices", lambda a: a.astype(float), "color/indices holds float64, not whole numbers"),
        ("color/distances", lambda a: a * np.nan, "color/distances holds what is no number"),
        ("color/distances", lambda a: a[:, ::-1], r"color/distances of the query '.+' do not ascend"),
        ("color/relevant_ranks", lambda a: a[:3], "color/relevant_ranks has the shape 3 x 4, not 20 x any"),
        ("color/heads/knn/classes", lambda a: a[:2], "color/heads/knn/scores has the shape 20 x 5, not 20 x 2"),
        ("gallery_ids", lambda a: a[:3], "gallery_labels has the shape 20, not 3"),
        ("query_labels", lambda a: a.astype(str), "query_labels holds <U.*, not whole numbers"),
        ("query_labels", lambda a: a - 9, "query_labels holds labels that have no name"),
        ("label_names", lambda a: a[:2], "gallery_labels holds labels that have no name"),
        ("query_class_sizes", lambda a: a[:2], "query_class_sizes has the shape 2, not 20"),
        ("query_labels", lambda a: a[0], "query_labels has the shape of one number, not 20"),
    ],
)
def test_arrays_that_are_no_rankings_are_refused(made: tuple, tmp_path: Path, name: str, change, said: str) -> None:
    _, record, arrays = made
    assert name in arrays
    others = {key: array for key, array in arrays.items() if key != name or change is not None}
    if change is not None:
        others[name] = np.asarray(change(arrays[name]))
    changed = saved(tmp_path, record, others)
    with pytest.raises(BenchError, match=said):
        load_rankings(tmp_path, changed)


@pytest.mark.parametrize(
    ("hidden", "said"),
    [
        (np.zeros(3, int), "exclude has the shape 3, not 20"),
        (np.zeros(20), "exclude holds float64, not whole numbers"),
    ],
)
def test_hidden_rows_that_fit_no_query_are_refused(made: tuple, tmp_path: Path, hidden: np.ndarray, said: str) -> None:
    _, record, arrays = made
    changed = saved(tmp_path, record, arrays | {"exclude": hidden})
    with pytest.raises(BenchError, match=said):
        load_rankings(tmp_path, changed)


def test_ranks_that_contradict_the_rankings_are_refused(made: tuple, tmp_path: Path) -> None:
    _, record, arrays = made
    moved = arrays["color/relevant_ranks"].copy()
    moved[3] = [15, 16, 17, 18]  # where the others are
    changed = saved(tmp_path, record, arrays | {"color/relevant_ranks": moved})
    with pytest.raises(BenchError, match=r"the rankings of color cannot be judged .*query 3.*disagree"):
        values_of(tmp_path, changed)


def test_whole_arrays_are_taken(made: tuple, tmp_path: Path) -> None:
    _, record, arrays = made
    again = load_rankings(tmp_path, saved(tmp_path, record, arrays))
    assert set(again) == set(arrays)


def test_a_cutoff_beyond_what_was_found_is_refused(made: tuple, tmp_path: Path) -> None:
    _, record, arrays = made
    settings = record.settings.model_copy(update={"k": (1, 9999)})
    changed = saved(tmp_path, record.model_copy(update={"settings": settings}), arrays)
    with pytest.raises(BenchError, match="color has 20 images for each query, too few for k = 9999"):
        values_of(tmp_path, changed)


def test_two_rows_of_one_name_are_refused(made: tuple, tmp_path: Path) -> None:
    _, record, _ = made
    twice = record.model_copy(update={"rows": (*record.rows, record.rows[0])})
    write_whole(tmp_path / "run.json", twice.to_json().encode())
    with pytest.raises(BenchError, match="two rows are called 'color'"):
        load(tmp_path)


def test_a_record_without_rankings_is_refused_where_they_are_needed(made: tuple, tmp_path: Path) -> None:
    empty = saved(tmp_path, made[1], {})
    assert load_rankings(tmp_path, empty) == {}
    with pytest.raises(BenchError, match="its rankings are empty"):
        load_own_rankings(tmp_path, empty)
