"""Options that several commands share, and how their text is parsed."""

from __future__ import annotations

import math
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from retrieval_bench.core import BenchError

if TYPE_CHECKING:
    from retrieval_bench.images.decoding import Decoding
    from retrieval_bench.methods.parse import Method
    from retrieval_bench.registry import Spec


class Device(StrEnum):
    auto = "auto"
    cpu = "cpu"
    cuda = "cuda"


class Relevance(StrEnum):
    label = "label"
    category = "category"
    graded = "graded"


class Decode(StrEnum):
    full = "full"
    reduced = "reduced"


class Isolate(StrEnum):
    on = "on"
    off = "off"


class LearnFrom(StrEnum):
    train = "train"
    gallery = "gallery"


T = TypeVar("T")

MOST_AT_ONCE = 256
"""Queries at once, each of which has a thread."""


def root(text: str) -> Path:
    """A path, or a URL."""
    from retrieval_bench.remote.place import root_of

    return root_of(text)


PublishedFolder = Annotated[
    Path,
    typer.Argument(
        metavar="DIR|URL", parser=root, help="The folder of the index; also an archive of it, or a URL of either."
    ),
]

DataRoot = Annotated[
    Path | None,
    typer.Option(
        "--data-root",
        metavar="PATH|URL",
        parser=root,
        help="Where the dataset lies: a folder, a manifest file, a zip or tar archive of either, or the URL of one.",
    ),
]


def _allow_hosts(hosts: list[str] | None) -> list[str] | None:
    """Known to all that reads images, and to the processes that this one starts."""
    from retrieval_bench.remote.place import allow_hosts

    allow_hosts(hosts or ())
    return hosts


AllowHost = Annotated[
    list[str] | None,
    typer.Option(
        "--allow-host",
        metavar="HOST",
        callback=_allow_hosts,
        help="Read images of a manifest from this host, too; give it again for each further one. The host of "
        "--data-root is allowed. RETRIEVAL_BENCH_HOSTS holds more, separated by commas.",
    ),
]


def _allow_outside(allowed: bool) -> bool:
    """Known to all that reads images, and to the processes that this one starts."""
    from retrieval_bench.images.fence import allow_outside

    allow_outside(allowed)
    return allowed


AllowOutside = Annotated[
    bool,
    typer.Option(
        "--allow-outside",
        callback=_allow_outside,
        help="Read images that lie outside the folder of the dataset, by a path or a link. Else each is a bad image.",
    ),
]


def finite(number: float | None) -> float | None:
    """A range of typer lets inf pass, which JSON cannot say."""
    if number is not None and math.isinf(number):
        raise typer.BadParameter("the number must be finite")
    return number


MaxP95 = Annotated[
    float | None,
    typer.Option(
        "--max-p95-ms",
        min=0.0,
        callback=finite,
        metavar="MS",
        help="The 95th percentile of one query, decoding to ranking, may take so long.",
    ),
]
MaxBytes = Annotated[
    float | None,
    typer.Option(
        "--max-bytes",
        min=0.0,
        callback=finite,
        metavar="BYTES",
        help="So many bytes may one image take in the gallery.",
    ),
]
MaxFit = Annotated[
    float | None,
    typer.Option("--max-fit-s", min=0.0, callback=finite, metavar="S", help="Learning may take so many seconds."),
]
OfImages = Annotated[
    float | None,
    typer.Option(
        "--images",
        min=1,
        callback=finite,
        metavar="N",
        help="Judge times as among so many images, e.g. 2e6. Default: as many as were measured.",
    ),
]
Prefer = Annotated[
    str | None,
    typer.Option("--prefer", metavar="METRIC", help="What the best is best in, e.g. recall@10. Default: map@r."),
]
Costs = Annotated[
    Path | None,
    typer.Option(
        "--costs", metavar="FILE", help="Take how search grows from this file, which `cost --json FILE` has measured."
    ),
]


MaxPixels = Annotated[
    int | None,
    typer.Option(
        "--max-pixels",
        min=1,
        metavar="N",
        help="Refuse images of more pixels than this; each takes 3 bytes a pixel and more. Default 100,000,000.",
    ),
]


def _load_plugins(paths: list[Path] | None) -> list[Path] | None:
    """Load each file, and say of each that fails why; it stops nothing that needs none of its names."""
    from retrieval_bench.plugins.loading import load_files

    for plugin in load_files(paths or ()):
        if plugin.reason:
            typer.echo(plugin.failure, err=True)
    return paths


Plugins = Annotated[
    list[Path] | None,
    typer.Option(
        "--plugin",
        metavar="FILE.py",
        callback=_load_plugins,
        help="A Python file that registers methods, datasets or metrics of yours; give it again for each further one. "
        "RETRIEVAL_BENCH_PLUGINS holds more, separated as in PATH.",
    ),
]

