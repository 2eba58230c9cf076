"""What a file that `export` wrote says of itself: how images are prepared for it, and where its numbers are from.

ONNX keeps it among its metadata, TorchScript as an extra file, both as JSON under the name KEY.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from retrieval_bench.core import BenchError
from retrieval_bench.extractors.deep.preprocess import Preprocess

KEY = "retrieval_bench.json"
FORMAT = 1


@dataclass(frozen=True)
class Notes:
    """method: canonical name of what was exported. version: of the program that did it. preprocess: before the file.

    dimensions: numbers in a row. mark: "untrained" or "". weights: source, sha256 and recipe of the original's.
    seed: of the run. learned_from: dataset whose train post-processing learned from, or None. trained_on: {"dataset":
    ..., "images": [sha256, ...]} of all that was learned from, or None. int8: how it was quantised, or None.
    """

    method: str
    version: str
    preprocess: Preprocess
    dimensions: int
    mark: str
    weights: Mapping[str, str]
    seed: int
    learned_from: str | None = None
    trained_on: Mapping[str, Any] | None = None
    int8: Mapping[str, Any] | None = None

    def to_json(self) -> str:
        return json.dumps({"format": FORMAT, **asdict(self)}, allow_nan=False)


def notes_of(called: str, text: str | bytes) -> Notes | None:
    """The notes of a file from what stands under KEY; None where nothing does. Raises BenchError where it is no such
    JSON. called: the file, for the sentence."""
    if not text:
        return None
    try:
        facts = json.loads(text)
        if facts.pop("format") != FORMAT:
            raise BenchError(
                f"{called}: its notes are of another version of this program; export it again with this one"
            )
        facts["preprocess"] = _preprocess(facts["preprocess"])
        return Notes(**facts)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise BenchError(
            f"{called}: its notes of {KEY} are damaged ({type(error).__name__}: {error}); export it again"
        ) from None


def _preprocess(facts: Mapping[str, Any]) -> Preprocess:
    """JSON has lists where the figures of channels are tuples."""
    figures: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value for name, value in facts.items()
    }
    return Preprocess(**figures)
