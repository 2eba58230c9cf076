"""An index on disk, opened: its methods, its moments, and what changes it."""

from __future__ import annotations

import contextlib
import hashlib
import os
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import Any, Self

import numpy as np

from retrieval_bench.core import DISTRACTOR, BadImage, BenchError, Dataset, Setup, Split, printable
from retrieval_bench.datasets.splits import limit as limited
from retrieval_bench.images.decoding import Decoding
from retrieval_bench.images.formats import HEAD, format_of
from retrieval_bench.images.reading import ImageFiles, paths_of
from retrieval_bench.indexing.describing import DescribedPicture, Describer, Incoming, of_images
from retrieval_bench.indexing.description import Description, judged_path, plain, read_description, read_file
from retrieval_bench.indexing.feature_files import kept_as
from retrieval_bench.indexing.feature_place import AppendingRows, FeaturePlace, FileFeatures
from retrieval_bench.indexing.items import ITEMS_FILE, Item, ItemTable, Operation, item_check
from retrieval_bench.indexing.methods import IndexedMethod, setup_of
from retrieval_bench.indexing.snapshot import Searches, Snapshot
from retrieval_bench.indexing.store_features import StoreFeatures
from retrieval_bench.indexing.verify import PICTURES, Verification, verified
from retrieval_bench.registry import DATASETS, parse
from retrieval_bench.remote.place import root_of
from retrieval_bench.system.cores import usable_cores
from retrieval_bench.system.files import removed, sync_folder, write_whole
from retrieval_bench.system.locks import Taken, held
from retrieval_bench.system.progress import Progress, silent
from retrieval_bench.system.timing import pinned

LOCK_FILE = "lock"
TAKEN = "its id is in the index already"
"""Why a picture is not added, for `Added.refused`."""
_DESCRIBING = threading.Lock()  # the number of threads of a library is one for the whole process
_TRIES = 20
Describe = Callable[[Iterable[Incoming]], Iterator[DescribedPicture]]
"""Describes pictures in their order."""
_SUFFIXES = {"JPEG": ".jpg", "PNG": ".png"}


@dataclass(frozen=True, eq=False)
class NewItem:
    """A picture to add. One of picture, encoded and path says where its pixels are.

    Args:
        id: not that of an item which is there.
        picture: (h, w, 3) uint8 RGB, upright.
        encoded: the bytes of a JPEG or PNG file, which are kept in the folder `pictures`; they should have been encoded
            anew, so that nothing but pixels is in them. Where `picture` is given too, that is described.
        label: what it shows; None: nobody knows.
        category: of the label.
        attributes: what else is known of it.
        path: its file. Without picture and bytes it is read from there.
        digest: sha256 of the file that it came from; None: of `encoded`, or else of what is read.
        text: what it is called or described as; "" where nothing is known of that.
    """

    id: str
    picture: np.ndarray | None = None
    encoded: bytes | None = None
    label: str | None = None
    category: str | None = None
    attributes: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))
    path: Path | None = None
    digest: str | None = None
    text: str = ""


@dataclass(frozen=True)
class Added:
    """What became of pictures. numbers: of the items that they are now. operation: None where none was added.

    refused: reason -> ids of those that were not added. notes: what decoding did to how many.
    """

    numbers: tuple[int, ...]
    operation: int | None
    refused: Mapping[str, tuple[str, ...]]
    notes: Mapping[str, int] = field(default_factory=lambda: MappingProxyType({}))


@dataclass(frozen=True, eq=False)
class JudgedQueries:
    """The queries of the dataset that an index was built of, asked when it was built.

    Args:
        ids: (q,) of the queries.
        numbers: (q, k) items found, nearest first, -1 where there are fewer.
        distances: (q, k) float32.
        right: (q, k) bool, whether the item shows what the query shows.
        n_relevant: (q,) int64, how many items do.
    """

    ids: np.ndarray
    numbers: np.ndarray
    distances: np.ndarray
    right: np.ndarray
    n_relevant: np.ndarray


