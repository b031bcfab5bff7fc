"""Naive twins of the features outside the core set: one expression per column, a library where it has one.

As in :mod:`tests.reference.features`, every function takes bars and returns float64 (n,), and rows before the
window is full are NaN or meaningless.
"""

import calendar
from collections import Counter
from datetime import UTC, datetime, timedelta

import numpy as np
import talib
from scipy import special, stats
from statsmodels.tsa.stattools import acf

from tests.reference.features import Columns, divide, lagged, windows

TWINS = {}


def twin(*names_and_arguments):
    """Register a twin under a column name, with the numbers it is called with."""
    name, *arguments = names_and_arguments

    def decorator(function):
        TWINS[name] = lambda bars: function(Timed(bars), *arguments)
        return function

    return decorator


class Timed(Columns):
    """Columns of bars with their closes as datetimes."""

    def __init__(self, bars):
        super().__init__(bars)
        self.seconds = bars.time // 10**9
        self.when = [datetime.fromtimestamp(int(s), UTC) for s in self.seconds]

    def each(self, function):
        return np.array([float(function(moment)) for moment in self.when])


def over(bars, function, *columns):
    """Return function(window of each column) for every full window, NaN before."""
    views = [np.lib.stride_tricks.sliding_window_view(column, bars) for column in columns]
    found = [function(*each) for each in zip(*views, strict=True)]
    return np.concatenate([np.full(bars - 1, np.nan), found])


def at_once(x, bars, function):
    """The same for a function that takes all windows at once, with the axis of their rows."""
    found = function(np.lib.stride_tricks.sliding_window_view(x, bars), axis=1)
    return np.concatenate([np.full(bars - 1, np.nan), found])


def correlation(a, b):
    return np.corrcoef(a, b)[0, 1]


# -- price -------------------------------------------------------------------------------------------------


@twin("return_2", 2)
@twin("return_8", 8)
@twin("return_168", 168)
@twin("return_336", 336)
@twin("return_672", 672)
def _(x, bars):
    return np.log(x.close) - lagged(np.log(x.close), bars)


@twin("close_location_1", 1)
@twin("close_location_336", 336)
@twin("close_location_672", 672)
def _(x, bars):
    high, low = talib.MAX(x.high, max(bars, 2)), talib.MIN(x.low, max(bars, 2))
    if bars == 1:
        high, low = x.high, x.low
    return divide((x.close - low) - (high - x.close), high - low)


@twin("zscore_672", 672)
def _(x, bars):
    return (x.close - windows(x.close, bars, np.mean)) / windows(x.close, bars, np.std)


@twin("drawdown_168")
def _(x):
    return np.log(x.close) - np.log(talib.MAX(x.high, 168))


@twin("runup_168")
def _(x):
    return np.log(x.close) - np.log(talib.MIN(x.low, 168))


# -- trend -------------------------------------------------------------------------------------------------


@twin("slope_96")
def _(x):
    return talib.LINEARREG_SLOPE(x.close, 96) * 96 / x.atr


@twin("trend_fit_24", 24)
@twin("trend_fit_96", 96)
def _(x, bars):
    def fit(w):
        r = stats.linregress(np.arange(bars), w).rvalue
        return np.sign(r) * r**2

    return windows(x.close, bars, fit)


@twin("vortex_14")
def _(x):
    ranges = talib.TRANGE(x.high, x.low, x.close)
    rising, falling = x.high - lagged(x.low, 1), lagged(x.high, 1) - x.low
    return windows(rising - falling, 14, np.sum) / windows(ranges, 14, np.sum)


@twin("choppiness_24")
def _(x):
    ranges = windows(talib.TRANGE(x.high, x.low, x.close), 24, np.sum)
    before = lagged(x.close, 24)
    spanned = np.maximum(talib.MAX(x.high, 24), before) - np.minimum(talib.MIN(x.low, 24), before)
    return np.log(ranges / spanned) / np.log(24)


@twin("trix_15")
def _(x):
    return talib.TRIX(x.close, 15) / 100


@twin("streak_12")
def _(x):
    out, length = np.zeros(len(x.close)), 0
    for t in range(1, len(x.close)):
        way = int(np.sign(x.close[t] - x.close[t - 1]))
        length = way * (abs(length) + 1 if way and way == np.sign(length) else 1)
        out[t] = np.clip(length, -12, 12) / 12
    return out


