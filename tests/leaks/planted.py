"""The 24 leaks of guarantees, section 5: small stages, each wrong in the way in which people are wrong.

Nothing here is a caricature: this is how the lines look in notebooks and repositories. Most are a stage of
their own. Leaks in how something was *fitted* come with their fit, which can be run again; of one only the
fitted model is left, as it comes from a disk, with its stamp.
"""

import numpy as np
import pandas as pd
from scipy.fft import irfft, rfft

from regimes.em import MarkovModel, fit_em
from regimes.hindsight import backward_smoother
from regimes.kernels import forward_filter
from tests.leaks.ground import TRAIN, Case, follows, frame, lagged, returns, ridge, rises

STAY = np.array([[0.97, 0.03], [0.05, 0.95]])
CALM, WILD = 0.004, 0.015


# Rows that are not there yet


def shifted(bars):
    close = frame(bars).close
    return {"next_return": close.shift(-1) / close - 1}


def shifted_entry(bars):
    table = frame(bars)
    mean = table.close.rolling(20).mean()
    entry = (table.close > mean) & (table.close.shift(-10) > table.close)
    return {"entry": entry, "exit": table.close < mean}


def centred(bars):
    return {"trend": frame(bars).close.rolling(21, center=True).mean()}


def back_filled(bars):
    table = frame(bars)
    busy = table.volume > table.volume.rolling(48).quantile(0.9)
    return {"level": table.close.where(busy).bfill()}


def interpolated(bars):
    table = frame(bars)
    return {"level": table.close.where(table.index.hour % 6 == 0).interpolate()}


# Statistics of the whole sample


def z_scored(bars):
    close = frame(bars).close
    return {"zscore": (close - close.mean()) / close.std()}


def min_maxed(bars):
    volume = frame(bars).volume
    return {"volume": (volume - volume.min()) / (volume.max() - volume.min())}


def clipped(bars):
    change = frame(bars).close.pct_change()
    return {"return": change.clip(change.quantile(0.01), change.quantile(0.99))}


def principal_component(bars):
    x = lagged(bars)
    x = x - x.mean(axis=0)
    _, vectors = np.linalg.eigh(x.T @ x)
    first = vectors[:, -1] * np.sign(vectors[0, -1])
    return {"component": np.einsum("nk,k->n", x, first)}


def selected(bars):
    x, y = lagged(bars), rises(bars)
    known = ~np.isnan(y)
    strength = np.array([np.corrcoef(column, y[known])[0, 1] for column in x[known].T])
    best = np.argsort(-np.abs(strength))[:2]
    return {"signal": (x[:, best] * np.sign(strength[best])).sum(axis=1)}


def target_encoded(bars):
    hour = frame(bars).index.hour
    rise = pd.Series(rises(bars))
    return {"hour_rises": rise.groupby(hour).transform("mean")}


# Regimes and models


def densities(bars, mean=(0.0, 0.0), deviation=(CALM, WILD)):
    z = (returns(bars)[:, None] - np.array(mean)) / np.array(deviation)
    return -0.5 * z**2 - np.log(np.array(deviation))


def forward(bars, stay=STAY, **emission):
    out = np.empty((len(bars), 2))
    forward_filter(densities(bars, **emission), stay, np.array([0.6, 0.4]), out)
    return out


def smoothed(bars):
    out = np.empty((len(bars), 2))
    backward_smoother(forward(bars), STAY, out)
    return {"p_wild": out[:, 1]}


def viterbi(bars):
    density, step = densities(bars), np.log(STAY)
    score, back = np.log([0.6, 0.4]), np.empty(density.shape, int)
    for t, row in enumerate(density):
        joint = score[:, None] + step
        back[t] = joint.argmax(axis=0)
        score = joint.max(axis=0) + row
    state = np.empty(len(back), int)
    now = int(score.argmax())
    for t in range(len(back) - 1, -1, -1):
        state[t] = now
        now = back[t, now]
    return {"state": state}


class Fitted:
    """A fitted stage that says until when it was fitted."""

    def __init__(self, answer, fitted_until):
        self.answer, self.fitted_until = answer, int(fitted_until)

    def __call__(self, bars):
        return self.answer(bars)


def hmm_of(rows):
    """Return a fit of a hidden Markov model on some rows."""

    def fit(bars):
        observed = 100.0 * returns(bars)[rows][:, None]  # per cent: the prior of EM has that size
        spread = float(observed.std())
        start = MarkovModel(
            np.array([0.5, 0.5]), STAY, np.zeros((2, 1)), np.array([[[spread**2 / 4]], [[spread**2 * 2]]]),
            np.full(2, np.inf),
        )  # fmt: skip
        found = fit_em(observed, np.array([len(observed)]), start, diagonal=True, n_iterations=5).model
        emission = {"mean": found.mean[:, 0] / 100.0, "deviation": np.sqrt(found.covariance[:, 0, 0]) / 100.0}
        return Fitted(
            lambda later: {"p_wild": forward(later, found.transition, **emission)[:, 1]}, bars.time[rows][-1]
        )

    return fit


