"""The two towers: tokens to one vector of the shared space, and a picture's frozen features to another.

The text tower reads token vectors by a recurrent network or a Transformer, and weighs the tokens by what it has read
(attention pooling). The vectors of the tokens themselves come along beside its states: a rare name, which training can
teach it little about, still tells texts apart by its letters.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from retrieval_bench.core import BenchError
from retrieval_bench.pair_training.settings import HEADS, WIDTHS, PairSettings, TowerKind
from retrieval_bench.pair_training.tokenise import MOST_TOKENS, Token

DROPOUT = 0.1
LARGEST_TABLE = 1 << 20
"""Rows of token vectors, and numbers of a picture's features, that a file may ask for."""


@dataclass(frozen=True)
class TowerShape:
    """How large the towers are.

    Args:
        kind: of the text tower.
        rows: of the table of token vectors.
        width: numbers of a token's vector.
        hidden: numbers of the tower's state.
        layers: of the text tower.
        features: numbers of a picture's features.
        dims: numbers of the shared space.
    """

    kind: TowerKind
    rows: int
    width: int
    hidden: int
    layers: int
    features: int
    dims: int

    @classmethod
    def of(cls, settings: PairSettings, rows: int, features: int) -> TowerShape:
        """The shape that these settings ask for."""
        return cls(settings.text_tower, rows, settings.width, settings.state, settings.layers, features, settings.dims)

    @classmethod
    def from_data(cls, data: Mapping[str, Any]) -> TowerShape:
        """Read what `data` gave. Raises BenchError where it is no shape, or of sizes that no training has."""
        try:
            shape = cls(**data)
            numbers = {name: value for name, value in asdict(shape).items() if name != "kind"}
            sound = all(type(value) is int for value in numbers.values())
            sound = sound and all(WIDTHS[0] <= numbers[name] <= WIDTHS[1] for name in ("width", "hidden", "dims"))
            sound = sound and 1 <= shape.layers <= 4
            sound = sound and all(1 <= numbers[name] <= LARGEST_TABLE for name in ("rows", "features"))
            sound = sound and shape.kind in ("gru", "lstm", "transformer")
            sound = sound and not (shape.kind == "transformer" and shape.hidden % HEADS)
        except TypeError:
            sound = False
        if not sound:
            raise BenchError("it names no towers that this program can build; train it again")
        return shape

    @property
    def data(self) -> dict[str, Any]:
        """What the file keeps."""
        return asdict(self)


@dataclass(frozen=True)
class Batch:
    """Texts as the tower takes them.

    Args:
        rows: all rows of the table, token by token, text by text.
        begins: where each token begins in `rows`.
        lengths: tokens of each text, at least 1.
    """

    rows: Any
    begins: Any
    lengths: list[int]

    @classmethod
    def of(cls, texts: Sequence[Sequence[Token]], device: str = "cpu") -> Batch:
        """Texts of one token and more."""
        import torch

        tokens = [token for text in texts for token in text]
        begins = np.cumsum([0, *(len(token) for token in tokens[:-1])])
        rows = np.fromiter((row for token in tokens for row in token), np.int64)
        return cls(
            torch.from_numpy(rows).to(device), torch.from_numpy(begins).to(device), [len(text) for text in texts]
        )


def towers(shape: TowerShape) -> Any:
    """Build both towers with first weights from torch's generator.

    Args:
        shape: how large they are.

    Returns:
        A module with `text(batch)` and `image(features)`, each giving (n, dims) rows of length 1, and the parameter
        `scale`, by which cosines are multiplied in the loss, as a logarithm.
    """
    from torch import nn

    return nn.ModuleDict({"text": _text_tower(shape), "image": _image_tower(shape)})


