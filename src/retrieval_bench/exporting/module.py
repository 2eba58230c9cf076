"""From an extractor to one torch module: pixels that are prepared already -> the rows that `transform` gives."""

from __future__ import annotations

from typing import Any

from retrieval_bench.extractors.deep.network_features import NetworkFeatures
from retrieval_bench.extractors.deep.postprocess import PostProcess

NETWORK = "network"
"""The submodule that holds the network; what lies outside it is pooling, length and post-processing."""


def unit(rows: Any) -> Any:
    """(n, d) float32 -> each row at length 1, zeros stay zeros.

    By its largest number first: what an untrained network gives may be too small to be squared, and float64, in which
    extractors do it, is slow or missing on the devices that such files are for.
    """
    import torch

    largest = rows.abs().amax(dim=1, keepdim=True)
    rows = rows / torch.where(largest > 0, largest, torch.ones_like(largest))
    return rows / rows.square().sum(dim=1, keepdim=True).sqrt().clamp(min=0.5)  # at least 1 already, or 0


def module_of(extractor: NetworkFeatures) -> Any:
    """nn.Module in eval mode, (n, 3, h, w) float32 -> (n, width) float32 rows of length 1.

    extractor: one scale, float32, learned already where it learns. Its network is shared, not copied.
    """
    from torch import nn

    describe = extractor.describe
    mirrored = any(view.mirrored for view in extractor.views)

    class Rows(nn.Module):  # type: ignore[misc] # here, as torch is loaded late
        def __init__(self) -> None:
            super().__init__()
            self.add_module(NETWORK, extractor.backbone.network)
            self.after = _after(extractor.after, {name: getattr(extractor, name) for name in extractor.after.learned})

        def forward(self, pixels: Any) -> Any:
            rows = unit(describe(pixels))
            if mirrored:
                rows = unit(rows + unit(describe(pixels.flip(3))))
            return self.after(rows)

    return Rows().eval()


def _after(after: PostProcess, learned: dict[str, Any]) -> Any:
    """PostProcess.apply in torch, for rows of length 1."""
    import torch
    from torch import nn

    class After(nn.Module):  # type: ignore[misc] # here, as torch is loaded late
        def __init__(self) -> None:
            super().__init__()
            for name, array in learned.items():
                self.register_buffer(name, torch.from_numpy(array.copy()))

        def forward(self, rows: Any) -> Any:
            if not learned and after.power == 1:
                return rows
            seen = rows.abs().amax(dim=1, keepdim=True) > 0
            if after.power != 1:
                rows = unit(rows.sign() * rows.abs().pow(after.power))
            if "mean_" in learned:
                rows = rows - self.mean_
            if "axes_" in learned:
                rows = rows @ self.axes_
            if "head_" in learned:
                rows = unit(rows) @ self.head_ + self.bias_
            rows = unit(rows)
            return torch.where(seen, rows, torch.zeros_like(rows))

    return After()
