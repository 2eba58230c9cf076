"""The embedded dataset: the same pixels everywhere, honest attributes, a cache that never lies, a sheet to look at."""

from __future__ import annotations

import hashlib
import io
import math
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from retrieval_bench.core import BadImage, BenchError, Dataset, Split
from retrieval_bench.datasets import products as module
from retrieval_bench.datasets.sheet import ALARM, CELL, SIDE_NOTE, contact_sheet
from retrieval_bench.datasets.shop import drawing, optics, prints
from retrieval_bench.datasets.shop.drawing import SIDE, Dice
from retrieval_bench.datasets.shop.jpeg import jpeg
from retrieval_bench.datasets.shop.look import CATEGORIES, looks
from retrieval_bench.datasets.shop.turned import Turn, any_turn, turned
from retrieval_bench.datasets.shop.view import SCENES, SIZE, phone_view
from retrieval_bench.images.reading import ImageBytes, encode_png
from retrieval_bench.registry import DATASETS, parse
from retrieval_bench.system.cache import CACHE_VARIABLE

# Of seed 0. They hold on every machine; where a change of the pixels is meant, raise products.VERSION with them.
GOLDEN = "19f5fba2714d77df642cc0254beddd3c2be69d9295efbf48e7f26f9c46f8bcd1"
GOLDEN_TURNED = "3d46efb9f42b93e21bdf579385272cef717b0d9cf6eacec36380d700d3b1569c"
GOLDEN_QUERIES = {
    "mug": "54269e610a3f978858a0555701c9a681909ba70faa470da767f916f2903f8c60",
    "bottle": "988fbd4f27fded2f684d27fa3d723fb24d1fea5ae7a70fdae76e7cd0b22248e6",
    "box": "0ae83a23f10e81aae5f40498d81ac241365e83f4085c5d91236a31aafc560f48",
    "shirt": "67caeaa5d5f11bbe7b4c2865a4f8edc252c3198a2bbe5acd2ac843d74fe4489e",
    "shoe": "d79603b2495db7cca436fba7d8dbd3f28329314f0bd82e0cc51e8aebf962bcfa",
    "bag": "c1ae13cc4bcd47e656901813a3c48dac8990846505b92b9a25a59fc97389229e",
    "book": "9f139778b3bc90545871d4376691906415cdb14b0926a1db31ee43902e5e4455",
    "clock": "d38aff479078eaf95cd190432ed31a8ab23b6bfe3b1f36f857423f05d5550fd0",
    "lamp": "f14ea715a79a61ffb96c54e8e73fd2f45fb4b016dc8e6d07874585d7b6067a3d",
    "cap": "f5d41f5e7c4e796f2ec639eaa12f97c7e4ac7cd83cdbf1cc8ee0dd434700f2c8",
}


@pytest.fixture(scope="module")
def pictures() -> module.RenderedImages:
    """As the user's cache holds them, under the seal of the source that drew them, or drawn now and kept there."""
    return module._cached(f"products-{module.VERSION}-0", lambda: module.render_all(0))


@pytest.fixture(scope="module")
def turn_once() -> Callable[..., module.RenderedImages]:
    """turn_all for tests that load the same queries: they are turned for the first one who asks."""
    known: dict[tuple[int, tuple[str, ...]], module.RenderedImages] = {}
    turn_all = module.turn_all

    def turned_already(images: ImageBytes, seed: int, keys: list[tuple[str, int]]) -> module.RenderedImages:
        which = seed, tuple(images.digest(row) for row in range(len(images)))
        if which not in known:
            known[which] = turn_all(images, seed, keys)
        return known[which]

    return turned_already


@pytest.fixture
def renders(pictures: Any, turn_once: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[int]:
    """The loader with an empty cache, its renderer replaced by what is rendered already; the seeds it was asked for."""
    seeds: list[int] = []
    monkeypatch.setattr(module, "turn_all", turn_once)

    def render_all(seed: int, progress: object = None) -> module.RenderedImages:
        seeds.append(seed)
        return pictures

    monkeypatch.setattr(module, "render_all", render_all)
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "cache"))
    return seeds


@pytest.fixture
def dataset(renders: list[int]) -> Dataset:
    return module.products(None)


# --- the pixels -------------------------------------------------------------------------------------------------------


