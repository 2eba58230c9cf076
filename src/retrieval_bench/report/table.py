"""The table of a record, as data; and that data as terminal text, Markdown or CSV."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from rich import box
from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

from retrieval_bench.core import Sides
from retrieval_bench.records.schema import Approximation, OpenSet, Record, Row, ThresholdFacts
from retrieval_bench.records.scores import MARK, is_marked
from retrieval_bench.records.switch import TABLE_FILES
from retrieval_bench.report import backends, by_threshold, concurrency, robustness
from retrieval_bench.report.lines import ends, three_digits
from retrieval_bench.report.markup import visible
from retrieval_bench.report.names import names_of, renamed
from retrieval_bench.system.csv_text import csv_of_columns
from retrieval_bench.system.other_processes import DISTURBED

NOT_AVAILABLE = "n/a"
TOLD_FROM = 0.005
"""What ties must leave open of the accuracy to be told below the table; the record has it all."""
ALONE_AT_MOST = 5.0
"""Times as long as in bulk, a thread's share of it, an image alone may take before the table says so."""
NOTICED_FROM_MS = 20.0
"""Below it, one call is mostly the way there and back."""
ASIDE = {
    "auroc": "chance that a query without an answer lies farther from its nearest image than one that has an answer",
    "rejected@95": "share of the queries without an answer beyond the distance that keeps 95 % of the others",
}
"""The figures of queries without an answer, and what each means."""


@dataclass(frozen=True)
class Column:
    """One column. `rank` says what is dropped first where the terminal is narrow: the highest goes first.

    better: which of two figures is the better one; "" where the column holds no figure to compare.
    """

    head: str
    means: str
    cell: Callable[[Row], str]
    rank: int
    better: Literal["higher", "lower", ""] = "higher"


def columns(record: Record, unknown: bool = False) -> list[Column]:
    """What a table shows: quality at the largest k, cost of one query, size, and what was spent before.

    unknown: also how well queries without an answer can be told, where the record knows.
    """
    most = max(record.settings.k)
    nearest = min(record.settings.k)
    shown = [
        *_compared(record),
        _score("accuracy", "nearest neighbour has the query's label", 0),
        *_certainty(record),
        _score(f"macro_f1@{nearest}", f"F1 of the {nearest}-NN prediction, mean over labels", 2),
        _score(f"recall@{most}", f"fraction of the relevant images found among the first {most}", 1),
        _score(f"graded_ndcg@{most}", f"nDCG@{most} where the query's category counts half", 4),
        _score(f"f1@{most}", f"harmonic mean of precision@{most} and recall@{most}", 5),
        _score("map@r", "mean average precision over the first R, R = number of relevant images", 1),
        *(column for name in record.settings.classifiers for column in _of_classifier(name)),
        _time("end_to_end_p50", "query ms", "decode + extract + search of one query, median", 0),
        _time("end_to_end_p95", "p95", "the same, 95th percentile", 4),
        _time("search_p50", "search ms", "search of one query, without decode and extract, median", 6),
        _time("extract_throughput", "images/s", "decode + extract on all threads", 3),
        Column("B/image", "bytes that one image occupies in the gallery", _bytes, 2, "lower"),
        _time("fit", "fit s", "time to learn from train; n/a if it was read from the cache", 7),
        _time("added_memory", "+ MiB", "resident memory added by loading, learning, extracting and ranking", 8),
    ]
    known = {name for row in record.rows for name in row.scores}
    shown = [column for column in shown if "@" not in column.head or column.head in known]
    return [*shown, *of_unanswerable(record)] if unknown else shown


def _compared(record: Record) -> list[Column]:
    """What is compared with what, where that is not images with images throughout."""
    if all((row.query, row.gallery) == ("image", "image") for row in record.rows):
        return []
    means = "what a query is, and, where that is something else, what an item of the gallery is"
    return [Column("compares", means, lambda row: str(Sides(row.query, row.gallery)), 1, "")]


def of_unanswerable(record: Record) -> list[Column]:
    """Both figures of queries without an answer, each with its interval; nothing where all queries have one."""
    if not any(row.open_set for row in record.rows):
        return []
    return [column for name in ASIDE for column in _of_unanswerable(name)]


