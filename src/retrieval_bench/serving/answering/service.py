"""The search service without HTTP: a picture or words go in, what every column found comes out."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from retrieval_bench.core import BenchError, Rows, Split
from retrieval_bench.indexing.items import Item
from retrieval_bench.indexing.snapshot import Snapshot
from retrieval_bench.methods.modalities import BOTH, TEXT
from retrieval_bench.serving.answering.approximate_search import ApproximateColumns, in_words
from retrieval_bench.serving.answering.column_search import FoundItems, search_column
from retrieval_bench.serving.answering.joined_row import DEPTH, joined_row
from retrieval_bench.serving.answering.open_indexes import OpenIndex, SearchColumn, columns_of
from retrieval_bench.serving.answering.recent_queries import RecentQueries, RecentQuery
from retrieval_bench.serving.answering.stored_rows import stored_rows
from retrieval_bench.serving.answering.telemetry import Telemetry
from retrieval_bench.serving.answering.work_queue import DescribedQuery, ExtractionQueue
from retrieval_bench.serving.client.answers import JOINED, Answer, ColumnAnswer, Hit, Question, picture_address
from retrieval_bench.serving.decoding.pool import DecodingPool
from retrieval_bench.serving.requests.errors import NoSuchThing, QueueFull
from retrieval_bench.serving.requests.words import MOST_CHARACTERS
from retrieval_bench.system.timing import pinned

DEFAULTS = Question()
EXTRACTION_S = 120.0
"""How long a picture may wait for its description, at most."""
HALF_ASKED = "what is known was learned of queries that had both, words and a picture"


@dataclass(frozen=True)
class Capacity:
    """What the service takes on at once.

    Args:
        workers: threads that describe pictures, and children that decode them.
        requests: that are being served; one more is told to come again.
        adding: of these, that add items, each of which may hold hundreds of megabytes.
        waiting: units (a picture for a method) that wait to be described.
        linger_s: how long a worker waits for more pictures before it begins; for GPUs.
        decode_s: for decoding one picture.
        max_pixels: of one picture.
    """

    workers: int = 2
    requests: int = 64
    adding: int = 2
    waiting: int = 256
    linger_s: float = 0.0
    decode_s: float = 20.0
    max_pixels: int = 50_000_000


@dataclass(frozen=True, eq=False)
class Query:
    """What is searched for: one of these, or words, or both.

    Args:
        encoded: a picture as it was sent.
        recent: the word of a picture that was sent before.
        item: the id of an item of the indexes; with words, its picture and these words.
        known: number of an index, and the row of a query of its dataset.
        text: the words. None: those of the known query, where one is searched for; else none.
    """

    encoded: bytes | None = None
    recent: str = ""
    item: str = ""
    known: tuple[int, int] | None = None
    text: str | None = None


class SearchService:
    """Answers searches over the indexes that are open. Several threads may call it at once.

    Args:
        indexes: what is searched in; closed with the service.
        capacity: what it takes on at once.
        approximate: indexes that are compared with the exact search; closed with the service.
    """

    def __init__(
        self,
        indexes: Sequence[OpenIndex],
        capacity: Capacity = Capacity(),
        approximate: ApproximateColumns | None = None,
    ) -> None:
        self.indexes = tuple(indexes)
        self.columns: Mapping[str, SearchColumn] = columns_of(indexes)
        self.capacity = capacity
        self._approximate = approximate
        self.telemetry = Telemetry()
        self.recent = RecentQueries()
        self._under_way = self._adding = 0
        self._counting = threading.Lock()
        self._searching = threading.Semaphore(capacity.workers)
        self._warm_up()
        # After it: children start with our sys.path, which some libraries change for a moment while they are imported.
        self.pool = DecodingPool(capacity.workers, capacity.decode_s, capacity.max_pixels)
        self._pinned = contextlib.ExitStack()
        self._pinned.enter_context(pinned(1))  # one thread a library, one worker a core, as in a run
        self.queue = ExtractionQueue(
            capacity.workers, capacity.waiting, capacity.linger_s, self.telemetry.batch.observe
        )
        self.telemetry.watch(self)
        self.pool.wait_until_ready()

    def _warm_up(self) -> None:
        """Load and compile all that a search needs, before anybody waits for it and before threads are counted."""
        blank = np.zeros((64, 64, 3), np.uint8)
        for column in self.columns.values():
            rows = column.method.describe([blank], ["word"])
            column.index.stored.snapshot().search(column.method.name, rows, 1)

    def close(self) -> None:
        """End the workers and the children, and close the indexes."""
        self.queue.close()
        self.pool.close()
        self._pinned.close()
        if self._approximate is not None:
            self._approximate.close()
        for index in self.indexes:
            index.stored.close()

    @property
    def reads_texts(self) -> bool:
        """Whether any column can be asked with words."""
        return any(column.reads(TEXT) for column in self.columns.values())

    @property
    def under_way(self) -> int:
        """Requests that are being served."""
        return self._under_way

    @contextlib.contextmanager
    def admitted(self, *, adding: bool = False) -> Iterator[None]:
        """One more request while the block runs; raises QueueFull where there are as many as the bound allows.

        Args:
            adding: it adds items, and may be large: fewer of these are served at once.
        """
        with self._counting:
            full = self._under_way >= self.capacity.requests
            if full or (adding and self._adding >= self.capacity.adding):
                raise QueueFull(self.queue.retry_after())
            self._under_way += 1
            self._adding += adding
        try:
            yield
        finally:
            with self._counting:
                self._under_way -= 1
                self._adding -= adding

    def index(self, number: int) -> OpenIndex:
        """The index of that number; raises NoSuchThing."""
        if not 0 <= number < len(self.indexes):
            raise NoSuchThing(f"there is no index {number}; they are 0 to {len(self.indexes) - 1}")
        return self.indexes[number]

    def search(self, query: Query, question: Question = DEFAULTS) -> Answer:
        """Search by every column that is asked for.

        Args:
            query: what is searched for; it may be empty where the question names items to find more of.
            question: how.

        Returns:
            What each column found, for one state of each index.

        Raises:
            BadImage: The picture cannot be decoded.
            NoSuchThing: A column, an item or a picture that is named is not there.
            BenchError: Nothing is searched for.
            QueueFull: Too much waits.
        """
        began = time.perf_counter()
        columns = self._chosen(question)
        milliseconds: dict[str, float] = {}
        text = self.text_of(query)
        picture = self._picture(query)
        if picture is None and not text and not query.item and not question.more:
            raise BenchError(
                "nothing is searched for: send a picture or words, or name an item or items to find more of"
            )
        size: tuple[int, int] | None = None
        word, notes = "", tuple[str, ...]()
        pixels: dict[int, np.ndarray] = {}
        if picture is not None:
            encoded, recent, word = picture
            pixels, notes = self._decoded(encoded, recent, columns, question)
            milliseconds["decode"] = (time.perf_counter() - began) * 1e3
            whole = next(iter(pixels.values()))
            size = whole.shape[1], whole.shape[0]
            if not word:
                word = self.recent.put(recent)
        asked = {column.key: _asked(column, picture=picture is not None, text=bool(text)) for column in columns}
        described = self._described([column for column in columns if not asked[column.key].lacks], pixels, text)
        snapshots = {column.index.number: column.index.stored.snapshot() for column in columns}
        items = _Items(self.indexes, snapshots)
        found: dict[str, FoundItems] = {}
        answers = []
        for column in columns:
            snapshot, how = snapshots[column.index.number], asked[column.key]
            rows, spent = self._rows(column, snapshot, described.get(column.key), query)
            if how.lacks and (picture is not None or text) and not question.more:
                own = FoundItems(refused=how.lacks)
            else:
                with self._searching:
                    own = search_column(column.method, snapshot, rows, question, question.thresholds.get(column.key))
            found[column.key] = own
            told = self._answer(column, own, spent | {"search": own.ms}, items, question.k, how)
            answers.append(self._compared(told, column, snapshot, rows, own, question))
        if query.item and picture is None and all(answer.refused for answer in answers):
            raise NoSuchThing(f"no item {query.item!r} is in these indexes")
        joined = None
        if question.joined and sum(not answer.refused for answer in answers) > 1:
            joined = self._joined(found, items, question.k)
        milliseconds["total"] = (time.perf_counter() - began) * 1e3
        answer = Answer(
            columns=tuple(_with_columns(answers, answer) for answer in answers),
            joined=joined,
            milliseconds=milliseconds,
            size=size,
            versions={number: snapshot.version for number, snapshot in snapshots.items()},
            query=word,
            notes=notes,
            text=text,
        )
        self.telemetry.answered(answer)
        return answer

    def receive(self, encoded: bytes) -> str:
        """Take a picture in, to be searched for by the word that is returned; raises BadImage."""
        pixels, _ = self.pool.decode(encoded)
        pixels.flags.writeable = False
        recent = RecentQuery.of(encoded)
        word = self.recent.put(recent)
        self.recent.decoded(recent, pixels)
        return word

    def picture_of(self, query: Query) -> np.ndarray | None:
        """(h, w, 3) uint8, the picture of a query, whole and upright; None where it has none.

        Raises BadImage and NoSuchThing.
        """
        picture = self._picture(query)
        if picture is None:
            return None
        encoded, recent, _ = picture
        return self.pool.decode(encoded)[0] if recent.pixels is None else recent.pixels

    def text_of(self, query: Query) -> str:
        """The words of a query; "" where it has none. Raises NoSuchThing for a known query that is not there."""
        if query.text is not None or query.known is None or not self.reads_texts:
            return (query.text or "").strip()
        index, row = query.known
        texts = self._known_queries(index, row).texts
        return "" if texts is None else texts[row].strip()

    def item_picture(self, name: str) -> bytes:
        """The encoded picture of the item of this id, in the first index that has one; raises NoSuchThing."""
        for index in self.indexes:
            item = index.stored.snapshot().by_id(name)
            if item is not None:
                return index.picture(item)
        raise NoSuchThing(f"no item {name!r} is in these indexes")

    def _chosen(self, question: Question) -> list[SearchColumn]:
        wanted = question.columns or tuple(self.columns)
        for key in (*wanted, *question.thresholds):
            if key not in self.columns:
                raise NoSuchThing(f"there is no column {key!r}; they are {', '.join(self.columns)}")
        return [self.columns[key] for key in dict.fromkeys(wanted)]

    def _picture(self, query: Query) -> tuple[bytes, RecentQuery, str] | None:
        """What is searched for: its bytes, what is known of it, and the word by which that is found already."""
        if query.recent:
            kept = self.recent.get(query.recent)
            if kept is None:
                raise NoSuchThing("this picture is no longer here; send it again")
            return kept.encoded, kept, query.recent
        encoded = query.encoded
        if encoded is None and query.known is not None:
            encoded = self.known_query(*query.known)
        if encoded is None and query.item and (query.text or "").strip():
            encoded = self.item_picture(query.item)
        if encoded is None:
            return None
        return encoded, RecentQuery.of(encoded), ""

    def _decoded(
        self, encoded: bytes, recent: RecentQuery, columns: Sequence[SearchColumn], question: Question
    ) -> tuple[dict[int, np.ndarray], tuple[str, ...]]:
        """The pixels by how the indexes have theirs (`Decoding.wanted`), decoded in a child."""
        altered = question.turn or question.crop is not None
        pixels: dict[int, np.ndarray] = {}
        notes: tuple[str, ...] = ()
        for column in columns:
            wanted = 0 if altered else column.index.stored.decoding.wanted
            if wanted in pixels:
                continue
            whole = recent.pixels if wanted == 0 else None
            if whole is None:
                whole, notes = self.pool.decode(encoded, wanted)
                whole.flags.writeable = False
                if wanted == 0:
                    self.recent.decoded(recent, whole)
            pixels[wanted] = turned_and_cropped(whole, question) if altered else whole
        return pixels, notes

    def _described(
        self, columns: Sequence[SearchColumn], pixels: Mapping[int, np.ndarray], text: str
    ) -> dict[str, DescribedQuery]:
        """The query as each of these columns sees it, by its key; of no column where there is neither of the two."""
        if not columns or not (pixels or text):
            return {}
        whole = next(iter(pixels.values()), None)
        each = [pixels.get(column.index.stored.decoding.wanted, whole) for column in columns]
        done = self.queue.describe([column.method for column in columns], each, EXTRACTION_S, text)
        return {column.key: one for column, one in zip(columns, done, strict=True)}

    def known_query(self, index: int, row: int) -> bytes:
        """The encoded picture of a query of an index's dataset; raises NoSuchThing."""
        return self._known_queries(index, row).images.read(row)

    def _known_queries(self, index: int, row: int) -> Split:
        queries = self.index(index).queries
        if not 0 <= row < len(queries):
            raise NoSuchThing(f"index {index} has no query {row}; they are 0 to {len(queries) - 1}")
        return queries

    def _rows(
        self, column: SearchColumn, snapshot: Snapshot, done: DescribedQuery | None, query: Query
    ) -> tuple[Rows | None, dict[str, float]]:
        """The row of the query by this column's method, and what it took."""
        if done is not None:
            return done.rows, {"waited": done.waited_ms, "extract": done.extract_ms}
        item = snapshot.by_id(query.item) if query.item else None
        return None if item is None else stored_rows(snapshot, column.method, np.array([item.number])), {}

    def _answer(
        self,
        column: SearchColumn,
        found: FoundItems,
        milliseconds: Mapping[str, float],
        items: _Items,
        k: int,
        how: _Asked,
    ) -> ColumnAnswer:
        index, numbers = column.index.number, found.numbers[:k]
        items.load(index, numbers)
        return ColumnAnswer(
            key=column.key,
            hits=tuple(
                hit_of(index, item, distance, (column.key,))
                for number, distance in zip(numbers, found.distances, strict=False)
                if (item := items.get(index, number)) is not None
            ),
            milliseconds={} if found.refused else milliseconds,
            bytes_per_item=column.method.bytes_per_item,
            comparable=column.method.comparable or (HALF_ASKED if how.half else ""),
            note="; ".join(part for part in (how.half, found.note) if part),
            refused=found.refused,
            beyond=found.beyond,
        )

    def _compared(
        self,
        answer: ColumnAnswer,
        column: SearchColumn,
        snapshot: Snapshot,
        rows: Rows | None,
        own: FoundItems,
        question: Question,
    ) -> ColumnAnswer:
        """The answer with what an approximate index finds of it, where there is one."""
        if self._approximate is None or answer.refused:
            return answer
        found = self._approximate.compare(column.key, column.method, snapshot, rows, question)
        if found is None:
            return answer
        return replace(answer, approximate=in_words(found, own.numbers, own.ms, len(answer.hits)))

    def _joined(self, found: Mapping[str, FoundItems], items: _Items, k: int) -> ColumnAnswer:
        """Reciprocal-rank fusion of what the columns found; items of several indexes are the same if their ids are."""
        began = time.perf_counter()
        rankings = {key: own.numbers for key, own in found.items() if not own.refused}
        indexes = {key: self.columns[key].index.number for key in rankings}
        places = {number: (indexes[key], number) for key, own in rankings.items() for number in own}
        if len(set(indexes.values())) > 1:
            places, rankings = _by_id(rankings, indexes, items)
        ranking = joined_row(rankings, k, max(DEPTH, k))
        found_by: dict[int, list[str]] = {}
        for key, own in rankings.items():
            for number in own:
                found_by.setdefault(number, []).append(key)
        nearest = ranking.indices[0].tolist()
        for index in set(indexes.values()):
            items.load(index, [number for at, number in map(places.__getitem__, nearest) if at == index])
        hits = tuple(
            hit_of(places[number][0], item, distance, tuple(found_by[number]))
            for number, distance in zip(nearest, ranking.distances[0].tolist(), strict=True)
            if (item := items.get(*places[number])) is not None
        )
        return ColumnAnswer(
            key=JOINED,
            hits=hits,
            milliseconds={"search": (time.perf_counter() - began) * 1e3},
            comparable="ranks, which a query has whether or not anything is near",
        )


