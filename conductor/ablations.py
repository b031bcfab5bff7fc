"""A conductor in a race, and what is left of it when feedback, features or training are taken away.

They separate better constants from better control. What the frozen ones play back is measured on other tasks
than those of the race (:func:`habits`), so that no contestant has seen a problem that it is judged on.
"""

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from scipy.special import logit

from compute.seeds import stream
from compute.workers import Mapper
from conductor.contestants import Performance, Schedule
from conductor.curriculum import Batch
from conductor.environment import Environment
from conductor.objective import Scores
from conductor.sight import Inputs, Outlook, inputs_of
from conductor.state import HISTORY_NAMES, KNOWN, MARKET, PROGRESS_NAMES
from conductor.tasks import Task
from ga.controls import places_of
from ga.variation import Variation

if TYPE_CHECKING:
    from conductor.conducting import Conducting
    from conductor.model import Conductor

#: Rows of the mean schedule.
N_SHARES = 61
#: Random networks that stand for no training, each on its share of the runs: one could be lucky.
N_UNTRAINED = 4
#: Of the statistics, what the clock and the task say before there is a population.
CLOCK = ("budget_used", "log_population_size", "log_n_genes")
_PLACE_LIMIT = 1e-6  # from the ends, where a logit has none

#: Takes something away from what a network sees.
Blindfold = Callable[[Inputs], Inputs]


@dataclass(frozen=True, eq=False)
class Conducted:
    """The conductor, or a conductor that sees less.

    Parameters
    ----------
    name : str
    conductor : Conductor
    blindfold : callable, optional
        Changes what the network sees, generation by generation.
    outlook : callable, optional
        What it sees of the market of these tasks, where its scaler is not that of the race.
    """

    name: str
    conductor: "Conductor"
    blindfold: Callable[[Batch], Blindfold] | None = None
    outlook: Callable[[Sequence[Task]], Outlook] | None = None

    def run(self, batch: Batch, variation: Variation, mapper: Mapper) -> Performance:
        """Return what the conductor does; see :class:`conductor.contestants.Contestant`.

        It brings the operators that it learned with: with others its controls mean something else.
        """
        if self.outlook is not None:
            batch = replace(batch, outlook=self.outlook(batch.tasks))
        if self.blindfold is None:
            policy = conducting(self.conductor, batch.outlook)
        else:
            policy = _Blindfolded(self.conductor, batch, self.blindfold(batch))
        environment = batch.environment(self.conductor.variation, mapper=mapper)
        return Performance.of(environment, environment.run(policy))


def conducting(conductor: "Conductor", outlook: Outlook) -> "Conducting":
    """Return the conductor at work on runs with this outlook."""
    from conductor.conducting import Conducting  # PyTorch takes seconds to import

    return Conducting(conductor.network, conductor.steering, outlook)


def shuffled(seed: int) -> Callable[[Batch], Blindfold]:
    """Return a blindfold under which each run is steered by what another run of the batch shows.

    It is the same other run all the time, at the same generation: what the network sees is as likely as
    before, and only the feedback is cut.
    """

    def made(batch: Batch) -> Blindfold:
        order = stream(seed, "shuffled features").permutation(len(batch))
        other = np.empty(len(batch), dtype=np.int64)
        other[order] = np.roll(order, 1)  # one cycle of all: nobody sees itself
        return lambda inputs: Inputs(*(part[other] for part in inputs))

    return made


def without_market(batch: Batch) -> Blindfold:
    """Return a blindfold under which no market feature is known."""

    def blind(inputs: Inputs) -> Inputs:
        state = inputs.state.copy()
        state[:, MARKET] = state[:, KNOWN] = 0.0
        return inputs._replace(state=state)

    return blind


def without_population(batch: Batch) -> Blindfold:
    """Return a blindfold under which all statistics of the population are 0.

    Clock, sizes, previous controls and market are left: what can be known without looking at the population.
    """
    state_hidden = [j for j, name in enumerate(PROGRESS_NAMES) if name not in CLOCK]
    history_hidden = [
        j for j, name in enumerate(HISTORY_NAMES) if name not in CLOCK and not name.startswith("control_")
    ]

    def blind(inputs: Inputs) -> Inputs:
        state, history = inputs.state.copy(), inputs.history.copy()
        state[:, state_hidden] = 0.0
        history[..., history_hidden] = 0.0
        return inputs._replace(state=state, history=history)

    return blind


