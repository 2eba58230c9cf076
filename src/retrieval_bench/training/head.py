"""Features of a fixed network, computed once, and a linear layer over them: minutes become seconds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import numpy as np

from retrieval_bench.timing import pinned
from retrieval_bench.training.loop import PLAIN_BATCH, seed_of, train
from retrieval_bench.training.objectives import objective
from retrieval_bench.training.settings import Settings
from retrieval_bench.training.sources import Pictures, Vectors


def features(
    network: Any,
    pictures: Pictures,
    rows: Sequence[int],
    views: int,
    seed: int,
    *,
    threads: int,
    device: str = "cpu",
    progress: Callable[[str, int, int], None] = lambda what, done, total: None,
) -> Any:
    """(n, views, d) float32 tensor: of each image itself, its mirror image, then as many changed ones as remain."""
    import torch

    network.eval()
    starts = range(0, len(rows), PLAIN_BATCH)

    def some(start: int) -> Any:
        chosen = list(rows[start : start + PLAIN_BATCH])
        generator = torch.Generator().manual_seed(seed_of(seed, start))
        plain = pictures.plain(chosen)
        inputs = [plain, plain.flip(3)][:views]
        inputs += [pictures.drawn(chosen, pictures.side, generator) for _ in range(views - 2)]
        with torch.inference_mode():
            return torch.stack([network(each.to(device)).float().cpu() for each in inputs], dim=1)

    out = []
    with pinned(1), ThreadPoolExecutor(threads) as pool:
        for done, batch in enumerate(pool.map(some, starts)):
            out.append(batch)
            progress("features of training images", min((done + 1) * PLAIN_BATCH, len(rows)), len(rows))
    return torch.cat(out).clone()


def standardised(views: Any, rows: np.ndarray) -> tuple[Any, Any, Any]:
    """views: (n, v, d) -> (the same with mean 0 and deviation 1 over `rows`, mean (d,), deviation (d,))."""
    known = views[rows].flatten(0, 1).double()
    mean = known.mean(0)
    deviation = known.std(0, unbiased=False)
    # A unit that is nearly always off would be blown up by the one image that it is on for.
    deviation = deviation.clamp(min=0.1 * max(float(deviation.mean()), 1e-12))
    return ((views - mean) / deviation).float(), mean.float(), deviation.float()


def folded(linear: Any, mean: Any, deviation: Any) -> tuple[Any, Any]:
    """The (weight, bias) over raw features that do what `linear` does over standardised ones."""
    weight = linear.weight.detach() / deviation
    return weight, linear.bias.detach() - weight @ mean


def probe(settings: Settings) -> Settings:
    """What the head is trained with that fine-tuning starts from (LP-FT, Kumar et al., ICLR 2022)."""
    return replace(settings, mode="head", epochs=40, lr=None, optimizer="adamw", schedule="onecycle", patience=0)


def learn_head(
    features: np.ndarray,
    labels: np.ndarray,
    settings: Settings,
    *,
    threads: int = 1,
    progress: Callable[[str, int, int], None] = lambda what, done, total: None,
) -> tuple[np.ndarray, np.ndarray]:
    """A linear classifier over features of any extractor: (weight (classes, d), bias (classes,)), both float32.

    features: (n, d) or (n, views, d) float32, several of the same image. labels: (n,) int64; `classes` are those that
    occur, in order. settings: of mode "head"; its holdout is not used. What a method that tunes its head learns.
    """
    import torch
    from torch import nn

    views = torch.from_numpy(np.ascontiguousarray(features, np.float32).reshape(len(features), -1, features.shape[-1]))
    names, numbers = np.unique(labels, return_inverse=True)
    scaled, mean, deviation = standardised(views, np.arange(len(views)))
    goal = first(settings, features.shape[-1], numbers, len(names))
    rows = np.resize(np.arange(len(views)), max(len(views), 2))
    trained = train(
        nn.Identity(),
        goal,
        Vectors(scaled),
        numbers,
        settings,
        rows=rows,
        held=np.empty(0, np.int64),
        threads=threads,
        progress=progress,
    )
    weight, bias = folded(trained.objective.linear, mean, deviation)
    return weight.numpy(), bias.numpy()


def class_scores(features: np.ndarray, weight: np.ndarray, bias: np.ndarray) -> np.ndarray:
    """(n, d) -> (n, classes) float32: the classifier's scores, less their mean, to be compared by cosine.

    One row at a time, so that a row does not depend on its neighbours.
    """
    rows = np.empty((len(features), len(weight)), np.float32)
    for row, vector in enumerate(features):
        scores = weight @ vector + bias
        rows[row] = scores - scores.mean()
    return rows


def first(settings: Settings, dimensions: int, labels: np.ndarray, classes: int) -> Any:
    """The objective as the seed begins it; torch's own generator is left alone."""
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.random.default_generator.manual_seed(settings.seed)
        return objective(settings, dimensions, labels, classes)
