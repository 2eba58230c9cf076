"""A record for other programs: ir_measures and ranx read it and give our numbers."""

from __future__ import annotations

import csv
import io
import os
import re
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from urllib.parse import unquote

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retrieval_bench.compare.reload import values_of
from retrieval_bench.core import BenchError, Dataset, printable
from retrieval_bench.experiment.runner import run
from retrieval_bench.records.conversion import (
    QRELS_FILE,
    RUN_SUFFIX,
    need_packages,
    qrels,
    score_columns,
    table_bytes,
    token,
    trec_files,
)
from retrieval_bench.records.conversion import run as run_of
from retrieval_bench.records.files import load, load_rankings
from retrieval_bench.records.schema import Record
from tests.support.paths import ROOT
from tests.support.runs import plan
from tests.support.shop import split

CLOSE = 1e-9
Arrays = dict[str, np.ndarray]
Values = dict[str, np.ndarray]


def leave_one_out() -> Dataset:
    """Ids with spaces and letters beyond ASCII; every image is hidden from itself."""
    images = split("ein Bündel\u3000Fotos, 100 %", [0, 0, 0, 1, 1, 2, 2, 2, 2, 3, 3, 4, 4, 4], 1000)
    names = tuple(f"product-{label}" for label in range(5))
    return Dataset("loo", split("train", [0, 1], 500), images, images, names, ("even", "odd"), leave_one_out=True)


@pytest.fixture(scope="module", params=["leave-one-out", "reference"])
def made(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Record, Arrays]:
    """A small record that ranks the whole gallery, and one that keeps a quarter of it; phash has many ties."""
    folder = ROOT / "results" / "reference" / "products"
    if request.param != "reference":
        folder = tmp_path_factory.mktemp("record")
        run(plan(leave_one_out(), "phash", "random"), folder)
    record = load(folder)
    return folder, record, load_rankings(folder, record)


def by_ir_measures(folder: Path, method: str, n_relevant: dict[str, int], ks: tuple[int, ...]) -> dict[str, dict]:
    """Our name -> query -> value."""
    ir = pytest.importorskip("ir_measures", reason="ir_measures comes with the development tools")
    names = {"accuracy": ir.P @ 1, "map": ir.AP, "mrr": ir.RR}
    for k in ks:
        names |= {f"precision@{k}": ir.P @ k, f"recall@{k}": ir.R @ k, f"hit_rate@{k}": ir.Success @ k}
        names |= {f"ndcg@{k}": ir.nDCG @ k}
    to_r = {r: ir.AP @ r for r in set(n_relevant.values())}
    judgements = list(ir.read_trec_qrels(str(folder / QRELS_FILE)))
    held = list(ir.read_trec_run(str(folder / f"{method}{RUN_SUFFIX}")))
    told: dict = {}
    for value in ir.iter_calc([*set(names.values()), *to_r.values()], judgements, held):
        told.setdefault(value.measure, {})[value.query_id] = value.value
    found = {name: told[measure] for name, measure in names.items()}
    return found | {"map@r": {query: told[to_r[r]][query] for query, r in n_relevant.items()}}


def by_ranx(folder: Path, method: str, n_relevant: dict[str, int], ks: tuple[int, ...]) -> dict[str, dict]:
    ranx = pytest.importorskip("ranx", reason="ranx comes with the development tools")
    names = {"accuracy": "precision@1", "map": "map", "mrr": "mrr"}
    for k in ks:
        names |= {f"{name}@{k}": f"{name}@{k}" for name in ("hit_rate", "precision", "recall", "f1", "ndcg")}
    to_r = {r: f"map@{r}" for r in set(n_relevant.values())}
    held = ranx.Run.from_file(str(folder / f"{method}{RUN_SUFFIX}"))
    judgements = ranx.Qrels.from_file(str(folder / QRELS_FILE))
    ranx.evaluate(judgements, held, sorted({*names.values(), *to_r.values()}))
    found = {name: held.scores[theirs] for name, theirs in names.items()}
    return found | {"map@r": {query: held.scores[to_r[r]][query] for query, r in n_relevant.items()}}


