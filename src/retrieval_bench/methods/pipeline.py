"""A method made ready to run: the extractors it needs, how their features become what is searched, and the search."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

import retrieval_bench.methods.reranking  # noqa: F401 - registers the steps
from retrieval_bench.core import BenchError, Bundle, Dataset, Distance, Extractor, Rows, Searcher, Setup, Sides
from retrieval_bench.distributed.engine import WorkEngine
from retrieval_bench.distributed.local import LocalEngine
from retrieval_bench.methods.fusion import VECTOR, Join, Member
from retrieval_bench.methods.modalities import IMAGE, TEXT, side_of
from retrieval_bench.methods.parse import DEFAULT_JOIN, Method
from retrieval_bench.methods.reranking.step import LearningStep, Step
from retrieval_bench.registry import JOINS, Spec, backend_on, of_this_package
from retrieval_bench.system.progress import Progress, silent

log = logging.getLogger("retrieval_bench")


@dataclass(frozen=True, eq=False)
class Part:
    """One extractor of a method. spec: what it was built from; of a re-ranking step where it is that step's."""

    spec: Spec
    extractor: Extractor

    @property
    def name(self) -> str:
        """The part's name with its mark: "resnet50[untrained]"."""
        mark = getattr(self.extractor, "mark", "")
        return f"{self.spec}[{mark}]" if mark else str(self.spec)

    def side(self, side: str) -> str:
        """What this part reads of an item that has `side`, one of modalities.CHOICES."""
        return side_of(self.spec, side)


