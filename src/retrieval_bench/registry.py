"""Registries map names to builders of methods, datasets, metrics, backends, ...

A specification is a name with options, `sift:words=4096`. Options are the keyword parameters of the registered
function; their annotations (int, float, bool, str, Literal) say how the text is read. Where the entry has a fact
`main`, that option may follow the name at once: `verify=100`. Where it has a fact `argument`, that option must
follow it, without its own name: `timm:resnet50:pool=gem`. Options that its fact `colons` names may hold colons in their
value: `folder:splits=val:gallery,test:query`, `module:net.py:make`.
"""

from __future__ import annotations

import difflib
import functools
import inspect
import math
import numbers
import os
import re
import reprlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from importlib import import_module
from typing import Annotated, Any, Literal, Self, get_args, get_origin, get_type_hints

import numpy as np

from retrieval_bench.core import BenchError


@dataclass(frozen=True)
class Range:
    """Which numbers an option may be: `words: Annotated[int, Range(0, 65_536)] = 0` in the signature of a builder.

    It is checked as soon as a name with its options is read, before anything is loaded.

    Args:
        least: the smallest number.
        most: the largest. None: there is no largest.
        above: `least` itself is not allowed.
        below: `most` itself is not allowed.
        or_zero: 0 is allowed besides.
    """

    least: float
    most: float | None = None
    above: bool = False
    below: bool = False
    or_zero: bool = False

    def __contains__(self, value: float) -> bool:
        if self.or_zero and value == 0:
            return True
        if value < self.least or (self.above and value == self.least):
            return False
        return self.most is None or value < self.most or (value == self.most and not self.below)

    def __str__(self) -> str:
        """Behind "it": "must be at least 1", "is not between 1 and 256"."""
        if self.most is not None and not (self.above or self.below):
            return f"is not between {self.least:.12g} and {self.most:.12g}{', and not 0' if self.or_zero else ''}"
        lower = f"{'above' if self.above else 'at least'} {self.least:.12g}"
        upper = "" if self.most is None else f" and {'below' if self.below else 'at most'} {self.most:.12g}"
        return f"must be {lower}{upper}{', or 0' if self.or_zero else ''}"


@dataclass(frozen=True)
class Entry:
    """One registered name: what it builds, and what is said about it.

    Args:
        name: what the user calls it by.
        build: makes it. Its keyword-only parameters are the options; its docstring says under Args what each means.
        about: one line that says what it is.
        family: groups methods (local, hash, ...).
        facts: what the kind of thing adds.
        shares: a function whose docstring says what the options mean that several entries have in common.
    """

    name: str
    build: Callable[..., Any]
    about: str
    family: str = ""
    facts: Mapping[str, Any] = field(default_factory=dict)
    shares: Callable[..., Any] | None = None

    @property
    def options(self) -> dict[str, inspect.Parameter]:
        """Option -> keyword-only parameter of `build`, with annotation and default."""
        parameters = inspect.signature(self.build).parameters.values()
        return {p.name: p for p in parameters if p.kind is p.KEYWORD_ONLY}

    @property
    def hints(self) -> dict[str, Any]:
        """Option -> its type, as annotated, with `Range` where that says which numbers it may be."""
        hints = get_type_hints(self.build, include_extras=True)
        return {name: hints.get(name, str) for name in self.options}

    @property
    def ranges(self) -> dict[str, Range]:
        """Option -> which numbers it may be, of those that say so."""
        found = {name: _range(hint) for name, hint in self.hints.items()}
        return {name: one for name, one in found.items() if one is not None}

    @property
    def meanings(self) -> dict[str, str]:
        """Option -> its meaning, from the docstrings of `build` and `shares`."""
        known = {} if self.shares is None else arguments(self.shares)
        known |= arguments(self.build)
        return {name: known[name] for name in self.options if name in known}


def of_this_package(entry: Entry) -> bool:
    """Whether this package registered an entry, and no plug-in or program of the user.

    Args:
        entry: any entry.

    Returns:
        True where the builder, unwrapped, is defined in this package.
    """
    return (getattr(inspect.unwrap(entry.build), "__module__", None) or "").partition(".")[0] == "retrieval_bench"


