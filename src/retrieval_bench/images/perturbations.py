"""Perturbations: images as they might have been taken, e.g. rotated, cropped, out of focus, in bad light.

A perturbation is a pure function of the pixels, the severity and the seed. What is drawn at random (to which side, at
which place, which noise) does not depend on the severity, so that along a curve one and the same change only grows.
The severities of blur and noise follow Hendrycks and Dietterich, Benchmarking Neural Network Robustness, ICLR 2019.
"""

from __future__ import annotations

import functools
import hashlib
import io
import math
from collections.abc import Callable, Sequence

import numpy as np
from PIL import Image

from retrieval_bench.core import SEVERITIES as SEVERITIES
from retrieval_bench.core import BenchError, Images
from retrieval_bench.images.decoding import decode
from retrieval_bench.images.reading import encode_png
from retrieval_bench.registry import PERTURBATIONS
from retrieval_bench.system.cache import code_version

Change = Callable[[np.ndarray, int, np.random.Generator], np.ndarray]


def perturbed(name: str, pixels: np.ndarray, severity: int, seed: int = 0) -> np.ndarray:
    """Perturb one image.

    Args:
        name: a registered perturbation, e.g. "rotate".
        pixels: (h, w, 3) uint8 RGB; not written to.
        severity: 1 (slight) to 5 (severe).
        seed: seed of what is random, from 0. The content of the image enters, too.

    Returns:
        (h', w', 3) uint8 RGB, at least one pixel; another size only if the perturbation crops.

    Raises:
        BenchError: The name or the severity is unknown.
    """
    change: Change = PERTURBATIONS[name].build
    if severity not in SEVERITIES:
        raise BenchError(f"severity {severity} of {name} is not one of {', '.join(map(str, SEVERITIES))}")
    content = hashlib.sha256(f"{seed} {name} {pixels.shape} ".encode() + pixels.tobytes()).digest()
    dice = np.random.default_rng(int.from_bytes(content, "big"))
    return np.ascontiguousarray(change(pixels, severity, dice))


def parse_severities(text: str) -> tuple[int, ...]:
    """Parse the value of `--severity`.

    Args:
        text: numbers from 1 to 5 with commas, e.g. "1,3,5".

    Returns:
        The severities, ascending and without repeats.

    Raises:
        BenchError: The text is not such a list.
    """
    try:
        wanted = sorted({int(part) for part in text.split(",")})
    except ValueError:
        wanted = []
    if not wanted or not set(wanted) <= set(SEVERITIES):
        raise BenchError(f"--severity {text!r}: write numbers from 1 (slight) to 5 (severe), e.g. --severity 1,3,5")
    return tuple(wanted)


class Perturbed:
    """The same images, each perturbed when it is read. Implements `core.Images`.

    Its digests differ from those of the clean images, so that no cache confuses the two.

    Args:
        images: the clean images.
        name: a registered perturbation.
        severity: 1 to 5.
        seed: seed of what is random, from 0.
    """

    def __init__(self, images: Images, name: str, severity: int, seed: int) -> None:
        self._images, self._name, self._severity, self._seed = images, name, severity, seed

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, row: int) -> np.ndarray:
        return perturbed(self._name, self._images[row], self._severity, self._seed)

    def read(self, row: int) -> bytes:
        """Encode the perturbed image as PNG, which is lossless."""
        return encode_png(self[row])

    def digest(self, row: int) -> str:
        """Hash the clean image's digest together with everything that the perturbation depends on."""
        what = f"{self._images.digest(row)} {self._name} {self._severity} {self._seed} {_code()}"
        return hashlib.sha256(what.encode()).hexdigest()

    def take(self, rows: Sequence[int]) -> Perturbed:
        """Select images, in this order."""
        return Perturbed(self._images.take(rows), self._name, self._severity, self._seed)


@functools.cache
def _code() -> str:
    return code_version(__file__)


def _step(severity: int, *values: float) -> float:
    return values[severity - 1]


def _register(name: str, about: str, *, graded: bool = True) -> Callable[[Change], Change]:
    """Register a perturbation: (pixels, severity, generator) -> perturbed pixels.

    Args:
        name: how users call it.
        about: one line that says what it does at severities 1 to 5.
        graded: False if all severities are the same.

    Returns:
        A decorator, which returns the function unchanged.
    """
    return PERTURBATIONS(name, about=about, graded=graded)


@_register("rotate", "turned to either side by 5, 10, 20, 40, 80 degrees; the corners are mirrored")
def rotate(pixels: np.ndarray, severity: int, dice: np.random.Generator) -> np.ndarray:
    """Rotate about the middle; corners are mirrored."""
    import cv2

    height, width = pixels.shape[:2]
    degrees = _step(severity, 5, 10, 20, 40, 80) * dice.choice((-1, 1))
    turn = cv2.getRotationMatrix2D(((width - 1) / 2, (height - 1) / 2), degrees, 1.0)
    # Black corners would tell that a picture was turned.
    turned = cv2.warpAffine(pixels, turn, (width, height), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101)
    return np.asarray(turned)


