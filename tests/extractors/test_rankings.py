"""`ranking:FILE` as a row: the metrics of what the file says, and of nothing that it does not."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from retrieval_bench.compare.reload import values_of
from retrieval_bench.core import BenchError, Dataset, Setup
from retrieval_bench.evaluation import metrics
from retrieval_bench.experiment.prepare import prepare
from retrieval_bench.experiment.quality import QualityResult, quality
from retrieval_bench.experiment.runner import check, run
from retrieval_bench.methods.parse import parse_method
from retrieval_bench.methods.pipeline import Pipeline
from retrieval_bench.records.conversion import trec_files
from retrieval_bench.records.files import load_rankings
from retrieval_bench.registry import fill
from retrieval_bench.report.findings import precision_recall_curve
from retrieval_bench.report.table import caption, terminal
from retrieval_bench.system.cache import FeatureCache
from retrieval_bench.system.progress import silent
from tests.support.runs import plan
from tests.support.shop import shop

fill()
Line = tuple[str, str, float]


def lines_of(data: Dataset, depth: int = 12, seed: int = 0) -> list[Line]:
    """(query, item, score), the items of each query in a drawn order."""
    rng = np.random.default_rng(seed)
    return [
        (query, data.gallery.ids[row], float(depth - rank))
        for query in data.query.ids
        for rank, row in enumerate(rng.permutation(len(data.gallery))[:depth])
    ]


def trec(file: Path, lines: list[Line]) -> Path:
    file.write_text("".join(f"{query} Q0 {item} 1 {score} tag\n" for query, item, score in lines), encoding="utf-8")
    return file


def table(file: Path, lines: list[Line], value: str = "score", delimiter: str = ",") -> Path:
    with file.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream, delimiter=delimiter)
        writer.writerow(["query", "item", value])
        writer.writerows(lines)
    return file


def npz(file: Path, lines: list[Line]) -> Path:
    queries, items, scores = zip(*lines, strict=True)
    np.savez(file, query=np.array(queries), item=np.array(items), score=np.array(scores))
    return file


def found(data: Dataset, method: str) -> QualityResult:
    asked = plan(data, method, k=(1, 5))
    trial = prepare(asked)
    pipeline = Pipeline(asked.methods[0], asked.setup, "exact")
    pipeline.meet(trial.dataset)
    return quality(pipeline, trial, asked.setup, FeatureCache(None), silent)


def met(data: Dataset, file: Path) -> tuple[str, ...]:
    return Pipeline(parse_method(f"ranking:{file}"), Setup(), "exact").meet(data)


def ranked(lines: list[Line], query: str) -> list[str]:
    return [item for _, item, _ in sorted((one for one in lines if one[0] == query), key=lambda one: -one[2])]


def test_every_format_gives_what_the_file_says(tmp_path: Path) -> None:
    data = shop(4, 3)
    lines = lines_of(data)
    shuffled = [lines[row] for row in np.random.default_rng(1).permutation(len(lines))]
    by_rank = [(query, item, 13 - score) for query, item, score in shuffled]
    files = [
        trec(tmp_path / "a.run", shuffled),
        table(tmp_path / "a.csv", shuffled),
        table(tmp_path / "b.csv", by_rank, "rank"),
        table(tmp_path / "a.tsv", shuffled, delimiter="\t"),
        table(tmp_path / "semicolons.csv", shuffled, delimiter=";"),
        table(tmp_path / "tabs.csv", by_rank, "rank", delimiter="\t"),
        table(tmp_path / "commas.tsv", shuffled),
        npz(tmp_path / "a.npz", shuffled),
    ]
    right = [[data.gallery.ids.index(item) for item in ranked(lines, query)] for query in data.query.ids]
    for file in files:
        got = found(data, f"ranking:{file}")
        np.testing.assert_array_equal(got.ranking.indices, right)
        assert got.features is None
        assert "map" in got.scores


def test_what_a_file_does_not_hold_is_not_found(tmp_path: Path) -> None:
    """Worked by hand: label 0 has the gallery images 0, 1, 2; a query finds 1 at place 2 and nothing more."""
    data = shop(4, 3)
    gallery, lines = data.gallery, list[Line]()
    for query, label in zip(data.query.ids, data.query.labels.tolist(), strict=True):
        own = np.flatnonzero(gallery.labels == label)
        other = np.flatnonzero(gallery.labels != label)
        lines += [(query, gallery.ids[other[0]], 9.0), (query, gallery.ids[own[1]], 8.0)]
    lines = [line for line in lines if line[0] != data.query.ids[0]] + [(data.query.ids[0], gallery.ids[-1], 1.0)]
    got = found(data, f"ranking:{trec(tmp_path / 'a.run', lines)}")
    some = 11 / 12  # the first query finds nothing at all
    right = {"accuracy": 0.0, "hit_rate@5": some, "precision@5": some / 5, "recall@5": some / 3, "mrr": some / 2}
    right |= {"map": some * (1 / 2) / 3, "map@r": some * (1 / 2) / 3, "recall@1": 0.0}
    for name, value in right.items():
        assert got.scores[name] == pytest.approx(value, abs=1e-12), name
    assert got.ties == {}


def test_equal_scores_are_ties_and_ranks_are_none(tmp_path: Path) -> None:
    data = shop(4, 3)
    flat = [(query, item, 1.0) for query, item, _ in lines_of(data, 6)]
    got = found(data, f"ranking:{trec(tmp_path / 'a.run', flat)}")
    np.testing.assert_array_equal(np.sort(got.ranking.indices[:, :6], axis=1), got.ranking.indices[:, :6])
    bounds = got.ties["accuracy"]
    relevant = np.array([[data.gallery.ids.index(item) for item in ranked(flat, query)] for query in data.query.ids])
    hits = (data.gallery.labels[relevant] == data.query.labels[:, None]).sum(axis=1)
    assert bounds.expected == pytest.approx(np.mean(hits / 6))
    assert bounds.best == pytest.approx(np.mean(hits > 0))
    assert got.ties["recall@5"].best == pytest.approx(np.mean(np.minimum(hits, 5) / 3))
    assert got.ties["hit_rate@5"].worst <= got.scores["hit_rate@5"] <= got.ties["hit_rate@5"].best
    assert found(data, f"ranking:{table(tmp_path / 'a.csv', lines_of(data, 6), 'rank')}").ties == {}
    level = found(data, f"ranking:{table(tmp_path / 'level.csv', flat, 'rank')}")
    assert level.ties["accuracy"] == bounds
    assert "has ranks and no scores, so only equal ranks are ties" in met(data, tmp_path / "a.csv")[0]


def test_scores_that_float32_cannot_tell_apart_are_no_ties(tmp_path: Path) -> None:
    """Among them two equal ones, which stay a tie; another query's scores stay as they are."""
    data = shop(4, 3)
    first, second, *rest = data.query.ids
    items = data.gallery.ids[:4]
    lines = [(first, item, 1e9 + far) for item, far in zip(items, (3, 2, 2, 1), strict=True)]
    lines += [(second, item, far) for item, far in zip(items, (0.5, 0.25, 0.25, 0.125), strict=True)]
    lines += [(query, items[0], 1.0) for query in rest]
    (part,) = Pipeline(parse_method(f"ranking:{trec(tmp_path / 'a.run', lines)}"), Setup(), "exact").parts
    extractor = part.extractor
    searcher = extractor.searcher(extractor.describe_split(data.gallery, "gallery"))
    found = searcher(extractor.describe_split(data.query.take([0, 1]), "query"), 4)
    assert found.indices[0].tolist() == found.indices[1].tolist()
    assert found.distances[0].tolist() == [0, 1, 1, 2]
    assert found.distances[1].tolist() == [-0.5, -0.25, -0.25, -0.125]


