"""The sections of a page that draw something. Each function returns None if the record has nothing to draw."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from retrieval_bench.evaluation.slices import Score, Sliced
from retrieval_bench.records.schema import Row, TimeFigure
from retrieval_bench.report import plots
from retrieval_bench.report.evidence import CONTROL, Evidence
from retrieval_bench.report.findings import COSTS, SLICED, Confusion, Findings
from retrieval_bench.report.gallery import heat_map
from retrieval_bench.report.lines import ends, shortened, three_digits
from retrieval_bench.report.markup import Markup, joined, tag
from retrieval_bench.report.plots import Axis, Reach, Series, Spot
from retrieval_bench.report.table import NOT_AVAILABLE

FEW_LABELS = 12  # as many are shown as a table of counts, more as a picture
PHASES = {
    "decode": "Decode: bytes to pixels",
    "extract": "Extract: pixels to features",
    "search": "Search: features to a ranking",
    "end_to_end": "End to end",
}
MOST_GROUPS = 40  # rows of a table of slices
ALWAYS_OPEN = ("category", "class size", "relevant images")  # slices; of the others, the first few
FIRST_OPEN = 3
MOST_MATRIX = 16  # methods in the table of pairs


def breakable(method: str) -> Markup:
    """A method's name, with room for a line to break where its parts meet."""
    first, *others = method.split("+")
    return joined(first, [joined("+", tag("wbr"), part) for part in others])


def column_of(method: str) -> Markup:
    """The head of a method's column."""
    return tag("th", tag("span", breakable(method), class_="fold"), scope="col")


def pareto(evidence: Evidence, findings: Findings, series_of: Mapping[str, int]) -> Markup | None:
    figures = []
    rows = evidence.contestants
    for cost in COSTS:
        found = [(row, price) for row in rows if (price := cost.of(row)) is not None and price > 0]
        if len(found) < 2:
            continue
        points = []
        for row, price in found:
            reach = row.intervals.get("accuracy")
            low, high = (None, None) if reach is None else (reach.low, reach.high)
            points.append(Spot(row.method, series_of[row.method], price, row.scores["accuracy"], low, high))
        x = Axis(cost.unit, *plots.around([point.x for point in points], log=True), log=True)
        ends = [value for point in points for value in (point.y, point.low, point.high) if value is not None]
        low, high = plots.around(ends)
        y = Axis("accuracy", max(0.0, low), min(1.0, high))
        best = [name for name in findings.fronts[cost.key] if name in {point.name for point in points}]
        drawn = plots.spots(points, best, x, y, f"accuracy against {cost.unit}")
        told = "; ".join(best)
        absent = [row.method for row in rows if row.method not in {point.name for point in points}]
        missing = f" Not shown, because this cost was not measured or is zero: {', '.join(absent)}." if absent else ""
        figures.append(
            tag("figure", tag("figcaption", tag("b", cost.title)), drawn, tag("figcaption", f"Front: {told}.{missing}"))
        )
    if not figures:
        return None
    intro = (
        "Accuracy of each method over its cost; up and to the left is better. Filled points: on the Pareto front, no "
        "other method is at least as accurate at a lower cost. Vertical bars are 95 % intervals. Controls are left out."
    )
    return joined(tag("p", intro), tag("div", figures, class_="charts"))


def pairs(evidence: Evidence) -> Markup | None:
    comparison = evidence.record.comparisons.get("accuracy")
    how = evidence.record.statistics
    if comparison is None or how is None:
        return None
    controls = {row.method for row in evidence.finished if row.family == CONTROL}
    scores = {row.method: row.scores["accuracy"] for row in evidence.contestants}
    names = sorted(scores, key=lambda name: -scores[name])[:MOST_MATRIX]
    between = {(pair.first, pair.second): (pair.mean, pair.low, pair.high, pair.p_holm) for pair in comparison.pairs}
    between |= {(b, a): (-mean, -high, -low, p) for (a, b), (mean, low, high, p) in between.items()}
    if len(names) < 2:
        return None
    body = []
    for one in names:
        cells = []
        for other in names:
            known = between.get((one, other))
            if known is None:
                cells.append(tag("td", ""))
                continue
            mean, low, high, p = known
            real = p <= 1 - how.level
            strength = min(9, 1 + int(abs(mean) * 20)) if real else 0
            kind = f"shade f{strength}{' red' if mean < 0 else ''}" if real else "none"
            shown = f"{round(mean, 3) + 0.0:+.3f}"  # no minus before a zero
            said = f"{one} - {other}: {shown}, 95 % {low:+.3f} to {high:+.3f}, p (Holm) {p:.4f}"
            cells.append(tag("td", shown if real else f"({shown})", class_=kind, title=said))
        body.append(tag("tr", tag("th", tag("span", one, class_="cut", title=one), scope="row"), cells))
    heads = [tag("th", ""), *(column_of(name) for name in names)]
    table = tag("table", tag("thead", tag("tr", heads)), tag("tbody", body))
    left = " Controls are left out here; the record has them." if controls else ""
    intro = (
        "Accuracy of the row's method minus accuracy of the column's method. In brackets: not significant at "
        f"{100 * (1 - how.level):.0f} % (paired sign-flip test over labels, Holm's correction).{left}"
    )
    return joined(tag("p", intro), tag("div", table, class_="scroll"))


