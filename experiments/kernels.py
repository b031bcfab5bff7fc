"""Compiled loops of the evidence: every split of combinatorially symmetric cross-validation."""

import numba
import numpy as np

from compute.kernels import R1, R2, W2, kernel


@kernel(inline=True)
def half_sharpes(chosen, wanted, rows, sums, squares, rounding, scale):
    """Return the Sharpe ratio of each trial over half of the blocks, float64 (m,), times ``scale``, whole.

    Block by block instead of one matrix product: each trial is then summed in the same order wherever its
    column stands, so that equal trials stay exactly equal and share a rank. Whole numbers because one
    profitable bar among k gives 1/sqrt(k) whatever its size: a tie that rounding must not break.
    """
    n = 0.0
    total = np.zeros(sums.shape[1])
    square = np.zeros(sums.shape[1])
    for block in range(rows.size):
        if chosen[block] == wanted:
            n += rows[block]
            total += sums[block]
            square += squares[block]
    mean = total / n
    variance = (square - total * mean) / (n - 1.0)
    still = variance <= rounding * square / n
    sharpe = np.rint(mean / np.sqrt(np.where(still, 1.0, variance)) * scale)
    return np.where(still, 0.0, sharpe)


@kernel(numba.void(numba.types.Array(numba.boolean, 2, "C"), R1, R2, R2, numba.float64, numba.float64, W2))
def judge_winners(chosen, rows, sums, squares, rounding, scale, out):
    """Rank the winner of each half on the other half, for halves and then for their complements.

    Parameters
    ----------
    chosen : bool (h, blocks)
        The blocks of each half.
    rows : float64 (blocks,)
        Bars of each block.
    sums, squares : float64 (blocks, m)
        Of each trial's returns per bar.
    rounding : float
        A variance this small beside the mean square is rounding, not movement.
    scale : float
        Sharpe ratios are compared as multiples of ``1 / scale``.
    out : float64 (2 h, 3)
        Rank of the winner out of sample, 1 to m, equals sharing their average; its Sharpe ratio in sample;
        and out of sample.
    """
    h = chosen.shape[0]
    if chosen.shape[1] != rows.size or sums.shape[0] != rows.size or squares.shape != sums.shape:
        raise ValueError("chosen, sums and squares must have a column or a row per block")
    if out.shape[0] != 2 * h or out.shape[1] != 3:
        raise ValueError("out must have two rows per half and three columns")
    for split in range(h):
        here = half_sharpes(chosen[split], True, rows, sums, squares, rounding, scale)
        there = half_sharpes(chosen[split], False, rows, sums, squares, rounding, scale)
        for way in range(2):
            train = here if way == 0 else there
            test = there if way == 0 else here
            winner = np.argmax(train)
            result = test[winner]
            row = way * h + split
            out[row, 0] = np.sum(test < result) + (np.sum(test == result) + 1) / 2
            out[row, 1] = train[winner] / scale
            out[row, 2] = result / scale
