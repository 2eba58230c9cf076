"""Methods whose pictures are cleaned first: on every side, under every circumstance, and never in another's name."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from retrieval_bench.core import BenchError, Dataset, Extractor, Setup, Split
from retrieval_bench.experiment.features import described
from retrieval_bench.experiment.runner import run
from retrieval_bench.exporting.export import exportable
from retrieval_bench.extractors.cleaned import CleanedExtractor
from retrieval_bench.images.reading import ImageBytes, encode_png
from retrieval_bench.methods.parse import Method, parse_member, parse_method
from retrieval_bench.methods.pipeline import Pipeline
from retrieval_bench.registry import CLEANINGS, EXTRACTORS, Entry, Spec
from retrieval_bench.system.cache import FeatureCache
from tests.support.methods import Centred, MeanColor
from tests.support.runs import plan
from tests.support.shop import shop

NAMES = [entry.name for entry in CLEANINGS.fill().own()]


def framed(split: Split, width: int) -> Split:
    """The same pictures, each in a white frame."""
    pixels = (split.images[row] for row in range(len(split)))
    frame = ((width, width), (width, width), (0, 0))
    return replace(split, images=ImageBytes([encode_png(np.pad(one, frame, constant_values=255)) for one in pixels]))


def edged(split: Split) -> Split:
    """The same pictures with an outermost line of dots, so that they end where a frame begins."""
    encoded = []
    for row in range(len(split)):
        pixels = split.images[row] // 2
        dots = (np.arange(len(pixels)) % 2 * 100).astype(np.uint8)[:, None]
        pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1] = dots, dots, dots, dots
        encoded.append(encode_png(pixels))
    return replace(split, images=ImageBytes(encoded))


def catalogue() -> Dataset:
    """Gallery pictures are framed, train pictures more so, and query pictures are not."""
    data = shop(4, 3)
    splits = {name: edged(split) for name, split in data.splits.items()}
    return data.with_splits({**splits, "gallery": framed(splits["gallery"], 20), "train": framed(splits["train"], 30)})


def tidy() -> Dataset:
    data = shop(4, 3)
    return data.with_splits({name: edged(split) for name, split in data.splits.items()})


@pytest.mark.parametrize("method", ["phash", "hsv", "moments"])
def test_frames_that_are_trimmed_leave_the_features_of_pictures_without(method: str) -> None:
    """Of gallery, queries and train: `moments` and `color` learn."""
    found = []
    for data, name in ((tidy(), method), (catalogue(), f"{method}@trim"), (catalogue(), method)):
        wanted = {"gallery": data.gallery, "query": data.query}
        found.append(described(parse_method(name), plan(data, name, threads=1), data.train, wanted)[1])
    for split in ("gallery", "query"):
        np.testing.assert_array_equal(found[0][split], found[1][split])
    assert (found[0]["gallery"] != found[2]["gallery"]).any()


def test_cleanings_are_done_from_left_to_right() -> None:
    image = framed(edged(shop(2, 2).query), 10).images[0]
    for chain in ("trim@contrast", "contrast@trim"):
        of = parse_member(f"phash:size=16@{chain}").build(Setup())
        expected = image
        for one in chain.split("@"):
            expected = CLEANINGS[one].build()(expected)
        np.testing.assert_array_equal(of.clean(image), expected)
        plain = EXTRACTORS["phash"].build(Setup(), size=16)
        np.testing.assert_array_equal(of.transform([image]), plain.transform([expected]))


@pytest.mark.slow(reason="a whole run for each cleaning")
@pytest.mark.parametrize("name", NAMES)
def test_a_run_has_a_row_of_its_own_that_is_timed_and_perturbed(tmp_path: Path, name: str) -> None:
    methods = ("phash", f"phash@{name}")
    record = run(plan(catalogue(), *methods, k=(1,), perturb=("brightness",), severities=(5,)), tmp_path)
    assert [row.method for row in record.rows] == list(methods)
    for row in record.rows:
        assert row.status == "ok", row.error
        assert row.family == "hash"
        assert len(row.robustness) == 1
    assert record.rows[1].params["cleaning"][0].startswith(f"{name}")
    assert record.violations == ()


def test_perturbed_queries_are_cleaned_after_they_were_perturbed(tmp_path: Path) -> None:
    """A frame around them is trimmed again; without that nothing would be found."""
    seen: list[tuple[int, ...]] = []

    class Looking(MeanColor):
        def transform(self, images: Sequence[np.ndarray]) -> np.ndarray:
            seen.extend(image.shape for image in images)
            return super().transform(images)

    def build(setup: Setup) -> Extractor:
        return Looking()

    member = parse_member("phash@trim")
    spec = replace(member, entry=Entry("looking", build, "for tests", "test"), options={})
    record = run(
        plan(catalogue(), Method((spec,)), k=(1,), perturb=("flip",), severities=(1,)),  # type: ignore[arg-type]
        tmp_path,
    )
    assert record.rows[0].status == "ok", record.rows[0].error
    assert {shape[0] for shape in seen} == {48}


def test_features_of_other_cleanings_share_nothing_in_the_cache(tmp_path: Path) -> None:
    data = catalogue()
    ways = ["", "@trim", "@trim:least=0.3", "@trim@contrast", "@contrast@trim", "@denoise", "@denoise:strength=21"]
    made = {"described": 0}

    class Counting(Centred):
        def transform(self, images: Sequence[np.ndarray]) -> np.ndarray:
            made["described"] += len(images)
            return super().transform(images)

    def build(setup: Setup) -> Extractor:
        return Counting()

    entry = Entry("counting", build, "for tests", "test")

    def work(way: str) -> tuple[int, int]:
        before = made["described"], Counting.fits
        spec = replace(parse_member(f"phash{way}"), entry=entry, options={})
        asked = plan(data, "phash", threads=1, cache=FeatureCache(tmp_path))
        described(Method((spec,)), asked, data.train, {"gallery": data.gallery})
        return made["described"] - before[0], Counting.fits - before[1]

    assert [work(way) for way in ways] == [(12, 1)] * len(ways)
    assert [work(way) for way in ways] == [(0, 0)] * len(ways)


def test_all_but_the_pictures_is_that_of_the_extractor_within() -> None:
    of = parse_member("moments@trim").build(Setup())
    assert isinstance(of, Extractor)
    assert of.learned == ("scale_",)
    assert of.distance == "euclidean"
    assert of.wanted is None
    of.scale_ = np.ones(45)
    assert of.extractor.scale_.shape == (45,)
    assert hasattr(of, "scale_")
    assert not hasattr(of, "searcher")
    assert hasattr(parse_member("crop-resistant@trim").build(Setup()), "searcher")
    copied = copy.copy(of)
    assert isinstance(copied, CleanedExtractor)
    assert copied.extractor is of.extractor


def test_a_joined_method_cleans_its_members_alone() -> None:
    pipeline = Pipeline(parse_method("phash@trim+phash+rrf+verify=5"), Setup(), "exact")
    assert pipeline.name == "phash@trim+phash+rrf+verify=5"
    assert [isinstance(part.extractor, CleanedExtractor) for part in pipeline.parts] == [True, False, False]


def test_what_sees_no_picture_has_none_cleaned() -> None:
    with pytest.raises(BenchError, match=r"oracle@trim: oracle sees the labels and no picture"):
        Pipeline(parse_method("oracle@trim"), Setup(), "exact")


def test_no_file_is_exported_that_would_not_clean() -> None:
    with pytest.raises(BenchError, match=r"a file takes images as they are"):
        exportable(parse_method("phash@trim"))


def test_options_are_checked_before_anything_is_described() -> None:
    with pytest.raises(BenchError, match="tolerance=300"):
        Pipeline(parse_method("phash@trim:tolerance=300"), Setup(), "exact")


def test_a_name_that_is_written_is_the_name_that_is_built() -> None:
    spec = parse_member("phash@trim@contrast:clip=3")
    assert isinstance(spec, Spec)
    assert parse_member(str(spec)) == spec