Unknown = Annotated[
    bool,
    typer.Option(
        "--unknown",
        help="Also show how well each method tells queries that nothing in the gallery answers: by AUROC, and by the "
        "share rejected while 95 % of the others are kept.",
    ),
]


def decoding(max_pixels: int | None) -> Decoding:
    """How images are decoded; None: as by default."""
    from retrieval_bench.images.decoding import Decoding

    return Decoding() if max_pixels is None else Decoding(max_pixels=max_pixels)


def renamed(flag: str, value: T | None, former_flag: str, former: T | None, default: T) -> T:
    """What was given by a flag or by its former name, which goes on working; never by both."""
    if value is not None and former is not None:
        raise BenchError(f"{former_flag} is the former name of {flag}; give the value once, with {flag}")
    given = former if value is None else value
    return default if given is None else given


def parse_methods(text: str, *, texts: bool = False, backends: bool = False) -> tuple[Method, ...]:
    """texts: methods that read texts are allowed. backends: so are those that name a backend."""
    from retrieval_bench.methods.parse import parse_method

    names = [name.strip() for name in text.split(",") if name.strip()]
    if not names:
        raise BenchError(f"{text!r} names no method; write e.g. sift,resnet50, and see `python -m benchmark list`")
    methods = tuple(parse_method(name) for name in names)
    named = next((method for method in methods if method.backend is not None), None)
    if named is not None and not backends:
        raise BenchError(f"method {str(named)!r}: only `run` searches on a backend; drop{named.backend_mark}")
    return methods if texts else tuple(map(without_texts, methods))


def parse_backends(text: str) -> tuple[Spec, ...]:
    """ "exact,faiss:hnsw:ef=64" -> the backends, each once."""
    from retrieval_bench.registry import BACKENDS, parse

    names = [name.strip() for name in text.split(",") if name.strip()]
    if not names:
        raise BenchError("--backends names no backend; write e.g. --backends exact,faiss:hnsw, and see `list backends`")
    return tuple({str(spec): spec for spec in (parse(BACKENDS, name) for name in names)}.values())


def without_texts(method: Method) -> Method:
    """The method itself. BenchError where it reads texts."""
    if "text" in method.sides.read:
        raise BenchError(
            f"method {str(method)!r} reads texts, and this command looks at pictures alone (`run` reads both); name a "
            "method such as color"
        )
    return method


def parse_sides(flag: str, text: str | None) -> tuple[str, ...] | None:
    """What follows --query or --gallery; None where it was not given."""
    from retrieval_bench.methods.modalities import CHOICES

    if text is None:
        return None
    named = tuple(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))
    wrong = [name for name in named if name not in CHOICES]
    if wrong or not named:
        given = repr(wrong[0]) if wrong else "nothing"
        raise BenchError(f"{flag}: {given} is not one of {', '.join(CHOICES)}; several are separated by commas")
    return named


def parse_classifiers(text: str) -> tuple[str, ...]:
    from retrieval_bench.registry import CLASSIFIERS

    names = dict.fromkeys(name.strip() for name in text.split(",") if name.strip())
    if not names:
        raise BenchError(f"--classifiers {text!r} names no classifier; write e.g. --classifiers svm,knn")
    return tuple(CLASSIFIERS[name].name for name in names)


def parse_cutoffs(text: str) -> tuple[int, ...]:
    try:
        values = sorted({int(part) for part in text.split(",")})
    except ValueError:
        raise BenchError(f"--k {text!r}: write whole numbers with commas, e.g. --k 1,5,10") from None
    if values[0] < 1:
        raise BenchError(f"--k {text!r}: every cutoff must be at least 1")
    return tuple(values)


def parse_concurrency(text: str) -> tuple[int, ...]:
    """ "1,2,4" -> (1, 2, 4): how many queries at once."""
    try:
        values = sorted({int(part) for part in text.split(",")})
    except ValueError:
        values = [0]
    if not 1 <= values[0] <= values[-1] <= MOST_AT_ONCE:
        raise BenchError(
            f"--concurrency {text!r}: write whole numbers from 1 to {MOST_AT_ONCE} with commas, "
            "e.g. --concurrency 1,2,4"
        )
    return tuple(values)


def checked_weights(text: str, looked_for: bool = True) -> str:
    """looked_for: a network will look for its weights, so the folders where they may be must exist."""
    from retrieval_bench.extractors.deep.weights import weights_directories

    words = ("auto", "pretrained", "random")
    if text not in words and not Path(text).is_dir():
        raise BenchError(f"--weights {text!r} is no folder and not one of {', '.join(words)}")
    if looked_for:
        weights_directories(text)
    return text


def usable_threads(wanted: int | None) -> int:
    from retrieval_bench.system.cores import usable_cores

    cores = usable_cores()
    if wanted is not None and wanted > cores:
        typer.echo(f"--threads {wanted}: this process may use {cores} cores; using {cores}", err=True)
    return min(wanted or cores, cores)