@dataclass(frozen=True, eq=False)
class Untrained:
    """Networks of the conductor's make whose weights are drawn at random.

    Every array of weights is drawn from a normal distribution with the mean square that training left it
    with, so that the networks say as much as the trained one, of no use.

    Parameters
    ----------
    name : str
    conductor : Conductor
    seed : int
    """

    name: str
    conductor: "Conductor"
    seed: int = 0

    def run(self, batch: Batch, variation: Variation, mapper: Mapper) -> Performance:
        """Return what random networks do; see :class:`conductor.contestants.Contestant`."""
        from conductor.conducting import Conducting

        parts = [
            Conducting(self.network(i), self.conductor.steering, batch.outlook) for i in range(N_UNTRAINED)
        ]
        mine = np.arange(len(batch)) % N_UNTRAINED

        def policy(states: np.ndarray, environment: Environment) -> np.ndarray:
            return np.array([part(states, environment) for part in parts])[mine, np.arange(len(batch))]

        environment = batch.environment(self.conductor.variation, mapper=mapper)
        return Performance.of(environment, environment.run(policy))

    def network(self, number: int):
        """Return one of the random networks."""
        import torch

        network = copy.deepcopy(self.conductor.network)
        rng = stream(self.seed, "untrained", number)
        with torch.no_grad():
            for weights in network.parameters():
                size = float(weights.double().square().mean().sqrt())
                weights.copy_(torch.as_tensor(size * rng.standard_normal(tuple(weights.shape))))
        return network


@dataclass(frozen=True, eq=False)
class Habits:
    """What a conductor does on average, measured on tasks that are not those of a race.

    Parameters
    ----------
    schedule : Schedule
        Mean place of each control at ``N_SHARES`` shares of the run.
    mean : Schedule
        Mean place over runs and generations, one row.
    spread : float64 (12,)
        Standard deviation of the logits of the places, over runs and generations.
    scores : Scores
        Of the runs that it was measured on.
    """

    schedule: Schedule
    mean: Schedule
    spread: np.ndarray
    scores: Scores


def habits(conductor: "Conductor", batch: Batch, mapper: Mapper) -> Habits:
    """Return what a conductor does on average.

    Parameters
    ----------
    conductor : Conductor
    batch : Batch
        Training tasks.
    mapper : Mapper
    """
    policy = conducting(conductor, batch.outlook)
    played: list[np.ndarray] = []

    def recorded(states: np.ndarray, environment: Environment) -> np.ndarray:
        controls = policy(states, environment)
        played.append(places_of(controls))
        return controls

    outcome = batch.environment(conductor.variation, mapper=mapper).run(recorded)
    places = np.array(played)
    ends = np.array([task.n_generations for task in batch.tasks])
    bred = np.arange(len(places))[:, None] < ends
    shares = np.linspace(0.0, 1.0, N_SHARES)
    schedule = np.zeros((N_SHARES, places.shape[2]))
    for end in np.unique(ends):
        own = Schedule(places[:end, ends == end].mean(axis=1))
        schedule += own.at(shares) * (ends == end).mean()
    return Habits(
        Schedule(np.clip(schedule, 0.0, 1.0)),
        Schedule(places[bred].mean(axis=0)[None]),
        logit(np.clip(places[bred], _PLACE_LIMIT, 1.0 - _PLACE_LIMIT)).std(axis=0),
        batch.scores(outcome),
    )


class _Blindfolded:
    """A policy whose network sees what a blindfold lets through; its controls are still its own."""

    def __init__(self, conductor: "Conductor", batch: Batch, blindfold: Blindfold) -> None:
        self._conducting = conducting(conductor, batch.outlook)
        self._conductor, self._outlook, self._blindfold = conductor, batch.outlook, blindfold

    def __call__(self, states: np.ndarray, environment: Environment) -> np.ndarray:
        from conductor.network import tensors

        inputs = inputs_of(environment, self._outlook, self._conductor.network.n_history)
        residual = self._conducting.residual(tensors(self._blindfold(inputs)))
        return self._conductor.steering.steered(residual, environment.controls)
