"""What libraries print by themselves, from C: about damaged files, of which it names none, and about ScaNN's work.

libjpeg, libpng, libtiff and OpenCV write such lines to the descriptor of stderr, past everything in Python. A file that
cannot be used is counted, and named with its reason, by this program.
"""

from __future__ import annotations

import atexit
import os
import re
import select
import sys
import threading

NOISE = re.compile(
    rb"Corrupt JPEG data: |Premature end of JPEG |Invalid SOS parameters |Unsupported marker type "
    rb"|Warning: unknown JFIF |libpng (warning|error): |Application transferred too "
    rb"|(tempfile\.tif|JPEGLib|JPEG\w*|O?JPEG\w*|\w*TIFF\w*|LZW\w*|ZIP\w*|Fax\w*|PackBits\w*|ThunderDecode|NeXTDecode"
    rb"|PixarLog\w*|LogLuv\w*|LogL16\w*|SGILog\w*|LERC\w*|ZSTD\w*|WebP\w*|LZMA\w*|Dump\w*): "
    rb"|WARNING: All log messages before absl::InitializeLog"
    rb"|[IW]\d{4} [\d:.]+ +\d+ (partitioner|gmm|kmeans|tree|scann)\w*\.(cc|h):"
    rb"|\[ ?(WARN|ERROR|INFO):\d+@[\d.]+\] global (grfmt_|loadsave|exif|[\w./]*imgcodecs)"
)
_PATIENCE_S = 0.2
"""After which a line without an end is shown as it is: it may be a question."""
_END = b"\0end of what is printed\0\n"


def keep_off_the_screen() -> None:
    """From here on, and in processes that are started, what is printed to stderr from C passes through a filter.

    What Python prints goes where it went, and past the filter.
    """
    if sys.platform == "win32":  # whose libraries have descriptors of their own
        return
    sys.stderr.flush()
    try:
        screen = os.dup(2)
        read, write = os.pipe()
        stream = open(os.dup(2), "w", buffering=1, encoding=sys.stderr.encoding, errors=sys.stderr.errors)  # noqa: SIM115
    except OSError:  # no descriptor is left
        return
    sys.stderr = stream
    os.dup2(write, 2)
    os.close(write)
    reader = threading.Thread(target=_pass_on, args=(read, screen), name="stderr", daemon=True)
    reader.start()
    atexit.register(_end, reader, screen)


def _end(reader: threading.Thread, screen: int) -> None:
    """Show what is still on its way."""
    os.write(2, _END)
    os.dup2(screen, 2)
    reader.join(timeout=2)


def _pass_on(read: int, screen: int) -> None:
    waiting = b""
    while True:
        if waiting and not select.select([read], [], [], _PATIENCE_S)[0]:
            _show(screen, waiting)
            waiting = b""
        content = os.read(read, 1 << 16)
        *lines, waiting = (waiting + content).splitlines(keepends=True) or [b""]
        if waiting.endswith((b"\n", b"\r")):
            lines, waiting = [*lines, waiting], b""
        for line in lines:
            before, ended, _ = line.partition(_END)
            if not NOISE.match(before):
                _show(screen, before)
            if ended:
                return
        if not content:
            _show(screen, waiting)
            return


def _show(screen: int, content: bytes) -> None:
    try:
        while content:
            content = content[os.write(screen, content) :]
    except OSError:  # nobody reads any more
        return
