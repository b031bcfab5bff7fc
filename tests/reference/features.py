"""Naive twins of the features: one expression per column, TA-Lib's batch functions where it has them.

Every function takes bars and returns float64 (n,); rows before the window is full are NaN or meaningless.
"""

import numpy as np
import talib

ATR_FLOOR = 1e-6
TWINS = {}


def twin(*names_and_arguments):
    """Register a twin under a column name, with the numbers it is called with."""
    name, *arguments = names_and_arguments

    def decorator(function):
        TWINS[name] = lambda bars: function(Columns(bars), *arguments)
        return function

    return decorator


class Columns:
    """The columns of bars as attributes, and the few series that several twins share."""

    def __init__(self, bars):
        self.open, self.high, self.low, self.close, self.volume = (
            bars.column(name) for name in ("open", "high", "low", "close", "volume")
        )
        self.r = np.concatenate([[np.nan], np.diff(np.log(self.close))])
        self.typical = (self.high + self.low + self.close) / 3
        self.range = self.high - self.low

    @property
    def atr(self):
        return np.maximum(talib.ATR(self.high, self.low, self.close, 14), ATR_FLOOR * self.close)


def windows(x, bars, function):
    """Return function(window) for every full window, NaN before."""
    out = np.full(len(x), np.nan)
    if len(x) >= bars:
        out[bars - 1 :] = [function(w) for w in np.lib.stride_tricks.sliding_window_view(x, bars)]
    return out


def lagged(x, bars):
    return np.concatenate([np.full(bars, np.nan), x[:-bars]])


def divide(a, b, otherwise=0.0):
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(b == 0, otherwise, a / b)


# -- price -------------------------------------------------------------------------------------------------


@twin("return_1", 1)
@twin("return_4", 4)
@twin("return_24", 24)
@twin("return_72", 72)
def _(x, bars):
    return np.log(x.close) - lagged(np.log(x.close), bars)


@twin("gap_1")
def _(x):
    return np.log(x.open) - lagged(np.log(x.close), 1)


def place(x, bars):
    high, low = windows(x.high, bars, np.max), windows(x.low, bars, np.min)
    return divide((x.close - low) - (high - x.close), high - low)


twin("close_location_24", 24)(place)
twin("close_location_96", 96)(place)


@twin("zscore_24", 24)
@twin("zscore_96", 96)
def _(x, bars):
    return (x.close - windows(x.close, bars, np.mean)) / windows(x.close, bars, np.std)


# -- trend -------------------------------------------------------------------------------------------------


@twin("ema_gap_8_24", 8, 24)
@twin("ema_gap_24_96", 24, 96)
@twin("ema_gap_48_192", 48, 192)
def _(x, fast, slow):
    return (talib.EMA(x.close, fast) - talib.EMA(x.close, slow)) / x.atr


@twin("macd_histogram")
def _(x):
    return talib.MACD(x.close, 12, 26, 9)[2] / x.atr


@twin("adx_14")
def _(x):
    return talib.ADX(x.high, x.low, x.close, 14) / 100


@twin("di_balance_14")
def _(x):
    plus, minus = (f(x.high, x.low, x.close, 14) for f in (talib.PLUS_DI, talib.MINUS_DI))
    return divide(plus - minus, plus + minus)


@twin("aroon_24")
def _(x):
    # The newest of equal extremes counts, hence the reversal.
    since_high = windows(x.high, 25, lambda w: np.argmax(w[::-1]))
    since_low = windows(x.low, 25, lambda w: np.argmin(w[::-1]))
    return (since_low - since_high) / 24


@twin("slope_24")
def _(x):
    return talib.LINEARREG_SLOPE(x.close, 24) * 24 / x.atr


@twin("kama_gap_10")
def _(x):
    return (x.close - talib.KAMA(x.close, 10)) / x.atr


@twin("efficiency_24", 24)
@twin("efficiency_72", 72)
def _(x, bars):
    return windows(x.close, bars + 1, lambda w: abs(w[-1] - w[0]) / np.abs(np.diff(w)).sum())


# -- momentum ----------------------------------------------------------------------------------------------


@twin("rsi_4", 4)
@twin("rsi_14", 14)
def _(x, bars):
    return talib.RSI(x.close, bars) / 50 - 1


@twin("stochastic_14")
def _(x):
    slow_k, _ = talib.STOCH(x.high, x.low, x.close, fastk_period=14, slowk_period=3, slowd_period=1)
    return slow_k / 50 - 1


@twin("cci_20")
def _(x):
    return talib.CCI(x.high, x.low, x.close, 20) / 200