def garch_of(rows):
    """Return a fit of GARCH(1, 1) on some rows: the variance is targeted, the rest is searched on a grid."""

    def path(squares, long_run, alpha, beta):
        variance, level = np.empty(squares.size), long_run
        for t, square in enumerate(squares.tolist()):
            variance[t] = level
            level = (1 - alpha - beta) * long_run + alpha * square + beta * level
        return variance

    def fit(bars):
        squares = returns(bars)[rows] ** 2
        long_run = float(squares.mean())

        def loss(pair):
            variance = path(squares, long_run, *pair)
            return float((np.log(variance) + squares / variance).sum())

        chosen = min(((0.05, 0.9), (0.1, 0.85), (0.2, 0.7)), key=loss)
        return Fitted(
            lambda later: {"variance": path(returns(later) ** 2, long_run, *chosen)}, bars.time[rows][-1]
        )

    return fit


def model_of(rows):
    """Return a fit of a linear model on some rows."""

    def fit(bars):
        chosen, level = ridge(bars, rows)
        return Fitted(lambda later: {"signal": follows(chosen, level, later)}, bars.time[rows][-1])

    return fit


def stopped_on(train, judge):
    """Return a fit by gradient steps on some rows, of which others choose how many."""

    def fit(bars):
        x, y = lagged(bars), rises(bars)
        known = ~np.isnan(y)

        def part(rows):
            taken = np.zeros(len(y), bool)
            taken[rows] = True
            return x[taken & known], y[taken & known]

        (learn, target), (other, truth) = part(train), part(judge)
        weight, best, least = np.zeros(x.shape[1]), np.zeros(x.shape[1]), np.inf
        for _ in range(40):
            error = 1.0 / (1.0 + np.exp(-np.einsum("nk,k->n", learn, weight))) - target
            weight = weight - 0.3 * np.einsum("nk,n->k", learn, error) / len(error)
            loss = np.abs(1.0 / (1.0 + np.exp(-np.einsum("nk,k->n", other, weight))) - truth).mean()
            if loss < least:
                best, least = weight, loss
        return Fitted(lambda later: {"signal": follows(best, 0.0, later)}, bars.time[judge][-1])

    return fit


# Joins


def by_date(bars, daily):
    table, days = frame(bars), frame(daily)
    return {"day_close": table.index.floor("D").map(days.close)}


def nearest(bars, funding):
    rates = pd.DataFrame({"at": funding.event_time, "rate": funding.value})
    rows = pd.DataFrame({"at": bars.time})
    return {"funding": pd.merge_asof(rows, rates, on="at", direction="nearest").rate}


def left_labelled(bars):
    close = frame(bars).close
    return {"close_4h": close.resample("4h").last().reindex(close.index, method="ffill")}


# Shapes that are known later


def fractals(bars):
    high = frame(bars).high
    pivot = high == high.rolling(5, center=True).max()
    return {"resistance": high.where(pivot).ffill()}


def fourier(bars):
    close = np.log(bars.column("close"))
    spectrum = rfft(close)
    spectrum[12:] = 0.0
    return {"cycle": irfft(spectrum, close.size)}


# What acts inside the bar or at its open


def trailing(bars):
    table = frame(bars)
    spread = (table.high - table.low).rolling(14).mean().shift(1)
    return {"position": table.close.diff(24).shift(1) > 0, "stop": table.high.rolling(24).max() - 2 * spread}


def next_funding(bars, funding):
    at = np.searchsorted(funding.event_time, bars.time, side="right")
    rate = np.append(funding.value, np.nan)
    return {"carry": -np.sign(rate[at])}


FROM_TRAIN = {"first": TRAIN}
TAUGHT = slice(0, TRAIN - 4)  # their labels are known before the first answer
LEAKS = (
    Case("shift(-1)", shifted),
    Case("shift(-10) in the entry only", shifted_entry),
    Case("centred rolling", centred),
    Case("bfill", back_filled),
    Case("interpolate", interpolated),
    Case("whole-sample z-score", z_scored),
    Case("whole-sample min-max", min_maxed),
    Case("whole-sample quantile clip", clipped),
    Case("PCA on all rows", principal_component),
    Case("feature selection on all rows", selected),
    Case("target encoding", target_encoded),
    Case("HMM smoothed", smoothed),
    Case("HMM Viterbi", viterbi),
    Case("HMM parameters from all data", fit=hmm_of(slice(None)), options=FROM_TRAIN),
    Case("GARCH fitted on all data", fit=garch_of(slice(None)), options=FROM_TRAIN),
    Case("model trained through the test", saved=model_of(slice(None)), options=FROM_TRAIN),
    Case("early stopping on the test", fit=stopped_on(TAUGHT, slice(TRAIN, None)), options=FROM_TRAIN),
    Case("daily bar joined by date", by_date, reads=("bars", "daily")),
    Case('merge_asof(direction="nearest")', nearest, reads=("bars", "funding")),
    Case("resample, left label, no shift", left_labelled),
    Case("pivots (fractals)", fractals),
    Case("FFT over the whole series", fourier),
    Case("stop from this bar's high", trailing, options={"delay": 1}),
    Case("next funding rate at entry", next_funding, reads=("bars", "funding")),
)  # fmt: skip
#: Fits of which the author may have kept the result alone; then the stamp must find them.
FITTED = {case.name: case.fit or case.saved for case in LEAKS if case.fit or case.saved}
#: The same fits as they must be: on training rows, whose labels are known before the first answer.
HONEST = {
    "HMM parameters from all data": hmm_of(slice(0, TRAIN)),
    "GARCH fitted on all data": garch_of(slice(0, TRAIN)),
    "model trained through the test": model_of(TAUGHT),
    "early stopping on the test": stopped_on(slice(0, 300), slice(304, TRAIN - 4)),
}
