"""The emitted loops, compiled for processors that are not here: all sums stay in registers, of the width asked for.

Which registers LLVM uses depends on the processor that it compiles for, and a sum that it keeps on the stack halves the
speed without changing a bit of the result: only the machine code shows it.
"""

from __future__ import annotations

import re
from dataclasses import replace

import llvmlite.binding as llvm
import pytest
from llvmlite import ir

from retrieval_bench.search import code_loops, emit, lane_sums, scan_loops, strip_loops

X86, ARM = "x86_64-unknown-linux-gnu", "aarch64-unknown-linux-gnu"
AVX2 = ("haswell", "znver2", "znver3")
AVX512 = ("skylake-avx512", "icelake-server", "rocketlake", "sapphirerapids", "graniterapids", "znver4", "znver5")
NEON = ("neoverse-n1", "neoverse-v1")
VNNI = AVX512[1:]
WIDENED = (*AVX2, AVX512[0])
TILES = ("sapphirerapids", "graniterapids")

WORK = re.compile(r"\b(vfmadd\w+|fmla|vpdpbusd\w*|vpmaddwd|tdpbsud|vpopcnt\w+|vpshufb|cnt|vaddpd|fadd|vsubpd|vmulpd)\b")
STACK = re.compile(r"\(%[re]sp|\[sp\b")
WIDTHS = {"avx512": "zmm", "avx2": "ymm", "neon": "v"}


def cases() -> list[tuple[str, str, str]]:
    kernels = {"avx2": AVX2, "avx512": AVX512, "neon": NEON}
    return [(ARM if kernel == "neon" else X86, cpu, kernel) for kernel, cpus in kernels.items() for cpu in cpus]


def loops(kernel: emit.Kernel, cpu: str) -> list[emit.Loop]:
    """Every loop that a search on this processor could run."""
    found = [scan_loops.products_loop(kernel, size) for size in kernel.blocks]
    found.append(scan_loops.products_loop(kernel, 1, kernel.side))
    found += [strip_loops.strip_loop(size, kernel.lanes, kernel.vectors) for size in kernel.blocks]
    found += [scan_loops.bits_loop(kernel, size) for size in (1, 2, 4)]
    found.append(scan_loops.bits_loop(kernel, 1, kernel.bits_side))
    ways = {"widened": WIDENED, "vnni256": VNNI, "vnni512": VNNI, "tiles": TILES}
    found += [loop for (how, _), loop in code_loops.LOOPS.items() if cpu in ways[how]]
    for element in (emit.F32, lane_sums.F64):
        found += [
            lane_sums.lane_sums_loop(term, lane_sums.rows_at_once(kernel.lanes), element)
            for term in (lane_sums.PRODUCT, lane_sums.SQUARE, lane_sums.DIFFERENCE)
        ]
        found.append(lane_sums.lane_sums_loop(lane_sums.RESIDUAL, 1, element))
    found += [
        lane_sums.crossed_sums_loop(term, *lane_sums.crossed_at_once(fused, kernel.lanes), fused)
        for term, fused in ((lane_sums.PRODUCT, True), (lane_sums.PRODUCT, False), (lane_sums.DIFFERENCE, False))
    ]
    return found


def machine_code(loop: emit.Loop, triple: str, cpu: str) -> str:
    """As Numba would compile it there: optimisation level 3, no fast-math."""
    module = ir.Module()
    module.triple = triple
    loop.function(module).linkage = "external"
    compiled = llvm.parse_assembly(str(module))
    machine = llvm.Target.from_triple(triple).create_target_machine(cpu=cpu, opt=3)
    tuning = llvm.create_pipeline_tuning_options(speed_level=3)
    builder = llvm.create_pass_builder(machine, tuning)
    builder.getModulePassManager().run(compiled, builder)
    return str(machine.emit_assembly(compiled))


def innermost(code: str) -> list[list[str]]:
    """The lines of each loop that holds no other and does the work."""
    found: list[list[str]] = []
    start, lines = None, code.split("\n")
    for place, line in enumerate(lines):
        if label := re.match(r"(\.LBB\d+_\d+):", line):
            start = label[1], place
        elif start and re.match(rf"\s+(j\w+|b\.\w+|cbn?z\s+\w+,|tbn?z\s+\S+ \S+)\s*{re.escape(start[0])}\b", line):
            body = lines[start[1] : place + 1]
            if sum(bool(WORK.search(each)) for each in body) >= 1:
                found.append(body)
    return found


@pytest.fixture(scope="module", autouse=True)
def targets() -> None:
    llvm.initialize_all_targets()
    llvm.initialize_all_asmprinters()


@pytest.mark.slow(reason="compiles every loop for twelve processors")
@pytest.mark.parametrize(("triple", "cpu", "kernel"), cases(), ids=lambda value: value if "-linux" not in value else "")
def test_sums_stay_in_registers_of_the_width_asked_for(triple: str, cpu: str, kernel: str) -> None:
    for loop in loops(emit.KERNELS[kernel], cpu):
        bodies = innermost(machine_code(loop, triple, cpu))
        assert bodies, f"no innermost loop of {loop.name} for {cpu} was found"
        for body in bodies:
            on_stack = [line.strip() for line in body if STACK.search(line)]
            assert not on_stack, f"{loop.name} for {cpu} keeps values on the stack: {on_stack}"
            working = [line for line in body if re.search(r"\b(vfmadd|fmla|vpdpbusd|vpmaddwd|vpopcnt)", line)]
            in_halves = loop.name.startswith("codes-widened") or re.match(r"codes-.*-8$", loop.name)
            width = "ymm" if in_halves else WIDTHS[kernel]
            assert all(f"%{width}" in line or re.search(r"\bv\d+\.", line) for line in working), (loop.name, working)


def test_a_loop_that_wants_too_many_registers_would_be_noticed() -> None:
    kernel = replace(emit.KERNELS["avx512"], blocks=(1, 4, 8, 20))
    code = machine_code(scan_loops.products_loop(kernel, 20), X86, "skylake-avx512")
    assert any(STACK.search(line) for body in innermost(code) for line in body)
