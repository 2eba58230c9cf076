"""The search against a world whose best method is known; its trials on the disk; and limits."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from retrieval_bench.core import BenchError, Setup
from retrieval_bench.methods.parse import Method, parse_method
from retrieval_bench.records.tunings import BEGUN_FILE, FILE, Tried, TuningFile, TuningOf
from retrieval_bench.registry import fill
from retrieval_bench.tuning.halving import CostLimits, TrialBoard, indistinguishable, search

fill()

OF = TuningOf(
    version="1",
    dataset="shop",
    validation="train",
    fingerprint="abc",
    metric="map@r",
    seed=0,
    weights="auto",
    threads=2,
    start=("color", "sift"),
)


def tried(method: str, score: float | None, part: int = 2, **more: object) -> Tried:
    base = Tried(method=method, family="local", part=part, whole=part == 2, queries=4, score=score, seconds=1.0)
    return base.model_copy(update=more)


class World:
    """Good are: colour, vlad and an upright sift, each by itself, and re-ranking hardly; hash methods are poor."""

    def __init__(self, limit: int = 10_000) -> None:
        self.asked: list[tuple[str, int]] = []
        self.limit = limit

    def __call__(self, method: Method, part: int) -> Tried:
        text = str(method)
        self.asked.append((text, part))
        if "grey" in text:
            return tried(text, None, part, failed="cannot")
        score = 0.3 * ("sift" in text) + 0.1 * ("opponent" in text) + 0.1 * ("vlad" in text)
        score += 0.1 * ("upright=true" in text) + 0.01 * ("reciprocal" in text) - 0.2 * ("@" in text)
        return tried(text, score + 0.001 * len(method.members), part, family=method.family, bytes=1000)

    def left(self) -> float:
        return float(self.limit - len(self.asked))


def test_what_helps_alone_is_found_and_put_together() -> None:
    world, board = World(limit=150), TrialBoard([], 3, CostLimits())
    search([parse_method("sift"), parse_method("phash")], 3, board, world, Setup(), world.left)
    assert len(world.asked) == len(set(world.asked)), "nothing is tried twice"
    best = board.whole[0]
    assert best.score is not None
    assert best.score > 0.6
    assert {"opponent", "vlad", "upright=true"} <= {
        word for word in ("opponent", "vlad", "upright=true") if word in best.method
    }
    assert ("phash", 0) in world.asked
    assert all(one.score is not None for one in board.whole), "what failed is no choice"


def test_half_of_a_wave_sees_more_data() -> None:
    world, board = World(), TrialBoard([], 3, CostLimits())
    start = [
        parse_method(text) for text in ("sift", "phash", "dhash", "ahash", "sift:encode=vlad", "hog", "color", "lab")
    ]

    def left() -> float:
        return 1.0 if len({name for name, _ in world.asked}) <= len(start) else 0.0

    search(start, 3, board, world, Setup(), left)
    first = [len([name for name, part in world.asked[:14] if part == number]) for number in range(3)]
    assert first == [8, 4, 2]
    assert {name for name, part in world.asked[:14] if part == 2} == {"sift", "sift:encode=vlad"}


def test_it_ends_when_the_time_is_over() -> None:
    world, board = World(limit=5), TrialBoard([], 3, CostLimits())
    search([parse_method("sift"), parse_method("phash"), parse_method("color")], 3, board, world, Setup(), world.left)
    assert len(world.asked) == 5


def test_what_failed_is_not_tried_on_more_data_unless_its_index_may_need_it() -> None:
    class Failing(World):
        def __call__(self, method: Method, part: int) -> Tried:
            found = super().__call__(method, part)
            small = method.backend is not None and part < 2
            bad = found.method == "hog" or small
            return found.model_copy(update={"score": None, "failed": "cannot"}) if bad else found

    world, board = Failing(), TrialBoard([], 3, CostLimits())
    indexed = parse_method("sift on faiss:ivfpq")
    start = [parse_method("sift"), parse_method("hog"), indexed]
    search(start, 3, board, world, Setup(), lambda: 1.0 if len(world.asked) < 7 else 0.0)
    assert [part for name, part in world.asked if name == "hog"] == [0]
    assert [part for name, part in world.asked if name == str(indexed)] == [0, 1, 2]


def test_a_value_that_never_worked_is_not_tried_again_with_other_options() -> None:
    world, board = World(limit=300), TrialBoard([], 1, CostLimits())
    search([parse_method("sift")], 1, board, world, Setup(), world.left)
    grey = [name for name, _ in world.asked if "colour=grey" in name]
    assert grey == ["sift:colour=grey"]
    assert board.unfit == {("sift:", "colour", "grey")}
    beside = TrialBoard([tried("sift:words=64 on faiss:ivf", None, failed="too few")], 1, CostLimits())
    assert not beside.unfit, "the index needs more images, which is no fault of the words"


def test_what_would_be_best_were_it_cheaper_is_made_cheaper() -> None:
    class Dear(World):
        def __call__(self, method: Method, part: int) -> Tried:
            found = super().__call__(method, part)
            dear = "sift" in found.method and "reduce=32" not in found.method
            return found.model_copy(update={"part": 2, "whole": True, "bytes": 4000 if dear else 500})

    world, board = Dear(limit=60), TrialBoard([], 3, CostLimits(bytes=1000))
    search([parse_method("sift"), parse_method("phash")], 1, board, world, Setup(), world.left)
    assert "reduce=32" in board.whole[0].method
    assert "reduce=32" not in board.over[0].method


def test_limits_say_what_is_broken_and_what_is_unknown_breaks_none() -> None:
    limits = CostLimits(p95_ms=10, bytes=100, fit_s=1)
    assert limits.broken(tried("a", 0.5, p95_ms=12.0, bytes=99, fit_s=None)) == ["p95 12 ms, at most 10"]
    assert limits.broken(tried("a", 0.5)) == []


def test_the_best_group_is_what_no_test_tells_from_the_first() -> None:
    random = np.random.default_rng(0)
    labels = np.repeat(np.arange(30), 2)
    good = random.random(60) * 0.2 + 0.6
    near = good + random.normal(0, 0.05, 60) - 0.001
    far = good - 0.3
    rows = [
        tried(name, float(values.mean()), values=tuple(np.clip(values, 0, 1)))
        for name, values in (("good", good), ("near", near), ("far", far))
    ]
    assert [one.method for one in indistinguishable(rows, labels, "map@r", 0)] == ["good", "near"]


def test_trials_are_read_again_up_to_a_line_that_was_cut_off(tmp_path: Path) -> None:
    file = TuningFile(tmp_path, OF)
    file.add(tried("sift", 0.5))
    file.add(tried("color", None, failed="cannot"))
    whole = (tmp_path / FILE).read_bytes()
    (tmp_path / FILE).write_bytes(whole + b'{"method": "hal')
    again = TuningFile(tmp_path, OF.model_copy(update={"version": "2"}))
    assert again.tried == file.tried
    again.add(tried("hog", 0.1))
    assert [one.method for one in TuningFile(tmp_path, OF).tried] == ["sift", "color", "hog"]


@pytest.mark.parametrize("there", [b"", OF.model_dump_json().encode()[:20]])
def test_a_list_that_was_cut_off_in_its_first_line_is_begun_anew(tmp_path: Path, there: bytes) -> None:
    (tmp_path / FILE).write_bytes(there)
    TuningFile(tmp_path, OF).add(tried("sift", 0.5))
    assert [one.method for one in TuningFile(tmp_path, OF).tried] == ["sift"]


def test_trials_of_another_search_are_refused(tmp_path: Path) -> None:
    TuningFile(tmp_path, OF)
    with pytest.raises(BenchError, match="of another search, with another metric, seed; name another --out"):
        TuningFile(tmp_path, OF.model_copy(update={"metric": "accuracy", "seed": 1}))
    with pytest.raises(BenchError, match="of another search, with another start; name another --out"):
        TuningFile(tmp_path, OF.model_copy(update={"start": ("hog",)}))
    (tmp_path / FILE).write_text("nonsense\n", encoding="utf-8")
    with pytest.raises(BenchError, match="is no list of trials"):
        TuningFile(tmp_path, OF)


def test_a_file_that_does_not_say_what_it_began_with_goes_on(tmp_path: Path) -> None:
    older = OF.model_dump_json(exclude={"start"})
    (tmp_path / FILE).write_text(f"{older}\n{tried('sift', 0.5).model_dump_json()}\n", encoding="utf-8")
    assert [one.method for one in TuningFile(tmp_path, OF).tried] == ["sift"]


def test_a_trial_that_ended_the_process_is_not_begun_again(tmp_path: Path) -> None:
    blank = tried("sift", None)
    with pytest.raises(KeyboardInterrupt), TuningFile(tmp_path, OF).begun(blank):
        raise KeyboardInterrupt
    assert TuningFile(tmp_path, OF).tried == [], "who was interrupted goes on with it"
    died = TuningFile(tmp_path, OF).begun(blank)
    died.__enter__()  # and no end: the process is gone
    (ended,) = TuningFile(tmp_path, OF).tried
    assert (ended.method, ended.part, ended.score) == ("sift", 2, None)
    assert "the process ended while it was tried" in ended.failed
    assert TuningFile(tmp_path, OF).tried == [ended], "once"
    (tmp_path / BEGUN_FILE).write_text("{", encoding="utf-8")
    with pytest.raises(BenchError, match="is no trial that was begun; remove it"):
        TuningFile(tmp_path, OF)