class StoredIndex:
    """An index, opened. Safe to use from several threads.

    Attributes:
        folder: where it lies.
        methods: in the order in which they were named.
        description: all that index.json says.
        dataset_spec: of the dataset that it was built of.
        data_root: of that dataset; None: it needs none.
        decoding: how pictures that are added or searched for are decoded.
    """

    def __init__(
        self, folder: Path, description: Description, setup: Setup, features: FeaturePlace | None = None
    ) -> None:
        """Use `open`."""
        self.folder, self.description, self.setup = folder, description, setup
        self._features = features or place_of(folder, description)
        self._own_features = features is None
        self.dataset_spec, self.data_root = description.dataset, description.data_root
        self.decoding = Decoding(description.max_pixels, description.wanted)
        self.methods = tuple(IndexedMethod(folder, description, n, setup) for n in range(len(description.methods)))
        self._lock: contextlib.ExitStack | None = None
        self._items = ItemTable(folder / ITEMS_FILE, writable=False)
        self._writer: ItemTable | None = None
        self._searches = Searches()
        self._last: Snapshot | None = None
        self._refreshing, self._changing = threading.RLock(), threading.RLock()

    @classmethod
    def open(
        cls,
        folder: Path,
        setup: Setup | None = None,
        *,
        writable: bool = False,
        check_recipe: bool = True,
        features: FeaturePlace | None = None,
    ) -> StoredIndex:
        """Open an index.

        Args:
            folder: where it lies.
            setup: weights, device and threads of the methods. None: as it was built, on all cores of this process.
            writable: it will be changed; no other process may then open it so. Others may read it meanwhile.
            check_recipe: build every method now, and refuse what would describe pictures in another way. Else that is
                done when a method is used first.
            features: where its features lie, for who has that open already and closes it; None: as it says itself.

        Returns:
            The index; `close` it, or use it in a `with` block.

        Raises:
            BenchError: There is none, it is damaged, another process changes it, or a method is of another recipe.
        """
        description = read_description(folder)
        chosen = setup_of(description, setup, usable_cores())
        with contextlib.ExitStack() as stack:
            if writable:
                stack.enter_context(_locked(folder))
            index = cls(folder, description, chosen, features)
            index._lock = stack.pop_all()
        try:
            if writable:
                index._prepare_to_write()
            index.snapshot()
            if check_recipe:
                for method in index.methods:
                    _ = method.pipeline
        except BaseException:
            index.close()
            raise
        return index

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let the files go, the store, and the lock."""
        if self._own_features:
            self._features.close()
        self._items.close()
        if self._writer is not None:
            self._writer.close()
            self._writer = None
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def method(self, name: str) -> IndexedMethod:
        """The method of this text or name. BenchError where there is none."""
        for method in self.methods:
            if name in (method.text, method.name):
                return method
        known = ", ".join(method.text for method in self.methods)
        raise BenchError(f"{printable(self.folder)} has no method {name!r}; it has {known}")

    def snapshot(self) -> Snapshot:
        """What the index holds now; cheap where nothing has changed, whoever changed it.

        Raises:
            BenchError: A file is damaged, or missing.
        """
        with self._refreshing:
            for _ in range(_TRIES):
                last = self._last
                state = self._items.state(None if last is None else last.state)
                if last is not None and state is last.state:
                    return last
                try:
                    arrays = self._features.arrays(state)
                except FileNotFoundError as error:
                    missing = error.filename
                    continue  # another generation has taken the place of this one meanwhile
                self._last = Snapshot(self._items, state, self.methods, arrays, self._searches)
                return self._last
        raise self._missing(missing)

    def add(self, items: Iterable[NewItem], progress: Progress = silent) -> Added:
        """Describe pictures by every method and add them: all that can be used in one operation, or nothing.

        Args:
            items: what to add.
            progress: called often; total is 0 where nobody knows how many there are.

        Returns:
            What became of them.

        Raises:
            BenchError: It is not open for writing, or cannot be written; nothing was added then.
        """
        total = len(items) if isinstance(items, Sequence) else 0
        return self._add((_incoming(one) for one in items), self._describer(), total, progress)

    def add_features(
        self, items: Sequence[NewItem], features: Sequence[Sequence[np.ndarray]], progress: Progress = silent
    ) -> Added:
        """Add pictures that are described already, else as `add`.

        Args:
            items: what to add; their pictures are not looked at.
            features: of each method, what `IndexedMethod.features` gave of these items of the gallery, in their order.
            progress: called often.

        Returns:
            What became of them.
        """
        flat = [array for own in features for array in own]

        def described(some: Iterable[Incoming]) -> Iterator[DescribedPicture]:
            for one in some:
                row = place[one.facts[0].id]
                yield DescribedPicture(one, one.facts[0].digest, tuple(array[row] for array in flat))

        place = {item.id: row for row, item in reversed(list(enumerate(items)))}
        incoming = (Incoming(_facts_of(one)) for one in items)
        return self._add(incoming, described, len(items), progress)

    def add_split(
        self, split: Split, label_names: Sequence[str], category_names: Sequence[str] = (), progress: Progress = silent
    ) -> Added:
        """Add the images of a split, whose labels and categories are indexes of these names; else as `add`."""
        items = items_of(split, label_names, category_names)
        incoming = (of_images(split.images, row, item, item.text) for row, item in enumerate(items))
        return self._add(incoming, self._describer(), len(split), progress)

    def remove(self, ids: Sequence[str]) -> int:
        """Remove items: none of them is found any more, by any method. What they are is kept until `compact`.

        Args:
            ids: of the items, at least one.

        Returns:
            The number of the operation, for `undo`.

        Raises:
            BenchError: An id is unknown; nothing was removed then.
        """
        with self._changing:
            return self._written().remove(list(ids))

    def undo(self, operation: int) -> int:
        """Undo an operation: what it added is removed, what it removed is there again.

        Args:
            operation: its number; of an undo, too.

        Returns:
            The number of the operation that this is.

        Raises:
            BenchError: There is no such operation, it was undone, or nothing of it is left.
        """
        with self._changing:
            return self._written().undo(operation)

    def verify(self, progress: Progress = silent) -> Verification:
        """Compute every checksum again, of features, items, pictures and of what was learned.

        Args:
            progress: called often.

        Returns:
            What was looked at, and what is not as it was written.
        """
        self._features.reach()
        for _ in range(_TRIES):
            with contextlib.closing(ItemTable(self.folder / ITEMS_FILE, writable=False)) as table, table.moment():
                state = table.state()
                try:
                    arrays = self._features.arrays(state)
                except FileNotFoundError as error:
                    missing = error.filename
                    continue  # another generation has taken the place of this one meanwhile
                names = self._features.names(state)
                return verified(self.folder, self.description, table, state, arrays, names, progress)
        raise self._missing(missing)

    def compact(self, progress: Progress = silent) -> None:
        """Drop the features of removed items, and what is known of them; they cannot be brought back after that.

        A reader that opened the index before goes on with what it sees. Where nothing is removed, nothing is done.

        Args:
            progress: called often.

        Raises:
            BenchError: It is not open for writing, or cannot be written; the index is then as it was.
        """
        with self._changing:
            writer = self._written()
            state = self.snapshot().state
            if state.live.all():
                return
            chosen = np.flatnonzero(state.live)
            compacted = False
            try:
                self._features.rewrite(state, chosen, progress)
                writer.compacted(state.generation + 1, state.numbers[chosen])
                compacted = True
            except OSError as error:
                raise self._unwritable(error) from None
            finally:
                self._features.clear(self.snapshot().state, compacted=compacted)
            self._drop_pictures(writer.pictures())

    def operations(self, last: int = 100) -> list[Operation]:
        """The last operations, the oldest of them first."""
        return self._items.operations(last)

    def judged(self, method: str) -> JudgedQueries | None:
        """What the dataset's own queries found when the index was built; None where they were not asked."""
        name = judged_path(self.method(method).number)
        if name not in self.description.files:
            return None
        return JudgedQueries(**read_file(self.folder, name, self.description.files[name]))

    def dataset(self) -> Dataset:
        """The dataset that the index was built of, read again; its images have the ids of the items."""
        root = None if self.data_root is None else root_of(self.data_root)
        found: Dataset = parse(DATASETS, self.dataset_spec).build(root)
        return found if self.description.limit is None else limited(found, self.description.limit)

    def read(self, item: Item) -> bytes:
        """The bytes of an item's picture: its copy in the index, or the file that it came from.

        Raises:
            BadImage: It cannot be read; or it came from no file, and lies only in the dataset.
        """
        if item.picture is not None:
            return ImageFiles([self.folder / PICTURES / item.picture]).read(0)
        if item.path is None:
            raise BadImage("no file", "it was added without a file; the dataset has it")
        return ImageFiles([item.path]).read(0)

    def _missing(self, file: str) -> BenchError:
        return BenchError(f"{printable(file)} is missing; the index is damaged: build it again")

    def _describer(self) -> Describer:
        self._written()  # before networks are loaded
        return Describer([method.pipeline for method in self.methods], self.decoding, self.setup.threads)

    def _add(self, incoming: Iterable[Incoming], describe: Describe, total: int, progress: Progress) -> Added:
        with self._changing:
            writer = self._written()
            state = self.snapshot().state
            refused: dict[str, list[str]] = {}
            try:
                with contextlib.closing(self._features.appending(state, writer.next_number())) as appending:
                    try:
                        found = list(self._appended(incoming, describe, appending, refused, total, progress))
                        appending.sync()
                    except BaseException:
                        appending.take_back()
                        raise
            except OSError as error:
                raise self._unwritable(error) from None
            if not found:
                return Added((), None, _frozen(refused))
            operation, numbers = writer.add(found)  # from here on the rows may count: nobody takes them back
            notes = dict(describe.notes) if isinstance(describe, Describer) else {}
            return Added(tuple(numbers), operation, _frozen(refused), notes)

    def _appended(
        self,
        incoming: Iterable[Incoming],
        describe: Describe,
        appending: AppendingRows,
        refused: dict[str, list[str]],
        total: int,
        progress: Progress,
    ) -> Iterator[tuple[Item, bytes]]:
        """Each item that is described and written, with its checksum."""
        seen: set[str] = set()
        with _DESCRIBING, pinned(1):
            for done, one in enumerate(describe(self._fresh(incoming, seen, refused)), 1):
                progress("describing", done, total)
                new: tuple[Item, bytes | None] = one.incoming.facts
                if one.bad is not None:
                    refused.setdefault(one.bad.reason, []).append(new[0].id)
                    continue
                yield self._one_appended(one, new, appending)

    def _one_appended(
        self, one: DescribedPicture, new: tuple[Item, bytes | None], appending: AppendingRows
    ) -> tuple[Item, bytes]:
        item, encoded = new
        item = replace(item, digest=item.digest or one.digest)
        if encoded is not None:
            item = replace(item, picture=self._keep(encoded))
        rows = self._features.as_kept(rows_kept(one, self.description))
        appending.append([row[None] for row in rows])
        return item, item_check(item, rows)

    def _fresh(self, incoming: Iterable[Incoming], seen: set[str], refused: dict[str, list[str]]) -> Iterator[Incoming]:
        """Those whose id nobody has yet."""
        for one in incoming:
            facts = one.facts if isinstance(one.facts, tuple) else (one.facts, None)
            name = facts[0].id
            if name in seen or self._items.live_numbers([name]):
                refused.setdefault(TAKEN, []).append(name)
                continue
            seen.add(name)
            yield replace(one, facts=facts)

    def _keep(self, encoded: bytes) -> str:
        """Keep the bytes of a picture -> the name of its file."""
        name = hashlib.sha256(encoded).hexdigest() + _SUFFIXES[format_of(encoded[:HEAD])]
        file = self.folder / PICTURES / name
        if not file.exists():
            write_whole(file, encoded, "another folder")
            sync_folder(file.parent)
            sync_folder(self.folder)
        return name

    def _drop_pictures(self, used: set[str]) -> None:
        home = self.folder / PICTURES
        for file in home.iterdir() if home.is_dir() else ():
            if file.name not in used:
                removed(file)

    def _prepare_to_write(self) -> None:
        """Clear away what a process left that died while it wrote."""
        self._writer = ItemTable(self.folder / ITEMS_FILE, writable=True)
        self._writer.allow_texts()
        state = self.snapshot().state
        self._features.clear(state, compacted=False)

    def _written(self) -> ItemTable:
        if self._writer is None:
            raise BenchError(f"{printable(self.folder)} is open for reading; open it with writable=True")
        return self._writer

    def _unwritable(self, error: OSError) -> BenchError:
        return BenchError(f"{printable(self.folder)}: cannot be written ({error.strerror}); nothing was changed")


