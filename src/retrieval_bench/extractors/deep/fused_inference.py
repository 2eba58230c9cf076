"""The same network in less time: convolutions that do batch norm, addition and ReLU themselves, and bfloat16.

A tutorial's loop writes every intermediate map to memory several times over. Here oneDNN does convolution, addition and
ReLU (or ReLU6) in one go, with weights that lie in its own order already. What cannot be traced runs as it is. On a GPU
batch norm is folded too, bfloat16 comes by autocast, and float32 is compiled where that proves quicker.
"""

from __future__ import annotations

import operator
import statistics
import sys
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from retrieval_bench.core import BenchError
from retrieval_bench.system.device import on_gpu
from retrieval_bench.system.timing import stopwatch

Compute = Literal["float32", "fused", "bfloat16", "auto"]
"""float32: the network as it is. fused: float32, folded. bfloat16: folded, and half the bytes. auto: bfloat16 where the
processor has it and the neighbours stay the same, else fused."""

BATCHES = (8, 4, 2, 1)
"""Sizes that are tried, the first that gives the same bits as one image alone; more than 8 was not faster."""


_tracing = threading.Lock()
"""torch follows one network at a time: meanwhile it replaces how every module of the process is called."""

KNOWN_TORCH = ((2, 2), (2, 16))
"""From this version on, and before that one, torch's private operators of oneDNN are known to do what is wanted."""
OPERATORS = ("_reorder_convolution_weight", "_convolution_pointwise", "_convolution_pointwise_")
COMPILED_BATCH = 64
COMPILED_ROUNDS = 5
WORTH_COMPILING = 0.95
"""A compiled network is kept where it takes at most this share of the time of the other."""


def has_bfloat16(device: str = "cpu") -> bool:
    """The processor, or the GPU, multiplies bfloat16 itself, so that it is faster and not only smaller."""
    import torch

    if on_gpu(device):
        return torch.cuda.get_device_capability(device)[0] >= 8  # Ampere was the first
    if not torch.backends.mkldnn.is_available():
        return False
    # The check of oneDNN is true also where bfloat16 is only imitated, on AVX-512 without bf16.
    return any(
        bool(getattr(torch.cpu, name, lambda: False)())
        for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported", "_is_arm_sve_supported")
    )


@dataclass(eq=False)
class Fast:
    """network: takes (n, 3, h, w) in float32, returns what the one it was made of returns. note: for the record.

    autocast: the kind of device on which torch chooses what to compute in bfloat16; "" where the network is all of
    `dtype` itself.
    """

    network: Any
    dtype: Any
    note: str
    autocast: str = ""

    def __call__(self, batch: Any) -> Any:
        if self.autocast:
            import torch

            with torch.autocast(self.autocast, dtype=self.dtype):
                return self.network(batch)
        return self.network(batch.to(self.dtype))


def faster(name: str, network: Any, device: str, compute: Compute, names: Sequence[str] = (), side: int = 224) -> Fast:
    """A copy of a network in eval mode, made fast. names: modules whose outputs it returns, as a dict, not its own.

    side: pixels of the images, for which the weights are laid out; others are taken too, but more slowly.

    Raises BenchError for bfloat16 where the processor, or the GPU, has none.
    """
    import copy

    import torch

    narrow = compute == "bfloat16"
    if narrow and not has_bfloat16(device):
        raise BenchError(f"{name}: compute=bfloat16 is for processors that have it, and this one has not; use fused")
    dtype = torch.bfloat16 if narrow else torch.float32
    autocast = torch.device(device).type if narrow and on_gpu(device) else ""
    kept = torch.float32 if autocast else dtype  # what weights are stored in
    called = f"{_called(dtype)} by autocast" if autocast else _called(dtype)
    network = copy.deepcopy(network)
    _split_activations(network)
    try:
        if names:
            from torchvision.models.feature_extraction import create_feature_extractor

            whole = {"leaf_modules": [type(module) for module in network.modules() if _pads_to_same(module)]}
            network = create_feature_extractor(network, {name: name for name in names}, tracer_kwargs=whole)
        graph = _traced(network)
        folded = _folded(graph)
    except Exception as error:  # tracing fails in as many ways as networks are written
        if names:
            raise BenchError(
                f"{name}: compute={compute} cannot follow this network to a layer "
                f"({type(error).__name__}: {str(error).partition(chr(10))[0]}); leave layer and pool or compute out"
            ) from None
        return Fast(network.to(kept), dtype, f"{called}, not folded: the network cannot be traced", autocast)
    folded = folded.to(kept).to(memory_format=torch.channels_last)
    if on_gpu(device) and not narrow:
        examples = [torch.rand(n, 3, side, side, device=device) for n in (COMPILED_BATCH, 1)]
        run, said = quicker(folded, lambda: torch.compile(folded, dynamic=True), examples, device)
        return Fast(run, dtype, f"{called}, batch norm folded, {said}")
    if on_gpu(device) or not torch.backends.mkldnn.is_available():
        return Fast(folded, dtype, f"{called}, batch norm folded", autocast)
    example = torch.zeros(BATCHES[0], 3, side, side, dtype=dtype).to(memory_format=torch.channels_last)
    return Fast(
        _joined(folded, example), dtype, f"{_called(dtype)}, convolutions with batch norm, addition and ReLU in one"
    )


