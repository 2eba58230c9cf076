"""Reading a file of weights without running what it holds: tensors, plain data, and a short list of classes of data.

A file with other classes is not read. Their names stand in its pickle as text, so the refusal can tell them, and the
two lines by which their owner gets a file that any program can read.
"""

from __future__ import annotations

import contextlib
import io
import pickletools
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from retrieval_bench.core import BenchError

PATHS = ("PosixPath", "PurePosixPath", "WindowsPath", "PureWindowsPath")
DTYPES = ("Bool", "Int8", "UInt8", "Int16", "UInt16", "Int32", "UInt32", "Int64", "UInt64", "LongLong", "ULongLong")
DATA = (
    *("argparse.Namespace", "types.SimpleNamespace", "torch.torch_version.TorchVersion"),
    *("datetime.datetime", "datetime.date", "datetime.timedelta", "datetime.timezone"),
    *(f"{module}.{name}" for module in ("pathlib", "pathlib._local") for name in PATHS),
    *("numpy.dtype", "numpy.ndarray"),
    *(f"numpy.{core}.multiarray.{name}" for core in ("core", "_core") for name in ("scalar", "_reconstruct")),
    *(f"numpy.dtypes.{name}DType" for name in (*DTYPES, "Float16", "Float32", "Float64", "Bytes", "Str", "Object")),
)
"""Names of classes and functions that trainers put beside the weights, for settings, paths, times and scores."""
SHOWN_CLASSES = 3
PICKLES_OF_OLD_FILES = 4
"""Before torch 1.6 a file was a row of pickles: a number, a version, facts on the machine, the content."""
ACTS = {
    *("os", "posix", "nt", "subprocess", "sys", "shutil", "socket", "runpy", "importlib", "ctypes", "pty", "code"),
    *("webbrowser", "multiprocessing", "signal", "tempfile", "urllib", "http", "operator", "pickle"),
}
"""Modules of Python that no weights need and that do something when they are called."""
ACTING_BUILTINS = {"eval", "exec", "compile", "open", "getattr", "setattr", "delattr", "__import__", "globals"}
BUILTINS = ("builtins.", "__builtin__.")
KNOWN = ("torch._utils.", "torch.storage.", "torch.serialization.", "torch.nn.parameter.", "torch._tensor.")
"""Where the functions are that put a tensor together."""
WHOLE_NETWORKS = ("torch.nn.modules.", "torchvision.", "timm.", "torch.nn.parallel.", "torch.fx.")
INNER = ("model_ema", "state_dict", "model", "model_state_dict", "net", "network", "ema", "teacher")


class Beside:
    """Takes the place of each thing on that list: no weights are in one, so not even these are called."""

    def __init__(self, *args: Any) -> None:
        pass

    def __setstate__(self, state: Any) -> None:
        pass


def read_pickled(path: Path) -> Any:
    """What a file of `torch.save` holds, on the CPU. Raises BenchError; runs no code of the file."""
    import torch

    try:
        with _allowed():
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch.load raises UnpicklingError, RuntimeError, EOFError, KeyError, ... on damage
        sentence = _refusal(path)
        if sentence is None:
            raise
        raise BenchError(sentence) from error


def takes_a_list() -> bool:
    """Whether this torch can be told of harmless classes by the names under which a file has them."""
    import torch

    return torch.__version__ >= (2, 6)


def _allowed() -> contextlib.AbstractContextManager[Any]:
    """Classes that trainers put beside the weights, and that hold data alone."""
    import torch

    if not takes_a_list():
        return contextlib.nullcontext()
    return torch.serialization.safe_globals([(Beside, name) for name in DATA])