@pytest.mark.parametrize(
    "ask",
    [
        by_ir_measures,
        pytest.param(by_ranx, marks=pytest.mark.long(reason="ranx compiles its metrics when it is imported")),
    ],
)
@pytest.mark.parametrize("method", ["phash", "random"])
def test_another_program_gives_our_numbers(
    made: tuple[Path, Record, Arrays], tmp_path: Path, method: str, ask: Callable[..., dict[str, dict]]
) -> None:
    folder, record, arrays = made
    for name, content in trec_files(arrays, [method]).items():
        (tmp_path / name).write_bytes(content)
    values = values_of(folder, record)
    assert values is not None
    ours = values.by_method[method]
    queries = [token(item) for item in arrays["query_ids"].tolist()]
    n_relevant = dict(zip(queries, arrays["n_relevant"].tolist(), strict=True))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the judges' own
        told = ask(tmp_path, method, n_relevant, record.settings.k)
    depth, ranks = arrays[f"{method}/indices"].shape[1], arrays[f"{method}/relevant_ranks"]
    kept = (ranks >= 0) & (ranks < depth)  # what the run file holds of the relevant; without the rest, two are lower
    precisions = np.where(kept, np.arange(1, ranks.shape[1] + 1) / (ranks + 1.0).clip(1), 0.0)
    to_depth = {"map": precisions.sum(axis=1) / arrays["n_relevant"], "mrr": kept[:, 0] / (ranks[:, 0] + 1)}
    if depth == len(arrays["gallery_ids"]):
        to_depth = {}
    else:
        assert all((to_depth[name] < ours[name]).any() for name in to_depth)
    for name, by_query in told.items():
        assert set(by_query) == set(queries)
        theirs = [by_query[query] for query in queries]
        np.testing.assert_allclose(theirs, to_depth.get(name, ours[name]), rtol=0, atol=CLOSE, err_msg=name)
    asked = {name.partition("@")[0] if name != "map@r" else name for name in told}
    votes = {"knn_accuracy"} | ({"f1"} if ask is by_ir_measures else set())
    assert {name.partition("@")[0] if name != "map@r" else name for name in ours} == asked | votes


def test_the_example_of_the_page_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ir = pytest.importorskip("ir_measures", reason="ir_measures comes with the development tools")
    folder = ROOT / "results" / "reference" / "products"
    record = load(folder)
    (tmp_path / "trec").mkdir()
    for name, content in trec_files(load_rankings(folder, record), ["sift"]).items():
        (tmp_path / "trec" / name).write_bytes(content)
    section = (ROOT / "docs" / "records.md").read_text(encoding="utf-8").partition("\n## For other programs\n")[2]
    example = re.search(r"```python\n(.*?)```", section, re.S)
    assert example is not None
    monkeypatch.chdir(tmp_path)
    told: list[dict] = []
    exec(compile(example[1], "records.md", "exec"), {"print": told.append})
    (row,) = (row for row in record.rows if row.method == "sift")
    ours = {ir.P @ 1: "accuracy", ir.Success @ 10: "hit_rate@10", ir.R @ 10: "recall@10", ir.nDCG @ 10: "ndcg@10"}
    assert told[0] == pytest.approx({measure: row.scores[name] for measure, name in ours.items()}, abs=CLOSE)


def test_trec_eval_would_reorder_our_ties(made: tuple[Path, Record, Arrays]) -> None:
    """So distances must not be the scores: it sorts equal ones by name, from the last."""
    _, _, arrays = made
    ids = [token(item) for item in arrays["gallery_ids"].tolist()]
    changed = 0
    for rows, distances in zip(arrays["phash/indices"], arrays["phash/distances"], strict=True):
        found = [(-distance, ids[row]) for row, distance in zip(rows, distances, strict=True) if row >= 0]
        changed += sorted(found, reverse=True) != found
    assert changed > len(arrays["query_ids"]) / 2