def _of_unanswerable(name: str) -> tuple[Column, Column]:
    def value(row: Row) -> str:
        figure = None if row.open_set is None else row.open_set.scores.get(name)
        return NOT_AVAILABLE if figure is None else f"{figure:.3f}"

    def reach(row: Row) -> str:
        known = None if row.open_set is None else row.open_set.intervals.get(name)
        return NOT_AVAILABLE if known is None else "-".join(ends(known.low, known.high))

    how = "with labels as the independent observations"
    return (
        Column(name, ASIDE[name], value, 1),
        Column(f"{name} 95 %", f"95 % interval of {name}, {how}", reach, 3, ""),
    )


def _score(name: str, means: str, rank: int) -> Column:
    return Column(name, means, lambda row: f"{row.scores[name]:.3f}" if name in row.scores else NOT_AVAILABLE, rank)


def _certainty(record: Record) -> list[Column]:
    """The interval of the accuracy, and the methods that it does not differ from significantly."""

    def reach(row: Row) -> str:
        known = row.intervals.get("accuracy")
        return NOT_AVAILABLE if known is None else "-".join(ends(known.low, known.high))

    shown = []
    if any(row.intervals for row in record.rows):
        shown.append(Column("95 %", f"95 % interval of the accuracy, {how_intervals(record)}", reach, 2, ""))
    compared = record.comparisons.get("accuracy")
    if compared is not None:
        letters = compared.groups
        means = "methods that share a letter do not differ significantly in accuracy"
        shown.append(Column("group", means, lambda row: letters.get(row.method, ""), 3, ""))
    return shown


def how_intervals(record: Record) -> str:
    """In a few words, how the record's intervals of means were computed."""
    if record.statistics is not None and record.statistics.intervals:
        return "by Wilson's formula, with labels as the independent observations"
    return "by bootstrap over labels"


def _of_classifier(classifier: str) -> tuple[Column, Column]:
    def cell(name: str) -> Callable[[Row], str]:
        def shown(row: Row) -> str:
            figure = row.classifiers[classifier].scores.get(name) if classifier in row.classifiers else None
            return NOT_AVAILABLE if figure is None else f"{figure:.3f}"

        return shown

    return (
        Column(classifier, f"accuracy of the classifier {classifier}, learned from train", cell("accuracy"), 1),
        Column(f"{classifier} f1", "its F1, mean over labels", cell("macro_f1"), 3),
    )


def _time(name: str, head: str, means: str, rank: int) -> Column:
    def cell(row: Row) -> str:
        figure, stated = row.times.get(name), row.stated.get(name)
        if figure is None and stated is not None and stated.value is not None:
            return f"{three_digits(stated.value)} (stated)"
        return NOT_AVAILABLE if figure is None or figure.value is None else three_digits(figure.value)

    return Column(head, means, cell, rank, "higher" if name.endswith("throughput") else "lower")


def _bytes(row: Row) -> str:
    return NOT_AVAILABLE if row.features is None else f"{row.features.bytes_per_image:,}"


