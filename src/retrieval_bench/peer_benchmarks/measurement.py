"""The measurement: everybody searches the same data, checked first, then timed in turn, round after round.

Interleaved rounds and medians, because the clock and the neighbours of a virtual machine change from second to second:
what slows one rival down slows the next one down too.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median

import numpy as np

from retrieval_bench.peer_benchmarks.agreement import disagreement
from retrieval_bench.peer_benchmarks.competitors import OURS, PEERS, OwnSearch, PeerResult, Rival, Search
from retrieval_bench.peer_benchmarks.data import Data
from retrieval_bench.peer_benchmarks.peaks import Peaks
from retrieval_bench.peer_benchmarks.shapes import Shape
from retrieval_bench.search.stats import ScanStats
from retrieval_bench.system.progress import Progress
from retrieval_bench.system.timing import Stopwatch

REFERENCE = "float32"  # what the others are compared with; several independent peers agreeing with it is the proof

_LONG_ENOUGH_S = 0.05  # shorter searches are called once untimed first, so that their own threads are awake
_QUIET_S, _QUIET_AT_MOST_S = 0.004, 0.3
_MOST_TRIALS = 9  # of each setting, after its first call
_HOPELESS = 3.0  # a setting that takes so many times as long as another one at its first call is not tried again


@dataclass
class Result:
    """What came out for one shape. Rivals by name; those that do not take part are absent."""

    shape: Shape
    samples_ms: dict[str, list[float]] = field(default_factory=dict)
    build_ms: dict[str, float] = field(default_factory=dict)
    trials_ms: dict[str, dict[str, float]] = field(
        default_factory=dict
    )  # each setting of each rival, before the rounds
    settings: dict[str, str] = field(default_factory=dict)  # of each rival, the one that was fastest in the trials
    wrong: dict[str, str] = field(default_factory=dict)  # why a rival's result is not right; it is not timed then
    stats: dict[str, ScanStats] = field(default_factory=dict)  # of our own searches, their last round
    peak_flops: list[float] = field(default_factory=list)  # a second, one value a round
    peak_read: list[float] = field(default_factory=list)  # bytes a second

    def ms(self, name: str) -> float | None:
        """Median over the rounds."""
        return median(self.samples_ms[name]) if self.samples_ms.get(name) else None

    @property
    def best_peer(self) -> str | None:
        times = {name: time for name in PEERS if (time := self.ms(name)) is not None}
        return min(times, key=lambda name: times[name]) if times else None

    def ratio(self, name: str) -> float | None:
        """How many times as long the best peer takes."""
        own, best = self.ms(name), self.best_peer
        return None if own is None or best is None else (self.ms(best) or 0.0) / own

    def ratio_of_fastest(self, name: str) -> float | None:
        """The same from each one's fastest round: a second opinion where other processes were in the way."""
        fastest = {rival: min(samples) for rival, samples in self.samples_ms.items() if samples}
        peers = [fastest[peer] for peer in PEERS if peer in fastest]
        return min(peers) / fastest[name] if peers and name in fastest else None

    def flops(self, name: str = REFERENCE) -> float | None:
        """Floating-point operations a second."""
        own = self.ms(name)
        return self.shape.flops / own * 1e3 if own and self.shape.flops else None

    def read(self, name: str = REFERENCE) -> float | None:
        """Gallery bytes a second, as if each were read once: for one query that is so."""
        own = self.ms(name)
        return self.shape.gallery_bytes / own * 1e3 if own else None

    def share_of_flops(self, name: str = REFERENCE) -> float | None:
        own = self.flops(name)
        return own / median(self.peak_flops) if own and self.peak_flops else None

    def share_of_read(self, name: str = REFERENCE) -> float | None:
        own = self.read(name)
        return own / median(self.peak_read) if own and self.peak_read else None

    def share_of_peak(self, name: str = REFERENCE) -> float | None:
        """Of the peak that binds: multiply-adds or reading, whichever is used up more."""
        shares = [share for share in (self.share_of_flops(name), self.share_of_read(name)) if share is not None]
        return max(shares, default=None)


