"""Importing a plug-in: tried first in a process of its own, since the code of others can end the one it runs in.

`os._exit` and a library that crashes leave nothing to catch. So the first import of each state of a plug-in's source is
made by a child process; one that has lived through it is remembered in the cache, and not tried again.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import sys
import types
from collections.abc import Mapping
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

from retrieval_bench.core import BenchError
from retrieval_bench.system.cache import cache_root
from retrieval_bench.system.child_process import end, own_streams, started, why_it_ended, works_for_another
from retrieval_bench.system.python_sources import sources_of, sources_sha256

_ALIVE = b"alive"


def refuse_deadly(what: str, sources: Mapping[Path, bytes]) -> None:
    """Raise BenchError where importing a plug-in ends the process. Whatever it raises is for the import itself to tell.

    Args:
        what: the path of a file, or the name of a module.
        sources: its files, read.
    """
    if works_for_another():
        return  # who started this process has tried it, and lives on without this one
    state = f"{os.path.basename(what)}\n{sys.version}\n{sources_sha256(sources)}"
    known = cache_root() / "plugins" / hashlib.sha256(os.fsencode(state)).hexdigest()
    if os.path.exists(known):  # False where nobody may look
        return
    process = started(f"from {__name__} import try_import; try_import()", [what], ())
    try:
        alive = process.stdout.read(len(_ALIVE)) == _ALIVE  # type: ignore[union-attr]
        if not alive:
            raise BenchError(f"a process that tried to import it {why_it_ended(process.wait())}")
    finally:
        end(process)  # and what the plug-in has started in it
    with contextlib.suppress(OSError):  # without a cache it is tried each time
        known.parent.mkdir(parents=True, exist_ok=True)
        known.touch()


def try_import() -> None:
    """Import the plug-in that the arguments name, and say if that can be survived: all that the child process does."""
    _, answers = own_streams()
    nothing = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nothing, 1)  # what it prints is printed once, by the process that asked
    os.dup2(nothing, 2)
    (what,) = sys.argv[1:]
    with contextlib.suppress(BaseException):
        if os.path.isabs(what):
            run_file(Path(what), sources_of(what, Path(what)))
        else:
            import_module(what)
    answers.write(_ALIVE)
    answers.flush()
    os._exit(0)


def run_file(file: Path, sources: Mapping[Path, bytes]) -> Mapping[Path, bytes]:
    """Run the file as a module of its own; modules beside it can be imported, now and later.

    Args:
        file: its absolute path.
        sources: the file and what it imports beside it, read.

    Returns:
        The sources.

    Raises:
        BenchError: A module beside it has the name of another one; besides whatever the file raises.
    """
    folder = file.parent.resolve()
    beside = {path.resolve().relative_to(folder).parts[0].removesuffix(".py") for path in sources if path != file}
    for name in [name for name in sys.modules if name.partition(".")[0] in beside]:
        there = getattr(sys.modules[name], "__file__", None)
        if there is None or not Path(there).resolve().is_relative_to(folder):
            raise BenchError(f"{name} beside it has the name of a module that is loaded already; rename it")
        del sys.modules[name]  # of before it changed
    name = f"_plugin_{hashlib.sha256(os.fsencode(file)).hexdigest()[:16]}"
    module = types.ModuleType(name)
    module.__file__ = str(file)
    sys.modules[name] = module  # where dataclasses look annotations up
    home = str(folder)
    sys.path.insert(0, home)
    try:
        exec(compile(sources[file], str(file), "exec", dont_inherit=True), vars(module))
    finally:
        sys.path.remove(home)
        if home not in sys.path:
            sys.path.append(home)  # for imports inside functions, behind everything that is installed
    return sources


def sources_of_module(name: str) -> Mapping[Path, bytes]:
    """All files of an installed package, or a module and what it imports beside it; nothing of it is imported."""
    try:
        top = find_spec(name.partition(".")[0])
    except ValueError:  # it is there already, and nobody knows from where
        return {}
    if top is None:
        return {}
    if top.submodule_search_locations:
        places = map(Path, top.submodule_search_locations)
        return {file: file.read_bytes() for folder in places for file in sorted(folder.rglob("*.py"))}
    return sources_of(name, Path(top.origin)) if top.origin and top.origin.endswith(".py") else {}
