"""Epoch after epoch: what linear layers, whole networks and `convnet` are trained by."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from retrieval_bench.core import BenchError
from retrieval_bench.system.progress import Progress, silent
from retrieval_bench.system.timing import pinned
from retrieval_bench.training_loop.epochs import Epoch, EpochRun, seed_of
from retrieval_bench.training_loop.micro_batches import MicroBatches, draws
from retrieval_bench.training_loop.schedule import optimizer
from retrieval_bench.training_loop.settings import TrainingSettings
from retrieval_bench.training_loop.sources import Source

PLAIN_BATCH = 16
NEIGHBOURS = 1000
"""Training images that validation images find their nearest in, where the loss knows no classes."""


@dataclass(eq=False)
class Trained:
    """network, objective: torch modules in eval mode, of the epoch `best` (counted from 1)."""

    network: Any
    objective: Any
    history: list[Epoch]
    best: int


def train(
    network: Any,
    objective: Any,
    source: Source,
    labels: np.ndarray,
    settings: TrainingSettings,
    *,
    rows: np.ndarray,
    held: np.ndarray,
    image_size: int = 0,
    threads: int = 1,
    device: str = "cpu",
    resume: dict[str, Any] | None = None,
    save: Callable[[dict[str, Any]], None] = lambda state: None,
    on_epoch: Callable[[Epoch], None] = lambda epoch: None,
    progress: Progress = silent,
) -> Trained:
    """Train both modules in place on `rows` of the source, and choose by `held`.

    labels: (n,) int64 of all rows of the source. image_size: pixels of a training image where the settings
    name none.
    resume: what `save` was given after an epoch. Raises BenchError for a loss that is not finite.
    """
    import torch

    random_layers = draws(network)
    # Sequential parts use the threads inside each layer; parallel parts have one each.
    with pinned(threads if random_layers or device != "cpu" else 1), torch.random.fork_rng(devices=[]):
        run = _Run(network, objective, source, labels, settings, rows, held, image_size, threads, device)
        try:
            if resume is not None:
                run.restore(resume)
            run.go(save, on_epoch, progress)
            return run.result()
        finally:
            run.close()


def order(labels: np.ndarray, rows: np.ndarray, settings: TrainingSettings, epoch: int) -> np.ndarray:
    """The rows in the order of an epoch; for triplets two of a label follow each other, wherever a label has two."""
    rng = np.random.default_rng([settings.seed, epoch])
    shuffled = rng.permutation(rows)
    if settings.loss != "triplet":
        return shuffled
    pairs: list[list[int]] = []
    for label in np.unique(labels[rows]):
        own = shuffled[labels[shuffled] == label].tolist()
        pairs += [own[start : start + 2] for start in range(0, len(own), 2)]
    return np.array([row for pair in rng.permutation(len(pairs)) for row in pairs[pair]], np.int64)


class _Run(EpochRun):
    def __init__(
        self,
        network: Any,
        objective: Any,
        source: Source,
        labels: np.ndarray,
        settings: TrainingSettings,
        rows: np.ndarray,
        held: np.ndarray,
        image_size: int,
        threads: int,
        device: str,
    ) -> None:
        from torch import nn
        from torch.optim.swa_utils import AveragedModel

        super().__init__(settings, rows)
        self.source, self.labels, self.held = source, labels, held
        self.image_size, self.device = image_size, device
        self.both = nn.ModuleDict({"network": network, "objective": objective}).to(device)
        self.frozen = _freeze(network, settings.freeze if settings.mode == "finetune" else 0.0)
        self.ema = AveragedModel(self.both, multi_avg_fn=self._towards)
        self.ema.n_averaged += 1  # else its first step would copy; here the first weights count, too
        self.ema_decay = 0.0
        self.averaged = self.ema.module.eval().requires_grad_(False)
        self.parameters = [p for p in self.both.parameters() if p.requires_grad]
        self.optimizer = optimizer(settings, self.parameters)
        self.parts = settings.micro_batches if device == "cpu" else 1
        self.micro_batches = MicroBatches(network, self.parts, threads)
        self.autocast, self.dtype = precision(settings, device)
        self.scaler = _scaler(self.dtype if self.autocast else None, device)

    def begin(self, epoch: int) -> np.ndarray:
        for replica in self.micro_batches.replicas:
            replica.train()
            for name in self.frozen:
                replica.get_submodule(name).eval()
        return order(self.labels, self.rows, self.settings, epoch)

    def judged(self, progress: Progress) -> tuple[float | None, dict[str, Any]]:
        self.micro_batches.average_buffers()
        for mean, buffer in zip(self.averaged.buffers(), self.both.buffers(), strict=True):
            mean.copy_(buffer)
        self._refuse_overflow(self.averaged.state_dict().values(), "holds")
        return self._accuracy(progress) if len(self.held) else None, self.averaged.state_dict()

    @property
    def advice(self) -> str:
        return f"{super().advice} or choose --precision float32"

    def _refuse_overflow(self, tensors: Iterable[Any], what: str) -> None:
        """The last step of an epoch can spoil what no loss is computed with any more; what: holds, gives."""
        if not all(bool(each.isfinite().all()) for each in tensors if each.is_floating_point()):
            raise BenchError(
                f"training: the network {what} numbers that are not finite after epoch {self.done + 1}; {self.advice}"
            )

    def step(self, batch: np.ndarray, epoch: int, step: int) -> float:
        import torch

        image_size = self.settings.image_size_at(epoch, self.image_size)
        pieces = np.array_split(batch, max(1, min(self.parts, len(batch) // 2)))
        losses_of = self.both["objective"]

        def work(replica: Any, part: int) -> Any:
            rows = pieces[part]
            generator = torch.Generator().manual_seed(seed_of(self.settings.seed, epoch, step, part))
            inputs = self.source.drawn(rows.tolist(), image_size, generator)
            expected = torch.from_numpy(self.labels[rows])
            if self.device != "cpu":
                inputs = inputs.pin_memory().to(self.device, non_blocking=True)
                expected = expected.to(self.device)
            with torch.autocast(torch.device(self.device).type, dtype=self.dtype, enabled=self.autocast):
                features = replica(inputs)
            loss = losses_of.loss(features.float(), expected) * (len(rows) / len(batch))
            return loss if self.scaler is None else self.scaler.scale(loss)

        losses, gradients = self.micro_batches.gradients(work, len(pieces), self.parameters)
        for parameter, gradient in zip(self.parameters, gradients, strict=True):
            parameter.grad = gradient
        loss = math.fsum(losses)
        if self.scaler is not None:
            loss /= self.scaler.get_scale()
            self.scaler.step(self.optimizer)
            self.scaler.update()
        elif math.isfinite(loss):
            self.optimizer.step()
        if math.isfinite(loss):
            self._update_average(epoch * self.steps_an_epoch + step)
        return loss

    def _update_average(self, number: int) -> None:
        """Exponential moving average, which starts short so that the first weights are forgotten."""
        decay = self.settings.ema_decay
        self.ema_decay = min(decay, (1 + number) / (10 + number)) if decay else 0.0
        self.ema.update_parameters(self.both)

    def _towards(self, averaged: Sequence[Any], current: Sequence[Any], seen: Any) -> None:
        """Move averaged parameters towards the current ones, for AveragedModel."""
        for mean, parameter in zip(averaged, current, strict=True):
            mean.lerp_(parameter, 1 - self.ema_decay)

    def _accuracy(self, progress: Progress) -> float:
        """Of the averaged weights, on the validation part: by class, or by the nearest training image."""
        import torch

        objective = self.averaged["objective"]
        with torch.inference_mode():
            features = self._features(self.held)
            self._refuse_overflow([features], "gives")
            if objective.scores is not None:
                found = objective.scores(features).argmax(1).cpu().numpy()
            else:
                step = -(-len(self.rows) // NEIGHBOURS)
                known = torch.nn.functional.normalize(self._features(self.rows[::step]), dim=1)
                nearest = (torch.nn.functional.normalize(features, dim=1) @ known.T).argmax(1).cpu().numpy()
                found = self.labels[self.rows[::step]][nearest]
        return float((found == self.labels[self.held]).mean())

    def _features(self, rows: np.ndarray) -> Any:
        """The averaged network's, of plain inputs; a few at once, side by side."""
        import torch

        network = self.averaged["network"]

        def some(start: int) -> Any:
            with (
                torch.inference_mode(),
                torch.autocast(torch.device(self.device).type, dtype=self.dtype, enabled=self.autocast),
            ):
                inputs = self.source.plain(rows[start : start + PLAIN_BATCH].tolist())
                return network(inputs.to(self.device)).float()

        return torch.cat(list(self.micro_batches.pool.map(some, range(0, len(rows), PLAIN_BATCH))))

    def state(self) -> dict[str, Any]:
        return {
            **self.kept(),
            "weights": self.both.state_dict(),
            "averaged": self.averaged.state_dict(),
            "scaler": {} if self.scaler is None else self.scaler.state_dict(),
        }

    def restore(self, state: dict[str, Any]) -> None:
        self.both.load_state_dict(state["weights"])
        self.micro_batches.spread()
        self.averaged.load_state_dict(state["averaged"])
        if self.scaler is not None and state["scaler"]:
            self.scaler.load_state_dict(state["scaler"])
        self.take_back(state)

    def result(self) -> Trained:
        self.averaged.load_state_dict(self.best[2])
        return Trained(
            self.averaged["network"].cpu(), self.averaged["objective"].cpu(), list(self.history), self.best[0]
        )

    def close(self) -> None:
        self.micro_batches.close()