@twin("momentum_ratio_12")
def _(x):
    moved = np.log(x.close) - lagged(np.log(x.close), 12)
    return moved / (windows(x.r, 24, np.std) * np.sqrt(12))


# -- volatility --------------------------------------------------------------------------------------------


@twin("range_1")
def _(x):
    return np.log(x.high) - np.log(x.low)


@twin("atr_14")
def _(x):
    return talib.NATR(x.high, x.low, x.close, 14) / 100


@twin("volatility_24", 24)
@twin("volatility_168", 168)
def _(x, bars):
    return windows(x.r, bars, np.std)


@twin("volatility_ratio")
def _(x):
    return np.log(windows(x.r, 24, np.std)) - np.log(windows(x.r, 168, np.std))


@twin("parkinson_24")
def _(x):
    return np.sqrt(windows(np.log(x.high / x.low) ** 2, 24, np.mean) / (4 * np.log(2)))


@twin("garman_klass_24")
def _(x):
    terms = 0.5 * np.log(x.high / x.low) ** 2 - (2 * np.log(2) - 1) * np.log(x.close / x.open) ** 2
    return np.sqrt(windows(terms, 24, np.mean))


@twin("volatility_of_volatility_72")
def _(x):
    volatility = windows(x.r, 24, np.std)
    return windows(volatility, 72, np.std) / windows(volatility, 72, np.mean)


@twin("downside_ratio_72")
def _(x):
    return windows(x.r, 72, lambda w: (w[w < 0] ** 2).sum() / (w**2).sum())


@twin("bollinger_width_20")
def _(x):
    upper, middle, lower = talib.BBANDS(x.close, 20, 2.0, 2.0)
    return (upper - lower) / middle


@twin("variance_ratio_96")
def _(x):
    def ratio(w):
        # Lo and MacKinlay (1988), equation 12: T = n q returns, both variances unbiased.
        q, n = 8, len(w)
        mu = w.mean()
        sigma_a = ((w - mu) ** 2).sum() / (n - 1)
        overlapping = np.convolve(w, np.ones(q), "valid")
        sigma_c = ((overlapping - q * mu) ** 2).sum() / (q * (n - q + 1) * (1 - q / n))
        return sigma_c / sigma_a - 1

    return windows(x.r, 96, ratio)


@twin("autocorrelation_48")
def _(x):
    def lag_one(w):
        d = w - w.mean()
        return (d[1:] * d[:-1]).sum() / (d**2).sum()

    return windows(x.r, 48, lag_one)


# -- volume ------------------------------------------------------------------------------------------------


@twin("volume_ratio_168")
def _(x):
    share = x.volume / windows(x.volume, 168, np.mean)
    return np.log(np.maximum(share, 1e-3))


@twin("volume_zscore_168")
def _(x):
    return (x.volume - windows(x.volume, 168, np.mean)) / windows(x.volume, 168, np.std)


@twin("mfi_14")
def _(x):
    return talib.MFI(x.high, x.low, x.close, x.volume, 14) / 50 - 1


@twin("volume_balance_24")
def _(x):
    return windows(np.sign(x.r) * x.volume, 24, np.sum) / windows(x.volume, 24, np.sum)


@twin("chaikin_3_10")
def _(x):
    average = np.zeros(len(x.volume))
    value = 0.0
    for t, volume in enumerate(x.volume):
        value += 2 / 11 * (volume - value)
        average[t] = value
    return talib.ADOSC(x.high, x.low, x.close, x.volume, 3, 10) / average


@twin("amihud_72")
def _(x):
    money = x.close * x.volume
    moves = [windows(np.abs(x.r), bars, np.mean) + 1e-6 for bars in (72, 504)]
    trade = [windows(money, bars, np.mean) for bars in (72, 504)]
    return np.log((moves[0] / trade[0]) / (moves[1] / trade[1]))


# -- candles -----------------------------------------------------------------------------------------------


@twin("body_1")
def _(x):
    return divide(x.close - x.open, x.range)


@twin("upper_wick_1")
def _(x):
    return divide(x.high - np.maximum(x.open, x.close), x.range)


@twin("lower_wick_1")
def _(x):
    return divide(np.minimum(x.open, x.close) - x.low, x.range)


@twin("engulfing", talib.CDLENGULFING)
@twin("hammer", talib.CDLHAMMER)
@twin("doji", talib.CDLDOJI)
@twin("harami", talib.CDLHARAMI)
@twin("morning_star", talib.CDLMORNINGSTAR)
@twin("evening_star", talib.CDLEVENINGSTAR)
def _(x, pattern):
    return np.sign(pattern(x.open, x.high, x.low, x.close)).astype(float)
