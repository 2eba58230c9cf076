"""`tune`: a whole search on small pictures, which goes on where it was ended, and the queries asked once."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from retrieval_bench.images.reading import encode_png
from retrieval_bench.records.files import load
from retrieval_bench.records.tunings import FILE
from retrieval_bench.tuning import tune
from tests.support.command import call

pytestmark = pytest.mark.usefixtures("own_cache")


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    """Eight labels; train holds the labels of the queries, as in a shop that knows its products."""
    random = np.random.default_rng(0)
    for label, (part, count) in itertools.product(range(8), {"train": 4, "gallery": 2, "query": 1}.items()):
        colour = np.random.default_rng(label).integers(40, 215, 3)
        for number in range(count):
            folder = tmp_path / "shop" / part / f"product-{label}"
            folder.mkdir(parents=True, exist_ok=True)
            noise = random.integers(-30, 31, (32, 32, 3))
            (folder / f"{number}.png").write_bytes(encode_png(np.clip(colour + noise, 0, 255).astype(np.uint8)))
    return tmp_path / "shop"


def trials_of(monkeypatch: pytest.MonkeyPatch, n: int) -> None:
    """Time for so many trials, as a machine that is busy takes longer for each."""

    done: list[object] = []

    def counted(*given: object) -> object:
        done.append(given)
        return tried(*given)

    def clock(seconds: float, spent: float) -> Callable[[], float]:
        return lambda: float("inf") if len(done) < n else 0.0

    tried = tune._tried
    monkeypatch.setattr(tune, "clock", clock)
    monkeypatch.setattr(tune, "_tried", counted)


def words(shop: Path, out: Path, *more: object) -> tuple[object, ...]:
    return ("tune", "--dataset", "folder", "--data-root", shop, "--start", "hsv,phash", "--out", out, *more)


def test_what_was_chosen_is_asked_once_and_every_trial_is_kept(
    shop: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "tuned"
    trials_of(monkeypatch, 12)
    done = call(*words(shop, out))
    assert done.exit_code == 0, done.stderr
    lines = (out / FILE).read_text(encoding="utf-8").splitlines()
    tried = [json.loads(line) for line in lines[1:]]
    assert {"hsv", "phash"} <= {one["method"] for one in tried}
    record = load(out)
    assert record.status == "finished"
    assert "hsv" in record.settings.methods[0]
    assert len(record.settings.methods) <= 3
    assert "other pictures of the same labels ask" in done.stderr
    assert "map@r val" in done.stdout
    trials_of(monkeypatch, 4)
    again = call(*words(shop, out))
    assert again.exit_code == 0, again.stderr
    more = (out / FILE).read_text(encoding="utf-8").splitlines()
    assert more[: len(lines)] == lines
    assert len({(one["method"], one["part"]) for one in map(json.loads, more[1:])}) == len(more) - 1


def test_what_nothing_keeps_is_one_sentence_with_the_nearest(
    shop: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trials_of(monkeypatch, 6)
    done = call(*words(shop, tmp_path / "tuned", "--max-bytes", "1"))
    assert done.exit_code == 2
    assert "no method keeps the limits; the nearest is" in done.stderr


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        (("--budget", "soon"), "--budget 'soon': write a time such as 90s, 30m or 2h"),
        (("--prefer", "beauty"), "beauty"),
        (("--start", "hsv,oracle"), "--start hsv,oracle: oracle: controls show what chance"),
        (("--start", "hsv+random"), "hsv+random: controls show what chance"),
        (("--seed", "4294967296"), "Invalid value for '--seed'"),
        (("--val", "folder"), "are queries of folder"),
    ],
)
def test_mistakes_are_told_before_anything_is_tried(
    shop: Path, tmp_path: Path, more: tuple[str, ...], sentence: str
) -> None:
    done = call(*words(shop, tmp_path / "tuned", *more))
    assert done.exit_code == 2
    assert sentence in done.stderr
    assert not (tmp_path / "tuned" / FILE).exists()
