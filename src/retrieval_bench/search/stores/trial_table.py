"""A trial as three tables of at most 100 columns, and what their figures are."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from retrieval_bench.search.stores.trial import SHARES, StoreResult

WIDTH = 100


def lines(results: Sequence[StoreResult], k: int) -> list[str]:
    """All tables, with a line of explanation under each; stores that failed stand below, with their sentences."""
    good = [result for result in results if not result.failed]
    out: list[str] = []
    if good:
        heads = ["store", "insert rows/s", "index s", "B/row", "p50 ms", "p95 ms", f"recall@{k}", "x raw SQL"]
        out += _table(heads, map(_costs, good))
        out += ["Inserts are batches of 1,000 rows before there is an index; p50, p95: one query at a time.", ""]
        heads = [f"recall@{k}, filter keeps", *(f"{share} %" for share in SHARES), "20 % in again"]
        out += _table(heads, (line for result in good for line in _filters(result)))
        out += ["Among the rows that the filter keeps; in again: all rows, a fifth deleted and inserted again.", ""]
        heads = ["store", "killed", "acknowledged", "lost", "torn", "searches", "errors", "p50 ms", "writes/s"]
        out += _table(heads, map(_lasting, good))
        out += [
            "killed: by kill -9 while it inserted; lost: acknowledged rows that were gone; torn: half batches.",
        ]
        if any(result.durability is not None and result.durability.killed == "connection" for result in good):
            out.append("connection: the server is not ours to kill; the writer's connection was cut in an insert.")
        out += [
            "searches: of 4 readers while a writer inserted writes/s rows a second, in batches of 100.",
        ]
        told = {result.store: result.readers.first_error for result in good if result.readers is not None}
        out += [f"{store}: first error: {sentence}" for store, sentence in told.items() if sentence]
    out += [f"{result.store} failed: {result.failed}" for result in results if result.failed]
    return out


def _costs(result: StoreResult) -> list[str]:
    times = [_shown(result.index_s, "{:.1f}"), _shown(result.bytes_per_row, "{:,.0f}")]
    times += [_shown(result.p50_ms, "{:.2f}"), _shown(result.p95_ms, "{:.2f}")]
    found = [_shown(result.recall, "{:.3f}"), _shown(result.over_raw, "{:.2f}")]
    return [result.store, _shown(result.insert_rows_s, "{:,.0f}"), *times, *found]


def _filters(result: StoreResult) -> list[list[str]]:
    rows = []
    for name, known in result.filtered.items():
        again = _shown(result.recall_reinserted, "{:.3f}") if name == result.store else "-"
        rows.append([name, *(_shown(known.get(share), "{:.3f}") for share in SHARES), again])
    return rows


def _lasting(result: StoreResult) -> list[str]:
    kept, met = result.durability, result.readers
    left = ["-"] * 4 if kept is None else [kept.killed, str(kept.acknowledged), str(kept.lost + kept.before)]
    left += [] if kept is None else [str(kept.torn)]
    if met is None:
        return [result.store, *left, *["-"] * 4]
    return [
        result.store,
        *left,
        f"{met.searches:,}",
        str(met.errors),
        _shown(met.p50_ms, "{:.2f}"),
        f"{met.written_per_s:,.0f}",
    ]


def _shown(value: float | None, form: str) -> str:
    return "-" if value is None else form.format(value)


def _table(heads: list[str], rows: Iterable[list[str]]) -> list[str]:
    """Cells in columns; a name that leaves no room goes on a line of its own."""
    body = list(rows)
    widths = [max(len(row[at]) for row in (heads, *body)) for at in range(len(heads))]
    others = sum(widths[1:]) + 2 * len(widths[1:])
    widths[0] = min(widths[0], WIDTH - others)
    pad: Callable[[str, int], str] = str.rjust
    out = []
    for row in (heads, ["─" * width for width in widths], *body):
        cells = "".join(f"  {pad(cell, width)}" for cell, width in zip(row[1:], widths[1:], strict=True))
        if len(row[0]) > widths[0]:
            out.append(row[0])
            row = ["", *row[1:]]
        out.append(f"{row[0]:{widths[0]}}{cells}".rstrip())
    return out
