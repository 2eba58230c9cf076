"""Putting duplicates away and bringing them back: nothing is ever lost, whenever it is interrupted."""

from __future__ import annotations

import errno
import json
import os
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest

from retrieval_bench.core import BenchError
from retrieval_bench.data_audit import apply as applying
from retrieval_bench.data_audit.apply import apply, planned, undo, write_journal
from tests.support.command import call
from tests.support.pictures import photo_of

pytestmark = [
    pytest.mark.usefixtures("own_cache"),
    pytest.mark.skipif(sys.platform == "win32", reason="links and names that Windows has not"),
]

ODD = "new\nline \x1b[31m.png"


@pytest.fixture
def heap(tmp_path: Path) -> Path:
    """Six pictures; of 0 a byte copy and a smaller one, of 1 a byte copy by an odd name in a folder, of 2 a link."""
    folder = tmp_path / "heap"
    (folder / "sub").mkdir(parents=True)
    for number in range(6):
        photo_of(90, 120, number).save(folder / f"{number}.png")
    shutil.copy(folder / "0.png", folder / "sub" / "0-copy.png")
    photo_of(90, 120, 0).resize((60, 45)).save(folder / "0-small.png")
    shutil.copy(folder / "1.png", folder / "sub" / ODD)
    (folder / "2-link.png").symlink_to(folder / "2.png")
    os.utime(folder / "sub" / "0-copy.png", ns=(10**18, 10**18))
    (folder / "sub" / "0-copy.png").chmod(0o640)
    return folder


def below(folder: Path, files: list[Path]) -> list[Path]:
    return [file.relative_to(folder) for file in files]


def state(*folders: Path) -> dict[str, Any]:
    """Every file below: its content, time and mode, and which others are the same file."""
    found: dict[str, Any] = {}
    for folder in folders:
        for file in sorted(folder.rglob("*")):
            status = file.lstat()
            key = str(file.relative_to(folder.parent))
            if file.is_symlink():
                found[key] = os.readlink(file)
            elif file.is_file():
                found[key] = file.read_bytes(), status.st_mtime_ns, status.st_mode, status.st_nlink
    return found


def contents(*folders: Path) -> set[bytes]:
    return {one[0] for one in state(*folders).values() if isinstance(one, tuple)}


def dedupe(*words: object) -> Any:
    return call("dedupe", *words, "--within", 6)


def test_a_dry_run_says_all_of_it_and_changes_nothing(heap: Path, tmp_path: Path) -> None:
    before = state(tmp_path)
    result = dedupe(heap, tmp_path / "gone", "--apply", "move")
    assert result.exit_code == 0, result.stderr
    home = os.path.realpath(heap)
    assert f"move {home}/0-small.png to {tmp_path.resolve()}/gone/0-small.png (stays: {home}/0.png)" in result.stdout
    assert "new\\nline \\x1b[31m.png" in result.stdout
    assert "\x1b" not in result.stdout
    assert "3 files to move" in result.stdout
    assert "Nothing was changed" in result.stdout
    linking = dedupe(heap, "--apply", "hardlink")
    assert "2 files to become hard links" in linking.stdout
    assert f"leave {home}/0-small.png: not byte for byte equal" in linking.stdout
    listed = dedupe(heap, "--apply", "list")
    assert "keep 0.png" in listed.stdout
    assert state(tmp_path) == before
    facts = json.loads(dedupe(heap, "--apply", "hardlink", "--json").stdout)["apply"]
    assert (facts["dry_run"], len(facts["steps"]), len(facts["left"])) == (True, 2, 1)
    words = ("--apply", "hardlink", "--yes", "--undo-file", tmp_path / "undo", "--json")
    done = dedupe(heap, *words)
    assert json.loads(done.stdout)["apply"]["dry_run"] is False
    assert "2 files linked" in done.stderr


@pytest.mark.parametrize("action", ["hardlink", "move"])
def test_it_is_done_and_undone(heap: Path, tmp_path: Path, action: str) -> None:
    before = state(heap)
    journal, to = tmp_path / "undo.jsonl", tmp_path / "gone"
    words = [heap, *([to] if action == "move" else []), "--apply", action, "--yes", "--undo-file", journal]
    done = dedupe(*words)
    assert done.exit_code == 0, done.stderr
    assert str(journal) in done.stderr
    assert contents(heap, to) == {one[0] for one in before.values() if isinstance(one, tuple)}
    if action == "move":
        assert sorted(file.relative_to(to).as_posix() for file in to.rglob("*.png")) == [
            *("0-small.png", "sub/0-copy.png", f"sub/{ODD}")
        ]
        assert not (heap / "sub" / ODD).exists()
    else:
        assert os.path.samefile(heap / "0.png", heap / "sub" / "0-copy.png")
        assert os.path.samefile(heap / "1.png", heap / "sub" / ODD)
        assert not os.path.samefile(heap / "0.png", heap / "0-small.png")
    again = dedupe(heap, *words[1:-1], tmp_path / "second.jsonl")
    assert again.exit_code == 0, again.stderr
    assert not (tmp_path / "second.jsonl").exists(), "there is nothing left to do"
    for _ in range(2):  # undone once, and once more
        back = call("dedupe", "--undo", journal)
        assert back.exit_code == 0, back.stderr
        assert state(heap) == before
    assert not to.exists()


