"""Compiled generations of many runs of ``ga`` side by side.

Breeding, replacement, digests and statistics are the kernels of ``ga`` themselves; what stands here is the
order in which ``ga.evolution.Evolution`` and ``ga.progress.Chronicle`` call them, and each random number is
drawn where they draw it. A run of the environment therefore has the bits of the same run in ``ga``.

All runs live in flat arrays (:class:`Runs`), so that runs of different sizes share a batch, and each keeps
the state of its own random stream: a run depends neither on its neighbors nor on the thread that works on
it, and a copy of its rows is a copy of the run.

Shapes: ``B`` runs, ``p`` individuals, ``m`` offspring, ``d`` genes, ``g`` generations.
"""

import math
from collections import namedtuple

import numba
import numpy as np

from compute.kernels import R1, R2, W1, W2, W3, kernel
from conductor.landscapes import evaluate
from ga import breeding_kernels, kernels

#: Columns of ``Runs.shape``: sizes, and where the run begins in each flat array. FAMILY is the code of the
#: landscape, or -1 if the fitness comes from outside; N_CHOICES is the width of its table of choices.
(
    P,
    D,
    GENERATIONS,
    ROW,
    GENE,
    DIGEST,
    SLOT,
    N_SLOTS,
    BOUND,
    TABLE,
    N_CHOICES,
    PARAMETER,
    N_PARAMETERS,
    FAMILY,
) = range(14)
#: Columns of ``Runs.counts``. The generation is that of the last tell, -1 before it; ASKED and BRED are the
#: offspring between ask and tell, and those of them that are no immigrants.
(
    GENERATION,
    STAGNATION,
    SINCE_RESTART,
    N_SEEN,
    N_REPLACED,
    ASKED,
    BRED,
    DUPLICATES,
    CACHED,
    RESTARTED,
    INVALID,
) = range(11)
#: Positions in ``Runs.options``.
RECOMBINATION, MUTATION, JITTER, ARCHIVE, GUARD = range(5)
#: As ``ga.operators.MAX_TRIES``.
MAX_TRIES = 8
#: As ``ga.progress._LOG_LIMIT``.
LOG_LIMIT = 40.0
#: Positions in ``ga.controls.CONTROL_NAMES``.
STEP, TAIL, TOURNAMENT, ELITES, IMMIGRANTS, CROWDING, RESTART = 1, 2, 7, 8, 9, 10, 11
#: Entries of ``ga.progress.STATISTIC_NAMES``, and how many of the controls they show.
N_STATISTICS, N_SHOWN = 30, 4

_RNG, _I = numba.types.npy_rng, numba.int64
_WI1, _WI2 = numba.int64[::1], numba.int64[:, ::1]
_WU1, _WU2 = numba.uint64[::1], numba.uint64[:, ::1]
_WB1 = numba.int8[::1]
_R3 = numba.types.Array(numba.float64, 3, "C", readonly=True)

#: Fields of :class:`Runs` and their types. Flat arrays hold p, p * d, or what ``shape`` says per run.
_FIELDS = {
    "shape": _WI2,  # (B, 14)
    "options": _WI1,  # (5,)
    "rotation": W1,  # (1,)
    "low": W1,  # d each
    "high": W1,
    "kind": _WB1,
    "table": W1,  # d * choices each
    "parameters": W1,
    "streams": _WU2,  # (B, 4), state of the generator
    "counts": _WI2,  # (B, 11)
    "spread": W1,  # (B,), diversity of the initial population
    "genes": W1,  # p * d each
    "fitness": W1,  # p each
    "age": numba.int32[::1],
    "order": _WI1,
    "replaced": W1,
    "seen": _WU2,  # (sum of budgets, 2)
    "slots": _WI1,
    "children": W1,
    "told": W1,
    "places": _WI1,
    "parents": _WI1,
    "defended": numba.boolean[::1],
    "operator": _WB1,
    "weight": W1,
    "rate": W1,
    "history": W3,  # (B, g + 1, 30)
    "best": W2,  # (B, g + 1)
    "asked": _WI2,  # (B, g + 1), genomes asked for in each generation
    "trials": _WI2,  # (B, 4)
    "successes": _WI2,
    "successful": W2,  # (B, 2), Lehmer means of F and CR
}
#: The state of a batch: arrays and nothing else.
Runs = namedtuple("Runs", tuple(_FIELDS))
_RUNS = numba.types.NamedTuple(tuple(_FIELDS.values()), Runs)