def test_the_depth_is_told(tmp_path: Path) -> None:
    data = shop(4, 3)
    lines = lines_of(data)
    assert met(data, trec(tmp_path / "a.run", lines)) == ("its rankings hold 12 items a query",)
    told = met(data, trec(tmp_path / "a.run", [*lines[:-4], ("other", data.gallery.ids[0], 1.0)]))
    assert told[0].startswith(
        "its rankings hold 8 to 12 items a query of a gallery of 12; what they do not hold counts"
    )
    assert told[1] == "1 queries of the file are not asked here"


def test_unknown_names_are_sentences(tmp_path: Path) -> None:
    data = shop(4, 3)
    lines = lines_of(data)
    file = trec(tmp_path / "a.run", [*lines, *((data.query.ids[0], name, 0.1) for name in ("w", "x", "y", "z"))])
    with pytest.raises(
        BenchError, match=r"ranks 4 items that the gallery does not hold: 'w', 'x', 'y', \.\.\.; it must"
    ):
        check(plan(data, f"ranking:{file}"))
    trec(file, lines[12:])
    with pytest.raises(BenchError, match=f"has nothing for 1 of 12 images: '{data.query.ids[0]}'"):
        check(plan(data, f"ranking:{file}"))


@pytest.mark.parametrize(
    ("name", "text", "sentence"),
    [
        ("a.run", "q Q0 i 1 0.5\n", "line 1: 5 columns; a TREC run has 6"),
        ("a.run", "q Q0 i 1 high tag\n", "a score is no number"),
        ("a.run", "q Q0 i 1 nan tag\n", "a score is nan, which ranks nothing"),
        ("a.run", "\n", "ranks nothing"),
        ("a.run", "q Q0 i 1 2 tag\nq Q0 i 2 1 tag\n", "ranks 'i' twice for the query 'q'"),
        ("a.csv", "query,item\nq,i\n", "has query, item; it needs query, item, and score or rank, separated by commas"),
        (
            "a.csv",
            "query item score\nq i 1\n",
            "has query item score; it needs query, item, and score or rank, separated",
        ),
        ("a.csv", "", "has nothing; it needs query, item, and score or rank, separated by commas, semicolons or tabs"),
        ("a.csv", "query;item;score\nq;i;0,5\n", "a score is no number .*'0,5'"),
        ("a.csv", "query,item,rank\nq,i\n", "line 2: 2 cells for 3 columns"),
        ("a.csv", "query,item,rank\nq,i,first\n", "a rank is no number"),
        ("a.csv", "query,item,score\nq,i,1e39\n", "scores or ranks that are too large for float32"),
        ("a.csv", 'query,item,score\n"q,i,1\n' + "q,j,2\n" * 30_000, "no table that can be read"),
        ("a.npz", "no npz", "is no npz file that can be read"),
    ],
)
def test_files_that_are_no_rankings_are_sentences(name: str, text: str, sentence: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(text, encoding="utf-8")
    with pytest.raises(BenchError, match=sentence):
        met(shop(4, 3), tmp_path / name)


def test_it_is_neither_reranked_nor_added_to_vectors(tmp_path: Path) -> None:
    file = trec(tmp_path / "a.run", lines_of(shop(4, 3)))
    for more, sentence in (
        ("+reciprocal", "a ranking has no features to re-rank by; drop reciprocal"),
        ("+hsv", r"join it by \+rrf or \+vote"),
        ("@trim", "reads a file and sees no picture"),
        (":method=hsv", "method=hsv is of a record's rankings.npz"),
    ):
        with pytest.raises(BenchError, match=sentence):
            Pipeline(parse_method(f"ranking:{file}{more}"), Setup(), "exact").meet(shop(4, 3))


def test_a_record_whose_distances_do_not_ascend_is_refused(tmp_path: Path) -> None:
    data = shop(4, 3)
    n, queries = len(data.gallery), np.array(data.query.ids)
    indices = np.tile(np.arange(n), (len(queries), 1))
    distances = np.tile(np.arange(n, dtype=np.float32), (len(queries), 1))
    arrays = {"gallery_ids": np.array(data.gallery.ids), "query_ids": queries, "hsv/indices": indices}
    np.savez(tmp_path / "rankings.npz", **arrays, **{"hsv/distances": distances})
    met(data, tmp_path / "rankings.npz")
    distances[5, 2] = 9
    np.savez(tmp_path / "rankings.npz", **arrays, **{"hsv/distances": distances})
    with pytest.raises(BenchError, match=f"hsv/distances of the query '{queries[5]}' in .* do not ascend"):
        met(data, tmp_path / "rankings.npz")


@pytest.mark.slow(reason="three runs, written and read back")
def test_what_convert_writes_reads_back_to_the_same_scores(tmp_path: Path) -> None:
    data = shop(5, 4)
    before = run(plan(data, "hsv", "phash"), tmp_path / "before")
    files = trec_files(load_rankings(tmp_path / "before", before), ["hsv", "phash"])
    for name, text in files.items():
        (tmp_path / name).write_bytes(text)
    stored = tmp_path / "before" / "rankings.npz"
    methods = [
        *(f"ranking:{tmp_path / name}" for name in files if name != "qrels.trec"),
        *(f"ranking:{stored}:method={name}" for name in ("hsv", "phash")),
        f"ranking:{stored}:method=hsv+phash+rrf",
    ]
    after = run(plan(data, *methods, classifiers=("knn",), perturb=("blur",), severities=(1,)), tmp_path / "after")
    assert after.status == "finished", after.violations
    rows = after.rows
    for old, new in zip((*before.rows, *before.rows), rows[:4], strict=True):
        assert new.status == "ok", new.error
        assert new.scores == old.scores
        assert new.features is None
        assert not {"search_p50", "end_to_end_p50", "search_throughput", "extract_throughput"} & new.times.keys()
        assert "its rankings hold 20 items a query" in new.notices
        assert new.classifiers["knn"].error is not None
    assert rows[0].ties == rows[1].ties == {}  # a TREC file has a score for each place
    assert rows[3].ties == before.rows[1].ties
    values = values_of(tmp_path / "after", after)
    assert values is not None
    for row in rows:
        for name, column in values.by_method[row.method].items():
            assert float(column.mean()) == pytest.approx(row.scores[name], abs=1e-12)
    assert "n/a" in terminal(after)
    assert any("its rankings hold" in line for line in caption(after))


@pytest.mark.slow(reason="a run")
def test_a_truncated_row_is_judged_again_from_its_record(tmp_path: Path) -> None:
    data = shop(4, 3)
    file = trec(tmp_path / "a.run", lines_of(data, 4))
    record = run(plan(data, f"ranking:{file}", f"ranking:{file}+phash+rrf", k=(1, 5)), tmp_path / "out")
    assert record.status == "finished", record.violations
    arrays = load_rankings(tmp_path / "out", record)
    assert arrays[f"ranking:{file}/held"].tolist() == [4] * 12
    values = values_of(tmp_path / "out", record)
    assert values is not None
    for row in record.rows:
        for name, column in values.by_method[row.method].items():
            assert float(column.mean()) == pytest.approx(row.scores[name], abs=1e-12)


def test_nothing_found_at_all_is_zero(tmp_path: Path) -> None:
    data = shop(4, 3)
    gallery, lines = data.gallery, list[Line]()
    for query, label in zip(data.query.ids, data.query.labels.tolist(), strict=True):
        lines.append((query, gallery.ids[int(np.flatnonzero(gallery.labels != label)[0])], 1.0))
    got = found(data, f"ranking:{trec(tmp_path / 'a.run', lines)}")
    assert {name: score for name, score in got.scores.items() if score} == {}
    assert got.relevant is not None
    from retrieval_bench.evaluation.relevance import judge

    trial = prepare(plan(data, f"ranking:{tmp_path / 'a.run'}", k=(1, 5)))
    labels = data.query.labels, data.gallery.labels
    judged = judge(*labels, got.ranking, trial.n_relevant, got.relevant.ranks, truncated=True)
    assert set(metrics.scores(judged, (1, 5)).values()) == {0.0}
    assert {recall for _, recall, _ in precision_recall_curve(judged, 12)} == {0.0}


def test_a_query_that_is_in_the_gallery_does_not_find_itself(tmp_path: Path) -> None:
    data = shop(4, 3)
    alone = replace(data, query=data.gallery, leave_one_out=True)
    lines = [(query, item, float(query == item)) for query in data.gallery.ids for item in data.gallery.ids]
    got = found(alone, f"ranking:{trec(tmp_path / 'a.run', lines)}")
    assert not (got.ranking.indices[:, :11] == np.arange(12)[:, None]).any()
    assert (got.ranking.indices[:, 11] == -1).all()
    assert "map" in got.scores
