"""What a GPU needs, on the CPU: batches in lanes, memory that runs out, flags, clocks.

Where CUDA itself would have to be there, a fake stands in for it; what only a GPU can show is skipped without one.
"""

from __future__ import annotations

import logging
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
import torch

from retrieval_bench.core import BenchError, Setup
from retrieval_bench.extractors.deep import fused_inference
from retrieval_bench.registry import EXTRACTORS
from retrieval_bench.system import device
from retrieval_bench.system.device import Feeder, Portion, check_device, gpu_settings, steady
from retrieval_bench.system.timing import EventStopwatch, Stopwatch, latencies, stopwatch, waiting
from tests.support.photos import photo, split_of
from tests.support.pictures import photo_of

ON_GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")


def inputs(n: int) -> list[torch.Tensor]:
    return [torch.full((3, 4, 5), float(number)) for number in range(n)]


def means(batch: torch.Tensor) -> torch.Tensor:
    return batch.mean(dim=(2, 3))


@pytest.mark.parametrize("lanes", [0, 1, 2])
@pytest.mark.parametrize("largest", [1, 3, 7, 100])
def test_batches_come_back_in_order(lanes: int, largest: int) -> None:
    feeder = Feeder("toy: images", "cpu", largest, lanes)
    for n in (1, 7, 8, 3):
        assert feeder(means, inputs(n))[:, 0].tolist() == list(range(n))


def test_no_more_threads_than_lanes_are_on_the_device_and_each_gets_its_own_rows() -> None:
    """A lane's memory is used again and again, by whoever comes next."""
    lock, now, most = threading.Lock(), 0, 0

    def describe(batch: torch.Tensor) -> torch.Tensor:
        nonlocal now, most
        with lock:
            now += 1
            most = max(most, now)
        time.sleep(0.002)
        with lock:
            now -= 1
        return means(batch)

    feeder = Feeder("toy: images", "cpu", 4, lanes=2)

    def work(number: int) -> bool:
        some = [torch.full((3, 4 + number % 3, 5), float(100 * number + row)) for row in range(6)]
        return feeder(describe, some)[:, 0].tolist() == [100 * number + row for row in range(6)]

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(work, range(40)))
    assert most == 2


@pytest.mark.parametrize("lanes", [0, 2])
def test_out_of_memory_halves_the_batch_and_says_so(lanes: int, caplog: pytest.LogCaptureFixture) -> None:
    sizes: list[int] = []

    def describe(batch: torch.Tensor) -> torch.Tensor:
        sizes.append(len(batch))
        if len(batch) > 5:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return means(batch)

    feeder = Feeder("toy: images", "cpu", 16, lanes)
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            assert feeder(describe, inputs(11))[:, 0].tolist() == list(range(11))
    assert sizes == [11, 8, 4, 4, 3, 4, 4, 3]
    assert [record.message for record in caplog.records] == [
        "toy: images: not enough device memory for 16 at once; continuing with 8",
        "toy: images: not enough device memory for 8 at once; continuing with 4",
    ]


def test_an_image_that_does_not_fit_alone_is_one_sentence() -> None:
    def describe(batch: torch.Tensor) -> torch.Tensor:
        raise torch.OutOfMemoryError("CUDA out of memory")

    with pytest.raises(
        BenchError, match=r"toy: images: the memory of the device cannot hold even 1 at once; free some"
    ):
        Feeder("toy: images", "cpu", 4, 2)(describe, inputs(4))


def test_other_errors_free_the_lane() -> None:
    def describe(batch: torch.Tensor) -> torch.Tensor:
        raise RuntimeError("broken")

    feeder = Feeder("toy: images", "cpu", 4, 1)
    for _ in range(3):
        with pytest.raises(RuntimeError, match="broken"):
            feeder(describe, inputs(2))
    assert len(feeder(means, inputs(2))) == 2


def test_threads_that_run_out_together_halve_once() -> None:
    portion = Portion("toy", 64)
    barrier = threading.Barrier(4)

    def work(size: int) -> int:
        if size == 64:
            barrier.wait(10)
            raise torch.OutOfMemoryError("CUDA out of memory")
        return size

    with ThreadPoolExecutor(4) as pool:
        assert [run.result() for run in [pool.submit(portion.attempt, work) for _ in range(4)]] == [32] * 4


def test_a_network_fed_in_lanes_gives_the_same_features(caplog: pytest.LogCaptureFixture) -> None:
    """The way that images take to a GPU, with the CPU in its place and memory for two at a time."""
    images = [np.asarray(photo_of(80 + 9 * seed, 100, seed)) for seed in range(5)]
    extractor: Any = EXTRACTORS["squeezenet1_0"].build(Setup(weights="random"))
    wanted = extractor.transform(images)
    inner = extractor.describe

    def describe(batch: torch.Tensor) -> torch.Tensor:
        if len(batch) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return inner(batch)

    extractor.describe = describe
    extractor.batch = 5
    extractor.feeder = Feeder("squeezenet1_0: images", "cpu", 5, device.LANES)
    np.testing.assert_allclose(extractor.transform(images), wanted, rtol=1e-4, atol=1e-6)
    assert "squeezenet1_0: images: not enough device memory for 5 at once; continuing with 2" in caplog.text


def test_a_device_that_is_not_there_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert check_device("cpu") == "cpu"
    for name in ("cuda", "cuda:1"):
        with pytest.raises(BenchError, match=f"--device {name}: torch sees no CUDA device here; use --device cpu or"):
            check_device(name)


