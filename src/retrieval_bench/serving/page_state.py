"""The address of the search page: everything that the user chose, so that a page can be sent, kept and gone back to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, Self, get_args
from urllib.parse import urlencode

from retrieval_bench.core import BenchError
from retrieval_bench.serving.client.answers import MOST_K, Filters, Question
from retrieval_bench.serving.requests.words import checked_text

Sort = Literal["distance", "agreement", "name"]
SORTS: tuple[Sort, ...] = get_args(Sort)
FACET = "f."
"""Before the name of an attribute, in the name of its filter."""
THRESHOLD = "t."
"""Before the key of a column, in the name of its threshold."""
DEFAULT_K = 6
MOST_WORDS = 100
"""Values of one kind in an address, at most."""


@dataclass(frozen=True)
class PageState:
    """What the search page shows.

    Args:
        query: "up:WORD" of a picture that was sent, "item:ID", "known:INDEX:ROW", or "" for none.
        text: the words that are searched for, alone or beside that.
        columns: keys in their order; empty: all of them.
        k: hits of a column.
        sort: of the hits of a column.
        filters: which items may be found.
        thresholds: column -> largest distance of a hit that counts.
        more: ids to find more of.
        less: ids to find less of.
        exclude: ids that are not to be found.
        crop: left, top, right, bottom as shares of the upright picture.
        turn: degrees clockwise.
        seed: which known queries are offered.
    """

    query: str = ""
    columns: tuple[str, ...] = ()
    k: int = DEFAULT_K
    sort: Sort = "distance"
    filters: Filters = field(default_factory=Filters)
    thresholds: Mapping[str, float] = field(default_factory=dict)
    more: tuple[str, ...] = ()
    less: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    crop: tuple[float, float, float, float] | None = None
    turn: int = 0
    seed: int = 0
    text: str = ""

    @classmethod
    def read(cls, pairs: Sequence[tuple[str, str]]) -> Self:
        """From the fields of an address; those that are empty count as not there.

        Raises BenchError where a value is none of those that are allowed, RequestRefused where the text is too long.
        """
        values: dict[str, list[str]] = {}
        for name, value in pairs:
            if value.strip():
                values.setdefault(name, []).append(value.strip())
        for name, several in values.items():
            if len(several) > MOST_WORDS:
                raise BenchError(f"{name} is given {len(several)} times; at most {MOST_WORDS} are taken")

        def all_of(name: str) -> tuple[str, ...]:
            return tuple(dict.fromkeys(values.get(name, ())))

        def one(name: str, default: str) -> str:
            return values.get(name, [default])[-1]

        sort = one("sort", "distance")
        if sort not in SORTS:
            raise BenchError(f"sort={sort}: must be one of {', '.join(SORTS)}")
        attributes = {name[len(FACET) :]: all_of(name) for name in values if name.startswith(FACET)}
        state = cls(
            query=one("q", ""),
            columns=all_of("c"),
            k=_whole("k", one("k", str(DEFAULT_K)), 1, MOST_K),
            sort=sort,
            filters=Filters(
                labels=all_of("label"),
                categories=all_of("category"),
                attributes=attributes,
                text_in_id=one("in-id", ""),
                not_labels=all_of("not-label"),
                not_categories=all_of("not-category"),
            ),
            thresholds={
                name[len(THRESHOLD) :]: _number(name, one(name, "")) for name in values if name.startswith(THRESHOLD)
            },
            more=all_of("more"),
            less=all_of("less"),
            exclude=all_of("without"),
            crop=_crop(one("crop", "")),
            turn=_whole("turn", one("turn", "0"), 0, 270),
            seed=_whole("seed", one("seed", "0"), 0, 10**9),
            text=checked_text(one("text", "")),
        )
        state.question(())  # whose ranges are these, too
        return state

    def pairs(self) -> list[tuple[str, str]]:
        """The fields of the address; what is as it is at first is not among them."""
        fresh = PageState()
        filters = self.filters
        found = [(name, value) for name, value in (("q", self.query), ("text", self.text)) if value]
        found += [("c", key) for key in self.columns]
        found += [
            (name, str(getattr(self, name)))
            for name in ("k", "sort", "turn", "seed")
            if getattr(self, name) != getattr(fresh, name)
        ]
        for name, several in (
            ("label", filters.labels),
            ("category", filters.categories),
            ("not-label", filters.not_labels),
            ("not-category", filters.not_categories),
            ("more", self.more),
            ("less", self.less),
            ("without", self.exclude),
            *((FACET + name, chosen) for name, chosen in filters.attributes.items()),
        ):
            found += [(name, value) for value in several]
        found += [("in-id", filters.text_in_id)] if filters.text_in_id else []
        found += [(THRESHOLD + key, f"{value:.6g}") for key, value in self.thresholds.items()]
        if self.crop is not None:
            found.append(("crop", ",".join(f"{share:.4f}" for share in self.crop)))
        return found

    def address(self, **changes: Any) -> str:
        """The page with something changed."""
        pairs = replace(self, **changes).pairs()
        return "/?" + urlencode(pairs) if pairs else "/"

    def of_another(self, query: str, text: str = "") -> str:
        """The page of another picture, with other words or none, searched for in the same way."""
        return self.address(query=query, text=text, crop=None, turn=0, more=(), less=(), exclude=())

    def with_words(self, text: str) -> str:
        """The page of the same picture with other words, or none."""
        return self.address(text=text, more=(), less=(), exclude=())

    def question(self, shown: Sequence[str]) -> Question:
        """What the service is asked. shown: keys of the columns in their order.

        Thresholds are not among it: the page shows what lies beyond them, too, and says that it does.
        """
        own = (self.query.removeprefix("item:"),) if self.query.startswith("item:") else ()
        return Question(
            k=self.k,
            columns=tuple(shown),
            filters=self.filters,
            exclude=tuple(dict.fromkeys((*self.exclude, *own))),
            more=self.more,
            less=self.less,
            crop=self.crop,
            turn=self.turn,
        )


def _whole(name: str, text: str, least: int, most: int) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 12 and least <= int(text) <= most):
        raise BenchError(f"{name}={text}: must be a whole number from {least} to {most}")
    return int(text)


def _number(name: str, text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not abs(value) < 1e30:
        raise BenchError(f"{name}={text}: must be a number")
    return value


def _crop(text: str) -> tuple[float, float, float, float] | None:
    if not text:
        return None
    parts = tuple(_number("crop", part) for part in text.split(","))
    if len(parts) != 4:
        raise BenchError(
            f"crop={text}: must be left,top,right,bottom as shares of the picture, such as 0.1,0.1,0.9,0.9"
        )
    return None if parts == (0, 0, 1, 1) else parts
