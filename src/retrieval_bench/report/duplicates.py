"""Groups of duplicates as one page that needs nothing else: no network, no script, images inside it."""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from retrieval_bench.report.markup import text

MOST_SHOWN = 200
"""Groups of each method on the page; the JSON beside it has all."""
MOST_MEMBERS = 24
"""Pictures of each group on the page, the one to keep among them."""

STYLE = """
:root { color-scheme: light dark; --ink: #1c1c1c; --paper: #fff; --line: #ddd; --soft: #666; }
@media (prefers-color-scheme: dark) { :root { --ink: #eee; --paper: #161616; --line: #3a3a3a; --soft: #aaa; } }
body { font: 15px/1.45 system-ui, sans-serif; color: var(--ink); background: var(--paper); margin: 2rem auto;
  max-width: 72rem; padding: 0 1rem; }
.wide { overflow-x: auto; } table { border-collapse: collapse; } th, td { padding: .25rem .75rem; text-align: right; }
th:first-child, td:first-child { text-align: left; } tr { border-bottom: 1px solid var(--line); }
section { border-top: 1px solid var(--line); padding: 1rem 0; } h2 { font-size: 1rem; margin: 0 0 .5rem; }
ul { display: flex; flex-wrap: wrap; gap: 1rem; list-style: none; margin: 0; padding: 0; }
li { width: 9.5rem; font-size: .8rem; overflow-wrap: anywhere; color: var(--soft); }
img { display: block; max-width: 9rem; max-height: 9rem; border: 1px solid var(--line); }
b { color: var(--ink); } .keep img { outline: 3px solid #2a7; } p { max-width: 46rem; }
@media (max-width: 30rem) { body { margin: 1rem auto; } ul { gap: .75rem; } li { width: 7rem; }
  img { max-width: 6.75rem; max-height: 6.75rem; } }
"""


def page(facts: Mapping[str, Any], thumbnail: Callable[[str], bytes | None]) -> str:
    """facts: what `dedupe` writes as JSON. thumbnail: an image's id -> JPEG bytes, None where it cannot be shown."""
    parts = [
        "<!doctype html>",
        '<html lang="en"><head><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        (
            '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; img-src data:; '
            "style-src 'unsafe-inline'\">"
        ),
        f"<title>Near-duplicates in {_text(facts['source'])}</title><style>{STYLE}</style></head><body>",
        f"<h1>Near-duplicates in {_text(facts['source'])}</h1>",
        (
            f"<p>{facts['images']:,} images, {facts['distinct']:,} distinct; {len(facts['unusable'])} cannot be used; "
            f"{facts['flat']:,} are flat, so that no method compares them.</p>"
        ),
        *(f"<p>{_text(notice)}</p>" for notice in facts["notices"]),
        _judgements(facts["methods"]),
        (
            "<p>Every two images of a group lie within the threshold; the diameter is the largest distance of two. "
            f"First is {_text(facts['keep'])}.</p>"
        ),
    ]
    for method in facts["methods"]:
        found, threshold = method["groups"], method["threshold"]
        near = "of equal pixels" if threshold is None else f"within {threshold:.4g}"
        title = f"{len(found):,} groups {near}" if found else f"no duplicate {near}"
        parts.append(f"<h1>{_text(method['method'])}: {title}</h1>")
        parts += [_group(number, group, thumbnail) for number, group in enumerate(found[:MOST_SHOWN], 1)]
        if len(found) > MOST_SHOWN:
            parts.append(f"<p>{len(found) - MOST_SHOWN:,} more groups are in the JSON beside this page.</p>")
    return "\n".join([*parts, "</body></html>"]) + "\n"


def _judgements(methods: Sequence[Mapping[str, Any]]) -> str:
    judged = [method for method in methods if method["judged"] is not None]
    if not judged:
        return "<p>The threshold was not measured.</p>"
    rows = "".join(
        f"<tr><td>{_text(method['method'])}</td><td>{method['threshold']:.4g}</td>"
        + "".join(f"<td>{method['judged']['held_out'][name]:.3f}</td>" for name in ("precision", "recall", "f1"))
        + f"<td>{method['judged']['false_per_million']:,.1f}</td><td>{method['judged']['alike_by_nature']:,}</td></tr>"
        for method in judged
    )
    return (
        '<div class="wide"><table><tr><th>method</th><th>threshold</th><th>precision</th><th>recall</th><th>F1</th>'
        f"<th>false pairs of a million</th><th>left out</th></tr>{rows}</table></div>"
        "<p>On planted copies whose originals are known, reckoned for a collection of this size of which "
        "one image in a hundred has a copy: "
        "the threshold was chosen on one half of them, "
        "the figures are of the other. Pairs of the collection that resemble each other by nature, or have one label, "
        "are left out: nobody has said whether they are duplicates. The precision is a lower bound as to other "
        "duplicates that are in it already.</p>"
    )


def _group(number: int, group: Mapping[str, Any], thumbnail: Callable[[str], bytes | None]) -> str:
    items, members = [], group["members"]
    for place, item in enumerate(members[:MOST_MEMBERS]):
        picture = thumbnail(item["id"])
        shown = "" if picture is None else f'<img alt="" src="data:image/jpeg;base64,{_encoded(picture)}">'
        keep = "<b>keep</b> " if place == 0 else ""
        size = f"{item['width']} x {item['height']}, {item['bytes']:,} bytes"
        label = f"<br>label {_text(item['label'])}" if item.get("label") is not None else ""
        kind = ' class="keep"' if place == 0 else ""
        items.append(f"<li{kind}>{shown}{keep}{_text(item['id'])}<br>{size}{label}</li>")
    more = f"<p>{len(members) - MOST_MEMBERS:,} more images are in the JSON.</p>" if len(members) > MOST_MEMBERS else ""
    several = f", {group['labels']} labels" if group.get("labels", 1) > 1 else ""
    about = f"{len(members):,} images, diameter {group['diameter']:.4g}{several}"
    return f"<section><h2>Group {number}: {about}</h2><ul>{''.join(items)}</ul>{more}</section>"


def _encoded(picture: bytes) -> str:
    return base64.b64encode(picture).decode()


def _text(words: object) -> str:
    return text(str(words))
