"""An ONNX graph written down in Python, and a session of onnxruntime that keeps to one thread.

Why not torch or numpy: their last bits depend on how many threads share a product, and these networks are so small that
two threads wait for each other. Here a row has the same bits whatever the process does beside it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

OPSET = 17
"""The first with LayerNormalization."""
IR_VERSION = 8
"""Which goes with that opset; every onnxruntime since 1.12 reads it."""

Node = str | np.ndarray
"""The name of a value in the graph, or a constant."""


class OnnxGraph:
    """A graph that grows by one operation at a time; each method returns the name of its result."""

    def __init__(self) -> None:
        self._inputs: list[Any] = []
        self._nodes: list[Any] = []
        self._constants: list[Any] = []

    def input(self, name: str, *shape: int | str) -> str:
        """An input of float32; a word in the shape stands for any length."""
        from onnx import TensorProto, helper

        self._inputs.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, shape))
        return name

    def op(self, kind: str, *values: Node, **attributes: Any) -> str:
        """Any operation of ONNX with one result."""
        from onnx import helper

        names = [value if isinstance(value, str) else self._constant(value) for value in values]
        result = f"v{len(self._nodes)}"
        self._nodes.append(helper.make_node(kind, names, [result], **attributes))
        return result

    def linear(self, x: Node, weight: np.ndarray, bias: np.ndarray) -> str:
        """x @ weight + bias; weight: (from, to)."""
        return self.op("Add", self.op("MatMul", x, weight), bias)

    def layer_norm(self, x: Node, gain: np.ndarray, bias: np.ndarray, epsilon: float) -> str:
        """Each row to mean 0 and variance 1, times gain, plus bias."""
        return self.op("LayerNormalization", x, gain, bias, epsilon=epsilon, axis=-1)

    def part(self, x: Node, start: int, end: int, axis: int) -> str:
        """x[start:end] along an axis; end may be negative, or END."""
        return self.op("Slice", x, *(np.array([value], np.int64) for value in (start, end, axis)))

    def _constant(self, array: np.ndarray) -> str:
        from onnx import numpy_helper

        name = f"c{len(self._constants)}"
        self._constants.append(numpy_helper.from_array(np.ascontiguousarray(array), name))
        return name

    def session(self, output: str) -> Any:
        """A session whose one output is this value, (1, d) float32."""
        from onnx import TensorProto, helper

        results = [helper.make_tensor_value_info(output, TensorProto.FLOAT, (1, "d"))]
        graph = helper.make_graph(self._nodes, "encoder", self._inputs, results, self._constants)
        opset = helper.make_opsetid("", OPSET)
        model = helper.make_model(graph, opset_imports=[opset], ir_version=IR_VERSION)
        return session_of(model.SerializeToString())


END = np.iinfo(np.int64).max
"""As the end of a part: up to the last."""


def session_of(model: bytes | str) -> Any:
    """A session of onnxruntime on one thread of the processor.

    Args:
        model: the bytes of a model, or the path of its file.

    Returns:
        The session; several threads may run it at once.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1  # texts are the unit of parallel work
    options.log_severity_level = 4
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def windows(graph: OnnxGraph, x: Node, before: int, after: int) -> str:
    """(n, d) -> (n, (before + 1 + after) * d): each row between its neighbours, zeros beyond the ends."""
    padded = graph.op("Pad", x, np.array([before, 0, after, 0], np.int64))
    width = before + after
    shifted: Sequence[str] = [
        graph.part(padded, first, first - width if first < width else END, 0) for first in range(width + 1)
    ]
    return graph.op("Concat", *shifted, axis=1)