def place_of(folder: Path, description: Description) -> FeaturePlace:
    """Where the features of an index lie, as it says itself."""
    if description.store is None:
        return FileFeatures(folder, description)
    return StoreFeatures(folder, description.store, description.methods)


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """The lock of an index, which whoever changes it holds. BenchError where another process does."""
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(held(folder / LOCK_FILE))
        except Taken:
            raise BenchError(
                f"{printable(folder)}: another process is changing this index; wait until it has finished"
            ) from None
        except OSError as error:
            raise BenchError(f"{printable(folder)}: cannot be changed ({error.strerror})") from None
        yield


def refuse_where_changed(folder: Path) -> None:
    """BenchError where a process is changing an index."""
    with _locked(folder):
        pass


def rows_kept(one: DescribedPicture, description: Description) -> list[np.ndarray]:
    """The rows of a described picture as they lie in the files."""
    facts = [array for method in description.methods for array in method.arrays]
    return [kept_as(row[None], array)[0] for row, array in zip(one.rows, facts, strict=True)]


def items_of(split: Split, label_names: Sequence[str], category_names: Sequence[str]) -> Iterator[Item]:
    """The images of a split as items that have no number yet."""
    paths = paths_of(split.images)
    for row, name in enumerate(split.ids):
        labels = _named(split.labels[row], split.other_labels, row, label_names)
        categories: tuple[str, ...] = ()
        if split.categories is not None:
            categories = _named(split.categories[row], split.other_categories, row, category_names)
        yield Item(
            0,
            name,
            labels[0] if labels else None,
            categories[0] if categories else None,
            labels[1:],
            categories[1:],
            {key: plain(column[row]) for key, column in split.attributes.items()},
            "",
            None if paths is None else Path(os.path.abspath(paths[row])),
            text=_utf8(name, "" if split.texts is None else split.texts[row]),
        )