def midpoint(x, bars):
    return (talib.MAX(x.high, bars) + talib.MIN(x.low, bars)) / 2


@twin("ichimoku_gap_9_26")
def _(x):
    return (midpoint(x, 9) - midpoint(x, 26)) / x.atr


@twin("ichimoku_cloud_9_26_52")
def _(x):
    one = lagged((midpoint(x, 9) + midpoint(x, 26)) / 2, 26)
    other = lagged(midpoint(x, 52), 26)
    top, bottom = np.maximum(one, other), np.minimum(one, other)
    return (x.close - np.clip(x.close, bottom, top)) / x.atr


# -- momentum ----------------------------------------------------------------------------------------------


@twin("rsi_48")
def _(x):
    return talib.RSI(x.close, 48) / 50 - 1


@twin("momentum_ratio_72", 72)
@twin("momentum_ratio_168", 168)
def _(x, bars):
    moved = np.log(x.close) - lagged(np.log(x.close), bars)
    return moved / (windows(x.r, 168, np.std) * np.sqrt(bars))


@twin("acceleration_12")
def _(x):
    moved = np.log(x.close) - lagged(np.log(x.close), 12)
    return (moved - lagged(moved, 12)) / (windows(x.r, 24, np.std) * np.sqrt(24))


@twin("true_strength_13_25")
def _(x):
    moves = np.concatenate([[0.0], np.clip(x.close[1:] / x.close[:-1] - 1, -1, 1)])

    def twice(values):
        for bars in (25, 13):
            smooth, value = np.zeros(len(values)), 0.0
            for t, now in enumerate(values):
                value += 2 / (bars + 1) * (now - value)
                smooth[t] = value
            values = smooth
        return values

    return twice(moves) / np.maximum(twice(np.abs(moves)), 1e-6)


@twin("ultimate_7_14_28")
def _(x):
    return talib.ULTOSC(x.high, x.low, x.close, 7, 14, 28) / 50 - 1


@twin("stochastic_rsi_14")
def _(x):
    rsi = talib.RSI(x.close, 14)
    low, high = windows(rsi, 14, np.min), windows(rsi, 14, np.max)
    return 2 * (rsi - low) / (high - low) - 1


@twin("up_share_24")
def _(x):
    return windows(np.sign(x.r), 24, np.mean)


# -- volatility and estimators -----------------------------------------------------------------------------


@twin("volatility_8")
def _(x):
    return windows(x.r, 8, np.std)


@twin("volatility_ratio_8_72")
def _(x):
    return np.log(windows(x.r, 8, np.std) / windows(x.r, 72, np.std))


@twin("volatility_zscore_336")
def _(x):
    return windows(windows(x.r, 24, np.std), 336, lambda w: stats.zscore(w)[-1])


@twin("parkinson_168")
def _(x):
    return np.sqrt(windows(np.log(x.high / x.low) ** 2, 168, np.mean) / (4 * np.log(2)))


@twin("variance_ratio_48", 48, 2)
@twin("variance_ratio_240", 240, 24)
def _(x, n, q):
    def ratio(w):
        # Lo and MacKinlay (1988), equation 12.
        single = ((w - w.mean()) ** 2).sum() / (n - 1)
        summed = np.convolve(w, np.ones(q), "valid") - q * w.mean()
        return (summed**2).sum() / (q * (n - q + 1) * (1 - q / n)) / single - 1

    return windows(x.r, n, ratio)


def rogers_satchell(x, bars):
    u, d, c = np.log(x.high / x.open), np.log(x.low / x.open), np.log(x.close / x.open)
    return windows(u * (u - c) + d * (d - c), bars, np.mean)


@twin("rogers_satchell_24")
def _(x):
    return np.sqrt(rogers_satchell(x, 24))


@twin("yang_zhang_24", 24)
@twin("yang_zhang_168", 168)
def _(x, n):
    overnight = np.log(x.open) - lagged(np.log(x.close), 1)
    k = 0.34 / (1.34 + (n + 1) / (n - 1))
    parts = windows(overnight, n, lambda w: w.var(ddof=1))
    parts = parts + k * windows(np.log(x.close / x.open), n, lambda w: w.var(ddof=1))
    return np.sqrt(parts + (1 - k) * rogers_satchell(x, n))