def _text_tower(shape: TowerShape) -> Any:
    import torch
    from torch import nn
    from torch.nn import functional

    recurrent = {"gru": nn.GRU, "lstm": nn.LSTM}.get(shape.kind)
    state = shape.hidden if recurrent is None else 2 * shape.hidden

    class TextTower(nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.table = nn.EmbeddingBag(shape.rows, shape.width, mode="mean")
            self.dropout = nn.Dropout(DROPOUT)
            if recurrent is not None:
                self.reader = recurrent(shape.width, shape.hidden, shape.layers, batch_first=True, bidirectional=True)
            else:
                self.entry = nn.Linear(shape.width, shape.hidden)
                self.positions = nn.Parameter(torch.randn(MOST_TOKENS, shape.hidden) * 0.02)
                layer = nn.TransformerEncoderLayer(
                    shape.hidden, HEADS, 2 * shape.hidden, DROPOUT, batch_first=True, norm_first=True
                )
                self.reader = nn.TransformerEncoder(layer, shape.layers, enable_nested_tensor=False)
            self.attention = nn.Linear(state, HEADS)
            self.out = nn.Linear(HEADS * (state + shape.width), shape.dims)

        def forward(self, batch: Batch) -> Any:
            vectors = self.table(batch.rows, batch.begins)
            lengths = torch.tensor(batch.lengths)
            places = torch.arange(max(batch.lengths))[None]
            outside = (places >= lengths[:, None]).to(vectors.device)
            # Gathered in one go: the gradient of torch's pad_sequence copies the whole batch once for each text.
            rows = (lengths.cumsum(0) - lengths)[:, None] + torch.minimum(places, lengths[:, None] - 1)
            padded = vectors[rows.to(vectors.device)].masked_fill(outside[..., None], 0)
            padded = self.dropout(padded)
            even = min(batch.lengths) == max(batch.lengths)
            states = self._read(padded, lengths, None if even else outside)
            weights = self.attention(self.dropout(states)).masked_fill(outside[..., None], -torch.inf).softmax(1)
            both = torch.cat([states, padded], 2)
            pooled = torch.einsum("nth,ntd->nhd", weights, both).flatten(1)
            return functional.normalize(self.out(pooled), dim=1)

        def _read(self, padded: Any, lengths: Any, outside: Any) -> Any:
            if recurrent is None:
                states = self.entry(padded) + self.positions[: padded.shape[1]]
                return self.reader(states, src_key_padding_mask=outside)
            if outside is None:
                return self.reader(padded)[0]
            packed = nn.utils.rnn.pack_padded_sequence(padded, lengths, batch_first=True, enforce_sorted=False)
            return nn.utils.rnn.pad_packed_sequence(self.reader(packed)[0], batch_first=True)[0]

    return TextTower()


def _image_tower(shape: TowerShape) -> Any:
    import torch
    from torch import nn
    from torch.nn import functional

    class ImageTower(nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("mean", torch.zeros(shape.features))
            self.register_buffer("deviation", torch.ones(shape.features))
            self.dropout = nn.Dropout(2 * DROPOUT)
            self.out = nn.Linear(shape.features, shape.dims)
            self.scale = nn.Parameter(torch.zeros(()))

        def forward(self, features: Any) -> Any:
            scaled = (features - self.mean) / self.deviation
            return functional.normalize(self.out(self.dropout(scaled)), dim=1)

    return ImageTower()


def set_scaling(both: Any, features: Any) -> None:
    """Let the image tower bring these features, (n, d), to mean 0 and deviation 1 first."""
    deviation = features.double().std(0, unbiased=False)
    # A number that is nearly always the same would be blown up by the one picture that it differs for.
    deviation = deviation.clamp(min=0.1 * max(float(deviation.mean()), 1e-12))
    both["image"].mean.copy_(features.double().mean(0).float())
    both["image"].deviation.copy_(deviation.float())


def restored(shape: TowerShape, state: Mapping[str, Any]) -> Any:
    """The towers with the weights of a file.

    Args:
        shape: how large they are.
        state: name -> tensor.

    Returns:
        What `towers` returns, in eval mode.

    Raises:
        BenchError: A tensor is missing, of another shape or not finite; behind the name of the file.
    """
    import torch

    with torch.device("meta"):
        both = towers(shape)
    expected = both.state_dict()
    for name, wanted in expected.items():
        value = state.get(name)
        if value is None:
            raise BenchError(f"it lacks {name}; train it again")
        if value.shape != wanted.shape or value.dtype != wanted.dtype:
            raise BenchError(
                f"{name} is {_kind(value)} and its towers need {_kind(wanted)}; its weights are of other towers"
            )
        if not value.isfinite().all():
            raise BenchError(f"{name} holds NaN or inf; replace it by a good copy")
    if unknown := sorted(state.keys() - expected.keys()):
        raise BenchError(f"it holds the unknown {unknown[0][:80]}; its weights are of other towers")
    both.load_state_dict(dict(state), assign=True)
    return both.eval().requires_grad_(False)


def _kind(tensor: Any) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')} {tuple(tensor.shape)}"


def text_vector(both: Any, tokens: Sequence[Token], dims: int) -> np.ndarray:
    """(dims,) float32 of length 1 of one text, or zeros where it has no token. Alone, so that no other text counts."""
    import torch

    if not tokens:
        return np.zeros(dims, np.float32)
    with torch.inference_mode():
        vector: np.ndarray = both["text"](Batch.of([tokens]))[0].numpy()
    return vector


def image_vector(both: Any, features: np.ndarray) -> np.ndarray:
    """(d,) float32 features of one picture -> (dims,) float32 of length 1; zeros stay zeros."""
    import torch

    if not features.any():
        return np.zeros(both["image"].out.out_features, np.float32)
    with torch.inference_mode():
        vector: np.ndarray = both["image"](torch.from_numpy(features)[None])[0].numpy()
    return vector
