"""What each instruction for tiles does, in plain loops: the scan in tiles runs with these on any processor."""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import carray, cfunc, types

from retrieval_bench.search.emit import I8, I64, number

TILES = np.zeros((8, 16, 64), np.uint8)
"""The registers: eight tiles of 16 lines of 64 bytes."""
OPERATIONS = ("tilezero", "tileloadd64", "tilestored64", "tdpbsud")
_POINTER = types.CPointer(types.uint8)


@cfunc(types.void(_POINTER, types.int64, types.int64, types.int64, types.int64, _POINTER))
def _operate(registers: Any, operation: int, tile: int, second: int, third: int, memory: Any) -> None:
    """second, third: the other tiles; of a copy, bytes from line to line, and nothing."""
    tiles = carray(registers, (8, 16, 64))
    if operation == 0:
        tiles[tile] = 0
    elif operation == 3:
        for query in range(16):
            for row in range(16):
                total = np.int32(0)
                for byte in range(4):
                    total |= np.int32(tiles[tile, query, 4 * row + byte]) << np.int32(8 * byte)
                for group in range(16):
                    for one in range(4):
                        signed = np.int32(np.int8(tiles[second, query, 4 * group + one]))
                        total += np.int32(signed * np.int32(tiles[third, group, 4 * row + one]))
                for byte in range(4):
                    tiles[tile, query, 4 * row + byte] = np.uint8((total >> np.int32(8 * byte)) & np.int32(255))
    else:
        lines = carray(memory, (15 * second + 64,))
        for line in range(16):
            for byte in range(64):
                if operation == 1:
                    tiles[tile, line, byte] = lines[line * second + byte]
                else:
                    lines[line * second + byte] = tiles[tile, line, byte]


def do(builder: Any, name: str, *arguments: Any) -> None:
    """In the place of `tile_loops._do`: call `_operate`; shapes are always the largest, so to set them is nothing."""
    if name not in OPERATIONS:
        return
    pointer = I8.as_pointer()
    kind = ir.FunctionType(ir.VoidType(), [pointer, I64, I64, I64, I64, pointer])
    function = builder.inttoptr(number(_operate.address), kind.as_pointer())
    nowhere, memory, numbers = ir.Constant(pointer, None), None, []
    for one in arguments:
        if isinstance(one.type, ir.PointerType):
            memory = one
        else:
            numbers.append(one if one.type == I64 else builder.zext(one, I64))
    numbers += [number(0)] * (3 - len(numbers))
    registers = builder.inttoptr(number(TILES.ctypes.data), pointer)
    builder.call(function, [registers, number(OPERATIONS.index(name)), *numbers, memory or nowhere])
