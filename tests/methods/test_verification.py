"""Spatial verification against a slow twin and against OpenCV's matcher and RANSAC; and whatever is nasty."""

from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retrieval_bench.core import BenchError
from retrieval_bench.extractors.local.keypoints import KeypointBlocks, Keypoints, pack, unpack, width
from retrieval_bench.methods.reranking import geometric_verification
from retrieval_bench.methods.reranking.geometric_verification import inner_loops, verify, verify_many
from tests.support.scenes import scene, view

ROOM = 200
BLOCKS = KeypointBlocks(side=320, keypoints=ROOM)
VIEWS = {
    "turned": (30.0, 1.0, 1.0),
    "upside down": (180.0, 1.0, 1.0),
    "half the size": (0.0, 0.5, 1.0),
    "larger and turned": (-75.0, 1.4, 1.0),
    "cropped": (10.0, 1.0, 0.6),
}


# --- the slow twin ----------------------------------------------------------------------------------------------------


def slow_matches(query: Keypoints, candidate: Keypoints, ratio: float) -> list[tuple[int, int]]:
    """(query, candidate) keypoints that pass the ratio test, one for each candidate's, one for each two places."""
    if len(query.points) == 0 or len(candidate.points) < 2:
        return []
    differences = query.descriptors[:, None].astype(np.int64) - candidate.descriptors[None]
    distances = (differences**2).sum(axis=2)
    holders: dict[int, int] = {}
    for q, line in enumerate(distances):
        nearest, second = np.argsort(line, kind="stable")[:2]
        if line[nearest] < ratio**2 * line[second]:
            holder = holders.get(int(nearest))
            if holder is None or line[nearest] < distances[holder, nearest]:
                holders[int(nearest)] = q
    places: dict[tuple[float, ...], tuple[int, int]] = {}
    for c in sorted(holders):
        places.setdefault((*query.points[holders[c]], *candidate.points[c]), (holders[c], c))
    return list(places.values())


def slow_agreement(
    affine: np.ndarray, turn: float, octaves: float, tolerance: float, facts: list[np.ndarray]
) -> np.ndarray:
    """Which matches agree with the (2, 3) map; facts: points of both, own turn (degrees) and own scale (octaves)."""
    here, there, turns, scales = facts
    missed = here @ affine[:, :2].T + affine[:, 2] - there
    turned = np.abs((turns - turn + 180) % 360 - 180)
    return ((missed**2).sum(axis=1) <= tolerance**2 * 2**octaves) & (np.abs(scales - octaves) <= 1) & (turned <= 45)


def slow_verify(query_row: np.ndarray, candidate_row: np.ndarray, ratio: float = 0.8, tolerance: float = 8.0) -> int:
    query, candidate = unpack(query_row), unpack(candidate_row)
    pairs = slow_matches(query, candidate, ratio)
    if not pairs:
        return 0
    q, c = np.array(pairs).T
    facts = [
        query.points[q].astype(np.float64),
        candidate.points[c].astype(np.float64),
        candidate.angles[c].astype(np.float64) - query.angles[q],
        np.log2(candidate.scales[c].astype(np.float64) / query.scales[q]),
    ]
    here, there, turns, scales = facts
    guesses = []
    for k in range(len(pairs)):
        if abs(scales[k]) <= 2:
            radians = math.radians(turns[k])
            linear = 2 ** scales[k] * np.array(
                [[math.cos(radians), -math.sin(radians)], [math.sin(radians), math.cos(radians)]]
            )
            affine = np.column_stack([linear, there[k] - linear @ here[k]])
            agreeing = slow_agreement(affine, turns[k], scales[k], 2 * tolerance, facts)
            guesses.append((-int(agreeing.sum()), k, affine, agreeing))
    if not guesses:
        return 0
    _, k, affine, agreeing = min(guesses, key=lambda guess: guess[:2])
    best = int(slow_agreement(affine, turns[k], scales[k], tolerance, facts).sum())
    for _ in range(3):
        spread = np.linalg.eigvalsh(np.cov(here[agreeing].T)) if agreeing.sum() > 2 else np.zeros(2)
        if not spread[0] * spread[1] > 1e-3 * (spread.sum() / 2) ** 2:
            break
        solved = np.linalg.lstsq(np.column_stack([here[agreeing], np.ones(agreeing.sum())]), there[agreeing])[0]
        linear = solved[:2].T
        one, other = np.linalg.svd(linear)[1]
        if np.linalg.det(linear) <= 0 or not 1 / 4 <= math.sqrt(one * other) <= 4 or one > 4 * other:
            break
        turn = math.degrees(math.atan2(linear[1, 0] - linear[0, 1], linear[0, 0] + linear[1, 1]))
        agreeing = slow_agreement(solved.T, turn, math.log2(one * other) / 2, tolerance, facts)
        if agreeing.sum() <= best:
            break
        best = int(agreeing.sum())
    return best


