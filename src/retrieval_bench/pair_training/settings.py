"""What one training on pairs is: everything that the result depends on besides pictures, texts and machine."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

from retrieval_bench.core import BenchError

TowerKind = Literal["gru", "lstm", "transformer"]
TokenKind = Literal["words", "pieces"]
PairLoss = Literal["infonce", "triplet"]

WIDTHS = (8, 1024)
"""Least and most numbers of a token's vector, of a tower's state and of the shared space."""
LEARNING_RATES: dict[str, float] = {"infonce": 0.002, "triplet": 0.002}
"""The peak where none is given."""
STATES: dict[str, int] = {"gru": 64, "lstm": 64, "transformer": 128}
"""Numbers of a tower's state where none are given."""
HEADS = 4
"""Of a Transformer's attention; its state must be divisible by it."""


@dataclass(frozen=True)
class PairSettings:
    """All options of one training on pairs.

    Args:
        text_tower: "gru" and "lstm" read in both directions; "transformer" attends to all tokens at once.
        tokens: "words" are known words and the letters that every word is made of; "pieces" are parts of words,
            learned by byte-pair encoding.
        loss: "infonce" (symmetric, over the batch) or "triplet" (hard negatives of the batch).
        epochs: how many times each picture is seen, at least 1.
        batch: pairs in a step, at least this many; at least 2.
        lr: peak of the learning rate, above 0. None: by `LEARNING_RATES`.
        weight_decay: AdamW's, of matrices, from 0.
        dims: numbers of a vector in the shared space.
        width: numbers of a token's vector.
        hidden: numbers of a tower's state; of "gru" and "lstm" in each direction. None: by `STATES`.
        layers: of the text tower, 1 to 4.
        typos: probability that a word is misspelt while it is learned from, 0 to 1.
        drop: probability that a text is cut down to a few of its words, in any order, 0 to 1.
        between_texts: weight of the loss between two texts of one product, from 0; that of the pairs is 1.
        holdout: share of the products (labels) that nothing is learned from and that choose the epoch, 0 to below 0.9.
        patience: training ends after this many epochs without a better score on these. 0: never.
        seed: fixes order, changes of texts, held-out products and first weights, from 0.

    Raises:
        BenchError: A value is outside its range, or two options contradict each other.
    """

    text_tower: TowerKind = "gru"
    tokens: TokenKind = "words"
    loss: PairLoss = "infonce"
    epochs: int = 60
    batch: int = 128
    lr: float | None = None
    weight_decay: float = 0.05
    dims: int = 256
    width: int = 128
    hidden: int | None = None
    layers: int = 1
    typos: float = 0.15
    drop: float = 0.6
    between_texts: float = 1.0
    holdout: float = 0.1
    patience: int = 0
    seed: int = 0

    def __post_init__(self) -> None:
        words = {"text_tower": TowerKind, "tokens": TokenKind, "loss": PairLoss}
        for name, allowed in words.items():
            if getattr(self, name) not in get_args(allowed):
                raise BenchError(f"{_flag(name)} {getattr(self, name)!r} is not one of {', '.join(get_args(allowed))}")
        limits: dict[str, tuple[float, float]] = {
            "epochs": (1, 100_000),
            "batch": (2, 65_536),
            "dims": WIDTHS,
            "width": WIDTHS,
            "layers": (1, 4),
            "typos": (0, 1),
            "drop": (0, 1),
            "between_texts": (0, 100),
            "weight_decay": (0, 100),
            "patience": (0, 100_000),
            "seed": (0, 2**32 - 1),
        }
        for name, (least, most) in limits.items():
            if not least <= getattr(self, name) <= most:
                raise BenchError(f"{_flag(name)} {getattr(self, name):g} is not between {least:g} and {most:g}")
        if self.hidden is not None and not WIDTHS[0] <= self.hidden <= WIDTHS[1]:
            raise BenchError(f"--hidden {self.hidden} is not between {WIDTHS[0]} and {WIDTHS[1]}")
        if self.lr is not None and not 0 < self.lr < math.inf:
            raise BenchError(f"--lr {self.lr:g} must be a number above 0")
        if not 0 <= self.holdout < 0.9:
            raise BenchError(f"--holdout {self.holdout:g} must be at least 0 and below 0.9")
        if self.patience and not self.holdout:
            raise BenchError(f"--patience {self.patience} needs products to choose by; give --holdout a share above 0")
        if self.text_tower == "transformer" and self.state % HEADS:
            raise BenchError(f"--hidden {self.hidden} of a transformer must be divisible by {HEADS}")

    @property
    def state(self) -> int:
        """Numbers of a tower's state: `hidden`, or the default for the tower."""
        return STATES[self.text_tower] if self.hidden is None else self.hidden

    @property
    def peak(self) -> float:
        """Peak of the learning rate: `lr`, or the default for the loss."""
        return LEARNING_RATES[self.loss] if self.lr is None else self.lr

    def as_data(self) -> dict[str, Any]:
        """Give the settings as plain numbers and words, for files."""
        return asdict(self)


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"
