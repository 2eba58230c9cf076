"""The processor's treatment of tiny numbers: as IEEE 754 wants it while a search runs, whatever the caller has set.

Some libraries offer to take numbers below 2^-126 for 0, for speed (`torch.set_flush_denormal`). The setting belongs
to a thread, and new threads inherit it; a search under it would depend on how many threads it runs on, and on who
made them.
"""

from __future__ import annotations

import functools
import platform
from collections.abc import Callable
from typing import Any, TypeVar, cast

_X86, _ARM = platform.machine() in ("x86_64", "AMD64"), platform.machine() in ("aarch64", "arm64")
_FLUSHES = 0x8040 if _X86 else 1 << 24  # "flush to zero" and "denormals are zero"; on Arm, "flush to zero"

F = TypeVar("F", bound=Callable[..., Any])


def tiny_numbers_kept(function: F) -> F:
    """Run the function with tiny numbers kept in this thread; put the mode back after it."""

    @functools.wraps(function)
    def kept(*arguments: Any, **options: Any) -> Any:
        keep, put_back = _switches()
        mode = keep(_FLUSHES)
        try:
            return function(*arguments, **options)
        finally:
            if mode & _FLUSHES:
                put_back(mode)

    return cast(F, kept)


def keep_tiny_numbers() -> int:
    """Switch flushing off in this thread -> what the mode was."""
    return int(_switches()[0](_FLUSHES))


@functools.cache
def _switches() -> tuple[Any, Any]:
    """Compiled: switch flags off -> what the mode was; set the mode."""
    from llvmlite import ir
    from numba import types
    from numba.extending import intrinsic

    from retrieval_bench.search import jit
    from retrieval_bench.search.emit import I8, I32, I64, call

    @intrinsic
    def read(context: Any) -> Any:
        def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            if _X86:
                place = builder.alloca(I32)
                call(builder, "llvm.x86.sse.stmxcsr", ir.VoidType(), [builder.bitcast(place, I8.as_pointer())])
                return builder.zext(builder.load(place), I64)
            return call(builder, "llvm.aarch64.get.fpcr", I64, []) if _ARM else ir.Constant(I64, 0)

        return types.int64(), code

    @intrinsic
    def write(context: Any, mode: Any) -> Any:
        def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            if _X86:
                place = builder.alloca(I32)
                builder.store(builder.trunc(arguments[0], I32), place)
                call(builder, "llvm.x86.sse.ldmxcsr", ir.VoidType(), [builder.bitcast(place, I8.as_pointer())])
            elif _ARM:
                call(builder, "llvm.aarch64.set.fpcr", ir.VoidType(), [arguments[0]])
            return context.get_dummy_value()

        return types.none(types.int64), code

    def keep_tiny(flushes):  # type: ignore[no-untyped-def]
        mode = read()
        if mode & flushes:
            write(mode & ~flushes)
        return mode

    def put_back(mode):  # type: ignore[no-untyped-def]
        write(mode)

    return jit.compiled(keep_tiny, types.int64(types.int64)), jit.compiled(put_back, types.none(types.int64))
