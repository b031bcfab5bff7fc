"""Recursions of the ensemble: gates with their memory, and sizes with theirs.

Each advances a memory it is given, row by row. Cutting the rows anywhere, and going on with the same memory,
writes the same bits.
"""

import math

import numba
import numpy as np

from compute.kernels import R1, W1, kernel

#: Places in the settings of :func:`pass_gates`.
POWER, CALM, USUAL, WILD, LEAVE, WILD_SCALE, TOLERANCE, CONTRARY, REQUIRED, CHANGE = range(10)
N_GATES = 10
#: Places in the settings of :func:`size`.
DECAY, LEAST_ROWS, TARGET, FLOOR, CAP, KELLY, KELLY_DECAY, PRIOR, LARGEST, SMALLEST, BAND = range(11)
N_SIZES = 11
#: Places in the memory of :func:`size`. HELD is what is wanted now; GATED_1 and GATED_2 what was one and two
#: bars ago.
CLOSE, OPEN, SQUARES, WEIGHT, ROWS, HELD, GATED_1, GATED_2, EARNED, EARNED_SQUARES, ACTIVE = range(11)
N_MEMORY = 11


@kernel(numba.void(R1, numba.int64, numba.int64, W1))
def trailing_rank(values, window, first, out):
    """Write the share of the rows before, within a window, that lie below each row; ties count half.

    Parameters
    ----------
    values : float64 (n,)
    window : int64
        Rows compared with each other, the newest included; at least 2.
    first : int64
        First row to be answered, at least ``window - 1``.
    out : float64 (n - first,)
        In [0, 1]; NaN where a value of the window is NaN.
    """
    for t in range(first, values.size):
        newest = values[t]
        below = 0.0
        known = not math.isnan(newest)
        for i in range(t - window + 1, t):
            known &= not math.isnan(values[i])
            below += 1.0 if values[i] < newest else (0.5 if values[i] == newest else 0.0)
        out[t - first] = below / (window - 1) if known else np.nan


@kernel(numba.void(R1, R1, R1, R1, R1, W1, W1))
def pass_gates(wish, confidence, state, confirming, settings, memory, out):
    """Advance the gates: what of a wish may be wanted, float64 in [-1, 1]; 0 is flat.

    Parameters
    ----------
    wish : float64 (n,)
        NaN is flat.
    confidence : float64 (n,)
        Of the regime; its power scales the wish.
    state : float64 (n,)
        Volatility: below 0 calm, 0 usual, above 0 wild; NaN is flat.
    confirming : float64 (n,)
        Signal that must not disagree; NaN has no opinion.
    settings : float64 (10,)
        Power of the confidence; least wish that opens a position in calm, usual and wild volatility; share of
        it at which a position is left; factor in wild volatility; disagreement that is tolerated, and the
        factor beyond it; whether an opinion is required; least change.
    memory : float64 (1,)
        What is held.
    out : float64 (n,)
    """
    for t in range(wish.size):
        x = wish[t]
        if settings[POWER] > 0.0:
            x *= confidence[t] ** settings[POWER]
        enter = settings[USUAL]
        if math.isnan(state[t]):
            x = np.nan
        elif state[t] < 0.0:
            enter = settings[CALM]
        elif state[t] > 0.0:
            enter = settings[WILD]
            x *= settings[WILD_SCALE]
        if math.isnan(confirming[t]):
            if settings[REQUIRED] > 0.0:
                x = np.nan
        elif (x > 0.0 and -confirming[t] > settings[TOLERANCE]) or (
            x < 0.0 and confirming[t] > settings[TOLERANCE]
        ):
            x *= settings[CONTRARY]
        held = memory[0]
        wanted = 0.0
        if not math.isnan(x) and x != 0.0:
            stays = held * x > 0.0
            if abs(x) >= (settings[LEAVE] * enter if stays else enter):
                wanted = held if stays and abs(x - held) <= settings[CHANGE] else x
        memory[0] = wanted
        out[t] = wanted


@kernel(numba.void(R1, R1, R1, R1, R1, W1, W1))
def size(gated, opens, closes, steps, settings, memory, out):
    """Advance the sizes: the exposure wanted from the next open, fraction of equity.

    Parameters
    ----------
    gated : float64 (n,)
    opens, closes : float64 (n,)
        Prices of the bars.
    steps : float64 (n,)
        Bars since the bar before, 1 where none is missing; of no meaning in the very first row.
    settings : float64 (11,)
        Decay per bar of squared returns; returns until the volatility is known; target, per bar, infinite
        for none; least volatility, per bar; largest factor; share of Kelly, 0 for none; its decay per bar;
        bars that its mean is shrunk by; largest and smallest exposure; least change.
    memory : float64 (11,)
    out : float64 (n,)
    """
    for t in range(gated.size):
        if memory[CLOSE] > 0.0:
            fades = settings[DECAY] ** steps[t]
            moved = math.log(closes[t] / memory[CLOSE])
            # A move over missing bars is that of all of them: its square is shared among them.
            memory[SQUARES] = fades * memory[SQUARES] + (1.0 - fades) * (moved * moved / steps[t])
            memory[WEIGHT] = fades * memory[WEIGHT] + (1.0 - fades)
            memory[ROWS] += 1.0
            if memory[GATED_2] != 0.0:
                # What was decided two closes ago was bought at the open before this bar's, and is over now.
                paid = memory[GATED_2] * (opens[t] / memory[OPEN] - 1.0)
                memory[EARNED] = settings[KELLY_DECAY] * memory[EARNED] + paid
                memory[EARNED_SQUARES] = settings[KELLY_DECAY] * memory[EARNED_SQUARES] + paid * paid
                memory[ACTIVE] = settings[KELLY_DECAY] * memory[ACTIVE] + 1.0
        memory[CLOSE], memory[OPEN] = closes[t], opens[t]
        memory[GATED_2], memory[GATED_1] = memory[GATED_1], gated[t]

        factor = settings[CAP]
        if settings[TARGET] < np.inf:
            if memory[ROWS] >= settings[LEAST_ROWS]:
                volatility = max(math.sqrt(memory[SQUARES] / memory[WEIGHT]), settings[FLOOR])
                factor = min(factor, settings[TARGET] / volatility)
            else:
                factor = 0.0
        if settings[KELLY] > 0.0:
            best = 0.0
            if memory[EARNED] > 0.0:
                sure = memory[ACTIVE] / (memory[ACTIVE] + settings[PRIOR])
                best = settings[KELLY] * sure * memory[EARNED] / memory[EARNED_SQUARES]
            factor = min(factor, best)
        if settings[TARGET] == np.inf and settings[KELLY] == 0.0:
            factor = min(factor, 1.0)
        wanted = min(max(gated[t] * factor, settings[SMALLEST]), settings[LARGEST])
        held = memory[HELD]
        if wanted == 0.0:
            held = 0.0
        elif not held * wanted > 0.0 or abs(wanted - held) > settings[BAND]:
            held = wanted
        memory[HELD] = held
        out[t] = held
