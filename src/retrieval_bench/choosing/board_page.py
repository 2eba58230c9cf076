"""A leaderboard as a page: the paragraph, the critical-difference diagram, scores, what carries over, strengths."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from retrieval_bench.choosing import board_text
from retrieval_bench.choosing.leaderboard import EVERYWHERE, OPEN, TURNS, BoardPair, Leaderboard
from retrieval_bench.report import plots
from retrieval_bench.report.markup import Markup, joined, tag
from retrieval_bench.report.page import small_table
from retrieval_bench.report.plots import Axis, Series
from retrieval_bench.report.rank_plot import RankReach, rank_plot
from retrieval_bench.report.shell import Section, in_place, whole_page

MOST_PAIRS = 60
_MARKS = {TURNS: "bad", EVERYWHERE: "good"}


def render(board: Leaderboard) -> str:
    """The page as HTML."""
    names = board_text.name_map(board).short
    series = {method: place for place, method in enumerate(board.methods)}
    sections = [
        Section("result", "Result", _result(board, names, series)),
        Section("scores", f"{board.metric} in each dataset", _scores(board, names)),
        Section("carries", "Which conclusions carry over", _carried(board, names)),
    ]
    if board.strengths:
        sections.append(Section("strengths", "Strength of each family", _strengths(board, series)))
    sections.append(Section("datasets", "Datasets and records", _datasets(board)))
    n = len(board.datasets)
    versions = ", ".join(dict.fromkeys(one.record.environment.version for one in board.datasets))
    return whole_page(
        f"Image retrieval over {n} datasets",
        f"{len(board.methods)} methods that all datasets have · ranked by {board.metric}",
        [(section.anchor, section.title) for section in sections],
        [in_place(section) for section in sections],
        series.values(),
        f"Made by retrieval_bench from records of version {versions}. This page loads nothing from the network.",
    )


def _result(board: Leaderboard, names: Mapping[str, str], series: Mapping[str, int]) -> Markup:
    rows = [RankReach(names[method], series[method], *board.mean_rank(method)) for method in board.methods]
    groups = {names[method]: letters for method, letters in board.tests.groups.items()}
    title = "Mean rank over datasets"
    if groups:
        told = "Bars on the right join methods that the datasets cannot tell apart (critical-difference diagram)."
    elif board.tests.enough:
        told = "No bars: with so few datasets no pair could be told apart, so a bar would say nothing."
    else:
        told = "No intervals and no bars: with so few datasets nothing can be concluded over datasets."
    chart = rank_plot(rows, groups, f"{title}: {', '.join(f'{row.name} {row.mean:.2f}' for row in rows)}")
    figure = tag("figure", tag("figcaption", tag("b", title)), chart, tag("figcaption", told))
    return joined(
        tag("p", board_text.paragraph(board)),
        [tag("p", sentence, class_="warn") for sentence in board.warnings],
        tag("div", figure, class_="charts two"),
        small_table(board_text.rank_grid(board)),
        tag("ul", [tag("li", sentence) for sentence in board_text.notes(board)], class_="sentences"),
    )


def _scores(board: Leaderboard, names: Mapping[str, str]) -> Markup:
    """A table, the stronger coloured the better the rank."""
    most = len(board.methods)
    heads = [tag("th", "method", scope="col")]
    heads += [tag("th", tag("span", one.name, class_="fold", title=one.name), scope="col") for one in board.datasets]
    body = []
    for place, method in enumerate(board.methods):
        cells = []
        for score, rank in zip(board.scores[:, place].tolist(), board.tests.ranks[:, place].tolist(), strict=True):
            shade = round(9 * (most - rank) / max(1, most - 1))
            shaded = f"shade f{shade}" if shade else None
            cells.append(tag("td", f"{score:.3f}", tag("span", f"rank {rank:g}", class_="reach"), class_=shaded))
        head = tag("th", tag("span", names[method], class_="cut", title=method), scope="row")
        body.append(tag("tr", head, cells))
    table = tag("table", tag("thead", tag("tr", heads)), tag("tbody", body))
    note = "Stronger colour: better rank in this dataset."
    return joined(tag("div", table, class_="scroll"), tag("p", note, class_="note"))


def _carried(board: Leaderboard, names: Mapping[str, str]) -> Markup:
    pairs = board_text.in_order(board)
    decided = [pair for pair in pairs if pair.state != OPEN]
    opens = [pair for pair in pairs if pair.state == OPEN]
    rest = None
    if opens:
        told = ", ".join(f"{names[pair.first]} : {names[pair.second]}" for pair in opens)
        rest = tag("details", tag("summary", f"{len(opens)} pairs that no dataset decides"), tag("p", told))
    cut = f"The first {MOST_PAIRS} of {len(decided)}; JSON has all." if len(decided) > MOST_PAIRS else None
    return joined(
        tag("p", board_text.CARRIES),
        _pair_table(decided[:MOST_PAIRS], board, names) if decided else tag("p", "No dataset decides any pair."),
        tag("p", cut, class_="note") if cut else None,
        rest,
    )


def _pair_table(pairs: Sequence[BoardPair], board: Leaderboard, names: Mapping[str, str]) -> Markup:
    """A line for each pair; a column for each dataset says by how much the first is better, bold where decided."""
    tested = board.tests.enough
    heads = ["pair", "carries over", *(["p over datasets"] if tested else [])]
    head = [tag("th", one, scope="col") for one in heads]
    head += [tag("th", tag("span", one.name, class_="fold", title=one.name), scope="col") for one in board.datasets]
    body = []
    for pair in pairs:
        said = f"{names[pair.first]} : {names[pair.second]}"
        cells = [tag("td", pair.state, class_=_MARKS.get(pair.state))]
        if tested:
            cells.append(tag("td", "n/a" if pair.p_holm is None else f"{pair.p_holm:.3f}"))
        for one in board.datasets:
            verdict = one.verdicts.get((pair.first, pair.second))
            if verdict is None:
                cells.append(tag("td", "n/a", class_="none"))
                continue
            reach = "" if verdict.low is None or verdict.high is None else f"{verdict.low:+.3f} to {verdict.high:+.3f}"
            value = f"{verdict.mean:+.3f}"
            cells.append(
                tag(
                    "td",
                    tag("b", value) if verdict.different else value,
                    tag("span", reach, class_="reach") if reach else None,
                    class_=None if verdict.different else "none",
                )
            )
        title = f"{pair.first} : {pair.second}"
        body.append(tag("tr", tag("th", tag("span", said, class_="cut", title=title), scope="row"), cells))
    table = tag("table", tag("thead", tag("tr", head)), tag("tbody", body))
    note = (
        f"{board.metric} of the first minus that of the second, with its interval over products. Bold: decided there."
    )
    return joined(tag("div", table, class_="scroll"), tag("p", note, class_="note"))


def _strengths(board: Leaderboard, series: Mapping[str, int]) -> Markup:
    figures = []
    values = [value for one in board.strengths for value in one.strengths]
    y = Axis("strength", *plots.around([*values, 0.0]))
    for wanted in dict.fromkeys(one.property for one in board.strengths):
        own = [one for one in board.strengths if one.property == wanted]
        across = [one.properties[wanted.key] for one in board.datasets]
        log = min(across) > 0 and max(across) / min(across) > 10
        x = Axis(f"{wanted.title}{', log scale' if log else ''}", *plots.around(across, log), log)
        clouds = [
            Series(one.family, series[one.member], sorted(zip(across, one.strengths, strict=True))) for one in own
        ]
        chart = plots.clouds(clouds, x, y, f"strength of each family against {wanted.title}")
        told = f"{wanted.about[:1].upper()}{wanted.about[1:]}."
        figures.append(tag("figure", tag("figcaption", tag("b", wanted.title)), chart, tag("figcaption", told)))
    members = dict.fromkeys((one.family, series[one.member]) for one in board.strengths)
    return joined(
        tag("p", board_text.STRENGTH),
        tag("div", plots.legend(list(members)), tag("div", figures, class_="charts"), class_="plotted"),
        small_table(board_text.strength_grid(board)),
    )


def _datasets(board: Leaderboard) -> Markup:
    named = [
        joined(tag("dt", one.name), tag("dd", ", ".join(evidence.name for evidence in one.evidences)))
        for one in board.datasets
    ]
    return joined(small_table(board_text.dataset_grid(board)), tag("dl", named, class_="facts key"))
