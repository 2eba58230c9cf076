"""Files that a folder of photos holds in real life. Each function writes one into a folder and returns its path."""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image


def picture(seed: int = 0, height: int = 40, width: int = 60) -> np.ndarray:
    """(height, width, 3) uint8: smooth enough to survive JPEG, different in every corner, different for every seed."""
    coarse = np.random.default_rng(seed).integers(0, 256, (3, 4, 3), dtype=np.uint8)
    return np.array(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))


def photo(path: Path, seed: int = 0) -> Path:
    """A good image, in the format that the suffix names."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(picture(seed)).save(path)
    return path


def shop(root: Path, labels: dict[str, int]) -> Path:
    """A folder of good images, all different: `labels` says how many of each."""
    seed = 0
    for label, count in labels.items():
        for _ in range(count):
            photo(root / label / f"{label}_{seed:03}.png", seed)
            seed += 1
    return root


def zero_bytes(folder: Path) -> Path:
    path = folder / "zero.jpg"
    path.touch()
    return path


def html(folder: Path) -> Path:
    path = folder / "html.jpg"
    path.write_text("<!DOCTYPE html><title>404 Not Found</title>")
    return path


def truncated_jpeg(folder: Path) -> Path:
    """Cut where the pixels are: the header is whole, so the size and the upper half can be read."""
    path = folder / "truncated.jpg"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (90, 120, 3), dtype=np.uint8)).save(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    return path


def truncated_header(folder: Path) -> Path:
    path = photo(folder / "header.jpg")
    path.write_bytes(path.read_bytes()[:20])
    return path


def huge_png(folder: Path) -> Path:
    """60,000 x 60,000 pixels by its header, which is nearly all there is."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    path = folder / "huge.png"
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(bytes(100))) + chunk(b"IEND", b""))
    return path


def huge_bmp(folder: Path) -> Path:
    """10,001 x 10,000 pixels by its header: just over our limit, and less than what Pillow itself refuses."""
    path = folder / "huge.bmp"
    header = struct.pack("<IiiHHIIiiII", 40, 10_001, 10_000, 1, 24, 0, 0, 0, 0, 0, 0)
    path.write_bytes(b"BM" + struct.pack("<IHHI", 154, 0, 0, 54) + header + bytes(100))
    return path


def directory(folder: Path) -> Path:
    path = folder / "directory.jpg"
    path.mkdir()
    return path


def dangling_link(folder: Path) -> Path:
    path = folder / "link.jpg"
    path.symlink_to("nowhere.jpg")
    return path


def circular_link(folder: Path) -> Path:
    path = folder / "circle.jpg"
    path.symlink_to(path.name)
    return path


def pipe(folder: Path) -> Path:
    path = folder / "pipe.jpg"
    os.mkfifo(path)
    return path


BAD: dict[Callable[[Path], Path], str] = {
    zero_bytes: "empty file",
    html: "not an image",
    truncated_jpeg: "damaged",
    truncated_header: "damaged",
    huge_png: "too many pixels",
    huge_bmp: "too many pixels",
    directory: "not a file",
    dangling_link: "dangling link",
    circular_link: "unreadable",
    **({pipe: "not a file"} if hasattr(os, "mkfifo") else {}),
}
"""Every bad file that this system can have, with the reason that its BadImage gives."""


def write_all_bad(folder: Path) -> dict[str, str]:
    """All of BAD into one folder: file name -> reason."""
    folder.mkdir(parents=True, exist_ok=True)
    return {write(folder).name: reason for write, reason in BAD.items()}


def not_utf8_name(folder: Path) -> Path:
    """A good image whose name is Latin-1; printed as caf\\xe9.jpg."""
    path = folder / os.fsdecode(b"caf\xe9.jpg")
    path.write_bytes(photo(folder / "plain.jpg").read_bytes())
    (folder / "plain.jpg").unlink()
    return path
