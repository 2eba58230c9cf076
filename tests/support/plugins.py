"""Plug-ins for tests: files, and packages as pip leaves them."""

from __future__ import annotations

from pathlib import Path

HEAD = """\
import numpy as np
from retrieval_bench import DATASETS, EXTRACTORS, METRICS

"""

METHOD = '''
@EXTRACTORS("{name}", family="color", about="the mean of each channel")
def build(setup, *, power: float = 1.0):
    """The mean of each channel.

    Args:
        setup: what the run fixes for every method.
        power: to which the means are raised, above 0.
    """
    return Mean(power)


class Mean:
    distance = "euclidean"

    def __init__(self, power):
        self.power = power

    def fit(self, train):
        return self

    def transform(self, images):
        return np.array([(image / 255.0).mean((0, 1)) ** self.power for image in images], np.float32).reshape(-1, 3)
'''


def method_file(path: Path, name: str = "plain-mean", more: str = "") -> Path:
    """A file that registers one method; more: Python code behind it."""
    path.write_text(HEAD + METHOD.format(name=name) + more, encoding="utf-8")
    return path


def installed(site: Path, package: str, module: str, code: str, group: str = "retrieval_bench.extractors") -> None:
    """A distribution with one module and one entry point, in a folder that belongs on sys.path."""
    (site / f"{module}.py").write_text(code, encoding="utf-8")
    facts = site / f"{package.replace('-', '_')}-1.2.dist-info"
    facts.mkdir(parents=True)
    (facts / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.2\n", encoding="utf-8")
    (facts / "entry_points.txt").write_text(f"[{group}]\n{module} = {module}\n", encoding="utf-8")
