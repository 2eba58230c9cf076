"""Act on groups of duplicates: one file for equal ones (`hardlink`), or all but the best moved away (`move`).

Nothing is deleted. Before the first change a journal is written that holds every step, so that `undo` can bring back
all of it, also after an interruption: it looks at what each step has left and needs no mark that the step was done. For
the same reason the same command again goes on where it was interrupted.
"""

from __future__ import annotations

import contextlib
import errno
import filecmp
import hashlib
import json
import os
import shutil
import stat
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from retrieval_bench.core import BenchError, Images, printable
from retrieval_bench.images.formats import has_frames
from retrieval_bench.system.files import sync_folder, write_whole

Action = Literal["hardlink", "move"]
FORMAT = "retrieval_bench dedupe journal 1"
UNFINISHED = ".dedupe-unfinished"
"""Ends the name of a file that is not whole yet; the next run writes it anew."""


@dataclass(frozen=True)
class ApplyStep:
    """path: the file that changes. keep: the one of its group that stays. target: where it goes; "" for a hard link.

    sha256, mode, mtime_ns: of the file as it was.
    """

    path: str
    keep: str
    target: str
    sha256: str
    mode: int
    mtime_ns: int


@dataclass(frozen=True)
class ApplyPlan:
    """steps: what would be done. left: (path, why) of duplicates that stay as they are. freed: bytes that they take."""

    action: Action
    folder: str
    to: str
    steps: tuple[ApplyStep, ...]
    left: tuple[tuple[str, str], ...]
    freed: int


@dataclass(frozen=True)
class Outcome:
    """done: steps that were made, or found made already. failed: (path, why)."""

    done: int
    failed: tuple[tuple[str, str], ...]


def planned(
    action: Action,
    folder: Path,
    to: Path | None,
    groups: Sequence[Sequence[int]],
    paths: Sequence[str | Path],
    images: Images,
) -> ApplyPlan:
    """What to do about these groups. Changes nothing.

    hardlink: a file of a group that equals a better one byte for byte becomes a further name of that. Others stay as
    they are: a link would lose what they hold. move: every file but the best of its group goes to the same place below
    `to`; an animation only if it equals that one, and none whose place is taken. Links, files reached through a link,
    and files that have further names (hard links) stay as they are in both.

    Args:
        action: "hardlink" or "move".
        folder: what was searched.
        to: for "move".
        groups: rows, the one to keep first.
        paths: of each row, below the folder.
        images: of each row, for the digests.

    Raises:
        BenchError: `to` is missing, lies in the folder or around it, or holds another file of a wanted name.
    """
    home = Path(os.path.realpath(folder))
    goal = None
    if action == "move":
        if to is None:
            raise BenchError("--apply move needs a folder to move to: dedupe FOLDER --apply move DIR")
        goal = Path(os.path.realpath(to))
        if goal == home or home in goal.parents:
            raise BenchError(
                f"{printable(to)} lies in {printable(folder)}, where the next search would find what was moved; "
                "choose a folder beside it"
            )
        if goal in home.parents:
            raise BenchError(
                f"{printable(folder)} lies in {printable(to)}, so that a file could be moved onto one of the folder; "
                "choose a folder beside it"
            )
        if goal.exists() and not goal.is_dir():
            raise BenchError(f"{printable(to)} is a file; --apply move needs a folder")
    steps: list[ApplyStep] = []
    left: list[tuple[str, str]] = []
    freed = 0
    for group in groups:
        kept_of: dict[str, Path] = {}
        for place, row in enumerate(group):
            path = home / paths[row]
            digest = images.digest(row)
            if place == 0 or (action == "hardlink" and digest not in kept_of):
                kept_of.setdefault(digest, path)
                if place:
                    left.append((str(path), "not byte for byte equal to a better one; --apply move takes it"))
                continue
            try:
                status = path.lstat()
            except OSError as error:
                left.append((str(path), f"it cannot be looked at any more: {error.strerror}"))
                continue
            if os.path.realpath(path) != str(path) or not stat.S_ISREG(status.st_mode):
                left.append((str(path), "a link, or reached through one"))
                continue
            if status.st_nlink > 1:
                left.append((str(path), "it has further names (hard links), which nothing would bring back"))
                continue
            keep = kept_of[digest] if action == "hardlink" else home / paths[group[0]]
            if action == "move" and digest not in kept_of and has_frames(images.read(row)):
                left.append((str(path), "an animation or several pages, of which only the first was compared"))
                continue
            if action == "hardlink" and (not keep.exists() or keep.stat().st_dev != status.st_dev):
                left.append((str(path), "the one to keep is gone, or on another file system"))
                continue
            target = "" if goal is None else str(goal / paths[row])
            if target and os.path.lexists(target):
                if not _same_content(Path(target), path):
                    raise BenchError(f"{printable(target)} exists already and is another file; choose an empty folder")
                left.append((str(path), f"an equal file is there already: {printable(target)}"))
                continue
            steps.append(
                ApplyStep(str(path), str(keep), target, digest, stat.S_IMODE(status.st_mode), status.st_mtime_ns)
            )
            freed += status.st_size
    return ApplyPlan(action, str(home), "" if goal is None else str(goal), tuple(steps), tuple(left), freed)


