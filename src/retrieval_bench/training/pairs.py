"""A whole training on pairs of pictures and texts: from a split and an extractor of pictures to one file.

The extractor learns from train what it learns and describes each picture once; then both towers are trained over these
vectors and the texts. Some products are held out: nothing is learned of their pictures and texts, extractor included,
and how well they find each other chooses the epoch.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

import retrieval_bench
from retrieval_bench.core import BenchError, Setup, Split
from retrieval_bench.extractors.deep.frozen_pictures import CHUNK, FrozenPictures, frozen
from retrieval_bench.pair_training.file import PairFile, write_pairs
from retrieval_bench.pair_training.loop import PairSet, TrainedPairs, train_pairs
from retrieval_bench.pair_training.settings import PairSettings
from retrieval_bench.pair_training.tokenise import Tokens, learn_tokens, read_words
from retrieval_bench.pair_training.word_vectors import start_from, width_of
from retrieval_bench.system.checkpoint import restore_state, save_state
from retrieval_bench.system.device import check_device, gpu_settings, steady
from retrieval_bench.system.progress import Progress, silent
from retrieval_bench.system.threads import mapped
from retrieval_bench.system.timing import pinned
from retrieval_bench.training.train import checkpoint_of
from retrieval_bench.training_loop.epochs import Epoch
from retrieval_bench.training_loop.holdout import hold_out_labels

log = logging.getLogger("retrieval_bench")
CALLED = "--method"


@dataclass(frozen=True)
class PairTask:
    """One training on pairs.

    Args:
        method: what describes pictures, e.g. "efficientnet_lite0" or "sift+color".
        split: the pictures, their texts and labels.
        label_names: names of all labels of the dataset; a label is an index into them.
        dataset: specification of the dataset, for the facts in the file.
        fingerprint: fingerprint of the dataset, for the facts in the file.
        settings: the options of the training.
        setup: seed, weights, device and threads.
        word_vectors: a text file of first vectors of words, as GloVe has them. None: all are drawn.
        commit: version-control commit of this program, for the facts; None: unknown.
    """

    method: str
    split: Split
    label_names: tuple[str, ...]
    dataset: str
    fingerprint: str
    settings: PairSettings
    setup: Setup
    word_vectors: Path | None = None
    commit: str | None = None


@dataclass(eq=False)
class PairsResult:
    """A finished training. found: what the file holds. history: one line for each epoch. best: the epoch, from 1."""

    found: PairFile
    history: list[Epoch]
    best: int


def run_pairs(
    task: PairTask,
    out: Path | None,
    *,
    resume: bool = False,
    on_epoch: Callable[[Epoch], None] = lambda epoch: None,
    progress: Progress = silent,
) -> PairsResult:
    """Train both towers and write them; the state is saved after each epoch, so that a run can be resumed.

    Args:
        task: what is trained.
        out: the file. None: nothing is written.
        resume: continue from the checkpoint beside `out`. If there is none, start from the beginning, with a warning.
        on_epoch: called after each epoch; its `accuracy` is the score on the held-out products.
        progress: called often with (what is done, steps done, steps in all).

    Returns:
        What the file holds, and the history.

    Raises:
        BenchError: The task is impossible (no texts, one label, an extractor without a vector of a picture, a
            checkpoint of another run, ...), the loss is not finite, or a file cannot be written.
    """
    settings, setup, split = task.settings, task.setup, task.split
    check_device(setup.device)
    steady(setup.device)
    rows, held = _parts(task)
    if task.word_vectors is not None:
        settings = replace(settings, width=width_of(task.word_vectors))
    pictures = frozen(task.method, setup, CALLED)
    if pictures.untrained:
        raise BenchError(
            f"{CALLED} {task.method}: pairs are learned over a network that has learned already, and there are no "
            "weights for it; put a file into a directory DIR and pass --weights DIR"
        )
    texts = split.texts or ()
    tokens = learn_tokens(settings.tokens, [texts[row] for row in rows])
    start = None if task.word_vectors is None else start_from(task.word_vectors, tokens, settings.width)
    with pinned(1):
        progress("learning from pictures", 0, 0)
        pictures.fit(split.take(rows))
        features = _features(pictures, split, setup.threads, progress)
    identity = _identity(task, settings, pictures, features, start, tokens)
    state = None
    if resume and out is not None:
        if checkpoint_of(out).is_file():
            state = restore_state(checkpoint_of(out), identity)
        else:
            log.warning("--resume: there is no %s; starting from the beginning", checkpoint_of(out).name)

    def save(state: dict[str, Any]) -> None:
        if out is not None:
            save_state(checkpoint_of(out), identity, state)

    def pairs(chosen: np.ndarray) -> PairSet:
        return PairSet(features[chosen], [texts[row] for row in chosen], split.labels[chosen])

    trained = train_pairs(
        pairs(rows),
        pairs(held),
        tokens,
        settings,
        start=start,
        device=setup.device,
        resume=state,
        save=save,
        on_epoch=on_epoch,
        progress=progress,
    )
    found = PairFile(
        both=trained.both,
        shape=trained.shape,
        tokens=tokens,
        parts=pictures.parts,
        seed=setup.seed,
        facts=_facts(task, identity, trained, rows, held),
        images=sorted({split.images.digest(row) for row in range(len(split))}),
    )
    if out is not None:
        write_pairs(out, found)
        checkpoint_of(out).unlink(missing_ok=True)
    return PairsResult(found, trained.history, trained.best)


def _parts(task: PairTask) -> tuple[np.ndarray, np.ndarray]:
    """Rows to learn from, and rows of held-out products. BenchError where there is too little to learn from."""
    split, settings = task.split, task.settings
    if split.texts is None:
        raise BenchError(
            f"--mode pairs needs a text beside each picture and dataset {task.dataset} has none; take products, "
            "grocery, or a manifest with a column title, text or description"
        )
    told = [bool(read_words(text)) for text in split.texts]
    if not any(told):
        raise BenchError("--mode pairs: no picture of the train split has a text with a word in it; there is no pair")
    if without := told.count(False):
        log.warning("%d of %d train pictures have no text; texts of their label, if any, stand in", without, len(told))
    rows, held = hold_out_labels(split.labels, settings.holdout, settings.seed)
    of_pairs = np.unique(split.labels[rows][np.array(told)[rows]])
    if len(of_pairs) < 2:
        raise BenchError(
            "--mode pairs needs pictures with texts of at least two labels to learn from; the train split has "
            f"{len(of_pairs)}" + (f" beside the {len(np.unique(split.labels[held]))} held out" if len(held) else "")
        )
    scored = np.array(told)[held].any() if len(held) else False
    if settings.patience and not scored:
        raise BenchError(
            f"--patience {settings.patience}: there are too few labels with texts to hold out "
            f"{settings.holdout:g} of them; raise --holdout or leave --patience out"
        )
    return rows, held if scored else held[:0]


def _features(pictures: FrozenPictures, split: Split, threads: int, progress: Progress) -> np.ndarray:
    """(n, d) float32 of all pictures."""
    size = pictures.chunk or CHUNK
    chunks = [range(start, min(start + size, len(split))) for start in range(0, len(split), size)]
    done: list[np.ndarray] = []
    for some in mapped(lambda rows: pictures.transform([split.images[row] for row in rows]), chunks, threads):
        done.append(some)
        progress("features of training images", min(len(done) * size, len(split)), len(split))
    return np.concatenate(done)


def _identity(
    task: PairTask,
    settings: PairSettings,
    pictures: FrozenPictures,
    features: np.ndarray,
    start: np.ndarray | None,
    tokens: Tokens,
) -> dict[str, Any]:
    """What must be the same for a run to be the same."""
    import torch

    texts = "\0".join(task.split.texts or ()).encode(errors="surrogatepass")
    return {
        "method": "+".join(map(str, pictures.specs)),
        **settings.as_data(),
        "train images": task.split.content,
        "train texts": hashlib.sha256(texts).hexdigest(),
        "tokenizer": tokens.sha256,
        "features": hashlib.sha256(features.tobytes()).hexdigest(),
        "word vectors": None if start is None else hashlib.sha256(start.tobytes()).hexdigest(),
        "device": task.setup.device,
        "torch": torch.__version__,
    }


def _facts(
    task: PairTask, identity: dict[str, Any], trained: TrainedPairs, rows: np.ndarray, held: np.ndarray
) -> dict[str, Any]:
    """For the file: what was trained, on what, how, by which program."""

    def names(chosen: np.ndarray) -> list[str]:
        return [task.label_names[int(label)] for label in np.unique(task.split.labels[chosen])]

    return {
        "dataset": task.dataset,
        "fingerprint": task.fingerprint,
        "labels": names(rows),
        "held_out": names(held),
        "identity": identity,
        "epochs": len(trained.history),
        "best_epoch": trained.best,
        "history": [asdict(replace(line, seconds=0.0)) for line in trained.history],
        "version": retrieval_bench.__version__,
        "gpu_settings": gpu_settings(task.setup.device),
        "commit": task.commit,
    }