@kernel(inline=True)
def _rounded(rng, value):
    low = int(value)
    return low + (1 if rng.random() < value - low else 0)


@kernel(inline=True)
def _rank(rng, fitness, out):
    # Rows from best to worst; equals stand in random order.
    p = fitness.shape[0]
    rows = np.empty(p, np.int64)
    kernels.ascend(fitness, rows)
    if kernels.descend(fitness, rows, out):
        chance, loss = np.empty(p), np.empty(p)
        for i in range(p):
            chance[i] = rng.random()
        kernels.ascend(chance, rows)
        for i in range(p):
            loss[i] = -fitness[rows[i]]
        kernels.ascend(loss, out)  # equals stay as drawn
        for i in range(p):
            out[i] = rows[out[i]]


@kernel(inline=True)
def _sample(rng, out):
    p, d = out.shape
    uniform = np.empty((2, p, d))
    for side in range(2):
        for i in range(p):
            for j in range(d):
                uniform[side, i, j] = rng.random()
    breeding_kernels.stratify(uniform, out)


@kernel(inline=True)
def _clamped_log(numerator, denominator):
    if numerator <= 0.0:
        return -LOG_LIMIT
    if denominator <= 0.0:
        return LOG_LIMIT
    return min(max(math.log(numerator / denominator), -LOG_LIMIT), LOG_LIMIT)


@kernel(inline=True)
def _improvement(level, generation, span):
    now, then = level[generation], level[max(0, generation - span)]
    if not now > then:
        return 0.0
    return (now - then) / (now - level[0]) if math.isfinite(level[0]) else 1.0


@kernel(inline=True)
def _rows(array, start, p):
    return array[start : start + p]


@kernel(inline=True)
def _matrix(array, start, n, d):
    return array[start : start + n * d].reshape(n, d)


@kernel(inline=True)
def _enter(runs, b, digests, new):
    # Genomes into the table of all that the run ever asked for; writes which of them are new.
    shape, counts = runs.shape[b], runs.counts[b]
    start, slot = shape[DIGEST], shape[SLOT]
    seen = runs.seen[start : start + shape[P] * (shape[GENERATIONS] + 1)]
    slots = runs.slots[slot : slot + shape[N_SLOTS]]
    kernels.enter(seen, slots, counts[N_SEEN], digests, new)
    for i in range(new.shape[0]):
        if new[i]:
            counts[N_SEEN] += 1


@kernel(inline=True)
def _identify(runs, b, genes, digests):
    shape = runs.shape[b]
    d, bound = shape[D], shape[BOUND]
    kernels.identify(
        genes,
        runs.low[bound : bound + d],
        runs.high[bound : bound + d],
        runs.kind[bound : bound + d],
        _matrix(runs.table, shape[TABLE], d, shape[N_CHOICES]),
        digests,
    )


@kernel(inline=True)
def _first_brood(runs, b, rng):
    shape, counts = runs.shape[b], runs.counts[b]
    p, d = shape[P], shape[D]
    genes = _matrix(runs.children, shape[GENE], p, d)
    _sample(rng, genes)
    digests, new = np.empty((p, 2), np.uint64), np.empty(p, np.bool_)
    _identify(runs, b, genes, digests)
    _enter(runs, b, digests, new)
    counts[ASKED], counts[BRED], counts[DUPLICATES], counts[RESTARTED] = p, 0, 0, 0
    counts[CACHED] = p - counts[N_SEEN]
    for i in range(p):
        runs.places[shape[ROW] + i] = i
        runs.parents[shape[ROW] + i] = i
        runs.defended[shape[ROW] + i] = False


