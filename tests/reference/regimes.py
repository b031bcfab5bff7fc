"""Slow and obvious versions of the kernels in ``regimes``, and small markets whose regimes are known."""

import itertools
import math

import numpy as np

from market.table import Table

HOUR_NS = 3_600_000_000_000
# Settings of the detector hmm for the small market, which has the columns of windows, but none that overlap:
# every row is news.
WINDOWS = {
    "level_columns": ("parkinson_24",),
    "magnitude_columns": (),
    "direction_columns": ("efficiency_24", "variance_ratio_96"),
    "observe_direction": True,
    "seasonal": False,
    "gain": 0.0,
}


def forward_filter(log_likelihood, transition, belief):
    """Rabiner's forward recursion in logs of plain Python, renormalised at each row; NaN-free input."""
    rows, log_belief = [], [math.log(b) if b > 0 else -math.inf for b in belief]
    k = len(belief)
    for densities in log_likelihood:
        predicted = [
            log_sum([log_belief[i] + math.log(transition[i][j]) for i in range(k)]) for j in range(k)
        ]
        joint = [predicted[j] + densities[j] for j in range(k)]
        total = log_sum(joint)
        log_belief = [x - total for x in joint]
        rows.append([math.exp(x) for x in log_belief])
    return np.array(rows).reshape(-1, k)


def log_sum(logs):
    """Log of a sum of exponentials."""
    top = max(logs)
    return top if top == -math.inf else top + math.log(math.fsum(math.exp(x - top) for x in logs))


def enumerated(log_likelihood, transition, belief, last):
    """Probability of the state at each row given rows up to ``last(t)``: the sum over all state paths."""
    n, k = np.shape(log_likelihood)
    out = np.empty((n, k))
    for t in range(n):
        end = last(t) + 1
        weights = [[] for _ in range(k)]
        for path in itertools.product(range(k), repeat=end + 1):  # path[0] is the state before row 0
            log_weight = math.log(belief[path[0]])
            for row in range(end):
                log_weight += math.log(transition[path[row]][path[row + 1]])
                log_weight += log_likelihood[row][path[row + 1]]
            weights[path[t + 1]].append(log_weight)
        total = log_sum([log_sum(one) for one in weights])
        out[t] = [math.exp(log_sum(one) - total) for one in weights]
    return out


def observe(values, location, scale, floor, clip, base, window, n_levels):
    """Each row from scratch, from the ``window`` known rows before it; ``base`` where there are none."""
    out = np.full(np.shape(values), np.nan)
    past = []
    for t, row in enumerate(values):
        if not np.isfinite(row).all():
            continue
        x = np.array(row, dtype=float)
        x[:n_levels] = np.log(np.maximum(x[:n_levels], floor))
        level = x[:n_levels].copy()
        if window:
            recent = past[-window:]
            missing = [np.asarray(base)] * (window - len(recent))
            x[:n_levels] -= np.mean(missing + recent, axis=0)
        past.append(level)
        out[t] = np.clip((x - location) / scale, -clip, clip)
    return out


def hysteresis(observations, enter, leave, sharpness):
    """The rule as a story: throw the switches, then weigh what each other regime is away."""
    out, switches, last = [], [None, None], [math.nan] * 3
    for row in observations:
        if not np.isnan(row).any():
            for s in range(2):
                if switches[s] is None:
                    switches[s] = row[s] >= (enter[s] + leave[s]) / 2
                elif switches[s]:
                    switches[s] = row[s] >= leave[s]
                else:
                    switches[s] = row[s] >= enter[s]
            away = [row[s] - leave[s] if switches[s] else enter[s] - row[s] for s in range(2)]
            volatile, directed = switches
            cost = {
                "ranging": (away[0] if volatile else 0) + (away[1] if directed else 0),
                "trending": (away[0] if volatile else 0) + (0 if directed else away[1]),
                "volatile": 0 if volatile else away[0],
            }
            weights = [math.exp(-sharpness * cost[name]) for name in ("ranging", "trending", "volatile")]
            last = [w / sum(weights) for w in weights]
        out.append(last)
    return np.array(out).reshape(-1, 3)


def dwell(probabilities, threshold, min_dwell):
    """The path by a look back at the labels written so far."""
    labels, confidence = [], []
    for row in probabilities:
        label = labels[-1] if labels else -1
        known = not np.isnan(row).any()
        if known:
            kept = len(list(itertools.takewhile(lambda one, label=label: one == label, reversed(labels))))
            best = int(np.argmax(row))
            if label == -1 or (best != label and row[best] >= threshold and kept >= min_dwell):
                label = best
        labels.append(label)
        confidence.append(row[label] if known else math.nan)
    return np.array(labels), np.array(confidence)


def confusion(truth, label):
    """Counted row by row."""
    table = np.zeros((3, 3), dtype=int)
    for t, found in zip(truth, label, strict=True):
        if t >= 0 and found >= 0:
            table[t, found] += 1
    return table


def small_market(n, seed, dwell_bars=200.0):
    """A sticky three-regime series of the columns a detector reads: true regime (n,) and features."""
    random = np.random.default_rng(seed)
    regime = np.zeros(n, dtype=np.int64)
    for t in range(1, n):
        leaves = random.random() < 1 / dwell_bars
        regime[t] = (regime[t - 1] + random.integers(1, 3)) % 3 if leaves else regime[t - 1]
    level = np.array([-5.6, -5.1, -4.2])[regime] + 0.25 * random.normal(size=n)
    efficiency = np.clip(np.array([0.12, 0.35, 0.2])[regime] + 0.1 * random.normal(size=n), 0, 1)
    slow = np.clip(np.array([0.08, 0.28, 0.14])[regime] + 0.07 * random.normal(size=n), 0, 1)
    ratio = np.array([-0.2, 0.25, -0.05])[regime] + 0.2 * random.normal(size=n)
    values = np.column_stack([np.exp(level), efficiency, slow, ratio])
    names = ("parkinson_24", "efficiency_24", "efficiency_72", "variance_ratio_96")
    return regime, Table(np.arange(1, n + 1) * HOUR_NS, values, names)
