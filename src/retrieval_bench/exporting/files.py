"""A torch module as the bytes of a file: ONNX or TorchScript, for any number of images at once."""

from __future__ import annotations

import io
import struct
import warnings
import zipfile
from collections.abc import Iterable
from importlib.util import find_spec
from typing import Any, Literal

from retrieval_bench.core import BenchError
from retrieval_bench.exporting.module import NETWORK
from retrieval_bench.extractors.deep.backbones import to_the_end
from retrieval_bench.extractors.deep.export_metadata import KEY, Notes

Form = Literal["onnx", "torchscript"]
SUFFIXES: dict[Form, tuple[str, ...]] = {"onnx": (".onnx",), "torchscript": (".pt", ".ts")}
PIXELS, FEATURES, IMAGES = "pixels", "features", "images"
"""Names of input, output and batch axis in ONNX."""
LARGEST_ONNX = 2**31 - 2**24
"""Bytes: protobuf ends at 2 GiB; room for all but the weights."""
_SCOPES = "pkg.torch.onnx.name_scopes"
_ALIGNED = 64
"""Bytes that everything in a TorchScript archive begins at a multiple of."""
_ZIP_HEADER = 30
"""Bytes before the name of a file in a zip archive (APPNOTE 4.3.7)."""
_PADDING = struct.Struct("<HH")
"""Of an extra field of such a header: what it is, and its length."""
_PADDING_ID = 0x4246
"""As torch marks it."""


def need_packages(form: Form) -> None:
    """BenchError where a package is missing that writes this form, or reads it again to compare."""
    wanted = ("onnx", "onnxscript", "onnxruntime") if form == "onnx" else ()
    absent = [name for name in wanted if find_spec(name) is None]
    if absent:
        raise BenchError(
            f"--format {form} needs {', '.join(absent)}, which is not installed; install it with "
            "pip install 'retrieval-bench[onnx]'"
        )


def onnx_model(name: str, module: Any, side: int) -> tuple[Any, list[str]]:
    """(onnx.ModelProto, names of the nodes that are no part of the network). name: of the method, for sentences."""
    import torch

    size = weights_bytes(module)
    if size > LARGEST_ONNX:
        raise BenchError(
            f"{name}: {size / 2**30:.1f} GiB of weights are too much for one ONNX file, which holds at most 2 GiB; "
            "use --format torchscript"
        )
    try:
        with to_the_end(), warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")  # the exporter's own
            program = torch.onnx.export(
                module,
                (torch.zeros(2, 3, side, side),),  # two: what is one might be taken for a constant
                dynamo=True,
                verbose=False,
                external_data=False,
                input_names=[PIXELS],
                output_names=[FEATURES],
                dynamic_shapes=({0: torch.export.Dim(IMAGES)},),
            )
    except Exception as error:  # as many kinds as there are ways to write a network
        raise _not_followed(name, "onnx", error) from None
    model = program.model_proto
    outside = [node.name for node in model.graph.node if f"'{NETWORK}'" not in _scopes(node)]
    _forget_where_it_was_made(model)
    return model, outside


def _scopes(node: Any) -> str:
    return next((one.value for one in node.metadata_props if one.key == _SCOPES), "")


def _forget_where_it_was_made(model: Any) -> None:
    """The exporter notes each node's stack trace, with the paths of this machine."""
    for part in (*model.graph.node, *model.graph.value_info, *model.graph.initializer, model.graph):
        del part.metadata_props[:]
    model.graph.doc_string = ""


def onnx_bytes(model: Any, notes: Notes) -> bytes:
    """The file: a model with its notes."""
    entry = model.metadata_props.add()
    entry.key, entry.value = KEY, notes.to_json()
    model.producer_name, model.producer_version = "retrieval-bench", notes.version
    return model.SerializeToString(deterministic=True)


def torchscript_bytes(name: str, module: Any, side: int, notes: Notes) -> bytes:
    """The file: the module as traced and frozen, with batch norm folded, and its notes."""
    import torch

    buffer = io.BytesIO()
    try:
        with to_the_end(), warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")  # TorchScript is deprecated, and what has a fixed shape is told at length
            traced = torch.jit.trace(module, torch.zeros(2, 3, side, side), check_trace=False)
            torch.jit.save(torch.jit.freeze(traced.eval()), buffer, _extra_files={KEY: notes.to_json()})
    except Exception as error:  # as many kinds as there are ways to write a network
        raise _not_followed(name, "torchscript", error) from None
    return _without_debug_files(buffer)


def _without_debug_files(archive: io.BytesIO) -> bytes:
    """The same archive but for the stack traces of the modules, which hold paths of this machine; no reader needs them.

    torch aligns what it stores, so that readers may map it into memory; this does, too.
    """
    clean = io.BytesIO()
    with zipfile.ZipFile(archive) as old, zipfile.ZipFile(clean, "w", zipfile.ZIP_STORED) as new:
        for name in old.namelist():
            if name.endswith(".debug_pkl"):
                continue
            entry = zipfile.ZipInfo(name)
            begin = clean.tell() + _ZIP_HEADER + len(name.encode()) + _PADDING.size
            room = -begin % _ALIGNED
            entry.extra = _PADDING.pack(_PADDING_ID, room) + b"Z" * room
            new.writestr(entry, old.read(name))
    return clean.getvalue()


def _not_followed(name: str, form: Form, error: Exception) -> BenchError:
    other = next(one for one in SUFFIXES if one != form)
    deepest: BaseException = error
    while deepest.__cause__ is not None:
        deepest = deepest.__cause__
    reason = str(deepest).strip().partition("\n")[0][:200]
    return BenchError(
        f"{name}: torch cannot trace this network for --format {form} ({type(deepest).__name__}: {reason}); "
        f"try --format {other}"
    )


def weights_bytes(module: Any) -> int:
    """Bytes of a module's parameters and buffers, each counted once."""
    tensors: Iterable[Any] = (*module.parameters(), *module.buffers())
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)