@kernel(inline=True)
def _without_duplicates(runs, b, rng, genes, controls):
    # Mutate repeated genomes again, a little more with each try, and count what repeats at first and at last.
    m, d = genes.shape
    counts = runs.counts[b]
    digests, new = np.empty((m, 2), np.uint64), np.empty(m, np.bool_)
    _identify(runs, b, genes, digests)
    _enter(runs, b, digests, new)
    repeated = np.empty(m, np.int64)
    n = 0
    for i in range(m):
        if not new[i]:
            repeated[n] = i
            n += 1
    counts[DUPLICATES] = n
    for attempt in range(MAX_TRIES):
        if n == 0:
            break
        mutants = np.empty((n, d))
        for k in range(n):
            for j in range(d):
                mutants[k, j] = genes[repeated[k], j]
        rate = max(controls[0], attempt / MAX_TRIES)
        step = min(0.5, controls[STEP] * 4.0**attempt)
        breeding_kernels.mutate(rng, mutants, rate, step, controls[TAIL], runs.options[MUTATION])
        _identify(runs, b, mutants, digests[:n])
        _enter(runs, b, digests[:n], new[:n])
        left = 0
        for k in range(n):
            for j in range(d):
                genes[repeated[k], j] = mutants[k, j]
        for k in range(n):
            if not new[k]:
                repeated[left] = repeated[k]
                left += 1
        n = left
    counts[CACHED] = n


@kernel(inline=True)
def _next_brood(runs, b, rng, controls):
    shape, counts, options = runs.shape[b], runs.counts[b], runs.options
    p, d, row = shape[P], shape[D], shape[ROW]
    order = _rows(runs.order, row, p)
    population = _matrix(runs.genes, shape[GENE], p, d)

    elites = min(p - 1, max(1, _rounded(rng, controls[ELITES] * p)))
    size = p - elites
    immigrants = _rounded(rng, controls[IMMIGRANTS] * size)
    restarted = 0
    if min(counts[STAGNATION], counts[SINCE_RESTART]) >= options[GUARD]:
        restarted = _rounded(rng, controls[RESTART] * size)
    fresh = min(size, max(immigrants, restarted))
    m = size - fresh

    places, parents = _rows(runs.places, row, size), _rows(runs.parents, row, size)
    defended = _rows(runs.defended, row, size)
    for i in range(size):
        places[i] = order[elites + i]  # the least fit stand last
        defended[i] = rng.random() < controls[CROWDING]
    uniform, winners = np.empty((2, m)), np.empty(m, np.int64)
    for side in range(2):
        for i in range(m):
            uniform[side, i] = rng.random()
    breeding_kernels.tournaments(uniform, order, controls[TOURNAMENT], winners)
    for i in range(size):
        defended[i] = defended[i] and i < m
        parents[i] = winners[i] if i < m and not defended[i] else places[i]

    archived = min(counts[N_REPLACED], p) if options[ARCHIVE] else 0
    children = _matrix(runs.children, shape[GENE], size, d)
    # Copies: breeding hops from row to row, and each would have to be waited for where a batch of runs has
    # driven the others from the cache. One sweep over all does not wait.
    breeding_kernels.breed(
        rng,
        population.copy(),
        _matrix(runs.replaced, shape[GENE], archived, d).copy(),
        order,
        parents[:m],
        controls[:8],
        options[RECOMBINATION],
        options[MUTATION],
        options[JITTER],
        runs.rotation[0],
        children[:m],
        runs.operator[row : row + m],
        runs.weight[row : row + m],
        runs.rate[row : row + m],
    )
    if fresh:
        _sample(rng, children[m:])
    counts[ASKED], counts[BRED], counts[RESTARTED] = size, m, restarted
    _without_duplicates(runs, b, rng, children, controls)


