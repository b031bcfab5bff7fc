"""Whether a network can still tell the regimes apart: fresh probes, on runs that taught it nothing.

An adversary that has given up proves nothing, so what it says in training counts for nothing here. New
classifiers of four kinds try to recover the regime from the features of the network, on states of runs that
they did not see; the best of them is compared with what it reaches when the regimes of whole runs are
exchanged, everything fitted anew. The same probes on the raw inputs are the positive control: where not even
they find the regime, nothing has been tested.

Sources: Y. Elazar and Y. Goldberg (2018), Adversarial removal of demographic attributes from text data;
S. Ben-David et al. (2010), A theory of learning from different domains; A. Gretton et al. (2012), A kernel
two-sample test.
"""

from collections.abc import Callable, Mapping
from itertools import combinations
from typing import Any

import numpy as np
import torch
from threadpoolctl import threadpool_limits

from compute.seeds import stream
from conductor.network import ConductorNetwork, tensors
from conductor.school import Labels
from conductor.sight import Inputs
from conductor.state import KNOWN, MARKET, NO_REGIME
from regimes.regime import Regime

#: Groups of a regime without which nothing can be said about it.
LEAST_GROUPS = 4
#: States of a group and regime that are looked at, evenly over its rows: those of a run resemble each other.
ROWS = 6
N_FOLDS = 3
#: Exchanges of the regimes; with 39 the chance to call an invariant feature a leak is exactly 5 % at most.
N_EXCHANGES = 39
#: The probability above which luck explains what the best probe finds.
LEVEL = 0.05
_N_MMD = 199  # exchanges of the kernel statistic, which needs no fitting


def snapshots(labels: Labels) -> tuple[Inputs, np.ndarray]:
    """Return what a network sees in the state of each fork, once, and the runs of the states, int64 (m,)."""
    _, first = np.unique(labels.fork, return_index=True)
    rows = labels.rows(first)
    return Inputs(rows.state, rows.history, rows.known, rows.regime), rows.run


def stretches(inputs: Inputs, run: np.ndarray) -> np.ndarray:
    """Return the group of each state, int64 (m,): runs on the same bars are one group.

    They share all market features, so a probe that has seen one of them knows the others. Runs without a
    market are a group each.
    """
    market = np.asarray(inputs.state)[:, MARKET.start : KNOWN.stop]
    alone = ~np.asarray(inputs.state)[:, KNOWN].any(axis=1)
    own = np.where(alone, np.asarray(run) + 1, 0)[:, None]
    return np.unique(np.column_stack([market, own]), axis=0, return_inverse=True)[1].reshape(-1)


def extracted(network: ConductorNetwork, inputs: Inputs) -> np.ndarray:
    """Return the features of states, float64 (m, f); of a network without an extractor, its residuals."""
    look: Callable[[Inputs], torch.Tensor] = getattr(network, "features", network)
    with torch.inference_mode():
        return look(tensors(inputs)).numpy().astype(np.float64)


def raw(inputs: Inputs) -> np.ndarray:
    """Return the inputs themselves as features, float64 (m, 64): the state, in which the history ends."""
    return np.asarray(inputs.state, dtype=np.float64)


def balanced_accuracy(regime: np.ndarray, answers: np.ndarray) -> float:
    """Return the mean over the regimes of the share of their rows that was recognized, from 0 to 1."""
    return float(np.mean([(answers[regime == one] == one).mean() for one in np.unique(regime)]))


