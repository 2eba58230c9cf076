"""The fast forms of a network: the same features, in batches that change no bit, and a word on how they are run."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torchvision import models

from retrieval_bench.core import BenchError, Setup, Split
from retrieval_bench.extractors.deep import fused_inference, network_features
from retrieval_bench.images.reading import ImageBytes, encode_png
from retrieval_bench.registry import EXTRACTORS
from retrieval_bench.system.timing import pinned
from tests.support.pictures import photo_of

pytestmark = pytest.mark.slow(reason="traces networks and runs each in several forms")

NARROW = pytest.mark.skipif(not fused_inference.has_bfloat16(), reason="this processor has no bfloat16")
IMAGES = [np.asarray(photo_of(90 + 7 * seed, 120, seed)) for seed in range(6)]


def build(name: str, **options: Any) -> network_features.NetworkFeatures:
    small = {} if name.startswith("vit") else {"size": 96}  # a vit takes images of one size
    return EXTRACTORS[name].build(Setup(weights="random"), **small, **options)


LARGE = pytest.mark.long(reason="to draw the weights of a large network, and to trace and run it, takes seconds each")


class Branches(nn.Module):
    """Every shape of graph that is joined, and those that must be left alone."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.third = (nn.Conv2d(3, 3, 3, padding=1) for _ in range(3))
        self.edge = nn.Conv2d(3, 3, 3, padding="same")
        self.norm, self.relu = nn.BatchNorm2d(3), nn.ReLU(inplace=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        a = self.relu(self.norm(self.first(x)))
        b = self.second(a)
        b = b + a  # added without a ReLU
        c = self.third(b) + self.edge(a)  # added to what comes later
        c = torch.relu(c)
        return torch.relu(c + c * self.second(c)).mean(dim=(2, 3))


def test_each_kind_of_branch_gives_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = Branches().eval()
        network.norm.running_mean.uniform_()
        network.norm.running_var.uniform_(0.5, 2)
        batch = torch.randn(2, 3, 20, 17)
    fast = fused_inference.faster("toy", network, "cpu", "fused")
    assert "in one" in fast.note
    with torch.inference_mode():
        np.testing.assert_allclose(fast(batch), network(batch), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("compute", [torch.float32, pytest.param(torch.bfloat16, marks=NARROW)])
@pytest.mark.parametrize("why", ["another version", "an operator is gone"])
def test_without_the_private_operators_the_public_ones_give_the_same(
    why: str, compute: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network, batch = Branches().eval(), torch.randn(2, 3, 20, 17)
    kind = "fused" if compute == torch.float32 else "bfloat16"
    if why == "another version":
        monkeypatch.setattr(torch, "__version__", "2.99.0")
    else:
        monkeypatch.setattr(fused_inference, "OPERATORS", (*fused_inference.OPERATORS[:2], "_no_such_operator"))
    assert fused_inference.one_dnn() is None
    fast = fused_inference.faster("toy", network, "cpu", kind)
    with torch.inference_mode():
        near = 1e-4 if compute == torch.float32 else 5e-2
        np.testing.assert_allclose(fast(batch).float(), network(batch), rtol=near, atol=near / 10)
    monkeypatch.undo()
    assert fused_inference.one_dnn() is not None


@pytest.mark.parametrize(
    "name",
    [
        *("squeezenet1_0", "mobilenet_v3_small"),
        *(pytest.param(name, marks=LARGE) for name in ("resnet18", "regnet_x_400mf", "densenet121")),
    ],
)
def test_fused_features_are_the_same_up_to_rounding(name: str) -> None:
    plain, fused = build(name).transform(IMAGES[:2]), build(name, compute="fused")
    np.testing.assert_allclose(fused.transform(IMAGES[:2]), plain, rtol=1e-2, atol=1e-4)
    assert "float32" in fused.weights["compute"]


def test_layers_are_found_in_the_fast_network_too() -> None:
    options = {"layer": "features.3/features.8", "pool": "gem"}
    plain, fused = (build("mobilenet_v3_small", compute=compute, **options) for compute in ("float32", "fused"))
    np.testing.assert_allclose(fused.transform(IMAGES[:1]), plain.transform(IMAGES[:1]), rtol=1e-2, atol=1e-4)


@NARROW
@pytest.mark.parametrize(
    "name", ["squeezenet1_0", *(pytest.param(name, marks=LARGE) for name in ("resnet18", "vit_b_32"))]
)
def test_bfloat16_is_near(name: str) -> None:
    plain, narrow = build(name).transform(IMAGES[:2]), build(name, compute="bfloat16")
    cosine = (plain * narrow.transform(IMAGES[:2])).sum(axis=1)
    assert (cosine > 0.99).all()
    assert "bfloat16" in narrow.weights["compute"]


@pytest.mark.parametrize("compute", ["fused", pytest.param("bfloat16", marks=NARROW)])
def test_a_row_depends_on_its_image_alone_in_any_batch(compute: str) -> None:
    with pinned(1):
        extractor = build("mobilenet_v3_small", compute=compute)
        rows = extractor.transform(IMAGES)
        for row, image in enumerate(IMAGES):
            np.testing.assert_array_equal(extractor.transform([image])[0], rows[row])
        np.testing.assert_array_equal(extractor.transform(IMAGES[::-1])[::-1], rows)


def test_a_batch_that_changes_bits_is_not_used() -> None:
    def leaning(batch: torch.Tensor) -> torch.Tensor:
        return batch.mean(dim=(2, 3)) + (len(batch) > 2)

    assert fused_inference.steady_batch(leaning, 16) == 2
    assert fused_inference.steady_batch(lambda batch: batch.amax(dim=(2, 3)), 16) == fused_inference.BATCHES[0]


def split_of(images: list[np.ndarray]) -> Split:
    encoded = ImageBytes([encode_png(image) for image in images])
    return Split(tuple(f"{row}.png" for row in range(len(images))), np.zeros(len(images), np.int64), encoded)


@NARROW
@pytest.mark.parametrize(("tolerance", "chosen"), [(0.0, "bfloat16:"), (1.01, "float32 in its place:")])
def test_auto_takes_bfloat16_where_the_neighbours_stay(
    tolerance: float, chosen: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(network_features, "TOLERANCE", tolerance)
    extractor = build("squeezenet1_0", compute="auto").fit(split_of(IMAGES))
    assert extractor.weights["compute"].startswith(chosen)
    assert "of the 10 nearest are the same" in extractor.weights["compute"]
    wanted = build("squeezenet1_0", compute="bfloat16" if tolerance < 1 else "fused").transform(IMAGES[:2])
    np.testing.assert_array_equal(extractor.transform(IMAGES[:2]), wanted)


def test_bfloat16_is_refused_where_the_processor_has_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fused_inference, "has_bfloat16", lambda *where: False)
    with pytest.raises(BenchError, match="compute=bfloat16 is for processors that have it"):
        build("squeezenet1_0", compute="bfloat16")


def test_agreement_counts_shared_neighbours() -> None:
    rows = np.eye(4, dtype=np.float32) + np.float32(0.1) * np.arange(16, dtype=np.float32).reshape(4, 4)
    assert network_features.agreement(rows, rows) == 1
    assert network_features.agreement(rows[:1], rows[:1]) == 1
    line = np.array([[1, 0], [0.9, 0.1], [0, 1]], np.float32)
    other = line[[0, 2, 1]]  # the nearest of the first is another one now
    assert network_features.agreement(line, other, k=1) < 1


def test_what_cannot_be_traced_runs_as_it_is() -> None:
    class Wayward(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.mean(dim=(2, 3)) if x.sum() > 0 else -x.mean(dim=(2, 3))

    fast = fused_inference.faster("toy", Wayward().eval(), "cpu", "fused")
    assert "cannot be traced" in fast.note
    assert fast(torch.ones(1, 3, 4, 4)).tolist() == [[1, 1, 1]]
    with pytest.raises(BenchError, match="cannot follow this network to a layer"):
        fused_inference.faster("toy", Wayward().eval(), "cpu", "fused", ["nothing"])


def test_networks_of_torchvision_are_joined() -> None:
    """The convolutions of the families with plain ReLU leave nothing outside."""
    graph = fused_inference.faster("resnet18", models.resnet18(weights=None).eval(), "cpu", "fused").network
    kinds = [type(module).__name__ for module in graph.modules()]
    assert kinds.count("Convolution") == 20
    assert not {"Conv2d", "BatchNorm2d", "ReLU"} & set(kinds)