def write_journal(plan: ApplyPlan, file: Path) -> None:
    """Write all steps, whole and on the disk, before the first is made. Raises BenchError; also if the file exists."""
    if os.path.lexists(file):
        raise BenchError(f"{printable(file)} exists already; choose another place with --undo-file")
    head = {"format": FORMAT, "action": plan.action, "folder": plan.folder, "to": plan.to}
    head["to_was_there"] = "yes" if plan.to and os.path.isdir(plan.to) else "no"
    lines = [json.dumps(head), *(json.dumps(asdict(step)) for step in plan.steps)]  # ASCII: names of any bytes
    write_whole(file, ("\n".join(lines) + "\n").encode(), option="--undo-file")
    with contextlib.suppress(OSError), file.open("rb") as written:  # some file systems cannot
        os.fsync(written.fileno())


def apply(plan: ApplyPlan, progress: Callable[[int, int], None]) -> Outcome:
    """Make the steps. One that fails is told and the others go on; a file that has changed meanwhile is left alone."""
    make = _hardlink if plan.action == "hardlink" else _move
    return _each(plan.steps, make, progress)


def undo(file: Path, progress: Callable[[int, int], None]) -> Outcome:
    """Bring back what a journal's steps have changed. May be interrupted, and called again. Raises BenchError."""
    head, steps = _read_journal(file)
    take_back = _unlink_hard if head["action"] == "hardlink" else _move_back
    outcome = _each(steps, take_back, progress)
    if head["action"] == "move":
        for step in steps:
            _remove_empty(Path(step.target).parent, Path(head["to"]), head.get("to_was_there") == "yes")
    return outcome


def _each(
    steps: Sequence[ApplyStep], make: Callable[[ApplyStep], None], progress: Callable[[int, int], None]
) -> Outcome:
    failed = []
    for number, step in enumerate(steps, 1):
        progress(number - 1, len(steps))
        try:
            make(step)
        except _NotNow as why:
            failed.append((step.path, str(why)))
        except OSError as error:
            failed.append((step.path, error.strerror or str(error)))
    progress(len(steps), len(steps))
    return Outcome(len(steps) - len(failed), tuple(failed))


class _NotNow(Exception):
    """A step that would lose something, in one clause."""


def _hardlink(step: ApplyStep) -> None:
    path, keep = Path(step.path), Path(step.keep)
    if os.path.samefile(path, keep):
        return
    if not filecmp.cmp(path, keep, shallow=False):
        raise _NotNow("it has changed since it was compared")
    beside = _beside(path)
    os.link(keep, beside)
    try:
        os.replace(beside, path)
    finally:
        with contextlib.suppress(OSError):
            beside.unlink()  # where the replacing was interrupted