def curves(evidence: Evidence, findings: Findings, series_of: Mapping[str, int]) -> Markup | None:
    if not findings.hit_rates:
        return None
    controls = {row.method for row in evidence.finished if row.family == CONTROL}
    order = sorted(findings.hit_rates, key=lambda name: name not in controls)  # controls below, lines above
    precision = [
        Series(name, series_of[name], [(r, p) for _, r, p in findings.precision_recall[name]], name in controls)
        for name in order
    ]
    hits = [
        Series(name, series_of[name], [(float(k), rate) for k, rate in findings.hit_rates[name]], name in controls)
        for name in order
    ]
    deepest = max(k for curve in findings.hit_rates.values() for k, _ in curve)
    share = Axis("recall@k", 0.0, 1.0)
    figures = []
    whole = all(curve[-1][1] > 0.999 for curve in findings.precision_recall.values())
    span = "k from 1 to the size of the gallery" if whole else f"k from 1 to {deepest:,}"
    drawn = plots.lines(precision, share, Axis("precision@k", 0.0, 1.0), "precision against recall")
    told = (
        f"Means over queries at each cutoff k, {span}. The table's precision@k and recall@k are points of these lines."
    )
    figures.append(tag("figure", tag("figcaption", tag("b", "Precision and recall")), drawn, tag("figcaption", told)))
    if deepest > 1:
        x = Axis("k, log scale", 1.0, float(deepest), log=True)
        drawn = plots.lines(hits, x, Axis("hit rate@k", 0.0, 1.0), "hit rate at k")
        told = "Share of the queries that have at least one image of their label among the first k."
        figures.append(tag("figure", tag("figcaption", tag("b", "Hit rate at k")), drawn, tag("figcaption", told)))
    key = plots.legend([(name, series_of[name]) for name in order if name not in controls])
    grey = tag("p", f"Dotted grey: controls ({', '.join(sorted(controls))}).", class_="note") if controls else None
    return tag("div", key, grey, tag("div", figures, class_="charts two"), class_="plotted")


def latency(evidence: Evidence, series_of: Mapping[str, int]) -> Markup | None:
    rows = [row for row in evidence.finished if any(_value(row.times, f"{phase}_p50") for phase in PHASES)]
    if not rows:
        return None
    values = [
        value
        for row in rows
        for phase in PHASES
        for part in ("p50", "p95", "p99")
        if (value := _value(row.times, f"{phase}_{part}"))
    ]
    axis = Axis("ms, log scale", *plots.around(values, log=True), log=True)
    figures = []
    for phase, title in PHASES.items():
        reaches = [
            Reach(
                row.method,
                series_of[row.method],
                median,
                _value(row.times, f"{phase}_p95"),
                _value(row.times, f"{phase}_p99"),
            )
            for row in rows
            if (median := _value(row.times, f"{phase}_p50"))
        ]
        if reaches:
            chart = plots.reaches(reaches, axis, f"{title}, milliseconds")
            figures.append(tag("figure", tag("figcaption", tag("b", title)), chart))
    samples = {figure.n for row in rows for name, figure in row.times.items() if name == "end_to_end_p50"} - {None}
    count = f", over {max(n for n in samples if n is not None)} queries" if samples else ""
    intro = (
        f"One query at a time, after warm-up{count}. Dot: median. Thick bar: up to the 95th percentile. Thin bar: to "
        "the 99th. A percentile is not drawn if there are too few samples for it. All four charts have the same scale."
    )
    return joined(tag("p", intro), tag("div", figures, class_="charts two"), _times(rows))


def _times(rows: Sequence[Row]) -> Markup:
    heads = [tag("th", "ms", scope="col")]
    for phase in PHASES:
        name = phase.replace("_", " ")
        heads += [tag("th", f"{name} {part}", scope="col") for part in ("p50", "p95", "p99")]
    body = []
    for row in rows:
        cells = []
        for phase in PHASES:
            for part in ("p50", "p95", "p99"):
                value = _value(row.times, f"{phase}_{part}")
                cells.append(tag("td", NOT_AVAILABLE if value is None else three_digits(value)))
        body.append(tag("tr", tag("th", tag("span", row.method, class_="cut", title=row.method), scope="row"), cells))
    table = tag("table", tag("thead", tag("tr", heads)), tag("tbody", body))
    return tag("details", tag("summary", "The same as a table"), tag("div", table, class_="scroll"))


