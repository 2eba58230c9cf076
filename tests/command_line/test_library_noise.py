"""Lines that image libraries print from C are kept off the screen; all others arrive, in their order."""

from __future__ import annotations

import subprocess
import sys
import time

import pytest

from benchmark.library_noise import NOISE
from tests.support.paths import ROOT

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="nothing is filtered there")

BEGIN = """
import os, subprocess, sys
sys.path.insert(0, {root!r})
from benchmark.library_noise import keep_off_the_screen
keep_off_the_screen()
"""


def printed(code: str) -> list[str]:
    words = [sys.executable, "-c", BEGIN.format(root=str(ROOT)) + code]
    done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=60)
    return done.stderr.splitlines()


@pytest.mark.parametrize(
    "line",
    [
        "Corrupt JPEG data: premature end of data segment",
        "Premature end of JPEG file",
        "libpng warning: iCCP: known incorrect sRGB profile",
        "libpng error: IDAT: CRC error",
        "TIFFReadDirectory: Warning, Unknown field with tag 37724 (0x935c) encountered.",
        "tempfile.tif: Using code not yet in table.",
        "ZIPDecode: Decoding error at scanline 0, incorrect data check.",
        "JPEGLib: Not a JPEG file: starts with 0xfa 0xd8.",
        "_TIFFVSetField: tempfile.tif: Bad value",
        "WARNING: All log messages before absl::InitializeLog() is called are written to STDERR",
        "I0000 00:00:1795815061.853712   14068 partitioner_factory_base.cc:58] Size of sampled dataset: 2000",
        "W0000 00:00:1795815061.856078   14068 gmm_utils.cc:1026] Could not normalize centroid due to zero norm",
        "[ WARN:0@0.123] global loadsave.cpp:848 imdecode_ can't read header",
    ],
)
def test_what_libraries_say(line: str) -> None:
    assert NOISE.match(line.encode())


@pytest.mark.parametrize(
    "line", ["error: a sentence", "Traceback (most recent call last):", "warning: damaged", "Fatal Python error: x", ""]
)
def test_what_others_say(line: str) -> None:
    assert not NOISE.match(line.encode())


def test_noise_is_dropped_and_all_else_arrives_in_order() -> None:
    code = """
os.write(2, b"one\\nCorrupt JPEG data: x\\ntwo\\nlibpng war")
os.write(2, b"ning: y\\nthree\\n")
subprocess.run([sys.executable, "-c", "import os; os.write(2, b'child\\\\nlibpng error: z\\\\n')"])
os.write(2, b"no end")
"""
    assert printed(code) == ["one", "two", "three", "child", "no end"]


def test_python_prints_past_the_filter() -> None:
    assert printed("print('libpng warning: said by Python', file=sys.stderr)") == ["libpng warning: said by Python"]
    assert printed("raise ValueError('x')")[-1] == "ValueError: x"


def test_a_line_without_an_end_is_not_kept_back() -> None:
    code = BEGIN.format(root=str(ROOT)) + "os.write(2, b'really? '); sys.stdin.read()"
    words = [sys.executable, "-c", code]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stderr is not None
        begun = time.monotonic()
        assert process.stderr.read(8) == b"really? "
        assert time.monotonic() - begun < 30
        process.stdin.close()
        assert process.wait(timeout=30) == 0


def test_what_a_dying_process_said_is_shown_by_its_parent() -> None:
    child = "import os, signal; os.write(2, b'last words\\\\n'); os.kill(os.getpid(), signal.SIGKILL)"
    assert printed(f'subprocess.run([sys.executable, "-c", "{child}"])') == ["last words"]


def test_nobody_reads_any_more() -> None:
    code = BEGIN.format(root=str(ROOT)) + "os.write(2, b'line\\n' * 100_000); print('done')"
    done = subprocess.run(
        ["bash", "-c", 'exec "$0" -c "$1" 2> >(head -c 1 > /dev/null)', sys.executable, code],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.stdout == "done\n"
