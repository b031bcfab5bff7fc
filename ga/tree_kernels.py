"""Compiled programs of trees: reading them from genes, running them over rows, hashing what they say.

A program is one row of numbers in prefix order, a node each, filled up with ``UNUSED``:

- ``0 .. N_PRIMITIVES - 1`` a primitive (``ADD``, ..., ``NOT``);
- ``SIGNAL + j`` the value of signal ``j``;
- ``SIGNAL + k + j`` the condition that signal ``j`` of ``k`` is positive;
- ``SIGNAL + 2 k + i`` the constant ``(i - ZERO_LEVEL) / STEPS``.

Programs run over blocks of rows, one node at a time, so that the loop over a block is vector code and the
cost of reading a node is shared by the block. Every operation is one of IEEE 754 that rounds correctly, or a
select: a row gets the same bits alone and in any block.
"""

import math

import numba
import numpy as np

from compute.kernels import R2, RI1, W2, kernel

(ADD, SUB, MUL, QUOTIENT, MIN, MAX, NEG, ABS, SQUASH, IF, GREATER, AND, OR, NOT) = range(14)
N_PRIMITIVES = 14
SIGNAL = N_PRIMITIVES
UNUSED = -1

#: Types of a node: a real number, or a condition (1.0 or 0.0).
NUMBER, CONDITION = 0, 1

#: Constants are multiples of 1 / STEPS from -ZERO_LEVEL / STEPS up; a twentieth of a standard deviation.
STEPS = 20
ZERO_LEVEL = 80
LEVELS = 2 * ZERO_LEVEL + 1

#: Rows per block: the blocks of a deep tree still lie in the first-level cache.
BLOCK = 256
#: Results that wait for their turn: 2 per level of a tree of height 6, and a few.
WAITING = 20

# What is closer to zero is rounding error of a difference, see ``semantics``.
_TINY = 1e-9


@kernel(inline=True)
def _arity(code):
    """Return how many arguments a node takes."""
    if code < 0 or code >= N_PRIMITIVES:
        return 0
    if code == IF:
        return 3
    if code in (NEG, ABS, SQUASH, NOT):
        return 1
    return 2


@kernel(inline=True)
def _argument(code, position):
    """Return the type of an argument of a primitive."""
    if code in (AND, OR, NOT):
        return CONDITION
    if code == IF and position == 0:
        return CONDITION
    return NUMBER


@kernel(inline=True)
def _type(code, k):
    """Return the type of a node."""
    if code < N_PRIMITIVES:
        return CONDITION if code >= GREATER else NUMBER
    return CONDITION if SIGNAL + k <= code < SIGNAL + 2 * k else NUMBER


@kernel(numba.void(R2, numba.int64, numba.int64, W2))
def read_programs(genes, k, height, out):
    """Write the program that each row of the unit cube stands for: every row stands for a valid one.

    Position ``i`` belongs to node ``i`` in prefix order. Its gene chooses among the symbols of the type that
    is due there, all bins equally wide: the ``k`` signals, then one bin for constants, whose level is the
    place inside the bin, then the primitives. A primitive that would make the tree too high, or that could
    not be completed with the nodes left, becomes the terminal at its position modulo their number.

    Parameters
    ----------
    genes : float64 (p, nodes)
        In the unit cube.
    k : int
        Number of signals.
    height : int
        Largest height; a single node has height 0.
    out : float64 (p, nodes)
        Programs, written in place.
    """
    p, nodes = genes.shape
    types = np.empty(nodes + 3, np.int64)
    depths = np.empty(nodes + 3, np.int64)
    for row in range(p):
        types[0], depths[0], due = NUMBER, 0, 1
        for i in range(nodes):
            if due == 0:
                out[row, i] = UNUSED
                continue
            due -= 1
            wanted, depth = types[due], depths[due]
            terminals = k + 1 if wanted == NUMBER else k
            first = ADD if wanted == NUMBER else GREATER
            count = terminals + (GREATER if wanted == NUMBER else N_PRIMITIVES - GREATER)
            place = genes[row, i] * count
            index = min(int(place), count - 1)
            inside = place - index
            if index >= terminals:
                code = first + index - terminals
                arguments = _arity(code)
                if depth < height and i + 1 + due + arguments <= nodes:
                    out[row, i] = code
                    for position in range(arguments - 1, -1, -1):
                        types[due] = _argument(code, position)
                        depths[due] = depth + 1
                        due += 1
                    continue
                index = index % terminals
            if wanted == CONDITION:
                out[row, i] = SIGNAL + k + index
            elif index < k:
                out[row, i] = SIGNAL + index
            else:
                out[row, i] = SIGNAL + 2 * k + min(int(inside * LEVELS), LEVELS - 1)


