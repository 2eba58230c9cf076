"""Photos of a small shop, half of them with a label, as a list and as a session."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from retrieval_bench.experiment.prepare import Plan
from retrieval_bench.labelling.decisions import DecisionLog, DecisionsOf
from retrieval_bench.labelling.pool import LabelPool, pool_of
from retrieval_bench.labelling.session import LabellingSession
from retrieval_bench.registry import DATASETS, fill, parse
from tests.support.shop import picture

LABELS, EACH, KNOWN = 6, 12, 8


def half_labelled_at(folder: Path, more: str = "") -> Path:
    """`shop.csv` and its photos; the first `KNOWN` of each label have one."""
    folder.mkdir(parents=True)
    lines = [f"path,label,colour{more and ',split'}"]
    for label in range(LABELS):
        for number in range(EACH):
            name = f"{label}-{number}.png"
            Image.fromarray(picture(label, number, 32)).save(folder / name)
            given = f"product-{label}" if number < KNOWN else ""
            lines.append(f"{name},{given},c{label}{more and f',{more}'}")
    (folder / "shop.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder / "shop.csv"


def pool_at(shop: Path) -> LabelPool:
    fill()
    return pool_of(Plan(methods=(), dataset=parse(DATASETS, "manifest"), root=shop))


def session_at(shop: Path, log: Path, noise: float = 0.0) -> LabellingSession:
    """Its features are the mean colours, which tell the labels apart; noise: that is added, of 255."""
    pool = pool_at(shop)
    features = np.array([pool.images[row].reshape(-1, 3).mean(axis=0) for row in range(len(pool))], np.float32)
    features += np.random.default_rng(0).normal(size=features.shape).astype(np.float32) * np.float32(noise)
    of = DecisionsOf(version="1", dataset="shop", images=len(pool), fingerprint=pool.fingerprint())
    return LabellingSession(pool, features, "euclidean", DecisionLog(log, of), 0.9)