def probed(
    features: np.ndarray,
    regime: np.ndarray,
    group: np.ndarray,
    *,
    seed: int,
    n_exchanges: int = N_EXCHANGES,
) -> dict[str, Any]:
    """Let fresh probes recover the regime from features, and say what luck would reach.

    Parameters
    ----------
    features : float (n, f)
    regime : int (n,)
        At least two, each in 4 groups or more.
    group : int (n,)
        Rows that may resemble each other: never split between what a probe learns and where it is tested.
    seed : int
        Of folds, probes and exchanges.
    n_exchanges : int
        How often everything is repeated with the regimes exchanged, see :data:`N_EXCHANGES`.

    Returns
    -------
    dict
        ``accuracy`` (balanced, by name of the probe), ``best`` (the best of them), ``chance``,
        ``luck`` (the range that holds 95 % of what the best probe reaches with exchanged regimes),
        ``p_value`` (share of the exchanges, this arrangement among them, in which the best probe reaches as
        much), ``distance`` (proxy A-distance by pair of regimes, 0 indistinguishable, 2 separable), ``mmd``
        (by pair, the squared maximum mean discrepancy and its p-value).

    Raises
    ------
    ValueError
        If a regime is in too few groups, or there is only one.
    """
    features, regime, group = _thinned(
        np.asarray(features, np.float64), np.asarray(regime), np.asarray(group)
    )
    counts = {int(one): np.unique(group[regime == one]).size for one in np.unique(regime)}
    if len(counts) < 2 or min(counts.values()) < LEAST_GROUPS:
        raise ValueError(
            f"the regimes are in {counts} groups; probes need two or more, each in {LEAST_GROUPS} groups"
        )
    rng = stream(seed, "conductor", "probes")
    with threadpool_limits(1):  # small fits: more threads only wait for each other
        accuracy = _accuracies(features, regime, group, seed)
        best = max(accuracy.values())
        lucky = np.array(
            [
                max(_accuracies(features, _exchanged(regime, group, rng), group, seed).values())
                for _ in range(n_exchanges)
            ]
        )
        pairs = list(combinations(counts, 2))
        distance = {_pair(*pair): _distance(features, regime, group, pair, seed) for pair in pairs}
    found: dict[str, Any] = {"accuracy": accuracy, "best": best, "chance": 1.0 / len(counts)}
    found["luck"] = np.quantile(lucky, [0.025, 0.975]).tolist() if n_exchanges else [0.0, 1.0]
    found["p_value"] = float((1 + (lucky >= best).sum()) / (1 + n_exchanges))
    found["distance"] = distance
    found["mmd"] = {
        _pair(*pair): mean_discrepancy(features, regime, group, pair, seed=seed) for pair in pairs
    }
    return found


def mean_discrepancy(
    features: np.ndarray, regime: np.ndarray, group: np.ndarray, pair: tuple[int, int], *, seed: int
) -> dict[str, float]:
    """Return the squared maximum mean discrepancy of two regimes and the probability that luck gives as much.

    Gaussian kernel, its width the median distance of the standardized features. Pairs of rows of one group
    are left out: they are alike whatever their regime. Whole groups exchange their regimes.
    """
    mine = np.isin(regime, pair)
    features, regime, group = features[mine], regime[mine], group[mine]
    scale = features.std(axis=0)
    scaled = (features - features.mean(axis=0)) / np.where(scale > 0.0, scale, 1.0)
    squares = np.maximum((scaled**2).sum(1)[:, None] + (scaled**2).sum(1) - 2.0 * scaled @ scaled.T, 0.0)
    apart = group[:, None] != group
    width = np.median(squares[apart]) or 1.0
    kernel = np.exp(-squares / width) * apart

    def statistic(labels: np.ndarray) -> float:
        a, b = (labels == pair[0]).astype(float), (labels == pair[1]).astype(float)
        within = sum(one @ kernel @ one / max(one @ apart @ one, 1.0) for one in (a, b))
        return float(within - 2.0 * (a @ kernel @ b) / max(a @ apart @ b, 1.0))

    rng, here = stream(seed, "conductor", "discrepancy", *map(int, pair)), statistic(regime)
    lucky = np.array([statistic(_exchanged(regime, group, rng)) for _ in range(_N_MMD)])
    # A sum in another order may differ in the last bit.
    return {"mmd2": here, "p_value": float((1 + (lucky >= here - 1e-12).sum()) / (1 + _N_MMD))}


