"""Compiled loops of the genetic algorithm: decoding, digests and the statistics of a population.

``ga.breeding_kernels`` makes the offspring.
"""

import math

import numba
import numpy as np

from compute.kernels import R1, R2, RB1, RI1, W1, W2, kernel

_BOOL, _INT32 = numba.boolean[::1], numba.int32[::1]
_RO_BOOL = numba.types.Array(numba.boolean, 1, "C", readonly=True)
_WI = numba.int64[::1]
_W_U2 = numba.uint64[:, ::1]
_RO_U2 = numba.types.Array(numba.uint64, 2, "C", readonly=True)
_RO_INT32 = numba.types.Array(numba.int32, 1, "C", readonly=True)

#: Codes of the kinds of genes, in the order of ``ga.space.KINDS``.
REAL, INTEGER, LOG, CHOICE = 0, 1, 2, 3
#: Code of an immigrant, the position in ``ga.progress.OPERATORS``.
IMMIGRANT = 3
#: Up to so many numbers are sorted by counting.
_FEW = 256
#: The half of a slot of a hash table that holds a row; the other holds the leading half of a digest.
_ROW_BITS = numba.int64(2**32 - 1)


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
    span, others = np.empty(d), np.empty(d, np.int64)
    n = 0
    for j in range(d):
        span[j] = math.log(high[j] / low[j]) if kind[j] == LOG else high[j] - low[j]
        if kind[j] != REAL:
            others[n] = j
            n += 1
    for i in range(p):
        for j in range(d):
            value = high[j] if genes[i, j] >= 1.0 else low[j] + genes[i, j] * span[j]
            # Rounding may step over a bound; and -0.0 becomes 0.0: equal values have equal bytes.
            out[i, j] = min(max(value, low[j]), high[j]) + 0.0
        for k in range(n):
            j = others[k]
            g = genes[i, j]
            if g >= 1.0:
                value = high[j]  # of whole numbers and choices, the last bin holds its upper edge
            elif kind[j] == LOG:
                value = low[j] * math.exp(g * span[j])
            else:
                value = low[j] + math.floor(g * (span[j] + 1.0))
            value = min(max(value, low[j]), high[j])
            if kind[j] == CHOICE:
                value = table[j, int(value)]
            out[i, j] = value + 0.0


@kernel(inline=True)
def _rotated(word, n):
    return (word << numba.uint64(n)) | (word >> numba.uint64(64 - n))


@kernel(inline=True)
def _mixed(word):
    word ^= word >> numba.uint64(33)
    word *= numba.uint64(0xFF51AFD7ED558CCD)
    word ^= word >> numba.uint64(33)
    word *= numba.uint64(0xC4CEB9FE1A85EC53)
    return word ^ (word >> numba.uint64(33))


@kernel(inline=True)
def _finished(a, b):
    a += b
    b += a
    a, b = _mixed(a), _mixed(b)
    a += b
    return a, b + a


@kernel(numba.void(R2, _W_U2))
def digest(values, out):
    """Write a digest of 16 bytes per row: MurmurHash3 x64 128 of its bytes, seed 0.

    Among ``n`` different rows two share a digest with a probability of about ``n^2 / 2^129``: for ten
    million rows, 1e-25.

    Parameters
    ----------
    values : float64 (p, d)
    out : uint64 (p, 2)
        Written in place.

    Source: Appleby (2016), MurmurHash3, public domain.
    """
    p, d = values.shape
    words = values.view(np.uint64)
    first, second = numba.uint64(0x87C37B91114253D5), numba.uint64(0x4CF5AD432745937F)
    five, length = numba.uint64(5), numba.uint64(8 * d)
    for top in range(0, p, 2):
        # Two rows side by side, since each step of one waits for the step before; the last may be alone.
        low = min(top + 1, p - 1)
        a = b = c = e = numba.uint64(0)
        for j in range(0, d - 1, 2):
            a ^= _rotated(words[top, j] * first, 31) * second
            c ^= _rotated(words[low, j] * first, 31) * second
            a = (_rotated(a, 27) + b) * five + numba.uint64(0x52DCE729)
            c = (_rotated(c, 27) + e) * five + numba.uint64(0x52DCE729)
            b ^= _rotated(words[top, j + 1] * second, 33) * first
            e ^= _rotated(words[low, j + 1] * second, 33) * first
            b = (_rotated(b, 31) + a) * five + numba.uint64(0x38495AB5)
            e = (_rotated(e, 31) + c) * five + numba.uint64(0x38495AB5)
        if d % 2:
            a ^= _rotated(words[top, d - 1] * first, 31) * second
            c ^= _rotated(words[low, d - 1] * first, 31) * second
        out[top, 0], out[top, 1] = _finished(a ^ length, b ^ length)
        out[low, 0], out[low, 1] = _finished(c ^ length, e ^ length)


