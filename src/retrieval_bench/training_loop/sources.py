"""Where the loop takes its inputs from: images, changed anew each time; or vectors that were computed once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from retrieval_bench.training_loop.augment import Augment, augmented
from retrieval_bench.training_loop.frames import Frames, centre


class Source(Protocol):
    def drawn(self, rows: Sequence[int], image_size: int, generator: Any) -> Any:
        """Inputs to learn from; `generator`, a torch.Generator, decides how they are changed."""

    def plain(self, rows: Sequence[int]) -> Any:
        """Inputs as they are when a network is used."""


@dataclass(eq=False)
class ImageSource:
    """frames, (3, h, w) uint8 tensors -> (n, 3, size, size) float32, normalised.

    image_size: of a plain picture, in pixels.
    """

    frames: Frames | Sequence[Any]
    how: Augment
    image_size: int
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def drawn(self, rows: Sequence[int], image_size: int, generator: Any) -> Any:
        return self._normalised(augmented([self.frames[row] for row in rows], image_size, self.how, generator))

    def plain(self, rows: Sequence[int]) -> Any:
        import torch

        return self._normalised(
            torch.stack([centre(self.frames[row], self.image_size) for row in rows]).float() / 255.0
        )

    def _normalised(self, pixels: Any) -> Any:
        import torch

        mean, std = (torch.tensor(numbers)[None, :, None, None] for numbers in (self.mean, self.std))
        return ((pixels - mean) / std).contiguous(memory_format=torch.channels_last)


@dataclass(eq=False)
class Vectors:
    """vectors: (n, v, d) float32, v of each image, the plain one first."""

    vectors: Any

    def drawn(self, rows: Sequence[int], image_size: int, generator: Any) -> Any:
        import torch

        which = torch.randint(self.vectors.shape[1], (len(rows),), generator=generator)
        return self.vectors[torch.as_tensor(rows), which]

    def plain(self, rows: Sequence[int]) -> Any:
        import torch

        return self.vectors[torch.as_tensor(rows), 0]