@_register("crop", "a part of it, at any place: 85, 70, 55, 40, 25 % of the area")
def crop(pixels: np.ndarray, severity: int, dice: np.random.Generator) -> np.ndarray:
    """Cut out a part at a random position."""
    side = math.sqrt(_step(severity, 0.85, 0.70, 0.55, 0.40, 0.25))
    height, width = pixels.shape[:2]
    tall, wide = max(1, round(height * side)), max(1, round(width * side))
    down, across = dice.random(2)
    top, left = round(down * (height - tall)), round(across * (width - wide))
    return pixels[top : top + tall, left : left + wide]


@_register("jpeg", "saved as JPEG of quality 40, 25, 15, 10, 5, with halved colour")
def jpeg(pixels: np.ndarray, severity: int, dice: np.random.Generator) -> np.ndarray:
    """Save as JPEG and decode again."""
    buffer = io.BytesIO()
    quality = int(_step(severity, 40, 25, 15, 10, 5))
    Image.fromarray(pixels).save(buffer, "JPEG", quality=quality, subsampling="4:2:0")
    return decode(buffer.getvalue())


@_register("blur", "out of focus: Gaussian of sigma 0.45, 0.9, 1.35, 1.8, 2.7 % of the shorter side")
def blur(pixels: np.ndarray, severity: int, dice: np.random.Generator) -> np.ndarray:
    """Blur with a Gaussian."""
    import cv2

    sigma = _step(severity, 0.0045, 0.009, 0.0135, 0.018, 0.027) * min(pixels.shape[:2])
    blurred = cv2.GaussianBlur(pixels, (0, 0), max(sigma, 1e-3), borderType=cv2.BORDER_REFLECT_101)
    return np.asarray(blurred)


@_register("noise", "Gaussian noise on every sample: standard deviation 8, 12, 18, 26, 38 % of the range")
def noise(pixels: np.ndarray, severity: int, dice: np.random.Generator) -> np.ndarray:
    """Add Gaussian noise to every sample."""
    strength = np.float32(255 * _step(severity, 0.08, 0.12, 0.18, 0.26, 0.38))
    return _rounded(pixels + strength * dice.standard_normal(pixels.shape, np.float32))


@_register("brightness", "too bright or too dark: all samples times or over 1.3, 1.6, 2, 2.6, 3.5")
def brightness(pixels: np.ndarray, severity: int, dice: np.random.Generator) -> np.ndarray:
    """Multiply or divide all samples by a factor."""
    factor = _step(severity, 1.3, 1.6, 2.0, 2.6, 3.5)
    return _rounded(pixels.astype(np.float32) * np.float32(factor if dice.random() < 0.5 else 1 / factor))


@_register("occlude", "something grey before it: a rectangle of 5, 10, 20, 30, 40 % of the area, at any place")
def occlude(pixels: np.ndarray, severity: int, dice: np.random.Generator) -> np.ndarray:
    """Cover a part with a grey rectangle at a random position."""
    height, width = pixels.shape[:2]
    share = _step(severity, 0.05, 0.10, 0.20, 0.30, 0.40)
    stretch, down, across = dice.random(3)
    ratio = 2.0 ** (stretch - 0.5)  # side ratio from 1/2 to 2, relative to the picture's own
    tall = min(height, max(1, round(height * math.sqrt(share) * ratio)))
    wide = min(width, max(1, round(width * math.sqrt(share) / ratio)))
    top, left = round(down * (height - tall)), round(across * (width - wide))
    hidden = pixels.copy()
    hidden[top : top + tall, left : left + wide] = 128
    return hidden


@_register("flip", "its mirror image, left for right; all severities are the same", graded=False)
def flip(pixels: np.ndarray, severity: int, dice: np.random.Generator) -> np.ndarray:
    """Mirror left and right."""
    return pixels[:, ::-1]


@_register("background", "other surroundings: 10, 20, 35, 50, 65 % of the area, outside a centred ellipse")
def background(pixels: np.ndarray, severity: int, dice: np.random.Generator) -> np.ndarray:
    """Replace the surroundings of a centred ellipse.

    The object is supposed to be in the middle: nothing is segmented. If the ellipse of the wanted area would leave the
    frame, the frame cuts it.
    """
    height, width = pixels.shape[:2]
    coarse = dice.integers(0, 256, (4, 4, 3), dtype=np.uint8)
    scene = np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC), np.float32)
    y = (np.arange(height, dtype=np.float32) + 0.5) * 2 / height - 1
    x = (np.arange(width, dtype=np.float32) + 0.5) * 2 / width - 1
    away = np.sqrt(y[:, None] ** 2 + x[None, :] ** 2)  # 1 on the ellipse that touches all four sides
    edge = np.quantile(away, 1 - _step(severity, 0.10, 0.20, 0.35, 0.50, 0.65))
    share = np.clip((away - edge) / 0.05 + 0.5, 0, 1)[:, :, None]  # a soft edge: a hard one is a shape of its own
    return _rounded(pixels + share * (scene - pixels))


def _rounded(samples: np.ndarray) -> np.ndarray:
    return np.clip(np.rint(samples), 0, 255).astype(np.uint8)
