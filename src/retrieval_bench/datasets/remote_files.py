"""Images of a dataset that lies elsewhere, read when they are needed."""

from __future__ import annotations

import hashlib
import posixpath
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from retrieval_bench.core import BadImage, BenchError
from retrieval_bench.images.decoding import decode
from retrieval_bench.images.fence import outside_is_allowed
from retrieval_bench.images.reading import MAX_BYTES, OUTSIDE
from retrieval_bench.remote.limits import limits
from retrieval_bench.remote.place import address_of, is_url
from retrieval_bench.remote.trees import Anywhere, Tree
from retrieval_bench.system.threads import mapped


class RemoteFile(NamedTuple):
    """One image. tree, name: where it lies; tree None: nowhere, and `reason` and `detail` say why.

    content: what stands for the content of one that has none.
    """

    tree: Tree | None
    name: str
    reason: str = ""
    detail: str = ""
    content: str = ""


class RemoteFiles:
    """Images that lie in archives, on web servers and in stores. Implements `core.Images`.

    Args:
        files: where each lies.
    """

    def __init__(self, files: Sequence[RemoteFile]) -> None:
        self.files = list(files)
        self._digests: dict[int, str] = {}

    def with_digests(self) -> RemoteFiles:
        """The same images, each digest known: they are read as many at a time as requests may be open."""
        for _ in mapped(self.digest, range(len(self)), limits().requests):
            pass
        return self

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, row: int) -> np.ndarray:
        return decode(self.read(row))

    def read(self, row: int) -> bytes:
        """Read the bytes of a file.

        Args:
            row: which image, from 0.

        Returns:
            The encoded bytes.

        Raises:
            BadImage: The file is missing, damaged, refused, or larger than is allowed.
            BenchError: Nobody answers: another run may find the file, so that it is no bad image.
        """
        file = self.files[row]
        if file.tree is None:
            raise BadImage(file.reason, file.detail)
        content = file.tree.read(file.name)
        if len(content) > MAX_BYTES:
            raise BadImage("too many bytes", f"{len(content):,} bytes; at most {MAX_BYTES:,} are read")
        return content

    def digest(self, row: int) -> str:
        """Hash the bytes of a file.

        Args:
            row: which image, from 0.

        Returns:
            sha256 (hex) of the bytes; for an unreadable file of the reason, so that fingerprints stay defined.
        """
        if row not in self._digests:
            file = self.files[row]
            try:
                if file.tree is None:
                    raise BadImage(file.reason, file.detail)
                self._digests[row] = file.tree.digest(file.name)
            except BadImage as bad:
                told = file.content or f"unreadable: {bad.reason}: {bad.detail}"
                self._digests[row] = hashlib.sha256(told.encode(errors="surrogatepass")).hexdigest()
        return self._digests[row]

    def take(self, rows: Sequence[int]) -> RemoteFiles:
        """Select images, in this order."""
        taken = RemoteFiles([self.files[row] for row in rows])
        taken._digests = {new: self._digests[old] for new, old in enumerate(rows) if old in self._digests}
        return taken


def listed_elsewhere(tree: Tree, written: Sequence[str], ids: Sequence[str]) -> RemoteFiles:
    """The images of a list that lies elsewhere.

    Args:
        tree: the folder of the list.
        written: the paths as the list has them: relative to that folder, or whole URLs; "" for an item without a
            picture.
        ids: of the items; that of one without a picture stands for its content.

    Returns:
        The images; one that may not be read is a bad image with the reason.
    """
    anywhere = Anywhere(tree.shown, tree.own)
    return RemoteFiles([_listed(tree, anywhere, *one) for one in zip(written, ids, strict=True)]).with_digests()


def _listed(tree: Tree, anywhere: Anywhere, written: str, item: str) -> RemoteFile:
    if not written:
        content = f"no picture of {item}"
        return RemoteFile(None, "", "no picture", "the item has a text alone", content)
    if is_url(written):
        return by_url(anywhere, written)
    name = posixpath.normpath(written)
    if name.startswith(("../", "/")) and not outside_is_allowed():
        return RemoteFile(None, "", OUTSIDE, "its path leads out of the place of the list")
    return RemoteFile(tree, name)


def by_url(anywhere: Anywhere, url: str) -> RemoteFile:
    """An image by its whole URL."""
    try:
        if not address_of(url).scheme and not outside_is_allowed():
            return RemoteFile(None, "", OUTSIDE, "it names a file of this machine; --allow-outside reads it")
        refused = anywhere.allows(url)
    except BenchError as error:
        return RemoteFile(None, "", "missing file: the path is a URL", str(error))
    if refused:
        told = f"{url} lies on {refused}, which is not allowed; --allow-host {refused} allows it"
        return RemoteFile(None, "", "missing file: the path is a URL", told)
    return RemoteFile(anywhere, url)
