"""The conductor that learns to learn: weights from which a few examples of an unseen regime go a long way.

What a fork of a run has shown, its vine labels, is an example; examples of one kind of run, a regime or a
kind of landscape, are a task. In the inner loop the last layer takes a few gradient steps on some runs of a
task; the outer loop moves all weights, and the step size of each control, so that the result answers right on
other runs of the same task. Only the last layer adapts, which has been found to be as good as adapting all of
it: what a new task needs is another reading of the same features.

Runs without a regime have no label of their kind. They are sorted into kinds by what the search itself looks
like in them, so that there are tasks to learn from where there is no market.

Sources: C. Finn, P. Abbeel and S. Levine (2017), Model-agnostic meta-learning for fast adaptation of deep
networks (ICML); A. Raghu et al. (2020), Rapid learning or feature reuse? (ICLR) for the last layer; Z. Li et
al. (2017), Meta-SGD (arXiv 1707.09835) for the step sizes; K. Hsu, S. Levine and C. Finn (2019), Unsupervised
learning via meta-learning (ICLR) for tasks from clusters.
"""

import copy
import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn
from torch.func import grad, vmap

from compute.seeds import stream
from conductor.network import N_CONTROLS, N_STATE, VARIANTS, ConductorNetwork, silent
from conductor.regression import as_tensors, inputs_of_labels, one_per_fork
from conductor.school import Labels
from conductor.sight import Inputs
from conductor.state import NO_REGIME, PROGRESS
from configs.load import Config
from regimes.regime import Regime

if TYPE_CHECKING:
    from conductor.school import School

#: Share of the runs of a task that the outer loop never sees; the weights to keep are chosen on them.
HELD_OUT = 0.25
#: Runs of a task without which it is none: support, query and held-out runs must differ.
LEAST_RUNS = 4
#: Logit of the step size of the inner loop before any is learned, in units of the largest that is safe.
_FIRST_STEP = -1.0
#: So many times the steps of the inner loop are tried when a regime learns from all of its runs.
_TIMES = (1, 4, 16)
#: Times that the weights are judged during the outer loop, and so many without a better one end it.
_JUDGED, _PATIENCE = 20, 6


class MamlConfig(Config):
    """Settings of variant maml."""

    hidden: int = Field(32, ge=1, le=256, description="Hidden units of each of the two layers.")
    inner_steps: int = Field(3, ge=1, le=50, description="Gradient steps by which a task is learned.")
    support: int = Field(48, ge=1, le=4096, description="Forks of a task that the inner loop learns from.")
    query: int = Field(48, ge=1, le=4096, description="Forks of it that the result is judged by.")
    tasks: int = Field(8, ge=1, le=1024, description="Tasks per step of the outer loop.")
    steps: int = Field(1500, ge=1, le=10**7, description="Steps of the outer loop, at an effort of 1.")
    learning_rate: float = Field(2e-3, gt=0.0, le=1.0, description="Step of Adam in the outer loop.")
    kinds: int = Field(8, ge=1, le=256, description="Kinds into which runs without a regime are sorted.")


