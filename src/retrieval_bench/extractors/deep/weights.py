"""Where a network's weights come from: a directory, torch's cache, torchvision's download, or nowhere.

A file is read without running anything in it (see checkpoint_reading), what it holds is unwrapped (see
checkpoint_unwrapping), and its sha256 goes into the record.
"""

from __future__ import annotations

import hashlib
import logging
import os
import queue
import re
import socket
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from http.client import HTTPException
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

from retrieval_bench.core import BenchError, printable
from retrieval_bench.extractors.deep import model_folder
from retrieval_bench.extractors.deep.checkpoint_reading import read_pickled
from retrieval_bench.extractors.deep.checkpoint_unwrapping import (
    Unwrapped,
    inner_dicts,
    needed_of,
    outline,
    places,
    unknown_names,
    unwrapped,
)
from retrieval_bench.extractors.deep.model_folder import ModelFolder
from retrieval_bench.extractors.deep.nearest_network import nearest

DIRECTORY_VARIABLE = "RETRIEVAL_BENCH_WEIGHTS"
SUFFIXES = (".pth", ".pt", ".safetensors", ".ckpt", ".pth.tar", ".bin")
PROBE_SECONDS = 4.0
"""A host that has not answered by then counts as unreachable, for the rest of the process."""
STALL_SECONDS = 30.0
"""A download that delivers nothing for so long is given up."""

log = logging.getLogger("retrieval_bench")
_unreachable: dict[str, str] = {}


@dataclass(frozen=True)
class WeightsFile:
    """A state dict on disk.

    source: where it comes from, for the record: never a path of this machine. sha256: of the file, hex.
    recipe: the key of `urls` (see `find`) that this file is by its name; None for a file that torchvision did not make.
    folder: what config.json beside it says, where there is one.
    """

    path: Path
    source: str
    sha256: str
    recipe: str | None
    folder: ModelFolder | None = None


def find(network: str, urls: Mapping[str, str], policy: str) -> WeightsFile | None:
    """The weights of `network` under a policy; None: none, start from random numbers.

    urls: name of a training recipe -> where torchvision offers its weights, the preferred one first.
    policy: "random" looks for nothing. A directory is searched for `<network>*` with one of SUFFIXES, or is a model
        folder itself; then the directory in RETRIEVAL_BENCH_WEIGHTS; then torch's cache; then the first url is
        downloaded into torch's cache and its hash checked. When all fail, "pretrained" raises BenchError, and "auto"
        and a directory log one warning.
    Raises BenchError also for a directory that does not exist and for a file that is not what its name promises.
    """
    if policy == "random":
        return None
    import torch

    directories = weights_directories(policy)
    cache = Path(torch.hub.get_dir()) / "checkpoints"
    for folder, kind in (*((one, "weights directory") for one in directories), (cache, "torch's cache")):
        best = _in_directory(folder, network, urls, kind) if folder.is_dir() else None
        if best is not None:
            return best
    preferred, url = next(iter(urls.items()))
    try:
        return _checked(_download(url, cache), url, preferred)
    except OSError as error:
        where = "in the weights directory nor in torch's cache" if directories else "in torch's cache"
        missing = f"{network}: no weights {where}, and {url} is unavailable ({error})"
    advice = f"fetch that file, put it into a directory DIR and pass --weights DIR (or set {DIRECTORY_VARIABLE}=DIR)"
    if policy == "pretrained":
        raise BenchError(f"{missing}; {advice}")
    log.warning("%s, so this network is UNTRAINED and its figures say nothing about %s; %s", missing, network, advice)
    return None


def named(path: Path, network: str) -> WeightsFile:
    """The file of this name, e.g. one that `train` wrote, or that of a model folder. Raises BenchError where there is
    none, or a folder of another network."""
    there(path)
    if model_folder.is_model_folder(path):
        return _of_folder(path, network, "")
    return _checked(path, path.name, None)