def arguments(function: Callable[..., Any]) -> dict[str, str]:
    """Read the `Args:` section of a docstring in Google style.

    Args:
        function: whose docstring is read.

    Returns:
        Parameter -> its description, as one line of text.
    """
    _, _, section = (inspect.getdoc(function) or "").partition("\nArgs:\n")
    section = re.split(r"^\S", section, maxsplit=1, flags=re.M)[0]
    found = re.findall(r"^    (\w+): (.*(?:\n {5,}.*)*)", section, re.M)
    return {name: " ".join(text.split()) for name, text in found}


class Registry:
    """A dictionary of names that a decorator fills: `@EXTRACTORS("sift", about="...", family="local")`.

    `EXTRACTORS["sift"]` is then the `Entry` of that name; an unknown name raises `BenchError` with the closest name.

    Args:
        kind: what the entries are, for error messages: "method", "dataset", ...
        *filled_by: packages or modules, below retrieval_bench, whose imports register the entries.
    """

    def __init__(self, kind: str, *filled_by: str) -> None:
        self.kind = kind
        self.filled_by = filled_by
        self._entries: dict[str, Entry] = {}
        self._provided: dict[str, Entry] = {}
        self._providers: list[Callable[[], Iterable[Entry]]] = []

    def fill(self) -> Self:
        """Import what registers the entries, and the plug-ins, unless that was done before; the registry itself."""
        self.fill_with_own()
        import_module("retrieval_bench.plugins.loading").load_installed()
        return self

    def fill_with_own(self) -> None:
        """Import what registers the entries of this package, unless that was done before."""
        for name in self.filled_by:
            import_module(f"retrieval_bench.{name}")

    def __call__(
        self, name: str, *, about: str, family: str = "", shares: Callable[..., Any] | None = None, **facts: Any
    ) -> Callable[[Callable], Callable]:
        """Register the decorated function under a name.

        Args:
            name: how users call it.
            about: one line that says what it is.
            family: group of methods: "local", "hash", "color", "deep", ...
            shares: a function whose docstring explains options that several entries have in common.
            **facts: more facts, which depend on the kind of the registry.

        Returns:
            A decorator, which puts a check before the function: options of the wrong type are a `BenchError`.

        Raises:
            ValueError: The name is already registered.
        """

        def register(build: Callable) -> Callable:
            if name in self._entries:
                raise ValueError(f"{self.kind} {name!r} is registered twice")
            entry = _with_checked_options(Entry(name, build, about, family, facts, shares))
            self._entries[name] = entry
            return entry.build

        return register

    def more(self, provider: Callable[[], Iterable[Entry]]) -> Callable[[], Iterable[Entry]]:
        """Register a function that yields further entries, for example all networks of a library.

        Args:
            provider: returns the entries. It runs only when a name is not found, or when all are listed.

        Returns:
            The provider, unchanged: this can be used as a decorator.
        """
        self._providers.append(provider)
        return provider

    def _all(self) -> dict[str, Entry]:
        while self._providers:
            self._provided.update({entry.name: _with_checked_options(entry) for entry in self._providers.pop()()})
        return self._provided | self._entries

    def __getitem__(self, name: str) -> Entry:
        """Look up a name.

        Args:
            name: a registered name.

        Returns:
            Its entry.

        Raises:
            BenchError: The name is not registered; the sentence suggests the closest name.
        """
        entry = (self._entries.get(name) or self._all().get(name)) if isinstance(name, str) else None
        if entry is None:
            raise BenchError(unknown_name(self.kind, name, self._all()))
        return entry

    def __contains__(self, name: object) -> bool:
        return name in self._entries or name in self._all()

    def __iter__(self) -> Iterator[Entry]:
        return iter(self._all().values())

    def own(self) -> list[Entry]:
        """List the entries that were registered by decorator, without those of providers."""
        return list(self._entries.values())

    def replace(self, entries: Iterable[Entry]) -> None:
        """Let these, and no others, be the entries that were registered by decorator.

        Args:
            entries: as `own` lists them; what is not among them is forgotten.
        """
        self._entries = {entry.name: entry for entry in entries}


