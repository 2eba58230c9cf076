"""What made two images near, against slow twins, finite differences and OpenCV's matcher."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from torch import nn

from retrieval_bench.core import BenchError, Setup
from retrieval_bench.explaining import bits, choice, keypoints, networks, words
from retrieval_bench.explaining.by_extractor import why
from retrieval_bench.explaining.clues import WHOLE, BitPair, Shown, Unexplained
from retrieval_bench.extractors.deep.backbones import Backbone
from retrieval_bench.extractors.deep.network_features import NetworkFeatures, features_of
from retrieval_bench.extractors.deep.preprocess import Preprocess, middle
from retrieval_bench.extractors.local.encoders import power_law
from retrieval_bench.extractors.local.keypoints import KeypointBlocks
from retrieval_bench.linalg.rows import unit
from retrieval_bench.methods.parse import parse_method
from retrieval_bench.methods.pipeline import Pipeline
from retrieval_bench.methods.reranking.geometric_verification import verify
from retrieval_bench.registry import EXTRACTORS
from tests.support.scenes import scene, view
from tests.support.shop import picture, shop

QUERY, FOUND = picture(0, 1, 90), picture(1, 2, 70)


# --- networks ---------------------------------------------------------------------------------------------------------


def convolutions() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 6, 5, 2), nn.ReLU(), nn.Conv2d(6, 8, 3, 2), nn.ReLU())


def tiny(*behind: nn.Module, dims: int = 8, **options: Any) -> NetworkFeatures:
    """A network of 8 channels and 7 x 7 places at last, and what comes behind them."""
    network = nn.Sequential(*convolutions(), *behind).eval().requires_grad_(False)
    backbone = Backbone("tiny", network, Preprocess(40, 33, whole=False), dims, {"sha256": "0"})
    built = features_of(Setup(), backbone, **options)
    assert isinstance(built, NetworkFeatures)
    return built


def averaged(**options: Any) -> NetworkFeatures:
    return tiny(nn.AdaptiveAvgPool2d(1), nn.Flatten(), **options)


def last_map(extractor: NetworkFeatures, image: np.ndarray) -> np.ndarray:
    """(8, 7, 7) float64."""
    with torch.inference_mode():
        found = extractor.backbone.network[:4](extractor.preprocess(middle(image))[None])
    return found[0].double().numpy()


def explained(extractor: NetworkFeatures, layer: str = "last") -> tuple[networks.Explained, networks.Explained]:
    subject = networks.of_features(extractor, layer)
    first, second = networks.look(subject, QUERY), networks.look(subject, FOUND)
    return networks.towards(subject, first, second.vector), networks.towards(subject, second, first.vector)


@pytest.mark.parametrize("options", [{}, {"pool": "avg"}], ids=["head", "avg"])
def test_similarity_maps_of_averages_are_those_of_the_slow_twin(options: dict[str, Any]) -> None:
    extractor = averaged(**options)
    a, b = last_map(extractor, QUERY), last_map(extractor, FOUND)
    mine, other = a.mean(axis=(1, 2)), b.mean(axis=(1, 2))
    slow = np.zeros((7, 7))
    for row in range(7):
        for column in range(7):
            part = sum(a[channel, row, column] * other[channel] for channel in range(8))
            slow[row, column] = part / 49 / np.linalg.norm(mine) / np.linalg.norm(other)
    here, there = explained(extractor)
    assert here.even
    np.testing.assert_allclose(here.heat.values, slow, rtol=1e-5)
    vectors = extractor.transform([QUERY, FOUND]).astype(np.float64)
    assert here.total == pytest.approx(float(vectors[0] @ vectors[1]), abs=1e-6)
    assert there.total == pytest.approx(here.total, abs=1e-6)


def test_places_add_up_to_the_cosine_but_for_a_constant_behind_whitening_and_mirrors() -> None:
    extractor = averaged(flip=True, whiten=4, level=0.5)
    data = shop(6, 4)
    extractor.fit(data.train)
    vectors = extractor.transform([QUERY, FOUND]).astype(np.float64)
    here, _ = explained(extractor)
    plain = averaged(flip=True).transform([QUERY])[0].astype(np.float64)
    projected = (plain - extractor.mean_) @ extractor.axes_
    constant = -float(extractor.mean_ @ extractor.axes_ @ vectors[1]) / float(np.linalg.norm(projected))
    assert here.even
    assert here.total + constant == pytest.approx(float(vectors[0] @ vectors[1]), abs=1e-5)


def test_a_mirrored_view_is_laid_back() -> None:
    # The whole image: a crop of an odd margin lies a pixel to one side.
    plain, _ = explained(averaged(crop=False))
    both, _ = explained(averaged(crop=False, flip=True))
    assert np.corrcoef(plain.heat.values.ravel(), both.heat.values.ravel())[0, 1] > 0.5
    mirrored = np.ascontiguousarray(QUERY[:, ::-1])
    subject = networks.of_features(averaged(crop=False, flip=True))
    other = networks.look(subject, FOUND).vector
    turned = networks.towards(subject, networks.look(subject, mirrored), other)
    np.testing.assert_allclose(turned.heat.values, both.heat.values[:, ::-1], atol=1e-6)


def cam_of(a: np.ndarray, slopes: np.ndarray) -> np.ndarray:
    """Grad-CAM from gradients, (c, h, w) both."""
    return np.maximum(np.einsum("c,chw->hw", slopes.mean(axis=(1, 2)), a), 0)


def differences(run: Callable[[np.ndarray], np.ndarray], a: np.ndarray, other: np.ndarray) -> np.ndarray:
    """d (run(A) . other / |run(A) as it is|) / dA by finite differences."""
    length, step = float(np.linalg.norm(run(a))), 1e-4
    slopes = np.zeros(a.shape)
    for place in np.ndindex(a.shape):
        more, less = a.copy(), a.copy()
        more[place] += step
        less[place] -= step
        slopes[place] = (run(more) - run(less)) @ other / (2 * step * length)
    return slopes


def test_grad_cam_is_that_of_finite_differences_through_layers() -> None:
    torch.manual_seed(1)
    behind = [nn.Flatten(), nn.Linear(392, 20), nn.Tanh(), nn.Linear(20, 5)]
    extractor = tiny(*behind, dims=5)
    rest = copy.deepcopy(nn.Sequential(*behind)).double()
    a = last_map(extractor, QUERY)
    other = extractor.transform([FOUND])[0].astype(np.float64)

    def run(values: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            return rest(torch.from_numpy(values[None]))[0].numpy()

    expected = cam_of(a, differences(run, a, other))
    here, _ = explained(extractor)
    assert not here.even
    assert here.stage == "3"
    np.testing.assert_allclose(here.heat.values, expected, rtol=1e-3, atol=1e-4 * expected.max())


@pytest.mark.parametrize("pool", ["gem", "max"])
def test_grad_cam_is_that_of_finite_differences_through_poolings(pool: Any) -> None:
    extractor = averaged(pool=pool)
    a = last_map(extractor, QUERY)
    other = extractor.transform([FOUND])[0].astype(np.float64)

    def run(values: np.ndarray) -> np.ndarray:
        if pool == "max":
            return values.max(axis=(1, 2))
        return (np.maximum(values, 1e-6) ** 3).mean(axis=(1, 2)) ** (1 / 3)

    here, _ = explained(extractor)
    expected = cam_of(a, differences(run, a, other))
    np.testing.assert_allclose(here.heat.values, expected, rtol=1e-3, atol=1e-3 * expected.max())


def test_another_layer_can_be_looked_into() -> None:
    here, _ = explained(averaged(pool="avg", layer="1"), "1")
    assert here.stage == "1"
    assert here.heat.values.shape == (15, 15)


@pytest.mark.parametrize(
    "options",
    [
        *({"power": 0.5}, {"centre": True}, {"whiten": 3, "level": 0.7}, {"whiten": 3, "power": 0.5}),
        *({"tune": "head"}, {"tune": "head", "whiten": 3}),
    ],
    ids=str,
)
def test_what_follows_is_done_as_the_method_does_it(options: dict[str, Any]) -> None:
    extractor = averaged(**options).fit(shop(6, 4).train)
    vectors = extractor.transform([QUERY, FOUND]).astype(np.float64)
    subject = networks.of_features(extractor)
    for image, vector in zip((QUERY, FOUND), vectors, strict=True):
        np.testing.assert_allclose(networks.look(subject, image).vector.detach().numpy(), vector, atol=2e-5)


def test_class_tokens_are_looked_into_where_they_still_see_patches() -> None:
    from torchvision.models import VisionTransformer

    torch.manual_seed(0)
    network = VisionTransformer(32, 8, num_layers=2, num_heads=2, hidden_dim=16, mlp_dim=32)
    network.heads = nn.Identity()
    network.eval().requires_grad_(False)
    backbone = Backbone("vit", network, Preprocess(32, 32), 16, {"sha256": "0"}, prefix=1)
    here, _ = explained(features_of(Setup(), backbone))  # type: ignore[arg-type]
    assert here.stage == "encoder.layers.encoder_layer_1.ln_1"
    assert here.heat.values.shape == (4, 4)
    assert here.heat.values.max() > 0


def test_a_network_without_gradients_is_not_explained() -> None:
    subject = replace(networks.of_features(averaged()), describe=lambda batch: torch.ones(1, 8))
    with pytest.raises(Unexplained, match="no gradients"):
        networks.network_pairs(subject, QUERY, [FOUND])


def test_a_network_without_maps_is_not_explained() -> None:
    """As most files of ONNX and TorchScript are: the sentence gives no advice about options that were not given."""
    backbone = Backbone("flat", nn.Flatten().eval(), Preprocess(16, 16), 768, {"sha256": "0"})
    extractor = features_of(Setup(), backbone)
    with pytest.raises(Unexplained, match=r"^the network gives only vectors, so it is unknown"):
        networks.of_features(extractor)  # type: ignore[arg-type]


def test_pairs_leave_the_extractor_as_it_was() -> None:
    extractor = averaged(pool="gem")
    before = extractor.transform([QUERY, FOUND])
    (pair,) = networks.network_pairs(networks.of_features(extractor), QUERY, [FOUND])
    assert pair.distance == pytest.approx(1 - float(before[0] @ before[1]), abs=1e-6)
    assert np.array_equal(extractor.transform([QUERY, FOUND]), before)


@pytest.mark.parametrize("shape", [(100, 100), (60, 200), (400, 30), (30, 999)])
def test_the_part_that_is_seen_is_that_of_the_preprocessing(shape: tuple[int, int]) -> None:
    """A ramp through the preprocessing: its ends are where the box says."""
    down, across = np.meshgrid(*(np.linspace(0, 255, length) for length in shape), indexing="ij")
    ramp = np.stack([down, across, across], axis=2).astype(np.uint8)
    preprocess = Preprocess(48, 32, mean=(0, 0, 0), std=(1, 1, 1))
    for one in (preprocess, replace(preprocess, whole=True), replace(preprocess, squash=True)):
        top, left, bottom, right = networks.seen_part(one, ramp.shape)
        pixels = one(middle(ramp)).numpy()
        ends = pixels[0, 0].mean(), pixels[0, -1].mean(), pixels[1, :, 0].mean(), pixels[1, :, -1].mean()
        np.testing.assert_allclose(ends, (top, bottom, left, right), atol=0.05)


def test_a_trained_convnet_is_looked_into() -> None:
    data = shop(3, 4)
    extractor = EXTRACTORS["convnet"].build(Setup(), side=32, width=4, dims=8, epochs=1).fit(data.train)
    (pair,) = networks.network_pairs(networks.of_convnet(extractor), QUERY, [FOUND])
    vectors = extractor.transform([QUERY, FOUND])
    assert pair.distance == pytest.approx(1 - float(vectors[0] @ vectors[1]), abs=1e-5)
    assert pair.query.box == WHOLE


# --- words ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    [
        *({"encode": "bow", "words": 20}, {"encode": "bow", "words": 20, "soft": 3}),
        *({"encode": "vlad", "words": 5}, {"encode": "fisher", "words": 4}),
        *({"encode": "fisher", "words": 4, "power": 1.0}, {"encode": "vlad", "words": 5, "place": 0.5}),
        {"encode": "fisher", "words": 4, "reduce": 6},
    ],
    ids=str,
)
@pytest.mark.parametrize("whiten", [0, 7])
def test_places_of_encodings_add_up_to_the_cosine(options: dict[str, Any], whiten: int) -> None:
    extractor = EXTRACTORS["color"].build(Setup(), whiten=whiten, **options).fit(shop(4, 3).train)
    first, second = words.LocalLook(extractor, QUERY), words.LocalLook(extractor, FOUND)
    cosine = float(first.vector @ second.vector)
    for look, other in ((first, second), (second, first)):
        found = look.towards(other.vector)
        assert len(found.each) == len(look.places)
        assert found.each.sum() + found.constant == pytest.approx(cosine, abs=2e-5)
        assert bool(found.constant) == bool(whiten)
    (pair,) = words.local_pairs(extractor, QUERY, [FOUND])
    assert pair.query.values.sum() == pytest.approx(first.towards(second.vector).each.sum())


@pytest.mark.parametrize("encode", ["bow", "vlad", "fisher"])
def test_sums_are_those_of_descriptors_one_by_one(encode: str) -> None:
    extractor = EXTRACTORS["color"].build(Setup(), encode=encode, words=5, whiten=0).fit(shop(4, 3).train)
    rows = extractor.reduced(extractor.describe(QUERY))[::40]
    learned = extractor.learned_arrays()
    whole = words.summed(extractor.encoder, rows, learned)
    alone = [words.summed(extractor.encoder, row[None], learned).total for row in rows]
    if encode == "fisher":  # a mean, not a sum
        alone = [one / len(rows) for one in alone]
    np.testing.assert_allclose(np.sum(alone, axis=0), whole.total, atol=1e-4 * np.abs(whole.total).max())
    if encode == "fisher":
        np.testing.assert_allclose(
            unit(power_law(whole.total, 0.5)), extractor.encoder.encode(rows, learned), atol=2e-4
        )
    weights = np.random.default_rng(0).standard_normal(len(whole.total))
    np.testing.assert_allclose(whole.shared(weights), [weights @ one for one in alone], rtol=1e-3, atol=1e-3)


def test_pixels_of_histograms_add_up_to_the_cosine() -> None:
    for name, options in (("hsv", {}), ("hsv", {"levels": 2}), ("lab", {}), ("lbp", {"side": 64})):
        extractor = EXTRACTORS[name].build(Setup(), **options)
        (pair,) = words.histogram_pairs(extractor, QUERY, [FOUND])
        vectors = extractor.transform([QUERY, FOUND]).astype(np.float64)
        for heat in (pair.query, pair.found):
            assert heat.values.sum() == pytest.approx(float(vectors[0] @ vectors[1]), abs=1e-6)


def test_a_bin_shares_equally_among_its_pixels() -> None:
    pixel_bins, products = np.array([[0, 0, 2], [0, 2, 1]]), np.array([0.3, 0.1, 0.4])
    slow = [[products[one] / (pixel_bins == one).sum() for one in line] for line in pixel_bins]
    np.testing.assert_allclose(words.histogram_heat(pixel_bins, 1, 3, products), slow)


def test_blocks_add_up_to_the_cosine() -> None:
    extractor = EXTRACTORS["hog"].build(Setup(), encode="global", side=64)
    (pair,) = words.block_pairs(extractor, QUERY, [FOUND])
    rows = extractor.transform([QUERY, FOUND]).astype(np.float64)
    cosine = rows[0] @ rows[1] / np.linalg.norm(rows[0]) / np.linalg.norm(rows[1])
    assert pair.query.values.sum() == pytest.approx(cosine)


def test_a_blank_query_is_not_explained() -> None:
    blank = np.full((60, 60, 3), 128, np.uint8)
    with pytest.raises(Unexplained, match="no gradient"):
        words.block_pairs(EXTRACTORS["hog"].build(Setup(), encode="global"), blank, [FOUND])
    hog = EXTRACTORS["hog"].build(Setup(), words=3).fit(shop(4, 3).train)
    with pytest.raises(Unexplained, match="blank"):
        words.local_pairs(hog, blank, [FOUND])
    (pair,) = words.local_pairs(hog, QUERY, [blank])
    assert pair.distance == 1
    assert not pair.found.values.any()
    detect = partial(keypoints.sift_points, blocks=KeypointBlocks())
    with pytest.raises(Unexplained, match="keypoint"):
        keypoints.match_pairs(detect, blank, [FOUND])
    (match,) = keypoints.match_pairs(detect, scene(0), [blank])
    assert len(match.query) == len(match.agree) == 0


# --- keypoints --------------------------------------------------------------------------------------------------------

BLOCKS = KeypointBlocks(side=320, keypoints=200)
OTHERS = [view(scene(0), 30.0, 1.0, 1.0), view(scene(0), 10.0, 1.0, 0.6), view(scene(0), 0.0, 0.5, 1.0), scene(3)]


def points_of(image: np.ndarray, kind: str) -> keypoints.Points:
    if kind == "orb":
        return keypoints.orb_points(image, side=320, keypoints=200)
    return keypoints.sift_points(image, blocks=BLOCKS)


@pytest.mark.parametrize("kind", ["sift", "orb"])
@pytest.mark.parametrize("ratio", [0.7, 0.8, 0.95])
def test_matches_are_those_of_opencv(kind: str, ratio: float) -> None:
    first = points_of(scene(0), kind)
    for image in OTHERS:
        second = points_of(image, kind)
        if kind == "orb":
            rows = [np.packbits(one.descriptors.astype(np.uint8), axis=1) for one in (first, second)]
        else:
            rows = [one.descriptors.astype(np.float32) for one in (first, second)]
        norm = cv2.NORM_HAMMING if kind == "orb" else cv2.NORM_L2
        both = {(one.queryIdx, one.trainIdx) for one in cv2.BFMatcher(norm, crossCheck=True).match(*rows)}
        passed = {
            (one.queryIdx, one.trainIdx)
            for one, other in cv2.BFMatcher(norm).knnMatch(*rows, k=2)
            if one.distance < ratio * other.distance
        }
        assert {tuple(pair) for pair in keypoints.mutual(first, second, ratio).tolist()} == both & passed


def test_as_many_agree_as_verification_counts() -> None:
    blocks = BLOCKS.transform([scene(0), *OTHERS])
    first = points_of(scene(0), "sift")
    counts = verify(blocks[0], blocks[1:])
    assert counts.max() > 20
    for image, count in zip(OTHERS, counts.tolist(), strict=True):
        second = points_of(image, "sift")
        agree = keypoints.agreeing(first, second, keypoints.nearest(first, second))
        assert agree.sum() == count


def test_those_who_agree_lie_where_the_view_has_them() -> None:
    detect = partial(keypoints.sift_points, blocks=BLOCKS)
    (pair,) = keypoints.match_pairs(detect, scene(0), [scene(0)])
    assert pair.agree.all()
    np.testing.assert_allclose(pair.query, pair.found)
    assert (pair.query.min() >= 0) & (pair.query.max() <= 1)


def test_patches_on_a_grid_are_found_again_where_they_were_shifted() -> None:
    extractor = EXTRACTORS["dense-sift"].build(Setup(), side=128)
    detect = partial(keypoints.grid_points, describe=extractor.describe, side=128)
    wide = cv2.resize(scene(0), (160, 128))
    (pair,) = keypoints.match_pairs(detect, np.ascontiguousarray(wide[:, :128]), [np.ascontiguousarray(wide[:, 32:])])
    assert pair.agree.sum() > 20
    shift = ((pair.query - pair.found) * 128)[pair.agree]
    np.testing.assert_allclose(np.median(shift, axis=0), (32, 0), atol=1)


# --- bits and choice --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["phash", "dhash", "ahash", "whash", "block-mean", "colorhash"])
def test_bits_that_differ_are_the_hamming_distance(name: str) -> None:
    extractor = EXTRACTORS[name].build(Setup())
    (pair,) = bits.bit_pairs(extractor, name, QUERY, [FOUND])
    codes = np.unpackbits(extractor.transform([QUERY, FOUND]), axis=1)
    assert (pair.query != pair.found).sum() == (codes[0] != codes[1]).sum() == pair.distance
    assert pair.query.shape == ((14, 3) if name == "colorhash" else (round(extractor.n_bits**0.5),) * 2)
    assert bits.about(name, 8)


def ranked(first: list[list[int]]) -> dict[str, np.ndarray]:
    """Arrays of a record with 3 queries and 4 gallery images of labels 0 0 1 1; first: each method's nearest."""
    arrays = {
        "query_ids": np.array(["shop/Lemon_1.jpg", "shop/Lemon_2.jpg", "shop/Pear_1.jpg"]),
        "query_labels": np.array([0, 0, 1]),
        "gallery_labels": np.array([0, 0, 1, 1]),
        "n_relevant": np.array([2, 2, 2]),
    }
    for method, rows in enumerate(first):
        rest = [[one, *(other for other in range(4) if other != one)] for one in rows]
        arrays[f"m{method}/indices"] = np.array(rest, np.int32)
        arrays[f"m{method}/distances"] = np.tile(np.arange(4, dtype=np.float32), (3, 1))
    return arrays