@VARIANTS.register("maml")
class Maml(ConductorNetwork):
    """Two layers of tanh units that all tasks share, and a last layer with an offset for each regime.

    The offsets are what the inner loop has learned: of the regimes that the labels knew when schooling ended,
    and of those that :meth:`adapted` was given since. All others answer with the common last layer.
    """

    Config = MamlConfig

    def __init__(self, config: MamlConfig) -> None:
        super().__init__(config)
        units = config.hidden
        self.body = nn.Sequential(nn.Linear(N_STATE, units), nn.Tanh(), nn.Linear(units, units), nn.Tanh())
        self.head = silent(nn.Linear(units, N_CONTROLS))
        # Row 0 is of runs without a regime, row 1 + r of regime r.
        rows = len(Regime) - NO_REGIME
        self.register_buffer("weight_offset", torch.zeros(rows, N_CONTROLS, units))
        self.register_buffer("bias_offset", torch.zeros(rows, N_CONTROLS))
        #: Logits of the step sizes of the inner loop, one per control.
        self.register_buffer("step", torch.full((N_CONTROLS,), _FIRST_STEP))

    def forward(self, inputs: Inputs) -> Tensor:
        """Return the residuals, float32 (B, 12)."""
        features = self.body(inputs.state)
        row = inputs.regime - NO_REGIME
        offset = torch.einsum("bcu,bu->bc", self.weight_offset[row], features) + self.bias_offset[row]
        return self.head(features) + offset

    def adapted(self, labels: Labels, steps: int | None = None) -> Self:
        """Return a copy that has learned from labels of one or several regimes, each for itself.

        Parameters
        ----------
        labels : Labels
            Of at least one run, for example of a few runs of a regime that no label had before. What the
            copy answers in other regimes stays as it is.
        steps : int, optional
            Gradient steps, ``inner_steps`` by default. With 0 the offsets of these regimes are taken away.

        Raises
        ------
        ValueError
            If there are no labels or steps is negative.
        """
        steps = self.config.inner_steps if steps is None else steps
        if len(labels) == 0 or steps < 0:
            raise ValueError(f"{len(labels)} labels and {steps} steps: a regime is learned from some of each")
        other = copy.deepcopy(self)
        rows = one_per_fork(labels)
        with torch.no_grad():
            for regime in np.unique(rows.regime).tolist():
                own = rows.rows(np.flatnonzero(rows.regime == regime))
                known = as_tensors(own, self.step.device)
                features = self.body(known.state)
                learned = _inner(_head(self), self.step, features, known.residual, steps)
                other.weight_offset[regime - NO_REGIME] = learned["weight"] - self.head.weight
                other.bias_offset[regime - NO_REGIME] = learned["bias"] - self.head.bias
        return other

    def schooled(self, school: "School") -> Mapping[str, Any]:
        """Learn to learn from the vine labels; see :func:`meta_trained` for the figures."""
        labels = school.labels(self.n_history)
        steps = max(int(self.config.steps * school.effort), 1)
        return meta_trained(self, labels, steps=steps, seed=school.seed, told=school.told)


