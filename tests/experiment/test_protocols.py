"""Other protocols than three disjoint splits with one label an image: leave-one-out, several labels, distractors,
relevance by category, grades, and learning from the gallery. Each against a slow twin that knows no array tricks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from retrieval_bench.compare.diff import diff
from retrieval_bench.compare.reload import dataset_of, from_arrays
from retrieval_bench.core import BenchError, Dataset, NotComparable
from retrieval_bench.datasets.folder import folder
from retrieval_bench.datasets.manifest import manifest
from retrieval_bench.evaluation.relevance import relevant_among
from retrieval_bench.experiment.prepare import prepare
from retrieval_bench.experiment.repeat import plan_of
from retrieval_bench.experiment.runner import run
from retrieval_bench.experiment.sanity_checks import violations
from retrieval_bench.records.conversion import qrels
from retrieval_bench.records.files import load, load_rankings
from retrieval_bench.records.schema import Record
from retrieval_bench.registry import DATASETS, parse
from tests.support.nasty import photo, shop
from tests.support.runs import plan

Arrays = dict[str, np.ndarray]


def ran(dataset: Dataset, out: Path, *methods: str, **changes: object) -> tuple[Record, Arrays]:
    record = run(plan(dataset, *methods, **changes), out)
    assert record.status == "finished", record.violations
    assert all(row.status == "ok" for row in record.rows), [row.error for row in record.rows]
    return load(out), dict(load_rankings(out, record))


def agrees(record: Record, arrays: Arrays, relevant: Callable[[str, str], bool]) -> None:
    """accuracy, recall, map@r and mrr of every row, by the plainest code there is; relevant: (query id, gallery id)."""
    gallery = arrays["gallery_ids"].tolist()
    for row in record.rows:
        values: dict[str, list[float]] = {"accuracy": [], "recall@5": [], "map@r": [], "mrr": []}
        for query, found in zip(arrays["query_ids"].tolist(), arrays[f"{row.method}/indices"].tolist(), strict=True):
            answers = [item for item in gallery if item != query and relevant(query, item)]
            right = [gallery[place] in answers for place in found if place >= 0]
            assert query not in [gallery[place] for place in found if place >= 0]
            n = len(answers)
            values["accuracy"].append(right[0])
            values["recall@5"].append(sum(right[:5]) / n)
            values["map@r"].append(sum(sum(right[: i + 1]) / (i + 1) for i in range(n) if right[i]) / n)
            values["mrr"].append(1 / (right.index(True) + 1))
        for name, each in values.items():
            assert row.scores[name] == pytest.approx(np.mean(each)), (row.method, name)
    known = from_arrays(arrays, record)
    assert known is not None
    for row in record.rows:  # and what is read back from the record says the same
        for name, each in known.by_method[row.method].items():
            assert row.scores[name] == pytest.approx(each.mean())
    assert qrels(arrays).count(" 0 ") == int(arrays["n_relevant"].sum())
    assert violations(record, arrays) == ()


STEPS = ("phash", "hsv", "hsv+qe", "hsv+reciprocal", "phash+hsv", "oracle")


def label_of(item: str) -> str:
    return item.partition("/")[0]


@pytest.mark.slow(reason="runs several methods from end to end")
def test_leave_one_out_excludes_each_query_by_its_row(tmp_path: Path) -> None:
    shop(tmp_path / "in", {"mug": 5, "bag": 4, "lone": 1, "cup": 4})
    for copy in ("mug/copy.png", "cup/copy.png"):  # a copy of a query is another image, and may be found
        (tmp_path / "in" / copy).write_bytes((tmp_path / "in" / "mug" / "mug_000.png").read_bytes())
    dataset = folder(tmp_path / "in", split="leave-one-out")
    record, arrays = ran(dataset, tmp_path / "out", *STEPS, perturb=("flip",), severities=(1,), learn_from="gallery")
    agrees(record, arrays, lambda query, item: label_of(query) == label_of(item))
    assert record.dataset.leave_one_out
    assert record.dataset.queries_left_out == 1
    assert record.controls["oracle"]["accuracy"] == 1.0
    own = arrays["exclude"]
    assert (arrays["gallery_ids"][own] == arrays["query_ids"]).all()
    first = arrays["query_ids"].tolist().index("mug/mug_000.png")
    assert arrays["gallery_ids"][arrays["hsv/indices"][first, 0]].item().endswith("copy.png")
    assert arrays["hsv/distances"][first, 0] == 0


@pytest.mark.slow(reason="runs several methods from end to end")
def test_a_manifest_with_queries_of_both_kinds(tmp_path: Path) -> None:
    lines = ["path,label,split"]
    for number in range(48):
        photo(tmp_path / f"{number}.png", number)
        lines.append(f"{number}.png,{'ab'[number % 2]},{('both', 'gallery', 'query', 'both')[number // 2 % 4]}")
    (tmp_path / "list.csv").write_text("\n".join(lines))
    dataset = manifest(tmp_path / "list.csv")
    record, arrays = ran(dataset, tmp_path / "out", "phash", "hsv")
    parity = {item: int(item.partition(".")[0]) % 2 for item in arrays["gallery_ids"].tolist()}
    parity |= {item: int(item.partition(".")[0]) % 2 for item in arrays["query_ids"].tolist()}
    agrees(record, arrays, lambda query, item: parity[query] == parity[item])
    assert (arrays["exclude"] == -1).any()
    assert (arrays["exclude"] >= 0).any()


@pytest.mark.slow(reason="whole runs")
def test_rankings_of_leave_one_out_are_the_same_again(tmp_path: Path) -> None:
    root = shop(tmp_path / "in", {"mug": 4, "bag": 4})
    spec = parse(DATASETS, "folder:split=leave-one-out")
    first = run(replace(plan(folder(root), "phash", "hsv"), dataset=spec, root=root), tmp_path / "one")
    second = run(plan_of(first), tmp_path / "two")
    assert diff(first, second).passed
    assert (tmp_path / "one/rankings.npz").read_bytes() == (tmp_path / "two/rankings.npz").read_bytes()
    assert dataset_of(first).leave_one_out


SETS = {
    "g0": "a|b",
    "g1": "b",
    "g2": "c",
    "g3": "",
    "g4": "a",
    "g5": "",
    "g6": "c|a|b",
    "g7": "d",
    "q0": "a",
    "q1": "b|d",
    "q2": "c",
    "q3": "d|a",
    "t0": "a|c",
    "t1": "b",
}
OF = {"a": "x", "b": "x", "c": "y", "d": "y"}


def several(folder: Path, category: bool = True) -> Dataset:
    lines = ["path,labels,split" + (",category" if category else "")]
    for number, (item, labels) in enumerate(SETS.items()):
        photo(folder / f"{item}.png", number)
        split = {"g": "gallery", "q": "query", "t": "train"}[item[0]]
        kinds = "|".join(OF[label] for label in labels.split("|") if label)
        lines.append(f"{item}.png,{labels},{split}" + (f",{kinds}" if category else ""))
    (folder / "list.csv").write_text("\n".join(lines))
    return manifest(folder / "list.csv")


def shares(query: str, item: str) -> bool:
    one, other = (set(SETS[name.partition(".")[0]].split("|")) - {""} for name in (query, item))
    return bool(one & other)


def shares_category(query: str, item: str) -> bool:
    one, other = ({OF[o] for o in SETS[name.partition(".")[0]].split("|") if o} for name in (query, item))
    return bool(one & other)


@pytest.mark.slow(reason="runs several methods from end to end")
def test_several_labels_and_distractors(tmp_path: Path) -> None:
    dataset = several(tmp_path, category=False)
    record, arrays = ran(dataset, tmp_path / "out", "phash", "hsv", "color", "oracle", k=(1, 5))
    agrees(record, arrays, shares)
    assert record.dataset.distractors == 2
    assert record.dataset.labels == 4
    assert any("2 gallery images have no label: distractors" in notice for notice in record.dataset.notices)
    assert any("several labels: 1 train, 2 gallery, 2 query" in notice for notice in record.dataset.notices)
    oracle = record.rows[-1]
    assert oracle.scores["map@r"] == record.controls["oracle"]["map@r"] == 1.0
    assert oracle.scores["knn_accuracy@1"] == 1.0
    assert len(arrays["phash/indices"][0][arrays["phash/indices"][0] >= 0]) == 8  # one rank for each picture


@pytest.mark.slow(reason="runs several methods from end to end")
def test_relevance_by_category(tmp_path: Path) -> None:
    dataset = several(tmp_path)
    record, arrays = ran(dataset, tmp_path / "out", "phash", "hsv", "oracle", k=(1, 5), relevance="category")
    agrees(record, arrays, shares_category)
    assert record.settings.relevance == "category"
    assert record.controls["oracle"]["map@r"] == 1.0
    by_label, _ = ran(dataset, tmp_path / "label", "phash", "hsv", "oracle", k=(1, 5))
    assert by_label.dataset.fingerprint == record.dataset.fingerprint
    with pytest.raises(NotComparable, match="what counts as relevant differs"):
        diff(by_label, record)


@pytest.mark.slow(reason="whole runs")
def test_graded_relevance(tmp_path: Path) -> None:
    pytrec_eval = pytest.importorskip("pytrec_eval", reason="pytrec_eval comes with the development tools")
    dataset = several(tmp_path)
    record, arrays = ran(dataset, tmp_path / "out", "phash", "hsv", k=(1, 5), relevance="graded")
    agrees(record, arrays, shares)
    grades = {
        query: {item: 2 * shares(query, item) or int(shares_category(query, item)) for item in dataset.gallery.ids}
        for query in dataset.query.ids
    }
    for row in record.rows:
        ranked = {
            query: {dataset.gallery.ids[place]: float(-rank) for rank, place in enumerate(found)}
            for query, found in zip(dataset.query.ids, arrays[f"{row.method}/indices"].tolist(), strict=True)
        }
        theirs = pytrec_eval.RelevanceEvaluator(grades, {"ndcg_cut.1,5"}).evaluate(ranked)
        for k in (1, 5):
            expected = np.mean([of_query[f"ndcg_cut_{k}"] for of_query in theirs.values()])
            assert row.scores[f"graded_ndcg@{k}"] == pytest.approx(expected)
    assert record.ceilings["graded_ndcg@5"] == 1.0
    assert "graded_ndcg" in record.metrics


@pytest.mark.slow(reason="whole runs")
def test_without_grades_nothing_speaks_of_them(tmp_path: Path) -> None:
    record, arrays = ran(several(tmp_path), tmp_path / "out", "phash")
    assert not any("graded" in name for name in (*record.metrics, *record.rows[0].scores, *record.ceilings))
    assert not any("n_partly" in name for name in arrays)
    assert '"relevance"' not in (tmp_path / "out/run.json").read_text()


@pytest.mark.parametrize("relevance", ["category", "graded"])
def test_categories_that_are_not_there(tmp_path: Path, relevance: str) -> None:
    dataset = several(tmp_path, category=False)
    with pytest.raises(BenchError, match=f"--relevance {relevance}: dataset manifest has no categories"):
        prepare(plan(dataset, "phash", relevance=relevance))


def one_shot(root: Path) -> Dataset:
    for number in range(8):
        photo(root / "gallery" / f"p{number}" / "only.png", number)
        photo(root / "query" / f"p{number}" / "asked.png", 100 + number)
    return folder(root)


@pytest.mark.slow(reason="runs several methods from end to end")
def test_learning_from_a_catalogue_of_one_image_a_label(tmp_path: Path) -> None:
    dataset = one_shot(tmp_path / "in")
    asked = plan(dataset, "phash", "color", "hsv+phash+concat", classifiers=("knn",), learn_from="gallery")
    record = run(asked, tmp_path / "out")
    assert [row.method for row in record.rows] == ["phash", "color[gallery]", "hsv+phash+concat[gallery]"]
    assert all(row.status == "ok" for row in record.rows)
    assert all(facts.error is None for row in record.rows for facts in row.classifiers.values())
    assert record.status == "finished"
    assert record.settings.learn_from == "gallery"
    with_train = run(plan(dataset, "phash"), tmp_path / "train")
    with pytest.raises(NotComparable, match="the split that methods learned from differs"):
        diff(with_train, record)
    refused = run(plan(dataset, "color"), tmp_path / "none")
    assert refused.rows[0].error is not None
    assert "--learn-from gallery" in refused.rows[0].error.sentence


def test_a_classifier_never_learns_from_a_query(tmp_path: Path) -> None:
    dataset = folder(shop(tmp_path / "in", {"mug": 4, "bag": 4}), split="leave-one-out")
    record = run(plan(dataset, "hsv", classifiers=("knn",), learn_from="gallery"), tmp_path / "out")
    (facts,) = record.rows[0].classifiers.values()
    assert (
        facts.error == "classifiers learn from gallery and each of its images is a query; they would know the answers"
    )


@pytest.mark.slow(reason="whole runs")
def test_distractors_are_no_label_and_no_category(tmp_path: Path) -> None:
    dataset = several(tmp_path)
    assert dataset.label_names == ("a", "b", "c", "d", "(distractor)")
    assert dataset.label_count == 4
    record = run(plan(dataset, "phash", k=(1,)), tmp_path / "out")
    assert (record.dataset.labels, record.dataset.categories, record.dataset.distractors) == (4, 2, 2)


def test_distractors_are_not_learned_from(tmp_path: Path) -> None:
    trial = prepare(plan(several(tmp_path), "phash", learn_from="gallery"))
    assert trial.train.ids == ("g0.png", "g1.png", "g2.png", "g4.png", "g6.png", "g7.png")


def test_a_label_that_is_missing_where_it_must_not_be(tmp_path: Path) -> None:
    for number, item in enumerate("abc"):
        photo(tmp_path / f"{item}.png", number)
    photo(tmp_path / "d.png", 9)
    rows = "path,label,split\na.png,mug,gallery\nb.png,bag,gallery\nc.png,mug,query\nd.png,,"
    for split in ("train", "both"):
        (tmp_path / "list.csv").write_text(f"{rows}{split}\n")
        with pytest.raises(BenchError, match="line 5: label is missing; only an image of gallery or query may have"):
            manifest(tmp_path / "list.csv")
    (tmp_path / "list.csv").write_text(f"{rows}query\n")
    trial = prepare(plan(manifest(tmp_path / "list.csv"), "phash", k=(1,)))
    assert (trial.dataset.query.ids, trial.left_out) == (("c.png",), 1)
    assert trial.unanswerable is not None
    assert trial.unanswerable.query.ids == ("d.png",)
    (tmp_path / "list.csv").write_text("path,label,split\na.png,(distractor),gallery\n")
    with pytest.raises(BenchError, match="leave the cell empty"):
        manifest(tmp_path / "list.csv")


def test_relevant_among_is_what_sets_say() -> None:
    dice = np.random.default_rng(0)
    query, gallery = (dice.integers(-1, 5, (n, m)) for n, m in ((30, 3), (40, 2)))
    query[:, 0], gallery[:, 0] = dice.integers(0, 5, 30), dice.integers(0, 5, 40)
    indices = np.tile(np.arange(-1, 40), (30, 1))
    found = relevant_among(indices, query, gallery)
    assert not found[:, 0].any()
    for row in range(30):
        for place in range(40):
            assert found[row, place + 1] == bool(set(query[row]) & set(gallery[place]) - {-1})


def test_the_fingerprint_holds_the_categories_of_every_label(tmp_path: Path) -> None:
    prints = set()
    for category in "XY":
        folder = tmp_path / category
        for number, item in enumerate("abc"):
            photo(folder / f"{item}.png", number)
        (folder / "list.csv").write_text(
            f"path,labels,category,split\na.png,mug|bag,Z|{category},gallery\nb.png,mug,Z,gallery\nc.png,mug,Z,query\n"
        )
        prints.add(manifest(folder / "list.csv").fingerprint)
    assert len(prints) == 2


def test_a_distractor_does_not_tear_its_group_apart(tmp_path: Path) -> None:
    lines = ["path,label,group"]
    for number in range(48):
        photo(tmp_path / f"{number}.png", number)
        lines.append(f"{number}.png,{'' if number % 4 == 3 else 'mug' if number % 2 else 'bag'},g{number // 4}")
    (tmp_path / "list.csv").write_text("\n".join(lines) + "\n")
    dataset = manifest(tmp_path / "list.csv", split="30/40/30")
    assert {f"{number}.png" for number in range(3, 48, 4)} <= set(dataset.gallery.ids)
    for group in range(12):
        held = {f"{4 * group + place}.png" for place in range(3)}
        assert sum(bool(held & set(split.ids)) for split in dataset.splits.values()) == 1
