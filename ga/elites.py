"""A search for many good answers that differ: MAP-Elites on the unit cube, through pyribs.

The archive is a grid over measures of behavior, and each cell keeps the best genome that behaves so. Emitters
propose genomes side by side: Gaussian steps from elites, steps along the line between two elites, and CMA-ES
strategies that climb where the archive improves (CMA-ME). pyribs keeps the grid and the emitters; ``ask`` and
``tell`` are those of the other searches here.

Needs the extra ``diversity``.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from configs.load import ConfigError
from ga import kernels
from ga.controls import Hyperparameters
from ga.space import GenomeSpace

#: What a genome without a finite objective counts as; its cell stays empty for whoever reads the archive.
WORST = -1e12
#: A generation counts as progress if the QD score grows by this share.
LEAST_GROWTH = 1e-3
SIGMA = 0.1  # of Gaussian steps, and the first of each CMA-ES, as a fraction of a gene's range
ISO_SIGMA, LINE_SIGMA = 0.01, 0.2  # Vassiliades and Mouret (2018)
MOST_STRATEGIES = 4


@dataclass(frozen=True)
class Axis:
    """One measure of behavior.

    Parameters
    ----------
    name : str
    low, high : float
        Edges of the grid; what lies beyond belongs to the last cell.
    bins : int
        Cells along it.
    log : bool
        Whether cells are equal in the logarithm; bounds are then above 0.

    Raises
    ------
    ValueError
        If bounds are not increasing, not above 0 for a logarithm, or there is no bin.
    """

    name: str
    low: float
    high: float
    bins: int
    log: bool = False

    def __post_init__(self) -> None:
        if not (math.isfinite(self.low) and math.isfinite(self.high) and self.low < self.high):
            raise ValueError(f"axis {self.name} runs from {self.low} to {self.high}; it must increase")
        if self.bins < 1 or (self.log and self.low <= 0.0):
            raise ValueError(
                f"axis {self.name} has {self.bins} bins from {self.low}; it needs at least 1, and a "
                f"logarithm starts above 0"
            )

    @property
    def edges(self) -> np.ndarray:
        """Edges of the cells, float64 (bins + 1,)."""
        if self.log:
            return np.geomspace(self.low, self.high, self.bins + 1)
        return np.linspace(self.low, self.high, self.bins + 1)

    def scaled(self, values: np.ndarray) -> np.ndarray:
        """Return places on the axis, 0 at its low end and 1 at its high end; the ends hold what is beyond."""
        low, high = self.low, self.high
        values = np.clip(values, low, high)
        if self.log:
            return np.log(values / low) / math.log(high / low)
        return (values - low) / (high - low)


@dataclass(frozen=True, eq=False)
class Elites:
    """The filled cells of an archive, in the order of the grid.

    Parameters
    ----------
    genes : float64 (n, d)
    objective : float64 (n,)
    measures : float64 (n, a)
        In natural units.
    cells : int64 (n, a)
        Place of each on every axis, from 0 on.
    born : int64 (n,)
        Generation of each.
    """

    genes: np.ndarray
    objective: np.ndarray
    measures: np.ndarray
    cells: np.ndarray
    born: np.ndarray

    def __len__(self) -> int:
        return len(self.genes)


@dataclass(frozen=True, eq=False)
class ElitesProgress:
    """The state of the search after one generation.

    Parameters
    ----------
    generation : int
        0 is the initial sample.
    evaluations : int
        Genomes asked for since the start.
    best, median : float
        Objective of the elites; -inf without any.
    diversity : float
        Root mean square distance of the elites to their centre, per gene.
    stagnation : int
        Generations since the QD score last grew by ``LEAST_GROWTH``.
    coverage : float
        Share of the cells that are filled.
    qd_score : float
        See :func:`qd_score`.
    positive : int
        Cells with an objective above zero.
    invalid : int
        Genomes of this generation without a finite objective.
    """

    generation: int
    evaluations: int
    best: float
    median: float
    diversity: float
    stagnation: int
    coverage: float
    qd_score: float
    positive: int
    invalid: int

    def row(self) -> dict[str, float | int]:
        """Return the log row."""
        return dict(vars(self))


def qd_score(objective: ArrayLike) -> float:
    """Return the sum of what the cells earn above zero.

    The usual sum over all cells needs an offset that makes every objective positive, and says more about
    the offset than about the archive. Here an empty cell and one that loses are worth the same: nothing.

    Source: Pugh, Soros and Stanley (2016), with that difference.
    """
    return float(np.maximum(np.asarray(objective, dtype=np.float64), 0.0).sum())


class MapElites:
    """MAP-Elites with several emitters: maximises an objective in every cell and owns no evaluation.

    The same seed and the same answers give the same bytes.

    Parameters
    ----------
    space : GenomeSpace
    axes : sequence of Axis
    hyperparameters : Hyperparameters
        ``population_size`` genomes per generation, divided between the emitters; ``patience`` counts
        generations in which the QD score does not grow.
    seed : int
        Root of all randomness.
    emitters : tuple of str
        Of ``gaussian``, ``line``, ``improvement`` (compiles for some seconds when first used) and
        ``sample`` (uniform samples, to compare with); ``improvement`` takes half of the genomes if there
        are others beside it.

    Attributes
    ----------
    progress : ElitesProgress
    logbook : list of dict

    Raises
    ------
    ConfigError
        If pyribs is not installed.
    ValueError
        If an emitter is unknown.

    Sources: Mouret and Clune (2015); Vassiliades and Mouret (2018); Fontaine, Togelius, Nikolaidis and
    Hoover (2020).
    """

    EMITTERS = ("gaussian", "line", "improvement", "sample")
    DEFAULT = ("gaussian", "line")  # ``benchmarks/quality_diversity.py`` compares them

    def __init__(
        self,
        space: GenomeSpace,
        axes: Sequence[Axis],
        hyperparameters: Hyperparameters,
        seed: int,
        emitters: tuple[str, ...] = DEFAULT,
    ) -> None:
        if not emitters or set(emitters) - set(self.EMITTERS):
            raise ValueError(f"emitters are {emitters}; known: {', '.join(self.EMITTERS)}")
        self.space = space
        self.axes = tuple(axes)
        self.hyperparameters = hyperparameters
        self.logbook: list[dict[str, float | int]] = []
        self._seed = seed
        roots = np.random.SeedSequence(seed).spawn(2 + len(self.EMITTERS) + MOST_STRATEGIES)
        self._rng = np.random.default_rng(roots[0])
        self._archive = _grid(space.n_genes, self.axes, roots[1])
        self._emitters = _emitters(self._archive, space, emitters, hyperparameters.population_size, roots[2:])
        self._told: list[np.ndarray] = []  # objective and measures of each generation, for state()
        self._asked: tuple[np.ndarray, list[np.ndarray]] | None = None
        self._score = 0.0  # when it last counted as grown
        self.progress = ElitesProgress(0, 0, -math.inf, -math.inf, 0.0, 0, 0.0, 0.0, 0, 0)

    @property
    def finished(self) -> bool:
        """Whether all generations are done, or patience is exhausted."""
        patience = self.hyperparameters.patience
        return (
            self.progress.generation >= self.hyperparameters.n_generations
            or 0 < patience <= self.progress.stagnation
        )

    @property
    def elites(self) -> Elites:
        """The filled cells with a finite objective."""
        data = self._archive.data(["solution", "objective", "natural", "born", "index"])
        order = np.argsort(data["index"], kind="stable")
        order = order[data["objective"][order] > WORST]
        cells = self._archive.int_to_grid_index(data["index"][order].astype(np.int32))
        return Elites(
            genes=np.array(data["solution"][order]),
            objective=np.array(data["objective"][order]),
            measures=np.array(data["natural"][order]),
            cells=np.asarray(cells, dtype=np.int64).reshape(-1, len(self.axes)),
            born=np.array(data["born"][order], dtype=np.int64),
        )

    @property
    def n_cells(self) -> int:
        """Cells of the grid."""
        return math.prod(axis.bins for axis in self.axes)

    def ask(self) -> np.ndarray:
        """Return the genes to evaluate next, float64 (m, d), read-only.

        Raises
        ------
        RuntimeError
            If the last genomes were not told, or the search is finished.
        """
        if self._asked is not None:
            raise RuntimeError("ask() was called twice; tell() needs the answers of the last genomes first")
        if not self._told:
            proposed = [self.space.sample(self._rng, self.hyperparameters.population_size)]
        elif self.finished:
            raise RuntimeError(
                f"ask() was called after the search finished in generation {self.progress.generation}"
            )
        else:
            proposed = [np.array(emitter.ask()) for emitter in self._emitters]
        # A wall mirrors what crosses it, as often as needed: strategies move without bounds.
        genes = 1.0 - np.abs(1.0 - np.mod(np.concatenate(proposed), 2.0))
        self._asked = genes, proposed
        shown = genes.view()
        shown.flags.writeable = False
        return shown

    def tell(self, objective: ArrayLike, measures: ArrayLike) -> None:
        """Take the answers for the genomes that ``ask`` returned, and complete the generation.

        Parameters
        ----------
        objective : float64 (m,)
            Higher is better; what is not finite counts as the worst.
        measures : float64 (m, a)
            Behavior in natural units; NaN counts as the low end of its axis.

        Raises
        ------
        RuntimeError
            If ``ask`` was not called before.
        ValueError
            If the shapes do not fit.
        """
        if self._asked is None:
            raise RuntimeError("tell() was called without ask(); ask() for genomes first")
        genes, proposed = self._asked
        objective = np.array(objective, dtype=np.float64)
        measures = np.array(measures, dtype=np.float64)
        if objective.shape != (len(genes),) or measures.shape != (len(genes), len(self.axes)):
            raise ValueError(
                f"objective has shape {objective.shape} and measures {measures.shape}; tell() needs "
                f"({len(genes)},) and ({len(genes)}, {len(self.axes)}), one row per genome"
            )
        low = [axis.low for axis in self.axes]
        measures = np.where(np.isnan(measures), low, measures)
        invalid = ~np.isfinite(objective)
        objective[invalid] = WORST
        places = np.column_stack([axis.scaled(measures[:, i]) for i, axis in enumerate(self.axes)])
        generation = self.progress.generation + 1 if self._told else 0
        born = np.full(len(genes), generation)
        info = self._archive.add(genes, objective, places, natural=measures, born=born)
        if self._told:
            start = 0
            for emitter, part in zip(self._emitters, proposed, strict=True):
                rows = slice(start, start + len(part))
                emitter.tell(
                    part,
                    objective[rows],
                    places[rows],
                    {name: values[rows] for name, values in info.items()},
                    natural=measures[rows],
                    born=born[rows],
                )
                start = rows.stop
        self._told.append(np.column_stack([objective, measures]))
        self._asked = None
        self._record(generation, len(genes), int(invalid.sum()))

    def _record(self, generation: int, asked: int, invalid: int) -> None:
        elites = self.elites
        score = qd_score(elites.objective)
        grown = score > self._score * (1.0 + LEAST_GROWTH)
        if grown:
            self._score = score
        self.progress = replace(
            self.progress,
            generation=generation,
            evaluations=self.progress.evaluations + asked,
            best=float(elites.objective.max(initial=-math.inf)),
            median=float(np.median(elites.objective)) if len(elites) else -math.inf,
            diversity=float(kernels.diversity(elites.genes)) if len(elites) else 0.0,
            stagnation=0 if grown or generation == 0 else self.progress.stagnation + 1,
            coverage=len(elites) / self.n_cells,
            qd_score=score,
            positive=int((elites.objective > 0.0).sum()),
            invalid=invalid,
        )
        self.logbook.append(self.progress.row())

    def state(self) -> dict[str, Any]:
        """Return everything the search goes on from: what it was told.

        Genomes follow from the seed and the answers, so the answers are enough, and nothing of pyribs'
        insides is stored.

        Raises
        ------
        RuntimeError
            Between ``ask`` and ``tell``.
        """
        if self._asked is not None:
            raise RuntimeError("state() was called between ask() and tell(); tell() the answers first")
        return {"seed": self._seed, "told": [told.copy() for told in self._told]}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from a state, bit for bit, on a new search of the same space, axes, settings and seed.

        The answers are told again, generation by generation; no genome is evaluated.

        Raises
        ------
        ValueError
            If this search has another seed, or is not new.
        """
        if state["seed"] != self._seed or self._told:
            raise ValueError(f"the state is of seed {state['seed']}; it needs a new search with that seed")
        for told in state["told"]:
            self.ask()
            self.tell(told[:, 0], told[:, 1:])


