"""A network that was trained on the queries has no score."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torchvision import models

from retrieval_bench.core import BenchError
from retrieval_bench.experiment.prepare import Plan
from retrieval_bench.experiment.runner import run
from retrieval_bench.methods.parse import parse_method
from retrieval_bench.registry import Entry, Spec
from retrieval_bench.system.checkpoint import save_weights
from tests.support.shop import shop


@pytest.mark.slow(reason="trains a network for each part")
@pytest.mark.parametrize("part", ["query", "gallery"])
def test_own_training_images_are_refused_as_queries_and_welcome_in_the_gallery(tmp_path: Path, part: str) -> None:
    data = shop(2, 2)
    split = data.splits[part]
    torch.manual_seed(0)
    file = tmp_path / "tuned.pth"
    digests = [split.images.digest(row) for row in range(len(split))]
    save_weights(file, models.squeezenet1_1(weights=None).state_dict(), {"dataset": "shop", "images": digests})
    source = Spec(Entry("shop", lambda root: data, "for tests"), {})
    plan = Plan((parse_method(f"squeezenet1_1:weights={file}"), parse_method("color")), source, k=(1,))
    network, color = run(plan, tmp_path / "out").rows
    assert color.status == "ok"
    if part == "gallery":
        assert network.status == "ok"
        assert network.weights is not None
        assert network.weights["source"] == "tuned.pth"
        assert "untrained" not in network.method
    else:
        assert network.error is not None
        assert "4 of the query images are among the 4 that its weights were trained on" in network.error.sentence


def test_a_weights_file_that_is_not_there_is_one_sentence(tmp_path: Path) -> None:
    data = shop(2, 2)
    source = Spec(Entry("shop", lambda root: data, "for tests"), {})
    plan = Plan((parse_method(f"squeezenet1_1:weights={tmp_path / 'none.pth'}"),), source, k=(1,))
    with pytest.raises(BenchError, match=r"^squeezenet1_1: weights=.*none.pth: no such file"):
        run(plan, tmp_path / "out")
