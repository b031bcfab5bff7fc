"""How fast the population kernel could be at best, by the instructions of its inner loop.

    python -m benchmarks.kernel_floor [--bars 20000] [--genomes 256] [--runs 7]

The innermost loop over genomes is found in the assembly that LLVM has made of each family's kernel, and its
instructions are counted by class. Two floors follow, in cycles per vector of genomes:

- *counted*: the busiest resource of the core, by what it can do in a cycle. The core is AMD Zen 5 with
  512-bit units: 8 instructions issued; 4 vector units, of which 2 multiply, 2 add (and take minima and
  maxima), 2 compare or combine masks, and one divides in 4 cycles; 2 loads and 1 store of 64 bytes. The
  widths are those of AMD's optimization guide (publication 58455); comparison and division were timed with
  loops of independent instructions. A move between registers costs only issue. On other processors all of it
  is an assumption.
- *timed*: the same instructions in the same order on registers of their own, so that none waits for another,
  run on this machine. It holds on any x86-64 processor with AVX-512.

What is measured above the timed floor is waiting: for the chain of results inside a bar, from the exposure
and the levels to the sums, of which the processor has only about three in flight. Both floors leave out what
a bar costs once per block (scalars, broadcasts).
"""

import argparse
import ctypes
import math
import platform
import re
import time
from collections import Counter
from collections.abc import Callable

import llvmlite.binding as llvm
import numba
import numpy as np

from backtest.kernels import OPTIONS, POPULATION
from benchmarks.measuring import Case, clock_ghz, machine, measure, random_walk
from benchmarks.population_kernel import FAMILIES, families

# First match counts; an operation whose last operand is in memory is a load beside it.
CLASSES = (
    ("divide", r"v(div|sqrt)"),
    ("multiply", r"v(mul|fn?m(add|sub))"),
    ("add", r"v(add|sub)"),
    ("min, max", r"v(max|min)"),
    ("compare", r"vu?com|vcmp"),
    ("blend", r"vblend"),
    ("logic", r"vp?(and|or|xor|ternlog)"),
    ("mask", r"k[a-z]"),
)
MOVES = r"vmov[ua]p[sd]|vmovdq[ua]\d*"
VECTOR = ("multiply", "add", "min, max", "compare", "blend", "logic", "mask")
# Zen 5: what shares a resource, and how many of it there are per cycle; a division takes four.
ISSUE, LOADS, STORES, DIVIDE = 8, 2, 1, 4
UNITS = (
    ("vector units", VECTOR, 4, 1),
    ("multiply, divide", ("multiply",), 2, DIVIDE),
    ("add, min, max", ("add", "min, max"), 2, 0),
    ("compare, mask", ("compare", "mask"), 2, 0),
)


def assembly_of(evaluate: Callable) -> str:
    """Return the assembly of a family's kernel without options; a kernel from the cache has none."""
    signature = numba.void(*POPULATION, *(numba.none,) * len(OPTIONS))
    compiled = numba.njit(signature, error_model="numpy", nogil=True)(evaluate.function)
    return compiled.inspect_asm(compiled.signatures[0])


def inner_loop(assembly: str) -> list[str]:
    """Return the instructions of the innermost loop with the most vector arithmetic.

    That is the loop over genomes while they decide: the one over sleeping genomes is a part of it.
    """
    lines = [line.strip() for line in assembly.splitlines()]
    labels = {line[:-1]: i for i, line in enumerate(lines) if re.fullmatch(r"\.?L\w+:", line)}
    loops = []
    for i, line in enumerate(lines):
        jump = re.match(r"j\w+\s+(\.?L\w+)$", line)
        if jump and labels.get(jump[1], i) < i:
            loops.append((labels[jump[1]], i))
    inner = [(a, b) for a, b in loops if not any(a <= c and d <= b and (c, d) != (a, b) for c, d in loops)]
    bodies = [[line for line in lines[a : b + 1] if line and line[0] not in ".#"] for a, b in inner]
    bodies = [[line for line in body if not line.endswith(":")] for body in bodies]
    return max(bodies, key=lambda body: sum(_packed(line) for line in body), default=[])