@twin("parkinson_ratio_24")
def _(x):
    ranges = windows(np.log(x.high / x.low) ** 2, 24, np.mean) / (4 * np.log(2))
    return 0.5 * np.log(ranges) - np.log(windows(x.r, 24, np.std))


@twin("semivariance_balance_24")
def _(x):
    return windows(x.r, 24, lambda w: (np.sign(w) * w**2).sum() / (w**2).sum())


@twin("jump_share_72")
def _(x):
    def share(w):
        n = len(w)
        bipower = np.pi / 2 * n / (n - 1) * np.abs(w[1:] * w[:-1]).sum()
        return max(1 - bipower / (w**2).sum(), 0)

    return windows(x.r, 72, share)


@twin("ewma_volatility_ratio")
def _(x):
    squares = np.concatenate([[0.0], x.r[1:] ** 2])
    out, value = np.zeros(len(squares)), 0.0
    for t, square in enumerate(squares):
        value = 0.94 * value + 0.06 * square
        out[t] = value
    with np.errstate(divide="ignore"):
        return 0.5 * np.log(out) - np.log(windows(x.r, 168, np.std))


@twin("range_ratio_24")
def _(x):
    ranges = np.log(x.high / x.low)
    return np.log(ranges / windows(ranges, 24, np.mean))


@twin("squeeze_20")
def _(x):
    return np.log(windows(x.close, 20, np.std) / x.atr)


@twin("leverage_96")
def _(x):
    return windows(x.r, 96, lambda w: correlation(w[:-1], np.abs(w[1:])))


# -- volume and liquidity ----------------------------------------------------------------------------------


@twin("volume_ratio_24")
def _(x):
    return np.log(np.maximum(x.volume / windows(x.volume, 24, np.mean), 1e-3))


@twin("volume_balance_8", 8)
@twin("volume_balance_96", 96)
def _(x, bars):
    signed = np.diff(talib.OBV(x.close, x.volume), prepend=np.nan)
    return windows(signed, bars, np.sum) / windows(x.volume, bars, np.sum)


@twin("volume_trend_24_168")
def _(x):
    return np.log(windows(x.volume, 24, np.mean) / windows(x.volume, 168, np.mean))


@twin("amihud_24")
def _(x):
    money = x.close * x.volume
    moves = [windows(np.abs(x.r), bars, np.mean) + 1e-6 for bars in (24, 168)]
    trade = [windows(money, bars, np.mean) for bars in (24, 168)]
    return np.log((moves[0] / trade[0]) / (moves[1] / trade[1]))


@twin("vwap_gap_24", 24)
@twin("vwap_gap_168", 168)
def _(x, bars):
    average = over(bars, lambda p, v: np.average(p, weights=v), x.typical, x.volume)
    return np.log(x.close / average)


@twin("twap_gap_24", 24)
@twin("twap_gap_168", 168)
def _(x, bars):
    return np.log(x.close / windows(x.typical, bars, np.mean))


@twin("roll_spread_72")
def _(x):
    def spread(w):
        d = w - w.mean()
        covariance = (d[1:] * d[:-1]).sum() / (len(w) - 1)
        return 2 * np.sqrt(max(-covariance, 0))

    return windows(x.r, 72, spread)


@twin("corwin_schultz_24")
def _(x):
    beta = np.log(x.high / x.low) ** 2 + lagged(np.log(x.high / x.low) ** 2, 1)
    high, low = np.maximum(x.high, lagged(x.high, 1)), np.minimum(x.low, lagged(x.low, 1))
    gamma, scale = np.log(high / low) ** 2, 3 - 2 * np.sqrt(2)
    alpha = (np.sqrt(2 * beta) - np.sqrt(beta)) / scale - np.sqrt(gamma / scale)
    spread = 2 * (np.exp(alpha) - 1) / (1 + np.exp(alpha))
    return windows(np.maximum(spread, 0), 24, np.mean)


@twin("abdi_ranaldo_24")
def _(x):
    close, middle = np.log(x.close), (np.log(x.high) + np.log(x.low)) / 2
    before = lagged(close, 1)
    products = windows((before - lagged(middle, 1)) * (before - middle), 24, np.mean)
    return 2 * np.sqrt(np.maximum(products, 0))


@twin("price_volume_correlation_72")
def _(x):
    return over(72, correlation, x.r, x.volume)


