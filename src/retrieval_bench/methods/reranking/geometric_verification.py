"""Spatial verification: how many keypoints of two images agree on one affine map between them.

The candidates of a short list are counted so and can then be ranked anew (Philbin et al., "Object retrieval with large
vocabularies and fast spatial matching", CVPR 2007). For one query and one candidate, both rows of
`extractors/local/keypoints.py`:

1. Match. A keypoint of the query is matched with the candidate's whose descriptor is nearest, if that is nearer than
   `ratio` times the second nearest (Lowe, IJCV 2004); of several with the same match the nearest keeps it. Matches
   between the same two places, where SIFT has seen several directions, are one.
2. Guess. Each match alone says how the query would have to be shifted, turned and scaled. The guess that most matches
   agree with is taken, the first of equals. None is drawn by chance, so that nothing depends on a seed or on threads.
3. Refine. An affine map is fitted to those who agree (least squares), those who agree with it are found, and so on; the
   largest number is the result.

A match agrees with a map if the map takes its point to within the tolerance and if its own turn and scale are not far
from the guess. The tolerance is in pixels of images that the map leaves as large as they are; in general it grows with
the root of the map's scale, so that query and candidate can change places.
"""

from __future__ import annotations

import functools
import math
from itertools import pairwise
from typing import Any, NamedTuple

import numba
import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from retrieval_bench.core import BenchError
from retrieval_bench.extractors.local.keypoints import COUNT_BYTES, DESCRIPTOR_BYTES, PLACE_BYTES, STEPS, TURN, room
from retrieval_bench.search import emit, jit
from retrieval_bench.search.emit import address, borrowed, broadcast, counted_loop, load, number, store, vector, zeros
from retrieval_bench.search.threads import on_threads

RATIO = 0.8
TOLERANCE = 8.0
GROUP = 32  # keypoints of the query that are compared side by side, in the lanes of vectors
PAIRS = DESCRIPTOR_BYTES // 2  # two dimensions are multiplied and added by one instruction
MOST_TOGETHER = 4  # keypoints of the candidate that are compared with a group at the same time
FAR = 2**29  # what is added to the distance of what fills up a group: more than any distance

LOOSE = 2.0  # a guess by one match is less exact than a fit to all: it has so many times the tolerance
MOST_SCALE = 4.0  # of a map, and its inverse: what is larger or smaller cannot be told apart from chance
OWN_SCALE = 1.0  # octaves between the scale of a match and that of the map
OWN_TURN = TURN // 8  # steps between the turn of a match and that of the guess
MOST_SHEAR = 2.125  # (s / t + t / s) / 2 for the singular values s, t of a map: one is up to four times the other
ROUNDS = 3  # of refinement


def verify(
    query_block: np.ndarray, candidate_blocks: np.ndarray, *, ratio: float = RATIO, tolerance: float = TOLERANCE
) -> np.ndarray:
    """Inliers of each candidate: how many matches with the query agree on one affine map.

    query_block: (bytes,) uint8, a row of KeypointBlocks. candidate_blocks: (c, bytes) uint8, rows with the same room.
    ratio: above 0, up to 1. tolerance: pixels of the shrunk images, above 0.
    Returns (c,) int32, none above the smaller number of keypoints; 0 where either has none.
    Raises BenchError for anything else.
    """
    candidates = np.arange(len(candidate_blocks), dtype=np.int64)[None]
    query_blocks = np.asarray(query_block)[None]
    return verify_many(query_blocks, candidate_blocks, candidates, 1, ratio=ratio, tolerance=tolerance)[0]


