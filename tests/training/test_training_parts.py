"""The parts of training: augmentation, held-out rows, losses, rates, parts of a batch, frames."""

from __future__ import annotations

import copy
import itertools

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as reference

from retrieval_bench.core import BenchError
from retrieval_bench.images.reading import ImageBytes, encode_png
from retrieval_bench.training_loop.augment import GREY, NONE, Augment, augmented, parse_augment
from retrieval_bench.training_loop.frames import Frames, centre, resized
from retrieval_bench.training_loop.holdout import hold_out
from retrieval_bench.training_loop.loop import order
from retrieval_bench.training_loop.micro_batches import MicroBatches, draws
from retrieval_bench.training_loop.objectives import class_weights, objective
from retrieval_bench.training_loop.schedule import optimizer, rate
from retrieval_bench.training_loop.settings import TrainingSettings


def picture(height: int, width: int, seed: int = 0) -> torch.Tensor:
    """(3, height, width) uint8, smooth: sampling between pixels then changes little."""
    coarse = np.random.default_rng(seed).integers(0, 256, (4, 5, 3), dtype=np.uint8)
    pixels = np.array(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))
    return torch.from_numpy(pixels).permute(2, 0, 1).contiguous()


def drawn(images: list[torch.Tensor], side: int, how: Augment, seed: int = 0) -> torch.Tensor:
    return augmented(images, side, how, torch.Generator().manual_seed(seed))


def test_no_augmentation_gives_the_image_itself() -> None:
    image = picture(32, 32)
    out = drawn([image], 32, NONE)
    assert out.shape == (1, 3, 32, 32)
    assert out.dtype == torch.float32
    np.testing.assert_allclose(out[0].numpy(), image.numpy() / 255, atol=1e-5)


def test_of_an_oblong_image_the_middle_square_is_taken_and_nothing_is_stretched() -> None:
    image = picture(32, 48)
    out = drawn([image], 32, NONE)[0]
    np.testing.assert_allclose(out.numpy(), image[:, :, 8:40].numpy() / 255, atol=1e-4)


def test_the_mirror_image() -> None:
    image = picture(24, 24)
    out = drawn([image], 24, Augment(**{**NONE.__dict__, "flip": 1.0}))[0]
    np.testing.assert_allclose(out.numpy(), image.flip(2).numpy() / 255, atol=1e-5)


def test_turning_agrees_with_torchvision() -> None:
    image = picture(64, 64)
    how = Augment(**{**NONE.__dict__, "rotate": 30.0})
    out = drawn([image], 64, how, seed=5)[0]
    angle = float((torch.rand(1, 16, generator=torch.Generator().manual_seed(5))[0, 5] * 2 - 1) * 30)
    wanted = reference.rotate(image.float() / 255, angle, interpolation=v2.InterpolationMode.BILINEAR)
    inner = (slice(None), slice(16, 48), slice(16, 48))  # away from the border, which the two continue in other ways
    np.testing.assert_allclose(out[inner].numpy(), wanted[inner].numpy(), atol=1e-5)


def test_a_crop_is_a_part_of_the_image() -> None:
    ramp = torch.arange(64, dtype=torch.uint8).repeat(3, 64, 1)  # the value of a pixel is its column
    how = Augment(**{**NONE.__dict__, "crop": 0.25})
    widths = []
    for seed in range(20):
        out = drawn([ramp], 64, how, seed)[0] * 255
        assert 0 <= out.min() <= out.max() <= 63.001
        widths.append(float(out[0, 0, -1] - out[0, 0, 0]))
    assert 20 < min(widths) < 45
    assert max(widths) > 50


