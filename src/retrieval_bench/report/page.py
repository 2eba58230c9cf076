"""One or several records as one self-contained page: no script, no network, light and dark, printable."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from retrieval_bench.records.schema import Record, Row, Statistics
from retrieval_bench.records.scores import is_marked
from retrieval_bench.report import backends, by_threshold, concurrency, drawings, sweeps
from retrieval_bench.report.combined import Combined, combined
from retrieval_bench.report.evidence import CONTROL, Evidence
from retrieval_bench.report.examples import failure_gallery
from retrieval_bench.report.findings import find
from retrieval_bench.report.lines import ends
from retrieval_bench.report.markup import Markup, joined, tag, visible
from retrieval_bench.report.names import Names, names_of
from retrieval_bench.report.plots import whisker
from retrieval_bench.report.shell import Section, in_place, whole_page
from retrieval_bench.report.table import Column, caption, columns, grid, of_unanswerable

FIGURE_LETTERS = frozenset("0123456789.,")


def render(
    evidences: Sequence[Evidence],
    progress: Callable[[str], None] = lambda what: None,
    first: Sequence[Section] = (),
) -> str:
    """The page of these records, at least one, as HTML.

    Args:
        evidences: the records, with what belongs to each.
        progress: told what is being worked on.
        first: sections in front of all others.
    """
    one = len(evidences) == 1
    names = names_of(row.method for evidence in evidences for row in evidence.record.rows)
    evidences = [evidence.renamed(names) for evidence in evidences]
    parts: list[Markup] = [in_place(section) for section in first]
    links: list[tuple[str, str]] = [(section.anchor, section.title) for section in first]
    series: set[int] = set()
    together = combined(evidences)
    if not one:
        section = _of_several(evidences, together, names)
        parts.append(in_place(section))
        links.append((section.anchor, section.title))
    for number, evidence in enumerate(evidences, start=1):
        progress(evidence.name)
        prefix = "" if one else f"r{number}-"
        sections = _sections(evidence, names, prefix)
        series |= set(range(len(evidence.record.rows)))
        if one:
            links += [(section.anchor, section.title) for section in sections]
        else:
            anchor = f"record-{number}"
            links.append((anchor, f"{number}. {evidence.name}"))
            within = tag("ul", [tag("li", tag("a", s.title, href=f"#{s.anchor}")) for s in sections])
            title = joined(tag("h2", f"{number}. {evidence.name}"), tag("p", _about(evidence.record), class_="lead"))
            parts.append(tag("div", title, tag("nav", within), id=anchor, class_="record-title"))
        parts += [in_place(section) for section in sections]
    datasets = dict.fromkeys(evidence.record.dataset.name for evidence in evidences)
    heading = f"Image retrieval on {', '.join(datasets)}"
    lead = _about(evidences[0].record) if one else f"{len(evidences)} records"
    versions = ", ".join(dict.fromkeys(evidence.record.environment.version for evidence in evidences))
    foot = f"Made by retrieval_bench from records of version {versions}. This page loads nothing from the network."
    return whole_page(heading, lead, links, parts, series, foot)


def _about(record: Record) -> str:
    data = record.dataset
    counts = f"{data.labels:,} labels, {data.images.gallery:,} gallery images, {data.images.query:,} queries"
    return f"{counts}, {data.images.train:,} train images · {len(record.rows)} methods · {record.created[:10]}"


def _sections(evidence: Evidence, names: Names, prefix: str) -> list[Section]:
    findings = find(evidence)
    series_of = {row.method: number for number, row in enumerate(evidence.record.rows)}
    found = [
        ("results", "Results", _headline(evidence, names, series_of)),
        ("unknown", "Queries without an answer", _unknown(evidence.record, series_of)),
        ("cost", "Quality against cost", drawings.pareto(evidence, findings, series_of)),
        ("pairs", "Differences between methods", drawings.pairs(evidence)),
        ("curves", "Retrieval curves", drawings.curves(evidence, findings, series_of)),
        ("threshold", "Search by a threshold", _by_threshold(evidence, series_of)),
        ("backends", "Backends", _backends(evidence.record)),
        ("sweeps", "Approximate search: sweeps", sweeps.section(evidence.sweeps)),
        ("latency", "Latency by phase", drawings.latency(evidence, series_of)),
        ("concurrency", "Several queries at once", _at_once(evidence.record)),
        ("robustness", "Robustness", drawings.robustness(evidence, series_of)),
        ("slices", "Slices", drawings.slices(findings)),
        ("confusion", "Confusion", drawings.confusions(findings)),
        ("roc", "Classifiers: ROC", drawings.rocs(findings, series_of)),
        ("gallery", "Wins and losses", failure_gallery(evidence)),
        ("definitions", "Definitions", _definitions(evidence)),
        ("methods", "Methods and settings", _methods(evidence)),
        ("environment", "Environment, and how to repeat the run", _environment(evidence.record)),
    ]
    return [Section(f"{prefix}{anchor}", title, body) for anchor, title, body in found if body is not None]


def _at_once(record: Record) -> Markup | None:
    table = small_table(concurrency.grid(record))
    return None if table is None else joined(tag("p", concurrency.MEANS), table)


def _backends(record: Record) -> Markup | None:
    table = small_table(backends.grid(record))
    return None if table is None else joined(tag("p", backends.means(record)), table)


def _by_threshold(evidence: Evidence, series_of: dict[str, int]) -> Markup | None:
    table = small_table(by_threshold.grid(evidence.record))
    without = [tag("p", sentence, class_="note") for sentence in by_threshold.reasons(evidence.record)]
    if table is None:
        return joined(*without) if without else None
    return joined(tag("p", by_threshold.MEANS), table, *without, drawings.by_threshold(evidence, series_of))


def small_table(grid: list[list[str]]) -> Markup | None:
    """Heads and lines of cells, the first of which names its line; None where there are only heads."""
    heads, *lines = grid
    if not lines:
        return None
    body = [
        tag(
            "tr",
            tag("th", tag("span", first, class_="cut", title=first), scope="row"),
            [tag("td", one) for one in rest],
        )
        for first, *rest in lines
    ]
    head = tag("thead", tag("tr", [tag("th", one, scope="col") for one in heads]))
    return tag("div", tag("table", head, tag("tbody", body)), class_="scroll")


def _headline(evidence: Evidence, names: Names, series_of: dict[str, int]) -> Markup:
    record = evidence.record
    warnings = []
    if record.status != "finished":
        there = {row.method for row in record.rows}
        planned = [name for name in record.settings.methods if names.short.get(name, name) not in there]
        rest = f"; also planned: {', '.join(planned)}" if planned and len(planned) < 20 else ""
        state = "is still running" if record.status == "running" else f"is {record.status}"
        warnings.append(f"This run {state}: it has {len(record.rows)} methods{rest}.")
    warnings += record.violations
    warnings += [f"{row.method}: {row.notices[0]}." for row in record.rows if is_marked(row)]
    failed = [row for row in record.rows if row.error is not None]
    warnings += [f"{row.method} failed: {row.error.sentence}" for row in failed if row.error is not None]
    if evidence.no_arrays:
        warnings.append(f"Curves, slices, confusion and examples are not shown: {evidence.no_arrays}")
    asked = any(row.open_set is not None for row in record.rows)  # the page shows it wherever there is something
    return joined(
        [tag("p", sentence, class_="warn") for sentence in warnings],
        _cards(evidence),
        _table(record, series_of),
        _key(names.of(row.method for row in record.rows)),
        tag("ul", [tag("li", sentence) for sentence in caption(record, unknown=asked)], class_="sentences"),
    )


def _key(parts: Mapping[str, str]) -> Markup | None:
    """What shortened names stand for."""
    if not parts:
        return None
    meanings = [joined(tag("dt", part), tag("dd", tag("code", meaning))) for part, meaning in parts.items()]
    return tag("dl", meanings, class_="facts key")


def _cards(evidence: Evidence) -> Markup | None:
    rows = evidence.contestants
    if not rows:
        return None
    record = evidence.record
    best = max(rows, key=lambda row: row.scores["accuracy"])
    reach = best.intervals.get("accuracy")
    sure = "" if reach is None else f"95 % interval {' to '.join(ends(reach.low, reach.high))}"
    comparison = record.comparisons.get("accuracy")
    if comparison is not None and best.method in comparison.groups:
        letters = set(comparison.groups[best.method])
        equal = [
            row.method
            for row in rows
            if row.method != best.method and letters & set(comparison.groups.get(row.method, ""))
        ]
        sure += (
            f"; no significant difference from {', '.join(equal)}"
            if equal
            else "; significantly different from all others"
        )
    cards = [_card("Most accurate", f"{best.scores['accuracy']:.3f}", best.method, sure)]
    shown = {column.head: column for column in columns(record)}
    for title, head, unit, key in (
        ("Fastest query", "query ms", "ms", "end_to_end_p50"),
        ("Smallest gallery", "B/image", "B per image", ""),
    ):
        known = [
            (price, -row.scores["accuracy"], number)
            for number, row in enumerate(rows)
            if (price := _price(row, key)) is not None
        ]
        if known:
            row = rows[min(known)[2]]
            figure = f"{shown[head].cell(row)} {unit}"
            cards.append(_card(title, figure, row.method, f"accuracy {row.scores['accuracy']:.3f}"))
    chance = next((row for row in evidence.finished if row.method == "random"), None)
    if chance is not None:
        cards.append(_card("Chance", f"{chance.scores['accuracy']:.3f}", chance.method, "accuracy of guessing"))
    return tag("div", cards, class_="cards")


def _price(row: Row, key: str) -> float | None:
    if not key:
        return None if row.features is None else float(row.features.bytes_per_image)
    return row.times[key].value if key in row.times else None


def _card(what: str, value: str, who: str, why: str) -> Markup:
    lines = (("what", what), ("value", value), ("who", drawings.breakable(who)), ("why", why))
    return tag("div", [tag("div", content, class_=kind) for kind, content in lines if content], class_="card")


def _table(record: Record, series_of: dict[str, int]) -> Markup:
    shown = columns(record)
    cells = grid(record, shown)
    best = _best(shown, [line[1:] for line, row in zip(cells, record.rows, strict=True) if row.family != CONTROL])
    heads = [
        tag("th", "method", scope="col"),
        *(tag("th", column.head, scope="col", title=column.means) for column in shown),
    ]
    heads.insert(2, tag("th", "0 to 1", scope="col", class_="left"))
    body = []
    for line, row in zip(cells, record.rows, strict=True):
        head = tag("th", tag("span", line[0], class_="cut", title=line[0]), scope="row")
        if row.status == "failed":
            body.append(tag("tr", head, tag("td", "failed", colspan=len(shown) + 1), class_="failed"))
            continue
        values = [
            _cell(cell, better=row.family != CONTROL and cell in best[number]) for number, cell in enumerate(line[1:])
        ]
        reach = row.intervals.get("accuracy")
        low, high = (None, None) if reach is None else (reach.low, reach.high)
        accuracy = row.scores["accuracy"]
        values.insert(1, tag("td", whisker(accuracy, low, high, 0.0, 1.0, series_of[row.method]), class_="left"))
        body.append(tag("tr", head, values, class_="control" if row.family == CONTROL else None))
    table = tag("table", tag("thead", tag("tr", heads)), tag("tbody", body), class_="tight")
    note = "Bold: the best number of the column, without the controls (grey). Equal numbers are all bold."
    return joined(tag("div", table, class_="scroll"), tag("p", note, class_="note"))


def _unknown(record: Record, series_of: dict[str, int]) -> Markup | None:
    """How well each method could have told them; None where every query has an answer."""
    shown = of_unanswerable(record)
    known = next((row.open_set for row in record.rows if row.open_set is not None), None)
    if not shown or known is None:
        return None
    heads = [tag("th", "method", scope="col"), *(tag("th", one.head, scope="col", title=one.means) for one in shown)]
    heads.insert(2, tag("th", "0 to 1", scope="col", class_="left"))
    body = []
    for row in record.rows:
        if row.open_set is None:
            continue
        values = [_cell(column.cell(row)) for column in shown]
        auroc, reach = row.open_set.scores.get("auroc"), row.open_set.intervals.get("auroc")
        low, high = (None, None) if reach is None else (reach.low, reach.high)
        drawn = "" if auroc is None else whisker(auroc, low, high, 0.0, 1.0, series_of[row.method])
        values.insert(1, tag("td", drawn, class_="left"))
        head = tag("th", tag("span", row.method, class_="cut", title=row.method), scope="row")
        body.append(tag("tr", head, values, class_="control" if row.family == CONTROL else None))
    table = tag("table", tag("thead", tag("tr", heads)), tag("tbody", body), class_="tight")
    intro = (
        f"{known.unanswerable:,} queries have no answer in the gallery, {known.answerable:,} have one. The distance of "
        "the nearest image tells them apart. auroc: how often it is greater for a query without an answer than for one "
        "with an answer; 0.5 is a guess. rejected@95: the share of queries without an answer beyond the threshold that "
        "keeps 95 % of the others; 0.05 is a guess. n/a: distances of different queries do not compare."
    )
    return joined(tag("p", intro), tag("div", table, class_="scroll"))


def _cell(cell: str, better: bool = False) -> Markup:
    return tag("td", cell, class_="none" if cell == "n/a" else "best" if better else None)


def _best(shown: Sequence[Column], lines: Sequence[Sequence[str]]) -> list[set[str]]:
    """For each column the cell that shows the best figure, as it is written; nothing where there is none to compare."""
    found: list[set[str]] = []
    for number, column in enumerate(shown):
        figures = [line[number] for line in lines if line[number] and set(line[number]) <= FIGURE_LETTERS]
        if not column.better or len(set(figures)) < 2:
            found.append(set())
            continue
        choose = max if column.better == "higher" else min
        found.append({choose(figures, key=lambda figure: float(figure.replace(",", "")))})
    return found


def _of_several(evidences: Sequence[Evidence], together: Combined, names: Names) -> Section:
    heads = [
        tag("th", head, scope="col", class_="left" if number == 1 else None)
        for number, head in enumerate(together.heads)
    ]
    numbers = {evidence.name: number for number, evidence in enumerate(evidences, start=1)}
    body = [
        tag(
            "tr",
            tag("th", tag("span", line[0], class_="cut", title=line[0]), scope="row"),
            tag("td", tag("a", numbers[line[1]], href=f"#record-{numbers[line[1]]}", title=line[1]), class_="left"),
            [_cell(cell) for cell in line[2:]],
        )
        for line in together.lines
    ]
    table = tag("table", tag("thead", tag("tr", heads)), tag("tbody", body), class_="tight")
    content: Markup | None = tag("div", table, class_="scroll") if together.comparable else None
    key = _key(names.parts) if together.comparable else None
    return Section("all", "All records", joined(tag("p", together.sentence), content, key))


def _definitions(evidence: Evidence) -> Markup:
    record = evidence.record
    intro = (
        "R is the number of gallery images with the query's label. rel(i) is 1 if the image at rank i, counted from "
        "1, has the query's label, else 0. Images at equal distances are ranked by gallery row. Queries with R = 0 are "
        "left out; their number is given below."
    )
    rows = []
    for name, facts in record.metrics.items():
        ceilings = [
            f"{full.partition('@')[2]}: {value:.3f}" if facts.at_k else f"{value:.3f}"
            for full, value in record.ceilings.items()
            if full == name or (facts.at_k and full.rpartition("@")[0] == name)
        ]
        rows.append(
            tag(
                "tr",
                tag("th", f"{name}@k" if facts.at_k else name, scope="row"),
                tag("td", facts.about, class_="wrap"),
                tag("td", facts.definition, class_="wrap"),
                tag("td", "; ".join(ceilings) or "n/a", class_="wrap"),
            )
        )
    titles = ("metric", "in short", "definition", "highest possible value here (k: value)")
    metrics = tag(
        "table",
        tag("thead", tag("tr", [tag("th", title, scope="col", class_="left") for title in titles])),
        tag("tbody", rows),
    )
    meanings = [joined(tag("dt", column.head), tag("dd", column.means)) for column in columns(record)]
    parts = [
        tag("p", intro),
        tag("div", metrics, class_="scroll"),
        tag("h3", "Columns of the results"),
        tag("dl", meanings, class_="facts"),
    ]
    how = record.statistics
    if how is not None:
        parts.append(tag("h3", "Intervals and groups"))
        parts.append(tag("p", _of_intervals(how)))
    return joined(*parts)


def _of_intervals(how: Statistics) -> str:
    """How intervals and groups came about, by the record's own words where it has some."""
    why = "photos of one label are not independent"
    if how.intervals:
        told = (
            f"The {100 * how.level:.0f} % intervals rest on the {how.clusters:,} labels and not on the queries, "
            f"because {why}. Of a mean: {how.intervals}. Of a difference: {how.differences}."
        )
    else:
        told = (
            f"The {100 * how.level:.0f} % intervals come from a cluster bootstrap: the {how.clusters:,} labels are "
            f"drawn with replacement, each with all its queries, {how.resamples:,} times (seed {how.seed}). Labels "
            f"are drawn and not queries, because {why}."
        )
    return (
        f"{told} Two methods are compared query by query, by a paired sign-flip test over labels with Holm's "
        "correction over all pairs. Methods that share a letter do not differ significantly at "
        f"{100 * (1 - how.level):.0f} %."
    )


