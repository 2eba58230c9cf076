"""What the command line calls a method: `sift`, `sift@trim`, `sift+color+rrf`, `sift:words=128+verify=100+qe=10`.

Extractors come first, each with what cleans its pictures; two and more of them are joined. Then, where it is not the
default, how they are joined; then what re-ranks the result, in the order in which it is done. At the end may stand what
is compared with what, as in `minilm+color[text-to-image+text]`: see `modalities`; and the backend that searches, where
it is not the one of the run: `sift+color on faiss:hnsw:ef=64`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from retrieval_bench.core import BenchError, Sides
from retrieval_bench.methods.modalities import natural_sides, refuse_wrong_sides, split_suffix, without_suffix
from retrieval_bench.registry import BACKENDS, CLEANINGS, EXTRACTORS, JOINS, STEPS, Entry, Spec, parse, unknown_name

DEFAULT_JOIN = "scores"

ON = " on "
"""Between a method and what searches."""

_CLEANED = re.compile(r"@(?=\s*[A-Za-z]\w*\s*(?:[:=@]|$))")
"""What stands before a cleaning; that of a file is none, as in `onnx:me@home/model.onnx`."""


_NAME = re.compile(r"[A-Za-z][\w-]*")
"""What the name of a method, a join or a step looks like; to look up another one is not worth loading a library."""


@dataclass(frozen=True)
class CleanedSpec(Spec):
    """An extractor whose pictures are cleaned, of gallery, queries and train alike. cleanings: one after the other."""

    cleanings: tuple[Spec, ...] = ()

    def __str__(self) -> str:
        return "@".join([super().__str__(), *map(str, self.cleanings)])

    @property
    def resolved(self) -> dict[str, Any]:
        """The extractor's options, and under "cleaning" each cleaning with all of its own."""
        return {**super().resolved, "cleaning": [str(Spec(one.entry, one.resolved)) for one in self.cleanings]}

    def build(self, *args: Any) -> Any:
        """Build the extractor, and around it what cleans. BenchError where it looks at no picture."""
        from retrieval_bench.extractors.cleaned import CleanedExtractor

        extractor = super().build(*args)
        if hasattr(extractor, "transform_split"):
            raise BenchError(f"{self}: {self.entry.name} sees the labels and no picture, so there is nothing to clean")
        if hasattr(extractor, "describe_split"):
            raise BenchError(
                f"{self}: {self.entry.name} reads a file and sees no picture, so there is nothing to clean"
            )
        return CleanedExtractor(extractor, "@".join(self.resolved["cleaning"]), [one.build() for one in self.cleanings])

    def check(self, *args: Any) -> None:
        """Raise what is wrong with the options of the extractor or of a cleaning."""
        super().check(*args)
        if self.costly:
            for one in self.cleanings:
                one.build()


@dataclass(frozen=True)
class Method:
    """members: at least one extractor. join: None where one stands alone, or where the default is meant.

    said: what queries and gallery are, where that is said; None: what the extractors read. backend: what searches;
    None: that of the run.
    """

    members: tuple[Spec, ...]
    join: Spec | None = None
    steps: tuple[Spec, ...] = ()
    said: Sides | None = None
    backend: Spec | None = None

    def __str__(self) -> str:
        return "+".join(map(str, self._specs)) + self.sides_mark + self.backend_mark

    @property
    def sides(self) -> Sides:
        """What queries bring and what the gallery is described by."""
        return self.said or natural_sides(self.members)

    @property
    def sides_mark(self) -> str:
        """`[text-to-image]` where that is not what its extractors read by themselves; else nothing."""
        return "" if self.sides == natural_sides(self.members) else f"[{self.sides}]"

    @property
    def backend_mark(self) -> str:
        """` on faiss:hnsw` where another backend than that of the run searches; else nothing."""
        return "" if self.backend is None else f"{ON}{self.backend}"

    @property
    def without_backend(self) -> Method:
        """The same on the backend of the run."""
        return replace(self, backend=None)

    @property
    def approximate(self) -> bool:
        """Its backend may miss neighbours."""
        return self.backend is not None and not self.backend.entry.facts.get("exact", False)

    @property
    def _specs(self) -> tuple[Spec, ...]:
        return (*self.members, *(() if self.join is None else (self.join,)), *self.steps)

    @property
    def entries(self) -> tuple[Entry, ...]:
        """All that it names: extractors, cleanings, join, steps, backend."""
        cleanings = [one for member in self.members if isinstance(member, CleanedSpec) for one in member.cleanings]
        backend = [] if self.backend is None else [self.backend]
        return tuple(spec.entry for spec in (*self._specs, *cleanings, *backend))

    @property
    def plain(self) -> bool:
        """One extractor and nothing more."""
        return len(self._specs) == 1

    @property
    def family(self) -> str:
        return self.members[0].entry.family if len(self.members) == 1 else "fusion"

    @property
    def deep(self) -> bool:
        """A network is among the members."""
        return any(member.entry.family == "deep" for member in self.members)

    @property
    def by_id(self) -> bool:
        """No part of it looks at a picture: all have what they know from files."""
        members = all(member.entry.facts.get("by_id", False) for member in self.members)
        return members and not any(step.build().extractor is not None for step in self.steps)

    @property
    def resolved(self) -> dict[str, Any]:
        """Every option with its value; by part where there are several; those of the backend under "on"."""
        options = self.members[0].resolved if self.plain else {str(spec): spec.resolved for spec in self._specs}
        return options if self.backend is None else {**options, "on": {str(self.backend): self.backend.resolved}}


