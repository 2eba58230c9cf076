"""Each clause of the contract is broken by somebody, and seen; what keeps the contract passes."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from retrieval_bench.contracts.extractor import CLAUSES, Case, ClauseVerdict, _verdicts, check
from retrieval_bench.core import BenchError, Setup, Split
from tests.support.methods import Centred, MeanColor, spec
from tests.support.shop import shop


def verdicts(build: Any) -> dict[str, ClauseVerdict]:
    (member,) = spec("probe", build).members
    pictures = [np.full((side, 9, 3), 40 * side, np.uint8) for side in (1, 3, 6)]
    case = Case(member, Setup(), pictures, shop(3, 2).train, shop(4, 2).train)
    return {one.clause: one for one in _verdicts(case)}


def broken(build: Any) -> dict[str, str]:
    return {clause: one.detail for clause, one in verdicts(build).items() if one.verdict == "broken"}


class Honest(MeanColor):
    """Keeps the contract."""

    def transform(self, images: Sequence[np.ndarray]) -> np.ndarray:
        return np.array([image.mean(axis=(0, 1)) for image in images], np.float32).reshape(-1, 3)


class NoDistance(Honest):
    distance = "manhattan"  # type: ignore[assignment]


class NoSelf(Honest):
    def fit(self, train: Split) -> Any:
        return None


class Doubles(Honest):
    def transform(self, images: Sequence[np.ndarray]) -> np.ndarray:
        return super().transform(images).astype(np.float64)


class WidthOfThePicture(Honest):
    def transform(self, images: Sequence[np.ndarray]) -> np.ndarray:
        return np.zeros((len(images), len(images[0])), np.float32)


class NotANumber(Honest):
    def transform(self, images: Sequence[np.ndarray]) -> np.ndarray:
        return np.log(super().transform(images) * 0 - 1 + 0j).real.astype(np.float32) * np.float32(np.nan)


class OfTheBatch(Honest):
    def transform(self, images: Sequence[np.ndarray]) -> np.ndarray:
        found = super().transform(images)
        return found - found.mean(axis=0)


class Dice(Honest):
    _seeds = itertools.count()

    def __init__(self) -> None:
        self.by = np.float32(next(self._seeds))

    def transform(self, images: Sequence[np.ndarray]) -> np.ndarray:
        return super().transform(images) + self.by


class OneBuffer(Honest):
    """Every thread writes into the same array."""

    def __init__(self) -> None:
        self.busy = 0
        self.lock = threading.Lock()

    def transform(self, images: Sequence[np.ndarray]) -> np.ndarray:
        with self.lock:
            self.busy += 1
        time.sleep(0.01)
        found = super().transform(images) + np.float32(self.busy - 1)
        with self.lock:
            self.busy -= 1
        return found


class Scribbles(Honest):
    def transform(self, images: Sequence[np.ndarray]) -> np.ndarray:
        found = super().transform(images)
        for image in images:
            image[0, 0] = 7
        return found


class Remembers(Honest):
    """Every picture that it sees moves what comes after."""

    def __init__(self) -> None:
        self.seen: set[bytes] = set()

    def transform(self, images: Sequence[np.ndarray]) -> np.ndarray:
        self.seen |= {image.tobytes() for image in images}
        return super().transform(images) + np.float32(len(self.seen))


class LearnsInSecret(Centred):
    learned = ()


class KeepsMore(Centred):
    def fit(self, train: Split) -> Any:
        super().fit(train)
        self.more = np.float32(1)
        return self

    def transform(self, images: Sequence[np.ndarray]) -> np.ndarray:
        return super().transform(images) + self.more


class Crashes(Honest):
    def transform(self, images: Sequence[np.ndarray]) -> np.ndarray:
        raise ZeroDivisionError("at once")


class GivesAList(Honest):
    def transform(self, images: Sequence[np.ndarray]) -> Any:
        return list(super().transform(images))


class OfAFile(Honest):
    def describe_split(self, split: Split, what: str) -> np.ndarray:
        return np.zeros((len(split), 1), np.float32)


def refuses(setup: Setup) -> Any:
    raise BenchError("probe: needs a file")


def test_what_keeps_the_contract_passes() -> None:
    assert broken(Honest) == {}
    assert verdicts(Honest)["restorable"].verdict == "n/a"
    assert broken(Centred) == {}
    assert verdicts(Centred)["restorable"].verdict == "kept"


@pytest.mark.parametrize(
    ("build", "clause", "told"),
    [
        (NoDistance, "builds", "distance is 'manhattan'"),
        (refuses, "builds", "probe: needs a file"),
        (NoSelf, "fits", "does not return the extractor"),
        (Doubles, "shapes", "float64"),
        (WidthOfThePicture, "shapes", "3 numbers for a picture of 3x9, else 1"),
        (GivesAList, "shapes", "transform returns a list and no numpy array"),
        (NotANumber, "finite", "NaN or infinite for 3 of them, one of a picture of 1x9"),
        (OfTheBatch, "order-independent", "alone"),
        (Dice, "repeatable", "built and fitted again, 2 threads: 3 of 3 rows are others, by up to"),
        (OneBuffer, "thread-safe", "beside 3 other threads"),
        (Scribbles, "leaves its input alone", "3 of 3 pictures were changed"),
        (Remembers, "learns from train only", "after other pictures were described"),
        (LearnsInSecret, "learns from train only", "fitted on other images, though `learned` names nothing"),
        (KeepsMore, "restorable", "AttributeError: 'KeepsMore' object has no attribute 'more'"),
    ],
)
def test_each_clause_is_seen_when_it_is_broken(build: Any, clause: str, told: str) -> None:
    assert told in broken(build)[clause]


def test_a_crash_is_the_verdict_of_its_clause_and_no_more() -> None:
    found = verdicts(Crashes)
    assert list(found) == list(CLAUSES)
    assert found["fits"].verdict == "kept"
    assert found["shapes"].detail == "failed: ZeroDivisionError: at once"
    assert found["finite"].verdict == "broken"


def test_what_reads_a_file_breaks_nothing_by_describing_no_picture() -> None:
    assert broken(OfAFile) == {}
    assert verdicts(OfAFile)["shapes"].detail == "it reads a file and describes no picture"


def test_what_does_not_build_is_asked_nothing_more() -> None:
    found = verdicts(refuses)
    assert {one.verdict for clause, one in found.items() if clause != "builds"} == {"n/a"}
    assert found["finite"].detail == "not reached, as the clause 'builds' is broken"


def test_an_unknown_method_is_a_mistake_of_the_user() -> None:
    with pytest.raises(BenchError, match="did you mean 'phash'"):
        check("pash")


@pytest.mark.slow(reason="draws pictures and learns a vocabulary several times")
@pytest.mark.parametrize(
    "method",
    [
        "oracle",
        "phash",
        "color@trim",
        pytest.param("moments+sift:encode=vlad:words=8", marks=pytest.mark.long(reason="learns words many times")),
    ],
)
def test_methods_of_this_package_keep_it(method: str) -> None:
    found = check(method)
    assert [one for one in found if one.verdict == "broken"] == []
    assert len([one for one in found if one.part != method or "+" not in method]) == len(CLAUSES) * (
        1 + method.count("+")
    )