texts = st.lists(
    st.text(st.characters(codec="utf-8") | st.sampled_from(" %\t\n\x85\u2028"), min_size=1), min_size=2, unique=True
)


@settings(max_examples=50)
@given(texts, st.data())
def test_files_hold_the_ranking_whatever_the_names(ids: list[str], data: st.DataObject) -> None:
    n = len(ids)
    labels = np.array(data.draw(st.lists(st.integers(0, 2), min_size=n, max_size=n)))
    hidden = data.draw(st.sampled_from([None, np.arange(n)]))
    depth = data.draw(st.integers(1, n))
    orders = np.array([data.draw(st.permutations(range(n))) for _ in range(n)])[:, :depth]
    if hidden is not None:
        orders = np.where(orders == hidden[:, None], -1, orders)
    same = labels[:, None] == labels
    if hidden is not None:
        np.fill_diagonal(same, False)
    arrays = {
        "gallery_ids": np.array(ids, object),  # numpy's own text drops NUL characters at the end
        "query_ids": np.array(ids, object),
        "gallery_labels": labels,
        "query_labels": labels,
        "n_relevant": same.sum(axis=1),
        "a b/indices": orders,
    } | ({} if hidden is None else {"exclude": hidden})
    files = trec_files(arrays, ["a b"])
    assert list(files) == ["qrels.trec", "a%20b.run.trec"]
    judged = [line.split() for line in files["qrels.trec"].decode("ascii").splitlines()]
    assert all(zero == "0" and one == "1" for _, zero, _, one in judged)
    relevant = [(unquote(query), unquote(image)) for query, _, image, _ in judged]
    assert relevant == [(ids[i], ids[j]) for i, j in np.argwhere(same)]
    lines = [line.split() for line in files["a%20b.run.trec"].decode("ascii").splitlines()]
    missed = [
        f"{token(item)} Q0 %nothing% 1 {depth} a%20b".split()
        for item, rows in zip(ids, orders, strict=True)
        if rows.max() < 0
    ]
    assert [line for line in lines if line[2] == "%nothing%"] == missed
    lines = [line for line in lines if line[2] != "%nothing%"]
    expected = [(i, row, rank) for i, rows in enumerate(orders.tolist()) for rank, row in enumerate(rows) if row >= 0]
    assert len(lines) == len(expected)
    for (query, q0, image, rank, score, tag), (i, row, place) in zip(lines, expected, strict=True):
        assert (unquote(query), q0, unquote(image), tag) == (ids[i], "Q0", ids[row], "a%20b")
        assert int(rank) == place + 1
        assert int(score) == depth - place > 0


def small() -> Arrays:
    return {
        "gallery_ids": np.array(["a", "b", "c"]),
        "query_ids": np.array(["x", "y"]),
        "gallery_labels": np.array([4, 5, 4]),
        "query_labels": np.array([5, 4]),
        "n_relevant": np.array([1, 2]),
        "m/indices": np.array([[2, 1], [0, -1]]),
    }


def test_by_hand() -> None:
    assert qrels(small()) == "x 0 b 1\ny 0 a 1\ny 0 c 1\n"
    assert run_of(small(), "m") == "x Q0 c 1 2 m\nx Q0 b 2 1 m\ny Q0 a 1 2 m\n"
    nobody = small() | {"m/indices": np.array([[-1, -1], [0, -1]])}
    assert run_of(nobody, "m") == "x Q0 %nothing% 1 2 m\ny Q0 a 1 2 m\n"
    hidden = small() | {"exclude": np.array([-1, 2]), "n_relevant": np.array([1, 1])}
    assert qrels(hidden) == "x 0 b 1\ny 0 a 1\n"