def there(path: Path) -> None:
    """BenchError where weights= names neither a file nor a folder of a network."""
    if not path.is_file() and not model_folder.is_model_folder(path):
        raise BenchError(
            f"weights={printable(path)}: no such file, nor a folder with {model_folder.CONFIG} and weights; name a "
            ".pth, .pt, .ckpt or .safetensors"
        )


def find_local(network: str, policy: str, library: str) -> WeightsFile | None:
    """The weights of a network of another library, from the weights directories alone; None: start from random numbers.

    Raises BenchError where the policy is "pretrained" and there is no file; else logs one warning.
    """
    if policy == "random":
        return None
    found = in_directories(network, policy)
    if found is not None:
        return found
    advice = (
        f"save its state dict as {network}.safetensors or {network}.pth in a directory DIR and pass --weights DIR "
        f"(or set {DIRECTORY_VARIABLE}=DIR)"
    )
    if policy == "pretrained":
        raise BenchError(f"{network} of {library}: no weights in a weights directory; {advice}")
    log.warning(
        "%s of %s: no weights in a weights directory, so this network is UNTRAINED; %s", network, library, advice
    )
    return None


def in_directories(network: str, policy: str) -> WeightsFile | None:
    """The file of a network in the weights directories alone; None where none of them has one."""
    for folder in weights_directories(policy):
        best = _in_directory(folder, network, {}, "weights directory")
        if best is not None:
            return best
    return None


def packaged(path: Path, source: str, recipe: str) -> WeightsFile:
    """The weights that an installed package holds; who asks compares the sha256 with the one that is pinned."""
    return replace(_checked(path, source, None), recipe=recipe)


def load(file: WeightsFile) -> Any:
    """What a file holds, with tensors on the CPU. Raises BenchError where it is damaged or would run code."""
    try:
        return _load_safetensors(file.path) if file.path.suffix == ".safetensors" else read_pickled(file.path)
    except BenchError:
        raise
    except Exception as error:  # torch.load raises UnpicklingError, RuntimeError, EOFError, KeyError, ... on damage
        reason = str(error).partition("\n")[0].partition(". ")[0]
        raise BenchError(
            f"weights file {file.path.name} cannot be read as a state dict ({type(error).__name__}: {reason}); "
            "replace it by a good copy"
        ) from None


def _load_safetensors(path: Path) -> dict[str, Any]:
    try:
        from safetensors.torch import load_file
    except ImportError:
        raise BenchError(
            f"weights file {path.name} needs safetensors, which is not installed; install it by pip install safetensors"
        ) from None
    return load_file(path)


def refuse_changed(file: WeightsFile) -> None:
    """BenchError where a file is no longer the one whose sha256 is in the record."""
    if _checked(file.path, file.source, None).sha256 != file.sha256:
        raise BenchError(f"weights file {file.path.name} was changed while it was in use; start again")


def fill(
    network: Any, content: Any, file: WeightsFile, ignore: tuple[str, ...], rename: Callable[[str], str] = str
) -> Unwrapped:
    """Copy into a torch network what a file holds of it; every name and shape must fit.

    content: of the file, see `load`. ignore: beginnings of the names of its classifier. rename: from a name of an old
    file to that of today. Returns what was taken, and how it was found. Raises BenchError with the first misfit.
    """
    expected = network.state_dict()
    try:
        found = unwrapped(content, expected, ignore, rename)
    except BenchError as error:
        raise BenchError(f"weights file {file.path.name} {error}") from None
    if found is None:
        raise BenchError(_misfit(content, expected, file, ignore, rename))
    broken = [name for name, value in found.state.items() if value.is_floating_point() and not value.isfinite().all()]
    if broken:
        raise BenchError(f"weights file {file.path.name}: {broken[0]} holds NaN or inf; replace it by a good copy")
    whole = [
        name for name, value in expected.items() if value.is_floating_point() > found.state[name].is_floating_point()
    ]
    if whole:
        kind = str(found.state[whole[0]].dtype).removeprefix("torch.")
        raise BenchError(
            f"weights file {file.path.name}: {whole[0]} holds {kind}, as quantised weights do; save them as float32"
        )
    try:
        network.load_state_dict(found.state)
    except (RuntimeError, ValueError) as error:  # what a layer itself says of the format
        reason = str(error).strip().replace("\n", " ")
        raise BenchError(f"weights file {file.path.name} does not fit this network: {reason}") from None
    if found.chosen:
        log.warning("weights file %s: %s", file.path.name, found.how)
    return found