@dataclass(frozen=True)
class _Asked:
    """lacks: why a column cannot be asked this query. half: that a part of what it reads is missing; "" for neither."""

    lacks: str
    half: str


def _asked(column: SearchColumn, *, picture: bool, text: bool) -> _Asked:
    """How a query that has a picture, or words, suits a column."""
    lacks = column.method.lacking(picture=picture, text=text)
    half = ""
    if not lacks and (picture or text) and column.method.sides.query == BOTH:
        if not text:
            half = "no words were given, so the picture decides alone"
        elif not picture:
            half = "no picture was given, so the words decide alone"
    return _Asked(lacks, half)


class _Items:
    """Items of some snapshots, each read once."""

    def __init__(self, indexes: Sequence[OpenIndex], snapshots: Mapping[int, Snapshot]) -> None:
        self._indexes, self._snapshots = indexes, snapshots
        self._known: dict[int, dict[int, Item]] = {index: {} for index in snapshots}

    def load(self, index: int, numbers: Sequence[int]) -> None:
        """Read those that are not known yet, at once."""
        known = self._known[index]
        if missing := [number for number in numbers if number not in known]:
            known.update(self._indexes[index].items(self._snapshots[index], missing))

    def get(self, index: int, number: int) -> Item | None:
        """None where the index has forgotten it meanwhile."""
        return self._known[index].get(number)


