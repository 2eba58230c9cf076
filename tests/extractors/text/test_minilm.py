"""all-MiniLM-L6-v2 is the network that it claims to be."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import pytest

from retrieval_bench.extractors.text import minilm
from tests.support.text_models import built

SENTENCES = (
    "This is an example sentence",
    "Each sentence is converted",
    "Nike Air Zoom Pegasus 38 Women's Running Shoe, breathable mesh upper, black/white",
    "Ein roter Schuh. 赤い靴",
    "x",
    "a pair of waterproof hiking boots with a very long description " * 12,
)
KNOWN = (6.76569194e-02, 6.34959415e-02, 4.87131178e-02, 7.93049559e-02, 3.74480933e-02, 2.65279575e-03)
"""The first numbers of the first sentence, as they are known of Sentence Transformers: no code here has made them."""


@functools.cache
def weights() -> dict[str, Any]:
    from safetensors.torch import load_file

    return {name: value.double() for name, value in load_file(minilm.FP32.find("test")).items()}


def by_torch(text: str) -> np.ndarray:
    """The slow twin: BERT as the paper has it, attention head by head, in float64. (WIDTH,), not yet of length 1."""
    import torch
    from tokenizers import Tokenizer
    from torch.nn import functional as F

    state = weights()

    def linear(x: torch.Tensor, name: str) -> torch.Tensor:
        return x @ state[f"{name}.weight"].T + state[f"{name}.bias"]

    def norm(x: torch.Tensor, name: str) -> torch.Tensor:
        return F.layer_norm(x, x.shape[-1:], state[f"{name}.weight"], state[f"{name}.bias"], 1e-12)

    tokenizer = Tokenizer.from_file(str(minilm.TOKENIZER.find("test")))
    tokenizer.no_padding()
    tokenizer.no_truncation()
    ids = tokenizer.encode(text).ids
    ids = ids if len(ids) <= 256 else [*ids[:255], ids[-1]]
    x = state["embeddings.word_embeddings.weight"][ids] + state["embeddings.position_embeddings.weight"][: len(ids)]
    x = norm(x + state["embeddings.token_type_embeddings.weight"][0], "embeddings.LayerNorm")
    for number in range(6):
        layer = f"encoder.layer.{number}"
        query, key, value = (linear(x, f"{layer}.attention.self.{name}") for name in ("query", "key", "value"))
        heads = [slice(32 * head, 32 * head + 32) for head in range(12)]
        mixed = [((query[:, h] @ key[:, h].T) / 32**0.5).softmax(-1) @ value[:, h] for h in heads]
        x = norm(
            x + linear(torch.cat(mixed, 1), f"{layer}.attention.output.dense"), f"{layer}.attention.output.LayerNorm"
        )
        wide = F.gelu(linear(x, f"{layer}.intermediate.dense"))
        x = norm(x + linear(wide, f"{layer}.output.dense"), f"{layer}.output.LayerNorm")
    return x.mean(0).numpy()


def test_it_gives_what_is_known_of_it() -> None:
    (row,) = built("minilm").transform_texts(SENTENCES[:1])
    np.testing.assert_allclose(row[: len(KNOWN)], KNOWN, atol=1e-6)


@pytest.mark.slow(reason="the network in float64, head by head")
def test_it_gives_the_same_as_its_slow_twin() -> None:
    rows = built("minilm").transform_texts(SENTENCES)
    twins = np.stack([by_torch(text) for text in SENTENCES])
    twins /= np.linalg.norm(twins, axis=1, keepdims=True)
    np.testing.assert_allclose(rows, twins, atol=2e-6)


def test_int8_is_near() -> None:
    """Measured: cosines from 0.9984 to 0.9997."""
    near = (built("minilm").transform_texts(SENTENCES) * built("minilm:runtime=int8").transform_texts(SENTENCES)).sum(
        axis=1
    )
    assert near.min() > 0.997


def test_what_means_the_same_is_nearer() -> None:
    one, other, far = built("minilm").transform_texts(
        ["red running shoes", "scarlet sneakers for jogging", "a jar of honey"]
    )
    assert one @ other > 0.5 > one @ far


@pytest.mark.parametrize("method", ["minilm", "minilm:runtime=int8"])
def test_a_text_longer_than_the_window_is_cut_there(method: str) -> None:
    extractor = built(method)
    assert extractor.window == 256
    fits, longer, shorter = extractor.transform_texts(["red " * 254, "red " * 254 + "honey", "red " * 253 + "honey"])
    np.testing.assert_array_equal(longer, fits)
    assert (shorter != fits).any()


@pytest.mark.parametrize("text", ["\x00\x01\x02", "\u200b\ufeff", "\udcff"])
def test_a_text_without_a_token_gives_zeros(text: str) -> None:
    assert not built("minilm").transform_texts([text]).any()