def test_brightness_contrast_and_saturation_agree_with_torchvision() -> None:
    image = picture(32, 32)
    how = Augment(**{**NONE.__dict__, "colour": 0.2})
    out = drawn([image], 32, how, seed=3)[0]
    numbers = torch.rand(1, 16, generator=torch.Generator().manual_seed(3))[0]
    brightness, contrast, saturation = (1 + (numbers[column] * 2 - 1) * 0.2 for column in (6, 7, 8))
    x = image.float() / 255 * brightness
    grey = torch.tensor(GREY)[:, None, None]
    x = contrast * x + (1 - contrast) * (x * grey).sum(0).mean()
    x = saturation * x + (1 - saturation) * (x * grey).sum(0)
    # Ours does not clip in between, so only what stays inside agrees.
    np.testing.assert_allclose(out.numpy(), x.clamp(0, 1).numpy(), atol=1e-4)


def test_hue_keeps_grey_and_its_full_turn_is_none() -> None:
    grey = torch.full((3, 8, 8), 100, dtype=torch.uint8)
    how = Augment(**{**NONE.__dict__, "hue": 0.5})
    np.testing.assert_allclose(drawn([grey], 8, how)[0].numpy(), 100 / 255, atol=1e-5)
    coloured = picture(8, 8)
    assert (drawn([coloured], 8, how)[0] - coloured / 255).abs().max() > 0.05


def test_noise_and_holes() -> None:
    grey = torch.full((3, 64, 64), 128, dtype=torch.uint8)
    noisy = torch.cat([drawn([grey], 64, Augment(**{**NONE.__dict__, "noise": 0.2}), seed) for seed in range(20)])
    deviations = noisy.flatten(1).std(1)
    assert deviations.max() <= 0.21
    assert deviations.max() > 0.1 > deviations.min()
    white = torch.full((3, 64, 64), 255, dtype=torch.uint8)
    holed = torch.cat([drawn([white], 64, Augment(**{**NONE.__dict__, "erase": 1.0}), seed) for seed in range(20)])
    shares = (holed == 0.5).float().mean(dim=(1, 2, 3))
    assert shares.min() > 0.04
    assert shares.max() < 0.31