def _misfit(
    content: Any,
    expected: Mapping[str, Any],
    file: WeightsFile,
    ignore: tuple[str, ...],
    rename: Callable[[str], str],
) -> str:
    """The sentence for a file that does not fit: the first name that is wrong, and the network that it is of."""
    called = f"weights file {file.path.name}"
    found = places(content, expected, rename)
    says = content.get("arch") if isinstance(content, Mapping) else None
    known = [f"it says that it is of {printable(says)}"] if isinstance(says, str) and says else []
    known += [text] if (text := nearest(content)) else []
    advice = "; ".join([*known, "give the state dict of this network"])
    if not any(inner_dicts(content)):
        return f"{called} is no state dict: it holds {outline(content)}; {advice}"
    inside, needed = found[0].inside if found else {}, needed_of(expected)
    behind = f" behind {found[0]}" if found and found[0].words else ""
    for name, value in inside.items():
        if name in needed and value.shape != needed[name].shape:
            shapes = f"{tuple(value.shape)}, this network needs {tuple(needed[name].shape)}"
            return f"{called}: {name}{behind} has shape {shapes}; {advice}"
    lacking = [name for name in needed if name not in inside]
    names, what = (lacking, "lacks") if lacking else (unknown_names(inside, expected, ignore), "holds the unknown")
    more = f" and {len(names) - 1} more" if names[1:] else ""
    return f"{called} {what} {names[0]}{more}{behind}; {advice}"


def facts(file: WeightsFile, taken: Unwrapped, recipe: str) -> dict[str, str]:
    """What the record says of weights from a file; `unwrapped` where something was to do."""
    told = {"source": file.source, "sha256": file.sha256, "recipe": recipe}
    return told | {"unwrapped": taken.how} if taken.how else told


def state_sha256(state: Mapping[str, Any]) -> str:
    """sha256 over names, shapes, dtypes and values of a state dict: what identifies a random initialisation."""
    digest = hashlib.sha256()
    for name in sorted(state):
        value = state[name].detach().cpu().contiguous().numpy()
        digest.update(f"{name} {value.dtype} {value.shape}\n".encode())
        digest.update(value.tobytes())
    return digest.hexdigest()


def weights_directories(policy: str) -> list[Path]:
    """Where a policy looks before torch's cache; BenchError for a directory that does not exist."""
    if policy == "random":
        return []
    named = [] if policy in ("auto", "pretrained") else [("--weights", policy)]
    if os.environ.get(DIRECTORY_VARIABLE):
        named.append((DIRECTORY_VARIABLE, os.environ[DIRECTORY_VARIABLE]))
    for origin, text in named:
        if not Path(text).is_dir():
            others = "auto, pretrained, random or " if origin == "--weights" else ""
            raise BenchError(f"{origin}={text!r} is not a directory; it must be {others}a directory that exists")
    return [Path(text) for _, text in named]


def _in_directory(directory: Path, network: str, urls: Mapping[str, str], kind: str) -> WeightsFile | None:
    """The best of a directory for this network. kind: what the directory is, for the record.

    Raises BenchError where the directory is itself the model folder of another network.
    """
    for path, recipe in _candidates(directory, network, urls):
        if path.is_dir():
            return _of_folder(path, network, f" from {kind}")
        return _checked(path, f"{path.name} from {kind}", recipe)
    return _of_folder(directory, network, "") if model_folder.is_model_folder(directory) else None


