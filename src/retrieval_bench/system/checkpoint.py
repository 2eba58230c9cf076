"""Files of a training: weights that carry where they are from, and the state that a killed run goes on with.

The weights file is a plain state dict, as torchvision and `weights.load` read it; what it was trained on stands in the
dict's `_metadata`, which torch keeps for notes of this kind. All is read with `weights_only=True`.
"""

from __future__ import annotations

import io
import json
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from retrieval_bench.core import BenchError, printable
from retrieval_bench.system.files import write_whole

NOTE = "retrieval_bench.training"
"""Key in `_metadata`; no module can have this name."""
FORMAT = 1


def save_weights(path: Path, state: Any, facts: Mapping[str, Any]) -> None:
    """state: a state dict of tensors. facts: JSON-able; see `train.facts`. Whole or not at all; raises BenchError."""
    noted = OrderedDict(state)
    # torch keeps there what it knows of a state dict, and saves it; there is no public word for it.
    metadata = OrderedDict(getattr(state, "_metadata", {}))
    metadata[NOTE] = {"format": FORMAT, "facts": json.dumps(facts, allow_nan=False)}
    noted._metadata = metadata  # type: ignore[attr-defined] # noqa: SLF001
    _write(path, noted, "weights")


def facts_of(state: Any) -> dict[str, Any] | None:
    """What a state dict (as `weights.load` returns it) says of its training; None where it was not trained here.

    Raises BenchError where the note is none of `save_weights`.
    """
    note = getattr(state, "_metadata", {}).get(NOTE)
    if note is None:
        return None
    try:
        facts: dict[str, Any] = json.loads(note["facts"])
        known = note["format"] == FORMAT and {"dataset", "images"} <= facts.keys()
    except (AttributeError, KeyError, TypeError, ValueError):
        known = False
    if not known:
        raise BenchError(
            "this program cannot read the notes on training in the weights file, so it cannot know which images it "
            f"learned from; the notes must have format {FORMAT}: train again, or save only the state dict"
        )
    return facts


def read_facts(path: Path) -> dict[str, Any] | None:
    """The same, of a file. Raises BenchError where it is none of weights."""
    return facts_of(_read(path, "name a file of weights that `train` wrote"))


def refuse_own_images(facts: Mapping[str, Any] | None, digests: Iterable[str], name: str) -> None:
    """Raise BenchError where a query is one of the images that a network was trained on or chosen by.

    facts: of the weights file; None passes. digests: sha256 (hex) of the contents of the query images. name: the
    method, for the sentence.
    """
    if facts is None:
        return
    known = set(facts["images"])
    shared = [digest for digest in digests if digest in known]
    if shared:
        raise BenchError(
            f"{name}: {len(shared)} of the query images are among the {len(known)} that its weights were trained on "
            f"(dataset {facts['dataset']}); such a score says nothing about new images; use other queries, or train "
            "again without these images"
        )


def save_state(path: Path, identity: Mapping[str, Any], state: Mapping[str, Any]) -> None:
    """What `restore_state` gives back; written beside its place and renamed, so that a kill leaves the last one."""
    _write(
        path, {"format": FORMAT, "identity": json.dumps(identity, sort_keys=True), "state": dict(state)}, "checkpoint"
    )


def restore_state(path: Path, identity: Mapping[str, Any], called: Mapping[str, str] | None = None) -> dict[str, Any]:
    """The state of a run of the same identity. Raises BenchError that names what differs.

    called: key of the identity -> its name for the user, where this is another.
    """
    found = _read(path)
    if not isinstance(found, dict) or found.get("format") != FORMAT or not {"identity", "state"} <= found.keys():
        raise BenchError(f"--resume: {printable(path)} is not a checkpoint of this program; train without --resume")
    before = json.loads(found["identity"])
    now = json.loads(json.dumps(identity))
    for key in sorted(before.keys() | now.keys()):
        if before.get(key) != now.get(key):
            name = (called or {}).get(key, key)
            raise BenchError(
                f"--resume: {printable(path)} was written with {name} = {_short(before.get(key))} and this run has "
                f"{_short(now.get(key))}; give the same value, or train without --resume"
            )
    return dict(found["state"])


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _write(path: Path, content: Any, what: str) -> None:
    import torch

    buffer = io.BytesIO()
    torch.save(content, buffer)
    try:
        write_whole(path, buffer.getvalue())
    except BenchError as error:
        size = f"{buffer.tell() / 2**20:.1f} MiB"
        if what == "weights":
            kept = "; free some space and continue with --resume: the checkpoint of the last epoch is still there"
        else:
            kept = "; the checkpoint of the epoch before is still there" if path.is_file() else ""
        raise BenchError(f"{what} of {size} cannot be saved: {error}{kept}") from None


def _read(path: Path, advice: str = "remove it and train without --resume") -> Any:
    import torch

    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise BenchError(f"{printable(path)}: no such file; train without --resume, or name another") from None
    except Exception as error:  # whatever the first wrong byte leads to
        reason = str(error).partition("\n")[0].partition(". ")[0]
        raise BenchError(
            f"{printable(path)} cannot be read as a checkpoint ({type(error).__name__}: {reason}); {advice}"
        ) from None
