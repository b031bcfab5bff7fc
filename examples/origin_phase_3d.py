"""Origin task: the three published genomes of the system this project set out from, reproduced, then judged.

``python examples/origin_phase_3d.py --data ../shared/data/origin``

The folder holds daily bars of BTC/USD, regime labels, and genomes of the origin project; it is not part of
this repository. First the published figures are found again, in our engine. What has to be granted for that
lies in the functions under "For reproduction only": each does something that a law of this house forbids.
Then the same genomes are traded as everything is here: decided at a close, filled at the next open, all costs
paid, on the days from 2022 on. No gene, threshold or setting is tuned in this file.
"""

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import numpy as np
import pyarrow as pa
import typer
from pyarrow.parquet import read_table

from backtest.costs import Costs, ImpactBucket
from backtest.limits import RiskLimits
from backtest.simulate import TARGETS, BacktestResult, hold, simulate
from configs.command import command
from configs.load import ConfigError
from ga.space import Genome
from market.bars import Bars
from market.causal import transform
from market.features.pipeline import FeaturePipeline, FeaturesConfig
from market.sources.files import read_bars
from market.table import DataError, Table
from regimes.detector import DETECTORS
from regimes.path import PATH_COLUMNS, PathFilter
from regimes.regime import UNDECIDED, Regime
from specialists.family import FAMILIES
from specialists.specialist import Specialist

BARS, LABELS, GENOMES = "btc_daily.parquet", "btc_daily_regimes.parquet", "phase3a_genomes.json"
FOLDER = Path(__file__).resolve().parents[2] / "shared" / "data" / "origin"
FEATURES = FeaturesConfig(names=("origin_momentum_5", "origin_range_14", "origin_reversion", "origin_trend"))
SIGNAL = {Regime.RANGING: "reversion", Regime.TRENDING: "trend", Regime.VOLATILE: "trend"}
#: The origin has no specialist for a crisis and lets the one for volatile days trade it.
REGIME = {
    "ranging": Regime.RANGING, "trending": Regime.TRENDING, "volatile": Regime.VOLATILE,
    "crisis": Regime.VOLATILE, "unknown": UNDECIDED,
}  # fmt: skip
STORED, EFFECTIVE = "published_genome", "effective_genome"
FIRST_DAY = "2022-01-01"  # of the test period: what is fitted here is fitted before
DECIDES_FROM = 59  # first row at whose close the origin's ensemble could decide: its window is 60 bars
SHARE = 0.1  # of the constant position that the origin's ensemble has to beat

FREE = Costs(fee_bps=0, half_spread_bps=0, impact=(ImpactBucket(turnover=0, impact_bps=0),))
FIFTEEN = Costs(fee_bps=10, half_spread_bps=5, impact=(ImpactBucket(turnover=0, impact_bps=0),))
UNPROTECTED = RiskLimits(stop=None)

#: What is stated: return, Sharpe, drawdown, trades. By the origin, and its rivals by the README of the data
#: (Sharpe by 252 days a year); and by that README from 2022 on (365 days).
LOOP, HELD, CONSTANT = "the origin's ensemble", "buy and hold", "constant 10 % in bitcoin"
AS_STORED, AS_EFFECTIVE = "genomes as stored", "genomes, effective values"
PUBLISHED = {
    LOOP: (1.8936, 1.01, 0.1101, 77),
    HELD: (294.74, 0.92, None, None),
    CONSTANT: (1.21, 0.92, None, None),
}
MEASURED = {
    LOOP: (0.303, 0.76, 0.096, 5),
    AS_STORED: (-0.036, -0.93, 0.041, 492),
    AS_EFFECTIVE: (-0.026, -0.65, 0.032, 446),
    HELD: (1.402, 0.70, 0.669, 1),
    CONSTANT: (0.143, 0.70, 0.092, None),
}
Genes = dict[str, float]