@pytest.mark.long(reason="draws all 1200 pictures, whatever the cache has")
def test_every_pixel_of_seed_0_is_golden_and_progress_runs_to_the_end(pictures: module.RenderedImages) -> None:
    progress: list[tuple[int, int]] = []
    drawn = module.render_all(0, lambda done, total: progress.append((done, total)))
    assert hashlib.sha256("\n".join(drawn.digests).encode()).hexdigest() == GOLDEN
    assert progress == [(12 * n, 1200) for n in range(1, 101)]
    assert pictures.encoded == drawn.encoded


def test_the_digests_of_seed_0_are_golden(pictures: module.RenderedImages) -> None:
    assert hashlib.sha256("\n".join(pictures.digests).encode()).hexdigest() == GOLDEN


@pytest.mark.slow(reason="draws each category's pictures")
@pytest.mark.parametrize("category", CATEGORIES)
def test_one_query_of_each_category_is_golden(dataset: Dataset, category: str) -> None:
    row = dataset.query.ids.index(f"query/{category}/{category}-00/view-08.png")
    pixels = dataset.query.images[row]
    assert pixels.shape == (SIZE, SIZE, 3)
    assert pixels.dtype == np.uint8
    assert module.pixel_digest(pixels) == dataset.query.images.digest(row) == GOLDEN_QUERIES[category]


def test_all_pictures_differ(pictures: module.RenderedImages) -> None:
    assert len(set(pictures.digests)) == len(pictures.digests) == 1200