def _methods(evidence: Evidence) -> Markup:
    record = evidence.record
    settings = record.settings
    rows = []
    for row in record.rows:
        options = _options(row.params) or "none"
        weights = "" if row.weights is None else ", ".join(f"{key} {value}" for key, value in row.weights.items())
        features = row.features
        made = "" if features is None else f"{features.dim:,} × {features.dtype}, {features.distance}"
        learned = "" if features is None else features.fit
        rows.append(
            tag(
                "tr",
                tag("th", tag("span", row.method, class_="cut", title=row.method), scope="row"),
                tag("td", row.family, class_="left"),
                tag("td", made, class_="left"),
                tag("td", learned, class_="left"),
                tag("td", "; weights: ".join(part for part in (options, weights) if part), class_="wrap"),
            )
        )
    heads = [
        tag("th", head, scope="col", class_="left") for head in ("method", "family", "features", "learning", "options")
    ]
    table = tag("table", tag("thead", tag("tr", heads)), tag("tbody", rows))
    facts = {
        "cutoffs": ", ".join(map(str, settings.k)),
        "classifiers": ", ".join(settings.classifiers) or "none",
        "seed": str(settings.seed),
        "threads": str(settings.threads),
        "device": settings.device,
        "backend": settings.backend,
        "limit": "none" if settings.limit is None else f"{settings.limit:,} images in each split",
        "dataset": record.dataset.spec,
        "fingerprint": record.dataset.fingerprint,
        "unusable images": f"{len(record.dataset.skipped):,}",
        "queries left out": f"{record.dataset.queries_left_out:,}",
    }
    return joined(tag("div", table, class_="scroll"), tag("h3", "Settings and data"), _facts(facts))


