"""Where networks and the `torch` backend run: the CPU, or a CUDA device and what that needs besides.

What is CUDA's own is kept small and in this file; everything else about it runs on the CPU too and is tested there.
"""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache
from typing import Any, TypeVar

from retrieval_bench.core import BenchError

log = logging.getLogger("retrieval_bench")

LANES = 2
"""Batches under way on a GPU: while the network works on one, the next is copied. More would only take memory."""

T = TypeVar("T")


def on_gpu(device: str) -> bool:
    """device: "cpu", "cuda" or "cuda:1". Loads nothing."""
    return device != "cpu"


def gpu_is_there() -> bool:
    import torch

    return bool(torch.cuda.is_available())


def check_device(device: str) -> str:
    """The device itself; raises BenchError for one that this machine has not."""
    if on_gpu(device) and not gpu_is_there():
        raise BenchError(f"--device {device}: torch sees no CUDA device here; use --device cpu or auto")
    return device


def gpus(device: str) -> list[str]:
    """All GPUs that "cuda" stands for, "cuda:0" and so on; none on the CPU, and one that is named stays alone."""
    if device != "cuda":
        return [device] if on_gpu(device) else []
    import torch

    return [f"cuda:{number}" for number in range(torch.cuda.device_count())]


def steady(device: str) -> None:
    """Full float32 and repeatable algorithms, for the life of this process; nothing on the CPU.

    Left alone, convolutions round their factors to the 10 bits of TF32, and cuDNN may take another algorithm each time.
    """
    if not on_gpu(device):
        return
    import torch

    torch.set_float32_matmul_precision("highest")
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.deterministic = True


def gpu_settings(device: str) -> dict[str, str]:
    """What of a GPU's settings can change a number or a time, read back for the record; empty on the CPU."""
    if not on_gpu(device):
        return {}
    import torch

    return {
        "cuda": str(torch.version.cuda),
        "cudnn": str(torch.backends.cudnn.version()),
        "devices": str(torch.cuda.device_count()),
        "tf32 in matmul": str(torch.backends.cuda.matmul.allow_tf32),
        "tf32 in convolutions": str(torch.backends.cudnn.allow_tf32),
        "float32 matmul precision": torch.get_float32_matmul_precision(),
        "cudnn benchmark": str(torch.backends.cudnn.benchmark),
        "cudnn deterministic": str(torch.backends.cudnn.deterministic),
    }


