"""How `cross` learns: training items ask among each other, and those of their label are to come first.

The loss is the cross-entropy of a softmax over some candidates of a query, hard ones: those that the search before puts
first. Some labels are held out, and the mean average precision of their short lists chooses the epoch. An epoch that is
not clearly better there than the search before is not taken, and without any the order stays as it is.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from retrieval_bench.core import Ranking
from retrieval_bench.methods.reranking.cross_network import ItemTokens, cross_network, together
from retrieval_bench.system.progress import Progress, silent
from retrieval_bench.system.timing import pinned
from retrieval_bench.training_loop.holdout import hold_out_labels

QUERIES = 8
"""Of a step."""
CANDIDATES = 16
"""Of a query in a step, those of its label included."""
RATE, DECAY = 1e-3, 0.05
HOLDOUT = 0.2
SHORTENED, MISSPELT, UNSEEN = 0.6, 0.15, 0.3
"""Shares of texts, words and items that are changed while they ask: see `shortened`."""


def first_scores(distances: np.ndarray) -> np.ndarray:
    """(q, c) float32: minus the distances, each row brought to mean 0 and deviation 1; 0 where it is padded."""
    real = np.isfinite(distances)
    values = np.where(real, distances.astype(np.float64), 0)
    count = np.maximum(real.sum(axis=1, keepdims=True), 1)
    mean = values.sum(axis=1, keepdims=True) / count
    apart = np.where(real, values - mean, 0)
    deviation = np.sqrt((apart**2).sum(axis=1, keepdims=True) / count)
    scores: np.ndarray = (-apart / np.maximum(deviation, 1e-9)).astype(np.float32)
    return scores


def train_cross(
    vectors: Mapping[str, np.ndarray],
    words: np.ndarray,
    found: Ranking,
    labels: np.ndarray,
    *,
    epochs: int,
    seed: int,
    progress: Progress = silent,
) -> tuple[Any, int]:
    """Train the network.

    Args:
        vectors: name -> (n, d) float32 of the training items.
        words: (n, bytes) packed words of them.
        found: what the search before finds for each of them among them, itself left out.
        labels: (n,) int64.
        epochs: how often each item asks.
        seed: fixes first weights, order and candidates.
        progress: called with (what, steps done, steps in all).

    Returns:
        The network in eval mode, and the epoch that it is of; 0: as it was before training.
    """
    import torch

    items = ItemTokens.of(vectors, words)
    learned, held = hold_out_labels(labels, HOLDOUT, seed)
    before = first_scores(found.distances)
    with pinned(1), torch.random.fork_rng(devices=[]):
        torch.random.default_generator.manual_seed(seed)
        network = cross_network(tuple(array.shape[1] for array in vectors.values()))
        at_first = _precisions(network, items, found, before, labels, held)
        best = (0.0, 0, copy.deepcopy(network.state_dict()))
        optimizer = torch.optim.AdamW(network.parameters(), RATE, weight_decay=DECAY)
        tasks = _Candidates(found, before, labels, learned)
        steps = epochs * tasks.steps
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, total_steps=max(steps, 2))
        done = 0
        for epoch in range(epochs):
            network.train()
            rng = np.random.default_rng([seed, epoch])
            for queries, rows, scores, right in tasks.batches(rng):
                pairs = rows.shape
                asked = shortened(items.take(torch.from_numpy(queries)), rng)
                asked = asked.take(torch.from_numpy(np.repeat(np.arange(len(queries)), pairs[1])))
                shown = items.take(torch.from_numpy(rows.ravel()))
                said = network(asked, shown, torch.from_numpy(scores.ravel())).view(pairs)
                wanted = torch.from_numpy(right)
                share = wanted / wanted.sum(1, keepdim=True)
                loss = -(share * said.log_softmax(1)).sum(1).mean()
                optimizer.zero_grad()
                loss.backward()
                torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
                optimizer.step()
                schedule.step()
                done += 1
                progress("learning to re-rank", done, steps)
            network.eval()
            gained = _precisions(network, items, found, before, labels, held) - at_first
            if _clearly_above_zero(gained) and gained.mean() > best[0]:
                best = (float(gained.mean()), epoch + 1, copy.deepcopy(network.state_dict()))
    network.load_state_dict(best[2])
    return network.eval().requires_grad_(False), best[1]


def shortened(items: ItemTokens, rng: np.random.Generator) -> ItemTokens:
    """The same items as customers would ask for them: of most texts a few words are left, of some words some letters,
    and some items have no vector."""
    import torch

    n, words, grams = items.words.shape
    there = (items.words > 0).any(2).numpy()
    order = np.where(there, rng.random((n, words)), np.inf).argsort(1).argsort(1)
    kept = (order < rng.integers(2, 7, n)[:, None]) | (rng.random(n) >= SHORTENED)[:, None]
    whole = rng.random((n, words)) >= MISSPELT
    letters = whole[:, :, None] | (rng.random((n, words, grams)) < 0.5)
    letters[:, :, 0] &= whole  # the word as a whole is another one
    mask = torch.from_numpy(kept[:, :, None] & letters)
    seen = torch.from_numpy((rng.random(n) >= UNSEEN).astype(np.float32))[:, None]
    return ItemTokens(tuple(one * seen for one in items.vectors), items.words * mask)


class _Candidates:
    """Queries with candidates that are hard to tell apart, both among the rows that are learned from."""

    def __init__(self, found: Ranking, before: np.ndarray, labels: np.ndarray, learned: np.ndarray) -> None:
        known = np.isin(found.indices, learned)
        alike = (found.indices >= 0) & (labels[found.indices] == labels[:, None])
        right, wrong = known & alike, known & ~alike
        self.queries = learned[(right.sum(1) > 0)[learned] & (wrong.sum(1) > 0)[learned]]
        self._found, self._before, self._right, self._wrong = found, before, right, wrong
        self.steps = -(-len(self.queries) // QUERIES)

    def batches(self, rng: np.random.Generator) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]]:
        """(queries, rows, scores, right) of each step: (q,), and (q, CANDIDATES) each; right is 1 or 0."""
        order = rng.permutation(self.queries)
        for start in range(0, len(order), QUERIES):
            some = order[start : start + QUERIES]
            places = np.stack([self._places(query, rng) for query in some])
            rows = np.take_along_axis(self._found.indices[some], places, 1)
            scores = np.take_along_axis(self._before[some], places, 1)
            right = np.take_along_axis(self._right[some], places, 1).astype(np.float32)
            yield some, rows, scores, right

    def _places(self, query: int, rng: np.random.Generator) -> np.ndarray:
        right = rng.permutation(np.flatnonzero(self._right[query]))[: CANDIDATES // 2]
        wrong = np.flatnonzero(self._wrong[query])
        wanted = CANDIDATES - len(right)
        return np.concatenate([right, rng.choice(wrong, wanted, replace=len(wrong) < wanted)])


def _precisions(
    network: Any, items: ItemTokens, found: Ranking, before: np.ndarray, labels: np.ndarray, held: np.ndarray
) -> np.ndarray:
    """(l,) float64: of each held-out label, the mean average precision of its items' short lists; labels of which no
    list holds an item are left out."""
    values: dict[int, list[float]] = {}
    asked = shortened(items, np.random.default_rng(0))
    for query in held.tolist():
        there = found.indices[query] >= 0
        rows = found.indices[query][there]
        right = labels[rows] == labels[query]
        if right.any():
            said = together(network, asked, query, items, rows, before[query][there])
            ranks = np.flatnonzero(right[np.argsort(-said, kind="stable")])
            values.setdefault(int(labels[query]), []).append(float(np.mean(np.arange(1, len(ranks) + 1) / (ranks + 1))))
    return np.array([np.mean(of_label) for of_label in values.values()])


def _clearly_above_zero(gained: np.ndarray) -> bool:
    """Whether the mean over labels is further above 0 than twice its standard error."""
    if len(gained) < 2:
        return False
    return bool(gained.mean() > 2 * gained.std(ddof=1) / np.sqrt(len(gained)))
