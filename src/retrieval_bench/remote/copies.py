"""A whole folder that lies elsewhere, copied once into the cache; for what must be mapped into memory."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import secrets
import shutil
from pathlib import Path, PurePosixPath

from retrieval_bench.core import BadImage, BenchError, printable
from retrieval_bench.remote.trees import lies_elsewhere, tree_of
from retrieval_bench.system.cache import cache_root

COPIES = "copies"


def copied(root: Path) -> Path:
    """The folder on this machine: itself, or a copy of that version of an archive or of a folder of a store.

    A copy is whole or is not there. What was read before an attempt failed lies in the cache, and is not read again.

    Raises:
        BenchError: It cannot be read or written, or holds a name that leads out of it.
    """
    if not lies_elsewhere(root):
        return root
    tree = tree_of(root)
    names = tree.names()
    if not names:
        raise BenchError(f"{printable(root)} holds no file")
    for name in names:
        if ".." in PurePosixPath(name).parts or name.startswith("/") or re.search(r'[\\:*?"<>|\0]', name):
            raise BenchError(f"{printable(root)}: the name {name!r} leads out of its folder; such a file is not copied")
    version = hashlib.sha256(f"{tree.shown}\n{tree.version()}".encode()).hexdigest()[:32]
    whole = cache_root() / "remote" / COPIES / version / (_last(root) or "copy")
    if whole.is_dir():
        return whole
    unfinished = whole.with_name(f".{whole.name}.{secrets.token_hex(4)}")
    try:
        for name in names:
            file = unfinished / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(tree.read(name))
        with contextlib.suppress(FileExistsError):  # another process was quicker
            os.replace(unfinished, whole)
    except BadImage as bad:
        raise BenchError(f"{printable(root)}: {name} cannot be read: {bad.detail}") from None
    except OSError as error:
        if not whole.is_dir():
            raise BenchError(f"{printable(unfinished)} cannot be written: {error.strerror}") from None
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return whole


def _last(root: Path) -> str:
    """The name of a folder or archive, as far as it can be one here."""
    return re.sub(r"[^\w.-]", "", PurePosixPath(root.name).stem).lstrip(".")
