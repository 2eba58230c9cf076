"""From JPEG to features: what the lines say, and that both ways do the same work."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torchvision import models
from typer.testing import CliRunner

import retrieval_bench.datasets
import retrieval_bench.extractors  # noqa: F401 - registers the networks
from benchmark import network as command
from retrieval_bench.core import BenchError, Setup
from retrieval_bench.datasets.splits import limit
from retrieval_bench.extractors.deep.network_features import NetworkFeatures
from retrieval_bench.peer_benchmarks import networks, throughput
from retrieval_bench.peer_benchmarks.throughput import Throughput, as_jpeg, operations, peak_of
from retrieval_bench.registry import DATASETS
from retrieval_bench.system.timing import Time


def measured(**others: Any) -> Throughput:
    facts: dict[str, Any] = {"network": "toy", "how": "float32", "side": 224, "images": 10, "threads": 2}
    facts |= {"device": "cpu", "files": [2.0, 4.0, 5.0], "tensors": [1.9, 3.0, 4.9]}
    facts |= {"single": Time(7.5, "ms", 10), "flops": 10**10}
    return Throughput(**facts | others)


def test_the_share_is_a_median_over_rounds_and_is_judged() -> None:
    one = measured()
    assert one.share == 0.95
    text = "\n".join(one.lines())
    assert "files to tensors, at least 0.9: 0.950, reached" in text
    assert "from JPEG files              2.5 images/s" in text
    assert "p50 of 10: 7.50 ms" in text
    assert "peak" not in text
    assert "NOT reached" in "\n".join(measured(tensors=[1.0, 2.0, 2.5]).lines())


def test_the_share_of_a_cards_peak() -> None:
    gpu = {"device": "cuda", "resident": (0.5, 0.1, 0.2), "batch": 100}
    known = measured(card="NVIDIA A100-SXM4-80GB", **gpu)
    assert known.of_peak == pytest.approx(100 * 10**10 / 0.2 / 312e12)
    assert "from tensors there         500.0 images/s in batches of 100; 1.6% of its peak in bfloat16" in known.lines()
    unknown = measured(card="NVIDIA GeForce GTX 1080", **gpu)
    assert unknown.of_peak is None
    assert "the card's peak is not known" in unknown.lines()[-1]


@pytest.mark.parametrize(
    ("card", "peak"),
    [
        ("NVIDIA H100 80GB HBM3", 989.4),
        ("NVIDIA H100 PCIe", 756.0),
        ("NVIDIA H200", 989.4),
        ("NVIDIA A100-PCIE-40GB", 312.0),
        ("NVIDIA L4", 121.0),
        ("NVIDIA L40S", None),
        ("NVIDIA GeForce RTX 4090", 165.2),
        ("NVIDIA GeForce RTX 4090 Laptop GPU", None),
        ("Tesla T4", None),
    ],
)
def test_cards_are_known_by_name(card: str, peak: float | None) -> None:
    assert peak_of(card) == peak


def test_operations_are_two_a_multiply_add() -> None:
    network = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3, bias=False), torch.nn.Flatten(), torch.nn.Linear(32, 5))
    assert operations(network, torch.zeros(1, 3, 4, 4)) == 2 * (8 * 27 * 4) + 2 * (32 * 5)
    assert operations(models.resnet18(weights=None).eval(), torch.zeros(1, 3, 224, 224)) == 2 * 1_814_073_344


@pytest.mark.slow(reason="runs networks in every way there is")
def test_both_ways_describe_every_image(monkeypatch: pytest.MonkeyPatch) -> None:
    queries = limit(DATASETS["products"].build(None), 6).query
    jpeg = as_jpeg(queries)
    assert all(jpeg.images.read(row).startswith(throughput.JPEG) for row in range(6))
    assert as_jpeg(jpeg).images.read(3) == jpeg.images.read(3)
    assert np.abs(jpeg.images[2].astype(int) - queries.images[2]).mean() < 8
    seen: list[int] = []
    transform = NetworkFeatures.transform

    def watched(self: NetworkFeatures, images: Any) -> np.ndarray:
        seen.append(len(images))
        return transform(self, images)

    monkeypatch.setattr(NetworkFeatures, "transform", watched)
    found = throughput.throughput(
        "squeezenet1_0", queries, rounds=2, threads=2, setup=Setup(weights="random"), compute="fused"
    )
    assert sum(seen) == 3 * 6  # one round to warm up
    assert len(found.files) == len(found.tensors) == 2
    assert min(found.files + found.tensors) > 0
    assert found.single.n == 6
    assert found.how.startswith("float32, convolutions with batch norm") or "folded" in found.how
    assert (found.card, found.resident, found.images, found.side) == ("", (), 6, 224)


@pytest.mark.long(reason="builds and times a network in every way there is")
def test_the_command_prints_both_tables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(networks, "SIZES", (1,))

    def refuse(form: str) -> None:
        raise BenchError("no peer")

    monkeypatch.setattr(networks, "need_packages", refuse)
    options = "--network squeezenet1_0 --images 1 --compared 2 --rounds 1 --threads 1 --weights random --device cpu"
    result = CliRunner().invoke(command.app, [*options.split(), "--files", "3", "--compute", "fused"])
    assert result.exit_code == 0, result.output
    assert "plain loop" in result.output
    assert "did not take part: no peer" in result.output
    assert "files to tensors, at least 0.9:" in result.output


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ("--device gpu", "--device gpu: choose auto, cpu or cuda"),
        ("--compute half", "--compute half: choose float32, fused, bfloat16"),
        ("--device cuda", "--device cuda: torch sees no CUDA device here; use --device cpu or auto"),
    ],
)
def test_mistakes_are_one_sentence(options: str, sentence: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    result = CliRunner().invoke(command.app, options.split())
    assert (result.exit_code, result.output.strip()) == (2, f"error: {sentence}")
