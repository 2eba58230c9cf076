"""Which numbers each option may be, in one table: both ends are taken, and one step beyond is one sentence."""

from __future__ import annotations

import math
import re
from typing import Any, NamedTuple, get_args

import pytest

from retrieval_bench.core import BenchError, Setup
from retrieval_bench.registry import ALL, CLEANINGS, EXTRACTORS, JOINS, STEPS, Entry, Range, Registry, fill, parse

POST = {"power": "(0,1]", "whiten": "[0,)", "level": "[0,1]"}
NETWORK = {**POST, "p": "[0.01,)", "size": "0|[16,2048]", "scales": "[1,3]"}
ENCODED = {
    "words": "[0,65536]",
    "reduce": "[0,)",
    "place": "[0,)",
    "whiten": "[0,)",
    "soft": "[1,)",
    "power": "(0,1]",
    "fit_images": "[1,)",
    "sample": "[1,)",
}
SIDE, KEYPOINTS, HASH, BINS, LEVELS = "[1,10000]", "[1,65535]", "[2,64]", "[1,256]", "[1,4]"
TABLE: dict[str, dict[str, str]] = {
    "convnet": {"side": "[16,2048]", "width": "[1,1024]", "dims": "[1,65536]", "epochs": "[0,100000]"},
    "hsv": {"hues": BINS, "saturations": BINS, "values": BINS, "levels": LEVELS},
    "lab": {"lightness": BINS, "reds": BINS, "yellows": BINS, "levels": LEVELS},
    "lbp": {"side": SIDE, "radii": "[1,16]", "levels": LEVELS},
    "moments": {"levels": LEVELS},
    "color": {**ENCODED, "side": SIDE, "cell": "[1,1000]", "scales": "[1,16]", "step": SIDE},
    "hog": {**ENCODED, "side": SIDE, "cell": "[1,1000]", "scales": "[1,16]", "block": "[1,64]"},
    "sift": {**ENCODED, "side": SIDE, "keypoints": KEYPOINTS, "contrast": "[0,1)"},
    "dense-sift": {**ENCODED, "side": SIDE, "step": SIDE},
    "orb": {**ENCODED, "side": SIDE, "keypoints": KEYPOINTS},
    "efficientnet_lite0": NETWORK,
    "efficientnet_lite2": NETWORK,
    "resnet18": NETWORK,
    "timm": NETWORK,
    "clip": NETWORK,
    "onnx": {**NETWORK, "resize": "[0,2048]"},
    "module": NETWORK,
    "embed": {
        "batch": "[1,10000]",
        "at_once": "[1,256]",
        "timeout": "(0,3600]",
        "retries": "[0,100]",
        "most": "[0,)",
        "size": "[0,)",
        "cost": "[0,)",
    },
    "embeddings": {**POST, "ms": "[0,)"},
    **{name: {"size": HASH} for name in ("phash", "dhash", "ahash", "whash", "block-mean")},
    "colorhash": {"binbits": "[1,16]"},
    "crop-resistant": {"segments": "[1,255]", "size": HASH, "errors": "[0,1)"},
    "denoise": {"strength": "[0,255]", "radius": "[1,15]"},
    "contrast": {"clip": "[1,40]", "tiles": "[1,64]"},
    "greyworld": {"most": "[1,)"},
    "trim": {"tolerance": "[0,255]", "least": "[0,1]"},
    "concat": {"dims": "[1,)", "level": "[0,1]"},
    "early": {"dims": "[1,)", "level": "[0,1]"},
    "bm25": {"k1": "[0,)", "b": "[0,1]"},
    "tfidf": {"longest": "[2,8]", "pieces": "[1,65536]"},
    "rrf": {"depth": "[1,)", "constant": "[1,)"},
    "vote": {"depth": "[1,)"},
    "cross": {"shortlist": "[2,)", "epochs": "[1,1000]"},
    "reciprocal": {"shortlist": "[1,)", "k1": "[1,)", "k2": "[1,)", "share": "[0,1]"},
    "qe": {"n": "[1,)", "alpha": "[0,)"},
    "verify": {
        "shortlist": "[1,)",
        "least": "[1,)",
        "ratio": "(0,1]",
        "keypoints": KEYPOINTS,
        "side": "[1,1023]",
    },
    "pgvector": {
        "m": "[2,100]",
        "build_ef": "[4,1000]",
        "ef": "[1,1000]",
        "lists": "[0,32768]",
        "probes": "[0,32768]",
        "rerank": "[1,100]",
    },
    "lancedb": {
        "lists": "[0,65536]",
        "probes": "[0,65536]",
        "m": "[4,256]",
        "build_ef": "[8,2000]",
        "ef": "[1,10000]",
        "refine": "[1,1000]",
    },
    "faiss": {
        "m": "[2,512]",
        "build_ef": "[1,65536]",
        "ef": "[1,1000000]",
        "lists": "[0,1000000]",
        "probes": "[1,1000000]",
        "bytes": "[0,1024]",
        "refine": "[0,1000]",
        "build_threads": "[0,1024]",
    },
    "usearch": {"m": "[2,512]", "build_ef": "[1,65536]", "ef": "[1,1000000]", "build_threads": "[0,1024]"},
    "scann": {
        "lists": "[0,1000000]",
        "probes": "[1,1000000]",
        "refine": "[1,1000]",
        "build_threads": "[0,1024]",
    },
    "pynndescent": {"neighbours": "[2,512]", "epsilon": "[0,1]"},
    "products": {"seed": "[0,4294967295]"},
}
"""Name -> its options that are numbers, as intervals: a square bracket takes the end in, and "0|" takes 0 besides."""

