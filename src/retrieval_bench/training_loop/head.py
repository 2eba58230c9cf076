"""Features of a fixed network, computed once, and a linear layer over them: minutes become seconds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import numpy as np

from retrieval_bench.system.timing import pinned
from retrieval_bench.training_loop.epochs import seed_of
from retrieval_bench.training_loop.loop import PLAIN_BATCH
from retrieval_bench.training_loop.objectives import objective
from retrieval_bench.training_loop.settings import TrainingSettings
from retrieval_bench.training_loop.sources import ImageSource


def features(
    network: Any,
    pictures: ImageSource,
    rows: Sequence[int],
    augmentations: int,
    seed: int,
    *,
    threads: int,
    device: str = "cpu",
    progress: Callable[[str, int, int], None] = lambda what, done, total: None,
) -> Any:
    """(n, augmentations, d) float32 tensor: the image itself, its mirror image, then as many changed ones as remain."""
    import torch

    network.eval()
    starts = range(0, len(rows), PLAIN_BATCH)

    def some(start: int) -> Any:
        chosen = list(rows[start : start + PLAIN_BATCH])
        generator = torch.Generator().manual_seed(seed_of(seed, start))
        plain = pictures.plain(chosen)
        inputs = [plain, plain.flip(3)][:augmentations]
        inputs += [pictures.drawn(chosen, pictures.image_size, generator) for _ in range(augmentations - 2)]
        with torch.inference_mode():
            return torch.stack([network(each.to(device)).float().cpu() for each in inputs], dim=1)

    out = []
    with pinned(1), ThreadPoolExecutor(threads) as pool:
        for done, batch in enumerate(pool.map(some, starts)):
            out.append(batch)
            progress("features of training images", min((done + 1) * PLAIN_BATCH, len(rows)), len(rows))
    return torch.cat(out).clone()


def standardised(vectors: Any, rows: np.ndarray) -> tuple[Any, Any, Any]:
    """vectors: (n, v, d) -> (the same with mean 0 and deviation 1 over `rows`, mean (d,), deviation (d,))."""
    known = vectors[rows].flatten(0, 1).double()
    mean = known.mean(0)
    deviation = known.std(0, unbiased=False)
    # A unit that is nearly always off would be blown up by the one image that it is on for.
    deviation = deviation.clamp(min=0.1 * max(float(deviation.mean()), 1e-12))
    return ((vectors - mean) / deviation).float(), mean.float(), deviation.float()


def folded(linear: Any, mean: Any, deviation: Any) -> tuple[Any, Any]:
    """The (weight, bias) over raw features that do what `linear` does over standardised ones."""
    weight = linear.weight.detach() / deviation
    return weight, linear.bias.detach() - weight @ mean


def probe(settings: TrainingSettings) -> TrainingSettings:
    """What the head is trained with that fine-tuning starts from (LP-FT, Kumar et al., ICLR 2022)."""
    return replace(settings, mode="head", epochs=40, lr=None, optimizer="adamw", schedule="onecycle", patience=0)


def first(settings: TrainingSettings, dimensions: int, labels: np.ndarray, classes: int) -> Any:
    """The objective as the seed begins it; torch's own generator is left alone."""
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.random.default_generator.manual_seed(settings.seed)
        return objective(settings, dimensions, labels, classes)