def _unlink_hard(step: ApplyStep) -> None:
    path = Path(step.path)
    if not os.path.lexists(path):
        raise _NotNow("it is not there any more")
    if path.lstat().st_nlink == 1:
        return  # a file of its own: never linked, or taken apart already
    beside = _beside(path)
    try:
        shutil.copyfile(path, beside)
        if _digest(beside) != step.sha256:
            raise _NotNow("it was edited after it was linked, under one of its names; what it was is kept nowhere")
        os.chmod(beside, step.mode)
        os.utime(beside, ns=(step.mtime_ns, step.mtime_ns))
        os.replace(beside, path)
    finally:
        with contextlib.suppress(OSError):
            beside.unlink()


def _move(step: ApplyStep) -> None:
    path, target, keep = Path(step.path), Path(step.target), Path(step.keep)
    if not keep.is_file():
        raise _NotNow("the one to keep is not there any more")
    if not os.path.lexists(path) and os.path.lexists(target):
        return
    if os.path.lexists(target):
        raise _NotNow(f"{printable(target)} exists by now")
    if _digest(path) != step.sha256:
        raise _NotNow("it has changed since it was compared")
    _carry(path, target)


def _move_back(step: ApplyStep) -> None:
    path, target = Path(step.path), Path(step.target)
    if os.path.lexists(target):
        _carry(target, path)
    elif not os.path.lexists(path):
        raise _NotNow(f"neither it nor {printable(step.target)} is there")


def _carry(source: Path, target: Path) -> None:
    """Move one file, never onto another, to another file system too: copied beside its target and compared first."""
    target.parent.mkdir(parents=True, exist_ok=True)
    if os.path.lexists(target):
        if not _same_content(source, target):
            raise _NotNow(f"{printable(target)} exists and is another file")
        if not os.path.samefile(source, target):
            source.unlink()  # was interrupted between copying and removing
        return
    try:
        os.rename(source, target)
        return
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
    beside = _beside(target)
    try:
        shutil.copy2(source, beside)
        with beside.open("rb+") as written:
            os.fsync(written.fileno())
        if not filecmp.cmp(source, beside, shallow=False):
            raise _NotNow("its copy differs")
        os.rename(beside, target)
        sync_folder(target.parent)
        source.unlink()
    finally:
        with contextlib.suppress(OSError):
            beside.unlink()


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _beside(path: Path) -> Path:
    """A name beside it for what is not whole yet; what an earlier run has left there goes."""
    beside = path.with_name(f".{path.name[:50]}{UNFINISHED}")
    with contextlib.suppress(FileNotFoundError):
        beside.unlink()
    return beside


def _same_content(first: Path, second: Path) -> bool:
    return first.is_file() and second.is_file() and filecmp.cmp(first, second, shallow=False)


def _remove_empty(folder: Path, top: Path, top_stays: bool) -> None:
    """Remove folders that are empty again, from this one up to `top`."""
    while top in folder.parents or (folder == top and not top_stays):
        try:
            folder.rmdir()
        except OSError:  # not empty, or gone
            return
        folder = folder.parent


def _read_journal(file: Path) -> tuple[dict[str, Any], list[ApplyStep]]:
    try:
        head, *rest = [json.loads(line) for line in file.read_text("utf-8").splitlines()]
        if head["format"] != FORMAT or head["action"] not in ("hardlink", "move"):
            raise ValueError("another format")
        return head, [ApplyStep(**one) for one in rest]
    except OSError as error:
        raise BenchError(f"--undo {printable(file)}: cannot be read ({error.strerror})") from None
    except (ValueError, KeyError, TypeError):
        raise BenchError(f"--undo {printable(file)}: this is no journal that `dedupe --apply` has written") from None
