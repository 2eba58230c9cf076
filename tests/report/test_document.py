"""Tables in documents are made from records, and a document says when it has none."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from benchmark.document import app
from retrieval_bench.core import BenchError
from retrieval_bench.records.schema import Record, Robustness, Row
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


def trained(way: str, seed: int, clean: float, turned: float) -> Row:
    """A row of one training, with its accuracy as the queries are and turned."""
    return row(
        f"net:weights=mine/{way}-{seed}.pth",
        scores={"accuracy": clean},
        params={"weights": f"mine/{way}-{seed}.pth"},
        robustness=(Robustness(perturbation="rotate", severity=3, scores={"accuracy": turned}),),
    )


GAINS = "<!-- gains\ntrained: accuracy\n-->\n<!-- /gains -->\n"


def test_gains_are_of_means_and_bold_where_every_training_agrees(tmp_path: Path) -> None:
    ways = {
        "none": ((0.5, 0.2), (0.6, 0.3)),
        "turn": ((0.52, 0.4), (0.6, 0.44)),
        "grey-out": ((0.4, 0.25), (0.49, 0.1)),
    }
    rows = [trained(way, seed, *one) for seed in (0, 1) for way, both in ways.items() for one in (both[seed],)]
    before = trained("", 0, 0.5, 0.5).model_copy(update={"method": "net", "params": {"weights": ""}})
    _put(tmp_path / "trained", record(*rows, before))
    assert renewed(GAINS, tmp_path).split("-->\n", 1)[1] == (
        "| trained with | as they are | rotate |\n"
        "| --- | ---: | ---: |\n"
        "| `none` | 0.550 | 0.250 |\n"
        "| `turn` | +1.0 | **+17.0** |\n"
        "| `grey-out` | **-10.5** | -7.5 |\n"
        "| not trained here | -5.0 | **+25.0** |\n"
        "<!-- /gains -->\n"
    )


def test_gains_of_rows_without_seeds(tmp_path: Path) -> None:
    _put(tmp_path / "trained", record(row("net:weights=shop.pth", params={"weights": "shop.pth"})))
    with pytest.raises(
        BenchError, match=r"shop\.pth: gains need finished rows whose weights, if any, are called WAY-SEED"
    ):
        renewed(GAINS, tmp_path)
