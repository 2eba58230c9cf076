"""The record beside the search: its table, and its report, made anew when the file has changed."""

from __future__ import annotations

import re
import threading
from dataclasses import dataclass, field
from pathlib import Path

from retrieval_bench.core import BenchError, printable
from retrieval_bench.report.evidence import gather
from retrieval_bench.report.page import render
from retrieval_bench.report.style import policy
from retrieval_bench.report.table import caption, columns, grid

_STYLE = re.compile(r"<style>(.*?)</style>", re.DOTALL)


@dataclass(frozen=True)
class RecordTable:
    """heads: (words, what they mean) of each column; rows: cells; lines: what is said below."""

    heads: list[tuple[str, str]]
    rows: list[list[str]]
    lines: list[str]


@dataclass(eq=False)
class RecordPage:
    """A record as pages show it.

    Args:
        path: of the record.
        data_root: where its dataset lies, if not where the record says.
    """

    path: Path
    data_root: Path | None = None
    _made: tuple[tuple[int, int], str] | None = field(default=None, init=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, init=False)

    @property
    def name(self) -> str:
        """What the record is called."""
        return printable(self.path)

    def table(self) -> RecordTable:
        """Its rows as they are now; BenchError where it cannot be read."""
        record = gather(self.path, self.data_root, with_dataset=False).record
        shown = columns(record)
        heads = [("method", "what was measured"), *((column.head, column.means) for column in shown)]
        return RecordTable(heads, grid(record, shown), caption(record))

    def report(self) -> tuple[str, str]:
        """The page of `report`, and the policy that it brings: its style and its pictures lie in it."""
        with self._lock:
            stamp = self._stamp()
            if self._made is None or self._made[0] != stamp:
                self._made = stamp, render([gather(self.path, self.data_root)])
            text = self._made[1]
        found = _STYLE.search(text)
        if found is None:
            raise BenchError("the report has no style sheet")
        return text, policy(found[1])

    def _stamp(self) -> tuple[int, int]:
        file = self.path / "run.json" if self.path.is_dir() else self.path
        try:
            facts = file.stat()
        except OSError as error:
            raise BenchError(f"{printable(file)}: cannot be read ({error.strerror})") from None
        return facts.st_mtime_ns, facts.st_size
