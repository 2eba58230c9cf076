"""How much memory there is: the machine's, or less in a container, of either version of control groups."""

from __future__ import annotations

from pathlib import Path

import psutil
import pytest

from retrieval_bench.system.memory_limit import usable_memory

WHOLE = psutil.virtual_memory().total


@pytest.mark.parametrize(
    ("own", "files", "expected"),
    [
        ("0::/box/inner\n", {"box/memory.max": "1000000", "box/inner/memory.max": "max"}, 1_000_000),
        ("0::/box\n", {"box/memory.max": "max"}, WHOLE),
        ("3:memory:/box\n", {"memory/box/memory.limit_in_bytes": "2000000"}, 2_000_000),
        ("3:memory:/box\n", {"memory/box/memory.limit_in_bytes": str(2**63 - 4096)}, WHOLE),
        ("4:cpu:/box\n", {"memory/box/memory.limit_in_bytes": "2000000"}, WHOLE),
        ("0::/box\n", {"box/memory.max": "torn"}, WHOLE),
    ],
)
def test_the_least_limit_counts(own: str, files: dict[str, str], expected: int, tmp_path: Path) -> None:
    for name, content in files.items():
        file = tmp_path / "groups" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"{content}\n", encoding="ascii")
    (tmp_path / "own").write_text(own, encoding="ascii")
    assert usable_memory(tmp_path / "groups", tmp_path / "own") == expected


def test_without_control_groups_it_is_that_of_the_machine(tmp_path: Path) -> None:
    assert usable_memory(tmp_path, tmp_path / "none") == WHOLE