def race(
    shape: Shape,
    rivals: Mapping[str, Rival],
    rounds: int = 5,
    peaks: Peaks | None = None,
    patience_s: float = 2.0,
    progress: Progress | None = None,
    data: Data = "gauss",
) -> Result:
    """Build, check, choose each rival's setting, and measure: to be called with all thread pools pinned.

    rounds: at least so many; quick searches run up to five times as many while all of them fit into `patience_s`
        seconds. A quarter of it is what choosing among the settings of one rival may take.
    """
    tell = progress or (lambda what, done, total: None)
    result = Result(shape)
    queries, gallery = shape.data(kind=data)
    ready: dict[str, dict[str, Search]] = {}
    for name, rival in rivals.items():
        tell(f"{shape.name}: {name} builds", 0, rounds)
        with Stopwatch() as watch:
            settings = rival(shape, queries, gallery)
        if settings:
            ready[name], result.build_ms[name] = settings, watch.seconds * 1e3
    reference = ready[REFERENCE][""]() if REFERENCE in ready else None
    entrants: dict[str, Search] = {}
    for name, settings in ready.items():
        tell(f"{shape.name}: {name} is checked", 0, rounds)
        times, why = try_out(name, settings, reference, queries, gallery, patience_s / 4)
        result.trials_ms[name] = {setting: seconds * 1e3 for setting, seconds in times.items()}
        result.settings[name] = min(times, key=lambda setting: times[setting])
        if why is None:
            entrants[name] = settings[result.settings[name]]
        else:
            result.wrong[name] = why
    result.samples_ms = {name: [] for name in entrants}
    start = time.monotonic()
    for done in range(5 * rounds):
        if done >= rounds and time.monotonic() - start > patience_s:
            break
        tell(shape.name, min(done, rounds), rounds)
        for name, search in entrants.items():
            result.samples_ms[name].append(timed(search) * 1e3)
        if peaks is not None:
            wait_until_quiet()
            result.peak_flops.append(peaks.flops())
            result.peak_read.append(peaks.read())
    result.stats = {name: search.stats for name, search in entrants.items() if isinstance(search, OwnSearch)}
    return result


def try_out(
    name: str,
    settings: Mapping[str, Search],
    reference: PeerResult | None,
    queries: np.ndarray,
    gallery: np.ndarray,
    patience_s: float = 0.5,
) -> tuple[dict[str, float], str | None]:
    """Seconds of each setting of a rival, and why one of its results is wrong, or None. The first call also compiles
    and warms up."""
    first, why = {}, None
    for setting, search in settings.items():
        with Stopwatch() as watch:
            found = search()
        first[setting] = watch.seconds
        reason = wrong(name, found, reference, queries, gallery)
        if reason:
            why = f"{setting}: {reason}" if setting else reason
    best = min(first.values())
    hopeful = {name: search for name, search in settings.items() if first[name] < max(_HOPELESS * best, 0.02)}
    if len(hopeful) == 1:
        return first, why
    times: dict[str, list[float]] = {setting: [] for setting in hopeful}
    start = time.monotonic()
    for done in range(_MOST_TRIALS):
        if done and time.monotonic() - start > patience_s:
            break
        for setting, search in hopeful.items():
            times[setting].append(timed(search))
    return {setting: median(times[setting]) if setting in times else first[setting] for setting in settings}, why


def wrong(
    name: str, found: PeerResult, reference: PeerResult | None, queries: np.ndarray, gallery: np.ndarray
) -> str | None:
    """Our own engines promise the same bits; peers must be as good up to rounding."""
    if reference is None:
        return None
    if name in OURS and name != REFERENCE:
        same_rows = np.array_equal(found.rows, reference.rows)
        same_bits = same_rows and np.array_equal(_bits(found.distances), _bits(reference.distances))
        return None if same_bits else f"not identical to {REFERENCE}: {'distances' if same_rows else 'rows'} differ"
    return disagreement(queries, gallery, found.rows, reference.rows, found.distances)


def _bits(distances: np.ndarray | None) -> np.ndarray:
    return np.ascontiguousarray(distances, np.float32).view(np.uint32)


def timed(search: Search) -> float:
    """Seconds of one call."""
    wait_until_quiet()
    with Stopwatch() as watch:
        search()
    if watch.seconds < _LONG_ENOUGH_S:
        with Stopwatch() as watch:
            search()
    return watch.seconds


def wait_until_quiet() -> None:
    """OpenMP's and OpenBLAS's threads spin for a while after their work; they must not take the next rival's core."""
    end = time.monotonic() + _QUIET_AT_MOST_S
    while time.monotonic() < end:
        before = time.process_time()
        time.sleep(_QUIET_S)
        if time.process_time() - before < _QUIET_S / 4:
            return


def names(results: Sequence[Result]) -> list[str]:
    """Rivals that took part anywhere, ours first."""
    return [name for name in (*OURS, *PEERS) if any(name in (*result.samples_ms, *result.wrong) for result in results)]
