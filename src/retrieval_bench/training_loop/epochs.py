"""What every training has in common: epochs of steps, the learning rate of each, and the best epoch so far.

What an epoch draws follows from the seed and the number of the epoch alone, so a run that goes on from the state after
an epoch ends with the same weights as one that was never stopped, to the bit on one machine.
"""

from __future__ import annotations

import math
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from retrieval_bench.core import BenchError
from retrieval_bench.system.progress import Progress
from retrieval_bench.training_loop.schedule import rate
from retrieval_bench.training_loop.settings import TrainingSettings


@dataclass(frozen=True)
class Epoch:
    """One line of the history. accuracy: of the validation part, 0..1; None where there is none. rate: learning rate
    at its end. seconds: with validation.
    """

    epoch: int
    loss: float
    accuracy: float | None
    rate: float
    seconds: float


class EpochRun(ABC):
    """A training on its way. best: the epoch from 1, its score, and the weights after it.

    Args:
        settings: epochs, batch, seed, patience and the schedule of the rate.
        rows: (n,) int64, what an epoch goes through.
    """

    optimizer: Any

    def __init__(self, settings: TrainingSettings, rows: np.ndarray) -> None:
        self.settings, self.rows = settings, rows
        # Rounded down: no step has fewer rows than asked for, and norms over a batch need two.
        self.steps_an_epoch = max(1, len(rows) // settings.batch)
        self.done = 0
        self.history: list[Epoch] = []
        self.best: tuple[int, float, dict[str, Any]] = (0, -1.0, {})

    def go(self, save: Callable[[dict[str, Any]], None], on_epoch: Callable[[Epoch], None], progress: Progress) -> None:
        """Train until the last epoch, or until `patience` epochs brought no better score."""
        for epoch in range(self.done, self.settings.epochs):
            if self.settings.patience and self.done - self.best[0] >= self.settings.patience:
                break
            line = self._epoch(epoch, progress)
            save(self.state())
            on_epoch(line)

    def _epoch(self, epoch: int, progress: Progress) -> Epoch:
        import torch

        settings, started = self.settings, time.perf_counter()
        torch.manual_seed(seed_of(settings.seed, epoch))
        batches = np.array_split(self.begin(epoch), self.steps_an_epoch)
        steps = settings.epochs * self.steps_an_epoch
        total = 0.0
        for step, batch in enumerate(batches):
            number = epoch * self.steps_an_epoch + step
            for group in self.optimizer.param_groups:
                group["lr"] = rate(settings, number, steps)
            loss = self.step(batch, epoch, step)
            if not math.isfinite(loss):
                raise BenchError(
                    f"training: the loss is {loss} in epoch {epoch + 1}, step {step + 1} of {self.steps_an_epoch}; "
                    f"{self.advice}"
                )
            total += loss * len(batch)
            progress(f"training, epoch {epoch + 1} of {settings.epochs}", number + 1, steps)
        score, weights = self.judged(progress)
        self.done = epoch + 1
        if score is None or score > self.best[1]:
            kept = {name: value.detach().cpu().clone() for name, value in weights.items()}
            self.best = (self.done, -1.0 if score is None else score, kept)
        spent = time.perf_counter() - started
        line = Epoch(self.done, total / len(self.rows), score, self.optimizer.param_groups[0]["lr"], spent)
        self.history.append(line)
        return line

    @property
    def advice(self) -> str:
        """What to do where a loss is not finite."""
        return f"lower --lr (now {self.settings.peak:g})"

    @abstractmethod
    def begin(self, epoch: int) -> np.ndarray:
        """Make ready for an epoch; the rows in its order."""

    @abstractmethod
    def step(self, batch: np.ndarray, epoch: int, step: int) -> float:
        """Learn from these rows; the loss."""

    @abstractmethod
    def judged(self, progress: Progress) -> tuple[float | None, dict[str, Any]]:
        """The score of what was learned so far, None where nothing judges it, and the weights that it is of."""

    @abstractmethod
    def state(self) -> dict[str, Any]:
        """All that the next epoch depends on, as tensors, numbers and words; `kept` is part of it."""

    def kept(self) -> dict[str, Any]:
        """What every training keeps."""
        return {
            "done": self.done,
            "optimizer": self.optimizer.state_dict(),
            "history": [asdict(line) for line in self.history],
            "best": list(self.best),
        }

    def take_back(self, state: dict[str, Any]) -> None:
        """The inverse of `kept`."""
        self.optimizer.load_state_dict(state["optimizer"])
        self.history = [Epoch(**line) for line in state["history"]]
        self.done = state["done"]
        epoch, score, weights = state["best"]
        self.best = (epoch, score, weights)


def seed_of(*numbers: int) -> int:
    """For a torch.Generator: every list of numbers has its own."""
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> 1)
