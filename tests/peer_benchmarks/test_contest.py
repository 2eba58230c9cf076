"""The contest: its checks catch wrong results, its targets are judged as written, and it runs. No time is judged."""

import json

import numpy as np
import pytest
from typer.testing import CliRunner

from benchmark.kernel import app
from retrieval_bench.core import BenchError
from retrieval_bench.peer_benchmarks import competitors, hard, measurement, memory, plot, report, run, targets
from retrieval_bench.peer_benchmarks.agreement import disagreement, true_distances
from retrieval_bench.peer_benchmarks.competitors import PeerResult
from retrieval_bench.peer_benchmarks.data import APART, DATA
from retrieval_bench.peer_benchmarks.measurement import Result
from retrieval_bench.peer_benchmarks.peaks import WIDTHS, Peaks, emitted_multiply_adds, plain_multiply_adds, read_all
from retrieval_bench.peer_benchmarks.run import KernelPlan, KernelResults
from retrieval_bench.peer_benchmarks.shapes import ALL, BATCHES, CODES, SINGLES, Shape, by_gallery_size, chosen
from retrieval_bench.search.stats import ScanStats
from retrieval_bench.system.timing import pinned

VECTORS, BITS = Shape(6, 400, 24, k=7), Shape(6, 400, 64, k=7, bits=True)


