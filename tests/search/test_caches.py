"""The sizes of caches as Linux tells them, and what is taken where it tells nothing or nonsense."""

from pathlib import Path

import pytest

from retrieval_bench.search.caches import USUAL, Caches, caches


def told(place: Path, *lines: tuple[str, str, str]) -> Path:
    for number, (level, kind, size) in enumerate(lines):
        folder = place / f"index{number}"
        folder.mkdir(parents=True)
        for name, text in (("level", level), ("type", kind), ("size", size)):
            (folder / name).write_text(text + "\n")
    return place


def test_data_and_unified_caches_count(tmp_path: Path) -> None:
    place = told(
        tmp_path, ("1", "Data", "48K"), ("1", "Instruction", "64K"), ("2", "Unified", "2M"), ("3", "Unified", "96M")
    )
    assert caches(place) == Caches(48 << 10, 2 << 20)


@pytest.mark.parametrize("lines", [(), (("1", "Data", "?"),), (("x", "Data", "32K"),), (("2", "Unified", "1K"),)])
def test_nothing_and_nonsense_are_the_usual_sizes(tmp_path: Path, lines: tuple[tuple[str, str, str], ...]) -> None:
    assert caches(told(tmp_path, *lines)) == USUAL
