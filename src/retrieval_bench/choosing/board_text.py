"""A leaderboard in words: a paragraph, tables, for a terminal, as Markdown and as JSON."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from retrieval_bench.choosing.leaderboard import EVERYWHERE, OPEN, SOMEWHERE, TURNS, BoardPair, Leaderboard
from retrieval_bench.evaluation.across_datasets import FEWEST_DATASETS
from retrieval_bench.report.lines import aligned, shortened, three_digits, with_short_names, wrapped
from retrieval_bench.report.names import Names, names_of
from retrieval_bench.report.table import in_a_cell

SCHEMA_VERSION = 1
LEVEL_TOLD = "95 %"
MOST_NAMED = 4

HOW = (
    "Rank: 1 is the best in its dataset, equal scores share the mean of their ranks. Interval: bootstrap over "
    "datasets. Groups and p: "
    "signed-rank test over datasets, one observation each, Holm's correction over all pairs. First: the highest "
    "score, ties included."
)
CARRIES = (
    "Within a dataset a pair is decided where its queries tell the two apart (paired sign-flip test over products, "
    "Holm's correction). "
    f"{EVERYWHERE}: decided the same way in all datasets. {SOMEWHERE}: decided in some, the other way in none. "
    f"{TURNS}: decided one way "
    f"here and the other way there. {OPEN}: decided nowhere."
)
STRENGTH = (
    "A family stands for its method with the best mean rank. Strength: that method's score minus the mean of all "
    "families' methods, in "
    "the same dataset. Low and high: means over the half of the datasets with less and with more of the property."
)


def name_map(board: Leaderboard) -> Names:
    """What methods are called where there is no room."""
    return names_of([*board.methods, *board.absent])


def text(board: Leaderboard) -> str:
    """All of it for a terminal of 80 columns."""
    lines = [*wrapped(paragraph(board)), "", *aligned(with_short_names(rank_grid(board))), ""]
    lines += [*aligned(with_short_names(score_grid(board, wide=False))), ""]
    if pairs := pair_grid(board)[1:]:
        lines += [*aligned(with_short_names([pair_grid(board)[0], *pairs[:12]])), ""]
        lines += [f"  and {len(pairs) - 12} pairs more; --format md or html has them", ""] if len(pairs) > 12 else []
    if len(strong := strength_grid(board)) > 1:
        lines += [*aligned(with_short_names(strong)), ""]
    lines += [line for sentence in notes(board) for line in wrapped(sentence, "  ", "    ")]
    lines += [line for sentence in board.warnings for line in wrapped(f"warning: {sentence}", "  ", "    ")]
    return "\n".join(lines)


def markdown(board: Leaderboard) -> str:
    """All of it for a document."""
    parts = [f"# Leaderboard over {len(board.datasets)} datasets\n", f"{in_a_cell(paragraph(board))}\n"]
    parts += [f"> {in_a_cell(sentence)}\n" for sentence in board.warnings]
    sections = (
        ("Mean ranks", rank_grid(board)),
        (f"{board.metric} in each dataset", score_grid(board)),
        ("Datasets", dataset_grid(board)),
        ("Which conclusions carry over", pair_grid(board)),
        ("Strength of each family", strength_grid(board)),
    )
    for title, grid in sections:
        if len(grid) > 1:
            parts.append(f"## {title}\n\n{_as_table(grid)}")
    parts.append("".join(f"- {in_a_cell(sentence)}\n" for sentence in notes(board)))
    return "\n".join(parts)


def _as_table(grid: Sequence[Sequence[str]]) -> str:
    heads, *lines = grid
    marks = ["---", *["---:"] * (len(heads) - 1)]
    return "".join(f"| {' | '.join(map(in_a_cell, cells))} |\n" for cells in (heads, marks, *lines))


def rank_grid(board: Leaderboard) -> list[list[str]]:
    """Heads, then a line for each method."""
    names = name_map(board).short
    several = bool(board.tests.groups)
    grid = [["method", "mean rank", LEVEL_TOLD, *(["group"] if several else []), "first", "mean", "family"]]
    for place, method in enumerate(board.methods):
        mean, low, high = board.mean_rank(method)
        reach = "n/a" if low is None or high is None else f"{low:.2f}-{high:.2f}"
        letters = [board.tests.groups[method]] if several else []
        score = f"{board.scores[:, place].mean():.3f}"
        grid.append(
            [names[method], f"{mean:.2f}", reach, *letters, str(board.wins[method]), score, board.families[method]]
        )
    return grid


def score_grid(board: Leaderboard, wide: bool = True) -> list[list[str]]:
    """Heads, then a line for each method: its score in each dataset, with its rank. wide: with whole names."""
    names = name_map(board).short
    room = 40 if wide else 14
    grid = [["method", *(shortened(one.name, room) for one in board.datasets)]]
    for place, method in enumerate(board.methods):
        cells = [
            f"{score:.3f} ({rank:g})"
            for score, rank in zip(board.scores[:, place].tolist(), board.tests.ranks[:, place].tolist(), strict=True)
        ]
        grid.append([names[method], *cells])
    return grid


def dataset_grid(board: Leaderboard) -> list[list[str]]:
    """Heads, then a line for each dataset: what it is like."""
    keys = list(dict.fromkeys(key for one in board.datasets for key in one.properties))
    grid = [["dataset", *keys, "queries", "records", "fingerprint"]]
    for one in board.datasets:
        cells = [three_digits(one.properties[key]) if key in one.properties else "n/a" for key in keys]
        facts = one.record.dataset
        grid.append([one.name, *cells, f"{facts.images.query:,}", str(len(one.evidences)), facts.fingerprint[:12]])
    return grid


def in_order(board: Leaderboard) -> list[BoardPair]:
    """Pairs: what turns around first, then what holds, then what is open; those with more datasets before others."""
    order = (TURNS, EVERYWHERE, SOMEWHERE, OPEN)
    return sorted(board.pairs, key=lambda pair: (order.index(pair.state), len(pair.opens)))


def pair_grid(board: Leaderboard) -> list[list[str]]:
    """Heads, then a line for each pair, the better first."""
    names = name_map(board).short
    tested = board.tests.enough
    grid = [["pair", "for the 1st", "for the 2nd", "open", *(["p, datasets"] if tested else []), "carries over"]]
    for pair in in_order(board):
        counts = [str(len(where)) for where in (pair.first_in, pair.second_in, pair.opens)]
        p = [] if not tested or pair.p_holm is None else [f"{pair.p_holm:.3f}{' *' if pair.different else ''}"]
        grid.append([f"{names[pair.first]} : {names[pair.second]}", *counts, *p, pair.state])
    return grid


def strength_grid(board: Leaderboard) -> list[list[str]]:
    """Heads, then a line for each property and family."""
    tested = board.tests.enough
    grid = [["family", "property", "low", "high", "high - low", *(["rho", "p"] if tested else [])]]
    for one in board.strengths:
        known = one.rho is not None and one.p_holm is not None
        more = [f"{one.rho:+.2f}", f"{one.p_holm:.3f}"] if tested and known else []
        cells = [f"{one.low:+.3f}", f"{one.high:+.3f}", f"{one.high - one.low:+.3f}", *more]
        grid.append([one.family, one.property.title, *cells])
    return grid


def paragraph(board: Leaderboard) -> str:
    """The leaderboard in plain words."""
    names = name_map(board).short
    count, n = len(board.methods), len(board.datasets)
    first = board.methods[0]
    mean, low, high = board.mean_rank(first)
    reach = "" if low is None or high is None else f" (95 % interval {low:.2f} to {high:.2f})"
    told = [
        (
            f"Of {count} methods over {n} datasets, {names[first]} has the best mean rank by {board.metric}, "
            f"{mean:.2f}{reach}; "
            f"it is first in {board.wins[first]} of {n}."
        )
    ]
    return " ".join([*told, *_concluded(board), *_carried(board)])


def _concluded(board: Leaderboard) -> list[str]:
    """What the tests over datasets say, or why they say nothing."""
    tests, n = board.tests, len(board.datasets)
    if not tests.enough:
        return [
            (
                f"Over {n} datasets nothing can be concluded: with fewer than {FEWEST_DATASETS} there is no test, no "
                "interval and no group. "
                f"For {len(board.pairs)} pairs, at least {tests.needed} datasets are needed before one pair can differ."
            )
        ]
    told = [f"That all methods are equally good over such datasets has p = {tests.friedman:.4f} (Friedman)."]
    if not tests.can_differ:
        told.append(
            f"With {n} datasets no pair can be told apart: {len(board.pairs)} pairs need at least {tests.needed} "
            "datasets, even where "
            "one method is better in every one. So no groups are drawn."
        )
        return told
    apart = sum(pair.different for pair in board.pairs)
    told.append(f"Over datasets, {apart} of {len(board.pairs)} pairs differ significantly.")
    return told


def _carried(board: Leaderboard) -> list[str]:
    counts = Counter(pair.state for pair in board.pairs)
    names = name_map(board).short
    same, some, around, none = (counts[state] for state in (EVERYWHERE, SOMEWHERE, TURNS, OPEN))
    told = [
        f"Within the datasets, of {len(board.pairs)} pairs {same} are decided the same way everywhere, {some} in "
        "some and " + f"nowhere the other way, {around} turn around, and {none} are open."
    ]
    turned = [pair for pair in in_order(board) if pair.state == TURNS][:MOST_NAMED]
    told += [
        f"{names[pair.first]} is better than {names[pair.second]} in {', '.join(pair.first_in)} and worse in "
        f"{', '.join(pair.second_in)}."
        for pair in turned
    ]
    return told


def notes(board: Leaderboard) -> list[str]:
    """What is told below the tables."""
    names = name_map(board)
    told = [HOW, CARRIES]
    if board.strengths:
        told.append(STRENGTH)
        about = dict.fromkeys(f"{one.property.title}: {one.property.about}" for one in board.strengths)
        told.append(f"{'; '.join(about)}.")
        if not board.tests.enough:
            told.append(
                f"With {len(board.datasets)} datasets, low and high are single datasets or two: they show what was "
                "seen, and prove nothing."
            )
    missing = [key for key in ("colour", "texture") if not all(key in one.properties for one in board.datasets)]
    if missing:
        told.append(
            f"Not measured: {' and '.join(missing)} of the images; --look 100 does, where the images are at hand."
        )
    by_place: dict[tuple[str, ...], list[str]] = {}
    for method, where in board.absent.items():
        by_place.setdefault(where, []).append(names.short[method])
    told += [f"Not ranked, as not in {', '.join(where)}: {', '.join(own)}." for where, own in by_place.items()]
    if board.left_out:
        told.append(f"Left out: {'; '.join(board.left_out)}.")
    parts = names.of([*board.methods, *board.absent])
    told += [f"{part}: {meaning}." for part, meaning in parts.items()]
    return told


def as_data(board: Leaderboard) -> dict[str, Any]:
    """For JSON."""
    tests = board.tests
    return {
        "schema_version": SCHEMA_VERSION,
        "metric": board.metric,
        "datasets": [
            {
                "name": one.name,
                "fingerprint": one.record.dataset.fingerprint,
                "records": [evidence.name for evidence in one.evidences],
                "properties": dict(one.properties),
            }
            for one in board.datasets
        ],
        "methods": [
            {
                "method": method,
                "family": board.families[method],
                "mean_rank": board.mean_rank(method)[0],
                "low": board.mean_rank(method)[1],
                "high": board.mean_rank(method)[2],
                "group": tests.groups.get(method),
                "wins": board.wins[method],
                "scores": board.scores[:, place].tolist(),
                "ranks": tests.ranks[:, place].tolist(),
            }
            for place, method in enumerate(board.methods)
        ],
        "concluded": tests.enough,
        "datasets_needed": tests.needed,
        "friedman_p": tests.friedman,
        "pairs": [
            {
                "first": pair.first,
                "second": pair.second,
                "first_in": list(pair.first_in),
                "second_in": list(pair.second_in),
                "open_in": list(pair.opens),
                "carries_over": pair.state,
                "p_holm": pair.p_holm,
                "different": pair.different,
            }
            for pair in board.pairs
        ],
        "strengths": [
            {
                "family": one.family,
                "member": one.member,
                "property": one.property.key,
                "strengths": list(one.strengths),
                "low": one.low,
                "high": one.high,
                "rho": one.rho,
                "p_holm": one.p_holm,
            }
            for one in board.strengths
        ],
        "absent": {method: list(where) for method, where in board.absent.items()},
        "left_out": list(board.left_out),
        "warnings": list(board.warnings),
        "paragraph": paragraph(board),
    }
