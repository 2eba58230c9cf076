"""A hook of mkdocs: pages that lie outside docs/ become pages of the site, and links work there as in the repository.

README.md is the home page, so that nothing is written twice. A link in a Markdown file is relative to that file in the
repository; here it becomes relative to the page of the site.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File

ROOT = Path(__file__).resolve().parents[1]
PAGES = {
    "README.md": "index.md",
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "SECURITY.md": "security.md",
    "THIRD_PARTY_LICENSES.md": "third-party-licenses.md",
    "LICENSE": "license.md",
    **{
        f"results/{kind}/README.md": f"records-{kind}.md"
        for kind in ("reference", "ablation", "grocery-test", "turned")
    },
}
"""File of the repository -> page of the site."""
FILES = {page: file for file, page in PAGES.items()}
LINK = re.compile(r"(\]\()(?![a-z]+:|#)([^)\s#]+)")


def on_files(files: Any, config: Any) -> Any:
    for file, page in PAGES.items():
        text = (ROOT / file).read_text(encoding="utf-8")
        files.append(File.generated(config, page, content=text if file.endswith(".md") else f"# {file}\n\n{text}"))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:
    here = page.file.src_uri
    folder = posixpath.dirname(FILES.get(here, f"docs/{here}"))

    def moved(link: re.Match[str]) -> str:
        target = posixpath.normpath(posixpath.join(folder, link[2]))
        there = PAGES.get(target, target.removeprefix("docs/"))
        return link[1] + posixpath.relpath(there, posixpath.dirname(here) or ".")

    return LINK.sub(moved, markdown)
