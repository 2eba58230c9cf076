"""Advice in words: one paragraph, a table that fits 80 columns, the lines below it, and all of it as JSON."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from retrieval_bench.choosing.candidates import Candidate
from retrieval_bench.choosing.cost_table import FAR_MARK
from retrieval_bench.choosing.power import POWER
from retrieval_bench.choosing.recommend import SAME_TIME, Advice, Limit, Loosening, Undecided, machine_of
from retrieval_bench.choosing.telling_apart import PairVerdict
from retrieval_bench.report.lines import aligned, signed, three_digits, with_short_names, wrapped

SCHEMA_VERSION = 1
NOT_KNOWN = "n/a"
FRONT_MARK = "*"
MOST_NAMED = 4
MOST_PRODUCTS = 1_000_000
MOST_UNDECIDED = 3

TAKE, AS_GOOD, WORSE, OPEN = "take", "as good", "worse", "open"
HOW = (
    f"{FRONT_MARK}: on the Pareto front, no other row is as good in quality, time, bytes and learning and better in "
    f"one. {AS_GOOD}: not told apart from the best that fits (paired sign-flip test over products, Holm's correction "
    f"over all pairs). The cheapest of these is taken: by p95 of a query, where {100 * SAME_TIME:.0f} % count as "
    "equal, then bytes, then learning. fit s: what the run learned; weights that were trained before it are not in it."
)
MODEL = (
    "Time at more images than were measured: decoding and description as measured; search as --costs measured it, else "
    "from what it takes already to what it takes if all of it grows in proportion to the number of images (along a "
    "graph, to its logarithm). A row fits where the most does."
)


def text(advice: Advice) -> str:
    """All of it for a terminal of 80 columns."""
    lines = [*wrapped(paragraph(advice)), "", *aligned(with_short_names(grid(advice))), ""]
    lines += [line for sentence in notes(advice) for line in wrapped(sentence, rest="  ")]
    lines += [line for sentence in advice.warnings for line in wrapped(f"warning: {sentence}", rest="  ")]
    return "\n".join(lines)


def grid(advice: Advice) -> list[list[str]]:
    """Heads, then a line for each candidate."""
    lines = [["method", advice.question.prefer, "p95 ms", "B/image", "fit s", "advice"]]
    for one in advice.candidates:
        mark = f" {FRONT_MARK}" if one.name in advice.front else ""
        cells = [f"{one.name}{mark}", f"{one.quality:.3f}", p95(one)]
        lines.append([*cells, _amount(one.bytes_per_image), _amount(one.fit_s), standing(advice, one)])
    return lines


def standing(advice: Advice, one: Candidate) -> str:
    """What becomes of a candidate, in a word or three."""
    if one is advice.take:
        return TAKE
    if one in advice.group:
        return AS_GOOD
    if one in advice.fitting:
        return WORSE
    over = [_SHORT[limit.key] for limit in advice.question.limits if _exceeds(limit, one) and not limit.open_for(one)]
    if over:
        return f"over {' '.join(over)}"
    unknown = [_SHORT[key] for key in _missing(advice, one)]
    return f"no {' '.join(unknown)}" if unknown else f"{_SHORT['p95_ms']} {OPEN}"


_SHORT = {"p95_ms": "p95", "bytes_per_image": "B", "fit_s": "fit"}


def _missing(advice: Advice, one: Candidate) -> list[str]:
    return [limit.key for limit in advice.question.limits if limit.of(one) is None]


def _exceeds(limit: Limit, one: Candidate) -> bool:
    value = limit.of(one)
    return value is not None and value > limit.most


def p95(one: Candidate) -> str:
    """The time, from least to most, with the mark of one that lies far beyond what was measured."""
    if one.p95_ms is None:
        return NOT_KNOWN
    least, most = three_digits(one.p95_least_ms or one.p95_ms), three_digits(one.p95_ms)
    return (FAR_MARK if one.far else "") + (most if least == most else f"{least}-{most}")


def paragraph(advice: Advice) -> str:
    """The advice in plain words."""
    return " ".join([*(_taken(advice) if advice.take is not None else _nothing_fits(advice)), *_limits_told(advice)])


def _taken(advice: Advice) -> list[str]:
    take, best, group, metric = advice.take, advice.best, advice.group, advice.question.prefer
    assert take is not None
    assert best is not None
    fits, everything = len(advice.fitting), len(advice.candidates)
    asked = _asked(advice)
    told = [f"Take {take.name}."]
    if asked:
        told.append(f"Of {everything} methods, {fits} {'keeps' if fits == 1 else 'keep'} within {asked}.")
    elif everything > 1:
        told.append(f"No limit was given, so all {everything} methods can be chosen from.")
    cost = f"{p95(take)} ms at the 95th percentile, {_amount(take.bytes_per_image)} bytes an image, {_learning(take)}"
    quickest = min(group, key=lambda one: one.price)
    if quickest.p95_ms is not None and take.p95_ms is not None and quickest.p95_ms < take.p95_ms:
        cost += f" ({p95(quickest)} ms of {quickest.name} count as equal)"
    others = [one for one in group if one is not take]
    if not others:
        lead = (
            f"It has the best {metric} of these, {take.quality:.3f}"
            if fits > 1
            else f"Its {metric} is {take.quality:.3f}"
        )
        told.append(f"{lead}{', and each of the others is significantly worse' if fits > 1 else ''}. It costs {cost}.")
        return told
    if take is best:
        told.append(
            f"It has the best {metric} of these, {take.quality:.3f}. The queries cannot tell {_names(others)} from it, "
            f"and of this group it is the cheapest: {cost}."
        )
    else:
        verdict = advice.telling.between(best, take)
        told.append(
            f"The best {metric} of these is {best.quality:.3f}, of {best.name}. The queries cannot tell "
            f"{_names([one for one in group if one is not best])} from it, and of this group {take.name} is the "
            f"cheapest: {cost}. Its {metric} is {take.quality:.3f}{_reach(verdict, advice)}."
        )
    return told


def _reach(verdict: PairVerdict, advice: Advice) -> str:
    """Of the difference best minus taken."""
    if verdict.low is None or verdict.high is None:
        return ""
    sure = f"{100 * advice.telling.level:.0f} % interval {signed(-verdict.high)} to {signed(-verdict.low)}"
    return f", a difference of {signed(-verdict.mean)} ({sure})"


def _learning(one: Candidate) -> str:
    if one.fit_s is None:
        return "an unknown time of learning"
    return "nothing to learn" if one.fit_s == 0 else f"{three_digits(one.fit_s)} s of learning"


def _nothing_fits(advice: Advice) -> list[str]:
    unsure = any(limit.open_for(one) for limit in advice.question.limits for one in advice.candidates)
    what, keeps = ("Nothing is sure to fit", "is sure to keep") if unsure else ("Nothing fits", "keeps")
    told = [f"{what}: none of {len(advice.candidates)} methods {keeps} within {_asked(advice)}."]
    if advice.nearest is None:
        if all(limit.most for limit in advice.question.limits):
            return [*told, "Of each, the record lacks a number that a limit asks for."]
        return [*told, "Each takes more than a limit of 0, or the record lacks a number that a limit asks for."]
    one, factor = advice.nearest
    over = [
        f"{_value(limit, one)} {limit.unit} where {limit.most:,.10g} are allowed"
        for limit in advice.question.limits
        if _exceeds(limit, one)
    ]
    metric = advice.question.prefer
    may = all(limit.holds(one) or limit.open_for(one) for limit in advice.question.limits)
    told.append(
        f"The nearest {'is' if may else 'miss is'} {one.name}, {metric} {one.quality:.3f}: it takes "
        f"{' and '.join(over)}, "
        f"{f'so it may fit, or take up to {_times(factor)} the limit' if may else f'{_times(factor)} the limit'}."
    )
    best = max(advice.candidates, key=lambda other: other.quality)
    if best is not one:
        missed = [f"{_value(limit, best)} {limit.unit}" for limit in advice.question.limits if _exceeds(limit, best)]
        told.append(f"The best by {metric}, {best.name} with {best.quality:.3f}, takes {' and '.join(missed)}.")
    most = advice.question.max_p95_ms
    timed = [c.measured_p95_ms for c in advice.candidates if c.estimated and c.measured_p95_ms is not None]
    if most is not None and timed and min(timed) <= most and not advice.approximate:
        told.append(
            "What grows is exact search, and no row searches by an index: `cost RECORD --images "
            f"{advice.question.images:.10g} --backends faiss:hnsw` measures what both would take."
        )
    return told


def _times(factor: float) -> str:
    return f"{factor:,.1f} times" if factor < 100 else f"{factor:,.0f} times"


def _value(limit: Limit, one: Candidate) -> str:
    return p95(one) if limit.key == "p95_ms" else _amount(limit.of(one))


def _most(limit: Limit) -> str:
    return f"{limit.most:,.10g} {limit.unit}"


def _asked(advice: Advice) -> str:
    limits = [f"{_most(limit)}" for limit in advice.question.limits]
    images = advice.question.images
    among = "" if images is None else f" among {images:,.0f} images"
    return f"{_and(limits)}{among}" if limits else ""


def _limits_told(advice: Advice) -> list[str]:
    if not advice.loosenings:
        return []
    binding = [one for one in advice.loosenings if one.lets_in is not None]
    if not binding:
        assert advice.best is not None
        better = [one for one in advice.candidates if one.quality > advice.best.quality]
        if not better:
            return ["No method left out is better."]
        return [f"To let a better one in ({_names(better)}), more than one limit would have to be loosened."]
    return [_loosened(one, advice) for one in binding]


def _loosened(one: Loosening, advice: Advice) -> str:
    assert one.lets_in is not None
    assert one.to is not None
    assert advice.best is not None
    gain = f"{advice.question.prefer} {one.lets_in.quality:.3f} in place of {advice.best.quality:.3f}"
    different = one.verdict is not None and one.verdict.different
    real = "a significant difference" if different else "which these records cannot tell apart"
    value = (
        _amount(one.to) if one.limit.key != "p95_ms" else (FAR_MARK if one.lets_in.far else "") + three_digits(one.to)
    )
    return (
        f"The limit of {_most(one.limit)} binds: with {value} {one.limit.unit}, {one.lets_in.name} would come in, "
        f"{gain}, {real}."
    )


def notes(advice: Advice) -> list[str]:
    """Sentences below the table: short names, what is not decided, what was not tried, how it is judged."""
    told = [f"{part} = {meaning}" for part, meaning in advice.parts.items()]
    told += [f"Not decided: {sentence}" for sentence in undecided(advice)]
    if advice.left_out:
        told.append(f"Left out: {'; '.join(advice.left_out)}.")
    tried = [f"{kind} {', '.join(names)}" for kind, names in advice.not_tried.items()]
    if tried:
        told.append(f"Not tried: {'; '.join(tried)}.")
    machines = dict.fromkeys(map(machine_of, advice.records))
    if len(machines) == 1:
        told.append(f"Times: {next(iter(machines))}.")
    if any(one.estimated for one in advice.candidates):
        told.append(MODEL)
    told.append(HOW)
    return told


def undecided(advice: Advice) -> list[str]:
    """What the data cannot decide, and what would decide it."""
    told = [_of_pair(one, advice) for one in advice.undecided[:MOST_UNDECIDED]]
    if more := len(advice.undecided) - MOST_UNDECIDED:
        told += [f"{more} more pairs of the group (--json has them)."] if more > 0 else []
    for limit in advice.question.limits:
        unsure = [one.name for one in advice.candidates if limit.open_for(one) and standing(advice, one).endswith(OPEN)]
        if unsure:
            told.append(
                f"whether {_names_of(unsure)} {'keeps' if len(unsure) == 1 else 'keep'} within {_most(limit)}: the "
                "record says it of fewer images only; measure it by `cost`, and give --costs what it wrote."
            )
    for title in dict.fromkeys(title for titles in advice.unknown.values() for title in titles):
        names = [name for name, titles in advice.unknown.items() if title in titles]
        why = "it was read from the cache, or not timed" if title == "fit" else "it was not measured"
        told.append(f"whether {_names_of(names)} {'keeps' if len(names) == 1 else 'keep'} the limit of {title}: {why}.")
    return told


def _of_pair(one: Undecided, advice: Advice) -> str:
    verdict = one.verdict
    ends = ""
    if verdict.low is not None and verdict.high is not None:
        ends = f" ({100 * advice.telling.level:.0f} % {signed(verdict.low)} to {signed(verdict.high)})"
    return f"{one.first.name} or {one.second.name}, {signed(verdict.mean)}{ends}: {_needed(verdict, advice)}."


def _needed(verdict: PairVerdict, advice: Advice) -> str:
    if verdict.p_holm is None:
        return "they were not compared query by query, which takes the rankings of their records"
    if verdict.needed is None or math.isinf(verdict.needed):
        return "no difference was seen, so no number of products is known to show one"
    there = advice.telling.clusters or 0
    more = max(1, math.ceil(verdict.needed) - there)
    count = f"about {_rounded(more):,}" if more <= MOST_PRODUCTS else f"more than {MOST_PRODUCTS:,}"
    return (
        f"{count} products more than the {there:,} would decide it with a power of {100 * POWER:.0f} %, if the "
        "difference seen is the true one"
    )


def _rounded(count: int) -> int:
    """Two digits: more would say that it is known so well."""
    step = 10 ** max(0, len(str(count)) - 2)
    return -(-count // step) * step


def _amount(value: float | None) -> str:
    if value is None:
        return NOT_KNOWN
    return f"{value:,.0f}" if value == round(value) else three_digits(value)


def _names(some: Sequence[Candidate]) -> str:
    return _names_of([one.name for one in some])


def _names_of(names: Sequence[str]) -> str:
    if len(names) > MOST_NAMED:
        return f"{', '.join(names[: MOST_NAMED - 1])} and {len(names) - MOST_NAMED + 1} others"
    return _and(names)


def _and(words: Sequence[str]) -> str:
    return " and ".join(filter(None, [", ".join(words[:-1]), *words[-1:]]))


def as_data(advice: Advice) -> dict[str, Any]:
    """Everything as plain data for JSON. A number that is not known, or without end, is null."""
    return {
        "schema_version": SCHEMA_VERSION,
        "question": asdict(advice.question),
        "records": [
            {
                "name": name,
                "fingerprint": record.dataset.fingerprint,
                "gallery": record.dataset.images.gallery,
                "machine": machine_of(record),
            }
            for name, record in zip(advice.record_names, advice.records, strict=True)
        ],
        "products": advice.telling.clusters,
        "fits": bool(advice.fitting),
        "take": None if advice.take is None else advice.take.name,
        "best": None if advice.best is None else advice.best.name,
        "group": [one.name for one in advice.group],
        "front": [one.name for one in advice.candidates if one.name in advice.front],
        "rows": [_row(advice, one) for one in advice.candidates],
        "limits": [_limit(one) for one in advice.loosenings],
        "nearest_miss": None
        if advice.nearest is None
        else {"name": advice.nearest[0].name, "times_the_limit": advice.nearest[1]},
        "undecided": [
            {
                "first": one.first.name,
                "second": one.second.name,
                **_verdict(one.verdict),
                "products_needed": None
                if one.verdict.needed is None or math.isinf(one.verdict.needed)
                else math.ceil(one.verdict.needed),
                "power": POWER,
            }
            for one in advice.undecided
        ],
        "left_out": list(advice.left_out),
        "not_tried": dict(advice.not_tried),
        "warnings": list(advice.warnings),
        "paragraph": paragraph(advice),
    }


def _row(advice: Advice, one: Candidate) -> dict[str, Any]:
    limits = advice.question.limits
    return {
        **{key: value for key, value in asdict(one).items() if key not in ("record", "low", "high")},
        "record": advice.record_names[one.record],
        "low": one.low,
        "high": one.high,
        "fits": one in advice.fitting,
        "over": [limit.key for limit in limits if _exceeds(limit, one) and not limit.open_for(one)],
        "open": [limit.key for limit in limits if limit.open_for(one)],
        "unknown": _missing(advice, one),
        "standing": standing(advice, one),
    }


def _limit(one: Loosening) -> dict[str, Any]:
    return {
        "limit": one.limit.key,
        "most": one.limit.most,
        "binds": one.lets_in is not None,
        "loosened_to": one.to,
        "lets_in": None if one.lets_in is None else one.lets_in.name,
        **({} if one.verdict is None else _verdict(one.verdict)),
    }


def _verdict(verdict: PairVerdict) -> dict[str, Any]:
    return {
        "difference": verdict.mean,
        "low": verdict.low,
        "high": verdict.high,
        "p_holm": verdict.p_holm,
        "different": verdict.different,
    }
