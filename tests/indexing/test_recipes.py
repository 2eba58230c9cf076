"""An index refuses to be searched by another recipe than the one that described its items."""

from __future__ import annotations

import io
import logging
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from retrieval_bench.core import BenchError, Setup
from retrieval_bench.indexing.build import build
from retrieval_bench.indexing.description import PROBES_FILE, FileFacts, read_description, sha256_of
from retrieval_bench.indexing.index import StoredIndex
from tests.support.command import call
from tests.support.indexes import built_at, described_as
from tests.support.methods import MeanColor, spec
from tests.support.runs import plan
from tests.support.shop import picture, shop


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return built_at(tmp_path_factory.mktemp("index") / "shop", "phash", "hsv")


@pytest.fixture
def own(built: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(built, tmp_path / "own"))


def other_recipe(folder: Path, method: int, **changes: Any) -> None:
    """Let the index say that a method was made by another recipe."""
    facts = read_description(folder).model_dump()
    facts["methods"][method]["recipes"][0].update(changes)
    described_as(folder, methods=facts["methods"])


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"options": {"size": 16}}, r'another options of phash: {"size": 16} then and {"size": 8} now'),
        ({"weights": {"source": "x", "sha256": "ab" * 32}}, "has other weights of phash: sha256 abababababab then"),
        ({"seed": 7}, "another seed of phash: 7 then and 0 now"),
        ({"distance": "cosine"}, "another distance of phash"),
    ],
)
def test_another_recipe_is_refused(own: Path, changes: dict[str, Any], sentence: str) -> None:
    other_recipe(own, 0, **changes)
    with pytest.raises(BenchError) as refused:
        StoredIndex.open(own)
    assert sentence in str(refused.value)
    assert str(refused.value).endswith("so distances would mean nothing; build the index again")
    with StoredIndex.open(own, check_recipe=False) as index:  # then by the first query
        with pytest.raises(BenchError, match="build the index again"):
            index.method("phash").describe([picture(0, 1)])
        assert index.method("hsv").describe([picture(0, 1)]).shape[0] == 1
    (own / "query.png").write_bytes(shop().query.images.read(0))
    done = call("index", "query", own, own / "query.png")
    assert (done.exit_code, done.stderr.startswith(f"error: {own}: phash ")) == (2, True)
    assert call("index", "query", own, own / "query.png", "--method", "hsv").exit_code == 0


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"code": "0" * 64}, "phash: the code changed since"),
        ({"libraries": {"numpy": "1.0"}}, "numpy (1.0 then, "),
        ({"device": "cuda"}, "phash: the device changed since"),
        ({"decoder": "1/Pillow-1.0"}, "phash: the decoder changed since"),
    ],
)
def test_other_code_is_used_where_it_describes_alike(
    own: Path, changes: dict[str, Any], sentence: str, caplog: pytest.LogCaptureFixture
) -> None:
    other_recipe(own, 0, **changes)
    with caplog.at_level(logging.WARNING), StoredIndex.open(own) as index:
        notice = index.method("phash").notice
        assert index.method("hsv").notice == ""
    assert sentence in notice
    assert notice.endswith("3 pictures that are described again have the same features")
    assert notice in caplog.text


def change_probes(folder: Path, name: str, change: Callable[[np.ndarray], np.ndarray]) -> None:
    """Let the index say that its probes were described otherwise."""
    with np.load(folder / PROBES_FILE) as file:
        arrays = dict(file)
    arrays[name] = change(arrays[name])
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    (folder / PROBES_FILE).write_bytes(buffer.getvalue())
    buffer.seek(0)
    files = dict(read_description(folder).files)
    files[PROBES_FILE] = FileFacts(bytes=len(buffer.getvalue()), sha256=sha256_of(buffer))
    described_as(folder, files={name: facts.model_dump() for name, facts in files.items()})


@pytest.mark.parametrize(
    ("method", "change", "sentence"),
    [
        (0, lambda codes: codes ^ np.uint8(1), "phash describes pictures otherwise, by up to 1 of the largest number"),
        (1, lambda rows: rows * np.float32(1.001), "hsv describes pictures otherwise, by up to 0.00"),
        (1, lambda rows: rows[:, 1:], "hsv describes pictures otherwise, in shape or kind"),
    ],
)
def test_other_code_is_refused_where_it_describes_otherwise(
    own: Path, method: int, change: Callable[[np.ndarray], np.ndarray], sentence: str
) -> None:
    other_recipe(own, method, code="0" * 64)
    change_probes(own, f"{method}/part 0", change)
    with pytest.raises(BenchError) as refused:
        StoredIndex.open(own)
    assert sentence in str(refused.value)
    assert "the code changed since" in str(refused.value)


def test_the_last_bits_of_floats_may_differ(own: Path) -> None:
    other_recipe(own, 1, code="0" * 64)
    change_probes(own, "1/part 0", lambda rows: rows * np.float32(1 + 2e-7))
    with StoredIndex.open(own) as index:
        assert "have features within" in index.method("hsv").notice


def test_the_seed_is_that_of_the_index(built: Path) -> None:
    """Random weights and samples are drawn by it: those of another seed would find nothing."""
    with StoredIndex.open(built, Setup(seed=9, threads=1)) as index:
        assert (index.setup.seed, index.setup.threads) == (0, 1)


@pytest.mark.parametrize(
    ("method", "sentence"),
    [
        ("oracle", "oracle is a control, which finds nothing by looking at a picture"),
        ("random", "random is a control"),
        ("phash+oracle+rrf", "oracle sees the labels and cannot be joined"),
    ],
)
def test_what_cannot_describe_a_new_picture_is_refused(tmp_path: Path, method: str, sentence: str) -> None:
    with pytest.raises(BenchError, match=sentence):
        build(plan(shop(), method), tmp_path / "own")
    assert list(tmp_path.iterdir()) == []


def test_methods_of_files_are_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "v.npz", ids=np.array(["a"]), vectors=np.ones((1, 2), np.float32))
    with pytest.raises(BenchError, match="has its features from a file, so it cannot describe a new picture"):
        build(plan(shop(), f"embeddings:{tmp_path / 'v.npz'}"), tmp_path / "own")


def test_int8_is_refused_where_lengths_count(tmp_path: Path) -> None:
    with pytest.raises(BenchError, match="mean is compared by euclidean, to which the lengths of vectors count"):
        build(plan(shop(), spec("mean", MeanColor)), tmp_path / "own", dtype="int8")


def test_a_decoder_that_gives_other_pixels_is_refused(own: Path) -> None:
    other_recipe(own, 0, decoder="2/Pillow-0.1")
    StoredIndex.open(own).close()
    change_probes(own, "decoded/JPEG", lambda pixels: pixels ^ np.uint8(1))
    with pytest.raises(BenchError, match="gets other pixels from the same files: the decoder changed since"):
        StoredIndex.open(own)
