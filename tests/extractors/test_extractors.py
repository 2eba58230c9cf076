"""The contract of core.Extractor, over every registered method and one network that the provider adds."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache

import numpy as np
import pytest

import retrieval_bench.extractors  # noqa: F401 - registers the methods
from retrieval_bench.core import DISTANCES, BenchError, Extractor, Setup, Split
from retrieval_bench.images.reading import ImageBytes, encode_png
from retrieval_bench.registry import EXTRACTORS
from retrieval_bench.system.timing import pinned
from tests.support.blocks import blank, scene

SETUP = Setup(seed=0, weights="random")
FAMILIES = {"local", "gradient", "texture", "hash", "color", "control", "deep"}
# What needs to be told which network or file is tested in test_foreign.py, test_exported.py and test_own_network.py.
OWN = [
    entry.name
    for entry in EXTRACTORS.own()
    if entry.name != "oracle" and "argument" not in entry.facts and entry.family != "text"
]
NETWORKS = {
    "efficientnet_lite0": pytest.mark.long(
        reason="a whole network, again and again; mobilenet_v3_small goes the same way"
    ),
    "efficientnet_lite2": pytest.mark.long(reason="a larger network, again and again, of the same code as lite0"),
}
METHODS = [
    pytest.param(name, marks=NETWORKS[name]) if name in NETWORKS else name for name in (*OWN, "mobilenet_v3_small")
]

pytestmark = pytest.mark.parametrize("method", METHODS)


def nasty() -> list[np.ndarray]:
    """Read-only, as the runner may hand out shared arrays."""
    grey = np.repeat(scene(90)[:, :, :1], 3, axis=2)
    images = [
        scene(91),
        blank(64, 64),
        blank(50, 70, 0),
        blank(1, 1, 255),
        scene(92, 10, 2000),
        scene(93, 2000, 10),
        blank(1, 5000, 7),
        grey,
        scene(94)[:, ::-1],  # not contiguous
        scene(95, 33, 47),
        scene(91),
    ]
    for image in images:
        image.setflags(write=False)
    return images


def split_of(images: list[np.ndarray]) -> Split:
    n = len(images)
    return Split(
        tuple(f"{row}.png" for row in range(n)), np.arange(n) % 3, ImageBytes([encode_png(image) for image in images])
    )


SHORT = {"convnet": {"epochs": 2}}  # of which the contract is the same as after all of them, which take seconds


def build(method: str) -> Extractor:
    return EXTRACTORS[method].build(SETUP, **SHORT.get(method, {}))


@cache
def train() -> Split:
    return split_of([scene(seed) for seed in range(12)])


@cache
def fitted(method: str) -> Extractor:
    return build(method).fit(train())


@dataclass(frozen=True)
class Again:
    """A second extractor after it has learned from the same images, and what that left behind."""

    itself: bool
    features: np.ndarray
    numpy_is_as_before: bool
    torch_is_as_before: bool


@cache
def again(method: str) -> Again:
    import torch

    numpy_state, torch_state = np.random.get_state()[1].copy(), torch.get_rng_state()  # noqa: NPY002
    extractor = build(method)
    itself = extractor.fit(train()) is extractor
    features = extractor.transform(nasty())
    same = bool((np.random.get_state()[1] == numpy_state).all())  # noqa: NPY002
    return Again(itself, features, same, torch.equal(torch.get_rng_state(), torch_state))


@cache
def expected(method: str) -> np.ndarray:
    features = fitted(method).transform(nasty())
    features.setflags(write=False)
    return features


@pytest.fixture(autouse=True)
def one_thread_a_library() -> Iterator[None]:
    """As the runner extracts; torch's sums depend on how many threads share one image."""
    import torch  # noqa: F401  pinned() leaves alone what is not loaded

    with pinned(1):
        yield


def test_the_entry_says_what_it_is(method: str) -> None:
    entry = EXTRACTORS[method]
    assert entry.family in FAMILIES
    assert 10 < len(entry.about) < 90
    assert build(method).distance in DISTANCES
    wanted = getattr(build(method), "wanted", None)
    assert wanted is None or (isinstance(wanted, int) and wanted >= 1)