def quicker(
    plain: Callable[[Any], Any], compiling: Callable[[], Callable[[Any], Any]], examples: Sequence[Any], device: str
) -> tuple[Callable[[Any], Any], str]:
    """(the network as it is or compiled, words on which): the first example, a batch, is timed in interleaved rounds.

    All examples are run beforehand, so that nothing is compiled for their shapes later.
    """
    import torch

    with torch.inference_mode():
        try:
            compiled = compiling()
            for example in examples:
                compiled(example)
        except Exception as error:  # a compiler fails in as many ways as networks are written
            return plain, f"not compiled: {type(error).__name__}"
        ways, seconds = (plain, compiled), ([], [])  # type: tuple[Any, ...], tuple[list[float], list[float]]
        for number in range(COMPILED_ROUNDS + 1):
            for way, spent in zip(ways, seconds, strict=True):
                with stopwatch(device) as watch:
                    way(examples[0])
                if number:  # the first round warms up
                    spent.append(watch.seconds)
    before, after = (statistics.median(spent) for spent in seconds)
    return (compiled, "compiled") if after <= WORTH_COMPILING * before else (plain, "not compiled: no quicker")


def _called(dtype: Any) -> str:
    return str(dtype).removeprefix("torch.")


def _split_activations(network: Any) -> None:
    """timm's batch norm that ends in an activation becomes a batch norm and an activation, in place."""
    from torch import nn

    layers = sys.modules.get("timm.layers")  # not loaded: then no layer is of timm
    if layers is None:
        return
    joint = [(name, one) for name, one in network.named_modules() if type(one) is layers.BatchNormAct2d]
    for name, module in joint:
        if type(module.drop) is not nn.Identity:
            continue
        norm = nn.BatchNorm2d(module.num_features, module.eps).to(module.weight.device).eval()
        norm.load_state_dict({key: value for key, value in module.state_dict().items() if "." not in key})
        norm.requires_grad_(False)
        parent, _, leaf = name.rpartition(".")
        setattr(network.get_submodule(parent), leaf, nn.Sequential(norm, module.act))


def _pads_to_same(module: Any) -> bool:
    """timm's convolution with TensorFlow's padding: what the size of the map asks for, the odd pixel at the end."""
    layers = sys.modules.get("timm.layers")
    return layers is not None and type(module) is layers.Conv2dSame


def _is_convolution(module: Any) -> bool:
    from torch import nn

    return type(module) is nn.Conv2d or _pads_to_same(module)


def _traced(network: Any) -> Any:
    import torch

    class Tracer(torch.fx.Tracer):  # type: ignore[misc] # here, as torch is loaded late
        def is_leaf_module(self, module: Any, name: str) -> bool:
            return _pads_to_same(module) or super().is_leaf_module(module, name)

    with _tracing:
        return torch.fx.GraphModule(network, Tracer().trace(network))