@contextmanager
def full_float32() -> Iterator[None]:
    """Matrix products of float32 use all of float32, on whichever device; restored after."""
    import torch

    before = torch.get_float32_matmul_precision()
    if before == "highest":
        yield
        return
    torch.set_float32_matmul_precision("highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def free_bytes(device: str, otherwise: int) -> int:
    """Memory of a GPU that nobody has taken; `otherwise` on the CPU."""
    if not on_gpu(device):
        return otherwise
    import torch

    free, _ = torch.cuda.mem_get_info(torch.device(device))
    return int(free)


def out_of_memory() -> type[Exception]:
    """What torch raises when a device's memory is used up."""
    import torch

    return getattr(torch, "OutOfMemoryError", None) or torch.cuda.OutOfMemoryError  # type: ignore[no-any-return]


class Portion:
    """How much a device is given at once: halved where its memory runs out, which is said in the log, and kept so.

    what: e.g. "resnet50: images", for the log. least: below which there is no point in going on.
    """

    def __init__(self, what: str, size: int, least: int = 1) -> None:
        self.what, self.size, self.least = what, size, least
        self._lock = threading.Lock()

    def attempt(self, work: Callable[[int], T]) -> T:
        """work(size), again with half the size until it fits. Raises BenchError where not even `least` does."""
        while True:
            size = self.size
            try:
                return work(size)
            except out_of_memory():
                pass  # the error holds the tensors of all its frames: only behind this block are they free
            self._halve(size)

    def _halve(self, size: int) -> None:
        import torch

        with self._lock:
            if self.size < size:
                return  # another thread ran into the same wall and has halved it
            if size <= self.least:
                raise BenchError(
                    f"{self.what}: the memory of the device cannot hold even {size} at once; "
                    "free some of it, or use --device cpu"
                )
            self.size = max(self.least, size // 2)
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        log.warning("%s: not enough device memory for %d at once; continuing with %d", self.what, size, self.size)


class Feeder:
    """Gives a device what a network is to look at, in batches, and brings back what the network makes of them.

    Called by many threads, each of which has decoded and preprocessed its images. lanes: how many of them may use the
    device at the same time, so that the copy of one batch overlaps with the computing of another; 0: all who come.
    """

    def __init__(self, what: str, device: str, largest: int, lanes: int = 0) -> None:
        self.device = device
        self.portion = Portion(what, largest)
        self._free: queue.SimpleQueue[_Lane] | None = None
        if lanes:
            self._free = queue.SimpleQueue()
            for _ in range(lanes):
                self._free.put(_Lane(device))

    def __call__(self, describe: Callable[[Any], Any], inputs: Sequence[Any]) -> Any:
        """inputs: n tensors (c, h, w) of one shape, on the CPU -> what describe makes of (n, c, h, w), on the CPU."""
        import torch

        done: list[Any] = []
        start = 0
        while start < len(inputs):

            def work(size: int, start: int = start) -> tuple[int, Any]:
                some = inputs[start : start + size]
                return len(some), self._through(describe, some)

            count, found = self.portion.attempt(work)
            done.append(found)
            start += count
        return done[0] if len(done) == 1 else torch.cat(done)

    def _through(self, describe: Callable[[Any], Any], inputs: Sequence[Any]) -> Any:
        import torch

        if self._free is None:
            batch = torch.stack([one.permute(1, 2, 0) for one in inputs]).permute(0, 3, 1, 2)  # channels last
            return describe(batch.to(self.device)).cpu()
        lane = self._free.get()
        try:
            return lane(describe, inputs)
        finally:
            self._free.put(lane)


@cache
def _launcher(device: str) -> ThreadPoolExecutor:
    """The one thread that starts work on this GPU, as long as this process lives.

    It only starts it and does not wait. torch keeps cuDNN's plans for a network by thread: with one thread for each
    batch all layers were planned anew for each, and 128 images took two seconds in place of a hundredth.
    """
    return ThreadPoolExecutor(1, thread_name_prefix=f"launcher-{device}")


class _Lane:
    """One way to the device and back: on CUDA a stream of its own and host memory that the device can read by itself.

    Copy and network follow each other on the stream; the host waits for this stream alone.
    """

    def __init__(self, device: str) -> None:
        self.device = device
        self._stream: Any = None
        self._memory: Any = None
        if on_gpu(device):
            import torch

            torch.cuda.synchronize(device)  # the network's weights went there on another stream
            self._stream = torch.cuda.Stream(device)

    def __call__(self, describe: Callable[[Any], Any], inputs: Sequence[Any]) -> Any:
        batch = self._staged(inputs)
        if self._stream is None:
            return describe(batch).cpu()
        try:
            return _launcher(self.device).submit(self._started, describe, batch).result()
        finally:
            self._stream.synchronize()  # also after an error: the next batch overwrites the staged one

    def _started(self, describe: Callable[[Any], Any], batch: Any) -> Any:
        """Where the result will be once the stream has come to its end."""
        import torch

        with torch.inference_mode(), torch.cuda.stream(self._stream):  # both are of a thread, and this is another one
            there = describe(batch.to(self.device, non_blocking=True))
            here = torch.empty(there.shape, dtype=there.dtype, pin_memory=True)
            return here.copy_(there, non_blocking=True)

    def _staged(self, inputs: Sequence[Any]) -> Any:
        """The inputs as one tensor (n, c, h, w), its channels last, in memory that is kept from batch to batch; pinned
        for CUDA."""
        import torch

        rows = [one.permute(1, 2, 0) for one in inputs]
        shape = (len(rows), *rows[0].shape)
        needed = inputs[0].numel() * len(inputs)
        if self._memory is None or self._memory.numel() < needed:
            self._memory = None  # the old one first: there may not be room for both
            self._memory = torch.empty(needed, dtype=inputs[0].dtype, pin_memory=self._stream is not None)
        return torch.stack(rows, out=self._memory[:needed].view(shape)).permute(0, 3, 1, 2)
