"""A slow and obvious version of the Markov-switching filter of whole bars, with brute integration."""

import math

import numpy as np

from market.sources.kernels import extremes_density
from regimes.range_kernels import DRIFT, ECHO, HALF_DOF, MEMORY, SHOCK, SHOCK_LIMIT, VOLATILITY

# Five times as fine as the kernel's nodes, and wider; another source of the series (the generator's).
_LOG_Y = np.arange(-6.0, 4.0, 0.07)


def bar_log_density(up, down, move, mean, variance, half):
    """Log density of log high, low and close over the open; inverse gamma variance of this mean."""
    length = up - down
    rate = (half - 1) * variance
    terms = []
    for log_y in _LOG_Y:
        y = math.exp(log_y)
        series = max(extremes_density(-down / length, move / length, y), 0.0)
        v = y * length**2
        prior = half * math.log(rate) - math.lgamma(half) - half * math.log(v) - rate / v  # of ln v
        if series > 0:
            terms.append(math.log(series) + prior + (mean * move - mean**2 / 2) / v)
    top = max(terms)
    return top + math.log(sum(math.exp(x - top) for x in terms) * 0.07) - 3 * math.log(length)


def score(up, down, move, mean, variance, half):
    """Derivative of the log density by the log of the variance, by differences."""
    step = 1e-4
    above, below = (
        bar_log_density(up, down, move, mean, variance * math.exp(s), half) for s in (step, -step)
    )
    return (above - below) / (2 * step)


def follow(paths, season, emission, regime, sign, transition, gain, fade, belief):
    """Probabilities, log levels and log likelihoods, row by row; ``paths`` are (up, down, move) or None."""
    belief, cluster, level, echo = list(belief), [1.0] * len(emission), 0.0, 0.0
    rows, levels, likelihoods = [], [], []
    for path, hour in zip(paths, season, strict=True):
        levels.append(level)
        k = len(belief)
        predicted = [sum(belief[i] * transition[i][j] for i in range(k)) for j in range(k)]
        if path is None:
            belief = predicted
            rows.append(belief)
            likelihoods.append(0.0)
            continue
        scale = hour * math.exp(level)
        logs, scores = [], []
        for s in range(k):
            law = emission[regime[s]]
            deviation = law[VOLATILITY] * scale
            heard = max(-SHOCK_LIMIT * deviation, min(SHOCK_LIMIT * deviation, echo))
            mean = sign[s] * law[DRIFT] * deviation + law[ECHO] * heard
            arguments = (*path, mean, deviation**2 * cluster[regime[s]], law[HALF_DOF])
            logs.append(bar_log_density(*arguments))
            scores.append(score(*arguments))
        weights = [p * math.exp(x - max(logs)) for p, x in zip(predicted, logs, strict=True)]
        belief = [w / sum(weights) for w in weights]
        likelihoods.append(max(logs) + math.log(sum(weights)))
        for r, law in enumerate(emission):
            shock = min(abs(path[2]) / (law[VOLATILITY] * scale), SHOCK_LIMIT) ** 2
            rest = 1 - law[SHOCK] - law[MEMORY]
            cluster[r] = rest + law[SHOCK] * shock + law[MEMORY] * cluster[r]
        level = (1 - fade) * level + gain * sum(p * x for p, x in zip(belief, scores, strict=True))
        echo = path[2]
        rows.append(belief)
    return np.array(rows), np.array(levels), np.array(likelihoods)