def precision(settings: TrainingSettings, device: str) -> tuple[bool, Any]:
    """(use autocast, its dtype). "auto": bfloat16 where the processor or the card computes in it, else float32, or
    float16 on a card that has no bfloat16.
    """
    import torch

    wanted = settings.precision
    if wanted == "auto":
        if device != "cpu":
            wanted = "bfloat16" if torch.cuda.is_bf16_supported() else "float16"
        else:
            supported = getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)
            wanted = "bfloat16" if supported() and settings.mode != "head" else "float32"
    if wanted == "float16" and device == "cpu":
        raise BenchError("--precision float16 needs a CUDA device; on the CPU choose bfloat16, float32 or auto")
    return wanted != "float32", torch.float16 if wanted == "float16" else torch.bfloat16


def _scaler(dtype: Any, device: str) -> Any:
    """float16 has too few exponents for gradients: they are scaled (Micikevicius et al., ICLR 2018)."""
    import torch

    return torch.amp.GradScaler(torch.device(device).type) if dtype == torch.float16 else None


def _freeze(network: Any, share: float) -> list[str]:
    """Let all of a network learn but the first `share` of its weight layers; the names of the modules that stay."""
    from torch import nn

    network.requires_grad_(True)
    leaves = [(name, module) for name, module in network.named_modules() if not list(module.children())]
    many = round(share * sum(isinstance(module, nn.Linear | nn.Conv2d) for _, module in leaves))
    names = []
    for name, module in leaves:
        if isinstance(module, nn.Linear | nn.Conv2d):
            if not many:
                break
            many -= 1
        if share:
            names.append(name)
            module.requires_grad_(False)
    return names if share else []