@twin("move_volume_correlation_72")
def _(x):
    return over(72, correlation, np.abs(x.r), x.volume)


@twin("volume_concentration_24")
def _(x):
    return windows(x.volume, 24, lambda w: (((w / w.sum()) ** 2).sum() - 1 / 24) / (1 - 1 / 24))


def bulk_side(x):
    return 2 * special.ndtr(x.r / windows(x.r, 168, np.std)) - 1


@twin("bulk_imbalance_24")
def _(x):
    return windows(bulk_side(x) * x.volume, 24, np.sum) / windows(x.volume, 24, np.sum)


@twin("bulk_toxicity_72")
def _(x):
    return windows(np.abs(bulk_side(x)) * x.volume, 72, np.sum) / windows(x.volume, 72, np.sum)


# -- candles -----------------------------------------------------------------------------------------------


@twin("body_mean_24")
def _(x):
    return windows(divide(x.close - x.open, x.range), 24, np.mean)


@twin("wick_balance_24")
def _(x):
    below = np.minimum(x.open, x.close) - x.low
    above = x.high - np.maximum(x.open, x.close)
    return windows(divide(below - above, x.range), 24, np.mean)


def mean_before(values, bars=10):
    return lagged(windows(values, bars, np.mean), 1)


@twin("shooting_star")
def _(x):
    body, top, bottom = np.abs(x.close - x.open), np.maximum(x.open, x.close), np.minimum(x.open, x.close)
    found = (body < mean_before(body)) & (x.high - top > body) & (bottom >= lagged(top, 1))
    return -1.0 * (found & (bottom - x.low < 0.1 * mean_before(x.range)))


@twin("piercing")
def _(x):
    before, first_open = lagged(x.close - x.open, 1), lagged(x.open, 1)
    last = lagged(x.close, 1)
    long = np.abs(before) > lagged(mean_before(np.abs(x.close - x.open)), 1)
    middle = first_open + before / 2
    rise = (before < 0) & (x.open <= last) & (x.close > middle) & (x.close < first_open)
    fall = (before >= 0) & (x.open >= last) & (x.close < middle) & (x.close > first_open)
    return 1.0 * (rise & long) - 1.0 * (fall & long)


@twin("inside_bar")
def _(x):
    within = (x.high <= lagged(x.high, 1)) & (x.low >= lagged(x.low, 1))
    return 1.0 * (within & (x.range < lagged(x.range, 1)))


@twin("three_soldiers")
def _(x):
    least = lagged(mean_before(np.abs(x.close - x.open)), 2) / 2
    found = []
    for way in (1, -1):
        rises = way * (x.close - x.open)
        ahead = way * (x.close - lagged(x.close, 1)) > 0
        inside = (way * (x.open - lagged(x.open, 1)) >= 0) & (way * (lagged(x.close, 1) - x.open) >= 0)
        steps = ahead & inside
        both = steps & (lagged(1.0 * steps, 1) == 1)
        longs = [lagged(rises, i) > least if i else rises > least for i in range(3)]
        found.append(both & np.logical_and.reduce(longs))
    return 1.0 * found[0] - 1.0 * found[1]


@twin("marubozu")
def _(x):
    return np.sign(talib.CDLMARUBOZU(x.open, x.high, x.low, x.close)).astype(float)


# -- sessions ----------------------------------------------------------------------------------------------


def hours(moment):
    return moment.hour + moment.minute / 60 + moment.second / 3600


@twin("hour_sin", np.sin)
@twin("hour_cos", np.cos)
def _(x, wave):
    return x.each(lambda moment: wave(2 * np.pi * hours(moment) / 24))


@twin("weekday_sin", np.sin)
@twin("weekday_cos", np.cos)
def _(x, wave):
    return x.each(lambda moment: wave(2 * np.pi * (moment.weekday() + hours(moment) / 24) / 7))


@twin("session_asia", 0, 8)
@twin("session_europe", 7, 16)
@twin("session_us", 13.5, 21)
def _(x, start, end):
    return x.each(lambda moment: start <= hours(moment) < end)


@twin("weekend")
def _(x):
    return x.each(lambda moment: moment.strftime("%A").startswith("S"))


@twin("funding_wait")
def _(x):
    return x.each(lambda moment: 1 - hours(moment) % 8 / 8)


