"""The benchmark of a GPU, as far as it can be tried without one: a broken section takes no other down."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from benchmark.gpu import app
from retrieval_bench.core import BenchError
from retrieval_bench.peer_benchmarks import gpu, gpu_features, gpu_search, gpu_tests, gpu_training
from retrieval_bench.peer_benchmarks.gpu import Finding, Where
from retrieval_bench.registry import fill
from retrieval_bench.system.progress import Progress, silent

DRY = Where("cpu", "CPU", 2)


def good(where: Where, progress: Progress) -> Iterator[Finding]:
    yield Finding("apart", 0.5, "", "at most 1", True)


def half(where: Where, progress: Progress) -> Iterator[Finding]:
    yield Finding("first", 12345.678, "images/s")
    raise RuntimeError("CUDA error: an illegal instruction | was met\nand more lines")


def test_a_section_that_breaks_keeps_what_it_found_and_the_next_runs(tmp_path: Path) -> None:
    outcome = gpu.run(Where("cpu", "Some Card 80GB", 2), {"bad": half, "fine": good}, tmp_path, silent)
    bad, fine = outcome.sections
    assert [one.what for one in bad.findings] == ["first"]
    assert bad.error == "RuntimeError: CUDA error: an illegal instruction | was met"
    assert bad.failed
    assert not fine.failed
    record = json.loads((tmp_path / "some-card-80gb" / gpu.RECORD).read_text(encoding="utf-8"))
    assert [one["failed"] for one in record["sections"]] == [True, False]
    table = (tmp_path / "some-card-80gb" / gpu.TABLE).read_text(encoding="utf-8")
    assert "| first | 1.235e+04 images/s |  |" in table
    assert "illegal instruction / was met |" in table
    assert "ended early: RuntimeError" in outcome.text()


def test_a_section_that_is_not_run_again_stays_unless_the_libraries_differ(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gpu.run(DRY, {"bad": half, "fine": good}, tmp_path, silent)
    again = gpu.run(DRY, {"bad": good}, tmp_path, silent)
    assert [(one.name, one.failed) for one in again.sections] == [("fine", False), ("bad", False)]
    monkeypatch.setattr(gpu, "LIBRARIES", ("numpy",))
    other = gpu.run(DRY, {"more": good}, tmp_path, silent)
    assert [one.name for one in other.sections] == ["more"]
    (tmp_path / "cpu" / gpu.RECORD).write_text('{"sections": 3}', encoding="utf-8")
    assert len(gpu.run(DRY, {"fine": good}, tmp_path, silent).sections) == 1


def test_what_is_not_met_fails_its_section() -> None:
    section = gpu.GpuSection("a", findings=[Finding("apart", 2.0, "", "at most 1", False)])
    assert section.failed
    assert section.findings[0].cells() == ["apart", "2", "at most 1: NOT met"]


def test_the_table_goes_between_its_marks(tmp_path: Path) -> None:
    outcome = gpu.run(DRY, {"fine": good}, tmp_path, silent)
    page = gpu.documented("before\n<!-- gpu -->\nold\n<!-- /gpu -->\nafter", outcome)
    assert page.startswith("before\n<!-- gpu -->\nCPU, ")
    assert page.endswith("<!-- /gpu -->\nafter")
    assert "old" not in page
    with pytest.raises(BenchError, match="add both lines"):
        gpu.documented("no marks", outcome)


def test_without_a_card_it_says_so_and_is_content(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    result = CliRunner().invoke(app, [])
    assert result.exit_code == 0
    assert "no CUDA device here, so nothing was run; --dry" in result.output


def test_an_unknown_section_is_a_mistake() -> None:
    result = CliRunner().invoke(app, ["--dry", "--sections", "agree,spead"])
    assert result.exit_code == 2
    assert "choose from tests, agree, speed, search, train, memory" in result.output


def test_a_folder_that_cannot_be_written_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(BenchError, match="cannot be written"):
        gpu.run(DRY, {"fine": good}, tmp_path / "file", silent)


def test_the_tests_want_a_working_tree(tmp_path: Path) -> None:
    with pytest.raises(BenchError, match=r"tests/system/test_device\.py is not there; run this in a clone"):
        list(gpu_tests.tests_in(tmp_path)(DRY, silent))


@pytest.mark.slow(reason="searches, trains and runs networks")
@pytest.mark.parametrize("section", [gpu_features.exhaust, gpu_search.search, gpu_training.train])
def test_the_sections_hold_on_the_cpu(section: gpu.Run, monkeypatch: pytest.MonkeyPatch) -> None:
    fill()
    monkeypatch.setattr(gpu_search, "DRY_SHAPES", ((2000, 32),))
    findings = list(section(DRY, silent))
    assert findings
    assert [one for one in findings if one.met is False] == []
    assert any(one.met for one in findings)