def test_the_query_of_the_widest_disagreement_is_chosen() -> None:
    arrays = ranked([[0, 0, 2], [0, 2, 2], [1, 3, 0], [1, 1, 3]])
    row, why = choice.most_disputed(arrays, ["m0", "m1", "m2", "m3"])
    assert row == 1  # two right, two wrong; the others: four right, and three
    assert "2 of them" in why
    assert choice.most_disputed(arrays, ["m2"])[0] == 2  # none of its two nearest is right
    assert "worst" in choice.most_disputed(arrays, ["m2"])[1]
    assert choice.nearest(arrays, "m1", 1, 2) == [(2, 0.0), (0, 1.0)]


def test_an_unknown_query_is_told_the_close_ones() -> None:
    arrays = ranked([[0, 0, 2]])
    assert choice.query_row(arrays, "shop/Pear_1.jpg") == 2
    with pytest.raises(BenchError, match=r"'pear' is not one of the record's 3 queries.* 'shop/Pear_1.jpg'"):
        choice.query_row(arrays, "pear")
    with pytest.raises(BenchError, match=r"the closest are 'shop/Lemon_1\.jpg'"):
        choice.query_row(arrays, "")


# --- a method that is ready to search ---------------------------------------------------------------------------------


def ready(name: str) -> Pipeline:
    pipeline = Pipeline(parse_method(name), Setup(), "exact")
    data = shop(6, 4)
    for part in pipeline.parts:
        part.extractor.fit(data.train)
    if pipeline.join is not None and pipeline.join.learns:
        images = [data.train.images[row] for row in range(len(data.train))]
        pipeline.fit_together([part.extractor.transform(images) for part in pipeline.members], data.train.labels)
    return pipeline


def test_each_part_of_a_method_says_why_and_so_does_its_step() -> None:
    both = [Shown("a", "", FOUND), Shown("b", "", QUERY)]
    layers = why(ready("phash+color+verify=20"), Shown("query", "", QUERY), both)
    assert [layer.name.split(" (")[0] for layer in layers] == ["phash", "color", "verify=20"]
    assert all(len(layer.clues) == 2 for layer in layers[:2]), layers
    assert "weight" in layers[0].name
    bit = layers[0].clues[1]
    assert isinstance(bit, BitPair)
    assert bit.distance == 0


def test_what_has_no_explanation_says_so_in_words() -> None:
    (layer,) = why(ready("moments"), Shown("query", "", QUERY), [Shown("a", "", FOUND)])
    assert layer.clues == ()
    assert "no explanation" in layer.about