FAILED_PLUGINS: list[str] = []
"""One sentence for each plug-in that failed: a name that is unknown may be one of its."""


def unknown_name(kind: str, name: str, known: Iterable[str]) -> str:
    """Write the error sentence for an unknown name of a registry.

    Args:
        kind: what the name should be, e.g. "method".
        name: the unknown name.
        known: the known names.

    Returns:
        One sentence, which also names the plug-ins that failed.
    """
    sentence = unknown(kind, name, known, hint="`python -m benchmark list` shows them all")
    return "; ".join([sentence.rstrip("?"), *FAILED_PLUGINS]) if FAILED_PLUGINS else sentence


def unknown(kind: str, name: str, known: Iterable[str], hint: str = "") -> str:
    """Write the error sentence for an unknown name, with the closest known name.

    Args:
        kind: what the name should be, e.g. "method".
        name: the unknown name.
        known: the known names.
        hint: said instead of the names if there are more than 20.

    Returns:
        One sentence, for a `BenchError`.
    """
    known = sorted(known)
    folded = {one.casefold(): one for one in known}
    close = difflib.get_close_matches(name.casefold(), folded, n=1, cutoff=0.5) if isinstance(name, str) else []
    sentence = f"unknown {kind} {name!r}"
    if close:
        return f"{sentence}; did you mean {folded[close[0]]!r}?"
    if len(known) <= 20:
        return f"{sentence}; known are {', '.join(known) or 'none'}"
    return f"{sentence}; {hint}" if hint else sentence


@dataclass(frozen=True)
class Spec:
    """A name with the options that were given, parsed and typed. `str(spec)` is the canonical way to write it.

    Args:
        entry: the entry of the name.
        options: option -> value, only those that were given.
    """

    entry: Entry
    options: Mapping[str, Any]

    def __str__(self) -> str:
        main = self.entry.facts.get("main", "")
        name = f"{self.entry.name}={_write(self.options[main])}" if main in self.options else self.entry.name
        argument = self.entry.facts.get("argument", "")
        others = {key: value for key, value in self.options.items() if key not in (main, argument)}
        named = [str(self.options[argument])] if argument in self.options else []
        return ":".join([name, *named, *(f"{key}={_write(value)}" for key, value in others.items())])

    @property
    def resolved(self) -> dict[str, Any]:
        """All options with their values, given or default."""
        return {name: self.options.get(name, parameter.default) for name, parameter in self.entry.options.items()}

    def build(self, *args: Any) -> Any:
        """Call the entry's builder.

        Args:
            *args: the positional arguments of this kind of builder; for an extractor, a `Setup`.

        Returns:
            What the builder returns.
        """
        return self.entry.build(*args, **self.options)

    @property
    def modalities(self) -> tuple[str, ...]:
        """What an extractor reads, of core.MODALITIES, as its entry says; pictures where it says nothing."""
        return tuple(self.entry.facts.get("modalities", ("image",)))

    @property
    def costly(self) -> bool:
        """To build it loads weights or asks a service; its builder has a `check(**options)` that does neither."""
        return hasattr(self.entry.build, "check")

    def check(self, *args: Any) -> None:
        """Raise `BenchError` where the options are wrong, as far as can be said without loading or asking for anything.

        Args:
            *args: as for `build`.
        """
        if self.costly:
            _refuse_wrong_types(self.entry, self.options)
            self.entry.build.check(**self.options)  # type: ignore[attr-defined]
        else:
            self.build(*args)


_BETWEEN = re.compile(r"(?<![:=][A-Za-z]):|:(?![/\\])")
"""The colons between options; that of a drive is none, as in `onnx:C:\\model.onnx` and `vgg16:weights=C:/mine.pth`."""

_WORDS = {
    **dict.fromkeys(("true", "yes", "on", "1"), True),
    **dict.fromkeys(("false", "no", "off", "0"), False),
}

_PASSWORD = re.compile(r"://[^\s/@]*:[^\s@]*@|password\s*=")
"""Where the address of a server holds one."""