@kernel(numba.void(R2, numba.int64, W2))
def write_programs(programs, k, out):
    """Write the genes that :func:`read_programs` reads as these programs: the middle of each bin.

    What is no symbol of the type that is due gets some gene; reading it back shows the difference.

    Parameters
    ----------
    programs : float64 (p, nodes)
    k : int
    out : float64 (p, nodes)
        Genes, written in place; 0 where no node is.
    """
    p, nodes = programs.shape
    for row in range(p):
        for i in range(nodes):
            code = int(programs[row, i])
            gene = 0.0
            if code >= SIGNAL + 2 * k:
                level = min(code - SIGNAL - 2 * k, LEVELS - 1)
                gene = (k + (level + 0.5) / LEVELS) / (k + 1 + GREATER)
            elif code >= SIGNAL + k:
                gene = (code - SIGNAL - k + 0.5) / (k + N_PRIMITIVES - GREATER)
            elif code >= SIGNAL:
                gene = (code - SIGNAL + 0.5) / (k + 1 + GREATER)
            elif code >= GREATER:
                gene = (k + code - GREATER + 0.5) / (k + N_PRIMITIVES - GREATER)
            elif code >= 0:
                gene = (k + 1 + code + 0.5) / (k + 1 + GREATER)
            out[row, i] = gene


@kernel(inline=True)
def _length(program, k):
    """Return the number of nodes of a program, or refuse what is none: memory is read at its word."""
    due = 1
    i = 0
    while due > 0:
        if i == program.size:
            raise ValueError("a program ends before it is complete")
        code = int(program[i])
        if code < 0 or code >= SIGNAL + 2 * k + LEVELS:
            raise ValueError("a program holds a number that is no node")
        due += _arity(code) - 1
        i += 1
    return i


@kernel(inline=True)
def _apply(code, out, a, b, c, m):
    """Write one primitive over a block."""
    if code == ADD:
        for i in range(m):
            out[i] = a[i] + b[i]
    elif code == SUB:
        for i in range(m):
            out[i] = a[i] - b[i]
    elif code == MUL:
        for i in range(m):
            out[i] = a[i] * b[i]
    elif code == QUOTIENT:
        for i in range(m):
            out[i] = a[i] / math.sqrt(1.0 + b[i] * b[i])
    elif code == MIN:
        for i in range(m):
            out[i] = a[i] if a[i] < b[i] else b[i]
    elif code == MAX:
        for i in range(m):
            out[i] = a[i] if a[i] > b[i] else b[i]
    elif code == NEG:
        for i in range(m):
            out[i] = -a[i]
    elif code == ABS:
        for i in range(m):
            out[i] = abs(a[i])
    elif code == SQUASH:
        for i in range(m):
            out[i] = a[i] / (1.0 + abs(a[i]))
    elif code == IF:
        for i in range(m):
            out[i] = b[i] if a[i] > 0.5 else c[i]
    elif code == GREATER:
        for i in range(m):
            out[i] = 1.0 if a[i] > b[i] else 0.0
    elif code == AND:
        for i in range(m):
            out[i] = a[i] * b[i]
    elif code == OR:
        for i in range(m):
            out[i] = a[i] if a[i] > b[i] else b[i]
    else:
        for i in range(m):
            out[i] = 1.0 - a[i]


