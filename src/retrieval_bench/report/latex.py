"""Tables of records for papers: booktabs, with everything that LaTeX would read as a command escaped."""

from __future__ import annotations

from collections.abc import Sequence

from retrieval_bench.report.combined import combined
from retrieval_bench.report.evidence import Evidence
from retrieval_bench.report.markup import visible
from retrieval_bench.report.table import caption, columns, grid

_SPECIAL = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    **{letter: f"\\{letter}" for letter in "&%$#_{}"},
}


def escaped(text: str) -> str:
    """Any text as LaTeX shows it, on one line."""
    return "".join(_SPECIAL.get(letter, letter) for letter in visible(text))


def latex(evidences: Sequence[Evidence]) -> str:
    """One table of records of the same data, else one a record; what stands below a table is its caption."""
    together = combined(evidences)
    if len(evidences) > 1 and together.comparable:
        return _needs() + _table(together.heads, together.lines, [together.sentence], 2)
    tables = []
    for evidence in evidences:
        shown = columns(evidence.record)
        heads = ["method", *(column.head for column in shown)]
        tables.append(_table(heads, grid(evidence.record, shown), caption(evidence.record), 1))
    return _needs() + "\n".join(tables)


def _needs() -> str:
    return "% \\usepackage{booktabs}\n"


def _table(heads: Sequence[str], lines: Sequence[Sequence[str]], below: Sequence[str], left: int) -> str:
    kinds = "l" * left + "r" * (len(heads) - left)
    body = [" & ".join(map(escaped, cells)) + r" \\" for cells in lines]
    said = " ".join(escaped(sentence) if sentence.endswith(".") else escaped(f"{sentence}.") for sentence in below)
    return "\n".join(
        [
            r"\begin{table}",
            r"\centering",
            rf"\begin{{tabular}}{{{kinds}}}",
            r"\toprule",
            " & ".join(map(escaped, heads)) + r" \\",
            r"\midrule",
            *body,
            r"\bottomrule",
            r"\end{tabular}",
            rf"\caption{{{said}}}",
            r"\end{table}",
            "",
        ]
    )