@kernel(numba.void(_RUNS, _I, _RNG, R1))
def _ask(runs, b, rng, controls):
    if runs.counts[b, GENERATION] < 0:
        _first_brood(runs, b, rng)
    else:
        _next_brood(runs, b, rng, controls)


@kernel(inline=True)
def _evaluate(runs, b):
    shape = runs.shape[b]
    m, d, at = runs.counts[b, ASKED], shape[D], shape[PARAMETER]
    told = _rows(runs.told, shape[ROW], m)
    genes = _matrix(runs.children, shape[GENE], m, d)
    evaluate(shape[FAMILY], runs.parameters[at : at + shape[N_PARAMETERS]], genes, told)
    for i in range(m):
        told[i] = -told[i]


@kernel(numba.void(_RUNS, _I, _RNG, numba.float64, R1))
def _tell(runs, b, rng, mutation_step, shown):
    shape, counts = runs.shape[b], runs.counts[b]
    p, d, row = shape[P], shape[D], shape[ROW]
    m, k = counts[ASKED], counts[BRED]
    generation = counts[GENERATION] + 1
    genes = _matrix(runs.genes, shape[GENE], p, d)
    fitness, age = _rows(runs.fitness, row, p), _rows(runs.age, row, p)
    children, told = _matrix(runs.children, shape[GENE], m, d), _rows(runs.told, row, m)
    improved, gain = np.zeros(m, np.bool_), np.zeros(m)
    invalid = 0
    for i in range(m):
        if not math.isfinite(told[i]):
            told[i] = -np.inf
            invalid += 1
    if generation == 0:
        genes[:] = children
        fitness[:] = told
        age[:] = 0
    else:
        places, parents = _rows(runs.places, row, m), _rows(runs.parents, row, m)
        accepted = np.empty(m, np.bool_)
        for i in range(m):
            accepted[i] = (not runs.defended[row + i]) or told[i] >= fitness[places[i]]
        if runs.options[ARCHIVE]:
            ring = _matrix(runs.replaced, shape[GENE], p, d)
            counts[N_REPLACED] = kernels.archive(
                genes, fitness, places, told, accepted, ring, counts[N_REPLACED]
            )
        kernels.settle(genes, fitness, age, places, parents, children, told, accepted, improved, gain)
    order = _rows(runs.order, row, p)
    _rank(rng, fitness, order)

    leader = order[0]
    near, near_order = np.empty(p), np.empty(p, np.int64)
    place, numbers = np.empty(2), np.empty(16)
    kernels.locate(genes, leader, near, place)
    kernels.ascend(near, near_order)
    kernels.describe(
        fitness,
        order,
        near,
        near_order,
        runs.operator[row : row + k],
        improved,
        gain,
        runs.weight[row : row + k],
        runs.rate[row : row + k],
        numbers,
    )
    diversity = place[0]
    level = runs.best[b]
    level[generation] = fitness[leader]
    risen = generation > 0 and level[generation] > level[generation - 1]
    stagnation = 0 if risen or generation == 0 else counts[STAGNATION] + 1
    if generation == 0:
        runs.spread[b] = diversity
    relative = diversity / runs.spread[b] if runs.spread[b] > 0.0 else 0.0
    risers = 0.0
    for kind in range(4):
        risers += numbers[10 + kind]
    success_rate = risers / m
    out = runs.history[b, generation]
    out[0] = generation / shape[GENERATIONS]
    out[1] = math.log(p)
    out[2] = math.log(d)
    out[3] = success_rate
    out[4] = 1.0 if risen else 0.0
    out[5] = stagnation / shape[GENERATIONS]
    out[6] = _improvement(level, generation, 1)
    out[7] = _improvement(level, generation, 5)
    out[8] = _improvement(level, generation, 15)
    for i in range(4):  # both gaps, skew, fitness-distance correlation
        out[9 + i] = numbers[2 + i]
    out[13] = relative
    out[14] = _clamped_log(relative, 1.0)
    out[15] = place[1] / diversity if diversity > 0.0 else 0.0
    out[16] = _clamped_log(mutation_step, diversity) if generation > 0 else 0.0
    out[17] = counts[DUPLICATES] / m
    out[18] = counts[CACHED] / m
    out[19] = invalid / m
    out[20] = counts[RESTARTED] / p
    out[21] = age[leader] / (generation + 1)
    for i in range(N_SHOWN):
        out[22 + i] = shown[i] if generation > 0 else 0.0
    for kind in range(4):
        made, won = numbers[6 + kind], numbers[10 + kind]
        out[26 + kind] = won / made if made > 0.0 else success_rate
        runs.trials[b, kind], runs.successes[b, kind] = int(made), int(won)
    runs.successful[b, 0], runs.successful[b, 1] = numbers[14], numbers[15]
    runs.asked[b, generation] = m
    counts[GENERATION], counts[STAGNATION], counts[INVALID] = generation, stagnation, invalid
    counts[SINCE_RESTART] = 0 if counts[RESTARTED] else counts[SINCE_RESTART] + 1
    counts[ASKED] = 0


