"""The worked examples of docs/embeddings.md run as they stand there, and print what it says."""

from __future__ import annotations

import re
import shlex
import socket
from pathlib import Path

import pytest

from tests.support.command import call
from tests.support.paths import ROOT
from tests.support.shop import shelf_at

pytestmark = pytest.mark.long(reason="every command of the page, six runs")

PAGE = (ROOT / "docs" / "embeddings.md").read_text(encoding="utf-8")


def test_the_examples_of_the_page_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shelf_at(tmp_path / "my_shop")
    monkeypatch.chdir(tmp_path)
    scope: dict[str, object] = {}
    printed = ""
    with socket.socket() as free:  # the page's port may be taken
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    for language, block in re.findall(r"```(python)?\n(.*?)```", PAGE.replace("8123", port), re.S):
        if language:
            exec(compile(block, "embeddings.md", "exec"), scope)
            continue
        for line in block.splitlines():
            words = shlex.split(line)
            assert words[:3] == ["python", "-m", "benchmark"]
            result = call(*words[3:])
            assert result.exit_code == 0, result.output
            printed += result.output
    assert "12.5 (stated)" in printed
    said = re.search(r"Below the table it says [^`]*`([^`]*)`", PAGE)
    assert said is not None
    assert said[1] in printed
    assert "failed" not in printed
    assert "its times include the call to the service" in printed
    assert "1,000 images cost 0.2, as stated" in printed
    scope["service"].shutdown()  # type: ignore[attr-defined]
    scope["service"].server_close()  # type: ignore[attr-defined]