def _folded(graph: Any) -> Any:
    """Each batch norm that follows a convolution alone becomes part of its weights."""
    from torch import nn
    from torch.nn.utils.fusion import fuse_conv_bn_eval

    modules = dict(graph.named_modules())
    for node in list(graph.graph.nodes):
        if node.op != "call_module" or type(modules[node.target]) is not nn.BatchNorm2d:
            continue
        (source,) = node.all_input_nodes
        if source.op != "call_module" or not _is_convolution(modules[source.target]) or len(source.users) > 1:
            continue
        fused = fuse_conv_bn_eval(modules[source.target], modules[node.target])
        parent, _, leaf = source.target.rpartition(".")
        setattr(graph.get_submodule(parent), leaf, fused)
        modules[source.target] = fused
        node.replace_all_uses_with(source)
        graph.graph.erase_node(node)
    graph.delete_all_unused_submodules()
    graph.recompile()
    return graph


def _joined(graph: Any, example: Any) -> Any:
    """Convolutions of oneDNN's own, which add and cut off at zero while they write. example: a batch of images."""
    import torch
    from torch import nn
    from torch.fx.passes.shape_prop import ShapeProp

    with torch.inference_mode():
        ShapeProp(graph).propagate(example)

    modules = dict(graph.named_modules())
    order = {node: place for place, node in enumerate(graph.graph.nodes)}
    ours: list[Any] = []

    def activation(node: Any) -> str:
        if node is None:
            return ""
        if node.op == "call_module":
            return {nn.ReLU: "relu", nn.ReLU6: "relu6"}.get(type(modules[node.target]), "")
        return "relu" if node.target in (torch.relu, torch.nn.functional.relu) else ""

    def only_user(node: Any) -> Any:
        return next(iter(node.users)) if len(node.users) == 1 else None

    for node in list(order):
        if node.op != "call_module" or not _is_convolution(modules[node.target]):
            continue
        if isinstance(modules[node.target].padding, str) or modules[node.target].padding_mode != "zeros":
            continue
        last, other, inner = node, None, []
        user = only_user(node)
        if user is not None and user.target in (operator.add, operator.iadd, torch.add) and len(user.args) == 2:
            (summand,) = [one for one in user.args if one is not node] or [None]
            # The other summand must be there already when this convolution runs.
            if isinstance(summand, torch.fx.Node) and order.get(summand, len(order)) < order[node]:
                last, other, inner = user, summand, [node]
                user = only_user(last)
        cut = activation(user)
        if other is not None and cut == "relu6":  # oneDNN adds and cuts at zero alone
            cut = ""
        if cut:
            inner, last = [last, *inner], user
        convolution = _Convolution(modules[node.target], cut, list(node.args[0].meta["tensor_meta"].shape))
        name = f"{node.target.replace('.', '_')}_joined"
        graph.add_submodule(name, convolution)
        with graph.graph.inserting_before(last):
            new = graph.graph.call_module(name, (*node.args, *(() if other is None else (other,))))
        order[new] = order[last]
        ours.append(new)
        new.meta = dict(last.meta)
        last.replace_all_uses_with(new)
        for unused in (last, *inner):
            graph.graph.erase_node(unused)
    place = {node: number for number, node in enumerate(graph.graph.nodes)}
    for node in ours:
        _, *others = node.args
        # A map may be written over where a convolution made it, so that nothing shares its memory, and where
        # convolutions alone have looked at it, all of them earlier.
        if (
            others
            and {*others, *others[0].users} <= {*ours}
            and all(place[one] <= place[node] for one in others[0].users)
        ):
            graph.get_submodule(node.target).overwrite = others[0] is not node.args[0]
    graph.delete_all_unused_submodules()
    graph.graph.lint()
    graph.recompile()
    return graph


@dataclass(frozen=True)
class OneDnn:
    """oneDNN's convolution with what follows it, as torch has it for its own compiler: private, so it may go or change.

    reorder: weights in the order that maps of a shape want. fused, fused_into: a convolution, an addition and a ReLU in
    one pass; the second writes into the map that is added.
    """

    reorder: Any
    fused: Any
    fused_into: Any


def one_dnn() -> OneDnn | None:
    """The private operators of torch, None where this torch has none of that form; then layers run one by one."""
    import torch

    if not KNOWN_TORCH[0] <= _version(torch.__version__) < KNOWN_TORCH[1]:
        return None
    found = [getattr(torch.ops.mkldnn, name, None) for name in OPERATORS]
    return None if None in found else OneDnn(*found)