@kernel(inline=True)
def _exchange(one, other):
    for i in range(one.shape[0]):
        one[i], other[i] = other[i], one[i]


@kernel(inline=True)
def _running(runs, b):
    return runs.counts[b, GENERATION] < runs.shape[b, GENERATIONS]


@kernel(numba.void(_RUNS, _RNG, _WU1, R2, _I, _I))
def ask(runs, rng, state, controls, start, stop):
    """Write the genomes to evaluate next, of the runs from ``start`` to ``stop`` that are not over.

    Those on landscapes are evaluated; the fitness of the others is to be written to ``told``.

    Parameters
    ----------
    runs : Runs
    rng : numpy.random.Generator
        Lends its code; each run brings the state.
    state : uint64 (4,)
        The memory in which that generator keeps its state.
    controls : float64 (B, 12)
        In natural units and inside their ranges; not read for the initial population.
    start, stop : int
    """
    for b in range(start, stop):
        if _running(runs, b):
            _exchange(state, runs.streams[b])
            _ask(runs, b, rng, controls[b])
            if runs.shape[b, FAMILY] >= 0:
                _evaluate(runs, b)
            _exchange(state, runs.streams[b])


@kernel(numba.void(_RUNS, _RNG, _WU1, R2, R2, _I, _I))
def tell(runs, rng, state, controls, shown, start, stop):
    """Complete the generation whose fitness stands in ``told``; parameters as in :func:`step`."""
    for b in range(start, stop):
        if _running(runs, b):
            _exchange(state, runs.streams[b])
            _tell(runs, b, rng, controls[b, STEP], shown[b])
            _exchange(state, runs.streams[b])


@kernel(numba.void(_RUNS, _RNG, _WU1, _R3, _R3, _I, _I, _I))
def step(runs, rng, state, controls, shown, n_generations, start, stop):
    """Breed, evaluate and complete some generations of runs on landscapes.

    Parameters
    ----------
    runs, rng, state, start, stop
        As in :func:`ask`.
    controls : float64 (t, B, 12)
        Of each of the next ``t`` generations; the last stands for all further ones. The initial population
        needs none, and takes none of them.
    shown : float64 (t, B, 4)
        Places in their ranges of the controls that the statistics show.
    n_generations : int
        The initial population counts as one.
    """
    last = controls.shape[0] - 1
    for b in range(start, stop):
        _exchange(state, runs.streams[b])
        used = 0
        for _ in range(n_generations):
            if not _running(runs, b):
                break
            t = min(used, last)
            if runs.counts[b, GENERATION] >= 0:
                used += 1
            _ask(runs, b, rng, controls[t, b])
            _evaluate(runs, b)
            _tell(runs, b, rng, controls[t, b, STEP], shown[t, b])
        _exchange(state, runs.streams[b])
