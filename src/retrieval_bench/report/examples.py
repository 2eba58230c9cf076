"""The failure gallery as part of a page: the queries that were chosen, with the images that methods found for them."""

from __future__ import annotations

from retrieval_bench.core import BadImage
from retrieval_bench.evaluation.relevance import relevant_among
from retrieval_bench.records.conversion import label_sets
from retrieval_bench.report.evidence import Evidence, label_names
from retrieval_bench.report.gallery import FOUND, Duel, Example, Gallery, Thumbnails, choose
from retrieval_bench.report.markup import Markup, joined, tag


def failure_gallery(evidence: Evidence) -> Markup | None:
    """Counts of wins and losses, and examples; without images it says why and shows only names."""
    chosen = choose(evidence)
    if chosen is None:
        return None
    shots = _Shots(evidence)
    parts = [_counts(chosen)]
    if evidence.dataset is None:
        parts.append(tag("p", f"Images are not shown: {evidence.no_dataset}", class_="warn"))
    parts += [_duel(duel, shots) for duel in chosen.duels]
    if chosen.hardest:
        every = " and ".join(method for _, method in chosen.champions)
        parts.append(
            tag(
                "div",
                tag("h3", "Wrong for all"),
                tag("p", f"{chosen.unsolved:,} queries have a wrong nearest image for {every}."),
                tag("div", [_example(example, shots) for example in chosen.hardest], class_="examples"),
                class_="duel",
            )
        )
    return joined(*parts)


def _counts(chosen: Gallery) -> Markup:
    names = [f"{method} ({family})" for family, method in chosen.champions]
    intro = (
        "For how many queries the nearest image is right for the row's method and wrong for the column's method. "
        "The table has the most accurate method of each family."
    )
    heads = [tag("th", ""), *(tag("th", name, scope="col") for name in names)]
    most = max(int(chosen.won.max()), 1)
    body = []
    for row, name in enumerate(names):
        cells = []
        for column in range(len(names)):
            count = int(chosen.won[row, column])
            strength = min(9, -(-9 * count // most))
            kind = None if row == column else f"shade f{strength}"
            cells.append(tag("td", "" if row == column else f"{count:,}", class_=kind))
        body.append(tag("tr", tag("th", tag("span", name, class_="cut", title=name), scope="row"), cells))
    table = tag("table", tag("thead", tag("tr", heads)), tag("tbody", body))
    return joined(tag("p", intro), tag("div", table, class_="scroll"))


def _duel(duel: Duel, shots: _Shots) -> Markup:
    title = tag("h3", f"{duel.winner} right, {duel.loser} wrong")
    count = (
        f"{duel.count:,} such queries. Shown are those with the largest difference in map@r, at most one of each label."
    )
    return tag(
        "div",
        title,
        tag("p", count, class_="soft"),
        tag("div", [_example(one, shots) for one in duel.examples], class_="examples"),
        class_="duel",
    )


def _example(example: Example, shots: _Shots) -> Markup:
    rows = [
        tag("div", tag("div", method, class_="by"), shots.found(method, example.query), class_="found")
        for method in example.methods
    ]
    return tag("div", tag("div", shots.asked(example.query), class_="asked"), rows, class_="example")


class _Shots:
    """Queries and what was found for them, as small pictures with their labels."""

    def __init__(self, evidence: Evidence) -> None:
        self._arrays = evidence.arrays
        self._names = label_names(evidence)
        self._labels = label_sets(evidence.arrays, "query"), label_sets(evidence.arrays, "gallery")
        dataset = evidence.dataset
        self._queries = None if dataset is None else Thumbnails(dataset.query)
        self._gallery = None if dataset is None else Thumbnails(dataset.gallery)

    def asked(self, query: int) -> Markup:
        item = str(self._arrays["query_ids"][query])
        name = self._names[int(self._arrays["query_labels"][query])]
        return tag(
            "div",
            _picture(self._queries, item),
            tag("div", "query: ", tag("b", name), class_="label", title=f"{name}: {item}"),
            class_="shot",
        )

    def found(self, method: str, query: int) -> list[Markup]:
        asked, held = self._labels
        rows = self._arrays[f"{method}/indices"][[query], :FOUND]
        shown = []
        for row, right in zip(rows[0].tolist(), relevant_among(rows, asked[[query]], held)[0].tolist(), strict=True):
            if row < 0:
                continue
            item = str(self._arrays["gallery_ids"][row])
            label = int(self._arrays["gallery_labels"][row])
            said = tag("b", "✓ " if right else "✗ ")
            shown.append(
                tag(
                    "div",
                    _picture(self._gallery, item),
                    tag("div", said, self._names[label], class_="label", title=f"{self._names[label]}: {item}"),
                    class_=f"shot {'right' if right else 'wrong'}",
                )
            )
        return shown


def _picture(thumbnails: Thumbnails | None, item: str) -> Markup:
    if thumbnails is None:
        return tag("div", item.rpartition("/")[2], class_="gone")
    try:
        return tag("img", src=thumbnails[item], alt=item)
    except BadImage as bad:
        return tag("div", bad.reason, class_="gone")