@kernel(inline=True)
def _run(program, length, k, work, m, free, waiting, places, keep):
    """Run a program over a block; return the row of ``work`` that holds the answer.

    ``work`` begins with the signals, one row each; the others are lent to results and, unless they are to be
    kept, given back. No result is written over its own argument, which would cost the vector loop.
    ``places`` gets the row that each node is written to.
    """
    spare = work.shape[0] - k
    for i in range(spare):
        free[i] = k + i
    top = 0
    for node in range(length - 1, -1, -1):
        code = int(program[node])
        if SIGNAL <= code < SIGNAL + k:
            waiting[top] = code - SIGNAL
        else:
            arguments = _arity(code)
            if top < arguments or spare == 0:
                raise ValueError("a program needs more room than a tree of its height")
            spare -= 1
            place = free[spare]
            out = work[place]
            if arguments == 0:
                if code < SIGNAL + 2 * k:
                    signal = work[code - SIGNAL - k]
                    for i in range(m):
                        out[i] = 1.0 if signal[i] > 0.0 else 0.0
                else:
                    value = (code - SIGNAL - 2 * k - ZERO_LEVEL) / STEPS
                    for i in range(m):
                        out[i] = value
            else:
                one = waiting[top - 1]
                two = waiting[top - 2] if arguments > 1 else one
                three = waiting[top - 3] if arguments > 2 else one
                _apply(code, out, work[one], work[two], work[three], m)
                for taken in range(arguments):
                    done = waiting[top - 1 - taken]
                    if done >= k and not keep:
                        free[spare] = done
                        spare += 1
                top -= arguments
            waiting[top] = place
        places[node] = waiting[top]
        top += 1
    return waiting[0]


@kernel(numba.void(R2, R2, RI1, numba.int64, W2))
def run_programs(programs, rows, chosen, k, out):
    """Write what programs say at chosen rows.

    Parameters
    ----------
    programs : float64 (g, nodes)
    rows : float64 (n, w)
        The first ``k`` columns are the signals.
    chosen : int64 (m,)
        Rows that are read and written, for example those where a specialist is awake.
    k : int
    out : float64 (n, v)
        Column ``j`` gets the answers of program ``j``; other rows and columns are left as they are.

    Raises
    ------
    ValueError
        If a program is not complete, or an array is too small.
    """
    g, nodes = programs.shape
    n = rows.shape[0]
    if rows.shape[1] < k or out.shape[0] != n or out.shape[1] < g:
        raise ValueError("rows must hold the signals, out a row for each row and a column per program")
    work = np.empty((k + WAITING, BLOCK))
    answers = np.empty((g, BLOCK))
    free = np.empty(WAITING, np.int64)
    waiting = np.empty(nodes + 1, np.int64)
    places = np.empty(nodes, np.int64)
    lengths = np.empty(g, np.int64)
    for j in range(g):
        lengths[j] = _length(programs[j], k)
    for start in range(0, chosen.size, BLOCK):
        m = min(BLOCK, chosen.size - start)
        for i in range(m):
            t = chosen[start + i]
            if t < 0 or t >= n:
                raise ValueError("a chosen row lies outside the rows")
            for j in range(k):
                work[j, i] = rows[t, j]
        for j in range(g):
            answer = work[_run(programs[j], lengths[j], k, work, m, free, waiting, places, False)]
            held = answers[j]
            for i in range(m):
                held[i] = answer[i]
        for i in range(m):
            line = out[chosen[start + i]]
            for j in range(g):
                line[j] = answers[j, i]


@kernel(inline=True)
def _digest(values, m, seed, rounded):
    """Return a 64-bit digest of a block of numbers as they stand at single precision.

    ``rounded`` is float32 scratch and its bits: two programs that differ by the order of their additions
    differ in the last bits of a double, and in no bit of a single, but for one case in ten million.
    """
    single, bits = rounded
    for i in range(m):
        value = values[i] if abs(values[i]) > _TINY else 0.0
        single[i] = value
    digest = np.uint64(seed)
    for i in range(m):
        digest = (digest ^ np.uint64(bits[i])) * np.uint64(0x9E3779B97F4A7C15)
        digest = digest ^ (digest >> np.uint64(29))
    digest = digest * np.uint64(0xBF58476D1CE4E5B9)
    return digest ^ (digest >> np.uint64(32))


@kernel(inline=True)
def _load(probes, start, m, k, work):
    """Put ``m`` probe rows into the first rows of ``work``."""
    for i in range(m):
        for j in range(k):
            work[j, i] = probes[start + i, j]


