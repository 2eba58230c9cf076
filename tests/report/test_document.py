"""Tables in documents are made from records, and a document says when it has none."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from benchmark.document import app
from retrieval_bench.core import BenchError
from retrieval_bench.records.schema import Record
from retrieval_bench.report.document import renewed
from tests.support.records import failed, record, row

PAGE = """Before.

<!-- table
one: accuracy, B/image, mrr
two: accuracy, again=accuracy
-->
whatever stood here
<!-- /table -->

After: 0.123.
"""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    one = record(row("sift", scores={"accuracy": 0.5, "mrr": 0.25}), row("hog"), failed("vgg16"))
    two = record(row("hog", scores={"accuracy": 0.125}), row("sift", scores={"accuracy": 0.875}), row("orb"))
    for name, one_of_them in (("one", one), ("two", two)):
        _put(tmp_path / name, one_of_them)
    return tmp_path


def _put(folder: Path, content: Record) -> None:
    folder.mkdir()
    (folder / "run.json").write_text(content.model_dump_json())


def test_a_table_has_the_methods_that_all_its_records_have(root: Path) -> None:
    made = renewed(PAGE, root)
    table = made.partition("-->\n")[2].partition("<!-- /table -->")[0]
    assert table == (
        "| method | accuracy | B/image | mrr | accuracy | again |\n"
        "| --- | ---: | ---: | ---: | ---: | ---: |\n"
        "| `sift` | 0.500 | 4,096 | 0.250 | 0.875 | 0.875 |\n"
        "| `hog` | 0.500 | 4,096 | n/a | 0.125 | 0.125 |\n"
    )
    assert made.replace(table, "whatever stood here\n") == PAGE
    assert renewed(made, root) == made


def test_a_table_of_what_is_not_there(root: Path) -> None:
    with pytest.raises(BenchError, match="no such record"):
        renewed(PAGE.replace("two:", "three:"), root)
    with pytest.raises(BenchError, match=r"needs 'beauty'.*it has accuracy, "):
        renewed(PAGE.replace("again=accuracy", "beauty"), root)


def test_the_command_renews_files_in_place(root: Path) -> None:
    page, plain = root / "page.md", root / "plain.md"
    page.write_text(PAGE)
    plain.write_text("No table.\n")
    before = plain.stat().st_mtime_ns
    result = CliRunner().invoke(app, [str(page), str(plain), "--root", str(root)])
    assert result.exit_code == 0, result.output
    assert page.read_text() == renewed(PAGE, root)
    assert plain.read_text() == "No table.\n"
    assert plain.stat().st_mtime_ns == before
    result = CliRunner().invoke(app, [str(page), "--root", str(root / "elsewhere")])
    assert result.exit_code == 2
    assert "no such record" in result.output
