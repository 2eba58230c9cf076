"""An extractor that sees cleaned pictures, while it learns and while it describes: `sift@trim`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Self

import numpy as np

from retrieval_bench.core import Distance, Extractor, Split
from retrieval_bench.images.cleaning import Clean, CleanedImages, in_turn, load_opencv


class CleanedExtractor:
    """Cleans each picture, then hands it on. Everything else is read from the extractor within, and set there.

    Cleaning is part of `transform`, so whoever times a query times it, and a perturbed query is cleaned as well.

    Args:
        extractor: what looks at the cleaned pictures.
        name: what is done to them, with all options.
        cleanings: one after the other.
    """

    extractor: Extractor
    distance: Distance
    wanted = None  # a cleaning looks at every pixel

    def __init__(self, extractor: Extractor, name: str, cleanings: Sequence[Clean]) -> None:
        load_opencv()
        vars(self).update(extractor=extractor, distance=extractor.distance, _name=name, _clean=in_turn(cleanings))

    def clean(self, image: np.ndarray) -> np.ndarray:
        """(h, w, 3) uint8 RGB -> the same as the extractor sees it."""
        cleaned: np.ndarray = vars(self)["_clean"](image)
        return cleaned

    def fit(self, train: Split) -> Self:
        self.extractor.fit(replace(train, images=CleanedImages(train.images, vars(self)["_name"], self.clean)))
        return self

    def transform(self, images: Sequence[np.ndarray]) -> np.ndarray:
        return self.extractor.transform([self.clean(image) for image in images])

    def __getattr__(self, name: str) -> Any:
        if name == "extractor":  # not there yet, while it is copied
            raise AttributeError(name)
        return getattr(self.extractor, name)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self.extractor, name, value)