@kernel(numba.void(R2, R2, numba.int64, numba.uint64[:, ::1]))
def semantics(programs, probes, k, out):
    """Write a 128-bit digest of what each program says about probe rows.

    Parameters
    ----------
    programs : float64 (g, nodes)
    probes : float64 (m, w)
        The first ``k`` columns are the signals.
    k : int
    out : uint64 (g, 2)
        Written in place. Equal for programs that agree on every probe to single precision.
    """
    g, nodes = programs.shape
    if probes.shape[1] < k or out.shape[0] != g or out.shape[1] != 2:
        raise ValueError("probes must hold the signals, and out two numbers per program")
    work = np.empty((k + WAITING, BLOCK))
    free = np.empty(WAITING, np.int64)
    waiting = np.empty(nodes + 1, np.int64)
    places = np.empty(nodes, np.int64)
    lengths = np.empty(g, np.int64)
    single = np.empty(BLOCK, np.float32)
    rounded = (single, single.view(np.uint32))
    for j in range(g):
        lengths[j] = _length(programs[j], k)
        out[j, 0], out[j, 1] = 1, 2
    for start in range(0, probes.shape[0], BLOCK):
        m = min(BLOCK, probes.shape[0] - start)
        _load(probes, start, m, k, work)
        for j in range(g):
            answer = work[_run(programs[j], lengths[j], k, work, m, free, waiting, places, False)]
            out[j, 0] = _digest(answer, m, out[j, 0], rounded)
            out[j, 1] = _digest(answer, m, out[j, 1], rounded)


@kernel(inline=True)
def _constant_level(values, m):
    """Return the level of the constant that a block of numbers is, or -1 if it is none."""
    for i in range(1, m):
        if abs(values[i] - values[0]) > _TINY:
            return -1
    scaled = values[0] * STEPS
    level = np.rint(scaled)
    if abs(scaled - level) > _TINY or abs(level) > ZERO_LEVEL:
        return -1
    return int(level) + ZERO_LEVEL


@kernel(numba.void(R2, R2, numba.int64, W2))
def shorten(programs, probes, k, out):
    """Write each program without what changes nothing.

    A node that says the same about every probe as a node below it gives way to the smallest such node:
    double negations go, and branches that are never taken. A number that is the same on every probe becomes
    a constant if it is one of those that constants can be.

    Parameters
    ----------
    programs : float64 (g, nodes)
    probes : float64 (m, w)
    k : int
    out : float64 (g, nodes)
        Programs, written in place; never longer.
    """
    g, nodes = programs.shape
    if probes.shape[1] < k or out.shape[0] != g or out.shape[1] != nodes:
        raise ValueError("probes must hold the signals, and out must be as large as the programs")
    work = np.empty((k + nodes + 1, BLOCK))  # a row for each node: nothing is lent twice
    free = np.empty(nodes + 1, np.int64)
    waiting = np.empty(nodes + 1, np.int64)
    places = np.empty(nodes, np.int64)
    ends = np.empty(nodes, np.int64)
    due = np.empty(nodes + 3, np.int64)
    lengths = np.empty(g, np.int64)
    constants = np.empty((g, nodes), np.int64)
    said = np.ones((g, nodes), np.uint64)
    single = np.empty(BLOCK, np.float32)
    rounded = (single, single.view(np.uint32))
    for row in range(g):
        lengths[row] = _length(programs[row], k)
    for start in range(0, probes.shape[0], BLOCK):
        m = min(BLOCK, probes.shape[0] - start)
        _load(probes, start, m, k, work)
        for row in range(g):
            _run(programs[row], lengths[row], k, work, m, free, waiting, places, True)
            for node in range(lengths[row]):
                values = work[places[node]]
                said[row, node] = _digest(values, m, said[row, node], rounded)
                level = _constant_level(values, m)
                constants[row, node] = level if start == 0 or level == constants[row, node] else -1
    for row in range(g):
        program, length, digests, levels = programs[row], lengths[row], said[row], constants[row]
        for node in range(length - 1, -1, -1):
            end = node + 1
            for _ in range(_arity(int(program[node]))):
                end = ends[end]
            ends[node] = end
        written, waits = 0, 1
        due[0] = 0
        while waits > 0:
            waits -= 1
            node = due[waits]
            best = node
            for other in range(node + 1, ends[node]):
                alike = _type(int(program[other]), k) == _type(int(program[node]), k)
                smaller = ends[other] - other < ends[best] - best
                if alike and smaller and digests[other] == digests[node]:
                    best = other
            code = int(program[best])
            if levels[best] >= 0 and _type(code, k) == NUMBER:
                code = SIGNAL + 2 * k + levels[best]
            out[row, written] = code
            written += 1
            # The arguments, last one first, so that the first one is next.
            argument = best + 1
            arguments = _arity(code)
            for position in range(arguments):
                due[waits + arguments - 1 - position] = argument
                argument = ends[argument]
            waits += arguments
        for i in range(written, nodes):
            out[row, i] = UNUSED