def searched(shape: Shape) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Queries, gallery, and the rows and distances of the k nearest, by the obvious way."""
    queries, gallery = shape.data(seed=1)
    everything = np.tile(np.arange(shape.rows), (shape.queries, 1))
    rows = np.argsort(true_distances(queries, gallery, everything), axis=1, kind="stable")[:, : shape.k]
    return queries, gallery, rows, true_distances(queries, gallery, rows)


@pytest.mark.parametrize("shape", [VECTORS, BITS], ids=["vectors", "codes"])
def test_the_right_answer_is_accepted_and_wrong_ones_are_named(shape):
    queries, gallery, rows, distances = searched(shape)
    assert disagreement(queries, gallery, rows, rows, distances) is None
    assert disagreement(queries, gallery, rows, rows, None) is None

    def judged(change, expected=rows, distances=None):
        changed = rows.copy()
        change(changed)
        return disagreement(queries, gallery, changed, expected, distances) or ""

    far = int(true_distances(queries[2:3], gallery, np.arange(shape.rows)[None]).argmax())
    assert judged(lambda found: found[2].__setitem__(-1, far)) == "query 2 misses a nearer row"
    assert judged(lambda found: found[3].__setitem__([0, -1], rows[3][[-1, 0]])) == "query 3 is not in order"
    assert judged(lambda found: found[4].__setitem__(1, rows[4][0])) == "query 4 finds a row twice"
    assert "outside the gallery" in judged(lambda found: found[5].__setitem__(0, shape.rows))
    assert "outside the gallery" in judged(lambda found: found[5].__setitem__(0, -1))
    assert "shape" in (disagreement(queries, gallery, rows[:, :-1], rows, None) or "")
    off = distances.copy()
    off[1, 3] += 1 if shape.bits else 1e-4
    assert judged(lambda found: None, distances=off) == "query 1 gives a wrong distance"
    poor = rows.copy()
    poor[0, -1] = int(true_distances(queries[:1], gallery, np.arange(shape.rows)[None]).argmax())
    assert "expectation is wrong" in judged(lambda found: None, expected=poor)


def test_rows_that_rounding_cannot_tell_apart_may_change_places():
    gallery = np.zeros((5, 2), np.float32)
    gallery[:, 0] = [1, 1 - 1e-7, 0.5, 0.4, 1]
    queries = np.array([[1, 0]], np.float32)
    for found in ([0, 1, 4], [4, 0, 1], [1, 4, 0]):
        assert disagreement(queries, gallery, np.array([found]), np.array([[0, 4, 1]]), None) is None
    codes = np.array([[0], [1], [2], [4], [255]], np.uint8)  # one bit differs in three of them: any two will do
    zero = np.zeros((1, 1), np.uint8)
    assert disagreement(zero, codes, np.array([[0, 3, 1]]), np.array([[0, 1, 2]]), None) is None
    assert "misses" in (disagreement(zero, codes, np.array([[0, 3, 4]]), np.array([[0, 1, 2]]), None) or "")


def test_judged_in_parts_it_is_the_same(monkeypatch):
    queries, gallery, rows, distances = searched(VECTORS)
    monkeypatch.setattr("retrieval_bench.peer_benchmarks.agreement._VALUES_AT_ONCE", 1)
    assert disagreement(queries, gallery, rows, rows, distances) is None
    rows = rows.copy()
    rows[4, 0] = rows[4, 1]
    assert disagreement(queries, gallery, rows, searched(VECTORS)[2], None) == "query 4 finds a row twice"


@pytest.fixture
def on_one_thread(monkeypatch):
    """Nobody waits for a second core that other tests may be using."""
    for library in ("faiss", "usearch", "numkong"):
        pytest.importorskip(library, reason="all competitors come with the development tools")
    monkeypatch.setattr(measurement, "_QUIET_AT_MOST_S", 0.0)
    with pinned(1):
        yield


@pytest.mark.parametrize("shape", [Shape(40, 700, 33, k=5), Shape(1, 700, 128), BITS, Shape(1, 500, 64, bits=True)])
def test_every_rival_finds_the_same_at_every_setting(monkeypatch, on_one_thread, shape):
    monkeypatch.setattr(competitors, "PRODUCT_BYTES", {"small": 3 * 4 * shape.rows})
    queries, gallery = shape.data()
    reference = competitors.ours_float32(shape, queries, gallery)[""]()
    for name, rival in competitors.rivals().items():
        settings = rival(shape, queries, gallery)
        if not settings:
            assert shape.bits
            continue
        _, why = measurement.try_out(name, settings, reference, queries, gallery, patience_s=0.0)
        assert why is None, name
        if name == "numpy" and shape.queries == 40:
            assert set(settings) == {"whole", "small"}


def test_who_is_wrong_is_named_and_not_timed():
    def truth(shape, queries, gallery):
        rows, distances = searched(shape)[2:]
        return {"": lambda: PeerResult(rows, distances.astype(np.float32))}

    def one_bit_off(shape, queries, gallery):
        rows, distances = searched(shape)[2:]
        return {"": lambda: PeerResult(rows, np.nextafter(distances.astype(np.float32), np.float32(2)))}

    def forgetful(shape, queries, gallery):
        rows = searched(shape)[2]
        return {"good": lambda: PeerResult(rows, None), "bad": lambda: PeerResult(np.roll(rows, 1, axis=1), None)}

    def elsewhere(shape, queries, gallery):
        return {}

    class SameData(Shape):
        def data(self, seed=1, kind="gauss"):
            return super().data(seed, kind)

    entrants = {"float32": truth, "int8": one_bit_off, "numpy": truth, "torch": forgetful, "faiss": elsewhere}
    result = measurement.race(
        SameData(6, 400, 24, k=7), entrants, rounds=2, peaks=Peaks(lambda: 1e9, lambda: 2e9), patience_s=0
    )
    assert result.wrong == {
        "int8": "not identical to float32: distances differ",
        "torch": "bad: query 0 is not in order",
    }
    assert {name: len(times) for name, times in result.samples_ms.items()} == {"float32": 2, "numpy": 2}
    assert result.peak_flops == [1e9, 1e9]
    assert result.best_peer == "numpy"
    lines = KernelResults(KernelPlan(), 1, [result], 0.5).lines()
    assert "wrong" in lines[2]
    assert "WRONG: 6 x 400 x 24: int8: not identical to float32: distances differ" in lines
    assert any("The figures are not reliable" in line for line in lines)


def test_nobody_left_to_time():
    def lost(shape, queries, gallery):
        return {"": lambda: PeerResult(np.zeros((shape.queries, shape.k), np.int64), None)}

    assert measurement.race(VECTORS, {}, rounds=1).samples_ms == {}
    alone = measurement.race(VECTORS, {"float32": lost}, rounds=1)
    assert alone.wrong == {"float32": "query 0 finds a row twice"}
    assert any("wrong" in line for line in KernelResults(KernelPlan(), 1, [alone], None).lines())


def result(shape: Shape, flops: float = 1e12, read: float = 1e11, **ms: float) -> Result:
    return Result(shape, {name: [time] for name, time in ms.items()}, peak_flops=[flops], peak_read=[read])


def test_figures_of_a_result():
    one = Result(Shape(10, 1000, 50), {"float32": [1.0, 9.0, 2.0], "numpy": [8.0], "faiss": [5.0]})
    assert (one.ms("float32"), one.ms("torch"), one.best_peer) == (2.0, None, "faiss")
    assert one.ratio("float32") == 2.5
    assert one.ratio_of_fastest("float32") == 5.0
    assert one.ratio("int8") is None
    assert one.flops() == 2 * 10 * 1000 * 50 / 2e-3
    assert one.read() == 4 * 1000 * 50 / 2e-3
    assert one.share_of_flops() is None
    codes = result(Shape(1, 1000, 64, bits=True), float32=1.0)
    assert codes.flops() is None
    assert codes.read() == 8000 / 1e-3
    assert codes.ratio("float32") is None


def verdict(results: list[Result], what: str, extra: dict[str, float] | None = None) -> targets.TargetVerdict:
    (found,) = [verdict for verdict in targets.verdicts(results, extra) if verdict.what == what]
    return found


def test_every_shape_must_reach_the_target():
    what = "float32, every batch of the first proof"
    good = [result(shape, float32=1.0, numpy=3.0, faiss=2.0) for shape in BATCHES]
    assert verdict(good, what).met is True
    assert verdict(good[1:], what).met is None  # one shape was not measured: nothing to say
    bad = [*good[:-1], result(BATCHES[-1], float32=1.2, numpy=2.0)]
    assert verdict(bad, what).met is False
    assert verdict(bad, what).figure == f"1.67 at {BATCHES[-1].name}"
    assert verdict(bad[-1:], what).met is False  # one below the mark is enough, whatever the others are
    assert verdict([], what).met is None
    assert verdict([], what).figure == "not measured"


def test_the_mean_is_geometric_and_needs_all_batches():
    what = "float32, their geometric mean"
    ratios = [1.5, 2.0, 4.0, 3.0, 3.0, 6.0]
    batches = [result(shape, float32=1.0, numpy=ratio) for shape, ratio in zip(BATCHES, ratios, strict=True)]
    assert targets.geometric_mean([1.0, 4.0]) == 2.0
    found = verdict(batches, what)
    assert found.met is True
    assert found.figure.startswith(f"{np.prod(ratios) ** (1 / 6):.2f}; ")
    assert verdict(batches[:-1], what).met is None
    assert verdict([result(shape, float32=1.0, numpy=2.0) for shape in BATCHES], what).met is False


def test_instead_of_the_mean_nine_tenths_of_the_binding_peak_will_do():
    what = "float32, their geometric mean"

    def near_the_peak(share: float, last: float) -> list[Result]:
        shares = [*(share for _ in BATCHES[1:]), last]
        ms = [shape.flops / 1e12 * 1e3 / share for shape, share in zip(BATCHES, shares, strict=True)]
        return [result(shape, read=1e15, float32=time, numpy=2 * time) for shape, time in zip(BATCHES, ms, strict=True)]

    found = verdict(near_the_peak(0.95, 0.91), what)
    assert (found.met, found.figure) == (True, f"2.00; 91 % at {BATCHES[-1].name}")
    assert verdict(near_the_peak(0.95, 0.89), what).met is False
    assert verdict(near_the_peak(0.95, 1.2), what).met is False  # a peak that was disturbed shows nothing
    assert verdict(near_the_peak(0.95, 0.91)[1:], what).met is None
    memory_bound = result(BATCHES[0], flops=1e15, read=1e11, float32=BATCHES[0].gallery_bytes / 1e11 * 1e3 / 0.92)
    assert memory_bound.share_of_peak() == pytest.approx(0.92)


def test_shares_of_the_peaks():
    shape = Shape(1000, 50_000, 512)
    needed = shape.flops / 1e12 * 1e3  # ms at the peak of 1e12
    assert verdict([result(shape, float32=needed / 0.851)], "float32, share of the multiply-add peak").met is True
    assert verdict([result(shape, float32=needed / 0.849)], "float32, share of the multiply-add peak").met is False
    assert verdict([result(shape, float32=needed / 1.5)], "float32, share of the multiply-add peak").met is None
    shape = SINGLES[0]
    needed = shape.gallery_bytes / 1e11 * 1e3
    assert verdict([result(shape, float32=needed / 0.901)], "float32, share of the read peak").met is True
    found = verdict([result(shape, float32=needed / 0.5)], "float32, share of the read peak")
    assert (found.met, found.asked, found.figure) == (False, ">= 90.0 %", "50.0 %")


def test_int8_hamming_and_memory():
    assert {shape.key for shape in targets.LARGE_BATCHES} == {
        *("1000x50000x512-k10", "1000x20000x2048-k10", "2485x2640x512-k10", "100x50000x768-k10")
    }
    singles = [result(shape, float32=4.0, int8=1.0, faiss=3.0) for shape in targets.ONE_QUERY]
    assert verdict(singles, "int8, one query").met is True
    assert verdict(singles, "float32, one query").met is False
    codes = [result(shape, float32=1.0, faiss=1.4) for shape in CODES]
    assert verdict(codes, "hamming, every shape").met is False
    assert verdict([], "float32, memory above gallery and index", {"float32": 63.9}).met is True
    assert verdict([], "float32, memory above gallery and index", {"float32": 64.0}).met is False
    assert len(targets.verdicts([])) == len(targets.TARGETS)  # memory is judged only where it was measured


def test_the_table_has_a_line_a_shape_and_a_star_at_the_best_peer():
    shown = [
        result(SINGLES[0], float32=4.0, int8=1.0, numpy=5.0, faiss=3.0),
        result(CODES[0], float32=1.0, faiss=1234.5),
    ]
    head, rule, first, second = report.table(shown)
    assert len(set(map(len, (head, rule, first)))) == 1
    assert head.split()[5:11] == ["k", "float32", "int8", "numpy", "faiss", "x"]
    assert first.split()[5:] == [
        *("10", "4.00", "1.00", "5.00", "3.00*", "0.750", "3.00", "25.6", "3", "%", "51.2", "51", "%", *"----")
    ]
    assert "1,234*" in second
    assert " - " in second


def test_the_share_of_rescored_rows_is_in_the_table():
    shape = Shape(2, 1000, 16)
    one = result(shape, float32=1.0, int8=1.0)
    one.stats = {"float32": ScanStats(2, 1000, 24, 0), "int8": ScanStats(2, 1000, 2000, 1)}
    head, _, line = report.table([one])
    place = head.split("  ")
    assert [word for word in place if word.strip() in ("rescored", "resc. int8")]
    assert line.split()[-6:-2] == ["1.200", "%", "100.000", "%"]
    (data,) = report.as_data([one], [])["shapes"]
    assert data["scanned"]["float32"] == {"queries": 2, "rows": 1000, "rescored": 24, "doubtful": 0, "share": 0.012}


def test_a_race_tells_what_our_own_searches_did():
    entrants = {"float32": competitors.ours_float32, "int8": competitors.ours_int8, "numpy": competitors.search_numpy}
    raced = measurement.race(VECTORS, entrants, rounds=1, patience_s=0.0, data="clustered")
    assert not raced.wrong
    assert set(raced.stats) == {"float32", "int8"}
    for stats in raced.stats.values():
        assert stats[:2] == (6, 400)
        assert stats.rescored >= 6 * 7


def test_noise_is_as_it_always_was():
    queries, gallery = Shape(2, 3, 4).data()
    rng = np.random.default_rng(0)
    for found, count in ((gallery, 3), (queries, 2)):
        rows = rng.standard_normal((count, 4), dtype=np.float32)
        np.testing.assert_array_equal(found, rows / np.linalg.norm(rows, axis=1, keepdims=True))


@pytest.mark.parametrize("kind", DATA)
def test_every_kind_of_data_is_what_it_says(kind):
    shape = Shape(50, 5_000, 64)
    queries, gallery = shape.data(kind=kind)
    assert (queries.dtype, gallery.dtype, queries.shape, gallery.shape) == (*2 * [np.float32], (50, 64), (5_000, 64))
    np.testing.assert_allclose(np.linalg.norm(gallery, axis=1), 1, atol=1e-6)
    products = np.sort(queries.astype(np.float64) @ gallery.T.astype(np.float64), axis=1)
    typical, nearest = np.median(products), np.median(products[:, -1])
    if kind == "gauss":
        assert abs(typical) < 0.02
        assert nearest < 0.7
    elif kind == "clustered":
        assert 0.3 < typical < 0.5
        assert 0.8 < nearest < 0.99
    else:
        assert abs(typical) < 0.05
        apart = np.linalg.norm(queries[:, None].astype(np.float64) - gallery[None], axis=2)
        np.testing.assert_allclose(np.sort(apart, axis=1)[:, :50], np.sqrt(2) * APART, rtol=0.5)
    codes = Shape(4, 2_000, 64, bits=True).data(kind=kind)[1]
    assert (codes.dtype, codes.shape) == (np.uint8, (2_000, 8))
    assert 0.3 < np.bitwise_count(codes).mean() / 8 < 0.8


def test_a_peer_that_gives_noise_instead_of_near_duplicates_is_found_out():
    queries, gallery = VECTORS.data(kind="duplicates")
    reference = competitors.ours_float32(VECTORS, queries, gallery)[""]()
    assert disagreement(queries, gallery, reference.rows, reference.rows, reference.distances) is None
    shifted = (reference.rows + 1) % VECTORS.rows
    assert disagreement(queries, gallery, shifted, reference.rows, None) is not None


SMALL = Shape(3, 300, 16)


@pytest.fixture(scope="module")
def hard_results():
    with pinned(1):
        return hard.races(SMALL, rounds=2)


def test_hard_data_is_searched_and_right(hard_results):
    assert len(hard_results) == len(hard.HARD) * len(hard.DISTANCES)
    for one in hard_results:
        assert one.wrong == {}
        assert {name: len(times) for name, times in one.ms.items()} == {"float32": 2, "int8": 2}
        assert set(one.gauss_ms) == {"float32", "int8"}
    equal = next(one for one in hard_results if one.data == "all rows equal")
    assert equal.stats["float32"].doubtful == SMALL.queries
    assert equal.stats["float32"].share > 1  # all of them, after some that were computed twice


def test_hard_data_is_what_it_says():
    rng = np.random.default_rng(0)
    rows = hard.parallel(rng, 20, 8)
    assert np.linalg.matrix_rank(rows) == 1
    assert len(np.unique(rows, axis=0)) == 20
    assert len(np.unique(hard.equal(rng, 20, 8), axis=0)) == 1
    rows = hard.near_duplicates(rng, 200, 64)
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1e6, rtol=1e-4)
    assert 1e-6 < np.linalg.norm(rows - rows.mean(axis=0), axis=1).mean() / 1e6 < 2e-5
    assert set(hard.huge_coordinate(rng, 200, 8)[:, 0]) == {1e6}
    rows = np.abs(hard.wide_coordinate(rng, 200, 8))
    assert len(set(rows[:, 0])) == 200
    assert rows[:, 0].mean() > 1e5 * rows[:, 1:].mean()


def test_the_ratios_of_hard_data_are_judged_and_wrong_results_named():
    one = hard.HardResult(
        "all rows equal",
        "cosine",
        {"float32": [31.0, 29.0, 30.0], "int8": [61.0]},
        {"float32": [10.0], "int8": [5.0]},
        {"float32": ScanStats(1, 10, 10, 1), "int8": ScanStats(1, 10, 5, 0)},
        {"int8": "not identical to the float64 backend"},
    )
    assert (one.ratio("float32"), one.ratio("int8"), one.ratio("int8", "float32")) == (3.0, 12.2, 6.1)
    text = hard.lines([one], SMALL, quick=False)
    assert text[2].split()[-9:] == ["30.0", "3.00", "100.00", "%", "61.0", "12.20", "6.10", "50.00", "%"]
    assert "WRONG: all rows equal, cosine: int8: not identical to the float64 backend" in text
    assert [line.split()[0] for line in text[-2:]] == ["met", "NOT"]
    assert "no target is judged" in hard.lines([one], SMALL, quick=True)[-1]


def test_choosing_shapes():
    assert chosen(None) == list(ALL)
    assert {shape.queries for shape in chosen("1x*, hamming-1x*")} == {1}
    assert len(chosen("hamming*")) == 4
    assert all(shape.rows <= 10_000 for shape in chosen(None, quick=True))
    with pytest.raises(BenchError, match=r"no shape matches '7x\*'; known are 1x100000x512-k10"):
        chosen("7x*")
    assert [shape.rows for shape in by_gallery_size(100, largest=10_000)] == [1000, 3162, 10_000]
    assert len({shape.key for shape in ALL}) == len(ALL) == 15


@pytest.mark.parametrize("width", WIDTHS)
def test_the_emitted_loop_equals_its_plain_twin(width):
    for steps in (1, 7):
        assert emitted_multiply_adds(width)(steps) == plain_multiply_adds(width, steps)[:, 0].sum()


def test_the_read_loop_reads_everything():
    words = np.random.default_rng(0).integers(0, 2**63, 1003, dtype=np.uint64)
    assert read_all(words) == np.bitwise_xor.reduce(words)


def test_labels_keep_their_order_and_their_distance():
    spread = plot._spread({"a": 10.0, "b": 10.1, "c": 10.2, "d": 500.0}, gap=1.5)
    assert list(spread) == ["a", "b", "c", "d"]
    heights = np.array(list(spread.values()))
    assert (heights[1:] / heights[:-1] > 0.99 * 1.5).all()


@pytest.fixture
def without_peaks(monkeypatch):
    """The read loop would fill 512 MiB."""
    monkeypatch.setattr(run, "peaks", lambda threads: Peaks(lambda: 5e11, lambda: 5e10))


def test_quick_from_end_to_end(without_peaks, monkeypatch, tmp_path):
    monkeypatch.setattr(measurement, "_QUIET_AT_MOST_S", 0.0)
    file = tmp_path / "times.json"
    options = ["--quick", "--rounds", "1", "--threads", "1", "--only", "16x*,hamming-1x*x64-*", "--json", str(file)]
    options += ["--data", "clustered"]
    done = CliRunner().invoke(app, options)
    assert done.exit_code == 0, done.output
    assert "1 x 1,000 x 256" in done.stdout
    assert "hamming 1 x 10,000 x 64" in done.stdout
    assert "no target is judged" in done.stdout
    data = json.loads(file.read_text(encoding="utf-8"))
    assert [shape["name"] for shape in data["shapes"]] == ["1x1000x256-k10", "hamming-1x10000x64-k10"]
    assert data["threads"] == data["environment"]["thread_counts"]["numba"] == 1
    assert data["targets"] == []
    assert data["plan"]["data"] == "clustered"
    assert "Data: clustered." in done.stdout
    assert data["shapes"][0]["scanned"]["float32"]["rescored"] >= 10
    assert set(data["shapes"][0]["median_ms"]) >= {"float32", "numpy", "torch", "sklearn"}


def test_hard_data_from_end_to_end(monkeypatch, tmp_path):
    monkeypatch.setattr(measurement, "_QUIET_AT_MOST_S", 0.0)
    monkeypatch.setattr(hard, "DISTANCES", ("euclidean",))
    file = tmp_path / "hard.json"
    options = ["--hard", "--quick", "--rounds", "1", "--threads", "1", "--json", str(file)]
    done = CliRunner().invoke(app, options)
    assert done.exit_code == 0, done.output
    assert "near-duplicates at norm 1e6" in done.stdout
    data = json.loads(file.read_text(encoding="utf-8"))
    assert [one["data"] for one in data["hard"]] == list(hard.HARD)
    assert data["hard"][0]["ratios"]["float32"] > 0


@pytest.mark.slow(reason="loads matplotlib")
def test_the_plot_is_drawn(without_peaks, monkeypatch, tmp_path):
    pytest.importorskip("matplotlib", reason='needs pip install "retrieval-bench[train]"')
    monkeypatch.setattr(measurement, "_QUIET_AT_MOST_S", 0.0)
    monkeypatch.setattr(run, "rivals", lambda: {"float32": competitors.ours_float32, "numpy": competitors.search_numpy})
    file = tmp_path / "new folder" / "sizes.png"
    options = ["--quick", "--rounds", "1", "--only", "1x*", "--plot", str(file)]
    done = CliRunner().invoke(app, options)
    assert done.exit_code == 0, done.output
    assert file.read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow(reason="processes of its own")
def test_memory_is_measured_in_a_fresh_process():
    shape = Shape(2_000, 5_000, 16, k=100)
    answer = shape.queries * shape.k * (8 + 4) / 2**20
    figures = memory.extra_memory(1, shape)
    assert answer < figures["float32"] < 200


def test_mistakes_are_one_sentence(without_peaks, tmp_path):
    for options, sentence in (
        (["--only", "nothing"], "no shape matches 'nothing'"),
        (["--threads", "4096"], "threads is 4096"),
        (["--hard", "--threads", "4096"], "threads is 4096"),
        (["--data", "uniform"], "--data uniform: choose gauss, clustered, duplicates"),
        (["--hard", "--only", "1x*"], "--hard has its own shape and data"),
    ):
        done = CliRunner().invoke(app, options)
        assert done.exit_code == 2
        assert sentence in done.stderr
    (tmp_path / "file").touch()
    panels = {"1 query": [result(shape, float32=1.0) for shape in by_gallery_size(1)]}
    with pytest.raises(BenchError, match="cannot be written"):
        plot.draw(panels, tmp_path / "file" / "a.png")
