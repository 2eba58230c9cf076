"""A plug-in whose import ends the process is a failed plug-in, and one that was tried is not tried again."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from retrieval_bench.plugins import importing, loading
from retrieval_bench.plugins.loading import load_files, load_installed, plugins
from retrieval_bench.registry import EXTRACTORS, fill
from tests.support.command import call
from tests.support.plugins import HEAD, METHOD, installed, method_file

pytestmark = pytest.mark.usefixtures("no_plugin_stays")
fill()

posix = pytest.mark.skipif(sys.platform == "win32", reason="signals end processes on POSIX alone")
DEADLY = [
    ("os._exit(0)", "a process that tried to import it ended itself with exit code 0"),
    ("os._exit(3)", "a process that tried to import it ended itself with exit code 3"),
    ("print('alive', flush=True); os._exit(3)", "ended itself with exit code 3"),
    pytest.param("os.kill(os.getpid(), 11)", "was ended by SIGSEGV (an invalid memory access)", marks=posix),
]


@pytest.mark.parametrize(("code", "reason"), DEADLY)
def test_a_file_that_ends_the_process_has_its_reason(tmp_path: Path, code: str, reason: str) -> None:
    (tmp_path / "deadly.py").write_text(f"{HEAD}import os\n{METHOD.format(name='half')}\n{code}\n", encoding="utf-8")
    deadly, good = load_files([tmp_path / "deadly.py", method_file(tmp_path / "good.py")])
    assert deadly.reason.endswith(reason)
    assert good.status == "loaded"
    assert "half" not in EXTRACTORS


def test_an_installed_module_that_ends_the_process_has_its_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    installed(tmp_path, "deadly-methods", "deadly_methods", "import os\nos._exit(4)\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(loading, "_installed_loaded", False)
    load_installed()
    (found,) = [one for one in plugins() if one.name == "deadly_methods"]
    assert found.reason == "a process that tried to import it ended itself with exit code 4"


def test_the_command_goes_on_without_it(tmp_path: Path) -> None:
    (tmp_path / "deadly.py").write_text("import os\nos._exit(5)\n", encoding="utf-8")
    told = call("list", "plugins", "--plugin", tmp_path / "deadly.py")
    assert told.exit_code == 0
    failure = "plug-in deadly.py failed to import: a process that tried to import it ended itself with exit code 5"
    assert failure in " ".join(told.output.split())


def test_what_was_survived_is_not_tried_again_until_it_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RETRIEVAL_BENCH_CACHE", str(tmp_path / "cache"))
    tried: list[str] = []
    started = importing.started

    def noted(code: str, arguments: list[str], inherited: tuple[()]) -> object:
        tried.extend(arguments)
        return started(code, arguments, inherited)

    monkeypatch.setattr(importing, "started", noted)
    file = method_file(tmp_path / "mine.py")
    assert load_files([file])[0].status == "loaded"
    importing.refuse_deadly(str(file), {file: file.read_bytes()})
    assert tried == [str(file)]
    method_file(file, "other-mean")
    assert load_files([file])[0].status == "loaded"
    assert tried == [str(file)] * 2


def test_a_process_that_works_for_another_tries_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RETRIEVAL_BENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(importing, "works_for_another", lambda: True)
    monkeypatch.setattr(importing, "started", None)
    assert load_files([method_file(tmp_path / "mine.py")])[0].status == "loaded"


def test_without_a_cache_it_is_tried_each_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("RETRIEVAL_BENCH_CACHE", os.path.join(tmp_path, "file", "below"))
    assert load_files([method_file(tmp_path / "mine.py")])[0].status == "loaded"
