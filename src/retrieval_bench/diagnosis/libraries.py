"""OpenCV and torch: whether they load, in which version, and with what. Each is asked in a process of its own, since a
broken one may end the process that loads it."""

from __future__ import annotations

import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from importlib import metadata
from typing import Any

from retrieval_bench.diagnosis.condition import Condition

PATIENCE_S = 60
OPENCV = ("opencv-python-headless", "opencv-python", "opencv-contrib-python-headless", "opencv-contrib-python")
"""Distributions that all install the one module cv2, each over the other's files."""

_ASK_CV2 = "import cv2, json; print(json.dumps({'version': cv2.__version__, 'threads': cv2.getNumThreads()}))"
_ASK_TORCH = """
import json, torch, torchvision
cuda = torch.cuda.is_available()
print(json.dumps({
    "version": torch.__version__, "torchvision": torchvision.__version__, "threads": torch.get_num_threads(),
    "built": torch.version.cuda, "gpu": torch.cuda.get_device_name() if cuda else "",
}))
"""


def libraries() -> dict[str, Condition]:
    """ "cv2" and "torch" -> what is installed and whether it loads."""
    with ThreadPoolExecutor(2) as pool:
        cv2, torch = pool.map(_told, (_ASK_CV2, _ASK_TORCH))
    return {"cv2": _of_cv2(cv2, _installed()), "torch": _of_torch(torch)}


def _installed() -> dict[str, str]:
    found = {}
    for name in OPENCV:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def _told(code: str) -> dict[str, Any] | str:
    """What the code printed as JSON; or, as text, why it did not."""
    try:
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=PATIENCE_S, check=False)
    except subprocess.TimeoutExpired:
        return f"loading it takes more than {PATIENCE_S} s"
    except OSError as error:
        return f"no process can be started for it ({error.strerror})"
    if done.returncode < 0:
        return f"loading it ends the process by signal {-done.returncode}"
    if done.returncode:
        lines = done.stderr.decode(errors="replace").strip().splitlines()
        return lines[-1][:300] if lines else f"loading it ends the process with code {done.returncode}"
    try:
        told = json.loads(done.stdout.decode(errors="replace").strip().splitlines()[-1])
    except (ValueError, IndexError):
        return "it does not say its version"
    return told if isinstance(told, dict) else "it does not say its version"


def _of_cv2(told: dict[str, Any] | str, installed: dict[str, str]) -> Condition:
    packages = ", ".join(f"{name} {version}" for name, version in installed.items()) or "of no package that pip knows"
    names = " ".join(installed) or OPENCV[0]
    again = f"pip uninstall -y {names} && pip install {OPENCV[0]}"
    if isinstance(told, str):
        return Condition(f"does not load: {told} ({packages})", f"no image can be described without it; {again}")
    state = f"{told['version']}, {told['threads']} threads ({packages})"
    if len(installed) > 1:
        return Condition(state, f"these packages write over each other's files; keep one: {again}")
    return Condition(state)


def _of_torch(told: dict[str, Any] | str) -> Condition:
    if isinstance(told, str):
        return Condition(
            f"does not load: {told}",
            "rows of networks fail, all others run; install torch and torchvision again, both from one index: "
            "pip install --force-reinstall torch torchvision",
        )
    state = f"{told['version']}, torchvision {told['torchvision']}, {told['threads']} threads"
    if told["gpu"]:
        return Condition(f"{state}, CUDA {told['built']} on {told['gpu']}")
    if told["built"]:
        return Condition(f"{state}, built for CUDA {told['built']}, of which no GPU is seen")
    return Condition(f"{state}, without CUDA")
