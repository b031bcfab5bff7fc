"""Markets in which it is known what each member's signal is worth, for tests of blenders."""

import numpy as np
from scipy.signal import lfilter

from ensemble.blenders import BLENDERS, Rows
from ensemble.signals import Member, SignalTable
from market.bars import OHLCV, Bars
from market.table import Table
from regimes.regime import REGIME_NAMES, Regime, RegimeProbabilities

HOUR = 3_600_000_000_000
COST = 0.0004
MEMBERS = (
    Member("ranger", "specialist", Regime.RANGING),
    Member("trender", "specialist", Regime.TRENDING),
    Member("stormer", "specialist", Regime.VOLATILE),
    Member("generalist", "specialist", None),
    Member("trees", "forecaster", None),
    Member("network", "forecaster", None),
)
#: Everything registered, and settings that go another way through the code.
KINDS = [(name, {}) for name in BLENDERS.names()] + [
    ("stack", {"model": "xgboost", "rounds": 20}),
    ("validated", {"by_regime": True, "regime_rows": 100, "caution": 0.0}),
    ("route", {"forecaster_share": 0.0}),
]
IDS = [f"{name}{'-'.join(['', *map(str, settings.values())])}" for name, settings in KINDS]


def market(
    n: int = 1200,
    seed: int = 0,
    edges: dict[str, float] | None = None,
    half_life: float = 24.0,
    holes: bool = True,
    members: tuple[Member, ...] = MEMBERS,
) -> Rows:
    """Rows in which a member's full signal foretells so many volatilities of the next return.

    With holes, members have no opinion for a while, nobody has one in some rows, and regimes are not known at
    first. Specialists are always awake, so that a blender has something to route.
    """
    random = np.random.default_rng([seed, n])
    s = len(members)
    decay = 0.5 ** (1.0 / half_life)
    waves = lfilter([np.sqrt(1.0 - decay**2)], [1.0, -decay], random.normal(size=(n, s)), axis=0)
    signals = np.clip(0.7 * waves, -1.0, 1.0)
    worth = np.array([(edges or {}).get(member.name, 0.0) for member in members])
    returns = 0.007 * (signals @ worth + np.clip(random.standard_t(5, n), -8.0, 8.0) / 1.3)
    opens = 100.0 * np.cumprod(np.concatenate([[1.0, 1.0], 1.0 + returns[: max(n - 2, 0)]]))[:n]
    label = np.repeat(random.integers(0, 3, n // 20 + 1), 20)[:n]
    chances = 0.1 + 0.7 * np.eye(3)[label]
    label = label.astype(np.float64)
    if holes:
        signals[random.random((n, s)) < 0.05] = np.nan
        signals[n // 3 : n // 3 + 40, s - 1] = np.nan
        signals[n // 2 : n // 2 + 5] = np.nan
        chances[:10], label[:12] = np.nan, -1.0
    time = (1 + np.arange(n)) * HOUR
    prices = np.column_stack([opens, opens, opens, opens, np.ones(n)])
    return Rows(
        SignalTable(time, signals, tuple(member.name for member in members)),
        RegimeProbabilities(time, chances, REGIME_NAMES),
        Table(time, np.column_stack([label, np.full(n, 0.8)]), ("label", "confidence")),
        Bars(time, prices, OHLCV, symbol="BTC/USDT", interval_ns=HOUR),
    )


def part(rows: Rows, begin: int, end: int) -> Rows:
    """A span of the rows."""
    return Rows(*(table[begin:end] for table in rows))


def fitted(name: str, rows: Rows, settings: dict | None = None, members=MEMBERS, cost=COST, seed=1):
    """A blender of the registry, fitted."""
    return BLENDERS.create(name, settings).fit(*rows, members=members, cost=cost, seed=seed)


class Flow:
    """A blender as a stage that answers with one table, as the laws of flow want it."""

    warmup = 0

    def __init__(self, blender) -> None:
        self.blender = blender

    def fresh(self):
        return Flow(self.blender.fresh())

    def update(self, *tables) -> Table:
        weights, blended = self.blender.update(*tables)
        names = [f"weight_{name}" for name in tables[0].names]
        return Table(tables[0].time, np.column_stack([weights, blended]), (*names, "blended"))
