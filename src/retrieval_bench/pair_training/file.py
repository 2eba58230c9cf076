"""The one file that a training on pairs makes: both towers, tokens, and what the pictures' extractors had learned.

It is safetensors, which holds numbers and runs nothing, with all else as JSON under one key of its metadata.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from retrieval_bench.core import BenchError, printable
from retrieval_bench.pair_training.tokenise import Tokens, tokens_from
from retrieval_bench.pair_training.towers import TowerShape, restored
from retrieval_bench.system.files import read_regular, write_whole

KEY = "retrieval_bench.pairs"
FORMAT = 1
MOST_BYTES = 16 << 30
TOWERS, LEARNED, IMAGES, TOKENS = "towers.", "learned.", "images", "tokens_sha256"
"""How the names of the tensors begin, or what they are: digests (n, 32) of the images, and the tokens' sha256 (32,),
which lies among the weights so that it goes where they go."""
SUFFIX = ".safetensors"


@dataclass(frozen=True, eq=False)
class PicturePart:
    """One extractor below the image tower.

    Args:
        spec: how it is called, with its options.
        weights_sha256: of its network's weights, "" where it has none.
        learned: name -> array, of what it learned from train.
    """

    spec: str
    weights_sha256: str
    learned: Mapping[str, np.ndarray]


@dataclass(frozen=True, eq=False)
class PairFile:
    """All of a file.

    Args:
        both: the towers, in eval mode.
        shape: theirs.
        tokens: of the text tower.
        parts: what describes pictures.
        seed: of the run, which the extractors were built with.
        facts: what was trained, on what, and how: dataset, fingerprint, labels, held_out, history, ...
        images: sha256 (hex) of the content of every image that was learned from or chosen by, ascending.
        sha256: of the file; "" before it is written.
    """

    both: Any
    shape: TowerShape
    tokens: Tokens
    parts: Sequence[PicturePart]
    seed: int
    facts: Mapping[str, Any]
    images: Sequence[str]
    sha256: str = ""


def written(found: PairFile) -> bytes:
    """The bytes of a file, the same for the same content."""
    import torch
    from safetensors.torch import save

    tensors = {f"{TOWERS}{name}": value.contiguous() for name, value in found.both.state_dict().items()}
    for number, part in enumerate(found.parts):
        for name, array in part.learned.items():
            try:
                tensors[f"{LEARNED}{number}.{name}"] = torch.from_numpy(np.array(array))
            except TypeError:
                raise BenchError(f"{part.spec} has learned {name}, which no file of pairs can keep") from None
    digests = np.array([list(bytes.fromhex(one)) for one in found.images], np.uint8).reshape(-1, 32)
    tensors[IMAGES] = torch.from_numpy(digests)
    tensors[TOKENS] = torch.tensor(list(bytes.fromhex(found.tokens.sha256)), dtype=torch.uint8)
    told = {
        "format": FORMAT,
        "shape": found.shape.data,
        "tokens": found.tokens.data,
        "parts": [
            {"spec": part.spec, "weights_sha256": part.weights_sha256, "learned": sorted(part.learned)}
            for part in found.parts
        ],
        "seed": found.seed,
        "facts": dict(found.facts),
    }
    content: bytes = save(tensors, {KEY: json.dumps(told, allow_nan=False, sort_keys=True)})
    return content


def write_pairs(path: Path, found: PairFile) -> None:
    """Write a file whole or not at all. Raises BenchError where it cannot be written."""
    content = written(found)
    try:
        write_whole(path, content)
    except BenchError as error:
        size = f"{len(content) / 2**20:.1f} MiB"
        raise BenchError(
            f"towers of {size} cannot be saved: {error}; free some space and continue with --resume: the checkpoint of "
            "the last epoch is still there"
        ) from None


def read_pairs(path: Path, called: str) -> PairFile:
    """Read a file and check all of it.

    Args:
        path: the file.
        called: the method, for sentences.

    Returns:
        Its content.

    Raises:
        BenchError: There is no such file, it is none of `write_pairs`, it is damaged, or its weights are of another
            tokenizer.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        content = read_regular(path, MOST_BYTES)
    except OSError as error:
        raise BenchError(
            f"{called}: {printable(path)} cannot be read ({error.strerror}); name one that `train --mode pairs` wrote"
        ) from None
    try:
        tensors = load(content)
        length = int.from_bytes(content[:8], "little")
        told = json.loads(json.loads(content[8 : 8 + length])["__metadata__"][KEY])
        if told["format"] != FORMAT:
            raise BenchError(f"{called}: its format is {told['format']!r:.20} and this program reads {FORMAT}")
        parts = [_part(number, one, tensors) for number, one in enumerate(told["parts"])]
        facts, seed = dict(told["facts"]), int(told["seed"])
        digests = tensors.pop(IMAGES).numpy()
        trained_with = bytes(tensors.pop(TOKENS).tolist()).hex()
        if not parts or digests.ndim != 2 or digests.shape[1] != 32 or digests.dtype != np.uint8:
            raise ValueError
        facts["dataset"] = str(facts["dataset"])
        shape_data, tokens_data = dict(told["shape"]), dict(told["tokens"])
    except (SafetensorError, KeyError, TypeError, ValueError, AttributeError, RecursionError):
        raise BenchError(
            f"{called}: {printable(path)} is no whole file of pairs; name one that `train --mode pairs` wrote"
        ) from None
    try:
        shape, tokens = TowerShape.from_data(shape_data), tokens_from(tokens_data)
        if tokens.sha256 != trained_with or shape.rows != tokens.size:
            raise BenchError(
                f"its text tower was trained with another tokenizer: that one's sha256 begins with {trained_with[:8]}, "
                f"that of the vocabulary in the file with {tokens.sha256[:8]}; take the file as training wrote it"
            )
        state = {name.removeprefix(TOWERS): value for name, value in tensors.items() if name.startswith(TOWERS)}
        both = restored(shape, state)
    except BenchError as error:
        raise BenchError(f"{called}: {error}") from None
    images = [bytes(row).hex() for row in digests]
    return PairFile(both, shape, tokens, parts, seed, facts, images, hashlib.sha256(content).hexdigest())


def _part(number: int, told: Mapping[str, Any], tensors: Mapping[str, Any]) -> PicturePart:
    learned = {str(name): tensors[f"{LEARNED}{number}.{name}"].numpy() for name in told["learned"]}
    return PicturePart(str(told["spec"]), str(told["weights_sha256"]), learned)
