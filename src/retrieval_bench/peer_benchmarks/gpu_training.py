"""Training on a GPU: one epoch there and on the CPU, the same settings."""

from __future__ import annotations

from collections.abc import Iterator

from retrieval_bench.core import Setup
from retrieval_bench.datasets.splits import limit
from retrieval_bench.peer_benchmarks.gpu import Finding, Where
from retrieval_bench.registry import DATASETS
from retrieval_bench.system.progress import Progress
from retrieval_bench.system.timing import Stopwatch
from retrieval_bench.training.train import Task, run
from retrieval_bench.training_loop.settings import TrainingSettings

NETWORK = "resnet18"
NEAR = 0.05
"""Share by which the losses of the first epoch may differ: sums in another order, amplified by some steps."""


def train(where: Where, progress: Progress) -> Iterator[Finding]:
    """One epoch of a network from random weights on the training images of `products`, float32."""
    data = DATASETS["products"].build(None)
    if where.dry:
        data = limit(data, 40)
    settings = TrainingSettings(
        mode="scratch",
        epochs=1,
        holdout=0.0,
        precision="float32",
        image_size=64 if where.dry else 224,
        batch=16 if where.dry else 64,
    )
    losses, seconds = {}, {}
    for done, device in enumerate(("cpu", where.device)):
        progress(f"one epoch on {device}", done, 2)
        setup = Setup(weights="random", device=device, threads=where.threads)
        task = Task(NETWORK, data.train, data.label_names, "products", data.fingerprint, settings, setup)
        with Stopwatch() as watch:
            result = run(task, None)
        losses[done], seconds[done] = result.history[-1].loss, watch.seconds
        yield Finding(f"{NETWORK}, {len(data.train)} images, on {device}", seconds[done], "s")
    yield Finding("times as fast", seconds[0] / seconds[1])
    apart = abs(losses[1] - losses[0]) / abs(losses[0])
    yield Finding("losses apart", apart, "", f"at most {NEAR:g} of the loss", apart <= NEAR)