def meta_trained(
    network: Maml,
    labels: Labels,
    *,
    steps: int,
    seed: int,
    task: np.ndarray | None = None,
    told: Callable[[int, int, str], None] | None = None,
) -> dict[str, Any]:
    """Train a network to learn from few forks, in place: the outer loop.

    A quarter of the runs of each task is held out, and the weights that are kept are those that adapt to them
    best. In the end each regime learns from its other runs, and answers with what it has learned, with the
    common last layer, or not at all, whichever is best for those held out. If silence is best for all of
    them and for few forks, the network is left as it was.

    Parameters
    ----------
    network : Maml
    labels : Labels
    steps : int
        Of the outer loop, at most: it ends when the held-out runs have long shown nothing better.
    seed : int
        Of the split, the kinds and the order of the tasks.
    task : int64 (m,), optional
        Which task each label belongs to; by default its regime or, without one, its kind.
    told : callable, optional
        ``told(done, total, sentence)``.

    Returns
    -------
    dict
        ``tasks``, the runs of each; ``steps``, when it was judged, and then the mean squared error of the
        residuals on held-out runs, mean over tasks, ``before`` and ``after`` the inner loop; ``silence``,
        that of answering zero; ``kept``, after which step, or None if silence was best; ``regimes``, by
        name the held-out errors of its three answers, and which of them it gives.

    Raises
    ------
    ValueError
        If no task has ``LEAST_RUNS`` runs.
    """
    config, rows = network.config, one_per_fork(labels)
    if task is None:
        task = kinds_of(rows, config.kinds, seed)
    else:
        task = np.asarray(task)[np.unique(labels.fork, return_index=True)[1]]
    rng = stream(seed, "maml")
    tasks = _Tasks(rows, task, rng)
    seen = as_tensors(rows, network.step.device)
    state, target = seen.state, seen.residual
    raw = network.step.clone().requires_grad_()
    learned = [*network.body.parameters(), *network.head.parameters(), raw]
    optimizer = torch.optim.AdamW(learned, lr=config.learning_rate, weight_decay=1e-3)
    trials = [tasks.trial(config.support, rng) for _ in range(4)]
    silence = float(np.mean([float(target[held].square().sum(1).mean()) for held in tasks.held]))
    best = start = copy.deepcopy(network.state_dict())
    found: dict[str, list] = {"steps": [], "before": [], "after": []}
    lowest, kept, waited, every = math.inf, 0, 0, max(steps // _JUDGED, 1)
    for done in range(steps + 1):
        if done % every == 0 or done == steps:
            with torch.no_grad():
                network.step.copy_(raw)
                judged = [_judged(network, state, target, trial) for trial in trials]
            before, after = np.mean(judged, axis=0).tolist()
            for name, value in (("steps", done), ("before", before), ("after", after)):
                found[name].append(value)
            waited += 1
            if after < lowest:
                lowest, kept, waited, best = after, done, 0, copy.deepcopy(network.state_dict())
            if told is not None:
                told(done, steps, f"held-out error {after:.4f} once adapted; silence has {silence:.4f}")
        if done == steps or waited == _PATIENCE:
            break
        support, query = tasks.draw(config.tasks, config.support, config.query, rng)
        features = network.body(state[np.concatenate([support, query], axis=1)])
        known, asked = features.split([config.support, config.query], dim=1)
        heads = _inner_of_tasks(network, raw, known, target[support])
        answers = torch.einsum("tcu,tnu->tnc", heads["weight"], asked) + heads["bias"][:, None]
        loss = (answers - target[query]).square().sum(dim=-1).mean()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(learned, 1.0)
        optimizer.step()
    network.load_state_dict(best)
    regimes = _settled(network, labels, rows, tasks.held)
    if lowest >= silence and all(answer["answers"] == "silent" for answer in regimes.values()):
        network.load_state_dict(start)
        kept = None
    return {"tasks": tasks.runs, **found, "silence": silence, "kept": kept, "regimes": regimes}


def kinds_of(labels: Labels, n: int, seed: int) -> np.ndarray:
    """Return which task each row belongs to, int64 (m,): its regime or, without one, the kind of its run.

    Kinds are clusters of runs by the mean over their rows of what the search shows, each statistic in its own
    standard deviations; they have the numbers -1, -2 and so on.

    Parameters
    ----------
    labels : Labels
    n : int
        Kinds at most; fewer if they would have less than twice the fewest runs of a task.
    seed : int
        Of the clusters.
    """
    from sklearn.cluster import KMeans

    task = labels.regime.astype(np.int64)
    without = np.flatnonzero(task == NO_REGIME)
    names, place = np.unique(labels.run[without], return_inverse=True)
    n = min(n, len(names) // (2 * LEAST_RUNS))
    if n < 2:
        return task
    seen = labels.state[without][:, PROGRESS].astype(np.float64)
    mean = np.zeros((len(names), seen.shape[1]))
    np.add.at(mean, place, seen)
    mean /= np.bincount(place)[:, None]
    spread = mean.std(axis=0)
    mean = (mean - mean.mean(axis=0)) / np.where(spread > 0.0, spread, 1.0)
    random_state = int(stream(seed, "maml", "kinds").integers(2**31))
    kind = KMeans(n, n_init=4, random_state=random_state).fit_predict(mean)
    task[without] = NO_REGIME - kind[place]
    return task


class _Tasks:
    """Rows by task and, within a task, by run; the held-out runs apart."""

    def __init__(self, rows: Labels, task: np.ndarray, rng: np.random.Generator) -> None:
        self.runs: dict[str, int] = {}
        self.held: list[np.ndarray] = []
        self._by_run: list[list[np.ndarray]] = []
        for name in np.unique(task).tolist():
            of = np.flatnonzero(task == name)
            runs = rng.permutation(np.unique(rows.run[of]))
            if len(runs) < LEAST_RUNS:
                continue
            n_held = max(1, round(HELD_OUT * len(runs)))
            self.runs[str(name)] = len(runs)
            self.held.append(of[np.isin(rows.run[of], runs[:n_held])])
            self._by_run.append([of[rows.run[of] == run] for run in runs[n_held:]])
        if not self.runs:
            raise ValueError(
                f"labels of {len(np.unique(rows.run))} runs make no task of at least {LEAST_RUNS} runs"
            )

    def draw(
        self, n: int, n_support: int, n_query: int, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return rows (n, n_support) and (n, n_query) of n tasks; the two share no run."""
        support, query = [], []
        for which in rng.integers(len(self._by_run), size=n).tolist():
            runs = self._by_run[which]
            order = rng.permutation(len(runs)).tolist()
            half = len(runs) // 2
            for rows, size, some in ((support, n_support, order[:half]), (query, n_query, order[half:])):
                rows.append(rng.choice(np.concatenate([runs[run] for run in some]), size))
        return np.array(support), np.array(query)

    def trial(self, n_support: int, rng: np.random.Generator) -> list[tuple[np.ndarray, np.ndarray]]:
        """Return, for each task, rows to adapt on and its held-out rows."""
        return [
            (rng.choice(np.concatenate(runs), n_support), held)
            for runs, held in zip(self._by_run, self.held, strict=True)
        ]


def _head(network: Maml) -> dict[str, Tensor]:
    return {"weight": network.head.weight, "bias": network.head.bias}


def _read(head: Mapping[str, Tensor], features: Tensor) -> Tensor:
    return features @ head["weight"].T + head["bias"]


def _half_square(head: Mapping[str, Tensor], features: Tensor, target: Tensor) -> Tensor:
    return 0.5 * (_read(head, features) - target).square().sum(dim=-1).mean()


def _inner(
    head: dict[str, Tensor], step: Tensor, features: Tensor, target: Tensor, steps: int
) -> dict[str, Tensor]:
    # In units of the largest curvature that the error can have, so that no step below 1 overshoots.
    rate = torch.sigmoid(step) / (1.0 + features.square().sum(dim=-1).mean())
    for _ in range(steps):
        slope = grad(_half_square)(head, features, target)
        head = {
            "weight": head["weight"] - rate[:, None] * slope["weight"],
            "bias": head["bias"] - rate * slope["bias"],
        }
    return head


def _inner_of_tasks(network: Maml, step: Tensor, features: Tensor, target: Tensor) -> dict[str, Tensor]:
    # One last layer per task, (t, 12, units) and (t, 12), from features (t, n, units).
    return vmap(lambda seen, wanted: _inner(_head(network), step, seen, wanted, network.config.inner_steps))(
        features, target
    )


def _judged(
    network: Maml, state: Tensor, target: Tensor, trial: list[tuple[np.ndarray, np.ndarray]]
) -> tuple[float, float]:
    support = np.array([rows for rows, _ in trial])
    heads = _inner_of_tasks(network, network.step, network.body(state[support]), target[support])
    before, after = [], []
    for task, (_, held) in enumerate(trial):
        features = network.body(state[held])
        own = {name: part[task] for name, part in heads.items()}
        for errors, head in ((before, _head(network)), (after, own)):
            errors.append(float((_read(head, features) - target[held]).square().sum(dim=1).mean()))
    return float(np.mean(before)), float(np.mean(after))


def _settled(network: Maml, labels: Labels, rows: Labels, held: list[np.ndarray]) -> dict[str, Any]:
    # Lets each regime answer as its held-out runs say is best: with what it learns from its other runs, with
    # the common last layer, or not at all. Regimes without runs answer as all held-out runs say.
    apart = np.concatenate(held)
    runs, found = np.unique(rows.run[apart]), {}
    with torch.no_grad():
        silent_rows = -network.head.weight, -network.head.bias
        errors = _errors(network, rows.rows(apart))
        if errors["silent"] <= errors["common"]:
            network.weight_offset[:], network.bias_offset[:] = silent_rows
        for regime in np.unique(rows.regime[apart]).tolist():
            row, own = regime - NO_REGIME, rows.rows(apart[rows.regime[apart] == regime])
            known = labels.rows(np.flatnonzero((labels.regime == regime) & ~np.isin(labels.run, runs)))
            common = network.adapted(known, 0)
            errors = _errors(common, own)
            # Many forks are worth more steps than the few for which the step sizes were learned.
            more = [network.adapted(known, times * network.config.inner_steps) for times in _TIMES]
            learned = min(more, key=lambda one, own=own: _errors(one, own)["common"])
            errors["learned"] = _errors(learned, own)["common"]
            best = min(errors, key=errors.__getitem__)
            if best == "silent":
                network.weight_offset[row], network.bias_offset[row] = silent_rows
            else:
                network.load_state_dict((learned if best == "learned" else common).state_dict())
            name = "none" if regime == NO_REGIME else Regime(regime).text
            found[name] = errors | {"answers": best}
    return found


def _errors(network: Maml, rows: Labels) -> dict[str, float]:
    seen = as_tensors(rows, network.step.device)
    with torch.inference_mode():
        said = network(inputs_of_labels(seen))
    return {
        "silent": float(seen.residual.square().sum(dim=1).mean()),
        "common": float((said - seen.residual).square().sum(dim=1).mean()),
    }
