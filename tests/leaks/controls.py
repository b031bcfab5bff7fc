"""The 12 clean controls of guarantees, section 5: each looks like a leak to somebody, and none is one."""

import math

import numpy as np
import pandas as pd
import talib

from tests.leaks.ground import Case, follows, frame, lagged, ridge
from tests.leaks.planted import forward

EVERY, AHEAD = 100, 4


def exponential(bars):
    return {"ema": frame(bars).close.ewm(span=20, adjust=False).mean()}


def wilder(bars):
    high, low, close = (bars.column(name) for name in ("high", "low", "close"))
    return {"rsi": talib.RSI(close, 14), "atr": talib.ATR(high, low, close, 14)}


def kalman(bars):
    level, variance, out = float("nan"), 1.0, []
    for price in np.log(bars.column("close")).tolist():
        if math.isnan(level):
            level = price
        variance += 1e-5
        gain = variance / (variance + 1e-4)
        level += gain * (price - level)
        variance *= 1.0 - gain
        out.append(level)
    return {"level": np.array(out)}


def filtered(bars):
    return {"p_wild": forward(bars)[:, 1]}


def expanding(bars):
    close = frame(bars).close
    past = close.expanding(30)
    return {"zscore": (close - past.mean()) / past.std()}


def rolling_component(bars):
    x, out = lagged(bars), np.full(len(bars), np.nan)
    for start in range(2 * EVERY, len(bars), EVERY):
        known = x[start - 2 * EVERY : start].copy()
        center = known.mean(axis=0)
        _, vectors = np.linalg.eigh((known - center).T @ (known - center))
        first = vectors[:, -1] * np.sign(vectors[0, -1])
        out[start : start + EVERY] = np.einsum("nk,k->n", x[start : start + EVERY] - center, first)
    return {"component": out}


def walked_forward(bars):
    signal, through = np.full(len(bars), np.nan), np.full(len(bars), -1)
    for start in range(2 * EVERY, len(bars), EVERY):
        rows = slice(start, start + EVERY)
        signal[rows] = follows(*ridge(bars, slice(0, start - AHEAD)), bars)[rows]
        through[rows] = bars.time[start - 1]
    return {"signal": signal, "trained_through": through}


def backward(bars, funding):
    rates = pd.DataFrame({"at": funding.available_at, "rate": funding.value})
    rows = pd.DataFrame({"at": bars.time})
    return {"funding": pd.merge_asof(rows, rates, on="at", direction="backward").rate}


def previous_day(bars, daily):
    table, days = frame(bars), frame(daily)
    return {"yesterday": (table.index.floor("D") - pd.Timedelta("1D")).map(days.close)}


def drawn(bars):
    return {"coin": [np.random.default_rng([7, time]).normal() for time in bars.time.tolist()]}


def warming_up(bars):
    close = frame(bars).close
    return {"mean": close.rolling(50).mean(), "place": close / close.rolling(200).max()}


def volume_profile(bars):
    profile, busiest, out = {}, None, []
    for price, volume in zip(bars.column("close").tolist(), bars.column("volume").tolist(), strict=True):
        if not math.isnan(price):
            level = math.floor(math.log(price) / 0.005)
            profile[level] = profile.get(level, 0.0) + volume
            if busiest is None or profile[level] > profile[busiest]:
                busiest = level
        out.append(busiest)
    return {"point_of_control": np.array(out, dtype=np.float64)}


CONTROLS = (
    Case("EMA", exponential),
    Case("Wilder RSI and ATR", wilder),
    Case("Kalman filter", kalman),
    Case("forward-filtered HMM", filtered),
    Case("expanding z-score", expanding, options={"warmup": 30}),
    Case("rolling PCA, refitted on the past", rolling_component),
    Case("walk-forward refit", walked_forward),
    Case("merge_asof backward with delay", backward, reads=("bars", "funding")),
    Case("previous day's bar", previous_day, reads=("bars", "daily")),
    Case("random signal, seeded by the time", drawn),
    Case("warm-up NaN", warming_up, options={"warmup": 200}),
    Case("volume profile to date", volume_profile),
)