# --- pictures ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def rows() -> dict[str, np.ndarray]:
    """Rows of keypoints of one scene, of its views, of other scenes, and of what is nasty."""
    geometric_verification.warm_up()
    image = scene(0)
    images = {"itself": image, **{name: view(image, *how) for name, how in VIEWS.items()}}
    images |= {f"other {seed}": scene(seed) for seed in range(1, 7)}
    images["mirrored"] = np.ascontiguousarray(image[:, ::-1])
    images["blank"] = np.full((50, 50, 3), 9, np.uint8)
    images["half of two"] = np.concatenate([scene(0)[:, :160], scene(9)[:, 160:]], axis=1)
    return dict(zip(images, BLOCKS.transform(list(images.values())), strict=True))


def count(query: np.ndarray, candidate: np.ndarray, **options: float) -> int:
    return int(verify(query, candidate[None], **options)[0])


def places(row: np.ndarray) -> int:
    return len(np.unique(unpack(row).points, axis=0))


@pytest.mark.slow(reason="the twin is slow")
@pytest.mark.parametrize(
    "ratio",
    [0.8, 1.0, *(pytest.param(ratio, marks=pytest.mark.long(reason="the twin is slow")) for ratio in (0.7, 0.95))],
)
@pytest.mark.parametrize("tolerance", [2.0, 8.0, 30.0])
def test_counts_are_those_of_the_slow_twin(rows: dict[str, np.ndarray], ratio: float, tolerance: float) -> None:
    names = list(rows)
    for query in ("itself", "larger and turned", "other 3", "blank"):
        expected = [slow_verify(rows[query], rows[name], ratio, tolerance) for name in names]
        counts = verify(rows[query], np.stack(list(rows.values())), ratio=ratio, tolerance=tolerance)
        assert counts.dtype == np.int32
        assert dict(zip(names, counts.tolist(), strict=True)) == dict(zip(names, expected, strict=True))


def test_views_of_a_scene_are_found_and_other_scenes_are_not(rows: dict[str, np.ndarray]) -> None:
    scores = {name: count(rows["itself"], row) for name, row in rows.items()}
    others = [scores[name] for name in rows if name.startswith("other")]
    assert max(others) <= 6
    for name in (*VIEWS, "half of two"):
        assert scores[name] >= 4 * max(*others, 5), scores
    assert scores["mirrored"] <= 6, "SIFT and these maps know no mirrors"
    assert scores["blank"] == 0
    assert scores["itself"] == places(rows["itself"])


@pytest.mark.parametrize("name", VIEWS)
def test_query_and_candidate_can_change_places(rows: dict[str, np.ndarray], name: str) -> None:
    one, other = count(rows["itself"], rows[name]), count(rows[name], rows["itself"])
    assert abs(one - other) <= 0.15 * max(one, other)


def ransac(query: Keypoints, candidate: Keypoints, ratio: float, tolerance: float) -> int:
    """OpenCV: brute-force matches, ratio test, affine map by RANSAC -> inliers, pairs of places."""
    matcher = cv2.BFMatcher(cv2.NORM_L2)
    matches = matcher.knnMatch(query.descriptors.astype(np.float32), candidate.descriptors.astype(np.float32), k=2)
    good = [first for first, second in matches if first.distance < ratio * second.distance]
    if len(good) < 3:
        return len(good)
    here = np.array([query.points[match.queryIdx] for match in good])
    there = np.array([candidate.points[match.trainIdx] for match in good])
    cv2.setRNGSeed(0)
    _, inliers = cv2.estimateAffine2D(
        here, there, method=cv2.RANSAC, ransacReprojThreshold=tolerance, maxIters=5000, confidence=0.999
    )
    agreeing = np.zeros(len(good), bool) if inliers is None else inliers[:, 0].astype(bool)
    return len(np.unique(np.column_stack([here, there])[agreeing], axis=0))


@pytest.mark.slow(reason="OpenCV estimates many transformations")
def test_counts_are_close_to_those_of_opencv() -> None:
    for seed in range(4):
        image = scene(seed + 20)
        base = BLOCKS.transform([image])[0]
        for name, how in VIEWS.items():
            row = BLOCKS.transform([view(image, *how)])[0]
            ours, peers = count(base, row), ransac(unpack(base), unpack(row), 0.8, 8.0)
            assert abs(ours - peers) <= max(3, 0.1 * peers), (seed, name, ours, peers)
            assert min(ours, peers) >= 20
        other = BLOCKS.transform([scene(seed + 40)])[0]
        assert count(base, other) <= 6
        # Its maps may squeeze all into one point, to which many keypoints of the query may be matched.
        assert ransac(unpack(base), unpack(other), 0.8, 8.0) <= 15