def _grid(d: int, axes: tuple[Axis, ...], seed: np.random.SeedSequence) -> Any:
    try:
        from ribs.archives import GridArchive
    except ImportError as error:
        raise ConfigError(
            "a search for an archive needs pyribs, which is not installed; install it with "
            '"regime-conductor[diversity]"'
        ) from error
    return GridArchive(
        solution_dim=d,
        dims=[axis.bins for axis in axes],
        ranges=[(0.0, 1.0)] * len(axes),
        seed=seed,
        dtype=np.float64,
        extra_fields={"natural": ((len(axes),), np.float64), "born": ((), np.int64)},
    )


class _Sampler:
    """An emitter that learns nothing: a new Latin hypercube every time."""

    def __init__(self, space: GenomeSpace, batch_size: int, seed: np.random.SeedSequence) -> None:
        self._space = space
        self._batch_size = batch_size
        self._rng = np.random.default_rng(seed)

    def ask(self) -> np.ndarray:
        return self._space.sample(self._rng, self._batch_size)

    def tell(self, *_: Any, **__: Any) -> None:
        pass


def _emitters(
    archive: Any,
    space: GenomeSpace,
    names: tuple[str, ...],
    population_size: int,
    seeds: Sequence[np.random.SeedSequence],
) -> list[Any]:
    from ribs.emitters import EvolutionStrategyEmitter, GaussianEmitter, IsoLineEmitter

    d, centre = space.n_genes, np.full(space.n_genes, 0.5)
    steps = [name for name in names if name != "improvement"]
    climbing = 0  # genomes that climb
    if "improvement" in names:
        climbing = population_size // 2 if steps else population_size
    strategies = min(MOST_STRATEGIES, climbing // (4 + int(3 * math.log(d)))) or min(climbing, 1)
    emitters: list[Any] = []
    for name, size, seed in zip(steps, _shares(population_size - climbing, len(steps)), seeds, strict=False):
        if name == "gaussian":
            emitter = GaussianEmitter(archive, sigma=SIGMA, x0=centre, batch_size=size, seed=seed)
        elif name == "line":
            emitter = IsoLineEmitter(
                archive, iso_sigma=ISO_SIGMA, line_sigma=LINE_SIGMA, x0=centre, batch_size=size, seed=seed
            )
        else:
            emitter = _Sampler(space, size, seed)
        emitters.append(emitter)
    for size, seed in zip(_shares(climbing, strategies), seeds[len(MapElites.EMITTERS) :], strict=False):
        emitters.append(
            EvolutionStrategyEmitter(
                archive, x0=centre, sigma0=2 * SIGMA, ranker="2imp", batch_size=size, seed=seed
            )
        )
    return emitters


def _shares(total: int, parts: int) -> list[int]:
    # Equal whole shares; the first ones hold the remainder.
    return [total // parts + (i < total % parts) for i in range(parts)]
