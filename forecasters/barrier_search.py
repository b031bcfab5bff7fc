"""Triple barriers evolved on training rows, held against the usual ones there and on rows never seen.

The bars are cut off at the last training row before anything is computed: volatilities, costs, labels and
the probe of the search know of nothing later, and a label that would reach beyond the cut is none. Later rows
are opened once, when the search is over.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from compute.seeds import stream
from configs.load import ConfigError
from experiments.ledger import Batch
from forecasters.barrier_fitness import (
    BarrierFigures,
    BarrierFitness,
    BarrierGround,
    judged,
    pipeline,
    scales,
    trading_rates,
)
from forecasters.barrier_settings import BarriersConfig, BarrierSpaceConfig
from ga.controls import POLICIES
from ga.evaluation import Evaluator
from ga.evolution import Evolution
from ga.progress import Progress
from ga.searching import Search
from ga.space import GenomeSpace
from market.bars import Bars
from market.features.dataset import LabelConfig
from market.labels import horizon_bars
from market.splits import Split, folds

#: Decimals of a width: so that what is written is what was judged.
DECIMALS = 10


class BarrierSpace:
    """What genomes mean: widths in steps, a horizon by its length, a column of volatility.

    What has one possible value is no gene.

    Parameters
    ----------
    config : BarrierSpaceConfig
    interval_ns : int
        Length of a bar, nanoseconds.

    Attributes
    ----------
    space : GenomeSpace
    horizons : tuple of str
        From the shortest to the longest.

    Raises
    ------
    ConfigError
        If a horizon is no whole number of bars or is named twice, or there is nothing to choose.
    """

    def __init__(self, config: BarrierSpaceConfig, interval_ns: int) -> None:
        self._config = config
        lengths: dict[int, str] = {}
        for horizon in config.horizons:
            bars = horizon_bars(horizon, interval_ns)
            if bars in lengths:
                raise ConfigError(
                    f"space.horizons: {lengths[bars]} and {horizon} are both {bars} bars; name each once"
                )
            lengths[bars] = horizon
        # By length: neighbors of a horizon are those a little shorter and a little longer.
        self.horizons = tuple(lengths[bars] for bars in sorted(lengths))
        steps = {
            "up": config.up.steps(), "down": config.down.steps(),
            "horizon": len(lengths) - 1, "volatility": len(config.volatilities) - 1,
        }  # fmt: skip
        genes = [gene for gene, most in steps.items() if most]
        if not genes:
            raise ConfigError("space: leaves one choice of barriers; give widths, horizons or volatilities")
        kinds = tuple("choice" if gene == "volatility" else "integer" for gene in genes)
        choices = {"volatility": config.volatilities} if "volatility" in genes else {}
        high = np.array([steps[gene] for gene in genes])
        self.space = GenomeSpace(tuple(genes), np.zeros(len(genes)), high, kinds, choices, "barriers")

    def label(self, genes: np.ndarray) -> LabelConfig:
        """Return the barriers that genes (d,) mean."""
        decoded = self.space.decode(np.asarray(genes)[None])[0]
        steps = dict.fromkeys(("up", "down", "horizon", "volatility"), 0)
        steps |= {name: int(value) for name, value in zip(self.space.names, decoded, strict=True)}
        up, down = self._config.up, self._config.down
        return LabelConfig(
            horizon=self.horizons[steps["horizon"]],
            up=round(up.least + steps["up"] * up.step, DECIMALS),
            down=round(down.least + steps["down"] * down.step, DECIMALS),
            volatility=self._config.volatilities[steps["volatility"]],
        )


@dataclass(frozen=True, eq=False)
class Material:
    """Bars whose settings have proved good, and how they are divided.

    Parameters
    ----------
    bars : Bars (n,)
    split : Split
        The probe needs the rows before training to warm up.
    space : BarrierSpace
    config : BarriersConfig
    """

    bars: Bars
    split: Split
    space: BarrierSpace
    config: BarriersConfig

    @classmethod
    def of(cls, bars: Bars, config: BarriersConfig) -> "Material":
        """Return bars divided into training and later rows.

        Raises
        ------
        ConfigError
            If a setting does not fit the bars, or there are too few of them.
        """
        POLICIES.create(config.policy.name, config.policy.settings)  # a typing error shows before the work
        space = BarrierSpace(config.space, bars.interval_ns)
        horizon_bars(config.label.horizon, bars.interval_ns)
        warmup = max(pipeline(config.volatilities()).warmup, *config.fitness.lookbacks)
        split = config.split.rows(bars, warmup)
        for name, rows in (("training", split.train), ("later", split.test)):
            size, blocks = rows.stop - rows.start, config.fitness.blocks
            if size <= blocks:
                raise ConfigError(f"fitness.blocks is {blocks}; there are only {size} {name} rows to divide")
        return cls(bars, split, space, config)

    def check(self, training: BarrierGround) -> None:
        """Stop before the search where not even the shortest labels are as many as they must be.

        Raises
        ------
        ConfigError
            If the rows hold too few.
        """
        shortest = self.space.label(np.zeros(self.space.space.n_genes))
        most, least = judged(training, shortest).effective, self.config.fitness.least_labels
        if most < least:
            raise ConfigError(
                f"fitness.least_labels is {least:g}; the training rows hold {most:.0f} labels without "
                f"overlap where barriers are nearest and the horizon is shortest"
            )

    def training(self) -> BarrierGround:
        """Return what the search may know: the bars up to the last training row, and nothing of later ones.

        The first of equal spans of training is there to learn from, and is not bet on.
        """
        rows = self.split.train
        return self._ground(
            past(self.bars, self.split), rows, folds(rows, self.config.fitness.blocks + 1)[1:]
        )

    def later(self) -> BarrierGround:
        """Return what the search has never seen; the probe may learn from all that lies before a block."""
        rows = self.split.test
        return self._ground(self.bars, rows, folds(rows, self.config.fitness.blocks))

    def _ground(self, bars: Bars, rows: slice, blocks: tuple[slice, ...]) -> BarrierGround:
        config = self.config
        return BarrierGround(
            bars=bars,
            rows=rows,
            first=self.split.train.start,
            blocks=blocks,
            volatility=scales(bars, config.volatilities()),
            rates=trading_rates(bars, config.costs),
            lookbacks=config.fitness.lookbacks,
        )


def past(bars: Bars, split: Split) -> Bars:
    """Return the bars up to the last training row: from here on nothing later exists."""
    return bars[: split.train.stop]


@dataclass(frozen=True, eq=False)
class Evolved:
    """What a search has found.

    Parameters
    ----------
    label : LabelConfig
    fitness : float
    best : tuple of float (g,)
        Best fitness up to each generation.
    batches : tuple of Batch
        Every evaluation, one batch per generation: for the trial ledger.
    """

    label: LabelConfig
    fitness: float
    best: tuple[float, ...]
    batches: tuple[Batch, ...]

    @property
    def evaluations(self) -> int:
        """Different barriers that were tried."""
        return sum(batch.n_unique for batch in self.batches)


class BarrierSearch:
    """The search, generation by generation.

    Parameters
    ----------
    material : Material
    ground : BarrierGround
        Of training rows, see :meth:`Material.training`.
    """

    def __init__(self, material: Material, ground: BarrierGround) -> None:
        config, self._space = material.config, material.space
        fitness = BarrierFitness(ground, config.fitness, self._space.label)
        self._evaluator = Evaluator(fitness, self._space.space)
        self._evolution = Evolution(
            self._space.space, config.hyperparameters, stream(config.seed, "barriers")
        )
        policy = POLICIES.create(config.policy.name, config.policy.settings)
        self._search = Search(self._evolution, self._evaluator, policy)

    def run(self, told: Callable[[Progress], None] | None = None) -> Evolved:
        """Search to the end.

        Parameters
        ----------
        told : callable, optional
            Called with the progress after every generation, the initial population included.

        Raises
        ------
        ConfigError
            If no barriers have enough labels.
        """
        best = []

        def note(search: Search) -> None:
            best.append(self._evolution.progress.best)
            if told is not None:
                told(self._evolution.progress)

        try:
            champion = self._search.run(note)
        except ValueError:
            if np.isfinite(best).any() or not best:
                raise
            raise ConfigError(
                "fitness.least_labels: no barriers that were tried have so many labels without overlap; it "
                "takes more bars, shorter horizons or a smaller number"
            ) from None
        return Evolved(self._space.label(champion.genes), champion.fitness, tuple(best), self.batches())

    def batches(self) -> tuple[Batch, ...]:
        """Return every evaluation so far, also of a search that was broken off: one batch per generation."""
        calls, sharpes = self._evaluator.calls, self._evaluator.details()[:, :1].ravel()
        ends = np.cumsum(calls[:, 1])
        found = []
        for number, (_, new, hits, _) in enumerate(calls.tolist()):
            trials = sharpes[ends[number] - new : ends[number]]
            found.append(Batch(trials, new + hits, new, number))
        return tuple(found)


def rivals(config: BarriersConfig, evolved: LabelConfig) -> Mapping[str, LabelConfig]:
    """Return the barriers to compare by name: the default, with the evolved horizon alone, the evolved."""
    found = {"default": config.label}
    if evolved.horizon != config.label.horizon:
        found["horizon alone"] = config.label.model_copy(update={"horizon": evolved.horizon})
    return {**found, "evolved": evolved}


def compared(ground: BarrierGround, labels: Mapping[str, LabelConfig]) -> dict[str, BarrierFigures]:
    """Return what several barriers make of the same rows."""
    return {name: judged(ground, label) for name, label in labels.items()}
