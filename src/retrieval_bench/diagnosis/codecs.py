"""Which image formats can be read here, by what, and what would add those that cannot."""

from __future__ import annotations

from importlib import metadata

import PIL
import PIL.features

from retrieval_bench.diagnosis.condition import Condition
from retrieval_bench.images.formats import FORMATS, OPTIONAL, readable

_LIBRARY = {"JPEG": "jpg", "PNG": "zlib", "WEBP": "webp", "TIFF": "libtiff", "AVIF": "avif", "JPEG 2000": "jpg_2000"}
"""Format -> what Pillow calls the library behind it."""


def codecs() -> dict[str, Condition]:
    """Format -> who reads it, or that nobody does and what installs one who would."""
    return {name: _codec(name) for name in dict.fromkeys((*FORMATS, *OPTIONAL))}


def _codec(name: str) -> Condition:
    optional = OPTIONAL.get(name)
    library = _LIBRARY.get(name)
    if library is None and optional is None:
        return Condition(f"Pillow {PIL.__version__}")
    if optional is not None and optional.distribution:
        if not readable(name):
            return Condition("not read", optional.needs)
        return Condition(f"{optional.distribution} {metadata.version(optional.distribution)}")
    if library is None or not PIL.features.check(library):
        needs = optional.needs if optional is not None else f"a Pillow that is built with {library}"
        return Condition("not read", f"install {needs}")
    return Condition(f"Pillow {PIL.__version__}, {library} {PIL.features.version(library) or 'of unknown version'}")