def evidence(
    network: ConductorNetwork,
    inputs: Inputs,
    run: np.ndarray,
    *,
    seed: int,
    n_exchanges: int = N_EXCHANGES,
    reference: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Say whether the features of a network still hold the regime.

    Parameters
    ----------
    network : ConductorNetwork
        With a method ``features``; of others the residuals are judged.
    inputs : Inputs of NumPy arrays
        Of states of runs from which the network has not learned, see :func:`snapshots`. Those without a
        regime, and regimes in fewer than 4 groups, are left out.
    run : int64 (m,)
        Which run each state is of.
    seed, n_exchanges : int
        See :func:`probed`.
    reference : mapping, optional
        What the probes made of the raw inputs of the same states: ``raw`` of an earlier answer.

    Returns
    -------
    dict
        ``features`` and ``raw`` (see :func:`probed`; None where nothing could be tested), ``regimes`` (groups
        of each, by name), ``verdict`` ("invariant", "not invariant" or "undecided") and ``sentence``.
    """
    group, regime = stretches(inputs, run), np.asarray(inputs.regime)
    counts = {int(one): np.unique(group[regime == one]).size for one in np.unique(regime) if one != NO_REGIME}
    kept = np.isin(regime, [one for one, count in counts.items() if count >= LEAST_GROUPS])
    found: dict[str, Any] = {
        "regimes": {_name(one): count for one, count in counts.items()}, "features": None, "raw": None
    }  # fmt: skip
    if np.unique(regime[kept]).size < 2:
        found["verdict"] = "undecided"
        found["sentence"] = (
            f"Invariance was not tested: {_listed(found['regimes'])}; probes need two regimes or more, each "
            f"in {LEAST_GROUPS} windows."
        )
        return found
    for name, features in (("features", extracted(network, inputs)), ("raw", raw(inputs))):
        if name == "raw" and reference is not None:
            found[name] = dict(reference)
        else:
            found[name] = probed(
                features[kept], regime[kept], group[kept], seed=seed, n_exchanges=n_exchanges
            )
    found["verdict"] = _verdict(found["features"], found["raw"])
    found["sentence"] = _sentence(found)
    return found


def _verdict(features: Mapping[str, Any], inputs: Mapping[str, Any]) -> str:
    if features["p_value"] <= LEVEL:
        return "not invariant"
    return "invariant" if inputs["p_value"] <= LEVEL else "undecided"


def _sentence(found: Mapping[str, Any]) -> str:
    said = {
        name: f"{100 * one['best']:.0f}% ({_kind(one)}; luck: {100 * one['luck'][0]:.0f}% to "
        f"{100 * one['luck'][1]:.0f}%)"
        for name, one in (("features", found["features"]), ("raw", found["raw"]))
    }
    meaning = {
        "invariant": "the features are invariant, as far as these runs can show",
        "not invariant": "the features are not invariant",
        "undecided": "undecided, for on so few runs not even the raw inputs show the regime",
    }
    return (
        "On unseen runs the best of four fresh probes recovers the regime from the features with a balanced "
        f"accuracy of {said['features']}, from the raw inputs with {said['raw']}: "
        f"{meaning[found['verdict']]}."
    )


def _kind(found: Mapping[str, Any]) -> str:
    return max(found["accuracy"], key=found["accuracy"].get)


def _listed(regimes: Mapping[str, int]) -> str:
    said = ", ".join(f"{count} windows of {name}" for name, count in regimes.items())
    return said or "no run belongs to a regime"


def _name(regime: int) -> str:
    return Regime(regime).text


def _pair(a: int, b: int) -> str:
    return f"{_name(a)} and {_name(b)}"


def _thinned(features: np.ndarray, regime: np.ndarray, group: np.ndarray) -> tuple[np.ndarray, ...]:
    # At most ROWS rows of each group and regime, spread evenly over those that there are.
    kept = []
    for _, unit in _units(regime, group):
        kept.append(unit[np.unique(np.linspace(0, unit.size - 1, ROWS).round().astype(int))])
    rows = np.sort(np.concatenate(kept)) if kept else np.empty(0, dtype=int)
    return features[rows], regime[rows], group[rows]


def _units(regime: np.ndarray, group: np.ndarray) -> list[tuple[int, np.ndarray]]:
    # The rows of each regime of each group, with the group: what exchanges its regime as a whole.
    return [
        (int(one), np.flatnonzero((group == one) & (regime == label)))
        for one in np.unique(group)
        for label in np.unique(regime[group == one])
    ]


def _exchanged(regime: np.ndarray, group: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    # Groups with as many regimes exchange them, and within a group its parts do: what is exchangeable if the
    # features know nothing of the regime, although rows of one group resemble each other.
    parts: dict[int, list[np.ndarray]] = {}
    for one, rows in _units(regime, group):
        parts.setdefault(one, []).append(rows)
    exchanged = regime.copy()
    for size in sorted({len(rows) for rows in parts.values()}):
        alike = [rows for rows in parts.values() if len(rows) == size]
        labels = [[regime[rows[0]] for rows in one] for one in alike]
        for to, source in enumerate(rng.permutation(len(alike))):
            for rows, label in zip(alike[to], rng.permutation(labels[source]), strict=True):
                exchanged[rows] = label
    return exchanged


def _probes(seed: int) -> dict[str, Any]:
    # scikit-learn takes a second to import: only when somebody probes.
    from sklearn.ensemble import GradientBoostingClassifier
    from sklearn.linear_model import LogisticRegression
    from sklearn.neighbors import KNeighborsClassifier
    from sklearn.svm import SVC

    return {
        "logistic regression": LogisticRegression(class_weight="balanced", max_iter=200, tol=1e-3),
        "support vectors": SVC(class_weight="balanced", C=3.0),
        "gradient boosting": GradientBoostingClassifier(
            n_estimators=10, max_depth=3, learning_rate=0.5, max_features="sqrt", random_state=seed % 2**32
        ),
        "nearest neighbors": KNeighborsClassifier(7, weights="distance"),
    }


def _answers(features: np.ndarray, regime: np.ndarray, group: np.ndarray, seed: int) -> dict[str, np.ndarray]:
    # What each probe says about rows of groups that it did not learn from.
    from sklearn.model_selection import StratifiedGroupKFold
    from sklearn.utils.class_weight import compute_sample_weight

    least = min(np.unique(group[regime == one]).size for one in np.unique(regime))
    folds = StratifiedGroupKFold(min(N_FOLDS, least), shuffle=True, random_state=seed % 2**32)
    answers = {name: np.empty_like(regime) for name in _probes(seed)}
    even = compute_sample_weight("balanced", regime)
    for learned, tested in folds.split(features, regime, group):
        center, scale = features[learned].mean(axis=0), features[learned].std(axis=0)
        scaled = (features - center) / np.where(scale > 1e-12, scale, 1.0)
        for name, probe in _probes(seed).items():
            # Boosting knows no weights of classes, only of rows.
            weights = {"sample_weight": even[learned]} if name == "gradient boosting" else {}
            answers[name][tested] = probe.fit(scaled[learned], regime[learned], **weights).predict(
                scaled[tested]
            )
    return answers


def _accuracies(features: np.ndarray, regime: np.ndarray, group: np.ndarray, seed: int) -> dict[str, float]:
    return {
        name: balanced_accuracy(regime, said)
        for name, said in _answers(features, regime, group, seed).items()
    }


def _distance(
    features: np.ndarray, regime: np.ndarray, group: np.ndarray, pair: tuple[int, int], seed: int
) -> float:
    mine = np.isin(regime, pair)
    error = 1.0 - max(_accuracies(features[mine], regime[mine], group[mine], seed).values())
    return float(np.clip(2.0 * (1.0 - 2.0 * error), 0.0, 2.0))
