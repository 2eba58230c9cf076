"""A training that takes a second."""

from __future__ import annotations

from typing import Any

from retrieval_bench.core import Setup
from retrieval_bench.training.train import Task
from retrieval_bench.training_loop.settings import TrainingSettings
from tests.support.shop import shop

NETWORK = "shufflenet_v2_x0_5"


def task(network: str = NETWORK, **given: Any) -> Task:
    data = shop(3, 5)
    chosen = {"mode": "scratch", "epochs": 2, "batch": 6, "image_size": 32, "holdout": 0.2, **given}
    return Task(
        method=network,
        split=data.train,
        label_names=data.label_names,
        dataset="shop",
        fingerprint=data.fingerprint,
        settings=TrainingSettings(**chosen),
        setup=Setup(weights="random", threads=2),
    )
