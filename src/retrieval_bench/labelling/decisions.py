"""What was decided, in the order in which it was: a file that only grows, in which taking back is a decision, too."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, ValidationError

from retrieval_bench.core import BenchError, printable
from retrieval_bench.records.schema import Count, Model, Sha256, Share, Text
from retrieval_bench.system.line_file import add_line, drop_half_line, is_beginning_of, read_lines

MOST_BYTES = 1 << 30
MOST_LABEL = 200
"""Characters of a label that a person types."""

Deed = Literal["label", "nothing", "keep", "skip", "undo"]


class DecisionsOf(Model):
    """The first line: of which images the decisions are. fingerprint: of their ids and contents."""

    format: Annotated[int, Field(ge=1, le=1)] = 1
    version: Text
    dataset: Text
    images: Count
    fingerprint: Sha256


class DecidedImage(Model):
    """One image of a decision. label: "" where it says none. sure: how sure the proposal was."""

    id: Text
    label: Text = ""
    sure: Share | None = None


class Decision(Model):
    """label: these images show this. nothing: they show no product of the shop. keep: the label that is given is right.

    skip: later. undo: the decision `undoes`, by its number from 1, does not hold. by: "person", or "machine" where what
    is sure was accepted as a whole. proposed: what was proposed, where that is not what was decided.
    """

    number: Count
    at: Text
    do: Deed
    by: Literal["person", "machine"]
    items: Annotated[tuple[DecidedImage, ...], Field(max_length=10_000_000)] = ()
    proposed: Text = ""
    undoes: Count | None = None


class DecisionLog:
    """The decisions in a file, read when it is opened; every further one is on the disk when `add` returns.

    Args:
        path: the file; made with the first decision.
        of: which images the decisions are of.

    Raises:
        BenchError: The file is of other images, or cannot be read or written.
    """

    def __init__(self, path: Path, of: DecisionsOf) -> None:
        self.path, self._of = path, of
        self.decisions: list[Decision] = []
        self._bytes = 0
        if path.exists():
            self._read()

    def add(
        self, do: Deed, by: Literal["person", "machine"], items: tuple[DecidedImage, ...], proposed: str = ""
    ) -> Decision:
        """Keep a further decision."""
        return self._added(do=do, by=by, items=items, proposed=proposed)

    def undo(self) -> Decision | None:
        """Take the last decision that holds back; None where none does. Returns the one that was taken back."""
        held = self.holding()
        if not held:
            return None
        self._added(do="undo", by="person", undoes=held[-1].number)
        return held[-1]

    def holding(self) -> list[Decision]:
        """The decisions that hold, in their order."""
        undone = {one.undoes for one in self.decisions if one.do == "undo"}
        return [one for one in self.decisions if one.do != "undo" and one.number not in undone]

    def _added(self, **said: object) -> Decision:
        if self._size() != self._bytes:  # two that count from the same number would make a log that nobody can read
            raise BenchError(
                f"{printable(self.path)} was changed by another program, so nothing was noted; end this one, and call "
                "the command again"
            )
        if not self._bytes:
            try:
                self.path.parent.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise BenchError(f"{printable(self.path)} cannot be written: {error.strerror}") from None
            add_line(self.path, self._of.model_dump_json())
        number = len(self.decisions) + 1
        at = datetime.now(UTC).isoformat(timespec="seconds")
        decision = Decision.model_validate({"number": number, "at": at, **said})
        add_line(self.path, decision.model_dump_json(exclude_defaults=True))
        self._bytes = self._size()
        self.decisions.append(decision)
        return decision

    def _size(self) -> int:
        return self.path.stat().st_size if self.path.exists() else 0

    def _read(self) -> None:
        name = printable(self.path)
        lines = read_lines(self.path, MOST_BYTES)
        if not lines and is_beginning_of(self.path, self._of.model_dump_json(), MOST_BYTES):
            drop_half_line(self.path, MOST_BYTES)
            return  # the first decision writes the first line
        try:
            known = DecisionsOf.model_validate_json(lines[0] if lines else b"{}")
            self.decisions = [Decision.model_validate_json(line) for line in lines[1:]]
        except ValidationError as error:
            raise BenchError(
                f"{name} is no list of decisions ({error.errors()[0]['msg']}); name another --log"
            ) from None
        if [one.number for one in self.decisions] != list(range(1, len(self.decisions) + 1)):
            raise BenchError(
                f"{name} does not number its decisions one by one; it was changed by hand, name another --log"
            )
        if known.fingerprint != self._of.fingerprint:
            raise BenchError(f"{name} is of {known.images:,} other images ({known.dataset}); name another --log")
        drop_half_line(self.path, MOST_BYTES)
        self._bytes = self._size()
