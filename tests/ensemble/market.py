"""A small synthetic market with everything fitted on it, which the tests of this folder share.

Rows: ``LEARN`` teaches detector, genomes and forecasters, ``VALIDATION`` the blender, ``TEST`` is out of
sample for all of them. Everything is cached and must not be advanced: take ``fresh()`` ones.
"""

from functools import cache

import numpy as np

from backtest.limits import RiskLimits
from compute.seeds import stream
from ensemble.blenders import BLENDERS, Blender
from ensemble.gating import GatingConfig
from ensemble.signals import SignalTable
from ensemble.sizing import SizingConfig
from ensemble.sources import ForecasterSource, Source, SpecialistSource, member_of
from ensemble.strategy import Strategy
from forecasters.calibration import Calibration
from forecasters.classical import Logistic
from forecasters.fitted import FittedForecaster, raw_answers
from forecasters.forecaster import FORECASTERS
from forecasters.windows import examples_of
from ga.space import Genome
from market.bars import Bars
from market.causal import transform
from market.features.cross import JoinedFeaturesConfig
from market.features.pipeline import FeaturePipeline, FeaturesConfig, FeatureTable
from market.labels import direction
from market.scaling import Scaler
from market.sources.synthetic import SyntheticConfig, synthetic_market
from market.table import Table
from regimes.detector import DETECTORS, Detector
from regimes.path import PathConfig, PathFilter
from regimes.regime import Regime, RegimeProbabilities
from specialists.family import FAMILIES
from specialists.specialist import Specialist

N = 3_000
LEARN, VALIDATION, TEST = slice(400, 1_400), slice(1_450, 1_950), slice(2_000, N)
COST = 15e-4
CORE = FeaturesConfig(
    names=(
        "efficiency_72", "origin_momentum_5", "origin_range_14", "origin_trend", "parkinson_24",
        "volatility_24",
    )
)  # fmt: skip
WIDE = JoinedFeaturesConfig(names=("return_1", "return_4", "return_24", "zscore_24", "volatility_24"))
PATH = PathConfig(min_dwell_bars=6)
GATING = GatingConfig(
    volatility_window=240, confidence_power=0.5, threshold=0.1, wild_threshold=0.2, min_change=0.1
)
SIZING = SizingConfig(half_life_bars=24.0)
#: Settings of the forecasters that are fitted in a blink.
FORECASTER_SETTINGS = {"lstm": {"lookback": 12, "hidden": 8, "epochs": 1}}


@cache
def bars() -> Bars:
    """Return the bars of the market."""
    return synthetic_market(SyntheticConfig(n_bars=N, seed=11)).bars


@cache
def core() -> FeatureTable:
    """Return what detector, specialists and gates read."""
    return transform(FeaturePipeline(CORE), bars())


@cache
def wide() -> FeatureTable:
    """Return what forecasters read."""
    return transform(FeaturePipeline(WIDE), bars())


@cache
def detector() -> Detector:
    """Return a detector fitted on the rows to learn from."""
    return DETECTORS.create("volatility", {"baseline_bars": 200}).fit(core()[LEARN])


@cache
def regimes() -> RegimeProbabilities:
    """Return the filtered probabilities of all rows."""
    return transform(detector(), core())


@cache
def labels() -> Table:
    """Return label and confidence of all rows."""
    return transform(PathFilter(PATH), regimes())


@cache
def specialist(regime: Regime | None = None, seed: int = 0) -> Specialist:
    """Return a genome for a regime, drawn until it trades in the rows to learn from."""
    family = FAMILIES.create("origin8")
    until = int(bars().time[LEARN.stop - 1])
    for attempt in range(100):
        genes = family.space.sample(stream(seed, "specialist", str(regime), attempt), 1)[0]
        made = Specialist(family, Genome(genes, family.space.name), regime, None, RiskLimits(), until)
        wanted = transform(made, bars()[LEARN], core()[LEARN], labels()[LEARN]).column("exposure")
        if np.count_nonzero(np.diff(wanted)) > 20:
            return made
    raise AssertionError(f"no genome of 100 trades {regime}; nothing could be shown with it")


@cache
def forecaster(name: str = "logistic", horizon: int = 4) -> FittedForecaster:
    """Return a forecaster of the direction over some bars, fitted on the rows to learn from."""
    learn = slice(LEARN.start, LEARN.stop - 200 - horizon)
    judge = slice(LEARN.stop - 200, LEARN.stop - horizon)
    past = wide()[: LEARN.stop]
    told = direction(bars()[: LEARN.stop], horizon, 0.0)
    scaler = Scaler.fit(past[learn])
    # The registry would import every network to find this one.
    model = Logistic() if name == "logistic" else FORECASTERS.create(name, FORECASTER_SETTINGS[name])
    parts = [
        examples_of(past, told, rows, model.lookback, scaler, np.ones(len(past)),
                    interval_ns=bars().interval_ns, ret_weights=np.ones(len(past)))
        for rows in (learn, judge)
    ]  # fmt: skip
    model.fit(*parts, seed=1)
    calibration = Calibration.fit(
        "temperature", raw_answers(model, parts[1]), parts[1].target, parts[1].weight
    )
    return FittedForecaster(
        model, scaler, calibration, None, int(past.time[-1]), bars().interval_ns, f"direction_{horizon}h",
        wide().version,
    )  # fmt: skip


@cache
def forecaster_source(name: str = "logistic", horizon: int = 4) -> ForecasterSource:
    """Return a forecaster with the scale that its answers on the validation rows suggest."""
    fitted = forecaster(name, horizon)
    scale = ForecasterSource.scale_of(fitted.answers(wide(), VALIDATION))
    return ForecasterSource(f"{name}_{horizon}h", fitted, scale)


@cache
def sources() -> tuple[Source, ...]:
    """Return a specialist for each regime, and a forecaster."""
    own = [SpecialistSource(regime.text, specialist(regime)) for regime in list(Regime)[:3]]
    return (*own, forecaster_source())


@cache
def signals(given: tuple[Source, ...] | None = None) -> SignalTable:
    """Return the signals of all rows, those that taught the sources included for specialists."""
    given = sources() if given is None else given
    tables = {"core": core(), "forecast": wide()}
    columns = [one.fresh().update(bars(), tables[one.reads], regimes(), labels()) for one in given]
    return SignalTable(bars().time, np.column_stack(columns), tuple(one.name for one in given))


def blender(name: str = "route", given: tuple[Source, ...] | None = None, **settings: object) -> Blender:
    """Return a blender fitted on the validation rows."""
    given = sources() if given is None else given
    parts = (part[VALIDATION] for part in (signals(given), regimes(), labels(), bars()))
    members = tuple(member_of(one) for one in given)
    return BLENDERS.create(name, settings).fit(*parts, members=members, cost=COST, seed=1)


@cache
def strategy(blender_name: str = "route") -> Strategy:
    """Return the whole: three specialists, a forecaster, mild gates."""
    return changed(blender=blender(blender_name))


def changed(**changes: object) -> Strategy:
    """Return the strategy with other parts."""
    usual = {
        "features": CORE,
        "forecast_features": WIDE,
        "detector": detector(),
        "path": PATH,
        "sources": sources(),
        "blender": None,
        "gating": GATING,
        "sizing": SIZING,
        "limits": RiskLimits(),
        "fitted_until": int(bars().time[VALIDATION.stop - 1]),
        "label": bars().label,
        "interval_ns": bars().interval_ns,
    }
    parts = {**usual, **changes}
    if parts["blender"] is None:
        parts["blender"] = blender("route", tuple(parts["sources"]))
    return Strategy(**parts)
