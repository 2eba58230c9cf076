"""What every page has: head, policy, style sheet, heading with links, sections, foot."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from retrieval_bench.report.markup import Markup, tag
from retrieval_bench.report.style import policy, style_sheet


@dataclass(frozen=True)
class Section:
    """A part of the page: where it is linked to, its heading and what stands below."""

    anchor: str
    title: str
    body: Markup


def in_place(section: Section) -> Markup:
    """The section as it stands on a page."""
    return tag("section", tag("h2", section.title), section.body, id=section.anchor)


def whole_page(
    heading: str,
    lead: str,
    links: Sequence[tuple[str, str]],
    parts: Sequence[Markup],
    series: Iterable[int],
    foot: str,
) -> str:
    """A self-contained page as HTML.

    Args:
        heading: its title.
        lead: one line below it.
        links: anchor and text of each entry of the navigation.
        parts: what stands in it.
        series: numbers of the series that its charts have.
        foot: a sentence at the end.
    """
    navigation = tag("nav", tag("ul", [tag("li", tag("a", name, href=f"#{to}")) for to, name in links]))
    top = tag("header", tag("div", tag("h1", heading), tag("p", lead, class_="lead"), navigation))
    css = style_sheet(series)
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", http_equiv="Content-Security-Policy", content=policy(css)),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="color-scheme", content="light dark"),
        tag("meta", name="referrer", content="no-referrer"),
        tag("title", heading),
        tag("style", Markup(css)),
    )
    body = tag("body", top, tag("main", list(parts)), tag("footer", foot))
    return f"<!DOCTYPE html>\n{tag('html', head, body, lang='en')}\n"
