"""To TensorBoard: a folder for each method, with its numbers; records are steps, in the order in which they were
made."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from retrieval_bench.core import BenchError, printable
from retrieval_bench.system.event_files import need_tensorboard, write_events
from retrieval_bench.tracking.tracked import Tracked


def send(found: Sequence[Tracked], folder: Path) -> list[str]:
    """Write event files; the same records give the same files, in the place of those that are there.

    Args:
        found: the oldest becomes step 0; each epoch of a training is a step.
        folder: what `tensorboard --logdir` is to be given.

    Returns:
        A sentence for each.
    """
    need_tensorboard("--to tensorboard", "tensorboard")
    told = []
    for step, one in enumerate(sorted(found, key=lambda one: one.when)):
        for run in one.runs:
            home = folder / _safe(one.group) / _safe(run.name)
            try:
                home.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                said = (
                    f"--to tensorboard:{printable(folder)}: cannot be written ({error.strerror}); name another folder"
                )
                raise BenchError(said) from None
            trained = len(run.steps) > 1 or 0 not in run.steps
            scalars = [
                (at if trained else step, _tag(name), value)
                for at, numbers in run.steps.items()
                for name, value in numbers.items()
            ]
            texts = {"parameters": "".join(f"- `{name}`: {value}\n" for name, value in run.params.items())}
            file = home / f"events.out.tfevents.{int(one.when)}.{one.sha256[:12]}"
            write_events(file, scalars, one.when, texts if run.params else {})
        told.append(f"{one.name}: {len(one.runs)} {'run' if len(one.runs) == 1 else 'runs'} in {printable(folder)}")
    return told


def _tag(name: str) -> str:
    """Numbers of one kind stand together on the board: recall@5 and recall@10 as recall/@5 and recall/@10."""
    base, at, cutoff = name.partition("@")
    return f"{base}/@{cutoff}" if at else name


def _safe(name: str) -> str:
    """A name as a folder."""
    return re.sub(r"[^\w.+=@\[\],-]+", "_", name).strip(".") or "_"
