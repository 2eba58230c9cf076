"""The gradient of a batch, on all cores: its micro-batches go through the network in parallel.

One library thread for each micro-batch is twice as fast as two threads that share every layer of a small network. The
sum is taken in a fixed order: the result depends on how many micro-batches there are, not on how many threads work on
them.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any


class MicroBatches:
    """network: a torch module. Its parameters are shared by all parts; its buffers (running means) are not.

    A network that draws random numbers while it learns (dropout, stochastic depth) draws them from torch's one
    generator, so its parts go one after the other.
    """

    def __init__(self, network: Any, parts: int, threads: int) -> None:
        self.network = network
        self.replicas = [network, *(_replica(network) for _ in range(parts - 1))]
        self._buffers = [list(replica.buffers()) for replica in self.replicas]
        workers = 1 if draws(network) else min(threads, parts)
        self.pool = ThreadPoolExecutor(workers, thread_name_prefix="train")

    def gradients(
        self, work: Callable[[Any, int], Any], parts: int, parameters: Sequence[Any]
    ) -> tuple[list[float], list[Any]]:
        """work(replica, part) -> loss of one part; the losses, and the sums of their gradients."""
        import torch

        def one(part: int) -> tuple[float, Sequence[Any]]:
            loss = work(self.replicas[part], part)
            return float(loss.detach()), torch.autograd.grad(loss, parameters, allow_unused=True)

        results = list(self.pool.map(one, range(parts)))
        sums = []
        for several in zip(*(gradients for _, gradients in results), strict=True):
            known = [gradient for gradient in several if gradient is not None]
            sums.append(sum(known[1:], known[0]) if known else None)
        return [loss for loss, _ in results], sums

    def average_buffers(self) -> None:
        """Bring the buffers of all parts together: their mean; what is counted is the same in all."""
        import torch

        with torch.no_grad():
            for several in zip(*self._buffers, strict=True):
                if several[0].is_floating_point():
                    mean = torch.stack(several).mean(0)
                    for buffer in several:
                        buffer.copy_(mean)

    def spread(self) -> None:
        """Give all parts the buffers of the first, after these were loaded."""
        for several in zip(*self._buffers, strict=True):
            for buffer in several[1:]:
                buffer.copy_(several[0])

    def close(self) -> None:
        self.pool.shutdown(wait=True, cancel_futures=True)


def draws(network: Any) -> bool:
    """Does it draw random numbers while it learns?"""
    for module in network.modules():
        if "Dropout" in type(module).__name__ or type(module).__name__ == "StochasticDepth":
            return True
        if isinstance(getattr(module, "dropout", None), float) and module.dropout > 0:
            return True
    return False


def _replica(network: Any) -> Any:
    """A copy with buffers of its own and the same parameters."""
    copied = copy.deepcopy(network)
    originals = dict(network.named_modules())
    for name, module in copied.named_modules():
        for key, _ in list(module.named_parameters(recurse=False, remove_duplicate=False)):
            setattr(module, key, originals[name].get_parameter(key))
    return copied