class Stop(BaseException):
    pass


@pytest.mark.parametrize("action", ["hardlink", "move"])
@pytest.mark.parametrize("other_system", [False, pytest.param(True, marks=pytest.mark.slow(reason="each change"))])
def test_interrupted_anywhere_nothing_is_lost(
    heap: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, action: str, other_system: bool
) -> None:
    """Stopped before each single change of the file system, then gone on with or undone, which is stopped likewise."""
    if other_system:
        if action == "hardlink":
            pytest.skip("hard links stay on one file system")
        pretend_another_system(monkeypatch, tmp_path / "gone")
    before, journal, to = state(heap), tmp_path / "undo.jsonl", tmp_path / "gone"
    names = sorted(file for file in heap.rglob("*") if file.is_file() and not file.is_symlink())
    by_name = {file.name: row for row, file in enumerate(names)}
    groups = [[by_name[name] for name in group] for group in (("0.png", "0-copy.png", "0-small.png"), ("1.png", ODD))]
    from retrieval_bench.images.reading import ImageFiles

    def plan() -> applying.ApplyPlan:
        there = [[row for row in group if names[row].exists()] for group in groups]
        return planned(action, heap, to, there, below(heap, names), ImageFiles(names))  # type: ignore[arg-type]

    whole = {one[0] for one in before.values() if isinstance(one, tuple)}
    stops = 0
    for at in range(100):
        whole_plan = plan()
        journal.unlink(missing_ok=True)
        write_journal(whole_plan, journal)
        with monkeypatch.context() as patch:
            counter = stop_before(patch, at)
            finished = True
            try:
                apply(whole_plan, lambda done, total: None)
            except Stop:
                finished, stops = False, stops + 1
        assert whole <= contents(heap, to), f"lost after change {at}"
        if at % 2:  # go on, then take all of it back
            rest = plan()
            assert apply(rest, lambda done, total: None).failed == ()
        with monkeypatch.context() as patch:
            stop_before(patch, at // 2)
            try:
                undo(journal, lambda done, total: None)
            except Stop:
                assert whole <= contents(heap, to)
        assert undo(journal, lambda done, total: None).failed == ()
        assert state(heap) == before, f"stopped before change {at}"
        assert not to.exists()
        if finished:
            assert counter() <= at
            break
    assert stops >= (6 if action == "hardlink" or other_system else 3)


def stop_before(patch: pytest.MonkeyPatch, at: int) -> Any:
    """The at-th change of the file system does not come to pass any more."""
    made = 0
    whole = ("link", "replace", "rename", "unlink", "chmod", "utime")

    def counted(function: Any) -> Any:
        def call(*words: Any, **options: Any) -> Any:
            nonlocal made
            if made == at:
                made += 1
                raise Stop
            made += made < at
            return function(*words, **options)

        return call

    for name in whole:
        patch.setattr(os, name, counted(getattr(os, name)))
    for name in ("copyfile", "copy2"):
        patch.setattr(shutil, name, counted(getattr(shutil, name)))
    return lambda: made


def pretend_another_system(monkeypatch: pytest.MonkeyPatch, to: Path) -> None:
    """Below this folder, renaming from elsewhere fails and the device has another number, as on a second disk."""
    real, rename, root = Path.stat, os.rename, str(to)

    def stat(self: Path, **words: Any) -> os.stat_result:
        status = real(self, **words)
        if not str(self).startswith(root):
            return status
        return os.stat_result((*status[:2], 77, *status[3:]))

    def strict(source: Any, target: Any) -> None:
        if str(source).startswith(root) != str(target).startswith(root):
            raise OSError(errno.EXDEV, "Invalid cross-device link")
        rename(source, target)

    monkeypatch.setattr(Path, "stat", stat)
    monkeypatch.setattr(os, "rename", strict)


def test_what_has_changed_meanwhile_is_left_alone(heap: Path, tmp_path: Path) -> None:
    from retrieval_bench.images.reading import ImageFiles

    names = [heap / "0.png", heap / "sub" / "0-copy.png", heap / "1.png", heap / "sub" / ODD]
    linking = planned("hardlink", heap, None, [[0, 1], [2, 3]], below(heap, names), ImageFiles(names))
    moving = planned("move", heap, tmp_path / "gone", [[0, 1], [2, 3]], below(heap, names), ImageFiles(names))
    names[1].write_bytes(b"edited")
    (outcome) = apply(linking, lambda done, total: None)
    assert outcome.failed == ((os.path.realpath(names[1]), "it has changed since it was compared"),)
    assert names[1].read_bytes() == b"edited"
    names[0].unlink()
    assert len(apply(moving, lambda done, total: None).failed) == 1
    assert names[1].read_bytes() == b"edited"


def planned_for(action: str, heap: Path, to: Path | None, *groups: tuple[str, ...]) -> applying.ApplyPlan:
    from retrieval_bench.images.reading import ImageFiles

    names = sorted(file for file in heap.rglob("*") if file.is_file() and not file.is_symlink())
    rows = {file.name: row for row, file in enumerate(names)}
    wanted = [[rows[name] for name in group] for group in groups]
    return planned(action, heap, to, wanted, below(heap, names), ImageFiles(names))  # type: ignore[arg-type]


def test_a_file_that_was_edited_after_the_plan_is_not_moved(heap: Path, tmp_path: Path) -> None:
    plan = planned_for("move", heap, tmp_path / "gone", ("0.png", "0-copy.png"))
    (heap / "sub" / "0-copy.png").write_bytes(b"edited")
    outcome = apply(plan, lambda done, total: None)
    assert [why for _, why in outcome.failed] == ["it has changed since it was compared"]
    assert (heap / "sub" / "0-copy.png").read_bytes() == b"edited"


def test_a_backup_of_the_folder_loses_nothing_to_a_move(heap: Path, tmp_path: Path) -> None:
    """Its equal files are in the places that are wanted: neither of two equal files may go."""
    backup = tmp_path / "backup"
    shutil.copytree(heap, backup, symlinks=True)
    before = state(heap, backup)
    journal = tmp_path / "undo.jsonl"
    result = dedupe(heap, backup, "--apply", "move", "--yes", "--undo-file", journal)
    assert result.exit_code == 0, result.stderr
    assert "an equal file is there already" in result.stdout
    assert state(heap, backup) == before
    assert not journal.exists(), "nothing was to be done"


def test_a_place_that_is_taken_after_the_plan_is_left_alone(heap: Path, tmp_path: Path) -> None:
    to = tmp_path / "gone"
    plan = planned_for("move", heap, to, ("0.png", "0-copy.png"))
    (to / "sub").mkdir(parents=True)
    shutil.copy2(heap / "sub" / "0-copy.png", to / "sub" / "0-copy.png")
    before = state(heap, to)
    assert "exists by now" in apply(plan, lambda done, total: None).failed[0][1]
    assert state(heap, to) == before


def test_the_folder_around_is_no_place_to_move_to(heap: Path, tmp_path: Path) -> None:
    before = state(tmp_path)
    result = dedupe(heap / "sub", heap, "--apply", "move", "--yes")
    assert (result.exit_code, "lies in" in result.stderr) == (2, True)
    assert state(tmp_path) == before


def test_a_file_with_further_names_stays(heap: Path, tmp_path: Path) -> None:
    os.link(heap / "sub" / "0-copy.png", tmp_path / "elsewhere.png")
    for action, to in (("hardlink", None), ("move", tmp_path / "gone")):
        plan = planned_for(action, heap, to, ("0.png", "0-copy.png"))
        assert plan.steps == ()
        assert "further names" in plan.left[0][1]


def test_a_file_that_is_gone_is_told(heap: Path, tmp_path: Path) -> None:
    from retrieval_bench.images.reading import ImageFiles

    names = [heap / "0.png", heap / "sub" / "0-copy.png"]
    images = ImageFiles(names)
    assert images.digest(0) == images.digest(1)
    names[1].unlink()
    plan = planned("move", heap, tmp_path / "gone", [[0, 1]], below(heap, names), images)
    assert plan.steps == ()
    assert "any more" in plan.left[0][1]


def test_undo_of_links_never_says_as_they_were_where_they_are_not(heap: Path, tmp_path: Path) -> None:
    copy, journal = heap / "sub" / "0-copy.png", tmp_path / "undo.jsonl"
    before = state(heap)
    plan = planned_for("hardlink", heap, None, ("0.png", "0-copy.png"))
    write_journal(plan, journal)
    assert apply(plan, lambda done, total: None).failed == ()
    (heap / "0.png").rename(heap / "renamed.png")
    assert undo(journal, lambda done, total: None).failed == ()
    assert copy.stat().st_nlink == 1, "the one that stays has another name now, and is parted from all the same"
    (heap / "renamed.png").rename(heap / "0.png")
    assert state(heap) == before
    assert apply(plan, lambda done, total: None).failed == ()
    with (heap / "0.png").open("ab") as file:
        file.write(b"edited")
    assert "edited after it was linked" in undo(journal, lambda done, total: None).failed[0][1]
    assert os.path.samefile(copy, heap / "0.png")


def test_nothing_is_overwritten(heap: Path, tmp_path: Path) -> None:
    to = tmp_path / "gone"
    (to / "sub").mkdir(parents=True)
    (to / "sub" / "0-copy.png").write_bytes(b"of somebody")
    refused = dedupe(heap, to, "--apply", "move", "--yes")
    assert refused.exit_code == 2
    assert "exists already and is another file" in refused.stderr
    assert (to / "sub" / "0-copy.png").read_bytes() == b"of somebody"
    (to / "sub" / "0-copy.png").unlink()
    journal = tmp_path / "undo.jsonl"
    assert dedupe(heap, to, "--apply", "move", "--yes", "--undo-file", journal).exit_code == 0
    (heap / "0-small.png").write_bytes(b"new")
    back = call("dedupe", "--undo", journal)
    assert back.exit_code == 2
    assert "1 files were left as they are" in back.stderr
    assert (heap / "0-small.png").read_bytes() == b"new"
    assert (to / "0-small.png").is_file()
    assert to.is_dir(), "it was there before"


def test_an_animation_is_not_moved_for_a_still(heap: Path, tmp_path: Path) -> None:
    frames = [photo_of(45, 60, number) for number in (5, 3)]
    frames[0].save(heap / "moving.gif", save_all=True, append_images=frames[1:])
    frames[0].save(heap / "still.gif")
    result = dedupe(heap, tmp_path / "gone", "--apply", "move")
    assert "moving.gif: an animation or several pages" in result.stdout
    assert "still.gif to" in result.stdout


def test_links_are_compared_and_never_touched(tmp_path: Path) -> None:
    inside, outside = tmp_path / "in", tmp_path / "out"
    inside.mkdir()
    outside.mkdir()
    for number in range(5):
        photo_of(90, 120, number).save(outside / f"{number}.png")
        (inside / f"a{number}.png").symlink_to(outside / f"{number}.png")
    photo_of(90, 120, 0).resize((60, 45)).save(inside / "small.png")
    (inside / "folder").symlink_to(outside)
    before = state(inside, outside)
    result = dedupe(
        inside, tmp_path / "gone", "--allow-outside", "--apply", "move", "--yes", "--undo-file", tmp_path / "undo"
    )
    assert result.exit_code == 0, result.stderr
    assert "a link, or reached through one" in result.stdout
    assert state(inside, outside) == before


def test_mistakes_are_one_sentence(heap: Path, tmp_path: Path) -> None:
    journal = tmp_path / "undo.jsonl"
    journal.write_text("{}\n")
    for words, sentence in (
        ((), "name a dataset or a folder"),
        ((heap, "--apply", "move"), "needs a folder to move to"),
        ((heap, tmp_path / "gone"), "for --apply move alone"),
        ((heap, "--yes"), "--yes needs --apply"),
        ((heap, heap / "below", "--apply", "move"), "lies in"),
        ((heap, heap / "0.png", "--apply", "move"), "lies in"),
        ((heap, journal, "--apply", "move"), "is a file"),
        (("products", "--apply", "hardlink"), "works on a folder of images"),
        (("products", "--labels", "folders"), "a dataset has its labels"),
        ((heap, "--apply", "hardlink", "--methods", "phash,dhash"), "needs one method"),
        ((heap, "--apply", "hardlink", "--yes", "--undo-file", journal), "exists already"),
        (("--undo", journal), "no journal"),
        (("--undo", tmp_path / "none"), "cannot be read"),
        ((heap, "--undo", journal), "stands alone"),
    ):
        result = call("dedupe", *words)
        assert (result.exit_code, sentence in result.stderr) == (2, True), (words, result.stderr)


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_cannot_be_written_is_told(heap: Path, tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o500)
    result = dedupe(heap, closed / "gone", "--apply", "move", "--yes", "--undo-file", tmp_path / "undo")
    assert result.exit_code == 2
    assert "Permission denied" in result.stderr


def test_a_journal_that_cannot_be_written_stops_all_of_it(heap: Path, tmp_path: Path) -> None:
    before = state(heap)
    (tmp_path / "file").write_text("")
    result = dedupe(heap, "--apply", "hardlink", "--yes", "--undo-file", tmp_path / "file" / "undo")
    assert result.exit_code == 2
    assert "--undo-file" in result.stderr
    assert state(heap) == before
    with pytest.raises(BenchError, match="exists already"):
        write_journal(planned("hardlink", heap, None, [], [], None), tmp_path / "file")  # type: ignore[arg-type]
