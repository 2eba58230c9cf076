"""Epoch after epoch over pairs of a picture's features and a text; the score on held-out products chooses the epoch."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from retrieval_bench.pair_training.losses import FIRST_SCALE, MOST_SCALE, pair_loss
from retrieval_bench.pair_training.misspell import changed
from retrieval_bench.pair_training.settings import PairSettings
from retrieval_bench.pair_training.tokenise import MOST_TOKENS, Token, Tokens, read_words
from retrieval_bench.pair_training.towers import Batch, TowerShape, set_scaling, text_vector, towers
from retrieval_bench.system.progress import Progress, silent
from retrieval_bench.system.timing import pinned
from retrieval_bench.training_loop.epochs import Epoch, EpochRun
from retrieval_bench.training_loop.schedule import optimizer
from retrieval_bench.training_loop.settings import TrainingSettings

LETTERS = 64
"""The most frequent letters of the texts, of which a wrong one is drawn."""
CACHED_WORDS = 20_000
"""Words whose tokens are kept while training goes on."""


@dataclass(frozen=True, eq=False)
class PairSet:
    """What is learned from.

    Args:
        features: (n, d) float32, of each picture.
        texts: n texts; one without a word is of no pair.
        labels: (n,) int64, what each is of: any text of a label goes with any picture of it.
    """

    features: np.ndarray
    texts: Sequence[str]
    labels: np.ndarray


@dataclass(eq=False)
class TrainedPairs:
    """Both towers in eval mode, of the epoch `best`, counted from 1. shape: theirs."""

    both: Any
    shape: TowerShape
    history: list[Epoch]
    best: int


def train_pairs(
    pairs: PairSet,
    held: PairSet,
    tokens: Tokens,
    settings: PairSettings,
    *,
    start: np.ndarray | None = None,
    device: str = "cpu",
    resume: dict[str, Any] | None = None,
    save: Callable[[dict[str, Any]], None] = lambda state: None,
    on_epoch: Callable[[Epoch], None] = lambda epoch: None,
    progress: Progress = silent,
) -> TrainedPairs:
    """Train both towers.

    Args:
        pairs: what is learned from.
        held: of other products, what chooses the epoch; may be empty.
        tokens: learned from the texts of `pairs`.
        settings: the options.
        start: (rows, width) float32 first vectors of the table, NaN where a row has none. None: all are drawn.
        device: "cpu" or "cuda". On the CPU one thread works, so that their number changes no bit.
        resume: what `save` was given after an epoch.
        save: called with the state after each epoch.
        on_epoch: called after each epoch; its `accuracy` is the score on the held-out products.
        progress: called often with (what is done, steps done, steps in all).

    Returns:
        The towers of the best epoch, and the history.

    Raises:
        BenchError: The loss is not finite.
    """
    import torch

    with pinned(1), torch.random.fork_rng(devices=[]):
        run = _PairRun(pairs, held, tokens, settings, start, device)
        if resume is not None:
            run.restore(resume)
        run.go(save, on_epoch, progress)
        return run.result()


class _PairRun(EpochRun):
    def __init__(
        self,
        pairs: PairSet,
        held: PairSet,
        tokens: Tokens,
        settings: PairSettings,
        start: np.ndarray | None,
        device: str,
    ) -> None:
        import torch

        self.of_pairs, self.held, self.tokens, self.device = settings, held, tokens, device
        self.words = [read_words(text) for text in pairs.texts]
        self.tokens_of = functools.lru_cache(CACHED_WORDS)(lambda word: tokens.tokens([word]))
        self.letters = _letters(self.words)
        self.labels = pairs.labels
        self.features = torch.from_numpy(pairs.features)
        self.texts_of = {
            int(label): [row for row in np.flatnonzero(pairs.labels == label) if self.words[row]]
            for label in np.unique(pairs.labels)
        }
        told = [row for row, label in enumerate(pairs.labels) if self.texts_of[int(label)]]
        schedule = TrainingSettings(
            mode="scratch",
            epochs=settings.epochs,
            batch=settings.batch,
            lr=settings.peak,
            weight_decay=settings.weight_decay,
            holdout=settings.holdout,
            patience=settings.patience,
            seed=settings.seed,
        )
        super().__init__(schedule, np.array(told, np.int64))
        self.shape = TowerShape.of(settings, tokens.size, pairs.features.shape[1])
        torch.manual_seed(settings.seed)
        self.both = towers(self.shape)
        with torch.no_grad():
            set_scaling(self.both, self.features[self.rows])
            self.both["image"].scale.fill_(math.log(FIRST_SCALE))
            table = self.both["text"].table.weight
            table.mul_(settings.width**-0.5)
            if start is not None:
                known = np.isfinite(start).all(1)
                table[torch.from_numpy(known)] = torch.from_numpy(start[known])
        self.both.to(device)
        self.optimizer = optimizer(schedule, self.both.parameters())

    def begin(self, epoch: int) -> np.ndarray:
        self.both.train()
        self.rng = np.random.default_rng([self.settings.seed, epoch])
        return self.rng.permutation(self.rows)

    def step(self, batch: np.ndarray, epoch: int, step: int) -> float:
        import torch

        settings, rng = self.of_pairs, self.rng
        done = (epoch * self.steps_an_epoch + step) / (settings.epochs * self.steps_an_epoch)
        labels = torch.from_numpy(self.labels[batch]).to(self.device)
        images = self.both["image"](self.features[batch].to(self.device))
        drawn = [self._drawn(batch, rng) for _ in range(2 if settings.between_texts else 1)]
        texts, *others = self.both["text"](Batch.of([text for one in drawn for text in one], self.device)).split(
            len(batch)
        )
        scale = self.both["image"].scale.exp().clamp(max=MOST_SCALE)
        loss = pair_loss(settings.loss, images, texts, labels, scale, done)
        if others:
            loss = loss + settings.between_texts * pair_loss(settings.loss, texts, others[0], labels, scale, done)
        self.optimizer.zero_grad()
        loss.backward()
        value = float(loss.detach())
        if math.isfinite(value):
            torch.nn.utils.clip_grad_norm_(self.both.parameters(), 5.0)
            self.optimizer.step()
        return value

    def _drawn(self, batch: np.ndarray, rng: np.random.Generator) -> list[list[Token]]:
        """For each picture any text of its label, changed."""
        texts = []
        for row in batch:
            own = self.texts_of[int(self.labels[row])]
            words = self.words[own[int(rng.integers(len(own)))]]
            words = changed(words, self.letters, self.of_pairs.typos, self.of_pairs.drop, rng)
            texts.append([token for word in words for token in self.tokens_of(word)][:MOST_TOKENS])
        return texts

    def _score(self) -> float:
        """Mean average precision among the held-out products, the mean of text to image and image to text, 0..1."""
        import torch

        with torch.inference_mode():
            images = self.both["image"](torch.from_numpy(self.held.features).to(self.device)).cpu().numpy()
            words = [read_words(text) for text in self.held.texts]
            told = [row for row, some in enumerate(words) if some]
            texts = np.stack(
                [text_vector(self.both, self.tokens.tokens(words[row]), self.of_pairs.dims) for row in told]
            )
        scores = texts @ images.T
        relevant = self.held.labels[told][:, None] == self.held.labels[None, :]
        return (mean_average_precision(scores, relevant) + mean_average_precision(scores.T, relevant.T)) / 2

    def judged(self, progress: Progress) -> tuple[float | None, dict[str, Any]]:
        self.both.eval()
        return self._score() if len(self.held.labels) else None, self.both.state_dict()

    def state(self) -> dict[str, Any]:
        return {**self.kept(), "weights": self.both.state_dict()}

    def restore(self, state: dict[str, Any]) -> None:
        self.both.load_state_dict(state["weights"])
        self.take_back(state)

    def result(self) -> TrainedPairs:
        self.both.load_state_dict(self.best[2])
        return TrainedPairs(self.both.cpu().eval(), self.shape, list(self.history), self.best[0])


def mean_average_precision(scores: np.ndarray, relevant: np.ndarray) -> float:
    """The mean over the rows that have anything relevant.

    Args:
        scores: (q, n), the higher the nearer; equal ones rank in the order of their columns.
        relevant: (q, n) bool.

    Returns:
        0 to 1; 0 where no row has anything relevant.
    """
    order = np.argsort(-scores, axis=1, kind="stable")
    hits = np.take_along_axis(relevant, order, axis=1)
    hits = hits[hits.any(1)]
    if not len(hits):
        return 0.0
    precision = np.cumsum(hits, axis=1) / np.arange(1, hits.shape[1] + 1)
    return float(((precision * hits).sum(1) / hits.sum(1)).mean())


def _letters(words: Sequence[Sequence[str]]) -> list[str]:
    """The most frequent letters, each as often as it is rare or not: a wrong letter is any of them."""
    from collections import Counter

    counts = Counter(letter for text in words for word in text for letter in word if letter.isalpha())
    return [letter for letter, _ in sorted(counts.items(), key=lambda one: (-one[1], one[0]))[:LETTERS]]