@twin("funding_hour")
def _(x):
    return x.each(lambda moment: hours(moment) % 8 >= 7)


@twin("month_turn")
def _(x):
    return x.each(lambda moment: moment.day <= 3 or (moment + timedelta(days=1)).day == 1)


@twin("expiry_wait")
def _(x):
    def wait(moment):
        for months in range(2):
            year, month = divmod(moment.year * 12 + moment.month - 1 + months, 12)
            days = [d for d in calendar.Calendar().itermonthdates(year, month + 1) if d.month == month + 1]
            friday = max(d for d in days if d.weekday() == calendar.FRIDAY)
            expiry = datetime(friday.year, friday.month, friday.day, 8, tzinfo=UTC)
            if expiry > moment:
                return (expiry - moment) / timedelta(days=35)
        raise AssertionError(moment)

    return x.each(wait)


@twin("outage_24")
def _(x):
    steps = np.diff(x.seconds, prepend=np.nan)
    return windows(steps, 24, lambda w: np.log(w.mean() / w.min()))


# -- fractional differences --------------------------------------------------------------------------------


@twin("fractional_20", 0.2)
@twin("fractional_40", 0.4)
@twin("fractional_60", 0.6)
def _(x, order):
    weights = special.binom(order, np.arange(256)) * (-1.0) ** np.arange(256)
    weights[-1] -= weights.sum()  # what the window cuts off lies on its oldest price
    return np.concatenate([np.full(255, np.nan), np.convolve(np.log(x.close), weights, "valid")])


# -- distribution ------------------------------------------------------------------------------------------


@twin("skewness_72", 72)
@twin("skewness_168", 168)
def _(x, bars):
    return at_once(x.r, bars, stats.skew)


@twin("kurtosis_72", 72)
@twin("kurtosis_168", 168)
def _(x, bars):
    return at_once(x.r, bars, stats.kurtosis)


@twin("tail_balance_168")
def _(x):
    return windows(x.r, 168, lambda w: (w.max() + w.min()) / (w.max() - w.min()))


@twin("permutation_entropy_96")
def _(x):
    threes = np.argsort(np.lib.stride_tricks.sliding_window_view(x.close, 3), axis=1, kind="stable")
    orders = np.concatenate([[-1, -1], threes @ [9, 3, 1]])

    def entropy(w):
        found = Counter(w[2:].tolist())
        return stats.entropy(list(found.values())) / np.log(6)

    return windows(orders, 96, entropy)


@twin("return_entropy_168")
def _(x):
    edges = stats.norm.ppf(np.arange(1, 8) / 8)

    def entropy(w):
        bins = np.searchsorted(edges, (w - w.mean()) / w.std())
        return stats.entropy(np.bincount(bins, minlength=8)) / np.log(8)

    return windows(x.r, 168, entropy)


@twin("hurst_128")
def _(x):
    sizes = (8, 16, 32, 64, 128)

    def expected(n):  # Anis and Lloyd (1976)
        front = special.gamma((n - 1) / 2) / (np.sqrt(np.pi) * special.gamma(n / 2))
        return front * np.sqrt((n - np.arange(1, n)) / np.arange(1, n)).sum()

    def exponent(w):
        logs = []
        for n in sizes:
            blocks = w.reshape(-1, n)
            walks = np.cumsum(blocks - blocks.mean(1, keepdims=True), axis=1)
            ranges = walks.max(1).clip(min=0) - walks.min(1).clip(max=0)
            logs.append(np.log((ranges / blocks.std(1)).mean() / expected(n)))
        return np.polyfit(np.log(sizes), logs, 1)[0]

    return windows(x.r, 128, exponent)


@twin("autocorrelation_168_lag_24")
def _(x):
    return windows(x.r, 168, lambda w: acf(w, nlags=24, fft=False)[24])


@twin("clustering_96")
def _(x):
    return windows(np.abs(x.r), 96, lambda w: acf(w, nlags=1, fft=False)[1])


def rank(values):
    return windows(values, 168, lambda w: np.sign(w[-1] - w[:-1]).mean())


@twin("return_rank_168")
def _(x):
    return rank(x.r)


@twin("range_rank_168")
def _(x):
    return rank(np.log(x.high / x.low))


@twin("volume_rank_168")
def _(x):
    return rank(x.volume)