@kernel(numba.void(R2, R1, R1, RB1, R2, _W_U2))
def identify(genes, low, high, kind, table, out):
    """Write the digests, uint64 (p, 2), of what genes decode to; :func:`decode` and :func:`digest` in one."""
    values = np.empty_like(genes)
    decode(genes, low, high, kind, table, values)
    digest(values, out)


@kernel(inline=True)
def _spread(genes, centre):
    # Root mean square distance to the centre, which is written. Sums per column: the processor adds several
    # at once, where one long sum would wait for each addition.
    p, d = genes.shape
    squares = np.zeros(d)
    centre[:] = 0.0
    for i in range(p):
        for j in range(d):
            centre[j] += genes[i, j]
    for j in range(d):
        centre[j] /= p
    for i in range(p):
        for j in range(d):
            squares[j] += (genes[i, j] - centre[j]) ** 2
    total = 0.0
    for j in range(d):
        total += squares[j]
    return math.sqrt(total / (p * d))


@kernel(numba.float64(R2))
def diversity(genes):
    """Return the root mean square distance of a population to its centre, per gene.

    Uniformly random genes give 0.29, a population of clones gives 0.

    Parameters
    ----------
    genes : float64 (p, d)
    """
    return _spread(genes, np.empty(genes.shape[1]))


@kernel(numba.void(R2, numba.int64, W1, W1))
def locate(genes, best, near, out):
    """Write where a population stands around its best genome.

    Parameters
    ----------
    genes : float64 (p, d)
    best : int
        Row of the best genome.
    near : float64 (p,)
        Squared distance of each genome to the best, written in place.
    out : float64 (2,)
        Diversity, and the distance of the best to the centre, per gene; written in place.
    """
    p, d = genes.shape
    centre = np.empty(d)
    out[0] = _spread(genes, centre)
    total = 0.0
    for j in range(d):
        total += (centre[j] - genes[best, j]) ** 2
    out[1] = math.sqrt(total / d)
    for i in range(p):
        even = odd = 0.0
        for j in range(0, d - 1, 2):
            even += (genes[i, j] - genes[best, j]) ** 2
            odd += (genes[i, j + 1] - genes[best, j + 1]) ** 2
        if d % 2:
            even += (genes[i, d - 1] - genes[best, d - 1]) ** 2
        near[i] = even + odd


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


@kernel(numba.void(R1, _WI))
def ascend(values, out):
    """Write the indices that sort values upwards; equals stay in the order in which they stand.

    Up to 256 values are sorted by counting how many are smaller than each: more comparisons than a sort
    needs, but several at once and none that is a guess, which takes a fifth of the time.

    Parameters
    ----------
    values : float64 (n,)
        Not NaN.
    out : int64 (n,)
        Written in place.
    """
    n = values.shape[0]
    if n > _FEW:
        out[:] = np.argsort(values, kind="mergesort")
        return
    for i in range(n):
        out[i] = -1
    for i in range(n):
        value, place = values[i], 0
        for j in range(n):
            place += values[j] < value
        while out[place] >= 0:  # taken by an equal one before
            place += 1
        out[place] = i


@kernel(inline=True)
def _quantile(values, n, share):
    # Linear interpolation in the first n values.
    place = share * (n - 1)
    i = int(place)
    return values[i] + (place - i) * (values[min(i + 1, n - 1)] - values[i])


