"""A network from a file that holds it whole: `onnx:FILE.onnx`, and TorchScript (.pt, .ts) or torch.export (.pt2) files.

A file that `export` wrote says itself how images are prepared for it (see notes.py). Any other says nothing about it:
ImageNet's preprocessing is taken then. Options overrule both.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import math
import warnings
import zipfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any, Literal
from unittest import mock

from retrieval_bench.core import BenchError, Setup, printable
from retrieval_bench.extractors.deep.backbones import Backbone
from retrieval_bench.extractors.deep.checkpoint_reading import is_torchscript
from retrieval_bench.extractors.deep.export_metadata import KEY, Notes, notes_of
from retrieval_bench.extractors.deep.network_features import features_of, with_options
from retrieval_bench.extractors.deep.preprocess import LARGEST_SIDE, Preprocess
from retrieval_bench.extractors.deep.timm_open_clip import missing
from retrieval_bench.registry import EXTRACTORS, Range

SIDE = 224
RESIZE_SHARE = 256 / 224
"""Of the shorter side of an image a crop takes this share, as in most ImageNet networks."""

Run = Callable[[Any], Mapping[str, Any]]
"""(n, 3, h, w) float32 tensor -> output name -> tensor."""


SUFFIXES = (".onnx", ".pt2", ".pt", ".ts")
"""Which say what a file is."""


@dataclass(frozen=True)
class Read:
    """What a file holds. names: of its outputs. side: of the images that it takes; 0 where it does not say."""

    run: Run
    names: list[str]
    side: int = 0
    notes: Notes | None = None


def exported_backbone(
    setup: Setup,
    *,
    path: str = "",
    mean: str = "",
    std: str = "",
    resize: Annotated[int, Range(0, LARGEST_SIDE)] = 0,
    interpolation: Literal["auto", "bilinear", "bicubic", "sharp-bicubic"] = "auto",
) -> Backbone:
    """A network from a file.

    Features are the first output: a vector as it is, the average of a map, the first of some tokens. `layer` names
    another output.

    Args:
        setup: what the run fixes for every method.
        path: the file: .onnx, .pt or .ts (TorchScript) or .pt2 (torch.export).
        mean: of the channels red, green and blue, for values 0 to 1: 0.5/0.5/0.5. Empty: what the file says of itself,
            else ImageNet's.
        std: standard deviation of the channels, likewise.
        resize: the shorter side of the image in pixels, before the middle is cut out. 0: what the file says of itself,
            else by its input.
        interpolation: of that resizing. `auto`: what the file says of itself, else bilinear.
    """
    file = Path(path)
    called = f"onnx:{printable(file.name)}"
    _refuse_what_is_no_network(path, mean, std)
    readers = {".onnx": _onnx, ".pt2": _torch_export, ".pt": _torchscript, ".ts": _torchscript}
    read = readers[file.suffix](called, file)
    notes = read.notes
    side = read.side or SIDE
    said = notes.preprocess if notes is not None else Preprocess(round(side * RESIZE_SHARE), side)
    given: dict[str, Any] = {"mean": _three(called, "mean", mean)} if mean else {}
    given |= {"std": _three(called, "std", std)} if std else {}
    if resize and not said.crop <= resize <= LARGEST_SIDE:
        raise BenchError(
            f"{called}: resize={resize} is not between {said.crop}, the side that is cut out of it before size is "
            f"looked at, and {LARGEST_SIDE} pixels"
        )
    given |= {"resize": resize} if resize else {}
    given |= {"interpolation": interpolation} if interpolation != "auto" else {}
    preprocess = replace(said, **given)
    network = _network(read.run, read.names)
    figures = f"mean {_written(preprocess.mean)}, std {_written(preprocess.std)}"
    facts = {
        "source": printable(file.name),
        "sha256": hashlib.sha256(file.read_bytes()).hexdigest(),
        "recipe": f"exported file, preprocessed with {figures}",
    }
    if notes is not None:
        facts["exported_from"] = notes.method
        facts["exported_source"] = notes.weights["source"]
        facts["exported_sha256"] = notes.weights["sha256"]
    return Backbone(
        called,
        network,
        preprocess,
        _width(called, network, preprocess.crop),
        facts,
        mark="" if notes is None else notes.mark,
        prefix=1,
        trained_on=None if notes is None or notes.trained_on is None else dict(notes.trained_on),
    )


def _refuse_what_is_no_network(path: str = "", mean: str = "", std: str = "", **others: Any) -> None:
    """BenchError where the options are wrong, by themselves and by the name of the file."""
    file = Path(path)
    called = f"onnx:{printable(file.name)}"
    if not file.is_file():
        raise BenchError(f"{called}: there is no file {printable(file)}; write onnx:PATH of an exported network")
    if file.suffix not in SUFFIXES:
        raise BenchError(f"{called}: the name must end in {', '.join(SUFFIXES)}, which says what the file is")
    for option, figures in (("mean", mean), ("std", std)):
        if figures:
            _three(called, option, figures)


exported_backbone.check = _refuse_what_is_no_network  # type: ignore[attr-defined]


def _written(values: tuple[float, ...]) -> str:
    return "/".join(f"{value:g}" for value in values)


def _onnx(called: str, file: Path) -> Read:
    try:
        import onnxruntime
    except ImportError:
        raise missing(called, "onnxruntime", "onnx") from None
    import torch

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1  # images are the unit of parallel work
    options.log_severity_level = 4
    try:
        session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's own exceptions share no base class
        raise _unreadable(called, "an ONNX network", error) from None
    inputs = session.get_inputs()
    shape = inputs[0].shape
    if len(inputs) != 1 or len(shape) != 4 or shape[1] not in (3, None, "c", "channels"):
        raise BenchError(f"{called}: it takes {[one.shape for one in inputs]}; one input (n, 3, h, w) is wanted")
    if isinstance(shape[0], int) and shape[0] != 1:
        raise BenchError(f"{called}: it takes {shape[0]} images at once; export it for one, or for any number")
    names = [one.name for one in session.get_outputs()]

    def run(batch: Any) -> Mapping[str, Any]:
        outputs = session.run(names, {inputs[0].name: batch.contiguous().cpu().numpy()})
        return {name: torch.from_numpy(output) for name, output in zip(names, outputs, strict=True)}

    notes = notes_of(called, session.get_modelmeta().custom_metadata_map.get(KEY, ""))
    return Read(run, names, shape[2] if isinstance(shape[2], int) else 0, notes)


def _torchscript(called: str, file: Path) -> Read:
    import torch

    extra = {KEY: ""}

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # TorchScript is deprecated; its files are not gone
            module = torch.jit.load(str(file), map_location="cpu", _extra_files=extra)
    except Exception as error:  # damage shows itself in many ways
        if zipfile.is_zipfile(file) and not is_torchscript(file):
            raise BenchError(
                f"{called} holds weights and no network; name the network that they are of: NETWORK:weights="
                f"{printable(file)}, e.g. resnet50:weights=..."
            ) from None
        raise _unreadable(called, "a TorchScript network", error) from None
    return Read(_of_module(module.eval()), ["output"], notes=notes_of(called, extra[KEY]))


def _torch_export(called: str, file: Path) -> Read:
    import torch

    if find_spec("torch.export.pt2_archive") is None:
        raise BenchError(
            f"{called}: torch {torch.__version__} would run code that a .pt2 file may hold; install a newer torch, or "
            "export the network to ONNX"
        )
    log = logging.getLogger("torch.export")
    before, log.disabled = log.disabled, True  # it would print its own traceback of a damaged file, too
    try:
        with _without_code():
            program = torch.export.load(str(file))
        (pixels, *_), _ = program.example_inputs
        module = program.module()
    except Exception as error:  # damage shows itself in many ways
        raise _unreadable(called, "a network saved by torch.export", error) from None
    finally:
        log.disabled = before
    return Read(_of_module(module), ["output"], int(pixels.shape[-1]))


@contextlib.contextmanager
def _without_code() -> Iterator[None]:
    """torch.export reads again, with all that pickle can do, what it may not read as plain data; here it must not."""
    import torch
    from torch.export.pt2_archive import _package

    plain = torch.load

    def load(*args: Any, **options: Any) -> Any:
        return plain(*args, **{**options, "weights_only": True})

    with mock.patch.object(torch, "load", load), mock.patch.object(_package, "pickle", None, create=True):
        yield


def _of_module(module: Any) -> Run:
    def run(batch: Any) -> Mapping[str, Any]:
        output = module(batch.contiguous().cpu())
        return {"output": output[0] if isinstance(output, tuple | list) else output}

    return run


def _unreadable(called: str, what: str, error: Exception) -> BenchError:
    reason = str(error).strip().partition("\n")[0][:200]
    return BenchError(f"{called} cannot be read as {what} ({type(error).__name__}: {reason}); export it again")


def _three(called: str, option: str, text: str) -> tuple[float, ...]:
    try:
        values = tuple(float(part) for part in text.split("/"))
    except ValueError:
        values = ()
    if len(values) != 3 or not all(map(math.isfinite, values)) or (option == "std" and min(values) <= 0):
        above = " above 0" if option == "std" else ""
        raise BenchError(f"{called}: {option}={text} must be three numbers{above} like 0.5/0.5/0.5")
    return values


def _network(run: Run, names: list[str]) -> Any:
    """A torch module around `run`; each output passes a submodule of its own, by which `layer` finds it."""
    import torch
    from torch import nn

    class Exported(nn.Module):  # type: ignore[misc] # here, as torch is loaded late
        def __init__(self) -> None:
            super().__init__()
            for name in names:
                self.add_module(name.replace(".", "_"), nn.Identity())

        def forward(self, batch: Any) -> Any:
            outputs = run(batch)
            passed = [self.get_submodule(name.replace(".", "_"))(outputs[name].float()) for name in names]
            first: torch.Tensor = passed[0]
            if first.ndim == 4:
                return first.mean(dim=(2, 3))
            return first[:, 0] if first.ndim == 3 else first

    return Exported().eval()


def _width(called: str, network: Any, side: int) -> int:
    import torch

    try:
        with torch.inference_mode():
            row = network(torch.zeros(1, 3, side, side))
    except Exception as error:  # each runtime has its own
        reason = str(error).strip().partition("\n")[0][:200]
        raise BenchError(f"{called} cannot describe an image of {side} x {side} pixels ({reason})") from None
    if row.ndim != 2 or len(row) != 1:
        raise BenchError(f"{called} gives {tuple(row.shape)} for one image; a vector, a map or tokens are wanted")
    return int(row.shape[1])


EXTRACTORS(
    "onnx",
    about="an exported network from a file: onnx:PATH (ONNX, TorchScript, torch.export)",
    family="deep",
    argument="path",
    shares=features_of,
)(with_options(exported_backbone))
