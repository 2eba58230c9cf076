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


@dataclass(frozen=True)
class TrainingSettings:
    """mode: "head" leaves the network as it is and learns a linear layer over its features, which are computed once;
        "finetune" goes on with trained weights; "scratch" starts from random ones.
    epochs: times that every image is seen. batch: images a step, at least. lr: peak of the schedule; None: by
        LEARNING_RATES.
    weight_decay: of weights, not of biases and norms; None: by WEIGHT_DECAYS. smoothing: of labels, for cross-entropy.
    balance: cross-entropy weighs classes by how few their images are.
    side: pixels of a training image; 0: what the network was made for. early_side: the same for the first
        `early` share of the epochs, which costs less (progressive resizing); 0: as side.
    freeze: share of the network's weight layers, the first ones, that stay as they are while fine-tuning.
    average: decay of the running mean of the weights, which is what is kept (Polyak); 0: the last weights.
    views: how many pictures of each image "head" computes features of: itself, its mirror image, then changed ones.
    holdout: share of each label's images kept for validation. patience: epochs without a better validation after which
        training ends; 0: never.
    shards: parts of a batch whose gradients are computed side by side and summed in order. The result depends on it,
        and not on how many threads work on them.
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
    side: int = 0
    early_side: int = 0
    early: float = 0.6
    freeze: float = 0.0
    average: float = 0.98
    views: int = 4
    holdout: float = 0.1
    patience: int = 0
    precision: Precision = "auto"
    shards: int = 2
    seed: int = 0

    def __post_init__(self) -> None:
        words = {"mode": Mode, "optimizer": Optimizer, "schedule": Schedule, "loss": Loss, "precision": Precision}
        for name, allowed in words.items():
            if getattr(self, name) not in get_args(allowed):
                raise BenchError(f"--{name} {getattr(self, name)!r} is not one of {', '.join(get_args(allowed))}")
        least = {"epochs": 1, "batch": 2, "views": 1, "shards": 1, "patience": 0, "seed": 0, "side": 0, "early_side": 0}
        for name, smallest in least.items():
            if getattr(self, name) < smallest:
                raise BenchError(f"--{name.replace('_', '-')} {getattr(self, name)} must be at least {smallest}")
        shares = {"smoothing": 1.0, "freeze": 1.0, "average": 1.0, "holdout": 0.9, "early": 1.0}
        for name, most in shares.items():
            if not 0 <= getattr(self, name) < most:
                raise BenchError(f"--{name} {getattr(self, name):g} must be at least 0 and below {most:g}")
        for name in ("lr", "weight_decay"):
            value = getattr(self, name)
            if value is not None and not 0 <= value < math.inf:
                raise BenchError(f"--{name.replace('_', '-')} {value:g} must be a number from 0")
        if self.mode == "head" and self.loss != "cross-entropy":
            raise BenchError(
                f"--mode head learns a linear classifier by cross-entropy, not by {self.loss}; "
                "choose --loss cross-entropy or another mode"
            )
        if self.patience and not self.holdout:
            raise BenchError(f"--patience {self.patience} needs a validation part; give --holdout a share above 0")

    @property
    def peak(self) -> float:
        given = LEARNING_RATES[self.mode, "sgd" if self.optimizer == "sgd" else "adam"]
        return given if self.lr is None else self.lr

    @property
    def decay(self) -> float:
        return WEIGHT_DECAYS[self.optimizer] if self.weight_decay is None else self.weight_decay

    def side_at(self, epoch: int, own: int) -> int:
        """Pixels of a training image in an epoch; own: the network's."""
        late = self.side or own
        return self.early_side if self.early_side and epoch < round(self.early * self.epochs) else late

    def as_data(self) -> dict[str, Any]:
        """Plain numbers and words, for the record."""
        return asdict(self)
