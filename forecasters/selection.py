"""Which columns a forecaster reads: chosen on the rows it is fitted on, and on no others.

Each column gets a score against the label. From the best on, a column is kept unless it says nearly the same
as one that was kept before it, until there are enough. Validation and test rows are not there to be looked
at: a selection on all rows makes noise look like skill.

Source: Ambroise and McLachlan (2002), "Selection bias in gene extraction on the basis of microarray
gene-expression data", on what a selection outside of the folds does.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from compute.seeds import stream
from configs.load import PluginConfig
from forecasters.forecaster import N_CLASSES, new_forecaster
from forecasters.settings import SelectionConfig
from forecasters.windows import Examples

#: Examples that scores are taken from, evenly over all: more of them would change little.
MOST_ROWS = 20_000
#: Bins of a column, of equally many examples each, for mutual information.
BINS = 16
#: The forest whose importances are scores: shallow, for what matters at all and not for the last detail.
FOREST = {"trees": 100, "max_depth": 6, "min_leaf": 0.005}
#: Scores that agree in so many digits are equal, and the column that comes first is the better one.
_DIGITS = 12


@dataclass(frozen=True)
class Selected:
    """Which columns were chosen, and why the others were not.

    Parameters
    ----------
    kept : tuple of str
        In the order that the columns had.
    scores : mapping of str to float
        Of all columns; larger is better.
    redundant : mapping of str to str
        Columns that were dropped, and the better one that says nearly the same.
    weak : tuple of str
        Columns that were dropped since there were enough better ones, the best of them first.
    """

    kept: tuple[str, ...]
    scores: Mapping[str, float]
    redundant: Mapping[str, str]
    weak: tuple[str, ...]

    @property
    def dropped(self) -> dict[str, list[str]]:
        """The columns that were dropped, by the reason."""
        found = {"redundant": list(self.redundant), "low score": list(self.weak)}
        return {why: names for why, names in found.items() if names}

    def told(self) -> dict[str, Any]:
        """Return what a report says of it: scores of columns kept, and what redundant ones were like."""
        return {
            "scores": {name: self.scores[name] for name in self.kept},
            "redundant": dict(self.redundant),
        }


def selected(learn: Examples, config: SelectionConfig, seed: int, needed: Collection[str] = ()) -> Selected:
    """Return the columns to keep.

    Parameters
    ----------
    learn : Examples
        What will be fitted on, with targets and returns; the newest row of each window is looked at.
    config : SelectionConfig
    seed : int
        Of the forest, where one is grown.
    needed : collection of str
        Columns that are kept in any case, and not counted: others rely on them.
    """
    some = np.unique(np.linspace(0, len(learn) - 1, min(MOST_ROWS, len(learn))).astype(np.int64))
    few = learn.take(some)
    ranks = _ranks(few.tabular())
    scores = np.round(_SCORES[config.by](few, ranks, seed), _DIGITS)
    alike = np.minimum(np.abs(ranks.T @ ranks), 1.0)  # rounding must not go beyond a limit of 1
    names, kept, redundant, weak = learn.names, [], {}, []
    for place in np.argsort(-scores, kind="stable"):
        twins = [one for one in kept if alike[place, one] > config.redundant]
        if twins:
            redundant[names[place]] = names[twins[0]]
        elif len(kept) < config.keep:
            kept.append(place)
        else:
            weak.append(names[place])
    chosen = {names[place] for place in kept} | (set(needed) & set(names))
    return Selected(
        tuple(name for name in names if name in chosen),
        dict(zip(names, scores.tolist(), strict=True)),
        {name: better for name, better in redundant.items() if name not in chosen},
        tuple(name for name in weak if name not in chosen),
    )


def _ranks(columns: np.ndarray) -> np.ndarray:
    # Centered ranks of length 1, float64 (m, k): products are rank correlations. 0 where all are equal.
    from scipy.stats import rankdata

    ranks = rankdata(columns, axis=0)
    ranks -= ranks.mean(axis=0)
    length = np.sqrt((ranks**2).sum(axis=0))
    return ranks / np.where(length > 0.0, length, 1.0)


def _correlation(examples: Examples, ranks: np.ndarray, seed: int) -> np.ndarray:
    return np.abs(ranks.T @ _ranks(examples.ret[:, None])[:, 0])


def _mutual_information(examples: Examples, ranks: np.ndarray, seed: int) -> np.ndarray:
    from sklearn.metrics import mutual_info_score

    found = np.empty(ranks.shape[1])
    for i, column in enumerate(ranks.T):
        edges = np.unique(np.quantile(column, np.arange(1, BINS) / BINS))
        bins = np.searchsorted(edges, column, side="right")
        counts = np.bincount(N_CLASSES * bins + examples.target, minlength=N_CLASSES * (edges.size + 1))
        table = counts.reshape(-1, N_CLASSES)
        table = table[table.any(axis=1)][:, table.any(axis=0)]
        # Chance alone gives this much, and more to columns with more bins.
        # Source: Miller (1955), "Note on the bias of information estimates".
        chance = (table.shape[0] - 1) * (table.shape[1] - 1) / (2.0 * len(column))
        found[i] = mutual_info_score(None, None, contingency=table) - chance
    return found


def _importance(examples: Examples, ranks: np.ndarray, seed: int) -> np.ndarray:
    forest = new_forecaster(PluginConfig(name="random_forest", **FOREST))
    root = int(stream(seed, "selection").integers(2**62))
    return forest.fit(examples, examples.take(slice(0)), seed=root).importances()


_SCORES = {
    "correlation": _correlation,
    "mutual_information": _mutual_information,
    "importance": _importance,
}