def _of_folder(path: Path, network: str, origin: str) -> WeightsFile:
    folder = model_folder.read(path)
    folder.check(network)
    source = f"{printable(path.resolve().name)}/{folder.file.name}{origin}"
    return replace(_checked(folder.file, source, None), folder=folder)


def _candidates(folder: Path, network: str, urls: Mapping[str, str]) -> Iterator[tuple[Path, str | None]]:
    """Files for this network, the best first: torchvision's own by name, then `<network>*` of one of SUFFIXES."""
    for recipe, url in urls.items():
        official = folder / _file_name(url)
        if official.is_file():
            yield official, recipe
    # vgg16_bn-6c64b313.pth is not for vgg16: after the name comes no letter, digit or underscore.
    suffixes = "|".join(map(re.escape, SUFFIXES))
    ours = re.compile(rf"{re.escape(network)}(?!\w).*({suffixes})")
    folders = re.compile(rf"{re.escape(network)}(?!\w).*")
    for path in sorted(folder.iterdir()):
        named_so = ours if path.is_file() else folders
        if named_so.fullmatch(path.name) and (path.is_file() or model_folder.is_model_folder(path)):
            yield path, None


def _file_name(url: str) -> str:
    return urlsplit(url).path.rpartition("/")[2]


def _hash_prefix(name: str) -> str:
    """resnet18-f37072fd.pth -> "f37072fd", the first digits of the file's sha256; "" where a name has none."""
    found = re.search(r"-([0-9a-f]{8,})\.", name)
    return found[1] if found else ""


def _checked(path: Path, source: str, recipe: str | None) -> WeightsFile:
    try:
        with path.open("rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise BenchError(f"weights file {path.name} cannot be read: {error.strerror}") from None
    if recipe is not None and not sha256.startswith(_hash_prefix(path.name)):
        raise BenchError(
            f"weights file {path.name} is damaged: its sha256 begins with {sha256[:8]}; remove it, "
            "or rename it if it is meant to differ from torchvision's"
        )
    return WeightsFile(path, source, sha256, recipe)


def _download(url: str, folder: Path) -> Path:
    """Fetch into torch's cache. Raises OSError with a short reason."""
    import torch

    _probe(url)
    name = _file_name(url)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with _socket_timeout(STALL_SECONDS):
            torch.hub.download_url_to_file(
                url, str(folder / name), hash_prefix=_hash_prefix(name), progress=sys.stderr.isatty()
            )
    except (RuntimeError, HTTPException) as error:  # RuntimeError: the hash does not fit
        raise OSError(str(error)) from None
    return folder / name


def _probe(url: str) -> None:
    """Raise OSError, within PROBE_SECONDS, where the file is not offered or its host not reachable."""
    host = urlsplit(url).netloc
    if host in _unreachable:
        raise OSError(_unreachable[host])
    answer: queue.SimpleQueue[Exception | None] = queue.SimpleQueue()

    def ask() -> None:
        try:
            with urlopen(Request(url, method="HEAD"), timeout=PROBE_SECONDS):
                answer.put(None)
        except (OSError, HTTPException) as error:
            answer.put(error)

    # In a thread, as the look-up of a host's name knows no time limit.
    threading.Thread(target=ask, daemon=True).start()
    try:
        error = answer.get(timeout=PROBE_SECONDS)
    except queue.Empty:
        error = TimeoutError(f"no answer in {PROBE_SECONDS:.0f} seconds")
    if isinstance(error, HTTPError):
        error.close()
        raise OSError(f"HTTP {error.code} {error.reason}")
    if error is not None:
        _unreachable[host] = f"{host} is not reachable: {getattr(error, 'reason', error)}"
        raise OSError(_unreachable[host])


@contextmanager
def _socket_timeout(seconds: float) -> Iterator[None]:
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(seconds)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)
