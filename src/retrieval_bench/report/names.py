"""What a method is called on a page, or in a terminal, where its name has no room.

A name with all its options can be a hundred letters long, and names of one run differ near their ends. There each set
of options that a part of the method has becomes a number: `squeezenet1_0:pool=rmac:whiten=512+color` is called
`squeezenet1_0(1)+color`, and it is said once what `squeezenet1_0(1)` stands for.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from retrieval_bench.records.schema import Comparison, Record

ROOM = 24
"""Letters. A longer name is shortened where it has options."""
_MARK = re.compile(r"(\[[^\[\]]*\])?$")


@dataclass(frozen=True)
class Names:
    """short: each method's name on the page. parts: what a shortened part stands for, in the order of their numbers."""

    short: Mapping[str, str]
    parts: Mapping[str, str]

    def of(self, methods: Iterable[str]) -> dict[str, str]:
        """The parts that occur in these methods' names on the page."""
        used = {part for method in methods for part in _marked(self.short.get(method, method))[0].split("+")}
        return {part: meaning for part, meaning in self.parts.items() if part in used}


def names_of(methods: Iterable[str]) -> Names:
    """Methods with their marks, as rows of records name them, each to a name of its own."""
    short: dict[str, str] = {}
    parts: dict[str, str] = {}
    numbers: dict[str, int] = {}
    for method in dict.fromkeys(methods):
        if len(method) <= ROOM:
            short[method] = method
            continue
        plain, mark = _marked(method)
        called = []
        for part in plain.split("+"):
            base, colon, _ = part.partition(":")
            if not colon:
                called.append(part)
                continue
            name = f"{base}({numbers.setdefault(part, len(numbers) + 1)})"
            parts[name] = part
            called.append(name)
        short[method] = "+".join(called) + mark
    return Names(short, parts)


def _marked(method: str) -> tuple[str, str]:
    """A name without its mark, and the mark: ("resnet50", "[untrained]")."""
    found = _MARK.search(method)
    start = len(method) if found is None else found.start()
    return method[:start], method[start:]


def renamed(record: Record, names: Names) -> Record:
    """The same, with every method of its rows and comparisons called by its short name."""
    short = names.short
    rows = tuple(row.model_copy(update={"method": short[row.method]}) for row in record.rows)
    comparisons = {
        metric: Comparison(
            pairs=tuple(
                pair.model_copy(
                    update={
                        "first": short.get(pair.first, pair.first),
                        "second": short.get(pair.second, pair.second),
                    }
                )
                for pair in one.pairs
            ),
            groups={short.get(method, method): letters for method, letters in one.groups.items()},
        )
        for metric, one in record.comparisons.items()
    }
    return record.model_copy(update={"rows": rows, "comparisons": comparisons})
