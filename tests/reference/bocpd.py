"""A slow and obvious version of the Bayesian online change points: all runs, all bars, scipy's densities."""

import math

import numpy as np
from scipy.stats import multivariate_normal


def run_log_density(bars, level, spread, noise, drift, echo):
    """Joint log density of the bars of one run, given its regime: list of (level, move)."""
    if not len(bars):
        return 0.0
    n = len(bars)
    levels, moves = np.array(bars).T
    apart = np.abs(np.subtract.outer(np.arange(n), np.arange(n)))
    covariance = spread**2 + noise**2 / (1 - echo**2) * echo**apart
    found = multivariate_normal(np.full(n, level), covariance).logpdf(levels)
    return float(found + multivariate_normal(np.zeros(n), np.eye(n) + drift**2).logpdf(moves))


def next_log_density(bars, bar, regime):
    """Log density of the bar after a run, given the run; ``regime`` are the arguments after the bars."""
    return run_log_density([*bars, bar], *regime) - run_log_density(bars, *regime)


def follow(bars, regimes, successor, share, hazard, alarm_bars, longest):
    """All runs that may be going on, by first bar and regime; ``bars`` are (level, move) or None.

    Returns probabilities (n, k), change probability, expected run length and log evidence (n,) each.
    A run is judged by its last ``longest`` bars; no run is ever dropped or merged.
    """
    k = len(regimes)
    known, runs, rows = [], {}, []
    for bar in bars:
        evidence = 0.0
        if bar is not None:
            joint = {}
            for (first, i), mass in runs.items():
                density = math.exp(next_log_density(known[first:][-longest:], bar, regimes[i]))
                joint[first, i] = mass * (1 - hazard) * density
            for j in range(k):
                begins = share[j]
                if runs:
                    begins = hazard * sum(mass * successor[i][j] for (_, i), mass in runs.items())
                joint[len(known), j] = begins * math.exp(next_log_density([], bar, regimes[j]))
            total = math.fsum(joint.values())
            evidence = math.log(total)
            runs = {run: mass / total for run, mass in joint.items()}
            known.append(bar)
        if not known:
            rows.append([math.nan] * (k + 3))
            continue
        ages = {run: len(known) - run[0] for run in runs}
        mass = [sum(m for (_, i), m in runs.items() if i == j) for j in range(k)]
        # The run that the stream began with is no change, however short.
        change = sum(m for run, m in runs.items() if ages[run] <= alarm_bars and run[0] > 0)
        age = sum(m * min(ages[run], longest) for run, m in runs.items())
        rows.append([*mass, change, age, evidence])
    return np.array(rows)


def drawn(n, regimes, successor, share, hazard, seed):
    """Bars (n, 2) drawn from the law itself, and for each the bars since its run began and its regime."""
    random = np.random.default_rng(seed)
    k = len(regimes)
    bars, age, kind = np.empty((n, 2)), np.empty(n, dtype=int), np.empty(n, dtype=int)
    for t in range(n):
        if t == 0 or random.random() < hazard:
            kind[t] = random.choice(k, p=share if t == 0 else successor[kind[t - 1]])
            level, spread, noise, drift, echo = regimes[kind[t]]
            height, slope = random.normal(level, spread), random.normal(0.0, drift)
            off, age[t] = random.normal(0.0, noise / math.sqrt(1 - echo**2)), 1
        else:
            kind[t], age[t] = kind[t - 1], age[t - 1] + 1
            off = echo * off + random.normal(0.0, noise)
        bars[t] = height + off, slope + random.normal()
    return bars, age, kind