def caption(record: Record, unknown: bool = False) -> list[str]:
    """The sentences below a table: what was left out, what failed, how high a number can get.

    unknown: the table shows how well queries without an answer can be told.
    """
    data, settings = record.dataset, record.settings
    lines = [
        (
            f"{data.name}: {data.labels} labels; train {data.images.train:,}, gallery {data.images.gallery:,}, "
            f"query {data.images.query:,} images; seed {settings.seed}; {settings.threads} threads; "
            f"fingerprint {data.fingerprint[:12]}"
        )
    ]
    heads = {column.head for column in columns(record)}
    if "group" in heads:
        lines.append("Methods that share a letter do not differ significantly in accuracy.")
    low = [f"{name} {ceiling:.3f}" for name, ceiling in record.ceilings.items() if ceiling < 1 and name in heads]
    if low:
        lines.append(f"A perfect ranking reaches {', '.join(low)} here.")
    if any("[untrained]" in row.method for row in record.rows):
        lines.append("[untrained]: random weights; this network has learned nothing.")
    lines += [f"{row.method}: {notice}." for row in record.rows for notice in _notices(row)]
    if data.leave_one_out:
        lines.append("Leave-one-out: a query that is in the gallery is searched for among all other images.")
    if any("[gallery]" in row.method for row in record.rows):
        lines.append("[gallery]: learned from the images that it is searched in, not from train.")
    learned = any(facts.error is None for row in record.rows for facts in row.classifiers.values())
    if settings.learn_from == "gallery" and learned:
        lines.append("Classifiers learned from the gallery, not from train.")
    if settings.relevance == "graded":
        lines.append("graded_ndcg: the query's label counts 2, its category alone 1.")
    lines += [
        f"{row.method}: with equal distances in another order, accuracy is {ties.worst:.3f} to {ties.best:.3f}, "
        f"{ties.expected:.3f} on average."
        for row in record.rows
        if (ties := row.ties.get("accuracy")) is not None and ties.best - ties.worst >= TOLD_FROM
    ]
    if any(row.stated for row in record.rows):
        lines.append("(stated): the user says so; it was not measured here.")
    lines += [f"{row.method}: {sentence}." for row in record.rows for sentence in row.notices]
    refused: dict[str, list[str]] = {}
    for row in record.rows:
        for name, facts in row.classifiers.items():
            if facts.error is not None:
                refused.setdefault(_reason(facts.error, name), []).append(name)
    lines += [f"No {', '.join(dict.fromkeys(names))}: {sentence}." for sentence, names in refused.items()]
    lines += data.notices
    lines += _unanswerable(record, unknown)
    lines += untrusted_times(record)
    if data.skipped:
        lines.append(f"{len(data.skipped)} unusable images skipped; they are listed in the record.")
    if record.status not in ("finished", "failed"):  # a failed one is whole, but broke a rule
        lines.append("The run did not finish; methods are missing.")
    lines += [f"{row.method} failed: {row.error.sentence}" for row in record.rows if row.error is not None]
    return lines


def _reason(error: str, classifier: str) -> str:
    """Why a classifier failed, without its name, so that several which fail for one reason are one line."""
    return error.removeprefix(f"classifier {classifier}: ").removeprefix(f"{classifier} failed: ")


def _notices(row: Row) -> list[str]:
    """What the weights' facts have to say below the table; of each part that has something to say."""
    told = str((row.weights or {}).get("notice", ""))
    return [one for one in dict.fromkeys(told.split(" + ")) if one not in ("", "None")]


def _unanswerable(record: Record, unknown: bool) -> list[str]:
    """Sentences on the queries that were left out."""
    known = [row.open_set for row in record.rows if row.open_set is not None]
    if not known:
        told = unknown and any(row.status == "ok" for row in record.rows)
        return ["No auroc, rejected@95: the record knows of no query without an answer."] if told else []
    if not unknown:
        return ["`show --unknown` says how well each method could have told the queries that were left out."]
    counts = f"{known[0].unanswerable:,} queries without an answer against {known[0].answerable:,} with one"
    chance = "by the distance of the nearest image; a method that guesses has 0.500 and 0.050"
    lines = [f"auroc, rejected@95: {counts}, {chance}."]
    reasons: dict[str, list[str]] = {}
    for row in record.rows:
        if row.open_set is not None and row.open_set.unavailable:
            reasons.setdefault(row.open_set.unavailable, []).append(row.method)
    return lines + [f"No auroc of {', '.join(methods)}: {reason}." for reason, methods in reasons.items()]


