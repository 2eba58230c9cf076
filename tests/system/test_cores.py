"""Cores that a process may use: a container's quota counts, of its own group and of those around it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from retrieval_bench.system.cores import usable_cores


@pytest.fixture(autouse=True)
def sixteen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(16)), raising=False)


def of(tmp_path: Path, own: str, files: dict[str, str]) -> int:
    for name, text in files.items():
        file = tmp_path / "cgroup" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    (tmp_path / "own").write_text(own)
    return usable_cores(tmp_path / "cgroup", tmp_path / "own")


@pytest.mark.parametrize(
    ("quota", "cores"), [("max 100000", 16), ("400000 100000", 4), ("250000 100000", 2), ("50000 100000", 1), ("?", 16)]
)
def test_the_quota_of_the_own_group(tmp_path: Path, quota: str, cores: int) -> None:
    assert of(tmp_path, "0::/\n", {"cpu.max": quota}) == cores


def test_the_smallest_quota_on_the_way_to_the_root_counts(tmp_path: Path) -> None:
    files = {"a/cpu.max": "300000 100000", "a/b/cpu.max": "max 100000", "a/b/c/cpu.max": "900000 100000"}
    assert of(tmp_path, "0::/a/b/c\n", files) == 3


def test_the_first_version_of_control_groups(tmp_path: Path) -> None:
    own = "5:cpuset:/x\n4:cpu,cpuacct:/docker/7\n1:name=systemd:/init.scope\n"
    files = {"cpu/docker/7/cpu.cfs_quota_us": "200000\n", "cpu/docker/7/cpu.cfs_period_us": "100000\n"}
    assert of(tmp_path, own, files) == 2
    files = {"cpu/docker/7/cpu.cfs_quota_us": "-1\n", "cpu/docker/7/cpu.cfs_period_us": "100000\n"}
    assert of(tmp_path, own, files) == 16


def test_where_nothing_is_told_all_count(tmp_path: Path) -> None:
    assert usable_cores(tmp_path / "none", tmp_path / "neither") == 16