def verify_many(
    query_blocks: np.ndarray,
    gallery_blocks: np.ndarray,
    candidates: np.ndarray,
    threads: int = 1,
    *,
    ratio: float = RATIO,
    tolerance: float = TOLERANCE,
) -> np.ndarray:
    """The inliers of each query's candidates, on so many threads; the same whatever their number.

    query_blocks: (q, bytes), gallery_blocks: (n, bytes) uint8. candidates: (q, c) int64 gallery rows, -1 pads.
    Returns (q, c) int32, 0 where padded. Otherwise as `verify`.
    """
    queries, gallery = _checked("query", query_blocks), _checked("gallery", gallery_blocks)
    candidates = np.ascontiguousarray(candidates, np.int64)
    if queries.shape[1] != gallery.shape[1]:
        raise BenchError(
            f"rows of keypoints of {queries.shape[1]} and {gallery.shape[1]} bytes; "
            "extract queries and gallery with the same number of keypoints"
        )
    if candidates.ndim != 2 or len(candidates) != len(queries):
        raise BenchError(
            f"candidates of shape {candidates.shape} for {len(queries)} queries; expected one row for each"
        )
    if candidates.size and not -1 <= candidates.min() <= candidates.max() < len(gallery):
        raise BenchError(
            f"candidates from {candidates.min()} to {candidates.max()} in a gallery of {len(gallery)} rows; "
            "expected gallery rows, or -1 for none"
        )
    _check_counts("query", queries, room(queries.shape[1]))
    _check_counts("gallery", gallery[candidates[candidates >= 0], :COUNT_BYTES], room(gallery.shape[1]))
    if not 0 < ratio <= 1:
        raise BenchError(f"ratio={ratio} must be above 0 and at most 1")
    if not 0 < tolerance < math.inf:
        raise BenchError(f"tolerance={tolerance} must be above 0 pixels, and finite")
    counts = np.zeros(candidates.shape, np.int32)
    if not counts.size:
        return counts
    count_inliers = _compiled()
    # Where there are fewer queries than threads, the candidates of each are shared out.
    pieces = min(candidates.shape[1], 1 if len(queries) >= 2 * threads else 2 * threads)
    cuts = [candidates.shape[1] * piece // pieces for piece in range(pieces + 1)]
    tasks = [
        functools.partial(
            count_inliers,
            queries[query],
            gallery,
            candidates[query, begin:end],
            float(ratio) ** 2,
            float(tolerance),
            counts[query, begin:end],
        )
        for query in range(len(queries))
        for begin, end in pairwise(cuts)
    ]
    on_threads(tasks, threads)
    return counts


def warm_up() -> None:
    """Compile, so that no clock sees it; seconds once per machine."""
    _compiled()


def _checked(name: str, blocks: np.ndarray) -> np.ndarray:
    """Rows of keypoints in C order."""
    keypoints = room(blocks.shape[1]) if blocks.ndim == 2 else None
    if blocks.dtype != np.uint8 or keypoints is None:
        raise BenchError(
            f"{name} of {blocks.dtype} {blocks.shape} are no rows of keypoints; make them by KeypointBlocks"
        )
    return np.ascontiguousarray(blocks)


def _check_counts(name: str, blocks: np.ndarray, keypoints: int | None) -> None:
    """The compiled code reads as many keypoints as a row says."""
    most = int((blocks[:, 0].astype(np.int64) + 256 * blocks[:, 1].astype(np.int64)).max(initial=0))
    if keypoints is None or most > keypoints:
        raise BenchError(
            f"a row of the {name} says {most} keypoints and has room for {keypoints}; make it by KeypointBlocks"
        )


# --- the compiled functions ------------------------------------------------------------------------------------------

_inner = numba.njit(nogil=True, error_model="numpy")  # compiled as a part of what calls it


class InnerLoop(NamedTuple):
    """Finds the nearest and the second nearest of the candidate's keypoints for a group of the query's.

    place(lane, column): where column of the descriptor of keypoint `lane` of a group lies in the group's panel.
    nearest(panels, group, descriptors, squares, best, second, which):
        panels: (groups, GROUP * 128) int16, of which `group` is compared.
        descriptors: (n, 128) int16, n a multiple of MOST_TOGETHER. squares: (n,) int32, |descriptor|^2.
        best, second: (groups * GROUP,) int32, of which those of the group are written: the two smallest of squares - 2
            * product, which is the squared distance less the square of the query's. which: the row of the best, the
            lower one of equals.
    All are whole numbers: the same whatever the order of the sums.
    """

    place: Any
    nearest: Any


def _plain() -> InnerLoop:
    @_inner
    def place(lane, column):  # type: ignore[no-untyped-def]
        return DESCRIPTOR_BYTES * lane + column

    @_inner
    def nearest(panels, group, descriptors, squares, best, second, which):  # type: ignore[no-untyped-def]
        for lane in range(GROUP):
            mine = borrowed(panels[group, DESCRIPTOR_BYTES * lane : DESCRIPTOR_BYTES * (lane + 1)])
            closest = runner_up = np.int32(2**30)
            row = np.int32(0)
            for n in range(len(descriptors)):
                other = borrowed(descriptors[n])
                product = np.int32(0)
                for column in range(DESCRIPTOR_BYTES):
                    product = np.int32(product + np.int32(np.int32(mine[column]) * np.int32(other[column])))
                distance = np.int32(squares[n] - np.int32(2 * product))
                if distance < closest:
                    closest, runner_up, row = distance, closest, np.int32(n)
                elif distance < runner_up:
                    runner_up = distance
            at = GROUP * group + lane
            best[at], second[at], which[at] = closest, runner_up, row

    return InnerLoop(place, nearest)


def _emitted(lanes: int, together: int, multiply: str) -> InnerLoop:
    """The same in vectors of `lanes` int32; multiply: LLVM's name of the instruction that multiplies int16 and adds
    two neighbours."""
    row, pairs = vector(emit.I32, lanes), vector(emit.I16, 2 * lanes)
    vectors = GROUP // lanes

    @_inner
    def place(lane, column):  # type: ignore[no-untyped-def]
        return 2 * (GROUP * (column // 2) + lane) + column % 2

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        group = arguments[1]
        panels, descriptors, squares, best, second, which = (
            address(context, builder, signature.args[place], arguments[place]) for place in (0, 2, 3, 4, 5, 6)
        )
        n = emit.length(context, builder, signature.args[2], arguments[2])
        panel = builder.add(panels, builder.mul(group, number(4 * PAIRS * GROUP)))
        far, double = (ir.Constant(row, [value] * lanes) for value in (2**30, 1))

        def some(step: Any, nearest: list[Any]) -> list[Any]:
            """Compare the next `together` descriptors; nearest: best, second and which of each vector."""
            first = builder.mul(step, number(together))
            here = builder.add(descriptors, builder.mul(first, number(2 * DESCRIPTOR_BYTES)))

            def one_pair(pair: Any, sums: list[Any]) -> list[Any]:
                there = builder.add(panel, builder.mul(pair, number(4 * GROUP)))
                x = [load(builder, pairs, there, 4 * lanes * v) for v in range(vectors)]
                values = builder.add(here, builder.mul(pair, number(4)))
                new = []
                for t in range(together):
                    both = load(builder, emit.I32, values, 2 * DESCRIPTOR_BYTES * t)
                    y = builder.bitcast(broadcast(builder, both, lanes), pairs)
                    for v in range(vectors):
                        product = emit.call(builder, multiply, row, [x[v], y])
                        new.append(builder.add(sums[t * vectors + v], product))
                return new

            sums = counted_loop(builder, number(PAIRS), [zeros(row)] * (together * vectors), one_pair)
            nearest = list(nearest)
            for t in range(together):
                at = builder.add(first, number(t))
                square = broadcast(builder, load(builder, emit.I32, squares, builder.mul(at, number(4))), lanes)
                at = broadcast(builder, builder.trunc(at, emit.I32), lanes)
                for v in range(vectors):
                    distance = builder.sub(square, builder.shl(sums[t * vectors + v], double))
                    old, runner_up, place = nearest[3 * v : 3 * v + 3]
                    closer = builder.icmp_signed("<", distance, old)
                    loser = builder.select(closer, old, distance)
                    nearest[3 * v] = builder.select(closer, distance, old)
                    nearest[3 * v + 1] = builder.select(builder.icmp_signed("<", loser, runner_up), loser, runner_up)
                    nearest[3 * v + 2] = builder.select(closer, at, place)
            return nearest

        steps = builder.udiv(n, number(together))
        nearest = counted_loop(builder, steps, [far, far, zeros(row)] * vectors, some)
        for v in range(vectors):
            there = builder.mul(builder.add(builder.mul(group, number(GROUP)), number(lanes * v)), number(4))
            for array, values in zip((best, second, which), nearest[3 * v : 3 * v + 3], strict=True):
                store(builder, values, array, there)
        return context.get_dummy_value()

    @intrinsic
    def nearest(context, panels, group, descriptors, squares, best, second, which):  # type: ignore[no-untyped-def]
        return types.none(panels, types.intp, descriptors, squares, best, second, which), code

    return InnerLoop(place, nearest)


@functools.cache
def inner_loops() -> dict[str, InnerLoop]:
    """Those that this processor can run, the fastest first."""
    loops = {}
    if emit.cpu_features() >= {"avx512f", "avx512bw"}:
        loops["avx512"] = _emitted(16, 4, "llvm.x86.avx512.pmaddw.d.512")
    if "avx2" in emit.cpu_features():
        loops["avx2"] = _emitted(8, 2, "llvm.x86.avx2.pmadd.wd")
    loops["plain"] = _plain()
    return loops


@_inner
def _read(block, places):  # type: ignore[no-untyped-def]
    """places (room, 4) int64 <- x, y, scale, angle in steps; the number of keypoints is returned."""
    n = np.int64(block[0]) + (np.int64(block[1]) << 8)
    for keypoint in range(n):
        for what in range(4):
            at = COUNT_BYTES + PLACE_BYTES * keypoint + 2 * what
            places[keypoint, what] = np.int64(block[at]) + (np.int64(block[at + 1]) << 8)
    return n


@_inner
def _there(mine, other, pairs):  # type: ignore[no-untyped-def]
    """Whether the places of these two keypoints are among the pairs, (m, 4), already."""
    for k in range(len(pairs)):
        if (pairs[k, 0] == mine[0]) & (pairs[k, 1] == mine[1]) & (pairs[k, 2] == other[0]) & (pairs[k, 3] == other[1]):
            return True
    return False


@_inner
def _agree(maps, turn, scale, tolerance, matches, m, inliers):  # type: ignore[no-untyped-def]
    """Who agrees with the map [[a, b], [c, d]] x + (e, f), maps being a .. f: inliers (m,) bool; their number.

    matches: (6, room), of each match x, y in the query, x, y in the candidate (pixels), log2 of the scale of the
        candidate's over the query's, and its turn in steps. turn, scale: those of the map, in the same units.
    """
    a, b, c, d, e, f = maps[0], maps[1], maps[2], maps[3], maps[4], maps[5]
    limit = tolerance * tolerance * 2.0**scale
    count = 0
    for k in range(m):
        dx = a * matches[0, k] + b * matches[1, k] + e - matches[2, k]
        dy = c * matches[0, k] + d * matches[1, k] + f - matches[3, k]
        turned = abs(matches[5, k] - turn)
        turned = min(turned, TURN - turned)
        agrees = (dx * dx + dy * dy <= limit) & (abs(matches[4, k] - scale) <= OWN_SCALE) & (turned <= OWN_TURN)
        inliers[k] = agrees
        count += agrees
    return count


@_inner
def _fit(matches, m, inliers, count, maps):  # type: ignore[no-untyped-def]
    """maps <- the affine map that fits the inliers best. False where there is none that is bounded."""
    if count < 3:
        return False
    mean = np.zeros(4)
    for k in range(m):
        if inliers[k]:
            for what in range(4):
                mean[what] += matches[what, k]
    mean /= count
    xx = xy = yy = xu = yu = xv = yv = 0.0
    for k in range(m):
        if inliers[k]:
            x, y = matches[0, k] - mean[0], matches[1, k] - mean[1]
            u, v = matches[2, k] - mean[2], matches[3, k] - mean[3]
            xx += x * x
            xy += x * y
            yy += y * y
            xu += x * u
            yu += y * u
            xv += x * v
            yv += y * v
    area = xx * yy - xy * xy
    if not area > 1e-3 * (xx + yy) ** 2 / 4.0:  # on a line, or nearly: across it nothing is known
        return False
    a, b = (xu * yy - yu * xy) / area, (yu * xx - xu * xy) / area
    c, d = (xv * yy - yv * xy) / area, (yv * xx - xv * xy) / area
    determinant = a * d - b * c
    if not 1.0 / MOST_SCALE**2 <= determinant <= MOST_SCALE**2:
        return False
    if a * a + b * b + c * c + d * d > 2.0 * MOST_SHEAR * determinant:
        return False
    maps[0], maps[1], maps[2], maps[3] = a, b, c, d
    maps[4] = mean[2] - a * mean[0] - b * mean[1]
    maps[5] = mean[3] - c * mean[0] - d * mean[1]
    return True


@_inner
def _inliers(matches, m, tolerance, inliers):  # type: ignore[no-untyped-def]
    """The largest number of matches that agree on one map."""
    maps = np.empty(6)
    most, chosen = 0, -1
    for guess in range(m):
        if _guess(matches, guess, maps):
            count = _agree(maps, matches[5, guess], matches[4, guess], LOOSE * tolerance, matches, m, inliers)
            if count > most:
                most, chosen = count, guess
    if chosen < 0:
        return 0
    _guess(matches, chosen, maps)
    turn, scale = matches[5, chosen], matches[4, chosen]
    best = _agree(maps, turn, scale, tolerance, matches, m, inliers)
    count = _agree(maps, turn, scale, LOOSE * tolerance, matches, m, inliers)
    for _ in range(ROUNDS):
        if not _fit(matches, m, inliers, count, maps):
            break
        scale = math.log2(maps[0] * maps[3] - maps[1] * maps[2]) / 2.0
        turn = math.atan2(maps[2] - maps[1], maps[0] + maps[3]) * (TURN / (2.0 * math.pi)) % TURN
        count = _agree(maps, turn, scale, tolerance, matches, m, inliers)
        if count <= best:
            break
        best = count
    return best


@_inner
def _guess(matches, k, maps):  # type: ignore[no-untyped-def]
    """maps <- the shift, turn and scale that match k alone says. False where the scale is out of bounds."""
    scale = 2.0 ** matches[4, k]
    if not 1.0 / MOST_SCALE <= scale <= MOST_SCALE:
        return False
    radians = matches[5, k] * (2.0 * math.pi / TURN)
    cosine, sine = scale * math.cos(radians), scale * math.sin(radians)
    maps[0], maps[1], maps[2], maps[3] = cosine, -sine, sine, cosine
    maps[4] = matches[2, k] - cosine * matches[0, k] + sine * matches[1, k]
    maps[5] = matches[3, k] - sine * matches[0, k] - cosine * matches[1, k]
    return True


@functools.cache
def _compiled(loop: str = "") -> Any:
    """count_inliers below with one of the inner loops, by default the fastest; from the second time on a machine it
    comes from the cache on disk."""
    loop = loop or next(iter(inner_loops()))
    place, nearest = inner_loops()[loop]

    def count_inliers(query, gallery, rows, ratio, tolerance, counts):  # type: ignore[no-untyped-def]
        """counts (c,) int32 <- the inliers of query (bytes,) and gallery[rows[i]]; where that is -1, nothing. ratio is
        squared."""
        most = (len(query) - COUNT_BYTES) // (PLACE_BYTES + DESCRIPTOR_BYTES)
        first = COUNT_BYTES + PLACE_BYTES * most
        places, others = np.empty((most, 4), np.int64), np.empty((most, 4), np.int64)
        n = _read(query, places)
        if n == 0:
            return
        groups = (n + GROUP - 1) // GROUP
        panels, lengths = np.zeros((groups, GROUP * DESCRIPTOR_BYTES), np.int16), np.zeros(n, np.int32)
        for keypoint in range(n):
            for column in range(DESCRIPTOR_BYTES):
                value = np.int32(query[first + DESCRIPTOR_BYTES * keypoint + column])
                panels[keypoint // GROUP, place(keypoint % GROUP, column)] = value
                lengths[keypoint] += value * value
        padded = (most + MOST_TOGETHER - 1) // MOST_TOGETHER * MOST_TOGETHER
        descriptors, squares = np.zeros((padded, DESCRIPTOR_BYTES), np.int16), np.empty(padded, np.int32)
        best, second = np.empty(groups * GROUP, np.int32), np.empty(groups * GROUP, np.int32)
        which, owner = np.empty(groups * GROUP, np.int32), np.empty(most, np.int64)
        pairs, matches, inliers = np.empty((most, 4), np.int64), np.empty((6, most)), np.empty(most, np.bool_)
        for i in range(len(rows)):
            if rows[i] < 0:
                continue
            block = gallery[rows[i]]
            c = _read(block, others)
            if c < 2:  # without a second nearest nothing passes the ratio test
                continue
            used = (c + MOST_TOGETHER - 1) // MOST_TOGETHER * MOST_TOGETHER
            for keypoint in range(c):
                total = np.int32(0)
                begin = first + DESCRIPTOR_BYTES * keypoint
                for column in range(DESCRIPTOR_BYTES):
                    value = np.int32(block[begin + column])
                    descriptors[keypoint, column] = value
                    total += np.int32(value * value)
                squares[keypoint] = total
            squares[c:used] = FAR
            descriptors[c:used] = 0
            for group in range(groups):
                nearest(panels, group, descriptors[:used], squares[:used], best, second, which)
            owner[:c] = -1
            for keypoint in range(n):
                distance = best[keypoint] + lengths[keypoint]
                if distance < ratio * (second[keypoint] + lengths[keypoint]):
                    holder = owner[which[keypoint]]
                    if holder < 0 or distance < best[holder] + lengths[holder]:
                        owner[which[keypoint]] = keypoint
            m = 0
            for other in range(c):
                keypoint = owner[other]
                if keypoint >= 0 and not _there(places[keypoint], others[other], pairs[:m]):
                    pairs[m, :2], pairs[m, 2:] = places[keypoint, :2], others[other, :2]
                    matches[0, m] = places[keypoint, 0] / STEPS
                    matches[1, m] = places[keypoint, 1] / STEPS
                    matches[2, m] = others[other, 0] / STEPS
                    matches[3, m] = others[other, 1] / STEPS
                    matches[4, m] = math.log2(max(others[other, 2], 1) / max(places[keypoint, 2], 1))
                    matches[5, m] = (others[other, 3] - places[keypoint, 3]) % TURN
                    m += 1
            counts[i] = _inliers(matches, m, tolerance, inliers)

    rows = types.Array(types.uint8, 2, "C", readonly=True)
    signature = types.none(
        types.Array(types.uint8, 1, "C", readonly=True),
        rows,
        types.Array(types.int64, 1, "C", readonly=True),
        types.float64,
        types.float64,
        types.Array(types.int32, 1, "C"),
    )
    # The cache on disk watches this file and those of the search, not the one that says what a row looks like.
    layout = (COUNT_BYTES, PLACE_BYTES, DESCRIPTOR_BYTES, STEPS, TURN)
    return jit.compiled(count_inliers, signature, "-".join(map(str, (loop, *layout))))