def untrusted_times(record: Record) -> list[str]:
    """Sentences on times that say more of the machine than of the method."""
    lines = []
    disturbed = {row.method: row.other_processes for row in record.rows if (row.other_processes or 0.0) > DISTURBED}
    if disturbed:
        most = 100 * max(filter(None, disturbed.values()))
        lines.append(
            f"Other processes took up to {most:.0f} % of the cores while {', '.join(disturbed)} "
            f"{'was' if len(disturbed) == 1 else 'were'} timed; measure again when they rest."
        )
    for row in record.rows:
        alone, together = row.times.get("extract_p50"), row.times.get("extract_throughput")
        if alone is None or together is None or alone.value is None or not together.value:
            continue
        in_bulk = 1e3 * record.settings.threads / together.value  # of one thread
        if alone.value > ALONE_AT_MOST * in_bulk and alone.value > NOTICED_FROM_MS:
            lines.append(
                f"{row.method}: one image alone takes {alone.value:.0f} ms to describe, but {in_bulk:.0f} ms of a "
                "thread in bulk: threads were in each other's way; see if --threads 1 is quicker."
            )
    return lines


def grid(record: Record, shown: list[Column]) -> list[list[str]]:
    """Rows of cells below "method"; a failed method shows so in its first cell."""
    rows = []
    for row in record.rows:
        cells = [column.cell(row) for column in shown]
        if row.status == "failed":
            cells = ["failed", *([""] * (len(shown) - 1))]
        rows.append([f"{row.method} {MARK}" if is_marked(row) else row.method, *cells])
    return rows


