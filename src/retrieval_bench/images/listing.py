"""The images below a folder, and a count by kind of every file that is passed over. All commands list by this."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from retrieval_bench.core import BenchError, printable
from retrieval_bench.images.formats import HEAD, OPTIONAL, SUFFIXES, format_of, optional_suffix, readable


class PassedOver:
    """Counts of what a listing left out. ignored: kind -> files. unreadable: image format -> files without a codec."""

    def __init__(self) -> None:
        self.ignored: Counter[str] = Counter()
        self.unreadable: Counter[str] = Counter()

    def notices(self) -> list[str]:
        """At most two sentences; none where nothing was passed over."""
        said = []
        if self.unreadable:
            kinds = ", ".join(
                f"{count} {name} (needs {OPTIONAL[name].needs})" for name, count in sorted(self.unreadable.items())
            )
            count = self.unreadable.total()
            what = "1 image is" if count == 1 else f"{count} images are"
            said.append(f"{what} of a format that cannot be read here: {kinds}")
        if self.ignored:
            kinds = ", ".join(f"{count} {kind}" for kind, count in sorted(self.ignored.items()))
            count = self.ignored.total()
            said.append(f"{'1 file is' if count == 1 else f'{count} files are'} ignored: {kinds}")
        return said


def image_files(directory: Path, passed_over: PassedOver, above: tuple[str, ...] = ()) -> Iterator[Path]:
    """Everything below a folder that is an image by its suffix or, where that says nothing, by its first bytes.

    A file without a suffix is looked into, and so is one whose suffix names a format without a codec here: phones write
    JPEG under `.heic`, too. Hidden files and those of other suffixes are counted in `passed_over`. A name with an
    image's suffix that is no regular file (a dangling link, a pipe, an empty folder) is yielded: reading it says why it
    is no image. Links to folders are followed, but never to one that this one lies in.

    Args:
        directory: the folder.
        passed_over: where to count.
        above: real paths of folders that must not be entered again.

    Yields:
        Paths, in order of the parts of their names.

    Raises:
        BenchError: A folder cannot be listed.
    """
    above = (*above, os.path.realpath(directory))
    for name in names_in(directory):
        path = directory / name
        suffix = path.suffix.lower()
        if name.startswith("."):
            passed_over.ignored["hidden"] += 1
        elif os.path.isdir(path):
            if suffix in SUFFIXES and not names_in(path):
                yield path
            elif os.path.realpath(path) in above:  # a link to a folder above would go round for ever
                passed_over.ignored["link to a folder that it lies in"] += 1
            else:
                yield from image_files(path, passed_over, above)
        elif suffix in SUFFIXES:
            yield path
        elif kind := optional_suffix(suffix):
            found = kind if readable(kind) else _format_in(path) or kind
            if readable(found):
                yield path
            else:
                passed_over.unreadable[found] += 1
        elif suffix:
            passed_over.ignored[printable(suffix)] += 1
        elif found := _format_in(path):
            if readable(found):
                yield path
            else:
                passed_over.unreadable[found] += 1
        else:
            passed_over.ignored["without a suffix"] += 1


def is_image_by_name(name: str, passed_over: PassedOver) -> bool:
    """Whether a file that cannot be looked into is an image by its suffix. What is none is counted in `passed_over`."""
    suffix = os.path.splitext(name)[1].lower()
    kind = optional_suffix(suffix)
    if suffix in SUFFIXES or (kind and readable(kind)):
        return True
    if kind:
        passed_over.unreadable[kind] += 1
    else:
        passed_over.ignored[printable(suffix) if suffix else "without a suffix"] += 1
    return False


def names_in(directory: Path) -> list[str]:
    """What a folder holds, sorted. Raises BenchError where it cannot be listed."""
    try:
        return sorted(os.listdir(directory))
    except OSError as error:
        raise BenchError(f"{printable(directory)} cannot be listed: {error.strerror}") from None


def _format_in(path: Path) -> str:
    """The image format of a regular file by its first bytes; "" for none, and for what cannot be read."""
    if not os.path.isfile(path):
        return ""
    try:
        with path.open("rb") as file:
            return format_of(file.read(HEAD))
    except OSError:
        return ""