@dataclass(frozen=True, eq=False)
class Origin:
    """What the folder holds: bars (n,), regimes of both windows int (n,), and genes by kind and regime."""

    bars: Bars
    features: Table
    training: np.ndarray  # by a window of 101 bars
    deployment: np.ndarray  # by one of 60, which the ensemble uses
    genomes: dict[str, dict[Regime, Genes]]

    @classmethod
    def load(cls, folder: Path) -> "Origin":
        """Return what a folder holds; InputError if a file is missing or is not what it must be."""
        for name in (BARS, LABELS, GENOMES):
            if not (folder / name).is_file():
                raise ConfigError(f"--data {folder}: has no {name}; it must hold the origin's data")
        bars, _ = read_bars(folder / BARS, symbol="BTC/USD", timeframe="1d")
        try:
            labels = read_table(folder / LABELS)
            opens = labels.column("timestamp").cast(pa.timestamp("ns", "UTC")).cast(pa.int64()).to_numpy()
            windows = {
                name: np.array([int(REGIME[text]) for text in labels.column(f"regime_{name}").to_pylist()])
                for name in ("training", "deployment")
            }
            stored = json.loads((folder / GENOMES).read_text(encoding="utf-8"))["specialists"]
            genomes = {
                kind: {regime: dict(stored[regime.text][kind]["genes"]) for regime in SIGNAL}
                for kind in (STORED, EFFECTIVE)
            }
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise DataError(f"{folder}: labels or genomes are not those of the origin ({error})") from error
        if not np.array_equal(opens + bars.interval_ns, bars.time):
            raise DataError(f"{folder / LABELS}: its days are not those of {BARS}; they must be the same")
        return cls(bars, transform(FeaturePipeline(FEATURES), bars), **windows, genomes=genomes)

    @property
    def first(self) -> int:
        """The row at whose close the first fill of the test period is decided: the day before it."""
        day = int(np.datetime64(FIRST_DAY, "ns").astype(np.int64))
        return int(np.searchsorted(self.bars.time, day, side="right")) - 1


# For reproduction only: what the origin does, and what no law of this house would let pass


def filled_at_the_close(bars: Bars) -> Bars:
    """Return bars that open where the bar before closed: the next open is the very close that decides.

    Forbidden here: nobody trades at a price that is not known before it is over. Our engine fills at the next
    open whatever it is told; so the market is bent, not the engine.
    """
    values = bars.values.copy()
    opens, closes = bars.column("open"), bars.column("close")
    values[1:, 0] = closes[:-1]
    values[:, 1] = np.maximum(bars.column("high"), np.append(opens[:1], closes[:-1]))
    values[:, 2] = np.minimum(bars.column("low"), np.append(opens[:1], closes[:-1]))
    return replace(bars, values=values)


def loop_of_the_origin(origin: Origin) -> Table:
    """Return the exposure of the origin's published ensemble, Table (n, 1).

    Every specialist is given the same signal, the mean return of five days. Where it reaches the entry
    threshold of the one whose regime it is, a positive one opens a long position and a negative one closes
    it; stop, target, exit threshold and longest hold are never asked. Forbidden here: the labels come from
    percentiles of the whole history, 2014 to 2025, and the genomes were chosen on the same days.
    """
    momentum = np.nan_to_num(origin.features.column("origin_momentum_5"))
    span = origin.features.column("origin_range_14")
    wanted, held = np.zeros(len(origin.bars)), 0.0
    for t, regime in enumerate(origin.deployment):
        if regime != UNDECIDED:
            genes = origin.genomes[STORED][Regime(regime)]
            if abs(momentum[t]) >= genes["entry_threshold"]:
                opened = held or sized(genes, span[t], momentum[t])
                held = opened if momentum[t] > 0.0 else 0.0
        wanted[t] = held
    return Table(origin.bars.time, wanted[:, None], TARGETS[:1])


def rules_of_the_origin(origin: Origin, genomes: dict[Regime, Genes], first: int) -> Table:
    """Return the exposure of genomes by the origin's own rules of exit, from a flat start, Table (n, 1).

    Stop and target are tested on closes only, a signal of exactly zero is short, and the longest hold counts
    from the decision. Forbidden here: a stop that is passed inside a day is not seen, and the labels know the
    future as above.
    """
    opens, closes = origin.bars.column("open"), origin.bars.column("close")
    signals = {name: np.nan_to_num(origin.features.column(f"origin_{name}")) for name in set(SIGNAL.values())}
    momentum = np.nan_to_num(origin.features.column("origin_momentum_5"))
    span = origin.features.column("origin_range_14")
    wanted, held, own, opened = np.zeros(len(origin.bars)), 0.0, UNDECIDED, 0
    for t in range(first, len(origin.bars)):
        regime = origin.training[t]
        if regime == UNDECIDED or (held and regime != own):
            held = 0.0  # flat when the regime ends, and nothing opens on the bar that closes
            continue
        genes, signal = genomes[Regime(regime)], signals[SIGNAL[Regime(regime)]][t]
        if held:
            side = 1.0 if held > 0.0 else -1.0
            gain = side * (closes[t] / opens[opened + 1] - 1.0)
            over = gain <= -genes["stop_loss"] or gain >= genes["take_profit"]
            over |= abs(signal) < genes["exit_threshold"] or side * signal < -0.3
            over |= t - opened >= max(1, int(14 * genes["max_hold_time"]))
            held = 0.0 if over else held
        elif abs(signal) >= genes["entry_threshold"]:
            held = sized(genes, span[t], momentum[t]) * (1.0 if signal > 0.0 else -1.0)
            own, opened = regime, t
        wanted[t] = held
    return Table(origin.bars.time, wanted[:, None], TARGETS[:1])


