"""What users say of results: a log of all of it, and a manifest by which `run` asks the same queries of any method.

The manifest lists the catalogue as gallery and every query of which the right label is known as query:
`run --dataset manifest --data-root FOLDER --allow-outside`. A query whose picture is not kept cannot be listed; the log
has it all the same. Both files grow line by line, and each line is on the disk before the request is answered.
"""

from __future__ import annotations

import csv
import hashlib
import json
import os
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from retrieval_bench.core import BadImage, BenchError, printable
from retrieval_bench.methods.modalities import TEXT
from retrieval_bench.serving.answering.open_indexes import OpenIndex
from retrieval_bench.serving.answering.service import Query, SearchService
from retrieval_bench.serving.client.changes import KeptJudgement
from retrieval_bench.serving.decoding.pool import KeptPicture
from retrieval_bench.serving.requests.errors import NoSuchThing
from retrieval_bench.system.csv_text import csv_text
from retrieval_bench.system.files import write_whole

LOG, MANIFEST, PICTURES = "feedback.jsonl", "manifest.csv", "pictures"
COLUMNS = ("path", "label", "split", "id", "category")
TEXT_COLUMN = "text"
"""Behind these, in a manifest of an index that has texts."""


@dataclass(frozen=True)
class HitJudgement:
    """What a user says of a hit.

    Args:
        query: what was searched for.
        index: number of the index of the item that was found.
        number: of that item.
        right: whether it shows what the query shows.
        column: which method found it; "" where that is not known.
        label: what the query shows, where the user says it; "" where the label of a right item says it.
    """

    query: Query
    index: int
    number: int
    right: bool
    column: str = ""
    label: str = ""


class FeedbackLog:
    """Keeps judgements in a folder, which is made with the first of them.

    Args:
        service: whose answers are judged.
        folder: where the log and the manifest lie.
        keep: keep pictures that were sent, encoded anew.
    """

    def __init__(self, service: SearchService, folder: Path, keep: bool) -> None:
        self._service, self._folder, self.keep = service, folder, keep
        self._lock = threading.Lock()
        self._listed: set[str] | None = None

    def keep_upload(self, data: bytes) -> Path:
        """Keep a picture that was sent, encoded anew and named by its content; returns its file."""
        return self._stored(self._service.pool.keep(data))

    def add(self, judgement: HitJudgement) -> KeptJudgement:
        """Keep a judgement.

        Returns:
            What was kept of it.

        Raises:
            NoSuchThing: The item or the query is not there.
            BenchError: Nothing can be written.
        """
        index = self._service.index(judgement.index)
        item = index.item(judgement.number)
        label = judgement.label or ((item.label or "") if judgement.right else "")
        with self._lock:
            query_id, path, why_not = self._query(judgement.query)
            if path is not None and not label:
                path, why_not = None, "nobody said what the query shows"
            elif path is not None and query_id in self._ids():
                path, why_not = None, "the manifest has this query already"
            self._folder.mkdir(parents=True, exist_ok=True)
            line = {
                "at": datetime.now(UTC).isoformat(timespec="seconds"),
                "query": query_id,
                "index": index.name,
                "item": item.id,
                "column": judgement.column,
                "right": judgement.right,
                "label": label,
            }
            if text := self._service.text_of(judgement.query):
                line["text"] = text
            self._append(self._folder / LOG, json.dumps(line) + "\n")
            if path is None:
                return KeptJudgement("", why_not)
            self._list_gallery(index)
            row = (_relative(path, self._folder), label, "query", query_id, self._category_of(index, label))
            self._append(self._folder / MANIFEST, csv_text([(*row, text) if self._lists_texts() else row]))
            self._ids().add(query_id)
            return KeptJudgement(query_id)

    def _query(self, query: Query) -> tuple[str, Path | None, str]:
        """Its id, the file that holds its picture, and why there is none."""
        if query.recent:
            kept = self._service.recent.get(query.recent)
            if kept is None:
                raise NoSuchThing("the picture of this query is no longer here; search again")
            name = f"sent/{kept.digest[:32]}"
            if not self.keep:
                return name, None, "pictures that are sent are not kept; serve with --keep"
            return name, self.keep_upload(kept.encoded), ""
        if query.known is not None:
            number, row = query.known
            encoded = self._service.known_query(number, row)
            name = self._service.index(number).queries.ids[row]
            return name, self._stored(self._service.pool.keep(encoded)), ""
        if query.item:
            return query.item, None, "the query is an item of the catalogue, which finds itself"
        if text := self._service.text_of(query):
            digest = hashlib.sha256(text.encode()).hexdigest()
            return f"words/{digest[:32]}", None, "the query has words alone, and a list of images needs an image"
        raise BenchError("feedback names no query: send its word, or the number of a known query")

    def _stored(self, kept: KeptPicture) -> Path:
        digest = hashlib.sha256(kept.encoded).hexdigest()
        file = self._folder / PICTURES / f"{digest}{kept.suffix}"
        if not file.exists():
            write_whole(file, kept.encoded, "--feedback")
        return file

    def _ids(self) -> set[str]:
        """Ids of the queries in the manifest."""
        if self._listed is None:
            self._listed = set()
            file = self._folder / MANIFEST
            if file.exists():
                with open(file, newline="", encoding="utf-8") as stream:
                    self._listed = {row["id"] for row in csv.DictReader(stream) if row.get("split") == "query"}
        return self._listed

    def _lists_texts(self) -> bool:
        """Whether the manifest has a column for them."""
        with open(self._folder / MANIFEST, newline="", encoding="utf-8") as stream:
            return TEXT_COLUMN in next(csv.reader(stream), [])

    def _list_gallery(self, index: OpenIndex) -> None:
        """Begin the manifest with the catalogue of that moment; items without a file of their own get one."""
        file = self._folder / MANIFEST
        if file.exists():
            return
        snapshot = index.stored.snapshot()
        texts = any(TEXT in method.sides.read for method in index.stored.methods)
        rows: list[Sequence[str]] = [(*COLUMNS, TEXT_COLUMN) if texts else COLUMNS]
        for number in snapshot.numbers.tolist():
            item = snapshot.item(number)
            try:
                path = self._file_of(index, item)
            except BadImage:  # it is searched in, but its picture is gone: no run can describe it
                continue
            row = (_relative(path, self._folder), item.label or "", "gallery", item.id, item.category or "")
            rows.append((*row, item.text) if texts else row)
        write_whole(file, csv_text(rows).encode(), "--feedback")

    def _file_of(self, index: OpenIndex, item: Any) -> Path:
        if item.picture is not None:
            return Path(index.stored.folder) / "pictures" / item.picture
        if item.path is not None and item.path.is_file():
            return Path(item.path)
        return self._stored(self._service.pool.keep(index.picture(item)))

    def _category_of(self, index: OpenIndex, label: str) -> str:
        """A label has one category: that of the items that have it."""
        snapshot = index.stored.snapshot()
        numbers = snapshot.where(labels=(label,))
        return (snapshot.item(int(numbers[0])).category or "") if len(numbers) else ""

    def _append(self, file: Path, text: str) -> None:
        try:
            with open(file, "a", encoding="utf-8", newline="") as stream:
                stream.write(text)
                stream.flush()
                os.fsync(stream.fileno())
        except OSError as error:
            raise BenchError(
                f"{printable(file)}: cannot be written ({error.strerror}); choose another place with --feedback"
            ) from None


def _relative(path: Path, folder: Path) -> str:
    return Path(os.path.relpath(path.absolute(), folder.absolute())).as_posix()