def test_augmentation_follows_its_generator_and_takes_any_shapes() -> None:
    images = [picture(20, 33), picture(64, 20), picture(1, 1), picture(50, 50)]
    first, again, other = (drawn(images, 24, Augment(erase=0.5), seed) for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.isfinite(first).all()
    assert first.min() >= 0
    assert first.max() <= 1


def test_reading_augmentations() -> None:
    assert parse_augment("") == Augment()
    assert parse_augment("none") == NONE
    assert parse_augment("crop=0.5, rotate=0").crop == 0.5
    for text, message in (
        ("zoom=2", "unknown; write none, or any of crop, flip"),
        ("crop=big", "'big' is not a number"),
        ("crop=0", "crop=0 must be above 0"),
        ("flip=2", r"flip=2 is outside 0\.\.1"),
        ("noise=nan", "noise=nan is outside"),
    ):
        with pytest.raises(BenchError, match=message):
            parse_augment(text)


def test_held_out_rows_are_a_share_of_each_label_and_never_its_last_image() -> None:
    labels = np.array([0] * 10 + [1] * 1 + [2] * 5 + [3] * 2)
    rows, held = hold_out(labels, 0.2, seed=1)
    assert sorted([*rows, *held]) == list(range(18))
    assert np.bincount(labels[held], minlength=4).tolist() == [2, 0, 1, 0]
    np.testing.assert_array_equal(hold_out(labels, 0.2, seed=1)[1], held)
    assert any((hold_out(labels, 0.2, seed=seed)[1] != held).any() for seed in range(2, 6))
    assert len(hold_out(labels, 0.0, 0)[1]) == 0
    assert set(labels[hold_out(labels, 0.89, 0)[0]]) == {0, 1, 2, 3}


def test_rare_classes_weigh_more_and_the_mean_over_images_is_one() -> None:
    labels = np.array([0] * 90 + [1] * 10)
    weights = class_weights(labels, 3)
    assert weights[labels].mean() == pytest.approx(1)
    assert weights[1] / weights[0] == pytest.approx(3)
    assert np.isfinite(weights).all()


def test_cross_entropy_is_torchs_own_when_nothing_is_weighed() -> None:
    goal = objective(TrainingSettings(balance=False, smoothing=0.1), 6, np.arange(4), 4)
    features, labels = torch.randn(8, 6, generator=torch.Generator().manual_seed(0)), torch.arange(8) % 4
    wanted = nn.functional.cross_entropy(goal.linear(features), labels, label_smoothing=0.1)
    assert goal.loss(features, labels).item() == pytest.approx(wanted.item(), rel=1e-5)


@pytest.mark.parametrize("loss", ["cross-entropy", "cosine-softmax", "proxy-anchor", "triplet"])
def test_every_loss_pulls_labels_apart(loss: str) -> None:
    torch.manual_seed(0)
    labels = np.arange(24) % 3
    if loss in ("proxy-anchor", "triplet"):
        pytest.importorskip("pytorch_metric_learning", reason='needs pip install "retrieval-bench[train]"')
    goal = objective(TrainingSettings(loss=loss, smoothing=0.0), 5, labels, 3)
    features = nn.Parameter(torch.randn(24, 5, generator=torch.Generator().manual_seed(1)))
    steps = torch.optim.Adam([features, *goal.parameters()], lr=0.05)
    for _ in range(200):
        steps.zero_grad()
        value = goal.loss(features, torch.from_numpy(labels))
        value.backward()
        steps.step()
    unit = nn.functional.normalize(features.detach(), dim=1)
    near = unit @ unit.T - 2 * torch.eye(24)
    assert (labels[near.argmax(1).numpy()] == labels).mean() > 0.9
    if goal.scores is not None:
        assert (goal.scores(features).argmax(1).numpy() == labels).mean() > 0.9


def test_triplets_need_two_images_of_a_label() -> None:
    with pytest.raises(BenchError, match="--loss triplet needs two images of one label"):
        objective(TrainingSettings(loss="triplet"), 5, np.arange(4), 4)


def test_a_missing_metric_learning_package_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(BenchError, match=r"proxy-anchor needs pytorch-metric-learning: pip install"):
        objective(TrainingSettings(loss="proxy-anchor"), 5, np.arange(4), 4)


def test_rates_rise_and_fall_and_end_near_nothing() -> None:
    one = [rate(TrainingSettings(schedule="onecycle", lr=1.0), step, 100) for step in range(100)]
    assert max(one) == pytest.approx(1, abs=0.02)
    assert int(np.argmax(one)) == pytest.approx(20, abs=1)
    assert one[-1] < 0.001
    assert all(later >= earlier for earlier, later in itertools.pairwise(one[:20]))
    steps = [rate(TrainingSettings(schedule="step", lr=1.0), step, 100) for step in range(100)]
    assert {round(value, 6) for value in steps[5:]} == {1.0, 0.1, 0.01, 0.001}
    assert {rate(TrainingSettings(schedule="constant", lr=0.5), step, 10) for step in range(10)} == {0.5}
    cosine = [rate(TrainingSettings(schedule="cosine", lr=1.0), step, 1000) for step in range(1000)]
    assert cosine[510] == pytest.approx(0.5, abs=0.02)


@pytest.mark.parametrize("name", ["adam", "adamw", "sgd"])
def test_biases_are_not_decayed(name: str) -> None:
    groups = optimizer(TrainingSettings(optimizer=name), nn.Linear(3, 2).parameters()).param_groups
    assert [[p.ndim for p in group["params"]] for group in groups] == [[2], [1]]
    assert groups[0]["weight_decay"] > 0 == groups[1]["weight_decay"]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"mode": "tune"}, "--mode 'tune' is not one of head, finetune, scratch"),
        ({"optimizer": "lamb"}, "--optimizer 'lamb' is not one of adam"),
        ({"epochs": 0}, "--epochs 0 must be at least 1"),
        ({"batch": 1}, "--batch 1 must be at least 2"),
        ({"lr": float("nan")}, "--lr nan must be a number, 0 or more"),
        ({"lr": -1.0}, "--lr -1"),
        (
            {"mode": "head", "loss": "triplet"},
            "--mode head learns a linear classifier by cross-entropy, not by triplet",
        ),
        ({"freeze": 1.0}, "--freeze 1 must be at least 0 and below 1"),
        ({"holdout": 0.0, "patience": 2}, "--patience 2 needs a validation part"),
    ],
)
def test_settings_that_cannot_be(given: dict, message: str) -> None:
    with pytest.raises(BenchError, match=message):
        TrainingSettings(**given)


