"""Methods that crash, hang and misbehave, in a file that is a plug-in; and the command line in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.support.paths import ROOT

FAULTY = """
import ctypes, os, sys, threading, time
import numpy as np
from retrieval_bench import EXTRACTORS


class Faulty:
    distance = "euclidean"

    def __init__(self, fault):
        self.fault = fault

    def fit(self, train):
        return self

    def transform(self, images):
        getattr(self, self.fault)()
        return np.array([image.mean((0, 1)) for image in images], np.float32).reshape(-1, 3)

    def crash(self):
        ctypes.string_at(0)

    def leave(self):
        os._exit(0)

    def exit(self):
        sys.exit(3)

    def interrupt(self):
        raise KeyboardInterrupt

    def hang(self):
        time.sleep(1000)

    def eat(self):
        eaten = []
        while True:
            eaten.append(np.ones(10_000_000))
            time.sleep(0.01)

    def move(self):
        print("printed by a method")
        os.chdir("/")
        os.environ["OMP_NUM_THREADS"] = "7"

    def late(self):
        threading.Thread(target=lambda: (time.sleep(0.3), os._exit(5))).start()

    def see(self):
        assert "OMP_NUM_THREADS" not in os.environ

    def fine(self):
        pass


def register(fault):
    @EXTRACTORS(f"f-{fault}", family="color", about="for tests")
    def build(setup):
        return Faulty(fault)


for fault in ("crash", "leave", "exit", "interrupt", "hang", "eat", "move", "late", "see", "fine"):
    register(fault)
"""


def faulty_file(path: Path) -> Path:
    """A plug-in with methods that are called f- and what they do."""
    path.write_text(FAULTY, encoding="utf-8")
    return path


def command(shelf: Path, out: Path, *words: object) -> list[str]:
    """`python -m benchmark run` on a folder of images."""
    given = ("--dataset", "folder", "--data-root", shelf, "--out", out, "--k", "1,3", "--threads", "1", "--recompute")
    return [sys.executable, "-m", "benchmark", "run", *map(str, (*given, *words))]


def begun(words: list[str], **options: Any) -> subprocess.Popen[str]:
    """A process that runs the command line; from the root of the repository, if nowhere else."""
    paths = os.pathsep.join([str(ROOT), str(ROOT / "src"), os.environ.get("PYTHONPATH", "")])
    piped = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "cwd": ROOT}
    return subprocess.Popen(words, **(piped | {"env": os.environ | {"PYTHONPATH": paths}} | options))