class Pipeline:
    """members: the parts that are compared. helpers: what re-ranking needs besides.

    join: None where there is one member. engine: who describes images and searches; None: this process.
    """

    def __init__(self, method: Method, setup: Setup, backend: str, engine: WorkEngine | None = None) -> None:
        self.method, self.setup = method, setup
        self.engine = LocalEngine() if engine is None else engine
        self.members = [Part(spec, spec.build(setup)) for spec in method.members]
        self.join: Join | None = None
        if len(self.members) > 1:
            self.join = (JOINS[DEFAULT_JOIN] if method.join is None else method.join.entry).build(
                **({} if method.join is None else method.join.options)
            )
            for part in self.members:
                self._refuse_what_cannot_be_joined(part)
        if method.steps and self.truncated:
            raise BenchError(f"{method}: a ranking has no features to re-rank by; drop {method.steps[0].entry.name}")
        self.steps: list[tuple[Spec, Step]] = [(spec, spec.build()) for spec in method.steps]
        for spec, step in self.steps:
            if step.averages:
                self._refuse_what_has_no_mean(spec)
            if TEXT in spec.modalities:
                self._refuse_to_read_no_text(spec)
            if isinstance(step, LearningStep):
                self._refuse_what_no_step_can_learn(spec)
        self.helpers = [Part(spec, step.extractor) for spec, step in self.steps if step.extractor is not None]
        self._build = functools.partial(self.engine.search, build=backend_on(backend, setup.device))
        self._build_on = self.builder(method.backend)
        self._some_lack_pictures = False

    @property
    def name(self) -> str:
        others = [*([] if self.method.join is None else [self.method.join]), *self.method.steps]
        marks = self.method.sides_mark + self.method.backend_mark
        return "+".join([*(part.name for part in self.members), *map(str, others)]) + marks

    @property
    def sides(self) -> Sides:
        """What queries bring and what the gallery is described by."""
        return self.method.sides

    @property
    def looks(self) -> bool:
        """A picture of the query is looked at."""
        return any(IMAGE in part.side(self.sides.query).split("+") for part in self.parts)

    @property
    def parts(self) -> list[Part]:
        return [*self.members, *self.helpers]

    @property
    def distance(self) -> Distance:
        return self.members[0].extractor.distance if self.join is None else self.join.distance

    @property
    def compared(self) -> dict[str, Distance]:
        """The arrays of `rows` that are compared, each with its distance."""
        if self.one_vector:
            return {VECTOR: self.distance}
        return {part.name: part.extractor.distance for part in self.members}

    @property
    def one_vector(self) -> bool:
        """An item is one vector, or one code, whatever it was made from."""
        plain = all(not hasattr(part.extractor, "searcher") for part in self.members)
        return self.join is None or (self.join.learns and plain)

    @property
    def serial(self) -> bool:
        return any(getattr(part.extractor, "serial", False) for part in self.parts)

    @property
    def sees_labels(self) -> bool:
        return any(hasattr(part.extractor, "transform_split") for part in self.parts)

    @property
    def by_id(self) -> bool:
        """A part has its features from a file, by the images' ids; no time of it is known, and pixels do not matter."""
        return any(hasattr(part.extractor, "describe_split") for part in self.parts)

    @property
    def truncated(self) -> bool:
        """A part knows a ranking and nothing else, which may end before the gallery does."""
        return any(getattr(part.extractor, "ranks_only", False) for part in self.members)

    @property
    def approximate(self) -> bool:
        """Its search may miss neighbours, and its rankings end before the gallery does."""
        return self.method.approximate

    @property
    def ends_early(self) -> bool:
        """Rankings may end before the gallery does."""
        return self.truncated or self.approximate

    @property
    def stated_ms(self) -> float | None:
        """What one query takes, as the user says: of a method of one part, whose time that is."""
        return getattr(self.members[0].extractor, "stated_ms", None) if self.method.plain else None

    def meet(self, dataset: Dataset) -> tuple[str, ...]:
        """Learn what the items of the dataset may lack; sentences on the files that parts have their features from.

        BenchError where an image is missing in one of these.
        """
        self._some_lack_pictures = any(split.pictured is not None for split in dataset.splits.values())
        return tuple(
            sentence
            for part in self.parts
            if hasattr(part.extractor, "meet")
            for sentence in part.extractor.meet(dataset)
        )

    @property
    def learns(self) -> bool:
        """Something is learned from train, by a part or by the join."""
        return any(getattr(part.extractor, "learned", ()) for part in self.parts) or self.learns_together

    @property
    def join_learns(self) -> bool:
        return self.join is not None and self.join.learns

    @property
    def learns_together(self) -> bool:
        """Something is learned from the features of training items: by the join, or by a step."""
        return self.join_learns or self.steps_learn

    @property
    def steps_learn(self) -> bool:
        return any(isinstance(step, LearningStep) for _, step in self.steps)

    @property
    def said_of_learning(self) -> tuple[str, ...]:
        """Sentences on what steps learned; complete after `fit_together`."""
        steps = [(spec, step) for spec, step in self.steps if isinstance(step, LearningStep)]
        return tuple(f"{spec.entry.name} {step.said}" for spec, step in steps if step.said)

    @property
    def weights(self) -> dict[str, Any] | None:
        """Of the network; where there are several, each field names them one after the other."""
        known = [weights for part in self.parts if (weights := getattr(part.extractor, "weights", None))]
        if len(known) < 2:
            return known[0] if known else None
        fields = dict.fromkeys(field for weights in known for field in weights)
        return {field: " + ".join(str(weights.get(field)) for weights in known) for field in fields}

    def fit_together(self, features: Sequence[np.ndarray], labels: np.ndarray, progress: Progress = silent) -> None:
        """Let the join learn, and the steps, each from what the search before it finds.

        features: of each part, of the same training items; at most LEARN_FROM.
        """
        if self.join is not None:
            self.join.fit(self._named(features[: len(self.members)]), labels)
        if self.steps_learn:
            items = self.rows(features)
            assert isinstance(items, Bundle)  # as that of every method with steps
            searcher = self._first_search(items)
            for spec, step in self.steps:
                if isinstance(step, LearningStep):
                    step.fit(searcher, items, self.compared, str(spec), labels, self.setup.seed, progress)
                searcher = step.searcher(searcher, items, self.compared, str(spec))

    def rows(self, features: Sequence[np.ndarray]) -> Rows:
        """What is searched for or in, from the features of each part, of the same images."""
        members, helpers = features[: len(self.members)], features[len(self.members) :]
        if self.join is None and not self.steps:
            return members[0]
        arrays = {VECTOR: members[0]} if self.join is None else self.join.combine(self._named(members))
        return Bundle({**arrays, **{part.name: array for part, array in zip(self.helpers, helpers, strict=True)}})

    @property
    def unclassifiable(self) -> str | None:
        """Why no classifier can learn from this method: there is not one vector an image; else None."""
        if self.sees_labels:
            return f"{self.name} sees the labels: a classifier would only read them off"
        if not self.one_vector:
            return f"{self.name} keeps no single vector for a classifier to learn from; join by +concat or +scores"
        if any(hasattr(part.extractor, "searcher") for part in self.members):
            return f"{self.name} is compared in a way of its own; a classifier takes plain vectors or bits"
        return None

    @property
    def incomparable(self) -> str:
        """Why the distances of two queries cannot be compared, in a few words; "" where they can."""
        if self.join is None:
            part = self.members[0]
            culprit = "" if getattr(part.extractor, "comparable", True) else part.name
        else:
            join = DEFAULT_JOIN if self.method.join is None else str(self.method.join)
            own = next((part.name for part in self.members if not getattr(part.extractor, "comparable", True)), "")
            culprit = own if getattr(self.join, "comparable", self.join.learns) else join
        for spec, step in self.steps:
            known = getattr(step, "comparable", False)
            if known is not None:
                culprit = "" if known else str(spec)
        return f"{culprit} gives each query a scale of its own, so no threshold serves all" if culprit else ""

    def vectors(self, features: Sequence[np.ndarray]) -> np.ndarray:
        """What a classifier learns from: (n, d) of the members' features, joined. Re-ranking plays no part in it."""
        return features[0] if self.join is None else self.join.combine(self._named(features))[VECTOR]

    def searcher(self, gallery: Rows) -> Searcher:
        """Over what `rows` made of the gallery."""
        if not isinstance(gallery, Bundle):
            return self._search_of(VECTOR, gallery)
        searcher = self._first_search(gallery)
        for spec, step in self.steps:
            searcher = step.searcher(searcher, gallery, self.compared, str(spec))
        return searcher

    def builder(self, backend: Spec | None) -> Callable[[np.ndarray, Distance], Searcher]:
        """What makes (rows, distance) a search of the one vector of each item.

        backend: None: that of the run. Raises BenchError where the method is not what a backend can search.
        """
        return self._build if backend is None else self._own_backend(backend)

    def exact_searcher(self, gallery: Rows) -> Searcher:
        """The same, by the backend of the run, of a method that another backend searches."""
        if isinstance(gallery, np.ndarray):
            return self._build(gallery, self.distance)  # type: ignore[no-any-return]
        return FieldSearcher(VECTOR, self._build(gallery.arrays[VECTOR], self.distance))

    def _first_search(self, gallery: Bundle) -> Searcher:
        """The search that is re-ranked."""
        if self.join is None:
            searcher: Searcher = FieldSearcher(VECTOR, self._search_of(VECTOR, gallery.arrays[VECTOR]))
        elif VECTOR in gallery.arrays:
            searcher = FieldSearcher(VECTOR, self.join.searcher(gallery, self._search_of))
        else:
            names = {part.name for part in self.members}
            own = Bundle({name: array for name, array in gallery.arrays.items() if name in names})
            searcher = self.join.searcher(own, self._search_of)
        return searcher

    def _search_of(self, name: str, features: np.ndarray) -> Searcher:
        """The search of one array: by the part's own searcher, or by the backend."""
        of = {part.name: part.extractor for part in self.members}
        extractor = self.members[0].extractor if self.join is None else of.get(name)
        if extractor is None:
            return self._build_on(features, self.distance)  # type: ignore[no-any-return]
        own = getattr(extractor, "searcher", None)
        return own(features) if own is not None else self._build_on(features, extractor.distance)

    def _own_backend(self, backend: Spec) -> Callable[..., Any]:
        if not self.one_vector or any(hasattr(part.extractor, "searcher") for part in self.members):
            raise BenchError(
                f"{self.method}: {self.method.without_backend} keeps no single vector for {backend.entry.name} to "
                "search; join by +concat or +scores, or name a method such as color"
            )
        if self.method.steps and self.approximate:
            raise BenchError(
                f"{self.method}: re-ranking goes through what exact search finds; drop "
                f"{self.method.steps[0].entry.name} or{self.method.backend_mark}"
            )
        if self.sees_labels:
            raise BenchError(
                f"{self.method}: it sees the labels, and nothing is searched for; drop{self.method.backend_mark}"
            )
        if "device" in backend.entry.options:
            return lambda *args: backend.entry.build(*args, **{"device": self.setup.device, **backend.options})
        return backend.build

    def _named(self, features: Sequence[np.ndarray]) -> list[Member]:
        return [
            Member(
                *(part.name, part.extractor.distance, array),
                may_lack=self._some_lack_pictures or TEXT in part.spec.modalities,
                search=getattr(part.extractor, "searcher", None),
            )
            for part, array in zip(self.members, features, strict=True)
        ]

    def _refuse_what_cannot_be_joined(self, part: Part) -> None:
        if hasattr(part.extractor, "transform_split"):
            raise BenchError(f"{self.method}: {part.name} sees the labels and cannot be joined with anything; drop it")
        summed = hasattr(self.join, "one_vector_") and not getattr(part.extractor, "ranks_only", False)
        if hasattr(part.extractor, "searcher") and self.join_learns and not summed:
            raise BenchError(
                f"{self.method}: {part.name} is compared in a way of its own, not as a vector; join it by +rrf or +vote"
            )
        known = self.method.sides
        if self.join_learns and len(part.spec.modalities) == 2 and known.query != known.gallery:
            raise BenchError(
                f"{self.method}: the join learns from train how its members go together, and queries that are "
                f"{known.query} are not what train would be; join by +rrf or +vote"
            )

    def _refuse_to_read_no_text(self, step: Spec) -> None:
        for what, side in (("queries have", self.sides.query), ("gallery has", self.sides.gallery)):
            if TEXT not in side.split("+"):
                raise BenchError(
                    f"{self.method}: {step.entry.name} reads texts beside what is compared, and the {what} none; add a "
                    f"method that reads texts, for example minilm, or drop {step.entry.name}"
                )

    def _refuse_what_no_step_can_learn(self, step: Spec) -> None:
        sides = self.sides
        if sides.query != sides.gallery:
            raise BenchError(
                f"{self.method}: {step.entry.name} learns from train, whose items are all alike, and queries that are "
                f"{sides.query} are not what the gallery is; drop {step.entry.name}"
            )
        if any(hasattr(part.extractor, "transform_split") for part in self.members):
            raise BenchError(f"{self.method}: a member sees the labels, which {step.entry.name} would learn; drop it")

    def _refuse_what_has_no_mean(self, step: Spec) -> None:
        for part in self.members:
            if hasattr(part.extractor, "searcher"):
                raise BenchError(
                    f"{self.method}: {part.name} is compared in a way of its own, not as a vector, so that there is no "
                    f"mean for {step.entry.name} to search with; drop {step.entry.name} or {part.name}"
                )