def sized(genes: Genes, span: float, momentum: float) -> float:
    """Return the origin's size of a position, a fraction of equity in 0.01..0.10."""
    size = float(np.clip(genes["position_size"] / (genes["volatility_scaling"] * span), 0.01, 0.1))
    weight = genes["momentum_weight"]
    if weight > 0.5:
        size *= 1.0 + 0.5 * weight if abs(momentum) > 0.01 else 1.0
    elif abs(momentum) > 0.02:
        size *= 1.0 - 0.3 * (1.0 - weight)
    return float(np.clip(size, 0.01, 0.1))


# As everything is traded here


def specialists_of(origin: Origin, kind: str) -> list[Specialist]:
    """Return genomes as specialists of the family ``origin8``, stamped with the last day they have seen."""
    found = []
    for regime, genes in origin.genomes[kind].items():
        family = FAMILIES.create("origin8", {"signal": SIGNAL[regime]})
        genome = Genome(np.array([genes[name] for name in family.space.names]), family.space.name)
        found.append(Specialist(family, genome, regime, None, RiskLimits(), int(origin.bars.time[-1])))
    return found


def traded_by_regime(origin: Origin, kind: str, labels: Table) -> Table:
    """Return the targets of whichever specialist's regime it is, Table (n, 3); nobody's regime is flat."""
    wanted = np.column_stack([np.zeros(len(labels)), np.full((len(labels), 2), np.inf)])
    for specialist in specialists_of(origin, kind):
        own = labels.column("label") == specialist.regime
        wanted[own] = transform(specialist, origin.bars, origin.features, labels).values[own]
    return Table(origin.bars.time, wanted, TARGETS)


def labels_of_the_origin(origin: Origin) -> Table:
    """Return the origin's labels as ours are written; they are not causal (see ``loop_of_the_origin``)."""
    label = origin.deployment.astype(np.float64)
    return Table(origin.bars.time, np.column_stack([label, np.ones(label.size)]), PATH_COLUMNS)


def our_labels(origin: Origin) -> Table:
    """Return filtered labels of our default detector, fitted on the days before the test period."""
    detector = DETECTORS.create("markov_ar")
    features = transform(FeaturePipeline(FeaturesConfig(names=detector.columns)), origin.bars)
    detector.fit(features[features.warmup : origin.first + 1])
    return transform(PathFilter(), transform(detector, features))


def constant(bars: Bars) -> Table:
    """Return the targets of 10 % in bitcoin, brought back to 10 % at every open."""
    # An unchanged target trades nothing and drifts; one that differs in the seventh digit is traded to.
    share = SHARE * (1.0 + 1e-6 * (np.arange(len(bars)) % 2))
    return Table(bars.time, share[:, None], TARGETS[:1])


# The three tables


def published_again(origin: Origin) -> dict[str, BacktestResult]:
    """Return the published figures of all days: filled at the deciding close, no costs."""
    bent, rows = filled_at_the_close(origin.bars), slice(DECIDES_FROM, None)
    targets = {LOOP: loop_of_the_origin(origin), HELD: hold(bent), CONSTANT: constant(bent)}
    return {name: simulate(one, bent, FREE, UNPROTECTED, rows=rows) for name, one in targets.items()}


def measured_again(origin: Origin) -> dict[str, BacktestResult]:
    """Return what the data's README measured from 2022 on, at the next open; 15 basis points for genomes."""
    bars, rows = origin.bars, slice(origin.first, None)
    runs = {
        LOOP: (loop_of_the_origin(origin), FIFTEEN),
        AS_STORED: (rules_of_the_origin(origin, origin.genomes[STORED], origin.first), FIFTEEN),
        AS_EFFECTIVE: (rules_of_the_origin(origin, origin.genomes[EFFECTIVE], origin.first), FIFTEEN),
        HELD: (hold(bars), FREE),
        CONSTANT: (constant(bars), FREE),
    }
    return {name: simulate(one, bars, costs, UNPROTECTED, rows=rows) for name, (one, costs) in runs.items()}


