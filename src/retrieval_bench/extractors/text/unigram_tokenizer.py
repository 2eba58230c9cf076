"""A unigram model of SentencePiece (Kudo, ACL 2018), read from its file and run by `tokenizers`."""

from __future__ import annotations

import struct
import unicodedata
from collections.abc import Callable, Iterator
from pathlib import Path

SPACE = "\u2581"
"""What SentencePiece writes for a space."""
FULL_WIDTH_TILDE = "\uff5e"
"""Which SentencePiece does not normalise, as it means something else in Japanese."""
ORDINARY = 1
SPECIAL = (2, 3)
"""Types of pieces; the special ones stand for no text: unknown, and control such as <s>."""


def unigram_tokenizer(path: Path) -> Callable[[str], list[int]]:
    """Read a SentencePiece model with the normalisation nmt_nfkc, as the Universal Sentence Encoder has.

    Args:
        path: the file, a protocol buffer `ModelProto`.

    Returns:
        A function: text -> ids of its pieces, without <s> and </s>; consecutive unknown characters are one id.
    """
    from tokenizers import Regex, Tokenizer, models, normalizers

    pieces, charsmap = _read(path.read_bytes())
    # "<s>" in a text is markup and no control piece: with a space in its name none can be found, as texts have SPACE.
    vocabulary = [(f"{text} " if kind in SPECIAL else text, score) for text, score, kind in pieces]
    tokenizer = Tokenizer(models.Unigram(vocabulary, unk_id=0, byte_fallback=False))
    tokenizer.normalizer = normalizers.Sequence(
        [
            normalizers.Precompiled(charsmap),
            normalizers.Strip(True, True),
            normalizers.Replace(Regex(" {2,}"), " "),
            normalizers.Prepend(SPACE),
            normalizers.Replace(" ", SPACE),
        ]
    )
    return lambda text: tokenizer.encode(_composed(text), add_special_tokens=False).ids


def _composed(text: str) -> str:
    """NFKC: `Precompiled` alone gets it wrong where a letter is several characters, as in Hangul or half-width kana."""
    parts = text.split(FULL_WIDTH_TILDE)
    return FULL_WIDTH_TILDE.join(unicodedata.normalize("NFKC", part) for part in parts)


def _read(data: bytes) -> tuple[list[tuple[str, float, int]], bytes]:
    """Pieces as (text, score, type), and the table of the normalisation.

    ModelProto: 1 pieces {1 text, 2 score, 3 type}, 3 normalizer {2 precompiled_charsmap}.
    """
    pieces: list[tuple[str, float, int]] = []
    charsmap = b""
    for number, inside, _ in _fields(data):
        if number == 1:
            piece = {field: (raw, whole) for field, raw, whole in _fields(inside)}
            (score,) = struct.unpack("<f", piece[2][0])
            kind = piece[3][1] if 3 in piece else ORDINARY
            pieces.append((piece[1][0].decode(), score, kind))
        elif number == 3:
            charsmap = next(raw for field, raw, _ in _fields(inside) if field == 2)
    return pieces, charsmap


def _fields(data: bytes) -> Iterator[tuple[int, bytes, int]]:
    """The fields of a protocol buffer: number, bytes (or none), whole number (or 0); nothing is checked."""
    at = 0
    while at < len(data):
        tag, at = _varint(data, at)
        number, kind = tag >> 3, tag & 7
        if kind == 0:
            whole, at = _varint(data, at)
            yield number, b"", whole
            continue
        if kind == 2:
            length, at = _varint(data, at)
        else:
            length = {1: 8, 5: 4}[kind]
        yield number, data[at : at + length], 0
        at += length


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """The whole number at a place, seven bits a byte, the lowest first; and the place behind it."""
    whole = shift = 0
    while True:
        byte = data[at]
        at += 1
        whole |= (byte & 127) << shift
        if byte < 128:
            return whole, at
        shift += 7