def _version(text: str) -> tuple[int, int]:
    major, minor = text.split(".")[:2]
    return int(major), int(minor)


def _plain_convolution(features: Any, other: Any, convolution: Any, cut: str) -> Any:
    """The same by torch's public operators: a convolution, then the addition, then the activation."""
    import torch

    out = convolution(features)
    out = out if other is None else out + other
    return torch.relu(out) if cut == "relu" else torch.nn.functional.relu6(out) if cut == "relu6" else out


def same_padding(side: int, kernel: int, stride: int, dilation: int) -> tuple[int, int]:
    """(before, after) pixels that TensorFlow's "same" pads on an axis, so that ceil(side / stride) remain."""
    total = max((-(-side // stride) - 1) * stride + (kernel - 1) * dilation + 1 - side, 0)
    return total // 2, total - total // 2


ONE_DNN_ACTIVATIONS: dict[str, tuple[str, list[float]]] = {
    "": ("none", []),
    "relu": ("relu", []),
    "relu6": ("hardtanh", [0.0, 6.0]),
}


def _Convolution(convolution: Any, cut: str, shape: list[int]) -> Any:
    from torch import nn

    private = one_dnn()

    def padding_of(sizes: Sequence[int]) -> list[tuple[int, int]]:
        """(before, after) on each axis of a map, of a convolution that pads to "same"."""
        numbers = zip(sizes, convolution.kernel_size, convolution.stride, convolution.dilation, strict=True)
        return [same_padding(*axis) for axis in numbers]

    class Convolution(nn.Module):  # type: ignore[misc] # here, as torch is loaded late
        """convolution: weights and geometry. cut: the activation at the end, "relu", "relu6" or "". Called with two
        maps, it adds the second, and with `overwrite` writes into that."""

        def __init__(self) -> None:
            super().__init__()
            self.overwrite = False
            self.plain = convolution if private is None or _pads_to_same(convolution) else None
            self.made_for: list[tuple[int, int]] | None = None
            if private is None:
                return
            weight, padding = convolution.weight.detach(), list(convolution.padding)
            if _pads_to_same(convolution):
                self.made_for = padding_of(shape[2:])
                # oneDNN pads both ends alike. One more row or column of zeros before the kernel puts it where it was:
                # less work than a copy of the map with the padding around it.
                padding = [after for _, after in self.made_for]
                missing = [after - before for before, after in self.made_for]
                weight = nn.functional.pad(weight, (missing[1], 0, missing[0], 0))
            stride, dilation = list(convolution.stride), list(convolution.dilation)
            self.geometry = (padding, stride, dilation, convolution.groups)
            # In the order that oneDNN wants for maps of this shape: else it puts them in order at every call, which
            # took five times as long as the rest at batch 1.
            self.weight = private.reorder(weight, *self.geometry, shape)
            self.bias = None if convolution.bias is None else convolution.bias.detach()

        def forward(self, features: Any, other: Any = None) -> Any:
            moved = self.made_for is not None and padding_of(features.shape[2:]) != self.made_for
            if private is None or moved:
                return _plain_convolution(features, other, self.plain, cut)
            name, numbers = ONE_DNN_ACTIVATIONS[cut]
            if other is None:
                return private.fused(features, self.weight, self.bias, *self.geometry, name, numbers, "")
            write = private.fused_into if self.overwrite else private.fused
            maps = (other, features) if self.overwrite else (features, other)
            return write(*maps, self.weight, self.bias, *self.geometry, "add", 1.0, "relu" if cut else None, [], "")

    return Convolution()


def steady_batch(run: Any, side: int) -> int:
    """The largest of BATCHES in which an image gets the same bits as alone, on random images of `side`."""
    import torch

    generator = torch.Generator().manual_seed(0)
    images = torch.rand((BATCHES[0], 3, side, side), generator=generator) * 4 - 2
    images = images.to(memory_format=torch.channels_last)
    with torch.inference_mode():
        alone = torch.cat([run(images[row : row + 1]) for row in range(len(images))])
        for size in BATCHES:
            # All of a batch, and those that remain at the end of a list.
            some = [size, *range(2, size)]
            if all(torch.equal(run(images[:count]), alone[:count]) for count in some):
                return size
    return 1
