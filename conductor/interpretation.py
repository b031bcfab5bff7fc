"""What a conductor does, in words: the features it listens to, rules that answer like it, where it looks.

All of it describes a network that is there and trains nothing. Importance is measured by shuffling a feature
among runs and seeing what moves; the rules are small trees, with the share of the network's answers that they
reproduce on runs they were not made from.

Sources: L. Breiman (2001), Random forests (permutation importance); M. W. Craven and J. W. Shavlik (1996),
Extracting tree-structured representations of trained networks (fidelity).
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from compute.seeds import stream
from conductor.market_context import CONTEXT_NAMES
from conductor.network import N_CONTROLS, ConductorNetwork, tensors
from conductor.sight import Inputs
from conductor.state import HISTORY_NAMES, PROGRESS_NAMES, STATE_NAMES
from conductor.steering import Steering
from ga.controls import CONTROL_NAMES, values_at

#: A control whose places move less than this share of its range is said to stay where it is.
STILL = 0.01
#: Share of the runs on which rules are tested.
TESTED = 0.3


@dataclass(frozen=True)
class Subject:
    """A feature and all columns that tell it: shuffled one without the other, both would still know it.

    Parameters
    ----------
    name : str
    state : tuple of int
        Columns of the state; a market feature and its mask are one subject.
    history : tuple of int
        Columns of the history.
    """

    name: str
    state: tuple[int, ...]
    history: tuple[int, ...]


def subjects() -> tuple[Subject, ...]:
    """Return the 51 features of a conductor: 26 statistics, 12 previous controls, 13 market features."""

    def past(name: str) -> tuple[int, ...]:
        return (HISTORY_NAMES.index(name),) if name in HISTORY_NAMES else ()

    def now(*names: str) -> tuple[int, ...]:
        return tuple(STATE_NAMES.index(name) for name in names)

    return (
        *(Subject(name, now(name), past(name)) for name in PROGRESS_NAMES),
        *(Subject(f"previous_{n}", now(f"previous_{n}"), past(f"control_{n}")) for n in CONTROL_NAMES),
        *(Subject(f"market_{n}", now(f"market_{n}", f"known_{n}"), ()) for n in CONTEXT_NAMES),
    )


def shuffled(inputs: Inputs, subject: Subject, order: Any) -> Inputs:
    """Return inputs in which one feature comes from the rows ``order`` (B,); arrays or tensors."""
    state, history = (
        part.clone() if isinstance(part, Tensor) else part.copy() for part in (inputs.state, inputs.history)
    )
    for column in subject.state:
        state[:, column] = inputs.state[order, column]
    for column in subject.history:
        history[:, :, column] = inputs.history[order][:, :, column]
    return inputs._replace(state=state, history=history)


class Deaf(ConductorNetwork):
    """A network that is told one feature of another run of the batch, the same run in every generation.

    Parameters
    ----------
    network : ConductorNetwork
    subject : Subject
    seed : int
        Of the order of the runs.
    """

    def __init__(self, network: ConductorNetwork, subject: Subject, seed: int) -> None:
        super().__init__(network.config)
        self.network, self.n_history = network, network.n_history
        self._subject, self._seed = subject, seed

    def forward(self, inputs: Inputs) -> Tensor:
        """Return the residuals, float32 (B, 12)."""
        order = torch.from_numpy(_order(len(inputs.state), self._seed)).to(inputs.state.device)
        return self.network(shuffled(inputs, self._subject, order))

    def searched(self) -> Iterator[tuple[str, torch.nn.Parameter]]:
        """Yield nothing: what describes a network does not train it."""
        yield from ()


def importance(
    network: ConductorNetwork,
    inputs: Inputs,
    *,
    seed: int,
    repeats: int = 5,
    evaluate: Callable[[ConductorNetwork], float] | None = None,
) -> dict[str, dict[str, Any]]:
    """Return how much each feature matters, the most important first.

    Parameters
    ----------
    network : ConductorNetwork
    inputs : Inputs of NumPy arrays
        Of many states of many runs.
    seed : int
        Of the shuffling.
    repeats : int
        Orders over which the change is averaged.
    evaluate : callable, optional
        Returns the objective of a network on a batch of runs, decades and lower is better; it is asked about
        the network and, for each feature, about one that is told that of other runs. Takes a batch of whole
        runs each.

    Returns
    -------
    dict
        By name of the feature ``change``, the mean absolute change of a residual; ``controls``, that of each
        control by name; and with ``evaluate`` also ``loss``, decades that are lost without the feature.
    """
    seen = tensors(inputs)
    with torch.inference_mode():
        said, changes = network(seen), {}
        for subject in subjects():
            moved = torch.zeros(N_CONTROLS)
            for k in range(repeats):
                order = torch.from_numpy(_order(len(said), seed, k))
                moved += (network(shuffled(seen, subject, order)) - said).abs().mean(dim=0) / repeats
            changes[subject.name] = moved.double().numpy()
    found: dict[str, dict[str, Any]] = {
        name: {
            "change": float(change.mean()),
            "controls": dict(zip(CONTROL_NAMES, change.tolist(), strict=True)),
        }
        for name, change in changes.items()
    }
    if evaluate is not None:
        whole = evaluate(network)
        for subject in subjects():
            found[subject.name]["loss"] = evaluate(Deaf(network, subject, seed)) - whole
    key = "change" if evaluate is None else "loss"
    return dict(sorted(found.items(), key=lambda item: -item[1][key]))


@dataclass(frozen=True, eq=False)
class Rules:
    """Small trees, one per control, that answer like a network.

    Parameters
    ----------
    steering : Steering
        Whose tuned controls the network moves.
    trees : tuple
        Of each control a fitted tree from the state to its place, or None where it stays.
    fidelity : dict
        By name of the control, the share of the variance of its places that the tree reproduces on runs it
        was not made from; 1 is a perfect copy, NaN where the control stays.
    sentences : tuple of str
        The rules, those that hold for most states first within each control.
    """

    steering: Steering
    trees: tuple[Any, ...]
    fidelity: Mapping[str, float]
    sentences: tuple[str, ...]

    def places(self, state: np.ndarray) -> np.ndarray:
        """Return the places of the controls that the rules ask for in states (B, 64), float64 (B, 12)."""
        places = np.tile(np.array(self.steering.static), (len(state), 1))
        for j, tree in enumerate(self.trees):
            if tree is not None:
                places[:, j] = tree.predict(state)
        return places

    def residual(self, state: np.ndarray) -> np.ndarray:
        """Return the same as residuals, float64 (B, 12): the rules steer like a network."""
        return self.steering.residual(self.places(state))


def distilled(
    network: ConductorNetwork,
    inputs: Inputs,
    run: np.ndarray,
    steering: Steering,
    *,
    seed: int,
    depth: int = 3,
) -> Rules:
    """Return rules that answer like a network, one short tree per control.

    Parameters
    ----------
    network : ConductorNetwork
    inputs : Inputs of NumPy arrays
        Of many states of at least 4 runs, best such as the network meets when it conducts.
    run : int (m,)
        Which run each state is of; 30 % of the runs test the rules.
    steering : Steering
    seed : int
        Of the choice of these runs.
    depth : int
        Conditions of a rule at most.

    Raises
    ------
    ValueError
        If the states come from fewer than 4 runs.
    """
    from sklearn.tree import DecisionTreeRegressor

    names = np.unique(run)
    if names.size < 4:
        raise ValueError(f"states come from {names.size} runs; rules need 4, some of them to be tested on")
    with torch.inference_mode():
        said = network(tensors(inputs)).double().numpy()
    places = steering.target(said)
    rng = stream(seed, "conductor", "rules")
    tested = np.isin(run, rng.permutation(names)[: max(1, round(TESTED * names.size))])
    state, trees, fidelity, sentences = np.asarray(inputs.state), [], {}, []
    for j, name in enumerate(CONTROL_NAMES):
        if np.ptp(places[:, j]) < STILL:
            trees.append(None)
            fidelity[name] = float("nan")
            sentences.append(f"{name} stays at {_value(j, float(places[:, j].mean()))}.")
            continue
        least = max(1, int(0.02 * (~tested).sum()))
        # A condition that explains less than a hundredth of the variance is none that a reader wants.
        worth = 0.01 * float(places[~tested, j].var())
        tree = DecisionTreeRegressor(
            max_depth=depth, min_samples_leaf=least, min_impurity_decrease=worth, random_state=0
        )
        tree.fit(state[~tested], places[~tested, j])
        trees.append(tree)
        fidelity[name] = _fidelity(places[tested, j], tree.predict(state[tested]), places[~tested, j].mean())
        sentences += _sentences(tree.tree_, j, steering.static[j])
    return Rules(steering, tuple(trees), fidelity, tuple(sentences))


def looked(maps: np.ndarray, known: np.ndarray) -> dict[str, Any]:
    """Return where a transformer looks when it answers.

    Parameters
    ----------
    maps : float (B, layers, heads, N + 1, N + 1)
        See ``conductor.variants.transformer.Transformer.attention``.
    known : bool (B, N)
        Which generations there are.

    Returns
    -------
    dict
        ``by_age``: float (layers, heads, N), mean weight of each generation, the newest first, when the state
        asks, over the runs that have it; ``state``: (layers, heads), the weight of the state itself;
        ``reach``: (layers, heads), the mean age of what is looked at in generations, 0 for the newest;
        ``evenness``: (layers, heads), entropy over that of looking everywhere alike, 1 for no preference; and
        ``sentence``.
    """
    maps, known = np.asarray(maps, np.float64), np.asarray(known, dtype=bool)
    asked = maps[..., -1, :]
    past = asked[..., :-1][..., ::-1] * known[:, None, None, ::-1]
    n = known[:, ::-1].sum(axis=0)
    by_age = past.sum(axis=0) / np.maximum(n, 1)
    total = past.sum(axis=-1)
    age = (past * np.arange(known.shape[1])).sum(axis=-1)
    reach = age.sum(axis=0) / np.maximum(total.sum(axis=0), 1e-12)
    some = np.where(asked > 0.0, asked, 1.0)
    entropy = -(asked * np.log(some)).sum(axis=-1)
    widest = np.log(1.0 + known.sum(axis=1))[:, None, None]
    begun = known.any(axis=1)
    shown = np.where(widest > 0.0, entropy / np.where(widest > 0.0, widest, 1.0), 0.0)[begun]
    evenness = shown.mean(axis=0) if begun.any() else np.ones(entropy.shape[1:])
    own = asked[..., -1].mean(axis=0)
    sentence = (
        f"The heads put {100 * own.min():.0f}% to {100 * own.max():.0f}% of their weight on the state "
        f"itself; the generations they look at are on average {reach.min():.1f} to {reach.max():.1f} old."
    )
    return {"by_age": by_age, "state": own, "reach": reach, "evenness": evenness, "sentence": sentence}


def _order(n: int, seed: int, *more: int) -> np.ndarray:
    return stream(seed, "conductor", "shuffled", n, *more).permutation(n)


def _fidelity(true: np.ndarray, said: np.ndarray, mean: float) -> float:
    # Against the mean of the runs that made the rules: the variance of few tested states may be nothing.
    spread = float(((true - mean) ** 2).sum())
    return 1.0 - float(((true - said) ** 2).sum()) / spread if spread > 0.0 else 0.0


def _value(j: int, place: float) -> str:
    places = np.full(N_CONTROLS, 0.5)
    places[j] = place
    return f"{values_at(places)[j]:.3g}"


def _sentences(tree: Any, j: int, tuned: float) -> list[str]:
    leaves: list[tuple[int, str]] = []

    def walk(node: int, conditions: Sequence[tuple[str, str, float]]) -> None:
        if tree.children_left[node] == tree.children_right[node]:
            place = float(tree.value[node].ravel()[0])
            way = "stays at"
            if abs(place - tuned) > STILL:
                way = "is raised to" if place > tuned else "is lowered to"
            said = (
                f"{CONTROL_NAMES[j]} {way} {_value(j, place)} (tuned {_value(j, tuned)}) {_where(conditions)}"
            )
            share = tree.n_node_samples[node] / tree.n_node_samples[0]
            leaves.append((int(tree.n_node_samples[node]), f"{said}: {100 * share:.0f}% of the states."))
            return
        name, edge = STATE_NAMES[tree.feature[node]], float(tree.threshold[node])
        walk(tree.children_left[node], [*conditions, (name, "at most", edge)])
        walk(tree.children_right[node], [*conditions, (name, "above", edge)])

    walk(0, [])
    return [text for _, text in sorted(leaves, key=lambda leaf: -leaf[0])]


def _where(conditions: Sequence[tuple[str, str, float]]) -> str:
    # Of several conditions of one kind on one feature the narrowest says it all.
    narrowest: dict[tuple[str, str], float] = {}
    for name, kind, edge in conditions:
        before = narrowest.get((name, kind), edge)
        narrowest[name, kind] = min(before, edge) if kind == "at most" else max(before, edge)
    said = [f"{name} is {kind} {edge:.3g}" for (name, kind), edge in narrowest.items()]
    return "where " + " and ".join(said) if said else "everywhere"
