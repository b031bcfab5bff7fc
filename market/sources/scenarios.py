"""What a synthetic market is made of: its settings and the named presets.

Times are in bars and sizes in units of a regime's volatility, so that a law reads the same at any level.
"""

from typing import Annotated, Any

from pydantic import Field, ValidationInfo, field_validator, model_validator

from compute.seeds import MAX_SEED
from configs.load import Config
from market.bars import timeframe_ns, timerange_ns
from market.table import DataError

REGIME_NAMES = ("ranging", "trending", "volatile")


class RegimeParameters(Config):
    """The law of one regime."""

    dwell_bars: Annotated[float, Field(ge=2, le=100_000, description="Mean length of an episode.")]
    leaving: Annotated[
        tuple[float, float],
        Field(description="Chances of the two other regimes when an episode ends, in order of REGIME_NAMES."),
    ]
    volatility: Annotated[float, Field(gt=0, le=0.2, description="Standard deviation of a bar's log return.")]
    trend: Annotated[
        float, Field(default=0.0, ge=0, le=1, description="Drift per bar; its sign lasts for an episode.")
    ]
    up_share: Annotated[
        float, Field(default=0.5, ge=0, le=1, description="Chance that a trend points up when it begins.")
    ]
    pull: Annotated[
        float, Field(default=0.0, ge=0, le=0.5, description="Share of the stretch taken back per bar.")
    ]
    anchor_bars: Annotated[
        float, Field(default=24, ge=1, description="Span of the moving average a stretch is measured from.")
    ]
    threshold: Annotated[float, Field(default=0.0, ge=0, description="Stretch that is not taken back.")]
    reach: Annotated[float, Field(default=6.0, gt=0, description="Stretch above which the pull is constant.")]
    shock: Annotated[
        float,
        Field(default=0.06, ge=0, lt=1, description="Weight of the last squared return in the variance."),
    ]
    memory: Annotated[
        float, Field(default=0.85, ge=0, lt=1, description="Weight of the last variance in the variance.")
    ]
    dof: Annotated[float, Field(default=4.0, gt=2, le=30, description="Degrees of freedom of the returns.")]

    @field_validator("leaving")
    @classmethod
    def _chances(cls, leaving: tuple[float, float]) -> tuple[float, float]:
        if min(leaving) < 0 or abs(sum(leaving) - 1) > 1e-9:
            raise ValueError("must be two chances of at least 0 that sum to 1")
        return leaving

    @field_validator("memory")
    @classmethod
    def _stationary(cls, memory: float, info: ValidationInfo) -> float:
        if memory + info.data.get("shock", 0.0) >= 1:
            raise ValueError("must keep shock + memory below 1")
        return memory


class VolumeParameters(Config):
    """The law of the volume: lognormal around the bar's own range."""

    typical: Annotated[float, Field(default=2000.0, gt=0, description="Median per bar, base currency.")]
    elasticity: Annotated[float, Field(default=0.7, ge=0, le=3, description="Power of the bar's range.")]
    noise: Annotated[float, Field(default=0.45, ge=0, le=3, description="Spread of the slow log noise.")]
    memory: Annotated[float, Field(default=0.985, ge=0, lt=1, description="Persistence of the slow noise.")]
    jitter: Annotated[float, Field(default=0.25, ge=0, le=3, description="Spread of the fast log noise.")]
    day_swing: Annotated[float, Field(default=0.28, ge=0, le=2, description="Swing over the day, log.")]
    weekend: Annotated[float, Field(default=0.7, gt=0, le=2, description="Factor on Saturday and Sunday.")]


def _scenario(ranging: dict, trending: dict, volatile: dict, **market: Any) -> dict[str, Any]:
    base = {
        "ranging": {
            "dwell_bars": 336,
            "leaving": (0.6, 0.4),
            "volatility": 0.0036,
            "pull": 0.028,
            "anchor_bars": 96,
            "threshold": 0.5,
            "shock": 0.05,
            "memory": 0.87,
            "dof": 6.0,
        },
        "trending": {
            "dwell_bars": 240,
            "leaving": (0.5, 0.5),
            "volatility": 0.0068,
            "trend": 0.10,
            "up_share": 0.56,
            "shock": 0.06,
            "memory": 0.87,
            "dof": 6.0,
        },
        "volatile": {
            "dwell_bars": 168,
            "leaving": (0.6, 0.4),
            "volatility": 0.0146,
            "pull": 0.10,
            "anchor_bars": 16,
            "threshold": 1.0,
            "shock": 0.10,
            "memory": 0.85,
            "dof": 4.0,
        },
    }
    for name, changes in zip(REGIME_NAMES, (ranging, trending, volatile), strict=True):
        base[name].update(changes)
    return {**base, **market}


_MILD = {"shock": 0.03, "memory": 0.80, "dof": 10.0}

