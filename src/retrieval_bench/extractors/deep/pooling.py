"""What makes one vector of a network's feature map or token sequence.

A map is (n, channels, h, w), a token sequence (n, tokens, channels) of which the first `prefix` are no patches (class
and distillation tokens). All functions are pure, and row i depends on image i alone.
"""

from __future__ import annotations

from typing import Any

from retrieval_bench.core import BenchError

EPSILON = 1e-6
"""Below it an activation counts as this much: a root needs something to stand on."""

RMAC_LEVELS = 3
RMAC_OVERLAP = 0.4
"""Of neighbouring squares of R-MAC, the share that they have in common should be near to this."""


def pooled(name: str, features: Any, pool: str, p: float, prefix: int) -> Any:
    """A map or token sequence -> (n, channels) float32 tensor. name: the network, for the error message.

    pool: avg, max, gem with its power p (Radenovic, Tolias and Chum, PAMI 2019; what is negative counts as 0), rmac
    (Tolias, Sicre and Jegou, ICLR 2016, without its whitening) or token, the class token. Raises BenchError where the
    features are of a kind that the pooling has no use for.
    """
    features = features.float()
    if features.ndim == 2:
        raise BenchError(
            f"{name}: pool={pool} needs a feature map or tokens, and this layer gives one vector an image; "
            "leave pool out or name another layer"
        )
    if pool == "token":
        if features.ndim == 4 or not prefix:
            raise BenchError(f"{name}: pool=token needs a class token and this layer has none; use avg, max or gem")
        return features[:, 0]
    if pool == "rmac":
        if features.ndim == 3:
            raise BenchError(f"{name}: pool=rmac needs a feature map and this layer gives tokens; use avg, max or gem")
        return rmac(features)
    places = features.flatten(2) if features.ndim == 4 else features[:, prefix:].transpose(1, 2)
    if pool == "max":
        return places.amax(dim=2)
    if pool == "gem":
        places = places.clamp(min=EPSILON)
        largest = places.amax(dim=2)  # of which no power is too large for float32
        return (places / largest.unsqueeze(2)).pow(p).mean(dim=2).pow(1 / p) * largest
    return places.mean(dim=2)


def rmac(features: Any) -> Any:
    """(n, c, h, w) -> (n, c): the largest values in squares of RMAC_LEVELS sizes, each to unit length, added up."""
    import torch

    total = torch.zeros(features.shape[:2], dtype=features.dtype, device=features.device)
    for top, left, side in squares(features.shape[2], features.shape[3]):
        found = features[:, :, top : top + side, left : left + side].amax(dim=(2, 3))
        total = total + torch.nn.functional.normalize(found, dim=1)
    return total


def squares(height: int, width: int) -> list[tuple[int, int, int]]:
    """(top, left, side) of the regions of R-MAC: level l has l squares across the shorter side, of 2 / (l + 1) of it.

    Across the longer side lie some more, as many as bring the overlap of neighbours nearest to RMAC_OVERLAP.
    """
    shorter, longer = sorted((height, width))
    more = 0
    if longer > shorter:
        overlaps = {m: 1 - (longer - shorter) / (m * shorter) for m in range(1, 7)}
        more = min(overlaps, key=lambda m: abs(overlaps[m] - RMAC_OVERLAP))
    found = []
    for level in range(1, RMAC_LEVELS + 1):
        side = max(1, 2 * shorter // (level + 1))
        down = _starts(height, side, level + (more if height > width else 0))
        across = _starts(width, side, level + (more if width > height else 0))
        found += [(top, left, side) for top in down for left in across]
    return found


def _starts(length: int, side: int, count: int) -> list[int]:
    """Where `count` stretches of `side` begin that cover `length` evenly."""
    if count == 1:
        return [(length - side) // 2]
    return [(length - side) * i // (count - 1) for i in range(count)]
