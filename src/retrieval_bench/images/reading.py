"""Images as they are kept: in files, or as bytes in memory; decoded when they are asked for."""

from __future__ import annotations

import hashlib
import io
import os
import stat
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image

from retrieval_bench.core import BadImage, Dataset, Images, printable
from retrieval_bench.images.decoding import Decoded, Decoding, decode, decoded
from retrieval_bench.images.fence import Fence, outside_is_allowed
from retrieval_bench.images.formats import HEAD, format_of, misnamed

MAX_BYTES = 256 * 2**20
OUTSIDE = "outside the data root"
_PIECE = 2**20


class ImageFiles:
    """Images in files, read when they are needed. Implements `core.Images`.

    Args:
        paths: the files.
        within: the folder that none of them may lie outside of, not by a link either, unless the user allows it. None:
            they may lie anywhere.
    """

    def __init__(self, paths: Sequence[str | os.PathLike[str]], within: Path | None = None) -> None:
        # As texts, which take a fifth of the memory of paths: there may be a million.
        self._written = [os.fspath(path) for path in paths]
        here = os.getcwd()  # a method may change the working directory
        inside = any(not os.path.isabs(path) for path in self._written)
        self._places = [os.path.join(here, path) for path in self._written] if inside else self._written
        self._fence = None if within is None or outside_is_allowed() else Fence(within)
        self._digests: list[str | None] = [None] * len(self._written)
        self._misnamed: dict[int, str] = {}

    def __len__(self) -> int:
        return len(self._written)

    def __getitem__(self, row: int) -> np.ndarray:
        return decode(self.read(row))

    @property
    def paths(self) -> list[Path]:
        """The files, as they were named; made anew each time."""
        return [Path(path) for path in self._written]

    def place(self, row: int) -> Path:
        """Where a file lies, from the root of the file system."""
        return Path(self._places[row])

    def read(self, row: int) -> bytes:
        """Read the bytes of a file.

        Args:
            row: which image, from 0.

        Returns:
            The encoded bytes.

        Raises:
            BadImage: The file is missing, no regular file, unreadable, larger than `MAX_BYTES`, or outside the folder
                that it must lie in.
        """
        place = self._places[row]
        try:
            if self._fence is not None and not self._fence.holds(Path(place)):
                raise BadImage(OUTSIDE, "its path or a link leads out of the folder; --allow-outside reads it")
            status = os.stat(place)
            if not stat.S_ISREG(status.st_mode):  # reading a pipe would wait for ever
                kind = "a directory" if stat.S_ISDIR(status.st_mode) else "a pipe, socket or device"
                raise BadImage("not a file", f"{kind} has this name")
            if status.st_size > MAX_BYTES:
                raise BadImage("too many bytes", f"{status.st_size:,} bytes; at most {MAX_BYTES:,} are read")
            return _content(place, status.st_size)
        except FileNotFoundError:
            if os.path.islink(place):
                raise BadImage("dangling link", f"it points to {printable(os.readlink(place))}") from None
            raise BadImage("missing file", "no file has this name") from None
        except OSError as error:
            raise BadImage("unreadable", f"{error.strerror or error}") from None

    def digest(self, row: int) -> str:
        """Hash the bytes of a file.

        Args:
            row: which image, from 0.

        Returns:
            sha256 (hex) of the bytes; for an unreadable file of the reason, so that fingerprints stay defined.
        """
        digest = self._digests[row]
        if digest is None:
            try:
                content = self.read(row)
                if misnamed(os.path.splitext(self._written[row])[1].lower(), content[:HEAD]):
                    self._misnamed[row] = format_of(content[:HEAD])
            except BadImage as bad:
                content = f"unreadable: {bad.reason}: {bad.detail}".encode()
            digest = self._digests[row] = hashlib.sha256(content).hexdigest()
        return digest

    def take(self, rows: Sequence[int]) -> ImageFiles:
        """Select images, in this order."""
        taken = ImageFiles([self._places[row] for row in rows])
        taken._written = [self._written[row] for row in rows]
        taken._fence = self._fence
        taken._digests = [self._digests[row] for row in rows]
        taken._misnamed = {new: self._misnamed[old] for new, old in enumerate(rows) if old in self._misnamed}
        return taken

    @property
    def misnamed(self) -> dict[Path, str]:
        """Files of which the suffix promises another format -> the format that they have; of those with a digest."""
        return {Path(self._written[row]): kind for row, kind in sorted(self._misnamed.items())}


