"""What a network is taught to make small: torch modules over (n, d) features and the numbers of their labels.

Each has `loss(features, labels) -> ()`, the mean over the images, and `scores(features) -> (n, classes)`, the higher
the likelier; None where it knows no classes.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from typing import Any

import numpy as np

from retrieval_bench.core import BenchError
from retrieval_bench.training_loop.settings import TrainingSettings


def class_weights(labels: np.ndarray, classes: int) -> np.ndarray:
    """(classes,) float32: in proportion to one over the root of the count of a class, 1 in the mean over the images.

    The root, since one image that is seen as often as a hundred is learned by heart.
    """
    counts = np.bincount(labels, minlength=classes)
    weights = 1 / np.sqrt(np.maximum(counts, 1))
    return (weights / (weights * counts).sum() * counts.sum()).astype(np.float32)


def objective(settings: TrainingSettings, dimensions: int, labels: np.ndarray, classes: int) -> Any:
    """labels: (n,) int64 of the images to learn from, 0 .. classes - 1, for the weights of classes."""
    return _KINDS[settings.loss](settings, dimensions, labels, classes)


def _cross_entropy(settings: TrainingSettings, dimensions: int, labels: np.ndarray, classes: int) -> Any:
    import torch
    from torch import nn
    from torch.nn import functional

    weights = class_weights(labels, classes) if settings.balance else np.ones(classes, np.float32)

    class CrossEntropy(nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(dimensions, classes)
            nn.init.normal_(self.linear.weight, std=0.01)
            nn.init.zeros_(self.linear.bias)
            self.register_buffer("weights", torch.from_numpy(weights), persistent=False)

        def scores(self, features: Any) -> Any:
            return self.linear(features)

        def loss(self, features: Any, labels: Any) -> Any:
            # Not torch's own mean, which divides by the weights in the batch and so undoes them in a small one.
            each = functional.cross_entropy(
                self.linear(features), labels, reduction="none", label_smoothing=settings.smoothing
            )
            return (each * self.weights[labels]).mean()

    return CrossEntropy()


def _cosine_softmax(settings: TrainingSettings, dimensions: int, labels: np.ndarray, classes: int) -> Any:
    """Cross-entropy over cosines to one proxy a class (NormFace, Wang et al., ACM MM 2017)."""
    import torch
    from torch import nn
    from torch.nn import functional

    weights = class_weights(labels, classes) if settings.balance else np.ones(classes, np.float32)

    class CosineSoftmax(nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.proxies = nn.Parameter(torch.randn(classes, dimensions))
            self.register_buffer("weights", torch.from_numpy(weights), persistent=False)

        def scores(self, features: Any) -> Any:
            return functional.normalize(features, dim=1) @ functional.normalize(self.proxies, dim=1).T

        def loss(self, features: Any, labels: Any) -> Any:
            each = functional.cross_entropy(
                SCALE * self.scores(features), labels, reduction="none", label_smoothing=settings.smoothing
            )
            return (each * self.weights[labels]).mean()

    return CosineSoftmax()


SCALE = 16.0
"""By which cosines are multiplied before the softmax: how sure it may become."""


def _proxy_anchor(settings: TrainingSettings, dimensions: int, labels: np.ndarray, classes: int) -> Any:
    """Proxy Anchor (Kim et al., CVPR 2020), from pytorch-metric-learning."""
    from torch import nn
    from torch.nn import functional

    losses = _metric_learning("proxy-anchor").losses

    class ProxyAnchor(nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.inner = losses.ProxyAnchorLoss(classes, dimensions)

        def scores(self, features: Any) -> Any:
            return functional.normalize(features, dim=1) @ functional.normalize(self.inner.proxies, dim=1).T

        def loss(self, features: Any, labels: Any) -> Any:
            return self.inner(features, labels)

    return ProxyAnchor()


def _triplet(settings: TrainingSettings, dimensions: int, labels: np.ndarray, classes: int) -> Any:
    """Triplets with the hardest positive and negative of the batch (Hermans et al. 2017), from the same package."""
    from torch import nn

    library = _metric_learning("triplet")
    if len(labels) and np.bincount(labels).max() < 2:
        raise BenchError("--loss triplet needs two images of one label and no label has them; use --loss cross-entropy")

    class Triplet(nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.inner = library.losses.TripletMarginLoss(margin=0.2)
            self.miner = library.miners.BatchHardMiner()

        scores = None

        def loss(self, features: Any, labels: Any) -> Any:
            return self.inner(features, labels, self.miner(features, labels))

    return Triplet()


def _metric_learning(loss: str) -> Any:
    if importlib.util.find_spec("pytorch_metric_learning") is None:
        raise BenchError(
            f"--loss {loss} needs pytorch-metric-learning: pip install 'retrieval-bench[train]', "
            "or use --loss cross-entropy or cosine-softmax"
        )
    import pytorch_metric_learning
    import pytorch_metric_learning.losses
    import pytorch_metric_learning.miners

    return pytorch_metric_learning


_KINDS: dict[str, Callable[[TrainingSettings, int, np.ndarray, int], Any]] = {
    "cross-entropy": _cross_entropy,
    "cosine-softmax": _cosine_softmax,
    "proxy-anchor": _proxy_anchor,
    "triplet": _triplet,
}
