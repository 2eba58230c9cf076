"""What one training is: everything that the result depends on besides images, starting weights and machine."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, get_args

from retrieval_bench.core import BenchError
from retrieval_bench.training_loop.augment import Augment

Mode = Literal["head", "finetune", "scratch"]
Optimizer = Literal["adam", "adamw", "sgd"]
Schedule = Literal["cosine", "onecycle", "step", "constant"]
Loss = Literal["cross-entropy", "cosine-softmax", "proxy-anchor", "triplet"]
Precision = Literal["auto", "float32", "bfloat16", "float16"]

LEARNING_RATES: dict[tuple[Mode, str], float] = {
    ("head", "sgd"): 0.3,
    ("head", "adam"): 0.003,
    ("finetune", "sgd"): 0.005,
    ("finetune", "adam"): 0.0002,
    ("scratch", "sgd"): 0.1,
    ("scratch", "adam"): 0.002,
}
"""The peak where none is given; adamw is as adam."""
WEIGHT_DECAYS: dict[str, float] = {"sgd": 5e-4, "adam": 5e-5, "adamw": 0.02}
"""Where none is given. AdamW's is a share of the weights a step at rate 1, the others' a part of the gradient."""


STORED_AS = {
    "image_size": "side",
    "progressive_resizing": "early_side",
    "ema_decay": "average",
    "augmentations": "views",
    "micro_batches": "shards",
}
"""Checkpoints and weights files keep the names that these settings had at first, so that old files are still read."""


@dataclass(frozen=True)
class TrainingSettings:
    """All options of one training.

    Args:
        mode: "head" leaves the network as it is and learns a linear layer over its features, which are computed once.
            "finetune" trains the whole network further from trained weights. "scratch" starts from random weights.
        epochs: how many times each image is seen, at least 1.
        batch: images in a step, at least this many; at least 2.
        optimizer: "adam", "adamw" or "sgd".
        lr: peak of the learning rate, from 0. None: by `LEARNING_RATES`.
        schedule: "cosine", "onecycle", "step" or "constant".
        weight_decay: of weights, not of biases and norms, from 0. None: by `WEIGHT_DECAYS`.
        loss: "cross-entropy", "cosine-softmax", "proxy-anchor" or "triplet".
        smoothing: of labels, for the two softmax losses, 0 to below 1.
        balance: cross-entropy gives more weight to classes with fewer images.
        augment: how far images are changed at random.
        image_size: pixels of the side of a training image. 0: what the network was made for.
        progressive_resizing: the same for the first `early` share of the epochs, which then cost less. 0: `image_size`
            in all epochs.
        early: this share of the epochs, 0 to below 1.
        freeze: share of the network's weight layers, counted from the first, that stay as they are while fine-tuning,
            0 to below 1.
        ema_decay: decay of the exponential moving average of the weights, which is what is kept (Polyak & Juditsky
            1992), 0 to below 1. 0: the last weights are kept.
        augmentations: how many pictures of each image "head" computes features of: the image itself, its mirror image,
            then randomly changed ones. At least 1.
        holdout: share of each label's images that is kept for validation, 0 to below 0.9.
        patience: training ends after this many epochs without a better validation. 0: never.
        precision: "auto", "float32", "bfloat16" or "float16".
        micro_batches: parts of a batch whose gradients are computed in parallel and summed in order, at least 1. The
            result depends on this number, and not on how many threads work on them.
        seed: fixes order, augmentation and first weights, from 0.

    Raises:
        BenchError: A value is outside its range, or two options contradict each other.
    """

    mode: Mode = "finetune"
    epochs: int = 10
    batch: int = 32
    optimizer: Optimizer = "adamw"
    lr: float | None = None
    schedule: Schedule = "onecycle"
    weight_decay: float | None = None
    loss: Loss = "cross-entropy"
    smoothing: float = 0.1
    balance: bool = True
    augment: Augment = field(default_factory=Augment)
    image_size: int = 0
    progressive_resizing: int = 0
    early: float = 0.6
    freeze: float = 0.0
    ema_decay: float = 0.98
    augmentations: int = 4
    holdout: float = 0.1
    patience: int = 0
    precision: Precision = "auto"
    micro_batches: int = 2
    seed: int = 0

    def __post_init__(self) -> None:
        words = {"mode": Mode, "optimizer": Optimizer, "schedule": Schedule, "loss": Loss, "precision": Precision}
        for name, allowed in words.items():
            if getattr(self, name) not in get_args(allowed):
                raise BenchError(f"--{name} {getattr(self, name)!r} is not one of {', '.join(get_args(allowed))}")
        least = {
            "epochs": 1,
            "batch": 2,
            "augmentations": 1,
            "micro_batches": 1,
            "patience": 0,
            "seed": 0,
            "image_size": 0,
            "progressive_resizing": 0,
        }
        for name, smallest in least.items():
            if getattr(self, name) < smallest:
                raise BenchError(f"--{name.replace('_', '-')} {getattr(self, name)} must be at least {smallest}")
        shares = {"smoothing": 1.0, "freeze": 1.0, "ema_decay": 1.0, "holdout": 0.9, "early": 1.0}
        for name, most in shares.items():
            if not 0 <= getattr(self, name) < most:
                raise BenchError(
                    f"--{name.replace('_', '-')} {getattr(self, name):g} must be at least 0 and below {most:g}"
                )
        for name in ("lr", "weight_decay"):
            value = getattr(self, name)
            if value is not None and not 0 <= value < math.inf:
                raise BenchError(f"--{name.replace('_', '-')} {value:g} must be a number, 0 or more")
        if self.mode == "head" and self.loss != "cross-entropy":
            raise BenchError(
                f"--mode head learns a linear classifier by cross-entropy, not by {self.loss}; "
                "choose --loss cross-entropy or another mode"
            )
        if self.patience and not self.holdout:
            raise BenchError(f"--patience {self.patience} needs a validation part; give --holdout a share above 0")

    @property
    def peak(self) -> float:
        """Peak of the learning rate: `lr`, or the default for mode and optimizer."""
        given = LEARNING_RATES[self.mode, "sgd" if self.optimizer == "sgd" else "adam"]
        return given if self.lr is None else self.lr

    @property
    def decay(self) -> float:
        """Weight decay: `weight_decay`, or the default for the optimizer."""
        return WEIGHT_DECAYS[self.optimizer] if self.weight_decay is None else self.weight_decay

    def image_size_at(self, epoch: int, own: int) -> int:
        """Size of the training images in an epoch.

        Args:
            epoch: from 0.
            own: the size that the network expects, in pixels.

        Returns:
            Pixels of the side of a training image.
        """
        late = self.image_size or own
        small = self.progressive_resizing
        return small if small and epoch < round(self.early * self.epochs) else late

    def as_data(self) -> dict[str, Any]:
        """Give the settings as plain numbers and words, under the names of `STORED_AS`, for files."""
        return {STORED_AS.get(name, name): value for name, value in asdict(self).items()}