def _by_id(
    rankings: Mapping[str, Sequence[int]], indexes: Mapping[str, int], items: _Items
) -> tuple[dict[int, tuple[int, int]], dict[str, tuple[int, ...]]]:
    """Rankings of several indexes with one number for each id, and where an item of that id is."""
    number_of: dict[str, int] = {}
    places: dict[int, tuple[int, int]] = {}
    renumbered: dict[str, tuple[int, ...]] = {}
    for key, own in rankings.items():
        items.load(indexes[key], own)
        ids = [(item.id, number) for number in own if (item := items.get(indexes[key], number)) is not None]
        renumbered[key] = tuple(number_of.setdefault(name, len(number_of)) for name, _ in ids)
        for (_, number), common in zip(ids, renumbered[key], strict=True):
            places.setdefault(common, (indexes[key], number))
    return places, renumbered


def hit_of(index: int, item: Item, distance: float, columns: tuple[str, ...] = ()) -> Hit:
    """What a page or a client is told of an item, whose attributes are text."""
    picture = picture_address(index, item.number, item.digest)
    said = item.id, item.label or "", item.category or "", item.attributes
    return Hit(index, item.number, *said, float(distance), columns, picture, item.text[:MOST_CHARACTERS])


def turned_and_cropped(pixels: np.ndarray, question: Question) -> np.ndarray:
    """The part of a picture that is searched for.

    Args:
        pixels: (h, w, 3) uint8, upright.
        question: its `turn` and `crop`.

    Returns:
        (h', w', 3) uint8, contiguous, at least one pixel.
    """
    pixels = np.rot90(pixels, -question.turn // 90)
    if question.crop is not None:
        height, width = pixels.shape[:2]
        left, top, right, bottom = question.crop
        x, y = min(int(left * width), width - 1), min(int(top * height), height - 1)
        pixels = pixels[y : max(y + 1, round(bottom * height)), x : max(x + 1, round(right * width))]
    pixels = np.ascontiguousarray(pixels)
    pixels.flags.writeable = False
    return pixels


def _with_columns(answers: Sequence[ColumnAnswer], answer: ColumnAnswer) -> ColumnAnswer:
    """Each hit told which columns found the same item, by its id."""
    by_id: dict[str, list[str]] = {}
    for one in answers:
        for hit in one.hits:
            by_id.setdefault(hit.id, []).append(one.key)
    hits = tuple(
        hit if hit.columns == (columns := tuple(by_id[hit.id])) else replace(hit, columns=columns)
        for hit in answer.hits
    )
    return replace(answer, hits=hits)
