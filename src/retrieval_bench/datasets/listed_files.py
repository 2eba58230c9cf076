"""Files that a list names: where one is missing, why, as far as it can be seen."""

from __future__ import annotations

import hashlib
import os
import unicodedata
from collections.abc import Callable, Sequence
from pathlib import Path

from retrieval_bench.core import BadImage, printable
from retrieval_bench.datasets.remote_files import RemoteFiles, by_url
from retrieval_bench.images.reading import ImageFiles
from retrieval_bench.remote.place import address_of, is_url
from retrieval_bench.remote.trees import Anywhere


class ListedFiles(ImageFiles):
    """As `ImageFiles`; what is missing is told with its cause, and what has a URL is read from there.

    Args:
        folder: the folder of the list.
        written: the paths as the list has them, relative to the folder, or URLs; "" for an item without a picture.
        ids: of the items; that of one without a picture stands for its content. None where each has one.
    """

    def __init__(self, folder: Path, written: Sequence[str], ids: Sequence[str] | None = None) -> None:
        super().__init__([folder / path_here(path) for path in written], within=folder)
        self.folder = folder
        self.written, self.ids = list(written), None if ids is None else list(ids)
        self._names = _Names()
        urls = {row: path for row, path in enumerate(written) if is_url(path) and path_here(path) == path}
        anywhere = Anywhere(printable(folder), frozenset())
        self._at = {row: place for place, row in enumerate(urls)}  # of those with a URL: where they stand in `_remote`
        self._remote = RemoteFiles([by_url(anywhere, url) for url in urls.values()])

    def read(self, row: int) -> bytes:
        """As `ImageFiles.read`; the reason for a missing file names its cause."""
        if not self.written[row]:
            raise BadImage("no picture", "the item has a text alone")
        if row in self._at:
            return self._remote.read(self._at[row])
        try:
            return super().read(row)
        except BadImage as bad:
            if bad.reason not in ("missing file", "unreadable"):
                raise
            cause, detail = self._names.cause(self.folder, self.written[row])
            if not cause:
                raise
            raise BadImage(f"missing file: {cause}", detail) from None

    def digest(self, row: int) -> str:
        """As `ImageFiles.digest`; no two items without a picture have the same."""
        if not self.written[row] and self.ids is not None:
            return hashlib.sha256(f"no picture of {self.ids[row]}".encode(errors="surrogatepass")).hexdigest()
        return self._remote.digest(self._at[row]) if row in self._at else super().digest(row)

    def take(self, rows: Sequence[int]) -> ListedFiles:
        """Select images, in this order."""
        ids = None if self.ids is None else [self.ids[row] for row in rows]
        taken = ListedFiles(self.folder, [self.written[row] for row in rows], ids)
        taken._names, taken._fence = self._names, self._fence
        remote = {new: self._at[old] for new, old in enumerate(rows) if old in self._at}
        taken._at = {new: place for place, new in enumerate(remote)}
        taken._remote = self._remote.take(list(remote.values()))
        taken._digests = [self._digests[row] for row in rows]
        return taken


def path_here(path: str) -> str:
    """The path of a file of this machine that is written as a URL; what is no such URL as it is."""
    return address_of(path).url if path.lower().startswith("file:/") else path


class _Names:
    """What folders hold, each listed once: by each way in which two names may be nearly the same."""

    def __init__(self) -> None:
        self._held: dict[tuple[str, str], dict[str, str]] = {}

    def cause(self, folder: Path, written: str) -> tuple[str, str]:
        """(why this path leads nowhere, one sentence); "" where it cannot be seen."""
        if "\\" in written and os.sep != "\\":
            slashes = written.replace("\\", "/")
            found = "a file of that name is there" if os.path.exists(folder / slashes) else "write slashes"
            return "the path has backslashes", f"folders are divided by a slash here, {slashes}: {found}"
        return self._nearly(folder, written)

    def _nearly(self, folder: Path, written: str) -> tuple[str, str]:
        """What differs where a folder or file has nearly this name."""
        place, causes, details = Path(folder), set(), []
        for part in Path(written).parts:
            if part in ("..", os.sep) or os.path.lexists(place / part):
                place = place / part
                continue
            for cause, same in _NEARLY.items():
                held = self._by(cause, place).get(same(part))
                if held is not None:
                    causes.add(cause)
                    details.append(_forms(part, held) if same is _composed else f"{held!r} is there, not {part!r}")
                    place = place / held
                    break
            else:
                return "", ""
        return (", ".join(sorted(causes)), "; ".join(details)) if causes else ("", "")

    def _by(self, cause: str, folder: Path) -> dict[str, str]:
        """What a name becomes where this difference does not count -> a name in the folder."""
        key = os.fspath(folder), cause
        if key not in self._held:
            try:
                names = sorted(os.listdir(folder))
            except OSError:
                names = []
            self._held[key] = {_NEARLY[cause](name): name for name in reversed(names)}
        return self._held[key]


def _composed(name: str) -> str:
    return unicodedata.normalize("NFC", name)


def _folded(name: str) -> str:
    return _composed(name).casefold()


def _without_spaces(name: str) -> str:
    return "".join(_folded(name).split())


_NEARLY: dict[str, Callable[[str], str]] = {
    "its name differs in the Unicode form": _composed,
    "its name differs in upper and lower case": _folded,
    "its name differs in spaces": _without_spaces,
}
"""How a name may differ -> what is the same of two names that differ in this alone."""


def _forms(listed: str, held: str) -> str:
    def form(name: str) -> str:
        return next((form for form in ("NFC", "NFD") if unicodedata.is_normalized(form, name)), "mixed")

    return f"{held!r} is {form(listed)} in the list and {form(held)} on disk; they look the same and are not"
