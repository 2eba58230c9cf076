"""Plug-ins: modules outside this package that register names by the same decorators as this package does.

They are installed packages with an entry point in one of GROUPS, and files that the user names by `--plugin` or in
RETRIEVAL_BENCH_PLUGINS. To load one is to import it. One that cannot be imported, registers nothing, or registers what
others would stumble over is kept in `plugins()` with its reason, none of its names stay, and nothing else stops.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import json
import logging
import os
import re
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from importlib import metadata
from pathlib import Path
from typing import Any, get_type_hints

from retrieval_bench.core import BenchError, Dataset, printable
from retrieval_bench.plugins.importing import refuse_deadly, run_file, sources_of_module
from retrieval_bench.registry import ALL, FAILED_PLUGINS, Entry
from retrieval_bench.system.python_sources import short, sources_of, sources_sha256

log = logging.getLogger("retrieval_bench")

GROUPS = tuple(
    f"retrieval_bench.{name}" for name in ("extractors", "datasets", "metrics", "backends", "steps", "classifiers")
)
"""Groups of entry points. All are loaded together; which one names a module decides nothing."""
VARIABLE = "RETRIEVAL_BENCH_PLUGINS"
"""Environment variable with more files, separated as in PATH."""
FACTS_OF_A_METRIC = {
    *("definition", "denominator", "ties", "empty", "ceiling", "short", "at_k", "per_query", "whole_ranking"),
    *("higher_is_better", "has_ceiling"),
}


@dataclass(frozen=True)
class Plugin:
    """One plug-in, loaded or not.

    Args:
        name: name of the entry point, or of the file.
        source: the installed package with its version, or the path of the file.
        registered: (what, name) of all that it registers; what: a key of `registry.ALL`.
        reason: why it failed, in one line; "" where it is loaded.
        sha256: of its source and of what it imports beside it; "" where that cannot be read.
        file: the file that the user named; None for an installed one.
        sources: the files behind sha256.
    """

    name: str
    source: str
    registered: tuple[tuple[str, str], ...] = ()
    reason: str = ""
    sha256: str = ""
    file: Path | None = None
    sources: frozenset[Path] = field(default=frozenset(), repr=False)

    @property
    def status(self) -> str:
        """Loaded or failed."""
        return "failed" if self.reason else "loaded"

    @property
    def failure(self) -> str:
        """Why it failed, as a clause that names it."""
        return f"plug-in {self.name} failed to import: {self.reason}"

    @property
    def version(self) -> str:
        """What tells it from another of its name: the package with its version, or the first digits of sha256."""
        return self.source if self.file is None else f"sha256 {self.sha256[:12]}"


_known: dict[str, Plugin] = {}
"""By path of the file, or by module."""
_installed_loaded = False


def plugins() -> tuple[Plugin, ...]:
    """Every plug-in that was found, in the order in which they were loaded; failed ones among them."""
    return tuple(_known.values())


def files() -> tuple[str, ...]:
    """The files that are loaded as plug-ins, for another process to load them, too."""
    return tuple(str(plugin.file) for plugin in plugins() if plugin.file is not None and not plugin.reason)


def owner(entry: Entry) -> Plugin | None:
    """The plug-in that registered this; None where this package did."""
    source = _source_of(entry)
    for plugin in plugins():
        mine = any(name == entry.name and _registered(what, name) is entry for what, name in plugin.registered)
        if not plugin.reason and (mine or source in plugin.sources):
            return plugin
    return None


def owners(entries: Iterable[Entry]) -> tuple[Plugin, ...]:
    """The plug-ins behind these entries, each once, in the order in which they were loaded."""
    found = [owner(entry) for entry in entries]
    return tuple(plugin for plugin in plugins() if plugin in found)


def load_installed() -> None:
    """Load the entry points, and the files of RETRIEVAL_BENCH_PLUGINS: once, whoever asks how often."""
    global _installed_loaded
    if _installed_loaded:
        return
    _installed_loaded = True
    for point in _entry_points():
        if point.module not in _known:
            _load_installed(point)
    load_files(filter(None, os.environ.get(VARIABLE, "").split(os.pathsep)))


def load_files(paths: Iterable[str | os.PathLike[str]]) -> tuple[Plugin, ...]:
    """Load files as plug-ins. One that was loaded before is loaded again where it, or a file beside it, has changed."""
    return tuple(_load_file(Path(path).absolute()) for path in paths)


def unload(plugin: Plugin) -> None:
    """Forget a plug-in and all that it registered."""
    for what, name in plugin.registered:
        ALL[what].replace(entry for entry in ALL[what].own() if entry.name != name)
    for key in [key for key, known in _known.items() if known == plugin]:
        del _known[key]
    if plugin.reason and plugin.failure in FAILED_PLUGINS:
        FAILED_PLUGINS.remove(plugin.failure)


def _entry_points() -> list[metadata.EntryPoint]:
    try:
        every = metadata.entry_points()  # once for all groups: to look through the installed packages takes 10 ms
        return [point for group in GROUPS for point in every.select(group=group)]
    except Exception as error:  # one file that no installer wrote, of any package, spoils the whole list
        log.warning("installed plug-ins cannot be looked for: %s", short(error))
        return []


def _load_installed(point: metadata.EntryPoint) -> None:
    package = "an unnamed package" if point.dist is None else f"{point.dist.name} {point.dist.version}"
    plugin = Plugin(point.name, package)
    begun = getattr(getattr(sys.modules.get(point.module), "__spec__", None), "_initializing", False)

    def load() -> Mapping[Path, bytes]:
        sources = sources_of_module(point.module)
        if point.module not in sys.modules:
            refuse_deadly(point.module, sources)
        point.load()
        return sources

    _known[point.module] = _loaded(plugin, load, may_be_empty=begun)


def _load_file(file: Path) -> Plugin:
    plugin = Plugin(file.name, printable(file), file=file)
    key = str(file)
    before = _known.get(key)
    try:
        if not file.is_file():
            raise BenchError("there is no such file")
        sources = sources_of(file.name, file)
    except BenchError as error:
        plugin = replace(plugin, reason=str(error).removeprefix(f"{file.name}: "))
    else:
        plugin = replace(plugin, sha256=sources_sha256(sources), sources=frozenset(sources))
        if before is not None and not before.reason and before.sha256 == plugin.sha256:
            return before
    if before is not None:
        unload(before)

    def load() -> Mapping[Path, bytes]:
        refuse_deadly(str(file), sources)
        return run_file(file, sources)

    _known[key] = plugin if plugin.reason else _loaded(plugin, load)
    if plugin.reason:
        FAILED_PLUGINS.append(plugin.failure)
    return _known[key]


def _loaded(plugin: Plugin, load: Callable[[], Mapping[Path, bytes]], may_be_empty: bool = False) -> Plugin:
    """The plug-in after it was loaded: with what it registered, or with the reason why none of that stays."""
    for registry in ALL.values():
        registry.fill_with_own()  # so that a name that is taken is the plug-in's failure, never the package's
    before = {what: registry.own() for what, registry in ALL.items()}
    try:
        with contextlib.redirect_stdout(sys.stderr):  # stdout is for results, which may be JSON
            sources = load()
        registered = []
        for what, registry in ALL.items():
            known = {entry.name for entry in before[what]}
            new = [entry for entry in registry.own() if entry.name not in known]
            for entry in new:
                _refuse_unusable(what, entry)
            registered += [(what, entry.name) for entry in new]
            if what == "datasets":
                registry.replace(_guarded(entry) if entry in new else entry for entry in registry.own())
        found = frozenset(path.resolve() for path in sources)
        registered = registered or [
            (what, entry.name)
            for what, registry in ALL.items()
            for entry in registry.own()
            if _source_of(entry) in found  # imported by the user before
        ]
        if not registered and not may_be_empty:
            raise BenchError("it registers nothing; put a decorator on a function, as in docs/extending.md")
    except (Exception, SystemExit) as error:  # whatever the code of others raises
        for what, registry in ALL.items():
            registry.replace(before[what])
        plugin = replace(plugin, reason=str(error) if isinstance(error, BenchError) else short(error))
        FAILED_PLUGINS.append(plugin.failure)
        return plugin
    return replace(plugin, registered=tuple(registered), sha256=sources_sha256(sources), sources=found)


def _refuse_unusable(what: str, entry: Entry) -> None:
    """BenchError, or whatever reading it raises, where an entry would stop `list` or the parsing of its options."""
    named = f"{ALL[what].kind} {entry.name!r}"
    if not re.fullmatch(r"[\w.-]+", entry.name):
        raise BenchError(f"{named} needs a name of letters, digits, hyphens and underscores: others mean something")
    if not inspect.isfunction(inspect.unwrap(entry.build)):
        raise BenchError(f"{named} is no function; put the decorator on a function that builds it")
    if not isinstance(entry.about, str) or not entry.about.strip() or "\n" in entry.about:
        raise BenchError(f"{named} needs about=..., one line that says what it is")
    get_type_hints(entry.build)
    json.dumps([dict(entry.facts), [option.default for option in entry.options.values()]])
    meanings = entry.meanings
    for option in entry.options:
        if option not in meanings:
            raise BenchError(f"{named}: say what its option {option} means, under Args: in its docstring")
    if what == "metrics" and set(entry.facts) != FACTS_OF_A_METRIC:
        raise BenchError(f"{named}: register it by the decorator evaluation.metrics.metric, which asks for all facts")


def _guarded(entry: Entry) -> Entry:
    """The same dataset; what its loader raises is a sentence that names the plug-in's dataset."""
    build = entry.build

    @functools.wraps(build)
    def guarded(*args: Any, **options: Any) -> Any:
        try:
            made = build(*args, **options)
        except BenchError:
            raise
        except Exception as error:  # whatever the code of others raises
            raise BenchError(f"dataset {entry.name}, which is of a plug-in, failed: {short(error)}") from error
        if not isinstance(made, Dataset):
            kind = type(made).__name__
            raise BenchError(f"dataset {entry.name}, which is of a plug-in, failed: it returned {kind} and no Dataset")
        return made

    return replace(entry, build=guarded)


def _source_of(entry: Entry) -> Path | None:
    """The file in which the entry's function stands."""
    code = getattr(inspect.unwrap(entry.build), "__code__", None)
    return None if code is None else Path(code.co_filename).resolve()


def _registered(what: str, name: str) -> Entry | None:
    return next((entry for entry in ALL[what].own() if entry.name == name), None)
