"""Optimisers, and learning rates as a function of the step alone, so that a resumed run goes on where it was."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from retrieval_bench.training_loop.settings import TrainingSettings

WARM_UP = 0.2
"""Share of the steps over which "onecycle" rises (Smith & Topin 2018); "cosine" and "step" rise over a tenth of it."""


def rate(settings: TrainingSettings, step: int, steps: int) -> float:
    """The learning rate of step 0 .. steps - 1."""
    done = (step + 0.5) / steps
    rise = WARM_UP if settings.schedule == "onecycle" else WARM_UP / 10
    if settings.schedule != "constant" and done < rise:
        return settings.peak * done / rise
    if settings.schedule == "step":
        return settings.peak * 0.1 ** sum(done >= mark for mark in (0.5, 0.75, 0.9))
    if settings.schedule == "constant":
        return settings.peak
    return settings.peak * 0.5 * (1 + math.cos(math.pi * (done - rise) / (1 - rise)))


def optimizer(settings: TrainingSettings, parameters: Iterable[Any]) -> Any:
    """Over tensors that learn. What has one axis (biases, norms) is not decayed (He et al., CVPR 2019)."""
    import torch

    everything = list(parameters)
    groups = [
        {"params": [p for p in everything if p.ndim > 1], "weight_decay": settings.decay},
        {"params": [p for p in everything if p.ndim <= 1], "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    if settings.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=settings.peak, momentum=0.9, nesterov=True)
    kind = torch.optim.AdamW if settings.optimizer == "adamw" else torch.optim.Adam
    return kind(groups, lr=settings.peak)
