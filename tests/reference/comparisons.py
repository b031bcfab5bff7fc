"""SPA, StepM and the model confidence set as the papers write them, one loop per step."""

import math

import numpy as np


def spa(ahead, rows, mean_block):
    """Hansen's studentized SPA of differences (n, k): lower, consistent and upper p; statistics and draws."""
    n, k = ahead.shape
    means = ahead.mean(axis=0)
    omega = np.array([math.sqrt(long_run_variance(ahead[:, j], mean_block)) for j in range(k)])
    root = math.sqrt(n)
    statistic = max(0.0, max(root * means[j] / omega[j] for j in range(k)))
    found, draws = [], []
    for kind in ("lower", "consistent", "upper"):
        kept = []
        for j in range(k):
            hopeless = means[j] < -omega[j] * math.sqrt(2 * math.log(math.log(n)) / n)
            kept.append(
                {
                    "lower": max(means[j], 0.0),
                    "consistent": 0.0 if hopeless else means[j],
                    "upper": means[j],
                }[kind]
            )
        stars = np.array(
            [[root * (ahead[path, j].mean() - kept[j]) / omega[j] for j in range(k)] for path in rows]
        )
        best = np.maximum(stars.max(axis=1), 0.0)
        draws.append(stars)
        found.append(1.0 if statistic == 0 else float(np.mean(best > statistic)))
    return found, root * means / omega, draws[1]


def step_down(statistics, stars, size):
    """Romano and Wolf: reject all above the critical value, then again without them, until nobody is."""
    better = set()
    while len(better) < len(statistics):
        rest = [j for j in range(len(statistics)) if j not in better]
        critical = max(float(np.quantile(stars[:, rest].max(axis=1), 1 - size)), 0.0)
        new = {j for j in rest if statistics[j] > critical}
        if not new:
            break
        better |= new
    return better


def long_run_variance(series, mean_block):
    n = len(series)
    off = series - series.mean()
    total, stay = float(off @ off) / n, 1 - 1 / mean_block
    for lag in range(1, n):
        kappa = (1 - lag / n) * stay**lag + lag / n * stay ** (n - lag)
        total += 2 * kappa * float(off[lag:] @ off[:-lag]) / n
    return total


def confidence_set(losses, rows):
    """p of each column in the model confidence set by the range statistic."""
    k = losses.shape[1]
    mean = losses.mean(axis=0)
    stars = np.array([losses[path].mean(axis=0) for path in rows])
    left, p, largest = list(range(k)), [1.0] * k, 0.0
    while len(left) > 1:
        pairs = [(i, j) for i in left for j in left if i != j]
        error = {
            (i, j): math.sqrt(np.mean((stars[:, i] - stars[:, j] - mean[i] + mean[j]) ** 2)) for i, j in pairs
        }
        seen = {(i, j): (mean[i] - mean[j]) / error[i, j] for i, j in pairs}
        worst = max(pairs, key=seen.get)
        drawn = np.max(
            [(stars[:, i] - stars[:, j] - mean[i] + mean[j]) / error[i, j] for i, j in pairs], axis=0
        )
        largest = max(largest, float(np.mean(drawn > seen[worst])))
        p[worst[0]] = largest
        left.remove(worst[0])
    return p
