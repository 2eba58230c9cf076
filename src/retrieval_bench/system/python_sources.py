"""A Python file of the user and what it imports beside it: read, not run, so that a change of any of it is seen."""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path

from retrieval_bench.core import BenchError, printable


def sources_of(called: str, file: Path) -> dict[Path, bytes]:
    """The file and, beside it, what it imports: their contents, since all of that decides what it does.

    called: what the user calls it, for the sentence of the BenchError where a file cannot be read or is no Python.
    """
    found: dict[Path, bytes] = {}
    waiting = [file]
    while waiting:
        one = waiting.pop()
        if one in found:
            continue
        try:
            found[one] = one.read_bytes()
            tree = ast.parse(found[one])
        except OSError as error:
            raise BenchError(f"{called}: {printable(one.name)} cannot be read: {error.strerror}") from None
        except (SyntaxError, ValueError) as error:
            where = f", line {error.lineno}" if isinstance(error, SyntaxError) and error.lineno else ""
            raise BenchError(f"{called}: {printable(one.name)}{where} is no Python ({short(error)})") from None
        for name in _imported(tree):
            waiting += [each for each in (file.parent / f"{name}.py",) if each.is_file()]
            waiting += sorted((file.parent / name).rglob("*.py"))
    return found


def _imported(tree: ast.AST) -> Iterator[str]:
    """The first word of each module that is imported."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module.partition(".")[0]


def sources_sha256(sources: Mapping[Path, bytes]) -> str:
    """sha256 (hex) over the names and contents of these files."""
    digest = hashlib.sha256()
    for path in sorted(sources):
        digest.update(f"{path.name} {len(sources[path])}\n".encode())
        digest.update(sources[path])
    return digest.hexdigest()


def short(error: BaseException) -> str:
    """What was raised, in one line of 200 characters at most."""
    reason = str(error).strip().partition("\n")[0][:200]
    return f"{type(error).__name__}: {reason}" if reason else type(error).__name__
