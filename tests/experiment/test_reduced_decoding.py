"""Large photos decoded small: only where no method of a run would see the pixels, and never unsaid."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from retrieval_bench.compare.diff import diff
from retrieval_bench.core import Dataset, NotComparable, Setup, Split
from retrieval_bench.experiment.prepare import prepare
from retrieval_bench.experiment.reduced_decoding import reduced
from retrieval_bench.experiment.repeat import plan_of
from retrieval_bench.experiment.runner import run
from retrieval_bench.images.decoding import Decoding, decode
from retrieval_bench.images.reading import ImageBytes
from retrieval_bench.methods.parse import parse_method
from retrieval_bench.methods.pipeline import Pipeline
from retrieval_bench.records.files import load
from tests.support.runs import plan
from tests.support.shop import picture, shop


def photo(pixels: np.ndarray, side: int = 400) -> bytes:
    """The picture, enlarged, as JPEG."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).resize((side, side), Image.Resampling.BICUBIC).save(buffer, "JPEG", quality=92)
    return buffer.getvalue()


def photos(side: int = 400) -> Dataset:
    data = shop(3, 2)

    def large(split: Split) -> Split:
        return replace(split, images=ImageBytes([photo(split.images[row], side) for row in range(len(split))]))

    return data.with_splits({name: large(split) for name, split in data.splits.items()})


@pytest.mark.parametrize(
    ("methods", "side"),
    [
        (["phash"], 32),
        (["phash:size=16"], 64),
        (["dhash", "ahash"], 9),
        (["lbp", "color"], 256),
        (["sift:side=200+color"], 200),
        (["hog:encode=global:side=64"], 64),
        (["convnet"], 80),
        (["phash+verify=5"], 320),
        (["hsv"], 1024),
        (["lab", "moments:levels=3"], 1024),
    ],
)
def test_the_side_is_that_of_the_method_that_wants_most(methods: list[str], side: int) -> None:
    asked, notices = reduced(plan(shop(2, 2), *methods, decode="reduced"))
    assert asked.decoding == Decoding(wanted=side)
    assert f"{4 * side:,} pixels" in notices[0]


@pytest.mark.parametrize("method", ["whash", "colorhash", "block-mean", "crop-resistant"])
def test_what_looks_at_every_pixel_has_photos_decoded_whole_and_is_named(method: str) -> None:
    for methods in ([method], ["phash", f"color+{method}+rrf"]):
        asked, notices = reduced(plan(shop(2, 2), *methods, decode="reduced"))
        assert asked.decoding == Decoding()
        assert notices == (f"--decode reduced: images are decoded whole, since {method} looks at every pixel",)


def test_where_no_method_looks_at_pixels_nothing_is_decoded_otherwise() -> None:
    asked, notices = reduced(plan(shop(2, 2), "random", "oracle", decode="reduced"))
    assert asked.decoding == Decoding()
    assert notices == ("--decode reduced: no method of this run looks at pixels",)


def test_perturbed_queries_have_photos_decoded_whole() -> None:
    asked, notices = reduced(plan(shop(2, 2), "phash", decode="reduced", perturb=("blur",)))
    assert asked.decoding == Decoding()
    assert "--perturb" in notices[0]


def test_a_method_that_cannot_be_built_forbids_nothing() -> None:
    asked, _ = reduced(plan(shop(2, 2), "whash:size=3", "dhash", decode="reduced"))
    assert asked.decoding.wanted == 9


def test_nothing_happens_that_was_not_asked_for() -> None:
    asked = plan(shop(2, 2), "phash")
    assert reduced(asked) == (asked, ())


@pytest.mark.parametrize(("size", "scale"), [(127, 1), (128, 2), (255, 2), (256, 4), (511, 4), (512, 8), (2000, 8)])
def test_at_least_twice_what_is_wanted_is_left(size: int, scale: int) -> None:
    data = photo(picture(1, 1), size)
    small = decode(data, Decoding(wanted=32))
    assert small.shape[0] == -(-size // scale)
    assert small.shape[0] >= 64


@pytest.mark.parametrize("method", ["phash", "dhash", "ahash", "lbp:side=64", "hog:encode=global:side=64"])
def test_a_photo_decoded_small_is_described_nearly_as_whole(method: str) -> None:
    train = photos().train
    part = Pipeline(parse_method(method), Setup(), "exact").members[0].extractor.fit(train)
    data = train.images.read(0)
    whole, small, other = part.transform(
        [decode(data), decode(data, Decoding(wanted=part.wanted)), decode(train.images.read(5))]  # type: ignore[attr-defined]
    )

    def distance(one: np.ndarray, two: np.ndarray) -> float:
        if part.distance == "hamming":
            return float(np.unpackbits(one ^ two).mean())
        return 1 - float(one @ two)

    assert distance(whole, small) < 0.05
    assert distance(whole, small) < distance(whole, other) / 4


@pytest.mark.slow(reason="several runs")
def test_a_run_says_it_and_is_repeated_and_compared_with_its_like_alone(tmp_path: Path) -> None:
    data = photos()
    record = run(plan(data, "phash", decode="reduced", k=(1,)), tmp_path / "small")
    assert record.rows[0].status == "ok"
    assert record.settings.decoded_for == 32
    assert any("--decode reduced" in notice for notice in record.dataset.notices)
    assert load(tmp_path / "small").settings.decoded_for == 32
    whole = run(plan(data, "phash", k=(1,)), tmp_path / "whole")
    assert '"decoded_for"' not in (tmp_path / "whole" / "run.json").read_text(encoding="utf-8")
    assert whole.dataset.fingerprint == record.dataset.fingerprint
    for pair in ((record, whole), (whole, record)):
        with pytest.raises(NotComparable, match="the side for which large photos were decoded"):
            diff(*pair)
    known = record.model_copy(update={"dataset": record.dataset.model_copy(update={"spec": "products"})})
    assert plan_of(known).decoding == Decoding(wanted=32)
    trial = prepare(replace(plan(data, "phash"), decoding=plan_of(known).decoding))
    assert trial.dataset.query.images[0].shape == (100, 100, 3)
    assert trial.decoder.endswith("/wanted-32")