@pytest.mark.parametrize(
    "ask",
    [
        by_ir_measures,
        pytest.param(by_ranx, marks=pytest.mark.long(reason="ranx compiles its metrics when it is imported")),
    ],
)
def test_a_query_that_found_nothing_is_a_miss_to_another_program(
    ask: Callable[..., dict[str, dict]], tmp_path: Path
) -> None:
    """ranx refuses a run that lacks a query, and trec_eval would leave it out of the mean."""
    arrays = small() | {"gallery_ids": np.array(["a", "%nothing%", "c"]), "m/indices": np.array([[-1, -1], [2, 0]])}
    for name, content in trec_files(arrays, ["m"]).items():
        (tmp_path / name).write_bytes(content)
    told = ask(tmp_path, "m", {"x": 1, "y": 2}, (1, 2))
    for name, of in told.items():
        wanted = 1 / 2 if name == "recall@1" else 2 / 3 if name == "f1@1" else 1
        assert of == pytest.approx({"x": 0, "y": wanted}), name


def test_trec_eval_counts_a_query_that_found_nothing(tmp_path: Path) -> None:
    """As the program itself does: a mean over the queries that are in both files."""
    pytrec_eval = pytest.importorskip("pytrec_eval", reason="pytrec_eval comes with the development tools")
    arrays = small() | {"m/indices": np.array([[-1, -1], [2, 0]])}
    judged = pytrec_eval.parse_qrel(io.StringIO(qrels(arrays)))
    held = pytrec_eval.parse_run(io.StringIO(run_of(arrays, "m")))
    told = pytrec_eval.RelevanceEvaluator(judged, {"map", "recip_rank", "P_1"}).evaluate(held)
    assert told == {"x": {"map": 0, "recip_rank": 0, "P_1": 0}, "y": {"map": 1, "recip_rank": 1, "P_1": 1}}


ODD = ["a\rb", "a\nb", "a\r\nb", 'a"b,', " a", "\u2028", "a\0", "caf\u00e9", "\r", "plain"]


@pytest.mark.parametrize("form", ["csv", "parquet"])
def test_tables_give_back_names_of_any_kind(form: str) -> None:
    """A carriage return without quotes would end the row."""
    odd = {"query": ODD, "map": [index / 7 for index in range(len(ODD))]}
    content = table_bytes(odd, form)
    if form == "parquet":
        parquet = pytest.importorskip("pyarrow.parquet", reason='needs pip install "retrieval-bench[parquet]"')
        assert parquet.read_table(io.BytesIO(content)).to_pydict() == odd
        return
    assert content.endswith(f"\nplain,{9 / 7}\n".encode())
    lines = list(csv.DictReader(io.StringIO(content.decode(), newline="")))
    assert [line["query"] for line in lines] == ODD
    assert [float(line["map"]) for line in lines] == odd["map"]


def test_another_program_reads_carriage_returns_in_a_csv() -> None:
    pandas = pytest.importorskip("pandas", reason="pandas comes with the development tools")
    arrow = pytest.importorskip("pyarrow.csv", reason='needs pip install "retrieval-bench[parquet]"')
    names = [name for name in ODD if "\0" not in name]
    content = table_bytes({"query": names, "n": list(range(len(names)))}, "csv")
    read = pandas.read_csv(io.BytesIO(content))
    assert read["query"].tolist() == names
    assert read["n"].tolist() == list(range(len(names)))
    many = arrow.read_csv(io.BytesIO(content), parse_options=arrow.ParseOptions(newlines_in_values=True))
    assert many.to_pydict() == {"query": names, "n": list(range(len(names)))}