def parse(registry: Registry, text: str) -> Spec:
    """Parse a specification, `name[:key=value]...`.

    Args:
        registry: where the name is looked up.
        text: the specification, e.g. "sift:words=4096".

    Returns:
        The specification; its options are typed, and in the order of the builder's signature.

    Raises:
        BenchError: The name or an option is unknown, an option is given twice, or a value is not of its type or out
            of its range.
    """
    name, *pairs = _BETWEEN.split(text.strip())
    name, equals, value = (part.strip() for part in name.partition("="))
    entry = registry[name]
    if entry.facts.get("no_password") and _PASSWORD.search(text):
        raise BenchError(entry.facts["no_password"])  # before any sentence that would repeat what was written
    pairs = _with_colons(pairs, entry.facts.get("colons", ()))
    main = entry.facts.get("main")
    if equals and main is None:
        raise BenchError(f"{registry.kind} {text!r}: {name} takes no value; write {name}:key=value for an option")
    if equals:
        pairs = [f"{main}={value}", *pairs]
    given: dict[str, str] = {}
    argument = entry.facts.get("argument")
    if argument is not None:
        if not pairs or not pairs[0].strip() or pairs[0].partition("=")[0].strip() in entry.options:
            raise BenchError(f"{registry.kind} {text!r}: say which; write {entry.name}:{argument.upper()}")
        given[argument] = pairs.pop(0).strip()
        while argument in entry.facts.get("colons", ()) and pairs and "=" not in pairs[0]:
            given[argument] += f":{pairs.pop(0).strip()}"
    for pair in pairs:
        key, equals, value = (part.strip() for part in pair.partition("="))
        if not equals or not key or not value:
            raise BenchError(f"{registry.kind} {text!r}: {pair!r} is not an option; write {entry.name}:key=value")
        if key in given:
            raise BenchError(f"{registry.kind} {text!r}: option {key!r} is given twice")
        given[key] = value
    allowed = entry.options
    hints = entry.hints
    for key in given:
        if key not in allowed:
            raise BenchError(unknown(f"option of {entry.name}", key, allowed))
    options = {key: _read(entry.name, key, given[key], hints[key]) for key in allowed if key in given}
    return Spec(entry, options)


def _with_colons(pairs: list[str], options: Iterable[str]) -> list[str]:
    """The pairs, where the values of these options may hold colons: what has no equals sign goes on with the last."""
    joined: list[str] = []
    for pair in pairs:
        if joined and "=" not in pair and joined[-1].partition("=")[0].strip() in options:
            joined[-1] = f"{joined[-1]}:{pair}"
        else:
            joined.append(pair)
    return joined


def _range(hint: Any) -> Range | None:
    return next((one for one in getattr(hint, "__metadata__", ()) if isinstance(one, Range)), None)


def _read(owner: str, key: str, text: str, hint: Any) -> Any:
    kind = _kind(hint)
    value = _meant(text, kind)
    wrong = _wrong(value, kind)
    if wrong:
        raise BenchError(f"{owner}: {key}={value!r} {wrong}")
    limits = _range(hint)
    if limits is not None and value not in limits:
        raise BenchError(f"{owner}: {key}={text} {limits}")
    return value


def _kind(hint: Any) -> Any:
    return get_args(hint)[0] if get_origin(hint) is Annotated else hint


def _meant(text: str, kind: Any) -> Any:
    """The value that a text stands for; the text itself where it stands for none of this kind."""
    if get_origin(kind) is Literal:
        return next((value for value in get_args(kind) if str(value) == text), text)
    if kind is bool:
        return _WORDS.get(text.lower(), text)
    if kind in (int, float):
        try:
            number = kind(text)
        except ValueError:
            return text
        return number if _finite(number) else text
    return text


def _wrong(value: Any, kind: Any) -> str:
    """What a value of an option is not, behind "it"; "" where its type is right, or `kind` says nothing of it."""
    truth = isinstance(value, (bool, np.bool_))
    if get_origin(kind) is Literal:
        allowed = get_args(kind)
        known = any(isinstance(value, type(one)) and value == one for one in allowed)
        return "" if known else f"is not one of {', '.join(map(str, allowed))}"
    if kind is bool:
        return "" if truth else "is neither true nor false"
    if kind is str:
        return "" if isinstance(value, (str, os.PathLike)) else "is not text"
    if kind is int and (truth or not isinstance(value, numbers.Integral)):
        return "is not a whole number"
    if kind is float and (truth or not isinstance(value, numbers.Real) or not _finite(value)):
        return "is not a finite number"  # "nan" passes every comparison, and no record can hold it
    return ""


