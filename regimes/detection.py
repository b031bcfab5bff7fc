"""One market, any detectors: fit on the first rows, run causally over all, measure the held-out rest."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from pydantic import Field

from configs.load import Config, validate
from market.bars import Bars
from market.causal import transform
from market.features.pipeline import FeaturePipeline, FeaturesConfig, FeatureTable
from market.sources.synthetic import SyntheticMarket
from market.splits import Split, SplitConfig
from market.table import utc
from regimes.accuracy import balanced_accuracy, detection_delays, false_switches, recall
from regimes.chain import counted_chain
from regimes.detector import Detector, require_out_of_sample
from regimes.foretelling import RANGE, RETURN, foretold, foretold_without
from regimes.outlook import REMAINING, Outlook, events
from regimes.path import PathConfig, PathFilter, regime_path
from regimes.regime import REGIME_NAMES, UNDECIDED, Regime, RegimePath, RegimeProbabilities
from regimes.statistics import (
    Blocks,
    calibration,
    dwells,
    later,
    order_p_value,
    plain,
    regime_statistics,
)

AHEAD = (1, 6, 24)  # bars that the state is carried ahead
LATEST_TRANSITIONS = 8
ORACLES = ("bar oracle", "close oracle")
#: The statistic that names a regime, and of which regimes it must tell the first from the second.
NAMING = (
    ("parkinson_24", Regime.VOLATILE, Regime.TRENDING),
    ("parkinson_24", Regime.VOLATILE, Regime.RANGING),
    ("parkinson_24", Regime.CRISIS, Regime.VOLATILE),
    ("efficiency_24", Regime.TRENDING, Regime.RANGING),
    ("efficiency_72", Regime.TRENDING, Regime.RANGING),
    ("variance_ratio_96", Regime.TRENDING, Regime.RANGING),
)
STATISTICS = tuple(dict.fromkeys(column for column, _, _ in NAMING))


class MeasuresConfig(Config):
    """What the figures of a report look at."""

    horizon_bars: int = Field(
        12, ge=2, le=10_000, description="Bars that variance ratio and efficiency of a regime look at."
    )
    calibration_bars: int = Field(
        24,
        ge=1,
        le=100_000,
        description="Without a known truth, confidence is held against the detector's own label so many "
        "bars later.",
    )
    n_bins: int = Field(10, ge=2, le=100, description="Bins of confidence in the reliability diagram.")
    block_bars: float = Field(
        336.0,
        ge=1,
        le=1e6,
        description="Mean block of the bootstrap, bars; longer than any window and any episode.",
    )
    n_paths: int = Field(1_000, ge=99, le=100_000, description="Resampled histories behind a p-value.")


@dataclass(frozen=True, eq=False)
class Ground:
    """What every detector of a run is given.

    Parameters
    ----------
    bars : Bars (n,)
    features : FeatureTable (n, f)
        Every column that a detector reads, and the ``STATISTICS`` that name regimes.
    split : Split
        Training rows, and as test the held-out ones.
    truth : int8 (n,) or None
        True regime of each bar, where the market is synthetic.
    """

    bars: Bars
    features: FeatureTable
    split: Split
    truth: np.ndarray | None = None

    @property
    def held_out(self) -> slice:
        """Rows that no parameter has seen."""
        return self.split.test


@dataclass(frozen=True, eq=False)
class Detection:
    """What one detector, or an oracle, said of every bar, from what was known at its close.

    Parameters
    ----------
    name : str
    probabilities : RegimeProbabilities (n, k)
    path : RegimePath (n,)
    chain : float64 (k, k)
        P(regime j at the next bar | regime i at this one), from training rows.
    detector : Detector or None
        Fitted on the training rows; an oracle has none.
    fit_seconds, filter_seconds : float
        Of the fit, and of the run over all bars.
    """

    name: str
    probabilities: RegimeProbabilities
    path: RegimePath
    chain: np.ndarray
    detector: Detector | None = None
    fit_seconds: float = 0.0
    filter_seconds: float = 0.0

    @property
    def names(self) -> tuple[str, ...]:
        """Regimes it tells apart."""
        return self.probabilities.names

    def path_of(self, rows: slice) -> RegimePath:
        """Return the path of some rows."""
        path = self.path
        return RegimePath(path.time[rows], path.label[rows], path.confidence[rows], path.names)


def feature_columns(detectors: Mapping[str, Detector]) -> tuple[str, ...]:
    """Return the columns that detectors read, and those that name regimes, each once.

    Raises
    ------
    ConfigError
        If a detector asks for a feature that does not exist.
    """
    wanted = list(STATISTICS)
    for name, detector in detectors.items():
        document = {"names": tuple(detector.columns)}
        wanted += validate(FeaturesConfig, document, f"detector {name}: features").names
    return tuple(dict.fromkeys(wanted))


def prepare(
    bars: Bars, columns: Sequence[str], split: SplitConfig, truth: np.ndarray | None = None
) -> Ground:
    """Describe bars and cut them into training and held-out rows.

    Raises
    ------
    ConfigError
        If there are too few bars for the features' warm-up, the embargo, and something to learn from.
    """
    pipeline = FeaturePipeline(FeaturesConfig(names=tuple(columns)))
    rows = split.rows(bars, pipeline.warmup)
    return Ground(bars, transform(pipeline, bars), rows, truth)


def detect(name: str, detector: Detector, ground: Ground, path: PathConfig) -> Detection:
    """Fit a detector on the training rows, and run it over all rows, bar after bar.

    Raises
    ------
    DataError, ConfigError
        If it cannot learn from these rows, or needs a library that is missing.
    """
    start = time.perf_counter()
    detector.fit(ground.features[ground.split.train])
    fitted = time.perf_counter()
    require_out_of_sample(detector, int(ground.bars.time[ground.held_out.start]))
    probabilities = transform(detector, ground.features)
    ended = time.perf_counter()
    return Detection(
        name,
        probabilities,
        _path(probabilities, path),
        detector.chain,
        detector,
        fitted - start,
        ended - fitted,
    )


def oracles(market: SyntheticMarket, ground: Ground, path: PathConfig) -> tuple[Detection, Detection]:
    """Return what the true parameters say causally: of high, low and close, and of closes alone.

    Parameters
    ----------
    market : SyntheticMarket
        The ground's bars are rows of it.
    ground : Ground
        With its truth.
    path : PathConfig
    """
    first = int(np.searchsorted(market.bars.time, ground.bars.time[0]))
    rows = slice(first, first + len(ground.bars))
    chain = counted_chain(ground.truth[ground.split.train], len(REGIME_NAMES))
    found = []
    for name, table in zip(ORACLES, (market.oracle, market.oracle_close), strict=True):
        probabilities = RegimeProbabilities(table.time[rows], table.values[rows], REGIME_NAMES)
        found.append(Detection(name, probabilities, _path(probabilities, path), chain))
    return tuple(found)


def _path(probabilities: RegimeProbabilities, config: PathConfig) -> RegimePath:
    return regime_path(transform(PathFilter(config), probabilities), probabilities.names)


def measure(
    found: Detection, ground: Ground, config: MeasuresConfig, without: np.ndarray, blocks: Blocks
) -> dict[str, Any]:
    """Return every figure of one detector as plain objects for JSON; what is not defined is None.

    Parameters
    ----------
    found : Detection
    ground : Ground
    config : MeasuresConfig
    without : float64 (n, 2)
        What :func:`regimes.foretelling.foretold_without` says of the bars.
    blocks : Blocks
        Bootstrap of the held-out rows.
    """
    nats = foretold(found.probabilities, found.chain, ground.bars, ground.split.train)
    held_out = ground.held_out
    figures = {
        "regimes": list(found.names),
        "held_out": _figures(found, ground, held_out, config, nats, without),
        "in_sample": _figures(found, ground, ground.split.train, config, nats, without),
        "order": _order(found, ground, blocks),
        "chain": found.chain,
        "counted_chain": counted_chain(found.path.label[held_out], len(found.names)),
        "truth": None if ground.truth is None else _against_truth(found, ground.truth, held_out),
    }
    if found.detector is not None:
        figures |= {
            "fitted_until": int(found.detector.fitted_until),
            "warmup": int(found.detector.warmup),
            "columns": list(found.detector.columns),
            "fit_seconds": round(found.fit_seconds, 3),
            "microseconds_per_bar": round(found.filter_seconds / len(ground.bars) * 1e6, 3),
        }
    return plain(figures)


def _figures(
    found: Detection,
    ground: Ground,
    rows: slice,
    config: MeasuresConfig,
    nats: np.ndarray,
    without: np.ndarray,
) -> dict[str, Any]:
    path, bars = found.path_of(rows), ground.bars[rows]
    own = nats[rows]
    known = np.isfinite(own).all(axis=1) & np.isfinite(without[rows]).all(axis=1)
    density = own[known].mean(axis=0) if known.any() else np.full(2, np.nan)
    gain = (own - without[rows])[known].mean(axis=0) if known.any() else np.full(2, np.nan)
    n_switches = len(path.transitions())
    each = regime_statistics(bars, path.label, len(found.names), config.horizon_bars)
    stays = dwells(path.label, len(found.names))
    share, dwell = path.share(), path.mean_dwell()
    return {
        "bars": len(path),
        "undecided": int((path.label == UNDECIDED).sum()),
        "log_likelihood": {
            "bars": int(known.sum()),
            "return": density[RETURN],
            "range": density[RANGE],
            "total": density.sum(),
            "gain_return": gain[RETURN],
            "gain_range": gain[RANGE],
            "gain": gain.sum(),
        },
        "mean_dwell": (len(path) - (path.label == UNDECIDED).sum()) / max(sum(map(len, stays)), 1),
        "switches": n_switches,
        "switches_per_year": n_switches / (len(path) / bars.bars_per_year),
        "regimes": {
            name: {
                "share": share[i],
                "mean_dwell": dwell[i],
                "stays": len(stays[i]),
                **asdict(each[i]),
            }
            for i, name in enumerate(found.names)
        },
        "calibration": _calibration(found, ground, rows, config),
    }


def _calibration(found: Detection, ground: Ground, rows: slice, config: MeasuresConfig) -> dict[str, Any]:
    values, label = found.probabilities.values[rows], found.path.label[rows]
    if ground.truth is None:
        right = later(label, config.calibration_bars)
    else:
        values, label = _as_the_truth_has_it(values), _as_the_truth_names(label)
        right = ground.truth[rows]
    return calibration(values, label, right, config.n_bins).to_dict()


def _as_the_truth_has_it(values: np.ndarray) -> np.ndarray:
    # The synthetic market knows no crisis: what is one would be called volatile there.
    if values.shape[1] == len(REGIME_NAMES):
        return values
    out = values[:, : len(REGIME_NAMES)].copy()
    out[:, Regime.VOLATILE] += values[:, len(REGIME_NAMES) :].sum(axis=1)
    return out


def _as_the_truth_names(label: np.ndarray) -> np.ndarray:
    return np.where(label >= len(REGIME_NAMES), np.int8(Regime.VOLATILE), label)


def _order(found: Detection, ground: Ground, blocks: Blocks) -> list[dict[str, Any]]:
    label, rows = found.path.label[ground.held_out], []
    for column, high, low in NAMING:
        if max(high, low) >= len(found.names):
            continue
        value = ground.features.column(column)[ground.held_out]
        means = [value[label == one].mean() if (label == one).any() else np.nan for one in (high, low)]
        rows.append(
            {
                "statistic": column,
                "higher": high.text,
                "lower": low.text,
                "mean_higher": means[0],
                "mean_lower": means[1],
                "p_value": order_p_value(value, label, high, low, blocks),
            }
        )
    return rows


def _against_truth(found: Detection, truth: np.ndarray, rows: slice) -> dict[str, Any]:
    right, values = truth[rows], _as_the_truth_has_it(found.probabilities.values[rows])
    unknown = np.isnan(values).any(axis=1)
    likeliest = np.where(unknown, UNDECIDED, np.where(unknown[:, None], 0.0, values).argmax(axis=1))
    label = _as_the_truth_names(found.path.label[rows])
    return {"likeliest": _agreement(right, likeliest), "path": _agreement(right, label)}


def _agreement(truth: np.ndarray, label: np.ndarray) -> dict[str, Any]:
    delays = detection_delays(truth, label)
    return {
        "balanced_accuracy": balanced_accuracy(truth, label),
        "recall": dict(zip(REGIME_NAMES, recall(truth, label).tolist(), strict=True)),
        "switches": int(delays.size),
        "median_delay": float(np.median(delays)) if delays.size else None,
        "false_switches": false_switches(truth, label),
    }


def agreement(found: Mapping[str, Detection], rows: slice) -> dict[str, dict[str, float]]:
    """Return the share of decided rows on which each two detectors have the same label."""
    labels = {name: _as_the_truth_names(one.path.label[rows]) for name, one in found.items()}
    shares = {}
    for name, label in labels.items():
        shares[name] = {}
        for other, against in labels.items():
            decided = (label != UNDECIDED) & (against != UNDECIDED)
            shares[name][other] = float((label == against)[decided].mean()) if decided.any() else None
    return shares


def without_regimes(ground: Ground) -> np.ndarray:
    """Return the zero point of the yardstick for all bars, float64 (n, 2), nats."""
    return foretold_without(ground.bars, ground.split.train)


def state_now(found: Detection, bars: Bars) -> dict[str, Any] | None:
    """Return the state at the latest bar and what is likely next, as plain objects; None while undecided."""
    path, label = found.path, int(found.path.label[-1])
    chances = found.probabilities.values[-1]
    if label == UNDECIDED or np.isnan(chances).any():
        return None
    outlook = Outlook(found.chain, AHEAD)
    rows = outlook.update(found.probabilities)
    latest = dict(zip(rows.names, rows.values[-1].tolist(), strict=True))
    changes = events(path, rows)
    since = changes[-1].row if changes else int(np.argmax(path.label != UNDECIDED))
    return plain(
        {
            "time": utc(bars.time[-1]),
            "regime": found.names[label],
            "since": utc(bars.time[since]),
            "bars": len(path) - since,
            "confidence": path.confidence[-1],
            "likeliest": found.names[int(chances.argmax())],
            "remaining_bars": latest[REMAINING],
            "probabilities": dict(zip(found.names, chances.tolist(), strict=True)),
            "ahead": {str(h): {name: latest[f"{name}_in_{h}"] for name in found.names} for h in AHEAD},
            "switch": {str(h): latest[f"switch_in_{h}"] for h in AHEAD},
            "transitions": [
                {
                    "time": utc(one.time),
                    "before": one.before.text,
                    "after": one.after.text,
                    "confidence": one.confidence,
                    "dwelt_bars": one.dwelt_bars,
                    "bars_ago": len(path) - 1 - one.row,
                }
                for one in reversed(changes[-LATEST_TRANSITIONS:])
            ],
        }
    )