def test_names_that_are_no_unicode_are_escaped_in_every_table() -> None:
    """A file name that is not UTF-8, as an early record may hold it, and half a surrogate pair of a JSON file."""
    odd = {"query": ["caf\udce9.png", "\ud800x", "caf\u00e9.png"], "map": [0.5, 1.0, 0.25]}
    told = [r"caf\xe9.png", r"\ud800x", "caf\u00e9.png"]
    assert told[0] == printable(os.fsdecode(b"caf\xe9.png"))
    lines = csv.DictReader(io.StringIO(table_bytes(odd, "csv").decode()))
    assert [line["query"] for line in lines] == told
    parquet = pytest.importorskip("pyarrow.parquet", reason='needs pip install "retrieval-bench[parquet]"')
    assert parquet.read_table(io.BytesIO(table_bytes(odd, "parquet"))).to_pydict()["query"] == told


def test_a_method_with_a_path_in_its_name_is_a_file_of_the_folder() -> None:
    arrays = small() | {"onnx:../a/b.onnx[untrained]/indices": small()["m/indices"]}
    (_, name) = trec_files(arrays, ["onnx:../a/b.onnx[untrained]"])
    assert name == "onnx%3A..%2Fa%2Fb.onnx[untrained].run.trec"


def test_arrays_that_contradict_each_other_are_refused() -> None:
    with pytest.raises(BenchError, match="2 gallery images have the label of query y and n_relevant says 3"):
        qrels(small() | {"n_relevant": np.array([1, 3])})
    with pytest.raises(BenchError, match="gallery_ids holds a name twice"):
        run_of(small() | {"gallery_ids": np.array(["a", "b", "a"])}, "m")


def test_tables_hold_the_scores_to_the_last_bit(made: tuple[Path, Record, Arrays]) -> None:
    parquet = pytest.importorskip("pyarrow.parquet", reason='needs pip install "retrieval-bench[parquet]"')
    folder, record, arrays = made
    values = values_of(folder, record)
    assert values is not None
    columns = score_columns(arrays, values.by_method)
    read = parquet.read_table(io.BytesIO(table_bytes(columns, "parquet"))).to_pydict()
    lines = list(csv.DictReader(io.StringIO(table_bytes(columns, "csv").decode())))
    q = len(arrays["query_ids"])
    assert len(lines) == q * len(values.by_method)
    assert list(read) == list(lines[0]) == ["method", "query", "label", "n_relevant", *values.by_method["phash"]]
    for number, (method, metrics) in enumerate(values.by_method.items()):
        rows = slice(number * q, (number + 1) * q)
        assert set(read["method"][rows]) == {line["method"] for line in lines[rows]} == {method}
        assert read["query"][rows] == [line["query"] for line in lines[rows]] == arrays["query_ids"].tolist()
        assert read["n_relevant"][rows] == arrays["n_relevant"].tolist()
        labels = arrays["label_names"][arrays["query_labels"]].tolist()
        assert read["label"][rows] == [line["label"] for line in lines[rows]] == labels
        for metric, single in metrics.items():
            assert read[metric][rows] == [float(line[metric]) for line in lines[rows]] == single.tolist()


def test_a_metric_that_a_method_lacks_is_empty() -> None:
    columns = score_columns(small(), {"m": {"map": np.array([0.5, 1.0])}, "o": {"mrr": np.array([0.25, 1.0])}})
    assert columns["label"] == ["5", "4", "5", "4"]  # an early record has no names
    assert columns["map"] == [0.5, 1.0, None, None]
    lines = table_bytes(columns, "csv").decode().splitlines()
    assert lines == [
        "method,query,label,n_relevant,map,mrr",
        "m,x,5,1,0.5,",
        "m,y,4,2,1.0,",
        "o,x,5,1,,0.25",
        "o,y,4,2,,1.0",
    ]


def test_without_pyarrow_csv_is_written(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    columns = score_columns(small(), {"m": {"map": np.array([0.5, 1.0])}})
    with pytest.raises(BenchError, match=r"needs pyarrow.*pip install 'retrieval-bench\[parquet\]', or use --to csv"):
        table_bytes(columns, "parquet")
    need_packages("csv")
    assert table_bytes(columns, "csv").startswith(b"method,")