def _finite(number: Any) -> bool:
    try:
        return math.isfinite(number)
    except OverflowError:  # a whole number of more than 308 digits
        return False


def _with_checked_options(entry: Entry) -> Entry:
    """The same entry; options that a program gives to its builder are checked as those in a text are."""

    @functools.wraps(entry.build)
    def build(*args: Any, **options: Any) -> Any:
        if options:
            _refuse_wrong_types(entry, options)
        return entry.build(*args, **options)

    return replace(entry, build=build)


def _refuse_wrong_types(entry: Entry, options: Mapping[str, Any]) -> None:
    """BenchError where an option is unknown, or its value is not of its type. Its range is the builder's to check."""
    parameters, hints = _signature(entry.build)
    for key, value in options.items():
        parameter = parameters.get(key)
        if parameter is None and not any(one.kind is one.VAR_KEYWORD for one in parameters.values()):
            raise BenchError(unknown(f"option of {entry.name}", key, entry.options))
        if parameter is None or parameter.kind is not parameter.KEYWORD_ONLY or value is parameter.default:
            continue
        wrong = _wrong(value, _kind(hints.get(key, Any)))
        if wrong:
            raise BenchError(f"{entry.name}: {key}={' '.join(reprlib.repr(value).split())} {wrong}")


@functools.cache
def _signature(build: Callable[..., Any]) -> tuple[Mapping[str, inspect.Parameter], dict[str, Any]]:
    return inspect.signature(build).parameters, get_type_hints(build, include_extras=True)


def at_least_one(owner: str, **options: int) -> None:
    """Check options that are counts or sizes.

    Args:
        owner: the name of the method, for the error sentence.
        **options: option -> value.

    Raises:
        BenchError: A value is below 1.
    """
    for option, value in options.items():
        if value < 1:
            raise BenchError(f"{owner}: {option}={value} must be at least 1")


def _write(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


EXTRACTORS = Registry("method", "extractors")
DATASETS = Registry("dataset", "datasets")
METRICS = Registry("metric", "evaluation.metrics")
SCORE_RANGE = Range(0, 1)
"""Where every metric has its values, and every classifier its scores. A metric that leaves it is left out of a run; a
record that holds another score is refused."""
CLEANINGS = Registry("cleaning", "images.cleaning")
JOINS = Registry("way to join methods", "methods.fusion")
STEPS = Registry("re-ranking step", "methods.reranking")
CLASSIFIERS = Registry("classifier", "classifiers")
BACKENDS = Registry("backend", "search", "search.ann", "search.stores")
PERTURBATIONS = Registry("perturbation", "images.perturbations")
TEXT_PERTURBATIONS = Registry("perturbation of texts", "texts.perturbations")
ALL = {
    "methods": EXTRACTORS,
    "cleanings": CLEANINGS,
    "joins": JOINS,
    "steps": STEPS,
    "classifiers": CLASSIFIERS,
    "datasets": DATASETS,
    "metrics": METRICS,
    "backends": BACKENDS,
    "perturbations": PERTURBATIONS,
    "text-perturbations": TEXT_PERTURBATIONS,
}
"""Every registry by what its entries are called together, in the order in which `list` shows them."""


def fill() -> None:
    """Fill every registry, so that each name can be looked up."""
    for registry in ALL.values():
        registry.fill()


def backend_on(name: str, device: str) -> Callable[..., Any]:
    """Look up the builder of a search backend.

    Args:
        name: a registered backend, e.g. "exact".
        device: "cpu" or "cuda", for backends that have a device.

    Returns:
        A function (gallery, distance) -> `Searcher`.

    Raises:
        BenchError: No backend has this name.
    """
    entry = BACKENDS[name]
    return functools.partial(entry.build, device=device) if "device" in entry.options else entry.build
