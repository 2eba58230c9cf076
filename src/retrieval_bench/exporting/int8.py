"""An ONNX model in whole numbers: weights of 8 bits by channel, activations of 8 bits by what images were seen to give.

Static post-training quantisation in QDQ form (Jacob et al., CVPR 2018), by onnxruntime. What is not the network, its
pooling and what was learned after it, stays in float32: it costs nothing and decides the neighbours.
"""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from retrieval_bench.core import BenchError
from retrieval_bench.exporting.files import PIXELS

CALIBRATION_IMAGES = 128
HOW = "static, per channel, int8 weights, uint8 activations between the least and the largest seen"
"""Of percentiles, moving averages and 7-bit weights none kept more of the neighbours of SqueezeNet on the train list of
the Grocery Store photos."""


def quantised(name: str, model: Any, outside: list[str], pixels: Iterable[np.ndarray]) -> Any:
    """The same ModelProto in int8. outside: nodes that are left as they are. pixels: each (1, 3, h, w) float32."""
    import onnx
    from onnxruntime.quantization import (
        CalibrationDataReader,
        CalibrationMethod,
        QuantFormat,
        QuantType,
        quantize_static,
    )
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Reader(CalibrationDataReader):  # type: ignore[misc] # here, as onnxruntime is loaded late
        def __init__(self) -> None:
            self.left: Iterator[np.ndarray] = iter(pixels)

        def get_next(self) -> dict[str, np.ndarray] | None:
            found = next(self.left, None)
            return None if found is None else {PIXELS: found}

    with tempfile.TemporaryDirectory(prefix="retrieval_bench_") as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the library's own
        plain, ready, narrow = (Path(folder) / f"{step}.onnx" for step in ("plain", "ready", "narrow"))
        onnx.save(model, str(plain))
        try:
            quant_pre_process(str(plain), str(ready), skip_symbolic_shape=True)
            kept = {node.name for node in onnx.load(str(ready)).graph.node}
            quantize_static(
                str(ready),
                str(narrow),
                Reader(),
                quant_format=QuantFormat.QDQ,
                per_channel=True,
                activation_type=QuantType.QUInt8,
                weight_type=QuantType.QInt8,
                calibrate_method=CalibrationMethod.MinMax,
                nodes_to_exclude=[node for node in outside if node in kept],
            )
        except BenchError:
            raise
        except Exception as error:  # the library's exceptions share no base class
            reason = str(error).strip().partition("\n")[0][:200]
            raise BenchError(
                f"{name}: onnxruntime cannot quantise this network ({type(error).__name__}: {reason}); "
                "export it without --int8"
            ) from None
        return onnx.load(str(narrow))
