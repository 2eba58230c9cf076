"""A small network trained from scratch on `train`, inside the run: what deep learning gives without any download.

Four stages of 3 x 3 convolutions, taught to have images of a label point the same way (cosine softmax: Wang et al.,
"NormFace", ACM MM 2017). With four images a label nearly everything depends on how these are changed at random.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Self

import numpy as np
from PIL import Image

from retrieval_bench.core import BenchError, Distance, Extractor, Setup, Split, refuse_unfitted
from retrieval_bench.images.pictures import pictures
from retrieval_bench.registry import EXTRACTORS, Range
from retrieval_bench.system.device import on_gpu, steady

MARGIN = 1.25
"""Training images are kept larger than what the network sees by this, so that a crop has pixels to show."""
SEEN = 60_000
"""Images that training shows in all, where `epochs` is 0, within these limits of epochs."""
EPOCHS = (10, 60)
LEAST = 16
"""A train split of fewer images is shown several times an epoch: norms need a batch."""


@EXTRACTORS("convnet", family="deep", about="a small network, trained from scratch on train inside the run")
def convnet(
    setup: Setup,
    *,
    side: Annotated[int, Range(16, 2048)] = 64,
    width: Annotated[int, Range(1, 1024)] = 32,
    dims: Annotated[int, Range(1, 65536)] = 256,
    epochs: Annotated[int, Range(0, 100_000)] = 0,
) -> Extractor:
    """A small network that learns inside `fit`.

    Args:
        setup: what the run fixes for every method.
        side: the image is squeezed to side x side pixels, at least 16
        width: channels of the first stage
        dims: numbers in a vector
        epochs: passes over the training images; 0 chooses by their number
    """
    for option, value, least in (("side", side, 16), ("width", width, 1), ("dims", dims, 1), ("epochs", epochs, 0)):
        if value < least:
            raise BenchError(f"convnet: {option}={value} must be at least {least}")
    steady(setup.device)
    return Convnet(setup, side, width, dims, epochs)


@dataclass(eq=False)
class Convnet:
    """weights_: (n,) float32, all parameters and running means one after the other.

    progress: told (what, done, total) while it learns; whoever wants to know sets it.
    """

    setup: Setup
    side: int
    width: int
    dims: int
    epochs: int
    distance: Distance = "cosine"
    learned: tuple[str, ...] = ("weights_",)
    progress: Callable[[str, int, int], None] = lambda what, done, total: None
    _ready: tuple[Any, Any] = (None, None)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def wanted(self) -> int:
        """Pixels of a side while it learns: some more than it looks at, of which augmentation cuts out a part."""
        return round(MARGIN * self.side)

    @property
    def chunk(self) -> int:
        return 32 if on_gpu(self.setup.device) else 8

    def fit(self, train: Split) -> Self:
        from retrieval_bench.training_loop import loop
        from retrieval_bench.training_loop.augment import Augment
        from retrieval_bench.training_loop.head import first
        from retrieval_bench.training_loop.settings import TrainingSettings
        from retrieval_bench.training_loop.sources import ImageSource

        n = len(train)
        least, most = EPOCHS
        settings = TrainingSettings(
            mode="scratch",
            epochs=self.epochs or min(most, max(least, SEEN // max(n, 1))),
            lr=3e-3,
            weight_decay=0.05,
            loss="cosine-softmax",
            smoothing=0.0,
            augment=Augment(),
            image_size=self.side,
            holdout=0.0,
            precision="float32",  # the same numbers on machines that compute in bfloat16 and that do not
            seed=self.setup.seed,
        )
        frames = [squeezed(train.images[row], self.wanted) for row in range(n)]
        source = ImageSource(frames, settings.augment, self.side, MEAN, DEVIATION)
        names, labels = np.unique(train.labels, return_inverse=True)
        network = self._network()
        goal = first(settings, self.dims, labels, len(names))
        trained = loop.train(
            network,
            goal,
            source,
            labels,
            settings,
            rows=np.resize(np.arange(n), max(n, LEAST)),
            held=np.empty(0, np.int64),
            threads=self.setup.threads,
            device=self.setup.device,
            progress=self.progress,
        )
        state = trained.network.state_dict()
        self.weights_ = np.concatenate([value.float().reshape(-1).numpy() for value in state.values()])
        return self

    def transform(self, images: Sequence[np.ndarray]) -> np.ndarray:
        """n images -> (n, dims) float32, rows of norm 1; one at a time, so that a row depends on its image alone."""
        import torch

        refuse_unfitted(self, "convnet")
        network = self.learned_network()
        rows = np.empty((len(images), self.dims), np.float32)
        with torch.inference_mode():
            for row, image in enumerate(pictures(images)):
                pixels = squeezed(image, self.side)[None].float() / 255.0
                pixels = (pixels - torch.tensor(MEAN)[:, None, None]) / torch.tensor(DEVIATION)[:, None, None]
                batch = pixels.to(self.setup.device, memory_format=torch.channels_last)
                unit = torch.nn.functional.normalize(network(batch).double(), dim=1, eps=1e-300)
                rows[row] = unit[0].cpu().numpy()
        return rows

    def learned_network(self) -> Any:
        """The network that `weights_` describes, built once for each."""
        import torch

        with self._lock:
            known, network = self._ready
            if known is not self.weights_:
                network, start = self._network(), 0
                state = network.state_dict()
                for value in state.values():
                    part = torch.from_numpy(self.weights_[start : start + value.numel()].copy())
                    value.copy_(part.view(value.shape))
                    start += value.numel()
                network.eval().requires_grad_(False)
                network.to(self.setup.device, memory_format=torch.channels_last)
                self._ready = self.weights_, network
        return network

    def _network(self) -> Any:
        """(n, 3, side, side) -> (n, dims), initialised by the seed."""
        import torch
        from torch import nn

        def stage(inputs: int, outputs: int, stride: int, kernel: int = 3) -> list[Any]:
            convolution = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False)
            return [convolution, nn.BatchNorm2d(outputs), nn.ReLU()]

        w = self.width
        with torch.random.fork_rng(devices=[]):
            torch.random.default_generator.manual_seed(self.setup.seed)
            network = nn.Sequential(
                *stage(3, w, 2, kernel=5),
                *(*stage(w, 2 * w, 2), *stage(2 * w, 2 * w, 1)),
                *(*stage(2 * w, 4 * w, 2), *stage(4 * w, 4 * w, 1)),
                *stage(4 * w, 8 * w, 2),
                nn.AdaptiveAvgPool2d(1),
                nn.Flatten(),
                nn.Linear(8 * w, self.dims, bias=False),
                nn.BatchNorm1d(self.dims),
            )
        return network.to(memory_format=torch.channels_last)


MEAN, DEVIATION = (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)


def squeezed(image: np.ndarray, side: int) -> Any:
    """(h, w, 3) uint8 -> (3, side, side) uint8 tensor, whatever shape the image had."""
    import torch

    pixels = Image.fromarray(np.ascontiguousarray(image)).resize((side, side), Image.Resampling.BILINEAR)
    return torch.from_numpy(np.array(pixels)).permute(2, 0, 1).contiguous()
