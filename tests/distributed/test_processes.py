"""Several processes of this machine describe what one does, to the last bit; one that is killed ends no run."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from retrieval_bench.core import BadImage, BenchError, Extractor, Images, Setup, Split
from retrieval_bench.distributed.engine import open_engine
from retrieval_bench.distributed.processes import SIZE, ProcessesEngine
from retrieval_bench.experiment.describer import MethodDescriber
from retrieval_bench.experiment.extraction import Extracted, extract
from retrieval_bench.experiment.runner import run
from retrieval_bench.images.decoded_cache import DecodedOnce, PixelStore
from retrieval_bench.images.reading import DecodedBy, Decoding, ImageBytes, encode_png
from retrieval_bench.registry import EXTRACTORS, parse
from retrieval_bench.system.cache import FeatureCache
from retrieval_bench.system.timing import pinned
from tests.support.pictures import photo_of
from tests.support.runs import plan
from tests.support.shop import shop

pytestmark = pytest.mark.slow(reason="starts processes, and each loads the libraries")

METHOD = "lbp"


@pytest.fixture(scope="module")
def engine() -> Iterator[ProcessesEngine]:
    with closing(open_engine("processes?workers=2")) as opened:
        assert isinstance(opened, ProcessesEngine)
        yield opened


class DeadlyDescriber(MethodDescriber):
    """What memory that runs out does to a process: here at the last images, which are fewer."""

    def describe(self, extractor: Extractor, images: Images, learned: Any, threads: int) -> np.ndarray:
        if len(images) < SIZE:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().describe(extractor, images, learned, threads)


def split_of(encoded: list[bytes]) -> Split:
    images = DecodedOnce(DecodedBy(ImageBytes(encoded), Decoding()), PixelStore())
    return Split(tuple(map(str, range(len(encoded)))), np.zeros(len(encoded), np.int64), images)


def fitted(split: Split, method: str = METHOD) -> Any:
    EXTRACTORS.fill()
    extractor = parse(EXTRACTORS, method).build(Setup())
    extractor.fit(split)
    return extractor


def extracted(extractor: Extractor, split: Split, chunks: Any, cache: Path | None = None) -> Extracted:
    how: Any = {"threads": 1, "cache": FeatureCache(cache), "key": "ab" * 32, "progress": lambda done, total: None}
    with pinned(1):
        return extract(extractor, split, chunks=chunks, **how)


def described(extractor: Extractor, split: Split, chunks: Any) -> np.ndarray:
    return extracted(extractor, split, chunks).features


def test_what_they_describe_is_what_one_process_does(engine: ProcessesEngine) -> None:
    split = split_of([encode_png(np.asarray(photo_of(40, 30, seed))) for seed in range(2 * SIZE + 1)])
    extractor, describer = fitted(split, "color"), MethodDescriber("color", Setup())
    assert extractor.learned
    features = described(extractor, split, engine.chunks(describer, "", None))
    assert features.tobytes() == described(extractor, split, None).tobytes()


def test_an_image_that_cannot_be_used_is_told_as_here(engine: ProcessesEngine) -> None:
    good = encode_png(np.asarray(photo_of(40, 30, 1)))
    extractor = fitted(split_of([good, encode_png(np.asarray(photo_of(40, 30, 2)))]))
    with pytest.raises(BadImage, match="truncated"):
        described(extractor, split_of([good, good[:200]]), engine.chunks(MethodDescriber(METHOD, Setup()), "", None))


def test_one_that_is_killed_ends_the_method_and_the_next_gets_others(tmp_path: Path) -> None:
    split = split_of([encode_png(np.asarray(photo_of(40, 30, seed))) for seed in range(2 * SIZE + 1)])
    extractor = fitted(split)
    with closing(ProcessesEngine("processes?workers=1")) as engine:
        deadly = engine.chunks(DeadlyDescriber(METHOD, Setup()), "", None)
        with pytest.raises(BenchError, match=r"ended from outside.*than 1: --engine 'processes\?workers=N'.*is kept"):
            extracted(extractor, split, deadly, tmp_path)
        found = extracted(extractor, split, engine.chunks(MethodDescriber(METHOD, Setup()), "", None), tmp_path)
    assert found.from_cache >= SIZE
    assert found.features.tobytes() == described(extractor, split, None).tobytes()


def test_a_run_gives_the_record_of_one_process(tmp_path: Path) -> None:
    here = run(plan(shop(), "color", "phash"), tmp_path / "here")
    there = run(plan(shop(), "color", "phash", engine="processes?workers=2"), tmp_path / "there")
    assert there.settings.engine == "processes?workers=2"
    assert [row.error for row in there.rows] == [None, None]
    assert [row.scores for row in there.rows] == [row.scores for row in here.rows]
    one, other = ((tmp_path / name / "rankings.npz").read_bytes() for name in ("here", "there"))
    assert one == other