def _refusal(path: Path) -> str | None:
    """The sentence for a file that is whole and holds classes; None for one that is damaged or of another kind."""
    if is_torchscript(path):
        return (
            f"weights file {path.name} is a whole network of TorchScript, no state dict; run it as onnx:{path.name}, "
            "or save the state dict of the network that it was made of"
        )
    try:
        named, keys = _names_in(path)
    except Exception:  # a damaged pickle fails in many ways, and is told as damaged
        return None
    foreign = [name for name in dict.fromkeys(named) if not _harmless(name)]
    if not foreign:
        return None
    acting = [name for name in foreign if _acts(name)]
    if acting:
        return (
            f"weights file {path.name} was not read: that would call {acting[0]}, which no weights need; take weights "
            "from a source that you trust"
        )
    inner = next((word for word in INNER if word in keys), None)
    of = f"['{inner}']" if inner else ""
    whole = any(name.startswith(WHOLE_NETWORKS) for name in foreign) or not inner
    state = ".state_dict()" if whole else ""
    telling = [name for name in foreign if not name.startswith(BUILTINS)] or foreign
    more = len(telling) - SHOWN_CLASSES
    shown = ", ".join(telling[:SHOWN_CLASSES]) + (f" and {more} more" if more > 0 else "")
    what = "a pickled network" if whole else "more than tensors"
    plain = f"{path.name.partition('.')[0]}-plain.pth"
    return (
        f"weights file {path.name} holds {what} ({shown}), and to read that is to run code, which is not done here; if "
        "you trust the file, convert it by two lines of Python where these classes can be imported: "
        f"net = torch.load({path.name!r}, weights_only=False){of}; torch.save(net{state}, {plain!r})"
    )


def is_torchscript(path: Path) -> bool:
    """Whether the file holds a network with its code, and not only weights."""
    with contextlib.suppress(OSError, zipfile.BadZipFile), zipfile.ZipFile(path) as archive:
        return any(name.endswith("/constants.pkl") for name in archive.namelist())
    return False


def _names_in(path: Path) -> tuple[list[str], list[str]]:
    """("module.name" of all classes and functions, keys of the outermost dict), from the pickle's text alone."""
    named: list[str] = []
    keys: list[str] = []
    for stream in _pickles(path):
        keys = []
        stack: list[Any] = []
        memo: dict[Any, Any] = {}
        for opcode, value, _ in pickletools.genops(stream):
            if opcode.name in ("PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"):
                memo[len(memo) if value is None else value] = stack[-1]
                continue
            if opcode.name == "GLOBAL":
                named.append(str(value).replace(" ", "."))
            elif opcode.name == "STACK_GLOBAL":
                named.append(".".join(map(str, stack[-2:])))
            elif opcode.name in ("GET", "BINGET", "LONG_BINGET"):
                value = memo.get(value)
            _replay(opcode, value, stack, keys)
    return named, keys


def _replay(opcode: pickletools.OpcodeInfo, value: Any, stack: list[Any], keys: list[str]) -> None:
    """What an opcode does to the stack, where objects are None; keys: gains those that the outermost dict gains."""
    before = list(opcode.stack_before)
    if pickletools.markobject in before:
        mark = len(stack) - 1 - stack[::-1].index(pickletools.markobject)
        items = stack[mark + 1 :]
        del stack[mark:]
        before = before[: before.index(pickletools.markobject)]
        if opcode.name == "SETITEMS" and len(stack) == 1:
            keys += [item for item in items[::2] if isinstance(item, str)]
    elif opcode.name == "SETITEM" and len(stack) == 3 and isinstance(stack[1], str):
        keys.append(stack[1])
    if before:
        del stack[-len(before) :]
    after: Any = pickletools.markobject if opcode.name == "MARK" else value if isinstance(value, str) else None
    stack += [after] * len(opcode.stack_after)


def _pickles(path: Path) -> Iterator[io.BytesIO]:
    try:
        with zipfile.ZipFile(path) as archive:
            for name in archive.namelist():
                if name.endswith("/data.pkl") or name == "data.pkl":
                    yield io.BytesIO(archive.read(name))
        return
    except (OSError, zipfile.BadZipFile):
        pass
    stream = io.BytesIO(path.read_bytes())
    for _ in range(PICKLES_OF_OLD_FILES):
        yield stream


def _harmless(name: str) -> bool:
    known = set(DATA) if takes_a_list() else set()
    known |= {"collections.OrderedDict", "collections.Counter", "_codecs.encode", "torch.device", "torch.Size"}
    known |= {f"{module}{name}" for module in BUILTINS for name in ("set", "bytearray", "complex")}
    storage = re.fullmatch(r"torch\.(\w*Storage|u?int\d+|b?float\d+\w*|bool|complex\d+|half|double|long)", name)
    return name in known or name.startswith(KNOWN) or storage is not None


def _acts(name: str) -> bool:
    module, _, called = name.rpartition(".")
    if name.startswith(BUILTINS):
        return called in ACTING_BUILTINS
    return module.partition(".")[0] in ACTS
