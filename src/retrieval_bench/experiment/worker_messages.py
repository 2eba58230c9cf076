"""What a worker process is asked and what it answers. Light, as a worker is started before anything else is loaded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

    from retrieval_bench.images.decoded_cache import PixelIndex
    from retrieval_bench.records.schema import Statistics


@dataclass(frozen=True)
class Open:
    """The request to make the data ready.

    Args:
        plan: see `worker.packed`.
        plugins: files of plug-ins that are loaded here, too.
        modules: modules of the user that register names.
        script: the program that the user runs, where that registers names; "" where it does not.
        argv: the words of the command line.
        variables: the environment.
        level: log lines from this level on are passed on.
        pixels: where pixels lie that an earlier worker has decoded.
    """

    plan: dict[str, Any]
    plugins: Sequence[str]
    modules: Sequence[str]
    script: str
    argv: Sequence[str]
    variables: Mapping[str, str]
    level: int
    pixels: PixelIndex


@dataclass(frozen=True)
class Evaluate:
    """The request to evaluate a method of the plan, by its name."""

    method: str


@dataclass(frozen=True, eq=False)
class Compare:
    """The request to compare methods; see `Executor.compare`."""

    values: Mapping[str, Mapping[str, np.ndarray]]
    labels: np.ndarray
    how: Statistics


@dataclass(frozen=True)
class Control:
    """The request to compute the controls."""


@dataclass(frozen=True)
class ProgressTold:
    """An answer meanwhile: how far the work has come."""

    what: str
    done: int
    total: int


@dataclass(frozen=True)
class LogLine:
    """An answer meanwhile: what is to be logged."""

    level: int
    text: str


@dataclass(frozen=True)
class Done:
    """The last answer to a request. pixels: what is stored by now; None where nothing has been added."""

    result: Any
    pixels: PixelIndex | None = None


@dataclass(frozen=True)
class Refused:
    """The last answer to a request that is a mistake of the user: the sentence of the BenchError."""

    sentence: str


@dataclass(frozen=True)
class Unknown:
    """The last answer to `Open` where a name of the plan is not known in this process, with the reason."""

    sentence: str


@dataclass(frozen=True)
class Broken:
    """The last answer to a request that met a bug: the traceback."""

    traceback: str
