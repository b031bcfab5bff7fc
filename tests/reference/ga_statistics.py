"""The population statistics of conductor.md section 4.3 as the words define them, with SciPy."""

import numpy as np
from scipy import stats


def population_statistics(genes, fitness):
    """Return the statistics that depend on one population alone, by name."""
    finite = fitness[np.isfinite(fitness)]
    best, worst = finite.max(), finite.min()
    q25, median, q75 = np.quantile(finite, [0.25, 0.5, 0.75])
    champion = genes[np.argmax(fitness)]
    distance = np.linalg.norm(genes - champion, axis=1)
    spread = np.sqrt(((genes - genes.mean(axis=0)) ** 2).mean())
    return {
        "median_gap": (best - median) / (best - worst),
        "quartile_gap": (best - q75) / (best - worst),
        "fitness_skew": (q75 + q25 - 2 * median) / (q75 - q25),
        "fitness_distance_correlation": stats.spearmanr(fitness, distance).statistic,
        "best_to_centre": np.sqrt(((champion - genes.mean(axis=0)) ** 2).mean()) / spread,
        "diversity": spread,
    }
