"""First vectors of words from a text file as GloVe has them: a word and its numbers on each line."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from retrieval_bench.core import BenchError, printable
from retrieval_bench.pair_training.settings import WIDTHS
from retrieval_bench.pair_training.tokenise import Tokens, WordTokens


def width_of(file: Path) -> int:
    """How many numbers a word has in this file. Raises BenchError where it cannot be read or is no such file."""
    try:
        with file.open(encoding="utf-8", errors="replace") as lines:
            first = lines.readline(1 << 16).split(" ")
            if len(first) == 2:  # word2vec and fastText say first how many words and numbers there are
                first = lines.readline(1 << 16).split(" ")
    except OSError as error:
        raise BenchError(f"--word-vectors {printable(file)}: cannot be read ({error.strerror}); name another") from None
    width = len(first) - 1
    if not WIDTHS[0] <= width <= WIDTHS[1]:
        raise BenchError(
            f"--word-vectors {printable(file)}: its first line is no word with {WIDTHS[0]} to {WIDTHS[1]} numbers "
            "behind it; name a text file as GloVe has them"
        )
    return width


def start_from(file: Path, tokens: Tokens, width: int) -> np.ndarray:
    """First vectors of a table.

    Args:
        file: words with their numbers, separated by single spaces.
        tokens: whose table it is; `WordTokens`, as no other has words.
        width: numbers of a word.

    Returns:
        (tokens.size, width) float32, rows of length 1; NaN for what the file does not have.

    Raises:
        BenchError: A word of the vocabulary has another count of numbers, or none that are finite; or no word is in it.
    """
    if not isinstance(tokens, WordTokens):
        raise BenchError("--word-vectors are of words and not of pieces; leave it out or choose --tokens words")
    wanted = {word: row for row, word in enumerate(tokens.vocabulary)}
    start = np.full((tokens.size, width), np.nan, np.float32)
    with file.open(encoding="utf-8", errors="replace") as lines:
        for number, line in enumerate(lines, 1):
            word, _, rest = line.rstrip("\n").partition(" ")
            row = wanted.get(word.casefold())
            if row is None or np.isfinite(start[row, 0]):
                continue
            try:
                vector = np.array(rest.split(), np.float32)
            except ValueError:
                vector = np.empty(0, np.float32)
            length = float(np.linalg.norm(vector))
            if len(vector) != width or not 0 < length < np.inf:
                raise BenchError(
                    f"--word-vectors {printable(file)}: line {number} does not hold {width} finite numbers behind its "
                    "word; repair it"
                )
            start[row] = vector / length
    if not np.isfinite(start[:, 0]).any():
        raise BenchError(f"--word-vectors {printable(file)}: none of the words of train is in it; leave it out")
    return start
