"""A method whose features hang on what lies beside an image breaks a rule; one that writes into an image fails."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from retrieval_bench.experiment.runner import run
from tests.support.methods import MeanColor, spec
from tests.support.runs import plan
from tests.support.shop import shop


class AgainstTheBatch(MeanColor):
    """Normalised by the batch, as a network whose batch norm was left in training mode."""

    chunk = 6

    def transform(self, images: Sequence[np.ndarray]) -> np.ndarray:
        means = super().transform(images)
        return means - 0.1 * means.mean(axis=0)


class ByItsPlace(MeanColor):
    """What belongs to an image depends on where it stands."""

    def transform(self, images: Sequence[np.ndarray]) -> np.ndarray:
        means = super().transform(images)
        return means + np.arange(len(means), dtype=np.float32)[:, None]


class Rounding(MeanColor):
    """Its last bits hang on the batch, as sums of a library that adds up in another order."""

    def transform(self, images: Sequence[np.ndarray]) -> np.ndarray:
        return super().transform(images) * np.float32(1 + 1e-7 * len(images))


class Writing(MeanColor):
    """Darkens what it was given."""

    def transform(self, images: Sequence[np.ndarray]) -> np.ndarray:
        for image in images:
            image[:] //= 2
        return super().transform(images)


class Remote(AgainstTheBatch):
    """On another machine; nobody pays twice."""

    elsewhere = True


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        (AgainstTheBatch, "an image alone gets other features than among all, by up to"),
        (ByItsPlace, "an image "),
    ],
)
def test_features_that_hang_on_the_batch_break_a_rule(kind: type, said: str, tmp_path: Path) -> None:
    record = run(plan(shop(3, 4), spec("toy", kind)), tmp_path)
    assert record.status == "failed"
    (sentence,) = record.violations
    assert sentence.startswith(f"toy: {said}")
    assert record.rows[0].status == "ok", "its numbers are kept, under the rule that it breaks"


@pytest.mark.slow(reason="a run each")
@pytest.mark.parametrize("kind", [MeanColor, Rounding, Remote])
def test_others_keep_it(kind: type, tmp_path: Path) -> None:
    record = run(plan(shop(3, 4), spec("toy", kind)), tmp_path)
    assert record.violations == ()
    assert "inconsistent" not in (tmp_path / "run.json").read_text(encoding="utf-8")


@pytest.mark.slow(reason="a run of two methods")
def test_an_image_cannot_be_written_into(tmp_path: Path) -> None:
    record = run(plan(shop(3, 4), spec("toy", Writing), spec("mean", MeanColor)), tmp_path)
    failed, fine = record.rows
    assert failed.error is not None
    assert "read-only" in failed.error.sentence
    assert fine.status == "ok"