def _options(params: Mapping[str, Any]) -> str:
    """Options as key=value; those of a part of a method in brackets behind its name."""
    return ", ".join(
        f"{key} ({_options(value)})" if isinstance(value, dict) else f"{key}={value}" for key, value in params.items()
    )


def _environment(record: Record) -> Markup:
    where = record.environment
    commit = "unknown" if where.commit is None else where.commit + (" with changes" if where.dirty else "")
    facts = {
        "made": record.created,
        "version": where.version,
        "commit": commit,
        "processor": f"{where.processor}, {where.cores} cores, {where.machine}",
        "memory": f"{where.memory_gib:g} GiB",
        "GPU": where.gpu or "none used",
        "system": where.system,
        "Python": where.python,
        "libraries": ", ".join(f"{name} {version}" for name, version in where.libraries.items()),
        "threads of libraries": ", ".join(f"{name} {count}" for name, count in where.thread_counts.items()) or "n/a",
        "idle threads": where.waiting or "n/a",
        "memory allocator": where.allocator,
        "rankings": "none" if record.rankings is None else f"sha256 {record.rankings.sha256}",
    }
    return joined(
        tag("p", "This command repeats the run. The same seed gives the same rankings, byte for byte."),
        tag("pre", tag("code", command_line(record))),
        _facts(facts),
    )


def command_line(record: Record) -> str:
    """The command as it can be pasted into a shell; characters that show nothing are shown as what they are."""
    if not record.command:
        return "unknown"
    program, *words = record.command
    return visible(" ".join([program, *map(shlex.quote, words)]))


def _facts(facts: dict[str, str]) -> Markup:
    return tag("dl", [joined(tag("dt", name), tag("dd", value)) for name, value in facts.items()], class_="facts")