def _packed(line: str) -> bool:
    return bool(re.match(r"v\w+pd\b", line))


def lanes_of(loop: list[str]) -> int:
    """Return how many float64 a vector of the loop holds."""
    for register, lanes in (("%zmm", 8), ("%ymm", 4), ("%xmm", 2)):
        if sum(register in line for line in loop if _packed(line)) > len(loop) // 4:
            return lanes
    return 1


def kind_of(line: str) -> str:
    """Return the class of an instruction."""
    name, _, operands = line.partition("\t") if "\t" in line else line.partition(" ")
    if re.match(MOVES, name):
        if _written(operands):
            return "store"
        if "(" in operands:
            return "load"
        return "blend" if "{" in operands else "move"
    if name.startswith("vbroadcast"):
        return "load" if "(" in operands else "move"
    return next((kind for kind, pattern in CLASSES if re.match(pattern, name)), "scalar")


def _written(operands: str) -> bool:
    return bool(re.search(r"\)\s*(\{%k\d\})?$", operands.strip()))


def counts(loop: list[str]) -> Counter:
    """Return instructions by class, with every operand that is read from memory as a load."""
    got = Counter(kind_of(line) for line in loop)
    got["load"] += sum("(" in line for line in loop if kind_of(line) not in ("load", "store"))
    return got


def counted(loop: list[str]) -> dict[str, float]:
    """Return cycles per vector that each resource of the core is busy for at least."""
    got = counts(loop)
    bound = {"issue": len(loop) / ISSUE, "loads": got["load"] / LOADS, "stores": got["store"] / STORES}
    for name, kinds, units, divide in UNITS:
        bound[name] = (sum(got[kind] for kind in kinds) + divide * got["divide"]) / units
    return bound


def independent(loop: list[str]) -> str:
    """Return the loop as assembly in which no instruction waits for another.

    Sources are registers 0 and 1, destinations go round the others; masks likewise. It reads 1,024 bytes at
    ``%rax`` and writes as many at ``%rdx``, each access on one cache line.
    """
    text = []
    for i, line in enumerate(loop[:-2]):  # the last two count and jump
        kind, target = kind_of(line), f"%zmm{2 + i % 30}"
        memory = f"{64 * (i % 16)}(%rax)"
        source = memory if "(" in line else "%zmm0"
        under = " {%k1}" if re.search(r"\{%k\d\}", line) else ""
        match kind:
            case "divide":
                text.append(f"vdivpd {source}, %zmm1, {target}{under}")
            case "multiply":
                text.append(f"vmulpd {source}, %zmm1, {target}{under}")
            case "add":
                text.append(f"vaddpd {source}, %zmm1, {target}{under}")
            case "min, max":
                text.append(f"vmaxpd {source}, %zmm1, {target}{under}")
            case "compare":
                text.append(f"vcmpltpd {source}, %zmm1, %k{2 + i % 6}{under}")
            case "blend":
                text.append(f"vblendmpd {source}, %zmm1, {target} {{%k1}}")
            case "logic":
                text.append(f"vandpd {source}, %zmm1, {target}")
            case "mask":
                text.append(f"korb %k1, %k1, %k{2 + i % 6}")
            case "load":
                text.append(f"vmovupd {memory}, {target}")
            case "store":
                text.append(f"vmovupd %zmm0, {64 * (i % 16)}(%rdx){under}")
            case "move":
                text.append(f"vmovapd %zmm0, {target}")
            case _:
                text.append("leaq 8(%rcx), %rsi")
    return "\n".join(text)