@kernel(numba.void(R1, RI1, R1, RI1, RB1, _RO_BOOL, R1, R1, R1, W1))
def describe(fitness, order, near, near_order, operator, improved, gain, weight, rate, out):
    """Write the statistics of one generation.

    Parameters
    ----------
    fitness : float64 (p,)
        Of the population: finite, or -inf for the invalid.
    order : int64 (p,)
        Rows from best to worst.
    near : float64 (p,)
        Increasing in the distance of each individual to the best.
    near_order : int64 (p,)
        Rows from near to far.
    operator : int8 (k,)
        How the first ``k`` offspring were made, from 0 to 3; further ones are immigrants, 3.
    improved : bool (m,)
        Whether an offspring is fitter than its parent; ``m >= k``.
    gain : float64 (m,)
        Fitness minus that of the parent; read where improved. May be infinite: counts like the largest
        finite one.
    weight, rate : float64 (k,)
        F and CR of the children of difference vectors, NaN for others.
    out : float64 (16,)
        Written in place: median; mean of the finite values (NaN for none); (best - median) / (best - worst)
        and (best - upper quartile) / (best - worst) of the finite values; their quartile skew (q75 + q25 -
        2 median) / (q75 - q25); Spearman correlation of fitness with the distance to the best; trials of
        each operator (4); its successes (4); the Lehmer means ``sum(g x^2) / sum(g x)`` of F and of CR
        over the successful children of difference vectors, weighted by their gain g, NaN without any.

    Source: Tanabe and Fukunaga (2013), SHADE, equations 7 to 9; here the Lehmer mean for both.
    """
    p = fitness.shape[0]
    ranked = np.empty(p)
    ascending = np.empty(p, np.int64)
    n = 0
    total = 0.0
    for i in range(p):
        ascending[i] = order[p - 1 - i]
        ranked[i] = fitness[order[i]]
        if ranked[i] > -np.inf:  # the invalid ones stand last
            n += 1
            total += ranked[i]
    out[0] = 0.5 * (ranked[(p - 1) // 2] + ranked[p // 2])
    out[1] = total / n if n else math.nan
    out[2:5] = 0.0
    if n > 1 and ranked[0] > ranked[n - 1]:
        upper = _quantile(ranked, n, 0.25)
        median = _quantile(ranked, n, 0.5)
        lower = _quantile(ranked, n, 0.75)
        span = ranked[0] - ranked[n - 1]
        out[2] = (ranked[0] - median) / span
        out[3] = (ranked[0] - upper) / span
        if upper > lower:
            out[4] = (upper + lower - 2.0 * median) / (upper - lower)
    out[5] = rank_correlation(fitness, ascending, near, near_order)

    k = operator.shape[0]
    out[6:14] = 0.0
    largest = 0.0
    found = False
    for i in range(improved.shape[0]):
        kind = operator[i] if i < k else IMMIGRANT
        out[6 + kind] += 1.0
        if improved[i]:
            out[10 + kind] += 1.0
            if i < k and not math.isnan(weight[i]):
                found = True
                if gain[i] < np.inf:
                    largest = max(largest, gain[i])
    if largest <= 0.0:  # only children of parents without a valid fitness
        largest = 1.0
    weight_1 = weight_2 = rate_1 = rate_2 = 0.0
    for i in range(k):
        if improved[i] and not math.isnan(weight[i]):
            share = min(gain[i] / largest, 1.0)
            weight_1 += share * weight[i]
            weight_2 += share * weight[i] ** 2
            rate_1 += share * rate[i]
            rate_2 += share * rate[i] ** 2
    out[14] = out[15] = math.nan
    if found:  # means of zeros are zero
        out[14] = weight_2 / weight_1 if weight_1 > 0.0 else 0.0
        out[15] = rate_2 / rate_1 if rate_1 > 0.0 else 0.0


@kernel(inline=True)
def _compare(fitness, parents, offspring_fitness, improved, gain):
    for i in range(parents.shape[0]):
        rival = fitness[parents[i]]
        improved[i] = offspring_fitness[i] > rival
        gain[i] = offspring_fitness[i] - rival if improved[i] else 0.0


@kernel(numba.void(R2, R1, _RO_INT32, RI1, RI1, R2, R1, _RO_BOOL, W2, W1, _INT32, _BOOL, W1))
def succeed(
    genes,
    fitness,
    age,
    places,
    parents,
    offspring,
    offspring_fitness,
    accepted,
    out,
    values,
    ages,
    improved,
    gain,
):
    """Write the next generation: the accepted offspring in their places, everybody else a generation older.

    Parameters
    ----------
    genes, fitness, age : float64 (p, d), float64 (p,), int32 (p,)
        The population before.
    places, parents : int64 (m,)
        Rows that each offspring is meant for, all different, and descends from.
    offspring, offspring_fitness : float64 (m, d), float64 (m,)
    accepted : bool (m,)
    out, values, ages : float64 (p, d), float64 (p,), int32 (p,)
        Genes, fitness and age after, written in place.
    improved, gain : bool (m,), float64 (m,)
        Which offspring are fitter than their parent, and by how much (0 for the others), written in place.
    """
    _compare(fitness, parents, offspring_fitness, improved, gain)
    p, d = genes.shape
    source = np.full(p, -1, np.int64)
    for i in range(places.shape[0]):
        if accepted[i]:
            source[places[i]] = i
    for i in range(p):
        row = source[i]
        if row >= 0:
            values[i] = offspring_fitness[row]
            ages[i] = 0
            for j in range(d):
                out[i, j] = offspring[row, j]
        else:
            values[i] = fitness[i]
            ages[i] = age[i] + 1
            for j in range(d):
                out[i, j] = genes[i, j]


@kernel(numba.void(W2, W1, _INT32, RI1, RI1, R2, R1, _RO_BOOL, _BOOL, W1))
def settle(genes, fitness, age, places, parents, offspring, offspring_fitness, accepted, improved, gain):
    """Turn a population into the next generation in place; all else as in :func:`succeed`."""
    _compare(fitness, parents, offspring_fitness, improved, gain)
    for i in range(age.shape[0]):
        age[i] += 1
    for i in range(places.shape[0]):
        if accepted[i]:
            place = places[i]
            fitness[place] = offspring_fitness[i]
            age[place] = 0
            for j in range(genes.shape[1]):
                genes[place, j] = offspring[i, j]


@kernel(numba.void(_W_U2, numba.int64[::1], numba.int64, _RO_U2, _BOOL))
def enter(log, slots, n, digests, new):
    """Enter digests into a hash table with open addressing and linear probing.

    Parameters
    ----------
    log : uint64 (c, 2)
        The digests entered so far in its first ``n`` rows; new ones are appended. Must have room.
    slots : int64 (2^k,)
        Row of the digest in each slot plus 1, 0 for a free slot; at least one stays free. The upper half of
        a slot is that of the digest: nearly all that differ are told apart without a look at the log.
    n : int
    digests : uint64 (m, 2)
        Already well mixed: their first word is their hash.
    new : bool (m,)
        Written in place: whether the digest was neither known before nor stood in an earlier row.
    """
    mask = numba.uint64(slots.shape[0] - 1)
    for i in range(digests.shape[0]):
        slot = digests[i, 0] & mask
        upper = numba.int64(digests[i, 1]) & ~_ROW_BITS
        new[i] = True
        while slots[slot] != 0:
            if slots[slot] & ~_ROW_BITS == upper:
                row = (slots[slot] & _ROW_BITS) - 1
                if log[row, 0] == digests[i, 0] and log[row, 1] == digests[i, 1]:
                    new[i] = False
                    break
            slot = (slot + numba.uint64(1)) & mask
        if new[i]:
            log[n, 0] = digests[i, 0]
            log[n, 1] = digests[i, 1]
            n += 1
            slots[slot] = upper | n


@kernel(numba.boolean(R1, RI1, _WI))
def descend(fitness, ascending, out):
    """Write the rows of a population from best to worst, and return whether two of them are equally fit.

    Parameters
    ----------
    fitness : float64 (p,)
        Not NaN.
    ascending : int64 (p,)
        Its rows from worst to best.
    out : int64 (p,)
        Written in place.
    """
    p = fitness.shape[0]
    tied = False
    for i in range(p):
        out[i] = ascending[p - 1 - i]
        tied |= i > 0 and fitness[ascending[i]] == fitness[ascending[i - 1]]
    return tied


@kernel(numba.int64(R1, R2, _RO_U2, RI1, W1, W2, _W_U2, _WI, numba.int64))
def enshrine(fitness, genes, keys, born, losses, kept, kept_keys, kept_born, n):
    """Enter genomes into a hall of fame, and return how many it holds then.

    Parameters
    ----------
    fitness, genes, keys, born : float64 (m,), float64 (m, d), uint64 (m, 2), int64 (m,) or (1,)
        Of the newcomers; one generation of birth stands for all.
    losses, kept, kept_keys, kept_born : float64 (s,), float64 (s, d), uint64 (s, 2), int64 (s,)
        The hall in its first ``n`` rows, best first: minus the fitness, genes, keys, generations. Changed in
        place.
    n : int
    """
    size, d = kept.shape
    for i in range(fitness.shape[0]):
        loss = -fitness[i]
        if not abs(loss) < np.inf or (n == size and loss >= losses[n - 1]):
            continue
        known = False
        for k in range(n):
            known |= kept_keys[k, 0] == keys[i, 0] and kept_keys[k, 1] == keys[i, 1]
        if known:
            continue
        n = min(n + 1, size)
        k = n - 1
        while k > 0 and losses[k - 1] > loss:  # of equals the earlier one stands higher
            losses[k] = losses[k - 1]
            kept_born[k] = kept_born[k - 1]
            for j in range(2):
                kept_keys[k, j] = kept_keys[k - 1, j]
            for j in range(d):
                kept[k, j] = kept[k - 1, j]
            k -= 1
        losses[k] = loss
        kept_born[k] = born[i] if born.shape[0] > 1 else born[0]
        for j in range(2):
            kept_keys[k, j] = keys[i, j]
        for j in range(d):
            kept[k, j] = genes[i, j]
    return n


@kernel(numba.int64(R2, R1, RI1, R1, _RO_BOOL, W2, numba.int64))
def archive(genes, fitness, places, offspring_fitness, accepted, ring, n):
    """Archive those that fitter offspring replace, and return how many have been archived ever.

    Parameters
    ----------
    genes, fitness : float64 (p, d), float64 (p,)
        The population before.
    places, offspring_fitness, accepted : int64 (m,), float64 (m,), bool (m,)
    ring : float64 (c, d)
        Written in place; when it is full, the oldest makes room.
    n : int
        How many were archived before.
    """
    for i in range(places.shape[0]):
        place = places[i]
        if accepted[i] and offspring_fitness[i] > fitness[place]:
            row = n % ring.shape[0]
            for j in range(genes.shape[1]):
                ring[row, j] = genes[place, j]
            n += 1
    return n