def terminal(record: Record, width: int | None = None, color: bool = False, unknown: bool = False) -> str:
    """The table for a terminal of `width` columns; long names get short, then the least needed columns go.

    Lines below say what is missing and what short names stand for. unknown: as for `columns`.
    """
    shown = columns(record, unknown)
    parts: Mapping[str, str] = {}
    if width is not None and _width(record, shown) > width:
        names = names_of(row.method for row in record.rows)
        record, parts = renamed(record, names), names.parts
        shown = columns(record, unknown)
    hidden: list[str] = []
    while width is not None and len(shown) > 1 and _width(record, shown) > width:
        drop = max(shown, key=lambda column: (column.rank, shown.index(column)))
        shown.remove(drop)
        hidden.append(drop.head)
    table = RichTable(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    table.add_column("method", no_wrap=True, style="bold")
    for column in shown:
        table.add_column(column.head, justify="right", no_wrap=True)
    for cells in grid(record, shown):
        table.add_row(*(Text(cell) for cell in cells))
    buffer = io.StringIO()
    console = Console(
        file=buffer,
        width=max(_width(record, shown), width or 0),
        force_terminal=color,
        color_system="auto" if color else None,
        highlight=False,
    )
    console.print(table)
    below = Console(file=buffer, width=width or 120, force_terminal=color, highlight=False)
    below_table = map(visible, caption(record, unknown))
    for line in [*(f"{part} = {meaning}" for part, meaning in parts.items()), *below_table]:
        below.print(Text(line, style="dim" if color else ""))
    if hidden:
        below.print(Text(f"Too narrow for: {', '.join(reversed(hidden))} (`show --format csv` has all).", style="dim"))
    if any(row.robustness for row in record.rows):
        below.print()
        below.print(Text(robustness.text(record)), soft_wrap=True)
    for told in (backends.text(record), concurrency.text(record), by_threshold.text(record)):
        if told:
            below.print()
            below.print(Text(told), soft_wrap=True)
    return "\n".join(line.rstrip() for line in buffer.getvalue().splitlines()) + "\n"


def derived(record: Record) -> dict[str, str]:
    """File name -> text of the tables that lie beside a record."""
    return dict(zip(TABLE_FILES, (markdown(record), tidy_csv(record)), strict=True))


def _width(record: Record, shown: list[Column]) -> int:
    lines = [["method", *(column.head for column in shown)], *grid(record, shown)]
    return sum(max(len(line[place]) for line in lines) + 3 for place in range(len(lines[0])))


def in_a_cell(text: str) -> str:
    """Text as a cell of a Markdown table: on one line, no cell ends early, no tag begins."""
    return visible(text).replace("|", "\\|").replace("<", "&lt;")


def markdown(record: Record, unknown: bool = False) -> str:
    """The same table as GitHub Markdown, with what each column means. unknown: as for `columns`."""
    shown = columns(record, unknown)

    def line(cells: list[str]) -> str:
        return f"| {' | '.join(map(in_a_cell, cells))} |"

    lines = [line(["method", *(column.head for column in shown)]), line(["---", *["---:"] * len(shown)])]
    lines += [line(cells) for cells in grid(record, shown)]
    lines += ["", *(f"{visible(sentence).replace('<', '&lt;')}  " for sentence in caption(record, unknown)), ""]
    if any(row.robustness for row in record.rows):
        heads, *cells = robustness.grid(record)
        lines += [line(heads), line(["---", *["---:"] * (len(heads) - 1)]), *map(line, cells), ""]
        lines += [robustness.MEANS, ""]
    parts = ((backends, backends.means(record)), (concurrency, concurrency.MEANS), (by_threshold, by_threshold.MEANS))
    for part, means in parts:
        heads, *cells = part.grid(record)
        if cells:
            lines += [line(heads), line(["---", *["---:"] * (len(heads) - 1)]), *map(line, cells), ""]
            lines += [means, ""]
    lines += [f"- **{column.head}**: {column.means}" for column in shown]
    return "\n".join(lines) + "\n"


def tidy_csv(record: Record) -> str:
    """Everything that is known of every row, one column each, full precision; empty where there is no value."""
    rows = [_everything(row) for row in record.rows]
    heads = [
        name for groups in zip(*rows, strict=True) for name in dict.fromkeys(name for each in groups for name in each)
    ]
    return csv_of_columns(heads, ({name: value for each in groups for name, value in each.items()} for groups in rows))


def _everything(row: Row) -> tuple[dict[str, Any], ...]:
    """Heading -> value, in groups whose columns stand together."""
    sizes = ("distance", "dim", "dtype", "bytes_per_image", "index_bytes", "zero_rows")
    return (
        {"method": row.method, "family": row.family, "status": row.status},
        row.scores,
        {f"{name} {end}": getattr(reach, end) for name, reach in row.intervals.items() for end in ("low", "high")},
        {
            f"{name} ties {end}": getattr(ties, end)
            for name, ties in row.ties.items()
            for end in ("worst", "expected", "best")
        },
        {
            f"{classifier} {name}": value
            for classifier, facts in row.classifiers.items()
            for name, value in facts.scores.items()
        },
        {
            f"{classifier} {name} [{figure.unit}]": figure.value
            for classifier, facts in row.classifiers.items()
            for name, figure in facts.times.items()
        },
        {
            f"{name} {one.perturbation} {one.severity}": value
            for one in row.robustness
            for name, value in one.scores.items()
        },
        {} if row.open_set is None else _told(row.open_set),
        {} if row.by_threshold is None else _of_threshold(row.by_threshold),
        {} if row.approximation is None else _of_approximation(row.approximation),
        {f"{name} [{figure.unit}]": figure.value for name, figure in row.times.items()},
        {f"{name} stated [{figure.unit}]": figure.value for name, figure in row.stated.items()},
        dict.fromkeys(sizes) if row.features is None else {name: getattr(row.features, name) for name in sizes},
        {"error": row.error.sentence if row.error else ""},
    )


def _of_threshold(facts: ThresholdFacts) -> dict[str, Any]:
    return {
        "threshold": facts.threshold,
        **{f"threshold {name}": value for name, value in facts.scores.items()},
        **{
            f"threshold {name} {end}": getattr(reach, end)
            for name, reach in facts.intervals.items()
            for end in ("low", "high")
        },
        **{f"threshold train {name}": value for name, value in facts.train.items()},
    }


def _of_approximation(facts: Approximation) -> dict[str, Any]:
    return {
        f"found of {facts.k} nearest": facts.found,
        **{f"exact {name}": value for name, value in facts.exact.items()},
        **{
            f"{name} minus exact{end and ' '}{end}": value
            for name, one in facts.differences.items()
            for end, value in (("", one.mean), ("low", one.low), ("high", one.high))
        },
    }


def _told(facts: OpenSet) -> dict[str, Any]:
    return {
        **facts.scores,
        **{f"{name} {end}": getattr(reach, end) for name, reach in facts.intervals.items() for end in ("low", "high")},
        "rejected@95 threshold": facts.threshold,
        "unanswerable queries": facts.unanswerable,
    }
