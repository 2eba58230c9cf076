"""A folder that timm or Hugging Face wrote: config.json, which says what network it is, beside its weights."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from retrieval_bench.core import BenchError, printable
from retrieval_bench.extractors.deep.preprocess import IMAGENET_MEAN, IMAGENET_STD, Preprocess

CONFIG = "config.json"
FILES = ("model.safetensors", "pytorch_model.bin")
INDICES = tuple(f"{file}.index.json" for file in FILES)


@dataclass(frozen=True)
class ModelFolder:
    """file: its weights. architecture: timm's name of the network. data: timm's figures of how images are prepared."""

    file: Path
    architecture: str
    data: Mapping[str, Any]

    def check(self, network: str) -> None:
        """BenchError where the folder is of another network than this one, which may be a name of timm with a tag."""
        if self.architecture != network.partition(".")[0]:
            raise BenchError(
                f"weights folder {printable(self.file.parent.name)} is of {self.architecture}, as its {CONFIG} says, "
                f"and not of {network}; run timm:{self.architecture} with it"
            )


def is_model_folder(folder: Path) -> bool:
    """Whether it has a config.json, and beside it weights under one of the names that the libraries use."""
    return (folder / CONFIG).is_file() and any((folder / name).is_file() for name in (*FILES, *INDICES))


def read(folder: Path) -> ModelFolder:
    """Raises BenchError where config.json is damaged, or of a network of transformers, whose names are its own."""
    called = f"weights folder {printable(folder.name)}"
    try:
        config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
        architecture = config.get("architecture")
        data = config.get("pretrained_cfg") or {}
    except (OSError, ValueError, AttributeError) as error:
        raise BenchError(f"{called}: its {CONFIG} cannot be read ({error}); give a whole copy of the folder") from None
    if not isinstance(architecture, str) or not isinstance(data, Mapping):
        classes = ", ".join(map(str, config.get("architectures") or [])) or "no network"
        raise BenchError(
            f"{called}: its {CONFIG} names {classes} of Hugging Face transformers, which calls its layers otherwise "
            "than timm and torchvision do; take a folder that timm wrote, or return the network from "
            "module:FILE.py:FUNCTION"
        )
    file = next((folder / name for name in FILES if (folder / name).is_file()), None)
    if file is None:
        raise BenchError(f"{called}: its weights are in several parts; save the state dict in one file")
    return ModelFolder(file, architecture, data)


def preprocess_of(called: str, data: Mapping[str, Any]) -> Preprocess:
    """From the figures that timm keeps of a network. called: for the sentence of BenchError, where they are none."""
    try:
        side = int(data.get("input_size", (3, 224, 224))[-1])
        crop_mode = data.get("crop_mode", "center")
        return Preprocess(
            math.floor(side / data.get("crop_pct", 0.875)),
            side,
            tuple(map(float, data.get("mean", IMAGENET_MEAN))),
            tuple(map(float, data.get("std", IMAGENET_STD))),
            data.get("interpolation", "bicubic"),
            squash=crop_mode == "squash",
        )
    except (TypeError, ValueError, IndexError, ZeroDivisionError) as error:
        raise BenchError(f"{called}: its figures on how images are prepared make no sense ({error})") from None


def in_words(preprocess: Preprocess) -> str:
    """The figures, for a record: two that differ read differently."""
    channels = (",".join(f"{value:g}" for value in values) for values in (preprocess.mean, preprocess.std))
    how = "squashed to" if preprocess.squash else f"{preprocess.resize} cropped to"
    return f"{how} {preprocess.crop} px, {preprocess.interpolation}, mean {next(channels)}, std {next(channels)}"