def test_an_epochs_order_is_its_own_and_keeps_pairs_together_for_triplets() -> None:
    labels = np.array([0, 1, 2, 0, 1, 2, 0, 1, 2, 0, 1, 1])
    rows = np.arange(12)
    plain = TrainingSettings()
    assert sorted(order(labels, rows, plain, 0)) == rows.tolist()
    np.testing.assert_array_equal(order(labels, rows, plain, 3), order(labels, rows, plain, 3))
    assert (order(labels, rows, plain, 3) != order(labels, rows, plain, 4)).any()
    paired = order(labels, rows, TrainingSettings(loss="triplet"), 0)
    assert sorted(paired) == rows.tolist()
    together = sum(labels[paired[at]] == labels[paired[at + 1]] for at in range(11))
    assert together >= 4


def test_the_gradient_in_parts_is_the_gradient_of_the_whole_on_any_number_of_threads() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 2))
    inputs, parameters = torch.randn(10, 4), list(network.parameters())
    wanted = torch.autograd.grad(network(inputs).square().mean(), parameters)

    def work(replica: nn.Module, part: int) -> torch.Tensor:
        return replica(inputs[part * 5 : part * 5 + 5]).square().mean() / 2

    found = []
    for threads in (1, 2):
        parts = MicroBatches(network, 2, threads)
        losses, gradients = parts.gradients(work, 2, parameters)
        parts.close()
        assert sum(losses) == pytest.approx(network(inputs).square().mean().item())
        found.append(gradients)
    for one, two, whole in zip(*found, wanted, strict=True):
        assert torch.equal(one, two)
        np.testing.assert_allclose(one, whole, atol=1e-6)


def test_running_means_of_parts_are_brought_together() -> None:
    network = nn.Sequential(nn.BatchNorm1d(3))
    parts = MicroBatches(network, 2, 2)
    data = torch.randn(8, 3)
    for replica, half in zip(parts.replicas, data.chunk(2), strict=True):
        replica.train()(half)
    singles = [copy.deepcopy(replica[0].running_mean) for replica in parts.replicas]
    assert not torch.equal(*singles)
    parts.average_buffers()
    parts.close()
    for replica in parts.replicas:
        np.testing.assert_allclose(replica[0].running_mean, (singles[0] + singles[1]) / 2, atol=1e-7)
        assert replica[0].weight is network[0].weight
    assert draws(nn.Sequential(nn.Dropout(0.1)))
    assert not draws(network)


def test_frames_are_what_torchvision_would_show_the_network() -> None:
    image = picture(80, 131).permute(1, 2, 0).numpy()
    frames = Frames(ImageBytes([encode_png(image)]), 64)
    wanted = v2.Compose([v2.Resize(64), v2.CenterCrop(56)])(Image.fromarray(image))
    np.testing.assert_array_equal(centre(frames[0], 56).permute(1, 2, 0).numpy(), np.asarray(wanted))
    assert frames[0] is frames[0]
    assert Frames(ImageBytes([encode_png(image)]), 64, most_bytes=10)[0].shape == frames[0].shape


@pytest.mark.parametrize("shape", [(1, 1), (1, 500), (500, 1), (3, 7), (40, 40)])
def test_frames_of_odd_images(shape: tuple[int, int]) -> None:
    frame = resized(np.zeros((*shape, 3), np.uint8), 32)
    assert min(frame.shape[:2]) == 32
    assert max(frame.shape[:2]) <= 128
    side = centre(torch.from_numpy(frame.copy()).permute(2, 0, 1), 40)
    assert side.shape == (3, 40, 40)
    assert side.dtype == torch.uint8