def _utf8(name: str, text: str) -> str:
    """The text itself; BenchError where UTF-8 cannot hold it."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise BenchError(f"{name!r}: its text holds half of a character, which UTF-8 cannot hold; correct it") from None
    return text


def _named(first: Any, others: np.ndarray | None, row: int, names: Sequence[str]) -> tuple[str, ...]:
    """The names of all labels of an image; none of a distractor."""
    numbers = [int(first), *(() if others is None else others[row].tolist())]
    return tuple(names[number] for number in numbers if number >= 0 and names[number] != DISTRACTOR)


def _facts_of(new: NewItem) -> tuple[Item, bytes | None]:
    """What is known of a picture that is to be added, and the bytes that are to be kept of it."""
    if new.encoded is not None and format_of(new.encoded[:HEAD]) not in _SUFFIXES:
        raise BenchError(f"{new.id}: an index keeps pictures as JPEG or PNG alone; encode it so")
    try:
        "".join(one for one in (new.id, new.label, new.category, new.digest, new.text) if one is not None).encode()
    except UnicodeEncodeError:
        raise BenchError(f"{new.id!r}: id, label, category, digest and text must be text that UTF-8 can hold") from None
    digest = new.digest
    if digest is None and new.encoded is not None:
        digest = hashlib.sha256(new.encoded).hexdigest()
    path = None if new.path is None else Path(os.path.abspath(new.path))
    attributes = plain(new.attributes)
    item = Item(
        0, new.id, new.label, new.category, attributes=attributes, digest=digest or "", path=path, text=new.text
    )
    return item, new.encoded


def _incoming(new: NewItem) -> Incoming:
    facts = _facts_of(new)
    if new.picture is not None:
        return Incoming(facts, picture=new.picture, text=new.text)
    if new.encoded is not None:
        encoded = new.encoded
        return Incoming(facts, lambda: encoded, text=new.text)
    if new.path is None:
        raise BenchError(f"{new.id}: there is no picture; give its pixels, its bytes or its file")
    images = ImageFiles([new.path])
    return Incoming(facts, lambda: images.read(0), text=new.text)


def _frozen(refused: Mapping[str, Sequence[str]]) -> dict[str, tuple[str, ...]]:
    return {reason: tuple(ids) for reason, ids in refused.items()}