def timed(loop: list[str], runs: int) -> float:
    """Return seconds per vector of the loop without its dependences; NaN where it cannot run."""
    if platform.machine() not in ("x86_64", "AMD64") or "avx512dq" not in _features():
        return math.nan
    body = "\n".join(
        (
            "vmovupd (%rax), %zmm0", "vmovapd %zmm0, %zmm1", "movl $$90, %esi", "kmovd %esi, %k1",
            "1:", independent(loop), "decq %rcx", "jnz 1b",
        )
    ).replace("\n", r"\0A")  # fmt: skip
    clobbered = ",".join((*(f"~{{xmm{i}}}" for i in range(32)), *(f"~{{k{i}}}" for i in range(1, 8))))
    module = llvm.parse_assembly(
        f"""
        define i64 @spin(i64 %n, ptr %read, ptr %written) {{
          %left = call i64 asm sideeffect "{body}",
            "={{rcx}},{{rax}},{{rdx}},0,~{{rsi}},~{{memory}},~{{flags}},{clobbered}"
            (ptr %read, ptr %written, i64 %n)
          ret i64 %left
        }}
        """
    )
    llvm.initialize_native_asmparser()
    target = llvm.Target.from_default_triple().create_target_machine(
        cpu=llvm.get_host_cpu_name(), features=llvm.get_host_cpu_features().flatten(), opt=2
    )
    engine = llvm.create_mcjit_compiler(module, target)
    engine.finalize_object()
    spin = ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_int64, ctypes.c_void_p, ctypes.c_void_p)(
        engine.get_function_address("spin")
    )
    memory = np.ones(512)
    start = memory.ctypes.data + -memory.ctypes.data % 64
    steps, best = 50_000, math.inf
    for _ in range(max(5, runs)):
        began = time.process_time()
        spin(steps, start, start + 1024)
        best = min(best, time.process_time() - began)
    return best / steps


def _features() -> set[str]:
    return {name for name, on in llvm.get_host_cpu_features().items() if on}


def report(name: str, target: float, loop: list[str], ns: float, ghz: float, runs: int) -> None:
    lanes, got = lanes_of(loop), counts(loop)
    bound = counted(loop)
    busiest = max(bound, key=bound.get)
    floor = bound[busiest] / ghz / lanes
    cycles = ns * lanes * ghz
    print(f"\n{name}: {len(loop)} instructions for {lanes} genomes")
    print(
        "  "
        + ", ".join(
            f"{count} {kind}" for kind, count in sorted(got.items(), key=lambda one: -one[1]) if count
        )
    )
    print("  cycles: " + ", ".join(f"{kind} {c:.1f}" for kind, c in bound.items()))
    print(f"  counted floor  {floor:>6.2f} ns per bar and genome ({bound[busiest]:.1f} cycles: {busiest})")
    seconds = timed(loop, runs)
    if seconds == seconds:
        alone = seconds * 1e9 / lanes
        print(f"  timed floor    {alone:>6.2f} ns per bar and genome ({seconds * ghz * 1e9:.1f} cycles)")
        print(f"  measured       {ns:>6.2f} ns, {ns / alone:.2f} times the timed floor ({cycles:.1f} cycles)")
    else:
        print(
            f"  measured       {ns:>6.2f} ns, {ns / floor:.2f} times the counted floor ({cycles:.1f} cycles)"
        )
    if target > 0:
        print(f"  target         {target:>6.2f} ns")


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--bars", type=int, default=20_000)
    parser.add_argument("--genomes", type=int, default=256)
    parser.add_argument("--runs", type=int, default=7)
    parser.add_argument("--families", nargs="+", choices=FAMILIES, default=FAMILIES)
    options = parser.parse_args(arguments)
    print(machine())
    ghz = clock_ghz()
    print(f"clock {ghz:.2f} GHz, by a chain of multiplications (3 cycles) and exclusive ors (1)")
    rng = np.random.default_rng(7)
    prices = random_walk(options.bars, rng)
    for family in families(prices, rng, options.families):
        loop = inner_loop(assembly_of(family.evaluate))
        if lanes_of(loop) == 1:
            print(f"\n{family.name}: no vector loop in the assembly, or not one of x86-64")
            continue
        genes = family.genes(options.genomes)
        ns = measure(family.evaluate, Case(prices, family.rows), genes, 1, options.runs).best
        report(family.name, family.target, loop, ns, ghz, options.runs)


if __name__ == "__main__":
    main()
