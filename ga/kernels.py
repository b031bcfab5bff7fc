"""Compiled loops of the genetic algorithm: decoding, diversity and the statistics of a population."""

import math

import numba
import numpy as np

from compute.kernels import R1, R2, RB1, RI1, W1, W2, kernel

#: Codes of the kinds of genes, in the order of ``ga.space.KINDS``.
REAL, INTEGER, LOG, CHOICE = 0, 1, 2, 3


@kernel(numba.void(R2, R1, R1, RB1, R2, W2))
def decode(genes, low, high, kind, table, out):
    """Write the natural values of genes.

    Row by row and through the scalar ``exp``, so that one genome decodes to the same bits alone and in
    any batch; vectorised libraries do not promise that.

    Parameters
    ----------
    genes : float64 (p, d)
        In the unit cube.
    low, high : float64 (d,)
        Natural bounds; of a choice, 0 and the last position.
    kind : int8 (d,)
        REAL, INTEGER, LOG or CHOICE.
    table : float64 (d, c)
        Value of each position of a choice gene; other rows are not read.
    out : float64 (p, d)
        Written in place.
    """
    p, d = genes.shape
    for i in range(p):
        for j in range(d):
            g = genes[i, j]
            if g >= 1.0:
                value = high[j]  # of whole numbers and choices, the last bin holds its upper edge
            elif kind[j] == REAL:
                value = low[j] + g * (high[j] - low[j])
            elif kind[j] == LOG:
                value = low[j] * math.exp(g * math.log(high[j] / low[j]))
            else:
                value = low[j] + math.floor(g * (high[j] - low[j] + 1.0))
            value = min(max(value, low[j]), high[j])  # rounding may step over a bound
            if kind[j] == CHOICE:
                value = table[j, int(value)]
            out[i, j] = value + 0.0  # -0.0 becomes 0.0: equal values have equal bytes


@kernel(numba.float64(R2))
def diversity(genes):
    """Return the root mean square distance of a population to its centre, per gene.

    Uniformly random genes give 0.29, a population of clones gives 0.

    Parameters
    ----------
    genes : float64 (p, d)
    """
    p, d = genes.shape
    centre = np.zeros(d)
    for i in range(p):
        for j in range(d):
            centre[j] += genes[i, j]
    for j in range(d):
        centre[j] /= p
    total = 0.0
    for i in range(p):
        for j in range(d):
            total += (genes[i, j] - centre[j]) ** 2
    return math.sqrt(total / (p * d))


@kernel(numba.void(R2, numba.int64, W1))
def distances(genes, index, out):
    """Write the distance of each genome to the one at ``index``, and last that of the centre, per gene.

    Parameters
    ----------
    genes : float64 (p, d)
    index : int
        Row of the genome to measure from.
    out : float64 (p + 1,)
        Root mean square difference per gene, written in place.
    """
    p, d = genes.shape
    centre = np.zeros(d)
    for i in range(p):
        total = 0.0
        for j in range(d):
            centre[j] += genes[i, j]
            total += (genes[i, j] - genes[index, j]) ** 2
        out[i] = math.sqrt(total / d)
    total = 0.0
    for j in range(d):
        total += (centre[j] / p - genes[index, j]) ** 2
    out[p] = math.sqrt(total / d)


@kernel(numba.float64(R1, RI1, R1, RI1))
def rank_correlation(x, x_order, y, y_order):
    """Return Spearman's rank correlation; ties share their mean rank; 0 if either side is constant.

    Ranks and not values, because one heavily penalised genome would otherwise decide the answer.

    Parameters
    ----------
    x, y : float64 (n,)
    x_order, y_order : int64 (n,)
        Indices that sort ``x`` and ``y`` (either direction, but the same for both).
    """
    n = x.shape[0]
    ranks = np.empty((2, n))
    for side in range(2):
        values = x if side == 0 else y
        order = x_order if side == 0 else y_order
        start = 0
        while start < n:
            stop = start + 1
            while stop < n and values[order[stop]] == values[order[start]]:
                stop += 1
            for i in range(start, stop):
                ranks[side, order[i]] = 0.5 * (start + stop - 1)
            start = stop
    middle = 0.5 * (n - 1)
    xy = xx = yy = 0.0
    for i in range(n):
        a = ranks[0, i] - middle
        b = ranks[1, i] - middle
        xy += a * b
        xx += a * a
        yy += b * b
    if xx <= 0.0 or yy <= 0.0:
        return 0.0
    return xy / math.sqrt(xx * yy)