# --- what is nasty ----------------------------------------------------------------------------------------------------


def invented(n: int, seed: int, points: np.ndarray | None = None) -> Keypoints:
    rng = np.random.default_rng(seed)
    return Keypoints(
        rng.uniform(0, 300, (n, 2)).astype(np.float32) if points is None else points.astype(np.float32),
        np.full(n, 8, np.float32),
        np.zeros(n, np.float32),
        rng.integers(0, 256, (n, 128), dtype=np.uint8),
    )


def test_identical_images_agree_in_everything() -> None:
    row = pack(invented(33, 1), 40)
    assert count(row, row) == 33


@pytest.mark.parametrize("n", [0, 1])
def test_without_a_second_nearest_there_is_no_match(n: int) -> None:
    few, many = pack(invented(n, 2), 10), pack(invented(10, 3), 10)
    assert count(few, few) == count(many, few) == 0
    assert count(few, many) <= n


def test_one_keypoint_among_others_is_one() -> None:
    many = invented(10, 4)
    one = Keypoints(*(part[3:4] for part in many))
    assert count(pack(one, 10), pack(many, 10)) == 1


def test_one_place_counts_once_however_many_keypoints_are_there() -> None:
    here = pack(invented(20, 5, np.full((20, 2), 50.0)), 20)
    assert count(here, here) == slow_verify(here, here) == 1


def test_a_line_needs_no_fit() -> None:
    line = invented(20, 5, np.column_stack([np.arange(20) * 10.0, np.arange(20) * 5.0]))
    here, elsewhere = pack(line, 20), pack(invented(20, 5), 20)
    assert count(here, here) == slow_verify(here, here) == 20
    for one, other in ((here, elsewhere), (elsewhere, here)):
        assert count(one, other) == slow_verify(one, other) < 20


def test_equal_descriptors_do_not_pass_the_ratio_test() -> None:
    same = invented(12, 6)._replace(descriptors=np.full((12, 128), 40, np.uint8))
    assert count(pack(same, 12), pack(same, 12)) == 0


@pytest.mark.parametrize("n", [5, 6, 7])
def test_what_fills_up_a_group_is_nobodys_nearest(n: int) -> None:
    faint, strong = invented(20, 8), invented(n, 9)
    faint = faint._replace(descriptors=faint.descriptors // 64)
    strong = strong._replace(descriptors=strong.descriptors // 4 + 190)
    query, candidate = pack(faint, 20), pack(strong, 20)
    assert count(query, candidate, ratio=1.0) == slow_verify(query, candidate, 1.0) > 0


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 20), st.integers(0, 20), st.integers(0, 2**32 - 1))
def test_any_bytes_are_counted(n: int, m: int, seed: int) -> None:
    query, candidate = np.random.default_rng(seed).integers(0, 256, (2, width(20)), dtype=np.uint8)
    for row, number in ((query, n), (candidate, m)):
        row[:2] = number, 0
        row[2 + 4 : 2 + 8 * 5 : 8] = row[2 + 5 : 2 + 8 * 5 : 8] = 0  # scales that pack would not write
    assert 0 <= count(query, candidate, ratio=1.0, tolerance=100.0) <= min(n, m)


def test_maps_out_of_bounds_do_not_count() -> None:
    here = invented(20, 7)
    for scale, expected in ((3.9, 20), (4.1, 0)):
        there = here._replace(points=here.points * np.float32(scale) / 4, scales=here.scales * np.float32(scale) / 4)
        small = here._replace(points=here.points / 4, scales=here.scales / 4)
        assert count(pack(small, 20), pack(there, 20)) == count(pack(there, 20), pack(small, 20)) == expected


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 40), st.integers(0, 40), st.integers(0, 2**32 - 1), st.sampled_from([0.5, 0.8, 1.0]))
def test_never_more_than_either_has(n: int, m: int, seed: int, ratio: float) -> None:
    """Clumps of similar descriptors at few places: many wrong matches, maps that are degenerate."""
    rng = np.random.default_rng(seed)
    clumps = rng.integers(0, 256, (4, 128))

    def row(count: int) -> np.ndarray:
        near = clumps[rng.integers(0, 4, count)] + rng.integers(-9, 10, (count, 128))
        points = rng.integers(0, 4, (count, 2)) * 30.0
        parts = invented(count, seed, points)
        scales, angles = rng.choice([1.0, 3.0, 90.0], count), rng.choice([0.0, 90.0, 200.0], count)
        return pack(
            parts._replace(
                scales=scales.astype(np.float32),
                angles=angles.astype(np.float32),
                descriptors=np.clip(near, 0, 255).astype(np.uint8),
            ),
            40,
        )

    query, candidate = row(n), row(m)
    assert 0 <= count(query, candidate, ratio=ratio) <= min(n, m)