def _value(times: Mapping[str, TimeFigure], name: str) -> float | None:
    return times[name].value if name in times else None


def by_threshold(evidence: Evidence, series_of: Mapping[str, int]) -> Markup | None:
    """Precision against recall at every threshold."""
    series = [
        Series(row.method, series_of[row.method], [(r, p) for _, p, r in row.by_threshold.curve], row.family == CONTROL)
        for row in evidence.finished
        if row.by_threshold is not None and row.by_threshold.curve
    ]
    if not series:
        return None
    drawn = plots.lines(series, Axis("recall", 0.0, 1.0), Axis("precision", 0.0, 1.0), "precision at every threshold")
    told = "Of the queries, at every distance that occurs, from the strictest (left) to the most generous."
    caption = tag("figcaption", tag("b", "Precision and recall of each threshold"))
    figure = tag("figure", caption, drawn, tag("figcaption", told))
    key = plots.legend([(one.name, one.series) for one in series if not one.control])
    return tag("div", key, tag("div", figure, class_="charts two"), class_="plotted")


def robustness(evidence: Evidence, series_of: Mapping[str, int]) -> Markup | None:
    """One chart a perturbation: accuracy over its severity, 0 being the queries as they are."""
    charts: dict[str, list[Series]] = {}
    for row in evidence.finished:
        curves: dict[str, list[tuple[float, float]]] = {}
        for one in row.robustness:
            start = [(0.0, row.scores["accuracy"])]
            curves.setdefault(one.perturbation, start).append((float(one.severity), one.scores["accuracy"]))
        for name, points in curves.items():
            control = row.family == CONTROL
            charts.setdefault(name, []).append(Series(row.method, series_of[row.method], sorted(points), control))
    if not charts:
        return None
    x, y = Axis("severity", 0.0, 5.0), Axis("accuracy", 0.0, 1.0)
    done = evidence.record.perturbations
    figures = [
        tag(
            "figure",
            tag("figcaption", tag("b", name)),
            plots.lines(series, x, y, f"accuracy against {name}"),
            tag("figcaption", f"{done[name]}.") if name in done else None,
        )
        for name, series in charts.items()
    ]
    used = dict.fromkeys(one.name for series in charts.values() for one in series if not one.control)
    key = plots.legend([(name, series_of[name]) for name in used])
    intro = "Accuracy when only the queries are perturbed. Severity 0: the unchanged queries."
    return joined(tag("p", intro), tag("div", key, tag("div", figures, class_="charts"), class_="plotted"))


def slices(findings: Findings) -> Markup | None:
    if not findings.slices:
        return None
    parts = [
        tag(
            "p",
            "Accuracy on parts of the queries, with 95 % intervals over labels (none for a part with only "
            "one label). Stronger colour: higher accuracy. There are many parts and some are small, so a few of them "
            "stand out by chance.",
        )
    ]
    first = [one for one in findings.slices if one.by in ALWAYS_OPEN]
    rest = sorted((one for one in findings.slices if one.by not in ALWAYS_OPEN), key=lambda one: -_told_apart(one))
    parts += [joined(tag("h3", f"By {one.about}"), _sliced(one)) for one in first]
    if rest:
        parts.append(tag("h3", "By other attributes of the queries"))
        note = (
            "Attributes with the largest difference come first (mean over the methods). Numbers are grouped "
            "into ranges with about equally many queries. |x| is x without its sign."
        )
        parts.append(tag("p", note, class_="note"))
    for number, one in enumerate(rest):
        title = f"{one.by}: {_told_apart(one):.2f} between best and worst"
        parts.append(tag("details", tag("summary", title), _sliced(one), open="" if number < FIRST_OPEN else None))
    return joined(*parts)


def _told_apart(one: Sliced) -> float:
    """Between the best and the worst part, in the mean over the methods."""
    means = [[score[SLICED].mean for score in part.scores.values()] for part in one.slices if part.name != "unknown"]
    by_part = [sum(part) / len(part) for part in means]
    return max(by_part) - min(by_part)


def _sliced(one: Sliced) -> Markup:
    names = list(one.slices[0].scores)
    order = list(one.slices)
    if one.by == "category":
        order.sort(key=lambda part: -part.queries)
    heads = [tag("th", one.by, scope="col")]
    heads += [column_of(name) for name in names]
    body = []
    for part in order[:MOST_GROUPS]:
        labels = f"{part.products:,} label{'s' if part.products > 1 else ''}"
        count = tag("span", f"{part.queries:,} queries, {labels}", class_="reach")
        group = tag("th", tag("span", part.name, class_="cut", title=part.name), count, scope="row")
        body.append(tag("tr", group, [_of_slice(part.scores[name][SLICED]) for name in names]))
    table = tag("div", tag("table", tag("thead", tag("tr", heads)), tag("tbody", body)), class_="scroll")
    left = len(order) - MOST_GROUPS
    note = f"{left} smaller parts are left out; `--format json` has them." if left > 0 else None
    return joined(table, tag("p", note, class_="note") if note else None)