def test_shape_dtype_and_finite_rows_for_nasty_images(method: str) -> None:
    features = expected(method)
    assert features.shape[0] == len(nasty())
    assert features.ndim == 2
    assert features.shape[1] > 0
    assert features.dtype == (np.uint8 if fitted(method).distance == "hamming" else np.float32)
    assert np.isfinite(features).all()


def test_what_is_no_picture_is_refused_and_not_described_wrongly(method: str) -> None:
    if EXTRACTORS[method].family == "control":
        return  # which looks at no pixel
    for wrong in (np.zeros((40, 40), np.uint8), np.zeros((40, 40, 4), np.uint8), np.zeros((3, 40, 40), np.uint8)):
        with pytest.raises(BenchError, match="picture 1 is an array of uint8 of the shape"):
            fitted(method).transform([scene(0), wrong])
    with pytest.raises(BenchError, match="picture 0 is an array of float64"):
        fitted(method).transform([scene(0) / 255])


def test_what_learns_is_not_asked_before_it_has(method: str) -> None:
    if not getattr(fitted(method), "learned", ()):
        return
    with pytest.raises(BenchError, match="learns from train, and has learned nothing yet; call fit first"):
        build(method).transform([scene(0)])


def test_structured_images_get_different_features(method: str) -> None:
    if method == "mobilenet_v3_small":
        pytest.skip("random weights may map two images to one vector")
    features = expected(method)
    assert features[0].any()
    assert (features[0] != features[9]).any()


def test_no_image_gives_no_row(method: str) -> None:
    assert fitted(method).transform([]).shape == (0, expected(method).shape[1])


def test_a_row_depends_on_its_image_alone(method: str) -> None:
    images = nasty()
    order = np.random.default_rng(3).permutation(len(images))
    permuted = fitted(method).transform([images[row] for row in order])
    np.testing.assert_array_equal(permuted, expected(method)[order])
    for row, image in enumerate(images):
        np.testing.assert_array_equal(fitted(method).transform([image])[0], expected(method)[row])
    np.testing.assert_array_equal(expected(method)[0], expected(method)[-1])


def test_threads_may_transform_at_once(method: str) -> None:
    images, extractor = nasty(), fitted(method)  # learned before: nobody says that threads may learn at once
    with ThreadPoolExecutor(3) as pool:
        batches = list(pool.map(lambda _: extractor.transform(images), range(3)))
    for features in batches:
        np.testing.assert_array_equal(features, expected(method))


def test_images_are_left_as_they_were(method: str) -> None:
    images = [image.copy() for image in nasty()]
    fitted(method).transform(images)
    for image, before in zip(images, nasty(), strict=True):
        np.testing.assert_array_equal(image, before)


def test_fit_returns_self(method: str) -> None:
    assert again(method).itself


def test_the_same_seed_gives_the_same_features(method: str) -> None:
    np.testing.assert_array_equal(again(method).features, expected(method))


def test_what_is_learned_can_be_saved_and_restored(method: str) -> None:
    restored = build(method)
    for name in getattr(restored, "learned", ()):
        array = getattr(fitted(method), name)
        assert isinstance(array, np.ndarray)
        setattr(restored, name, array.copy())
    np.testing.assert_array_equal(restored.transform(nasty()), expected(method))


def test_one_training_image_is_enough(method: str) -> None:
    features = build(method).fit(split_of([scene(1)])).transform(nasty())
    assert np.isfinite(features).all()
    assert features[0].any() or method == "mobilenet_v3_small"


def test_training_images_without_structure_are_refused_or_harmless(method: str) -> None:
    try:
        extractor = build(method).fit(split_of([blank(40, 40), blank(1, 1)]))
    except BenchError as error:
        assert method in str(error)  # noqa: PT017 - refusing is one of two right answers
    else:
        assert np.isfinite(extractor.transform(nasty())).all()


def test_numpy_and_torch_random_state_is_left_alone(method: str) -> None:
    assert again(method).numpy_is_as_before
    assert again(method).torch_is_as_before
