"""Several processes describe what one would, to the bit, on the CPU in place of several GPUs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import retrieval_bench.extractors  # noqa: F401 - registers the networks
from retrieval_bench.core import Dataset, Setup, Split
from retrieval_bench.experiment import features, multi_gpu
from retrieval_bench.experiment.extraction import extract
from retrieval_bench.experiment.multi_gpu import Team
from retrieval_bench.experiment.runner import run
from retrieval_bench.images.decoded_cache import DecodedOnce, PixelStore
from retrieval_bench.images.reading import ImageBytes, encode_png
from retrieval_bench.registry import EXTRACTORS, parse
from retrieval_bench.system.cache import FeatureCache
from retrieval_bench.system.device import gpus
from retrieval_bench.system.timing import pinned
from tests.support.pictures import photo_of
from tests.support.runs import plan
from tests.support.shop import shop

PROCESSES = pytest.mark.long(reason="starts two processes, and each loads torch")


@PROCESSES
def test_two_processes_give_the_bits_of_one(monkeypatch: pytest.MonkeyPatch) -> None:
    encoded = [encode_png(np.asarray(photo_of(60 + seed, 70, seed))) for seed in range(7)]
    images = DecodedOnce(ImageBytes([*encoded, encoded[2]]), PixelStore())
    split = Split(tuple(map(str, range(8))), np.zeros(8, np.int64), images)
    method = "squeezenet1_0:pool=avg:size=64:whiten=3"
    extractor: Any = parse(EXTRACTORS, method).build(Setup(weights="random", threads=2))
    counted: list[int] = []

    def described(chunks: Any) -> np.ndarray:
        def watched(*arguments: Any) -> Any:
            for rows, vectors in chunks(*arguments):
                counted.append(len(rows))
                yield rows, vectors

        return extract(
            extractor,
            split,
            threads=2,
            cache=FeatureCache(None),
            key="",
            progress=lambda done, total: None,
            chunks=watched,
        ).features

    with pinned(1):
        extractor.fit(split)
        wanted = described(multi_gpu.in_chunks)
        alone = described(Team(method, Setup(weights="random"), ["cpu", "cpu"]))  # too few to start processes for
        monkeypatch.setattr(multi_gpu, "LEAST", 1)
        counted.clear()
        found = described(Team(method, Setup(weights="random"), ["cpu", "cpu"]))
    assert counted == [4, 3] or counted == [3, 4]
    np.testing.assert_array_equal(alone, wanted)
    np.testing.assert_array_equal(found, wanted)


def test_which_gpus_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    assert gpus("cpu") == []
    assert gpus("cuda") == ["cuda:0", "cuda:1", "cuda:2"]
    assert gpus("cuda:1") == ["cuda:1"]


@pytest.mark.long(reason="a run that starts two processes, each of which loads torch")
def test_a_run_shares_networks_out_among_gpus(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Only networks, and with the same result as without."""
    data = shop(3, 2)  # asked of itself, so that one split is extracted and processes are started once
    both = Dataset("loo", data.train, data.gallery, data.gallery, data.label_names, data.category_names, True)
    asked = plan(both, "squeezenet1_0:size=64", "ahash", weights="random", threads=1)
    alone = run(asked, tmp_path / "alone")
    built: list[str] = []

    def watched(method: str, setup: Setup, devices: list[str]) -> Team:
        built.append(method)
        return Team(method, setup, devices)

    monkeypatch.setattr(features, "gpus", lambda device: ["cpu", "cpu"])
    monkeypatch.setattr(features, "Team", watched)
    monkeypatch.setattr(multi_gpu, "LEAST", 1)
    shared = run(asked, tmp_path / "shared")
    assert set(built) == {"squeezenet1_0:size=64"}
    assert [row.error for row in shared.rows] == [None, None]
    assert [row.scores for row in shared.rows] == [row.scores for row in alone.rows]


@pytest.mark.slow(reason="a process of its own")
def test_a_worker_knows_cleanings_too() -> None:
    code = (
        "import queue; from retrieval_bench.core import Setup; from retrieval_bench.experiment import multi_gpu as m\n"
        "devices = queue.Queue(); devices.put('cpu'); m._begin('phash@trim', Setup(), devices)\n"
        "print(type(m._mine['extractor']).__name__)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "CleanedExtractor"
