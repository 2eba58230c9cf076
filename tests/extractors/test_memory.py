"""No extractor takes more than four times the memory of the decoded picture, however large it is."""

from __future__ import annotations

import subprocess
import sys

import pytest

METHODS = (
    *("moments", "hsv", "lab", "color", "lbp", "hog", "sift", "dense-sift", "orb", "phash", "dhash", "ahash", "whash"),
    *("colorhash", "block-mean", "crop-resistant", "squeezenet1_0", "sift@contrast", "sift@greyworld", "color@trim"),
)
TIMES = 4

# One process for all, since each loads the libraries; the peak is set back between them, which Linux alone can.
MEASURE = """
import sys
import numpy as np
from retrieval_bench.contracts.pictures import drawn
from retrieval_bench.core import Setup
from retrieval_bench.methods.parse import parse_method
from retrieval_bench.registry import fill
from retrieval_bench.system.timing import pinned

def of_status(name):
    lines = open("/proc/self/status").read().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(name))

fill()
_, train, _ = drawn()
across, down = np.meshgrid(np.arange(4000), np.arange(3000))
picture = np.stack([across // 16, down // 12, (across + down) // 28], axis=2).astype(np.uint8)
del across, down
with pinned(1):
    for method in sys.argv[1:]:
        extractor = parse_method(method).members[0].build(Setup(weights="random"))
        extractor.fit(train)
        extractor.transform([picture[:300, :400]])
        open("/proc/self/clear_refs", "w").write("5")
        before = of_status("VmRSS")
        extractor.transform([picture])
        print(method, (of_status("VmHWM") - before) / picture.nbytes, flush=True)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads the peak of memory from Linux")
@pytest.mark.long(reason="describes a picture of 12 megapixels by 20 methods")
def test_memory_follows_the_picture() -> None:
    words = [sys.executable, "-W", "ignore", "-c", MEASURE, *METHODS]
    done = subprocess.run(words, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    times = {method: float(share) for method, share in (line.split() for line in done.stdout.splitlines())}
    assert list(times) == list(METHODS)
    assert {method: share for method, share in times.items() if share > TIMES} == {}
    assert max(times.values()) > 0.5, "nothing was measured"