ARGUMENTS = {"embed": "http://h/v", "faiss": "hnsw", "lancedb": "exact", "pgvector": "exact"}
"""Name -> something that may follow it, where it is not whatever."""
PROVIDED = "resnet18"
"""Stands for all networks of torchvision, which have one list of options."""
CASES = [(name, option) for name, options in TABLE.items() for option in options]
FAR = 10**6

fill()


class Ends(NamedTuple):
    """taken, refused: values at the ends and one step beyond."""

    taken: list[float]
    refused: list[float]


def ends(interval: str, whole: bool) -> Ends:
    found = re.fullmatch(r"(0\|)?([\[(])([\d.]+),([\d.]*)([\])])", interval)
    assert found is not None
    zero, opening, least, most, closing = found.groups()
    taken: list[float] = [0] if zero else []
    refused: list[float] = []
    for text, closed, way in ((least, opening == "[", -1), (most, closing == "]", 1)):
        if not text:
            taken.append(FAR)
            continue
        end: float = int(text) if whole else float(text)
        inner = end - way if whole else math.nextafter(end, -way * math.inf)
        outer = end + way if whole else math.nextafter(end, way * math.inf)
        taken.append(end if closed else inner)
        refused.append(outer if closed else end)
    return Ends(taken, refused)


def registry_of(name: str) -> Registry:
    (found,) = [registry for registry in ALL.values() if name in registry]
    return found


def numbers(entry: Entry) -> dict[str, type]:
    """Options that are numbers, and not true or false -> int or float."""
    kinds: dict[str, Any] = {name: (get_args(hint) or (hint,))[0] for name, hint in entry.hints.items()}
    return {name: kind for name, kind in kinds.items() if kind in (int, float)}


def spec(registry: Registry, entry: Entry, option: str, value: float) -> str:
    argument = f"{ARGUMENTS.get(entry.name, 'x')}:" if "argument" in entry.facts else ""
    return f"{entry.name}:{argument}{option}={value!r}"


def test_the_table_has_every_option_that_is_a_number() -> None:
    """And each says in its signature which numbers it may be, so that it is checked before anything starts."""
    entries = [entry for registry in ALL.values() for entry in registry.own() if ours(entry)]
    entries.append(EXTRACTORS[PROVIDED])
    for entry in entries:
        wanted = set(numbers(entry))
        assert wanted == set(TABLE.get(entry.name, {})), f"{entry.name}: write its options into TABLE"
        assert wanted == set(entry.ranges), f"{entry.name}: write Annotated[..., Range(...)] in its signature"
    assert set(TABLE) <= {entry.name for entry in entries}


def ours(entry: Entry) -> bool:
    return entry.build.__module__.startswith("retrieval_bench.")


@pytest.mark.parametrize(("name", "option"), CASES)
def test_ends_are_taken_and_a_step_beyond_is_one_sentence(name: str, option: str) -> None:
    registry = registry_of(name)
    entry = registry[name]
    whole = numbers(entry)[option] is int
    taken, refused = ends(TABLE[name][option], whole)
    for value in taken:
        read = parse(registry, spec(registry, entry, option, value))
        assert read.options[option] == value
        if registry in (JOINS, STEPS, CLEANINGS):
            read.build()
        elif registry is EXTRACTORS and entry.family != "deep" and "argument" not in entry.facts:
            read.build(Setup(seed=0, weights="random"))
    for value in refused:
        with pytest.raises(BenchError) as error:
            parse(registry, spec(registry, entry, option, value))
        sentence = str(error.value)
        assert sentence.startswith(f"{name}: {option}={value!r} ")
        assert "\n" not in sentence
        for end in re.findall(r"[\d.]+", TABLE[name][option].removeprefix("0|")):
            assert re.search(rf"\b{re.escape(end)}\b", sentence), sentence


def test_words_for_ranges() -> None:
    assert str(Range(1)) == "must be at least 1"
    assert str(Range(1, 256)) == "is not between 1 and 256"
    assert str(Range(0, 1, above=True)) == "must be above 0 and at most 1"
    assert str(Range(0, 1, below=True)) == "must be at least 0 and below 1"
    assert str(Range(16, 2048, or_zero=True)) == "is not between 16 and 2048, and not 0"
    assert 0 in Range(16, or_zero=True)
    assert 15 not in Range(16, or_zero=True)
