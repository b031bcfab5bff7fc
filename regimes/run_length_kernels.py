"""Recursion of the Bayesian online change points: how old the present run is, and of which regime.

A run of length ``r`` is the last ``r`` known bars. Everything a run says about its next bar depends on two
sums over its bars, so each run length keeps two numbers, and one bar moves all of them up by one length.
"""

import math

import numba
import numpy as np

from compute.kernels import R1, R2, W2, kernel
from regimes.kernels import R3

#: What a run foretells of the bar after it, per regime and length; of length 0 are runs about to begin.
#: The bar's level, less the echo of the bar before, is normal around ``MEAN + GAIN * level sum`` with
#: precision ``2 * LEVEL_WEIGHT``; its move around ``DRIFT * move sum`` with precision ``2 * MOVE_WEIGHT``.
#: HEIGHT is the joint density at its peak.
MEAN, GAIN, DRIFT, LEVEL_WEIGHT, MOVE_WEIGHT, HEIGHT = range(6)
N_TABLE = 6
#: What `advance` notes of each row.
CHANGE, AGE, EVIDENCE, RUN, REGIME = range(5)
N_JOURNAL = 5
#: Rows of the memory beside one of masses per regime: sums of level and of move per run; the bar before and
#: the number of bars seen.
N_SUMS = 3
# Masses are kept on this grid. Two streams that began at different rows draw together until they round to the
# same masses, and are then the same for ever; and a run that cannot have begun costs nothing.
GRID = 2.0**40
# Observations likewise: what a running mean rounds differently from another start must not tell starts apart.
OBSERVED_GRID = 2.0**20


@kernel(numba.void(R2, R3, R2, R1, numba.float64, numba.float64, numba.int64, W2, W2, W2))
def advance(observations, table, successor, share, hazard, echo, alarm_bars, memory, out, journal):
    """Advance the posterior of run length and regime (Adams and MacKay 2007), row by row.

    Before each bar the run ends with probability ``hazard``; the bar is then the first of a new run, whose
    regime ``successor`` draws. A run of length r counts the bar itself, so r is at least 1, and a change is
    judged by the bar that it begins with. Row t uses rows up to and including t. An unknown row repeats the
    row before it: the runs grow by known bars only.

    Runs of R bars or more are one: their masses are added up, so none is lost, and each of them foretells
    from its last R bars. The memory is therefore finite.

    Parameters
    ----------
    observations : float64 (n, 2)
        Level and move, standardized. A row with a NaN is unknown.
    table : float64 (k, N_TABLE, R + 1)
        What runs foretell.
    successor : float64 (k, k)
        ``successor[i, j]`` = P(a new run has regime j | the run before it had regime i).
    share : float64 (k,)
        Probabilities of the regime of the very first run.
    hazard : float64
        Probability that a run ends, per bar.
    echo : float64
        Autocorrelation at one bar of the level within a run.
    alarm_bars : int64
        A change is recent when the run is at most this long; at most R.
    memory : float64 (k + N_SUMS, R)
        In and out; zeros before the first row. Column r - 1 belongs to run length r.
    out : float64 (n, k)
        Filtered probabilities of the regimes, written in place; NaN before the first known row.
    journal : float64 (n, N_JOURNAL)
        Written in place. CHANGE: probability that a change happened within the last ``alarm_bars`` bars (the
        beginning of the stream is none). AGE: expected length of the run, where longer ones count as R.
        EVIDENCE: log density of the row given all rows before it, nats; 0 in unknown rows. RUN, REGIME: the
        most probable pair. NaN before the first known row.

    Source: Adams and MacKay (2007), arXiv 0710.3742; Fearnhead and Liu (2007), JRSS B 69.
    """
    n_regimes = share.size
    longest = memory.shape[1]
    levels = n_regimes
    moves = n_regimes + 1
    rest = n_regimes + 2
    power, carried = np.empty(longest), np.empty(longest)
    ended = np.zeros(n_regimes)  # mass of each regime before the row
    for i in range(n_regimes):
        for r in range(longest):
            ended[i] += memory[i, r]
    for t in range(observations.shape[0]):
        known = not (math.isnan(observations[t, 0]) or math.isnan(observations[t, 1]))
        evidence = 0.0
        scale = GRID
        if known:
            level = math.floor(observations[t, 0] * OBSERVED_GRID + 0.5) / OBSERVED_GRID
            move = math.floor(observations[t, 1] * OBSERVED_GRID + 0.5) / OBSERVED_GRID
            began = memory[rest, 1] > 0.0
            fresh = level - echo * memory[rest, 0]
            before = 0.0
            total = 0.0
            for i in range(n_regimes):
                before += ended[i]
            for j in range(n_regimes):
                mass = 0.0
                for i in range(n_regimes):
                    mass += ended[i] * successor[i, j]
                away = level - table[j, MEAN, 0]
                density = table[j, HEIGHT, 0] * math.exp(
                    -table[j, LEVEL_WEIGHT, 0] * away * away - table[j, MOVE_WEIGHT, 0] * move * move
                )
                out[t, j] = density * (hazard * mass if began else share[j])
                total += out[t, j]
            for j in range(n_regimes):
                for r in range(longest):
                    away = fresh - table[j, MEAN, r + 1] - table[j, GAIN, r + 1] * memory[levels, r]
                    off = move - table[j, DRIFT, r + 1] * memory[moves, r]
                    power[r] = -table[j, LEVEL_WEIGHT, r + 1] * away * away
                    power[r] -= table[j, MOVE_WEIGHT, r + 1] * off * off
                    carried[r] = (1.0 - hazard) * memory[j, r] * table[j, HEIGHT, r + 1]
                for r in range(longest):
                    carried[r] *= math.exp(power[r])
                    total += carried[r]
                memory[j, 0] = out[t, j]  # the new run
                for r in range(1, longest):
                    memory[j, r] = carried[r - 1]
                memory[j, longest - 1] += carried[longest - 1]
            for r in range(longest - 1, 0, -1):
                memory[levels, r] = memory[levels, r - 1] + (1.0 - echo) * fresh
                memory[moves, r] = memory[moves, r - 1] + move
            memory[levels, 0] = (1.0 - echo * echo) * level
            memory[moves, 0] = move
            memory[rest, 0] = level
            memory[rest, 1] = min(memory[rest, 1] + 1.0, longest + 1.0)
            evidence = math.log(total / before if began else total)
            scale = GRID / total
        if not memory[rest, 1] > 0.0:
            for j in range(n_regimes):
                out[t, j] = math.nan
            for i in range(N_JOURNAL):
                journal[t, i] = math.nan
            continue
        # A run as old as the stream began with it, and not by a change.
        recent = min(alarm_bars, int(memory[rest, 1]) - 1)
        total = 0.0
        change = 0.0
        age = 0.0
        best = -1.0
        for j in range(n_regimes):
            mass = 0.0
            for r in range(longest):
                one = math.floor(memory[j, r] * scale + 0.5) / GRID  # leaves masses as they are where unknown
                memory[j, r] = one
                mass += one
                age += one * (r + 1)
                change += one if r < recent else 0.0
                if one > best:
                    best = one
                    journal[t, RUN] = r + 1
                    journal[t, REGIME] = j
            ended[j] = mass
            total += mass
        for j in range(n_regimes):
            out[t, j] = ended[j] / total
        journal[t, CHANGE] = min(change / total, 1.0)
        journal[t, AGE] = age / total
        journal[t, EVIDENCE] = evidence