# --- how it is computed -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("loop", inner_loops())
@pytest.mark.parametrize("n", [2, 3, 31, 32, 33, 200])
def test_every_inner_loop_finds_the_same(rows: dict[str, np.ndarray], loop: str, n: int) -> None:
    gallery = np.stack([*rows.values(), pack(Keypoints(*(part[:n] for part in unpack(rows["itself"]))), ROOM)])
    for query in (gallery[-1], rows["cropped"]):
        counts = np.zeros(len(gallery), np.int32)
        geometric_verification._compiled(loop)(query, gallery, np.arange(len(gallery)), 0.8**2, 8.0, counts)
        np.testing.assert_array_equal(counts, verify(query, gallery))
        assert counts[-1] == slow_verify(query, gallery[-1])


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_many_are_the_same_as_one_by_one(rows: dict[str, np.ndarray], threads: int) -> None:
    gallery = np.stack(list(rows.values()))
    rng = np.random.default_rng(0)
    candidates = rng.integers(-1, len(gallery), (len(gallery), 7))
    counts = verify_many(gallery, gallery, candidates, threads)
    for query, some, line in zip(gallery, candidates, counts, strict=True):
        expected = [0 if row < 0 else count(query, gallery[row]) for row in some]
        assert line.tolist() == expected
    np.testing.assert_array_equal(verify_many(gallery[:1], gallery, candidates[:1], threads), counts[:1])
    with ThreadPoolExecutor(3) as pool:
        again = list(pool.map(lambda _: verify_many(gallery, gallery, candidates, threads), range(3)))
    np.testing.assert_array_equal(np.stack(again), np.stack([counts] * 3))


def test_arguments_are_left_alone_and_may_be_read_only_or_strided(rows: dict[str, np.ndarray]) -> None:
    gallery = np.stack(list(rows.values()))
    wide = np.zeros((len(gallery), 2 * gallery.shape[1]), np.uint8)[:, ::2]
    wide[:] = gallery
    candidates = np.arange(len(gallery))[None]
    frozen, query = gallery.copy(), rows["itself"].copy()
    for array in (frozen, query, candidates):
        array.setflags(write=False)
    expected = verify(rows["itself"], gallery)
    np.testing.assert_array_equal(verify(query, frozen), expected)
    np.testing.assert_array_equal(verify_many(query[None], wide, candidates.astype(np.int32))[0], expected)


def test_nothing_to_do() -> None:
    blocks = np.zeros((3, width(5)), np.uint8)
    assert verify(blocks[0], blocks[:0]).shape == (0,)
    assert verify_many(blocks[:0], blocks, np.empty((0, 4), np.int64), 2).shape == (0, 4)
    assert verify_many(blocks, blocks, np.empty((3, 0), np.int64), 2).shape == (3, 0)
    assert not verify_many(blocks, blocks[:0], np.full((3, 2), -1), 2).any()


def test_bad_arguments_are_one_sentence() -> None:
    good = np.zeros((3, width(5)), np.uint8)
    none = np.full((3, 2), -1)
    liar = good.copy()
    liar[1, 0] = 6

    def refused(match: str, *arguments: object, **options: float) -> None:
        with pytest.raises(BenchError, match=match):
            verify_many(*arguments, **options)  # type: ignore[arg-type]

    refused("query of float32", good.astype(np.float32), good, none)
    refused("gallery of uint8 .* are no rows of keypoints", good, good[:, 1:], none)
    refused("682 and 546 bytes", good, good[:, : width(4)], none)
    refused("a row of the query says 6 keypoints and has room for 5", liar, good, none)
    refused("a row of the gallery says 6", good, liar, np.array([[1]] * 3))
    refused("expected one row for each", good, good, none[:2])
    refused("candidates from -1 to 3 in a gallery of 3 rows", good, good, np.array([[-1], [3], [0]]))
    refused("candidates from -2", good, good, none - 1)
    for ratio in (0.0, 1.1, math.nan):
        refused("ratio", good, good, none, ratio=ratio)
    for tolerance in (0.0, -1.0, math.inf, math.nan):
        refused("tolerance", good, good, none, tolerance=tolerance)