@pytest.mark.slow(reason="looks at every pixel of the dataset")
def test_twins_can_be_told_apart_but_look_alike(pictures: module.RenderedImages) -> None:
    shots = ImageBytes(pictures.encoded[:: module.VIEWS])
    grey = np.array([shots[row].astype(np.float64).mean(axis=2)[::4, ::4] for row in range(100)])
    apart = np.abs(grey[:, None] - grey[None]).mean(axis=(2, 3)) + np.eye(100) * 255
    assert apart.min() > 1.0
    for first in range(0, 100, 10):
        in_print = apart[first, first + 1 : first + 3].max()
        assert in_print < np.median(apart[first, 10 * (first // 10) + 6 : first + 10])


def test_turn_is_sine_and_cosine() -> None:
    for degrees in (-720.0, -180.0, -90.0, -0.1, 0.0, 17.3, 45.0, 90.0, 180.0, 359.9, 1234.5):
        cosine, sine = drawing.turn(degrees)
        assert cosine == pytest.approx(math.cos(math.radians(degrees)), abs=1e-13)
        assert sine == pytest.approx(math.sin(math.radians(degrees)), abs=1e-13)


def test_dice_depend_on_their_key_alone() -> None:
    assert [Dice("a", 1).between(0, 1) for _ in range(2)] == [Dice("a", 1).between(0, 1)] * 2
    assert Dice("a", 1).between(0, 1) != Dice("a", 2).between(0, 1)
    throws = Counter(Dice("die", n).whole(1, 6) for n in range(600))
    assert sorted(throws) == [1, 2, 3, 4, 5, 6]
    assert min(throws.values()) > 60
    assert sorted(Dice("s").shuffled(range(9))) == list(range(9))


def test_shapes_cover_their_area() -> None:
    pixel = (2.0 / SIDE) ** 2
    assert drawing.ellipse(0.1, -0.2, 0.5, 0.3).sum() * pixel == pytest.approx(math.pi * 0.15, rel=0.01)
    assert drawing.box(0.0, 0.1, 0.4, 0.2).sum() * pixel == pytest.approx(0.32, rel=0.01)
    triangle = [(-0.5, -0.5), (0.7, -0.5), (0.1, 0.6)]
    assert drawing.polygon(triangle).sum() * pixel == pytest.approx(0.66, rel=0.01)
    hourglass = [(-0.5, -0.5), (0.5, 0.5), (-0.5, 0.5), (0.5, -0.5)]
    assert drawing.polygon(hourglass).sum() * pixel == pytest.approx(0.5, rel=0.01)
    assert drawing.polygon([(2.0, 2.0), (3.0, 2.0), (3.0, 3.0)]).sum() == 0
    assert drawing.stroke([(-0.5, 0.0), (0.5, 0.0)], 0.2).sum() * pixel == pytest.approx(0.2 + math.pi * 0.01, rel=0.02)
    body, across = drawing.revolve([(-0.5, 0.2), (0.5, 0.4)])
    assert body.sum() * pixel == pytest.approx(0.6, rel=0.02)
    assert np.abs(across[body > 0.99]).max() <= 1.0


@pytest.mark.parametrize("kind", prints.PATTERNS)
def test_patterns_show_two_colours(kind: str) -> None:
    mask = prints.pattern(kind, drawing.X, drawing.Y, 5.0)
    assert mask.shape == (SIDE, SIDE)
    assert mask.min() == 0
    assert mask.max() == 1
    assert 0.05 < mask.mean() < 0.75


@pytest.mark.parametrize("kind", prints.EMBLEMS)
def test_emblems_are_figures(kind: str) -> None:
    mask = prints.emblem(kind, drawing.X * 1.3, drawing.Y * 1.3)
    assert 0.08 < mask.mean() < 0.6
    assert max(mask[0].max(), mask[-1].max(), mask[:, 0].max(), mask[:, -1].max()) < 0.5
    others = [prints.emblem(other, drawing.X * 1.3, drawing.Y * 1.3) for other in prints.EMBLEMS if other != kind]
    assert min(np.abs(mask - other).mean() for other in others) > 0.03


def test_the_font_reads() -> None:
    glyphs = {character: glyph.tobytes() for character, glyph in prints.FONT.items()}
    assert len(set(glyphs.values())) == len(glyphs)
    assert set("ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_/.() ") <= set(glyphs)
    assert prints.lettering("Mug-03").shape == (7, 35)
    assert prints.lettering("").shape == (7, 0)
    assert (prints.lettering("é") == prints.FONT["E"]).all()
    assert (prints.lettering("語") == prints.FONT["."]).all()


@pytest.mark.parametrize("quality", [10, 35, 50, 80, 95, 100])
def test_jpeg_is_what_the_real_codec_makes(quality: int) -> None:
    """On a picture that was never compressed: one that was has its coefficients on the steps, and ties decide."""
    rough = drawing.clouds(96, 112, (2, 2), "rough") * 40
    planes = [drawing.clouds(96, 112, (20, 30), "smooth", channel) * 200 + rough for channel in range(3)]
    pixels = np.stack(planes).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels.transpose(1, 2, 0))).save(
        buffer, "JPEG", quality=quality, subsampling="4:2:0"
    )
    real = np.asarray(Image.open(buffer)).astype(int)
    ours = jpeg(pixels, quality).astype(int)
    loss = np.abs(real - pixels.transpose(1, 2, 0)).mean()
    assert np.abs(ours - real).mean() < 0.05 * loss + 0.35


def test_jpeg_leaves_a_flat_grey_alone() -> None:
    flat = np.full((3, 32, 48), 117, np.uint8)
    assert (jpeg(flat, 90) == 117).all()
    assert jpeg(flat, 90).shape == (32, 48, 3)


@pytest.mark.parametrize("sigma", [0.1, 0.35, 0.5, 1.0, 2.0, 2.7])
def test_blur_spreads_a_point_as_it_says(sigma: float) -> None:
    weights = optics.kernel(sigma)
    assert weights[0] + 2 * sum(weights[1:]) == pytest.approx(1.0)
    point = np.zeros((3, SIZE, SIZE), np.float32)
    point[:, 100, 100] = 1.0
    line = optics.blur(point, weights)[0].sum(axis=0)
    at = np.arange(SIZE) - 100
    assert line.sum() == pytest.approx(1.0, abs=1e-5)
    assert math.sqrt((line * at * at).sum()) == pytest.approx(optics.spread(weights), abs=1e-3)
    if sigma >= 0.5:
        assert optics.spread(weights) == pytest.approx(sigma, rel=0.06)


def test_the_sensor_noise_has_unit_deviation() -> None:
    noise = optics.grain(0)
    assert noise.mean() == pytest.approx(0.0, abs=0.01)
    assert noise.std() == pytest.approx(1.0, abs=0.01)


# --- the dataset ------------------------------------------------------------------------------------------------------


def test_structure(dataset: Dataset) -> None:
    assert dataset.category_names == CATEGORIES
    assert len(CATEGORIES) >= 10
    assert len(dataset.label_names) == len(set(dataset.label_names)) == 100
    for split in dataset.splits.values():
        assert len(split) == 400
        assert (np.bincount(split.labels, minlength=100) == 4).all()
        assert split.categories is not None
        assert (split.categories == split.labels // 10).all()
        for item, label in zip(split.ids, split.labels, strict=True):
            assert item.split("/")[2] == dataset.label_names[label]
    everything = [item for split in dataset.splits.values() for item in split.ids]
    assert len({item.partition("/")[2] for item in everything}) == 1200
    assert "query/mug/mug-03/view-08.png" in dataset.query.ids


def test_one_clean_shot_per_product_and_only_in_the_gallery(dataset: Dataset) -> None:
    clean = dataset.gallery.attributes["view"] == "catalogue"
    assert dataset.gallery.labels[clean].tolist() == list(range(100))
    for split in (dataset.train, dataset.query):
        assert set(split.attributes["view"]) == {"phone"}
    corner = np.array([dataset.gallery.images[row][:6, :6].min() for row in np.flatnonzero(clean)[::9]])
    assert (corner > 235).all()


def test_attributes_are_in_their_ranges(dataset: Dataset) -> None:
    for split in dataset.splits.values():
        of = split.attributes
        assert np.abs(of["rotation_deg"]).max() <= 180
        assert set(of["background"]) <= {*SCENES, "white"}
        assert set(of["differs_by"]) == {"print", "colour", "shape"}
        for name in ("occlusion", "cropped", "vignette", "perspective", "gradient"):
            assert of[name].min() >= 0
            assert of[name].max() < 1
        assert (of["occlusion"][of["occluder"] == "none"] == 0).all()
        assert of["occlusion"].max() > 0.25
        assert of["jpeg_quality"].dtype.kind == of["clutter"].dtype.kind == "i"
        phone = of["view"] == "phone"
        assert (np.abs(of["rotation_deg"][phone]) <= 25).mean() > 0.8
        assert np.abs(of["rotation_deg"][phone]).max() > 120


def test_view_parameters_know_nothing_of_split_and_product(dataset: Dataset) -> None:
    parts = list(dataset.splits.values())
    phone = [part.attributes["view"] == "phone" for part in parts]
    for name in ("rotation_deg", "scale", "brightness", "warmth", "blur_px", "noise", "jpeg_quality", "clutter"):
        values = [part.attributes[name][rows].astype(float) for part, rows in zip(parts, phone, strict=True)]
        spread = np.concatenate(values).std()
        for one in values:
            assert abs(one.mean() - np.concatenate(values).mean()) < 3.5 * spread / math.sqrt(len(one)), name
    table = np.zeros((100, len(SCENES)))
    for part, rows in zip(parts, phone, strict=True):
        for label, scene in zip(part.labels[rows], part.attributes["background"][rows], strict=True):
            table[label, SCENES.index(scene)] += 1
    expected = table.sum(axis=0) / 100
    statistic = ((table - expected) ** 2 / expected).sum()
    freedom = 99 * (len(SCENES) - 1)
    assert abs(statistic - freedom) < 4 * math.sqrt(2 * freedom)


@pytest.mark.slow(reason="looks at every pixel of the dataset")
def test_brightness_and_warmth_are_what_the_pixels_show(dataset: Dataset) -> None:
    """The attributes are of the rendered picture, so its statistics must follow them."""
    split = dataset.train
    means = np.array([split.images[row].reshape(-1, 3).mean(axis=0) for row in range(len(split))])
    of = split.attributes
    assert np.corrcoef(means.mean(axis=1), of["brightness"])[0, 1] > 0.25
    assert np.corrcoef(means[:, 0] / means[:, 2], of["warmth"])[0, 1] > 0.25


def test_seeds_are_different_shops() -> None:
    assert [look.name for look in looks(0)] == [look.name for look in looks(1)]
    assert sum(a == b for a, b in zip(looks(0), looks(1), strict=True)) == 0
    assert looks(7) == looks(7)
    assert phone_view(Dice("view", 0, "mug-00", 1)) != phone_view(Dice("view", 1, "mug-00", 1))


def test_look_alikes_differ_in_what_they_say() -> None:
    for first in range(0, 100, 10):
        ten = looks(0)[first : first + 10]
        a, b, c = ten[:3]
        assert {look.differs_by for look in (a, b, c)} == {"print"}
        assert a.shape == b.shape == c.shape
        assert a.base == b.base == c.base
        assert len({a.title, b.title, c.title}) == len({a.pattern, b.pattern, c.pattern}) == 3
        a, b, c = ten[3:6]
        assert {look.differs_by for look in (a, b, c)} == {"colour"}
        assert (a.shape, a.title, a.pattern, a.emblem) == (b.shape, b.title, b.pattern, b.emblem)
        assert len({a.base, b.base, c.base}) == 3
        assert {look.differs_by for look in ten[6:]} == {"shape"}
        assert len({look.shape for look in ten}) == 6


def test_the_registry_builds_it(renders: list[int]) -> None:
    assert DATASETS["products"].build is module.products
    assert len(parse(DATASETS, "products:seed=3").build(None).query) == 400
    assert renders == [3]


@pytest.mark.parametrize("seed", [-1, 2**32])
def test_a_seed_outside_its_range_is_refused(seed: int) -> None:
    with pytest.raises(BenchError, match=r"outside 0\.\."):
        module.products(None, seed=seed)


# --- turned and cropped -----------------------------------------------------------------------------------------------


@pytest.mark.slow(reason="draws the whole dataset")
def test_every_pixel_of_the_turned_queries_is_golden(renders: list[int]) -> None:
    queries = module.products(None, queries="turned").query.images
    digests = [queries.digest(row) for row in range(len(queries))]
    assert hashlib.sha256("\n".join(digests).encode()).hexdigest() == GOLDEN_TURNED
    assert digests[7] == module.pixel_digest(queries[7])


@pytest.mark.slow(reason="draws and turns every query")
def test_only_the_queries_are_turned(dataset: Dataset) -> None:
    other = parse(DATASETS, "products:queries=turned").build(None)
    assert other.fingerprint != dataset.fingerprint
    for part in ("train", "gallery"):
        assert other.splits[part].content == dataset.splits[part].content
    assert other.query.ids == dataset.query.ids
    assert other.query.labels.tolist() == dataset.query.labels.tolist()
    assert set(other.query.attributes) == {*dataset.query.attributes, "turned_deg", "kept"}
    assert "turned_deg" not in dataset.query.attributes
    kept = other.query.attributes["kept"]
    assert (kept >= 0.5).all()
    assert (kept <= 0.7).all()
    for row in range(0, 400, 37):
        height, width, _ = other.query.images[row].shape
        assert height * width / SIZE**2 == pytest.approx(kept[row], abs=1e-4)
    angles = other.query.attributes["turned_deg"]
    assert np.histogram(angles, 4, (-180, 180))[0].min() > 70  # of 400, 100 expected: every quarter of the circle


@pytest.mark.slow(reason="draws every query twice")
def test_a_turned_query_is_its_own_picture_turned(dataset: Dataset) -> None:
    """As PIL turns it: about the centre of the crop, bilinear."""
    other = module.products(None, queries="turned")
    for row in range(0, 400, 29):
        by = any_turn(Dice("turned", 0, dataset.query.ids[row].split("/")[2], 8 + row % 4))
        assert by.turned_deg == other.query.attributes["turned_deg"][row]
        c, s = math.cos(math.radians(by.turned_deg)), math.sin(math.radians(by.turned_deg))
        h = by.side / 2
        back = (c, s, by.x - c * h - s * h, -s, c, by.y + s * h - c * h)
        peer = Image.fromarray(dataset.query.images[row]).transform(
            (by.side, by.side), Image.Transform.AFFINE, back, Image.Resampling.BILINEAR
        )
        apart = np.abs(np.asarray(peer).astype(int) - other.query.images[row].astype(int))
        assert apart[2:-2, 2:-2].max() <= 3
        assert apart.mean() < 0.5


def test_no_crop_leaves_its_picture() -> None:
    draws = [any_turn(Dice("a turn", n)) for n in range(2000)]
    assert min(by.kept for by in draws) >= 0.5
    assert max(by.kept for by in draws) > 0.69
    for by in draws:
        reach = by.side * sum(abs(part) for part in drawing.turn(by.turned_deg)) / 2
        for at in (by.x, by.y):
            assert at - reach > -0.5
            assert at + reach < SIZE + 0.5


@pytest.mark.parametrize(("degrees", "quarters"), [(0.0, 0), (90.0, -1), (-90.0, 1), (180.0, 2), (-180.0, 2)])
def test_a_quarter_turn_moves_pixels_and_mixes_none(degrees: float, quarters: int) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (SIZE, SIZE, 3)).astype(np.uint8)
    middle = pixels[30:190, 32:192]
    assert (turned(pixels, Turn(degrees, 160, 112.0, 110.0)) == np.rot90(middle, quarters)).all()


def test_outside_the_picture_is_its_nearest_pixel() -> None:
    pixels = np.zeros((4, 4, 3), np.uint8)
    pixels[:, 3] = 200
    assert (turned(pixels, Turn(0.0, 2, 4.0, 2.0)) == 200).all()
    assert (turned(pixels, Turn(0.0, 1, 3.0, 2.0)) == 100).all()


@pytest.mark.slow(reason="draws pictures twice")
def test_turned_pictures_are_cached_by_themselves(
    renders: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = module.products(None, queries="turned")
    names = {file.name for file in (tmp_path / "cache").iterdir()}
    assert names == {f"products-{module.VERSION}-0.npz", f"products-{module.VERSION}-0-turned.npz"}
    monkeypatch.setattr(module, "turn_all", lambda *key: pytest.fail("drawn again"))
    second = module.products(None, queries="turned")
    assert second.fingerprint == first.fingerprint
    assert second.query.attributes["turned_deg"].tolist() == first.query.attributes["turned_deg"].tolist()
    assert renders == [0]


def test_seeds_are_turned_otherwise() -> None:
    assert any_turn(Dice("turned", 0, "mug-00", 8)) == any_turn(Dice("turned", 0, "mug-00", 8))
    assert any_turn(Dice("turned", 0, "mug-00", 8)) != any_turn(Dice("turned", 1, "mug-00", 8))


def test_queries_are_as_they_are_or_turned() -> None:
    with pytest.raises(BenchError, match=r"queries.*as-is.*turned"):
        parse(DATASETS, "products:queries=upside-down")


# --- the cache --------------------------------------------------------------------------------------------------------


def test_the_second_load_draws_nothing(renders: list[int], tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    first, second = module.products(None), module.products(None)
    assert renders == [0]
    assert second.fingerprint == first.fingerprint
    for before, after in zip(first.splits.values(), second.splits.values(), strict=True):
        assert [before.images.read(row) for row in range(400)] == [after.images.read(row) for row in range(400)]
        for name, column in before.attributes.items():
            assert column.dtype == after.attributes[name].dtype
            assert column.tolist() == after.attributes[name].tolist()
    assert [file.name for file in (tmp_path / "cache").iterdir()] == [f"products-{module.VERSION}-0.npz"]
    assert capfd.readouterr() == ("", "")


@pytest.mark.slow(reason="draws the whole dataset")
@pytest.mark.parametrize("damage", ["flipped", "cut", "empty", "text", "directory"])
def test_a_damaged_cache_is_drawn_again(renders: list[int], tmp_path: Path, damage: str) -> None:
    good = module.products(None).fingerprint
    path = tmp_path / "cache" / f"products-{module.VERSION}-0.npz"
    content = bytearray(path.read_bytes())
    if damage == "flipped":
        content[len(content) // 2] ^= 1
    elif damage == "cut":
        del content[len(content) // 2 :]
    elif damage == "empty":
        content.clear()
    elif damage == "text":
        content = bytearray(b"<html>not a cache</html>")
    path.unlink()
    if damage == "directory":
        path.mkdir()
    else:
        path.write_bytes(content)
    assert module.products(None).fingerprint == good
    assert renders == [0, 0]
    assert [file.name for file in path.parent.iterdir()] == [path.name]


@pytest.mark.slow(reason="draws pictures twice")
def test_a_cache_with_other_pixels_under_a_valid_checksum_is_refused(renders: list[int], tmp_path: Path) -> None:
    """zip's own CRC is fine here: only the seal notices."""
    module.products(None)
    path = tmp_path / "cache" / f"products-{module.VERSION}-0.npz"
    with np.load(path) as archive:
        arrays = {name: archive[name] for name in archive.files}
    arrays["encoded"] = arrays["encoded"][::-1].copy()
    np.savez(path, **arrays)
    module.products(None)
    assert renders == [0, 0]


@pytest.mark.slow(reason="draws pictures twice")
def test_a_cache_of_other_code_or_seed_is_drawn_again(
    renders: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module.products(None)
    directory = tmp_path / "cache"
    (directory / f"products-{module.VERSION}-0.npz").rename(directory / f"products-{module.VERSION}-5.npz")
    module.products(None, seed=5)
    assert renders == [0, 5]
    monkeypatch.setattr(module, "_source", lambda: "another renderer")
    module.products(None, seed=5)
    assert renders == [0, 5, 5]


def test_a_cache_that_cannot_be_written_does_not_matter(
    renders: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "file" / "below"))
    assert len(module.products(None).gallery) == 400
    assert len(module.products(None).gallery) == 400
    assert renders == [0, 0]


def test_a_terminal_sees_a_bar(renders: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    module.products(None)
    assert "drawing products" in terminal.getvalue()


# --- the contact sheet ------------------------------------------------------------------------------------------------


def _odd_dataset(n_labels: int = 3) -> Dataset:
    """Images of many sizes, one of them broken, no categories, a long label name that is not ASCII."""
    wide, tall = np.full((10, 300, 3), 90, np.uint8), np.full((500, 20, 3), 60, np.uint8)
    tiny = np.zeros((1, 1, 3), np.uint8)
    encoded = [encode_png(wide), encode_png(tall), encode_png(tiny)]
    names = ("Crème fraîche with a very long name indeed, 500 g", *(f"label {n}" for n in range(1, n_labels)))
    labels = np.arange(n_labels, dtype=np.int64)

    def split(part: str, first: bytes) -> Split:
        images = ImageBytes([first, *(encoded[n % 3] for n in range(1, n_labels))])
        return Split(tuple(f"{part}/{n}" for n in range(n_labels)), labels, images)

    return Dataset("odd", split("train", encoded[0]), split("gallery", encoded[1]), split("query", b"<html>"), names)


@pytest.mark.slow(reason="draws the whole dataset")
def test_the_sheet_shows_three_of_each_category(dataset: Dataset, tmp_path: Path) -> None:
    contact_sheet(dataset, tmp_path / "deep" / "sheet.png")
    sheet = np.asarray(Image.open(tmp_path / "deep" / "sheet.png"))
    assert sheet.shape[0] == 32 + 30 * CELL + 8
    assert [file.name for file in (tmp_path / "deep").iterdir()] == ["sheet.png"]
    first = sheet[32 : 32 + CELL, SIDE_NOTE : SIDE_NOTE + CELL]
    assert first[4:8, 4:8].min() > 235
    assert first.std() > 20


def test_the_sheet_marks_broken_images_and_fits_every_size(tmp_path: Path) -> None:
    odd = _odd_dataset()
    with pytest.raises(BadImage):
        odd.query.images[0]
    contact_sheet(odd, tmp_path / "all.png")
    contact_sheet(odd, tmp_path / "query.png", split="query")
    contact_sheet(odd, tmp_path / "train.png", split="train")
    red = {
        name: int((np.asarray(Image.open(tmp_path / f"{name}.png")) == ALARM).all(axis=2).sum())
        for name in ("all", "query", "train")
    }
    assert red["train"] == 0
    assert red["all"] == red["query"] > CELL


def test_the_sheet_is_never_endless(tmp_path: Path) -> None:
    contact_sheet(_odd_dataset(300), tmp_path / "many.png")
    assert np.asarray(Image.open(tmp_path / "many.png")).shape[0] == 32 + 40 * CELL + 8


def test_the_sheet_refuses_what_it_cannot_do(tmp_path: Path) -> None:
    with pytest.raises(BenchError, match="did you mean 'query'"):
        contact_sheet(_odd_dataset(), tmp_path / "x.png", split="quary")
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(BenchError, match="cannot be written"):
        contact_sheet(_odd_dataset(), tmp_path / "file" / "sheet.png")
    (tmp_path / "directory.png").mkdir()
    with pytest.raises(BenchError, match="cannot be written"):
        contact_sheet(_odd_dataset(), tmp_path / "directory.png")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["directory.png", "file"]