def _content(place: str, size: int) -> bytes:
    """The bytes of a file of about this size, in as few calls as can be: threads wait for each other at each."""
    file = os.open(place, os.O_RDONLY | getattr(os, "O_BINARY", 0))
    try:
        content = os.read(file, size + 1)
        while len(content) != size and (more := os.read(file, _PIECE)):  # it grew or shrank since it was looked at
            content += more
        return content
    finally:
        os.close(file)


class ImageBytes:
    """Encoded images in memory. Implements `core.Images`.

    Args:
        encoded: the bytes of each image.
        digests: what identifies each image for the cache and the fingerprint. None: sha256 (hex) of the bytes. Pass
            digests of the pixels if the bytes of a lossless encoding may differ between library versions.
    """

    def __init__(self, encoded: Sequence[bytes], digests: Sequence[str] | None = None) -> None:
        self.encoded = list(encoded)
        self.digests = list(digests) if digests is not None else [hashlib.sha256(e).hexdigest() for e in self.encoded]

    def __len__(self) -> int:
        return len(self.encoded)

    def __getitem__(self, row: int) -> np.ndarray:
        return decode(self.encoded[row])

    def read(self, row: int) -> bytes:
        """Return the encoded bytes of one image."""
        return self.encoded[row]

    def digest(self, row: int) -> str:
        """Return the digest of one image."""
        return self.digests[row]

    def take(self, rows: Sequence[int]) -> ImageBytes:
        """Select images, in this order."""
        return ImageBytes([self.encoded[row] for row in rows], [self.digests[row] for row in rows])


class DecodedBy:
    """The same images, decoded in a certain way. Implements `core.Images`.

    Args:
        images: where the bytes come from.
        how: the largest size, and whether details that nobody wants may be left out.
    """

    def __init__(self, images: Images, how: Decoding) -> None:
        self.images, self.how = images, how

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, row: int) -> np.ndarray:
        return self.decoded(row).pixels

    def decoded(self, row: int) -> Decoded:
        """Decode one image, and tell what was done to it."""
        return decoded(self.images.read(row), self.how)

    def read(self, row: int) -> bytes:
        """Return the encoded bytes of one image."""
        return self.images.read(row)

    def digest(self, row: int) -> str:
        """Return the digest of one image."""
        return self.images.digest(row)

    def take(self, rows: Sequence[int]) -> DecodedBy:
        """Select images, in this order."""
        return DecodedBy(self.images.take(rows), self.how)


def decoded_by(dataset: Dataset, how: Decoding) -> Dataset:
    """The same dataset, its images decoded in a certain way."""
    return dataset.with_splits(
        {name: replace(split, images=DecodedBy(split.images, how)) for name, split in dataset.splits.items()}
    )


def files_of(images: Images) -> ImageFiles | None:
    """The files of these images, whatever wraps them; None where they lie in no files."""
    inner: Images | None = images
    while inner is not None and not isinstance(inner, ImageFiles):
        inner = getattr(inner, "images", None)
    return inner


def paths_of(images: Images) -> list[Path] | None:
    """Where the files of these images lie; None where they lie in no files."""
    files = files_of(images)
    return None if files is None else files.paths


def misnamed_notices(dataset: Dataset) -> list[str]:
    """One sentence where files have the suffix of another format than theirs; of files that have a digest by now."""
    found: dict[Path, str] = {}
    for split in dataset.splits.values():
        files = files_of(split.images)
        found |= {} if files is None else files.misnamed
    if not found:
        return []
    path, kind = next(iter(found.items()))
    if len(found) == 1:
        told = "1 file is of another format than its suffix says, and read as what it is: "
    else:
        told = f"{len(found):,} files are of another format than their suffix says, and read as what they are: such as "
    return [f"{told}{printable(path.name)}, a {kind}"]


def how_of(images: Images) -> Decoding:
    """How these images are decoded."""
    return images.how if isinstance(images, DecodedBy) else Decoding()


def encode_png(pixels: np.ndarray) -> bytes:
    """Encode an image as PNG; `decode` gives the same pixels back.

    Args:
        pixels: (h, w, 3) uint8 RGB.

    Returns:
        The bytes of the PNG file.
    """
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG", compress_level=3)
    return buffer.getvalue()
