"""What `cross` learns: a Transformer of two layers that reads the tokens of a query and of a candidate together.

Its output is added to the score of the search before it, and begins at zero: untrained, it changes no order.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from retrieval_bench.extractors.text.hashed_words import BUCKETS, bucket_rows

WIDTH, HEADS, LAYERS = 64, 4, 2
PIECES = 4
"""Tokens that a vector is cut into."""
DROPOUT = 0.2


@dataclass(frozen=True, eq=False)
class ItemTokens:
    """Tokens of n items, as tensors.

    Args:
        vectors: of each array of features, (n, d) float32; a row of zeros is an item that lacks it.
        words: (n, words, n-grams) int64 of `hashed_words`; 0 pads.
    """

    vectors: tuple[Any, ...]
    words: Any

    @classmethod
    def of(cls, vectors: Mapping[str, np.ndarray], words: np.ndarray) -> ItemTokens:
        """From the features of n items: arrays of numbers, and packed rows of words."""
        import torch

        numbers = tuple(torch.from_numpy(np.ascontiguousarray(array, np.float32)) for array in vectors.values())
        return cls(numbers, torch.from_numpy(bucket_rows(words).astype(np.int64)))

    def take(self, rows: Any) -> ItemTokens:
        """These items."""
        return ItemTokens(tuple(one[rows] for one in self.vectors), self.words[rows])


def cross_network(widths: tuple[int, ...]) -> Any:
    """Build it, with first weights from torch's generator.

    Args:
        widths: numbers of each vector of an item.

    Returns:
        A module: (queries, candidates, scores) of p pairs each, scores (p,) float32 of the search before -> (p,)
        float32, larger for what is more alike.
    """
    import torch
    from torch import nn

    class CrossNetwork(nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.table = nn.Embedding(BUCKETS, WIDTH, padding_idx=0)
            nn.init.normal_(self.table.weight, std=0.1)
            self.pieces = nn.ModuleList(
                nn.ModuleList(nn.Linear(len(part), WIDTH) for part in np.array_split(np.arange(width), PIECES))
                for width in widths
            )
            # Of the query and of the candidate, where a token is from: one of the vectors, or the text.
            self.origin = nn.Parameter(torch.randn(2, len(widths) + 1, WIDTH) * 0.1)
            self.first = nn.Parameter(torch.randn(WIDTH) * 0.1)
            self.score = nn.Linear(1, WIDTH)
            self.dropout = nn.Dropout(DROPOUT)
            layer = nn.TransformerEncoderLayer(WIDTH, HEADS, 2 * WIDTH, DROPOUT, batch_first=True, norm_first=True)
            self.reader = nn.TransformerEncoder(layer, LAYERS, enable_nested_tensor=False)
            self.out = nn.Linear(WIDTH, 1)
            nn.init.zeros_(self.out.weight)
            nn.init.zeros_(self.out.bias)

        def forward(self, queries: ItemTokens, candidates: ItemTokens, scores: Any) -> Any:
            first = (self.first + self.score(scores[:, None]))[:, None]
            tokens, lacking = [first], [torch.zeros(len(scores), 1, dtype=torch.bool)]
            for side, items in enumerate((queries, candidates)):
                for number, vectors in enumerate(items.vectors):
                    parts = vectors.tensor_split(PIECES, dim=1)
                    read = [linear(part) for linear, part in zip(self.pieces[number], parts, strict=True)]
                    tokens.append(torch.stack(read, 1) + self.origin[side, number])
                    lacking.append((~vectors.any(1))[:, None].expand(-1, PIECES))
                grams = items.words[:, : _longest(items.words)]
                some = (grams > 0).sum(2, keepdim=True)
                words = self.table(grams).sum(2) / some.clamp(min=1)
                tokens.append(words + self.origin[side, -1])
                lacking.append(some[:, :, 0] == 0)
            outside = torch.cat(lacking, 1)
            states = self.reader(self.dropout(torch.cat(tokens, 1)), src_key_padding_mask=outside)
            return scores + self.out(states[:, 0])[:, 0]

    return CrossNetwork()


def _longest(words: Any) -> int:
    """Words of the longest of some texts: nothing behind them is read."""
    places = (words > 0).any(2).any(0).nonzero()
    return int(places[-1]) + 1 if len(places) else 0


def together(
    network: Any, queries: ItemTokens, query: int, items: ItemTokens, rows: np.ndarray, scores: np.ndarray
) -> np.ndarray:
    """(c,) float32: what the network says of one query with each of these items. scores: of the search before."""
    import torch

    with torch.inference_mode():
        chosen = torch.from_numpy(rows.astype(np.int64))
        asked = queries.take(torch.full((len(rows),), query))
        said: np.ndarray = network(asked, items.take(chosen), torch.from_numpy(scores)).numpy()
    return said