def parse_method(text: str) -> Method:
    """Read one method. BenchError says which part of it is wrong, and why."""
    text, backend = _split_backend(text)
    text, said = split_suffix(text)
    members: list[Spec] = []
    join: Spec | None = None
    steps: list[Spec] = []
    for part in _parts(text):
        name = re.split("[:=@]", part, maxsplit=1)[0].strip()
        if not name:
            raise BenchError(f"method {text!r}: a name is missing beside a +; write e.g. sift+color or sift+verify=100")
        if (name in STEPS or name in JOINS) and _CLEANED.search(part):
            raise BenchError(
                f"method {text!r}: {name} cleans nothing; write @ behind an extractor, e.g. sift@trim+color"
            )
        if name in STEPS:
            steps.append(parse(STEPS, part))
        elif name in JOINS:
            if join is not None or steps:
                raise BenchError(f"method {text!r}: {name} must come once, after the methods and before re-ranking")
            join = parse(JOINS, part)
        elif "," in name:
            raise BenchError(f"{text!r} names several methods, and one is wanted here; name one")
        elif name not in EXTRACTORS:
            known = [*(entry.name for registry in (EXTRACTORS, JOINS, STEPS) for entry in registry)]
            raise BenchError(unknown_name("method", name, known))
        elif join is not None or steps:
            raise BenchError(f"method {text!r}: {name} must stand before what joins or re-ranks")
        else:
            members.append(parse_member(part))
    if not members:
        raise BenchError(f"method {text!r} names nothing to extract; write e.g. sift+{text}")
    twice = {str(one) for one in members if members.count(one) > 1}
    if twice:
        raise BenchError(f"method {text!r}: {min(twice)} is in it twice; name each once")
    if join is not None and len(members) == 1:
        raise BenchError(f"method {text!r}: {join.entry.name} joins several methods and here is one; add another")
    if said is not None:
        refuse_wrong_sides(text, members, said)
    return Method(tuple(members), join, tuple(steps), said, backend)


def _split_backend(text: str) -> tuple[str, Spec | None]:
    """`color on faiss:hnsw` -> `color` and the backend; a file may have "on" in its name."""
    first, on, name = text.rpartition(ON)
    if not on or (first.rstrip()[-1:] in ("", "+", ":") or "/" in name):
        return text, None
    BACKENDS.fill_with_own()
    return first, parse(BACKENDS, name)


def bare_name(row: str) -> str:
    """The name of a row without what it says of its sides and of its backend."""
    first, on, _ = row.rpartition(ON)
    return without_suffix(first if on else row)


def with_backends(methods: Sequence[Method], backends: Sequence[Spec], of_run: str) -> tuple[Method, ...]:
    """Each method with every backend.

    Args:
        methods: those that name a backend themselves stay as they are, as do controls.
        backends: what searches, one after the other.
        of_run: the backend of the run, which no name tells.

    Returns:
        The methods, with all backends of one method together.
    """
    found: list[Method] = []
    for method in methods:
        if method.backend is not None or method.family == "control":
            found.append(method)  # of a control, no search is of interest
        else:
            found += [replace(method, backend=None if str(one) == of_run else one) for one in backends]
    return tuple(found)


def read_of(methods: Sequence[Method]) -> frozenset[str]:
    """What the queries of these methods are, of MODALITIES."""
    return frozenset(modality for method in methods for modality in method.sides.query.split("+"))


def with_sides(
    methods: Sequence[Method], queries: Sequence[str] | None, galleries: Sequence[str] | None
) -> tuple[Method, ...]:
    """Each method with every pair of sides that it can be asked with.

    Args:
        methods: those that say themselves what is compared stay as they are.
        queries: what queries bring, of modalities.CHOICES. None: what the extractors of each method read.
        galleries: the same of the gallery.

    Raises:
        BenchError: A method can be asked with none of them.
    """
    found: list[Method] = []
    for method in methods:
        natural, problem, fits = natural_sides(method.members), None, 0
        pairs = [Sides(q, g) for q in queries or (natural.query,) for g in galleries or (natural.gallery,)]
        for pair in [method.said] if method.said else pairs:
            try:
                refuse_wrong_sides(str(method), method.members, pair)
            except BenchError as error:
                problem = error
                continue
            found.append(replace(method, said=pair))
            fits += 1
        if problem is not None and not fits:
            raise problem
    return tuple(found)


def _parts(text: str) -> list[str]:
    """What stands between the pluses; one within the name of a file is none, as in `embeddings:a+b.npy+sift`."""
    parts: list[str] = []
    for part in text.split("+"):
        names = [re.split("[:=@]", one, maxsplit=1)[0].strip() for one in (part, *parts[-1:])]
        takes_file = len(names) == 2 and names[1] in EXTRACTORS and "argument" in EXTRACTORS[names[1]].facts
        known = _NAME.fullmatch(names[0]) and any(names[0] in one for one in (STEPS, JOINS, EXTRACTORS))
        if takes_file and names[0] and not known:
            parts[-1] = f"{parts[-1]}+{part}"
        else:
            parts.append(part)
    return parts


def parse_member(text: str) -> Spec:
    """Read one extractor with what cleans its pictures: `sift:words=64@trim@contrast:clip=3`."""
    first, *cleanings = _CLEANED.split(text)
    member = parse(EXTRACTORS, first)
    if not cleanings:
        return member
    return CleanedSpec(member.entry, member.options, tuple(parse(CLEANINGS, one) for one in cleanings))
