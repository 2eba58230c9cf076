"""HTML and SVG put together safely: what is not `Markup` is text, and text is escaped, wherever it came from."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable

from markupsafe import Markup as Markup
from markupsafe import escape

VOID = frozenset({"meta", "img", "br", "wbr", "col"})
_HIDDEN = frozenset({"Cc", "Cf", "Cs", "Co", "Zl", "Zp"})


Child = Markup | str | int | None | Iterable["Child"]


def visible(text: str) -> str:
    """The text with every character that shows nothing, or that turns the writing direction, as U+XXXX in brackets.

    File names and labels may hold them: a name that reads right to left would disguise what follows it. New lines and
    tabs become blanks.
    """
    return "".join(
        " " if letter in "\n\r\t" else f"[U+{ord(letter):04X}]" if unicodedata.category(letter) in _HIDDEN else letter
        for letter in text
    )


def text(content: str) -> Markup:
    """Any text as HTML, fit for an element and for an attribute in double quotes."""
    return escape(visible(content))


def joined(*children: Child) -> Markup:
    """Children one after the other; None is nothing, Markup stays, everything else is text."""
    parts: list[str] = []
    for child in children:
        if child is None:
            continue
        if isinstance(child, Markup):
            parts.append(child)
        elif isinstance(child, str):
            parts.append(text(child))
        elif isinstance(child, int):
            parts.append(str(child))
        else:
            parts.append(joined(*child))
    return Markup("".join(parts))


def tag(name: str, /, *children: Child, **attributes: str | float | None) -> Markup:
    """`tag("td", "a < b", class_="number")`: a trailing _ is dropped, other _ become -, None leaves the attribute out.

    Raises ValueError for an attribute that could run something (on...) or that styles inline: the policy forbids both.
    """
    written = []
    for key, value in attributes.items():
        key = key.rstrip("_").replace("_", "-")
        if key.startswith("on") or key == "style":
            raise ValueError(f"attribute {key} is not allowed")
        if value is not None:
            written.append(f' {key}="{text(value if isinstance(value, str) else _number(value))}"')
    opening = f"<{name}{''.join(written)}>"
    return Markup(opening) if name in VOID else Markup(f"{opening}{joined(*children)}</{name}>")


def _number(value: float) -> str:
    """At most two digits behind the point: coordinates need no more, and pages stay small."""
    return f"{value:.2f}".rstrip("0").rstrip(".") if isinstance(value, float) else str(value)
