"""Everything that a GPU is used for, on the card that is there: does it agree with the CPU, and how fast is it?

Sections run one after the other; what goes wrong in one is written down as its result and the next begins. With
`dry` the same code runs on the CPU with smaller numbers, which shows that it runs and says nothing of speed.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

from retrieval_bench.core import BenchError
from retrieval_bench.records.environment import environment, now
from retrieval_bench.system.cores import usable_cores
from retrieval_bench.system.device import gpu_is_there, gpu_settings, steady
from retrieval_bench.system.files import write_whole
from retrieval_bench.system.progress import Progress
from retrieval_bench.system.timing import Stopwatch, steady_allocator

LIBRARIES = ("torch", "torchvision", "timm", "numba", "numpy", "faiss-gpu", "faiss-cpu")
RECORD, TABLE = "gpu.json", "table.md"


@dataclass(frozen=True)
class Where:
    """device: "cuda", or "cpu" for a dry run. card: its name in torch. threads: of the host, for decoding."""

    device: str
    card: str
    threads: int

    @property
    def dry(self) -> bool:
        return self.device == "cpu"


@dataclass(frozen=True)
class Finding:
    """One measured figure.

    Args:
        what: what was measured, in words.
        value: the figure, or a word.
        unit: of the figure.
        wanted: what it is to reach, in words; "" where nothing is asked of it.
        met: whether it does; None where nothing is asked.
    """

    what: str
    value: float | str
    unit: str = ""
    wanted: str = ""
    met: bool | None = None

    def cells(self) -> list[str]:
        """What, value with its unit, and what was wanted of it."""
        shown = self.value if isinstance(self.value, str) else f"{self.value:,.4g}"
        verdict = "" if self.met is None else f"{self.wanted}: {'met' if self.met else 'NOT met'}"
        return [self.what, f"{shown} {self.unit}".strip(), verdict]


@dataclass
class GpuSection:
    """name: of the section. error: what ended it early, "" where nothing did. commit, created: of the code that ran."""

    name: str
    commit: str = ""
    created: str = ""
    seconds: float = 0.0
    error: str = ""
    findings: list[Finding] = field(default_factory=list)

    @property
    def failed(self) -> bool:
        return bool(self.error) or any(one.met is False for one in self.findings)


Run = Callable[[Where, Progress], Iterable[Finding]]


@dataclass(frozen=True)
class GpuRecord:
    """What `run` found: where, when, with which libraries and settings, and every section."""

    where: Where
    facts: Mapping[str, Any]
    sections: list[GpuSection]

    def to_json(self) -> str:
        told = [{**asdict(one), "failed": one.failed} for one in self.sections]
        return json.dumps({"format": 1, "dry": self.where.dry, **self.facts, "sections": told}, indent=1) + "\n"

    def markdown(self) -> str:
        """A table for each section."""
        kind = " A dry run on the CPU: it says that the code runs, and nothing of speed." if self.where.dry else ""
        lines = [f"{self.where.card}, {self.facts['created'][:10]}, {self._versions()}.{kind}", ""]
        for section in self.sections:
            version = f", {section.commit[:12]}" if section.commit else ""
            lines += [f"**{section.name}** ({section.seconds:.0f} s{version})", "", "| measured | value | wanted |"]
            lines += ["|---|---:|---|", *(f"| {' | '.join(one.cells())} |" for one in section.findings)]
            if section.error:
                lines.append(f"| ended early | failed | {section.error.replace('|', '/')} |")
            lines.append("")
        return "\n".join(lines)

    def _versions(self) -> str:
        return ", ".join(f"{name} {version}" for name, version in self.facts["libraries"].items())

    def text(self) -> str:
        """The same for a terminal."""
        from retrieval_bench.report.lines import aligned

        lines: list[str] = [f"{self.where.card}; {self._versions()}"]
        for section in self.sections:
            cells = [[section.name, f"{section.seconds:.0f} s", ""], *(one.cells() for one in section.findings)]
            lines += ["", *aligned(cells)]
            if section.error:
                lines.append(f"ended early: {section.error}")
        return "\n".join(lines)


def place(dry: bool) -> Where | None:
    """Where to run; None where there is no card and none is to be done without."""
    import torch

    threads = usable_cores()
    if gpu_is_there() and not dry:
        return Where("cuda", torch.cuda.get_device_name(0), threads)
    return Where("cpu", "CPU", threads) if dry else None


def run(where: Where, sections: Mapping[str, Run], out: Path, progress: Progress) -> GpuRecord:
    """Run sections in their order; the record is written anew after each, so that none is lost.

    A section of the record that is there already stays, unless it is run again, or the libraries or settings differ.

    Args:
        where: see `place`.
        sections: name -> what yields its findings.
        out: folder; the record goes into a folder of the card's name in it.
        progress: called with (what is done, steps done, steps in all).

    Returns:
        All that was found.

    Raises:
        BenchError: `out` cannot be written.
    """
    folder = out / folder_of(where.card)
    steady(where.device)  # before the settings are read: they are those under which all is measured
    facts = _facts(where)
    commit = f"{facts['commit'] or ''}{'-dirty' if facts['dirty'] else ''}"
    outcome = GpuRecord(where, facts, [one for one in _kept(folder / RECORD, facts) if one.name not in sections])
    for name, work in sections.items():
        section = GpuSection(name, commit, now())
        outcome.sections.append(section)
        with Stopwatch() as watch:
            try:
                for finding in work(where, _named(name, progress)):
                    section.findings.append(finding)
            except Exception as error:  # whatever a card, a driver or a library that was never tried may raise
                section.error = f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"
        section.seconds = watch.seconds
        try:
            write_whole(folder / RECORD, outcome.to_json().encode())
            write_whole(folder / TABLE, outcome.markdown().encode())
        except OSError as error:
            raise BenchError(f"--out {out}: cannot be written ({error.strerror}); name another folder") from None
    return outcome


def _kept(file: Path, facts: Mapping[str, Any]) -> list[GpuSection]:
    """The sections of a record that were measured with the same libraries and settings."""
    try:
        record = json.loads(file.read_text(encoding="utf-8"))
        if any(record[name] != facts[name] for name in ("processor", "cores", "libraries", "settings")):
            return []
        return [
            GpuSection(
                *(one["name"], one["commit"], one["created"], one["seconds"], one["error"]),
                [Finding(**finding) for finding in one["findings"]],
            )
            for one in record["sections"]
        ]
    except (OSError, ValueError, KeyError, TypeError):  # none, or one that another version wrote
        return []


def _named(name: str, progress: Progress) -> Progress:
    return lambda what, done, total: progress(f"{name}: {what}", done, total)


def folder_of(card: str) -> str:
    """ "NVIDIA H100 80GB HBM3" -> "nvidia-h100-80gb-hbm3"."""
    return re.sub(r"[^a-z0-9]+", "-", card.lower()).strip("-")


BLOCK = re.compile(r"<!-- gpu -->\n.*?<!-- /gpu -->", re.S)


def documented(page: str, outcome: GpuRecord) -> str:
    """The page with the outcome between `<!-- gpu -->` and `<!-- /gpu -->`; raises BenchError where these are not."""
    if not BLOCK.search(page):
        raise BenchError("the document has no <!-- gpu --> ... <!-- /gpu --> for the table; add both lines")
    return BLOCK.sub(lambda match: f"<!-- gpu -->\n{outcome.markdown()}<!-- /gpu -->", page)


def _facts(where: Where) -> dict[str, Any]:
    found = environment({}, None if where.dry else where.card, steady_allocator())
    return {
        "card": where.card,
        "created": now(),
        "version": found.version,
        "commit": found.commit,
        "dirty": found.dirty,
        "processor": found.processor,
        "cores": where.threads,
        "libraries": dict(_versions()),
        "settings": {} if where.dry else gpu_settings(where.device),
    }


def _versions() -> Iterator[tuple[str, str]]:
    for name in LIBRARIES:
        try:
            yield name, metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