def test_flags_are_set_for_a_gpu_alone_and_read_back() -> None:
    """Setting and reading them needs no GPU."""
    cudnn, matmul = torch.backends.cudnn, torch.backends.cuda.matmul
    before = cudnn.allow_tf32, cudnn.benchmark, cudnn.deterministic, matmul.allow_tf32
    try:
        cudnn.allow_tf32 = cudnn.benchmark = True
        steady("cpu")
        assert cudnn.allow_tf32
        assert gpu_settings("cpu") == {}
        steady("cuda")
        found = gpu_settings("cuda")
    finally:
        cudnn.allow_tf32, cudnn.benchmark, cudnn.deterministic, matmul.allow_tf32 = before
    assert found["tf32 in convolutions"] == found["tf32 in matmul"] == found["cudnn benchmark"] == "False"
    assert (found["cudnn deterministic"], found["float32 matmul precision"]) == ("True", "highest")


def test_the_clock_of_the_cpu_is_the_plain_one() -> None:
    with stopwatch() as watch:
        time.sleep(0.01)
    assert type(watch) is Stopwatch
    assert 0.009 < watch.seconds < 1
    waiting("cpu")()


def test_a_gpus_clock_waits_before_and_after(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []

    class Event:
        def __init__(self, enable_timing: bool) -> None:
            assert enable_timing
            self.number = sum(word.startswith("event") for word in said)
            said.append(f"event {self.number}")

        def record(self) -> None:
            said.append(f"record {self.number}")

        def synchronize(self) -> None:
            said.append(f"wait {self.number}")

        def elapsed_time(self, other: Event) -> float:
            assert (self.number, other.number) == (0, 1)
            return 12.5

    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda name: said.append(f"all of {name}"))
    with stopwatch("cuda") as watch:
        said.append("work")
    assert type(watch) is EventStopwatch
    assert watch.seconds == 0.0125
    assert said == ["all of cuda", "event 0", "event 1", "record 0", "work", "record 1", "wait 1"]
    waiting("cuda:1")()
    assert said[-1] == "all of cuda:1"


def test_latencies_wait_before_each_look_at_the_clock() -> None:
    """Work that goes on elsewhere belongs to the phase that began it."""
    pending: list[float] = []

    def wait() -> None:
        while pending:
            time.sleep(pending.pop())

    phases = (("start", lambda item: pending.append(0.01)), ("after", lambda nothing: None))
    times = latencies(phases, 3, warm_up=0, wait=wait)
    assert times["start_p50"].value is not None
    assert times["after_p50"].value is not None
    assert times["start_p50"].value > 9 > times["after_p50"].value


def test_autocast_leaves_the_weights_and_computes_in_bfloat16() -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = torch.nn.Linear(40, 30).eval().requires_grad_(False)
        batch = torch.rand(5, 40)
    fast = fused_inference.Fast(network, torch.bfloat16, "bfloat16 by autocast", "cpu")
    found = fast(batch)
    assert (found.dtype, network.weight.dtype) == (torch.bfloat16, torch.float32)
    np.testing.assert_allclose(found.float(), network(batch), atol=0.02)


@pytest.mark.parametrize(("slow", "said"), [("plain", "compiled"), ("compiled", "not compiled: no quicker")])
def test_the_quicker_of_plain_and_compiled_is_kept(slow: str, said: str) -> None:
    seen: list[int] = []

    def way(name: str) -> Any:
        def run(batch: torch.Tensor) -> torch.Tensor:
            if name == "compiled":
                seen.append(len(batch))
            time.sleep(0.01 if name == slow else 0.001)
            return batch

        return run

    plain, compiled = way("plain"), way("compiled")
    run, note = fused_inference.quicker(plain, lambda: compiled, [torch.zeros(4, 1), torch.zeros(1, 1)], "cpu")
    assert (run is compiled, note) == (slow == "plain", said)
    assert seen[:2] == [4, 1]


def test_a_network_that_does_not_compile_runs_as_it_is() -> None:
    def compiling() -> Any:
        raise NotImplementedError("no such operation")

    run, note = fused_inference.quicker(means, compiling, inputs(1), "cpu")
    assert (run, note) == (means, "not compiled: NotImplementedError")


@ON_GPU
@pytest.mark.parametrize("compute", ["float32", "fused", "bfloat16", "auto"])
def test_features_of_a_gpu_are_near_those_of_the_cpu(compute: str) -> None:
    images = [photo(80 + 9 * seed, 100, seed) for seed in range(20)]
    build = EXTRACTORS["resnet18"].build
    wanted = build(Setup(weights="random")).transform(images)
    extractor: Any = build(Setup(weights="random", device="cuda"), compute=compute).fit(split_of(images))
    with ThreadPoolExecutor(4) as pool:
        parts = list(pool.map(lambda start: extractor.transform(images[start : start + 5]), range(0, 20, 5)))
    similarity = (np.concatenate(parts) * wanted).sum(axis=1)
    assert similarity.min() > (0.9999 if compute in ("float32", "fused") else 0.99)


@ON_GPU
def test_a_gpus_clock_sees_what_python_does_not() -> None:
    matrix = torch.rand(8192, 8192, device="cuda")
    with stopwatch("cuda") as watch:
        _ = matrix @ matrix
    assert watch.seconds > 1e-4