def honest(origin: Origin) -> dict[str, BacktestResult]:
    """Return what is left from 2022 on: next open, our default costs, our execution of stops."""
    bars, rows = origin.bars, slice(origin.first, None)
    ways = {"origin's regimes": labels_of_the_origin(origin), "our regimes": our_labels(origin)}
    found = {LOOP: simulate(loop_of_the_origin(origin), bars, Costs(), UNPROTECTED, rows=rows)}
    for way, labels in ways.items():
        for name, kind in ((AS_STORED, STORED), (AS_EFFECTIVE, EFFECTIVE)):
            targets = traded_by_regime(origin, kind, labels)
            found[f"{name}, {way}"] = simulate(targets, bars, Costs(), RiskLimits(), rows=rows)
    found[HELD] = simulate(hold(bars), bars, Costs(), UNPROTECTED, rows=rows)
    found[CONSTANT] = simulate(constant(bars), bars, Costs(), UNPROTECTED, rows=rows)
    return found


def figures(result: BacktestResult, days: float = 365.0) -> tuple[float, float, float, int]:
    """Return total return, Sharpe by so many days a year, largest drawdown (positive) and trades."""
    found = result.metrics
    return found.total_return, found.sharpe * (days / 365.0) ** 0.5, -found.max_drawdown, found.n_trades


def show(title: str, results: dict[str, BacktestResult], stated: dict, days: float = 365.0) -> None:
    """Print results, and under each what was stated."""
    print(f"\n{title}\n{'':46s}{'return':>12s}{'Sharpe':>8s}{'drawdown':>10s}{'trades':>8s}")
    for name, result in results.items():
        print(f"{name:46s}{_row(figures(result, days))}")
        if name in stated:
            print(f"{'  stated':46s}{_row(stated[name])}")


def _row(numbers: tuple) -> str:
    forms = ("{:+12,.2%}", "{:8.2f}", "{:10.2%}", "{:8,d}")
    return "".join(
        " " * (len(form.format(0)) - 1) + "-" if number is None else form.format(number)
        for form, number in zip(forms, numbers, strict=True)
    )


def origin_task(
    data: Annotated[Path, typer.Option(help="Folder of the origin's bars, labels and genomes.")] = FOLDER,
) -> None:
    """Reproduce the published figures of the origin project, and state the honest ones beside them."""
    origin = Origin.load(data)
    again, measured, left = published_again(origin), measured_again(origin), honest(origin)
    show(
        f"Published, {len(origin.bars):,} days: filled at the close that decides, no costs, in sample "
        "(Sharpe by 252 days)",
        again, PUBLISHED, 252.0,
    )  # fmt: skip
    show(
        f"Measured before, from {FIRST_DAY}: next open, the origin's exits, 15 basis points a side (holding: "
        "none); stated: README of the data (Sharpe by 365 days)",
        measured, MEASURED,
    )  # fmt: skip
    show(f"Honest, from {FIRST_DAY}: next open, default costs, our execution (Sharpe by 365 days)", left, {})
    print("\nWhat this says:")
    for sentence in sentences(again, left):
        print(f"- {sentence}")


def sentences(again: dict[str, BacktestResult], left: dict[str, BacktestResult]) -> tuple[str, ...]:
    """Return what the tables say, in words."""
    whole, stated = figures(again[LOOP], 252.0), PUBLISHED[LOOP]
    profit = again[LOOP].trades["pnl"] / again[LOOP].trades["pnl"].sum()
    genomes = [figures(result)[0] for name, result in left.items() if name.startswith("genomes")]
    loop, held, tenth = (figures(left[name]) for name in (LOOP, HELD, CONSTANT))
    return (
        f"The published {stated[0]:+.2%} at a Sharpe of {stated[1]:.2f} is found again: {whole[0]:+.2%}, "
        f"{whole[1]:.2f}, {whole[3]} trades, {again[LOOP].metrics.hit_rate:.1%} of them won.",
        f"Its last trade, which is never closed, earns {profit[-1]:.0%} of it. On the same days a constant "
        f"10 % earned {figures(again[CONSTANT])[0]:+.0%}, buy and hold {figures(again[HELD])[0]:+,.0%}.",
        f"Honest, from {FIRST_DAY} on at the next open and with costs: the loop has {loop[0]:+.1%} at a "
        f"Sharpe of {loop[1]:.2f} in {loop[3]} trades, which prove nothing; buy and hold {held[0]:+.1%} at "
        f"{held[1]:.2f}, a constant 10 % {tenth[0]:+.1%} at {tenth[1]:.2f}.",
        f"The genomes themselves, of which the loop uses little but an entry threshold of 0, have "
        f"{min(genomes):+.1%} to {max(genomes):+.1%} there.",
        f"Genomes and labels of the origin saw all of these rows, so even that flatters them; only our "
        f"regimes were fitted before {FIRST_DAY}. A strategy of members that are stamped so is silent on all "
        f"rows that they saw.",
    )


main = command(origin_task)

if __name__ == "__main__":
    main()