@dataclass(frozen=True, eq=False)
class FieldSearcher:
    """A searcher of one of the arrays of a bundle."""

    name: str
    inner: Searcher

    @property
    def bytes(self) -> int:
        return self.inner.bytes

    def __call__(self, queries: Bundle, k: int, exclude: np.ndarray | None = None) -> Any:
        return self.inner(queries.arrays[self.name], k, exclude)


def refuse_wrong_options(method: Method, setup: Setup, backend: str) -> None:
    """BenchError where options are wrong, as far as can be said before anything is loaded, asked for or described.

    Code of others is not run, since that may crash; and what is broken here is told by the row of the method.
    """
    bare = method.plain and not method.members[0].options and "@" not in str(method)
    if bare or not all(of_this_package(entry) for entry in method.entries):
        return  # and what a bare method loads is part of its own time
    try:
        if not any(member.costly for member in method.members):
            Pipeline(method, setup, backend)
            return
        for member in method.members:
            _refuse_wrong_options_of(member, setup)
        for spec in (*(() if method.join is None else (method.join,)), *method.steps):
            spec.build()
    except BenchError:
        raise
    except (Exception, SystemExit) as error:
        log.debug("%s: its options cannot be checked before it runs (%s)", method, error)


def _refuse_wrong_options_of(member: Spec, setup: Setup) -> None:
    try:
        member.check(setup)
    except BenchError as error:
        name = member.entry.name
        raise error if str(error).startswith(name) else BenchError(f"{name}: {error}") from None