def _of_slice(score: Score) -> Markup:
    reach = None
    if score.low is not None and score.high is not None:
        reach = tag("span", " to ".join(ends(score.low, score.high, 2)), class_="reach")
    return tag("td", f"{score.mean:.3f}", reach, class_=f"shade f{min(9, int(score.mean * 10))}")


def confusions(findings: Findings) -> Markup | None:
    if not findings.confusions:
        return None
    names = list(dict.fromkeys(one.classifier for one in findings.confusions))
    parts = [
        tag(
            "p",
            "How often queries of one label (rows) get another label (columns) as their prediction. Blue: right. Red: "
            "wrong. Stronger colour: larger share of the row. Below each picture: the most frequent mistakes.",
        )
    ]
    for classifier in names:
        ranked = sorted(
            (one for one in findings.confusions if one.classifier == classifier), key=lambda one: -one.accuracy
        )
        title = f"Classifier {classifier}" if classifier else "Nearest neighbour"
        first, rest = (ranked, []) if not classifier else (ranked[:4], ranked[4:])
        parts += [tag("h3", title), tag("div", [_confused(one) for one in first], class_="maps")]
        if rest:
            more = tag("div", [_confused(one) for one in rest], class_="maps")
            parts.append(tag("details", tag("summary", f"The other methods with {classifier}: {len(rest)}"), more))
    return joined(*parts)


def _confused(one: Confusion) -> Markup:
    title = tag("figcaption", tag("b", one.method), f" {one.accuracy:.3f} right")
    if len(one.labels) <= FEW_LABELS:
        shown = _counts(one)
    else:
        said = f"confusion matrix of {one.method}, {len(one.labels)} labels"
        shown = tag("img", src=heat_map(one.matrix), alt=said, class_="heat")
    mistakes = [
        tag("li", tag("span", f"{each.expected} → {each.found}"), tag("b", f"{each.count} of {each.of}"))
        for each in one.mistakes
    ]
    return tag("figure", title, shown, tag("ul", mistakes, class_="pairs") if mistakes else tag("p", "No mistake."))


def _counts(one: Confusion) -> Markup:
    heads = [tag("th", ""), *(tag("th", shortened(name, 10), scope="col", title=name) for name in one.labels)]
    body = []
    for row, name in enumerate(one.labels):
        total = max(int(one.matrix[row].sum()), 1)
        cells = []
        for column in range(len(one.labels)):
            count = int(one.matrix[row, column])
            strength = min(9, -(-9 * count // total))
            kind = f"shade f{strength}{'' if row == column else ' red'}" if count else None
            cells.append(tag("td", str(count) if count else "", class_=kind))
        body.append(tag("tr", tag("th", shortened(name, 14), scope="row", title=name), cells))
    return tag("div", tag("table", tag("thead", tag("tr", heads)), tag("tbody", body)), class_="scroll")


def rocs(findings: Findings, series_of: Mapping[str, int]) -> Markup | None:
    if not findings.rocs:
        return None
    figures = []
    for classifier in dict.fromkeys(one.classifier for one in findings.rocs):
        mine = [one for one in findings.rocs if one.classifier == classifier]
        series = [
            Series(
                one.method,
                series_of[one.method],
                list(zip(one.false_positive_rate.tolist(), one.macro.tolist(), strict=True)),
            )
            for one in mine
        ]
        x, y = Axis("false-positive rate", 0.0, 1.0), Axis("true-positive rate", 0.0, 1.0)
        drawn = plots.lines(series, x, y, f"ROC of {classifier}", diagonal=True)
        areas = "; ".join(f"{one.method} {'n/a' if one.area is None else f'{one.area:.3f}'}" for one in mine)
        figures.append(
            tag("figure", tag("figcaption", tag("b", classifier)), drawn, tag("figcaption", f"Area: {areas}."))
        )
    intro = (
        "ROC curves of each classifier: one label against all others, averaged over the labels (macro). The area is "
        "the probability that a query of a label scores higher than a query of another label; 0.5 is chance."
    )
    used = dict.fromkeys(one.method for one in findings.rocs)
    key = plots.legend([(name, series_of[name]) for name in used])
    return joined(tag("p", intro), tag("div", key, tag("div", figures, class_="charts"), class_="plotted"))