#: What each scenario fills in where nothing else is given; :class:`SyntheticConfig` describes them.
SCENARIOS: dict[str, dict[str, Any]] = {
    "default": _scenario({}, {}, {}),
    "separated": _scenario(
        {**_MILD, "volatility": 0.0030}, {**_MILD, "volatility": 0.0070}, {**_MILD, "volatility": 0.0170}
    ),
    "overlapping": _scenario(
        {**_MILD, "volatility": 0.0050}, {**_MILD, "volatility": 0.0072}, {**_MILD, "volatility": 0.0108}
    ),
    "short_dwell": _scenario(
        {**_MILD, "dwell_bars": 48}, {**_MILD, "dwell_bars": 36}, {**_MILD, "dwell_bars": 24}
    ),
    "fat_tails": _scenario(
        {"shock": 0.12, "memory": 0.80, "dof": 3.2},
        {"shock": 0.12, "memory": 0.80, "dof": 3.2},
        {"shock": 0.18, "memory": 0.75, "dof": 3.2},
    ),
    "drifting": _scenario({}, {}, {}, drift_size=0.35, drift_bars=8760),
    "random_walk": _scenario({"pull": 0.0}, {"trend": 0.0}, {"pull": 0.0}),
}


class SyntheticConfig(Config):
    """What market to make. ``scenario`` fills every setting that is not given.

    * ``default``: calibrated to hourly BTC/USDT;
    * ``separated``: volatilities far apart, mild tails and clustering;
    * ``overlapping``: volatilities close together (each about 1.5 times the one below), mild tails;
    * ``short_dwell``: episodes of one to two days instead of one to two weeks, mild tails;
    * ``fat_tails``: 3.2 degrees of freedom and strong clustering in every regime;
    * ``drifting``: ``default``, with all volatilities rising and falling by a factor of 1.4 within a year;
    * ``random_walk``: a placebo. Volatility switches as in ``default``, but no return can be foretold and
      every expected simple return is zero.
    """

    scenario: Annotated[str, Field(default="default", description="Name of a preset.")]
    n_bars: Annotated[int, Field(default=61_320, ge=1, le=10_000_000, description="Seven years of hours.")]
    seed: Annotated[int, Field(default=7, ge=0, le=MAX_SEED, description="Root of all random streams.")]
    symbol: Annotated[str, Field(default="SYN/USDT", min_length=1, description="Name given to the bars.")]
    timeframe: Annotated[
        str, Field(default="1h", description="Length of a bar; moves the clock, every other law is per bar.")
    ]
    start: Annotated[str, Field(default="20170101", description="Open of the first bar, YYYYMMDD, UTC.")]
    price: Annotated[float, Field(default=30_000.0, gt=0, le=1e9, description="Open of the first bar.")]
    steps: Annotated[int, Field(default=60, ge=8, le=1000, description="Steps of the path inside a bar.")]
    day_swing: Annotated[float, Field(default=0.15, ge=0, le=1, description="Volatility over the day, log.")]
    weekend: Annotated[
        float, Field(default=0.8, gt=0, le=2, description="Volatility on the weekend, factor.")
    ]
    drift_size: Annotated[float, Field(default=0.0, ge=0, le=2, description="Slow swing of volatility, log.")]
    drift_bars: Annotated[float, Field(default=8760, ge=10, description="Length of that swing.")]
    ranging: RegimeParameters
    trending: RegimeParameters
    volatile: RegimeParameters
    volume: VolumeParameters = VolumeParameters()

    @model_validator(mode="before")
    @classmethod
    def _fill(cls, given: Any) -> Any:
        if not isinstance(given, dict):
            return given
        # An unknown scenario is filled like the default, so that its own message is the only one.
        name = given.get("scenario", "default")
        preset = SCENARIOS.get(name if isinstance(name, str) else "default", SCENARIOS["default"])
        filled = dict(given)
        for key, value in preset.items():
            if not isinstance(value, dict):
                filled.setdefault(key, value)
            elif isinstance(filled.get(key, {}), dict):
                filled[key] = {**value, **filled.get(key, {})}
        return filled

    @field_validator("scenario")
    @classmethod
    def _known_scenario(cls, name: str) -> str:
        if name not in SCENARIOS:
            raise ValueError(f"must be one of {', '.join(SCENARIOS)}")
        return name

    @field_validator("timeframe")
    @classmethod
    def _known_timeframe(cls, text: str) -> str:
        try:
            timeframe_ns(text)
        except DataError as error:
            raise ValueError("must be a number and s, m, h, d or w, for example 1h") from error
        return text

    @field_validator("start", mode="before")
    @classmethod
    def _known_start(cls, text: Any) -> Any:
        # YAML reads 20210101 as a number.
        text = str(text) if isinstance(text, int) and not isinstance(text, bool) else text
        if isinstance(text, str):
            try:
                timerange_ns(f"{text}-")
            except DataError as error:
                raise ValueError("must be a date YYYYMMDD, for example 20210101") from error
        return text

    @property
    def regimes(self) -> tuple[RegimeParameters, RegimeParameters, RegimeParameters]:
        """The regimes in the order of ``REGIME_NAMES``."""
        return self.ranging, self.trending, self.volatile
