"""TensorBoard's event files: whole or not at all, without the thread of the usual writer, which cannot tell that the
disk is full."""

from __future__ import annotations

import importlib.util
import io
from collections.abc import Iterable, Mapping
from pathlib import Path

from retrieval_bench.core import BenchError
from retrieval_bench.system.files import write_whole

EVENTS = "brain.Event:2"
"""Format of TensorBoard's files, as their first record says it."""


def need_tensorboard(option: str, extra: str) -> None:
    """Raise BenchError where the package is missing; it names the option and the extra."""
    if importlib.util.find_spec("tensorboard") is None:
        raise BenchError(f"{option} needs the package of that name: pip install 'retrieval-bench[{extra}]'")


def write_events(
    file: Path,
    scalars: Iterable[tuple[int, str, float]],
    wall_time: float,
    texts: Mapping[str, str] | None = None,
    option: str = "--to",
) -> None:
    """Write one event file.

    Args:
        file: where to; its name must hold "tfevents".
        scalars: step, tag and value of each number.
        wall_time: seconds since 1970, of every event.
        texts: tag -> Markdown.
        option: of the command, for the sentence where it cannot be written.

    Raises:
        BenchError: It cannot be written.
    """
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.compat.proto.summary_pb2 import Summary
    from tensorboard.compat.proto.tensor_pb2 import TensorProto
    from tensorboard.compat.proto.types_pb2 import DT_STRING
    from tensorboard.plugins.text.metadata import create_summary_metadata
    from tensorboard.summary.writer.record_writer import RecordWriter

    content = io.BytesIO()
    records = RecordWriter(content)
    records.write(Event(wall_time=wall_time, file_version=EVENTS).SerializeToString())
    for step, tag, value in scalars:
        summary = Summary(value=[Summary.Value(tag=tag, simple_value=value)])
        records.write(Event(wall_time=wall_time, step=step, summary=summary).SerializeToString())
    for tag, text in (texts or {}).items():
        held = TensorProto(dtype=DT_STRING, string_val=[text.encode()])
        told = create_summary_metadata(display_name=tag, description="")
        summary = Summary(value=[Summary.Value(tag=tag, metadata=told, tensor=held)])
        records.write(Event(wall_time=wall_time, step=0, summary=summary).SerializeToString())
    write_whole(file, content.getvalue(), option=option)
