"""Small seeded bars for tests: a random walk, and markets that no feature author thinks of."""

import numpy as np

from market.bars import OHLCV, Bars

HOUR = 3_600_000_000_000


def make_bars(open_, high, low, close, volume, symbol="TEST/USD", start=0):
    values = np.column_stack([open_, high, low, close, volume])
    time = (np.arange(len(values)) + 1 + start) * HOUR
    return Bars(time, values, OHLCV, symbol, HOUR)


def random_bars(n, seed=0, price=100.0, volatility=0.01, gap=0.0005, tick=0.0):
    """Log returns with fat tails and slow volatility, lognormal volume; ``tick`` rounds prices."""
    rng = np.random.default_rng(seed)
    slow = np.cumsum(rng.normal(0, 0.03, n))
    slow = np.exp(slow - np.linspace(slow[0], slow[-1], n))
    move = rng.standard_t(5, n) * volatility * slow * 0.7
    jump = rng.normal(0, gap, n) if gap else np.zeros(n)
    path = np.cumsum(move + jump)
    close = price * np.exp(path)
    open_ = price * np.exp(path - move)
    spread = np.abs(rng.normal(0, volatility, (2, n))) * slow * 0.5
    high = np.maximum(open_, close) * np.exp(spread[0])
    low = np.minimum(open_, close) * np.exp(-spread[1])
    if tick:
        open_, high, low, close = (
            np.maximum(np.round(x / tick), 1) * tick for x in (open_, high, low, close)
        )
    volume = np.exp(rng.normal(5, 1, n))
    return make_bars(open_, high, low, close, volume)


def flat_bars(n, price=100.0, volume=10.0):
    p = np.full(n, price)
    return make_bars(p, p, p, p, np.full(n, volume))


def _from_close(close, volume):
    open_ = np.concatenate([close[:1], close[:-1]])
    return make_bars(open_, np.maximum(open_, close), np.minimum(open_, close), close, volume)


def _values(bars):
    return [bars.column(name).copy() for name in OHLCV]


def _no_volume(n):
    *prices, _ = _values(random_bars(n))
    return make_bars(*prices, np.zeros(n))


def _volume_stops(n):
    *prices, volume = _values(random_bars(n))
    volume[n // 3 :] = 0.0
    return make_bars(*prices, volume)


def _volume_huge_once(n):
    *prices, volume = _values(random_bars(n))
    volume[n // 2] = 1e300
    volume[n // 2 + 1 :] = 1e-8
    return make_bars(*prices, volume)


def _frozen_feed(n):
    columns = _values(random_bars(n))
    for column in columns[:4]:
        column[n // 4 :] = columns[3][n // 4 - 1]
    return make_bars(*columns)


def _jumps(n):
    close = 1.0 * 10.0 ** (np.random.default_rng(1).integers(-4, 5, n))
    return _from_close(close, np.ones(n))


def _extremes_in_turn(n):
    close = np.where(np.arange(n) % 7 < 3, 1e-8, 1e9)
    return _from_close(close, np.where(np.arange(n) % 5 == 0, 0.0, 1e12))


def _ends_of_float(n):
    close = np.where(np.arange(n) % 11 < 5, 5e-324, 1.7e308)
    return _from_close(close, np.where(np.arange(n) % 3 == 0, 5e-324, 1.7e308))


def _bad_tick(n):
    columns = _values(random_bars(n))
    for column in columns[:4]:
        column[n // 2] *= 1000.0
    return make_bars(*columns)


def _steady_growth(n):
    return _from_close(1.001 ** np.arange(n), np.ones(n))


def _last_digit(n):
    close = np.full(n, 0.1)
    close[::2] = np.nextafter(0.1, 1.0)
    return _from_close(close, np.full(n, 0.3))


def _point_ranges(n):
    # Bars without range whose price moves between bars.
    _, _, _, close, volume = _values(random_bars(n))
    return make_bars(close, close, close, close, volume)


#: Valid bars, each hostile in its own way; called with a number of rows.
HOSTILE = {
    "constant prices": flat_bars,
    "constant prices, no volume": lambda n: flat_bars(n, volume=0.0),
    "a price that is no binary fraction": lambda n: flat_bars(n, price=0.1, volume=0.1),
    "tiny prices": lambda n: random_bars(n, price=1e-8),
    "huge prices": lambda n: random_bars(n, price=1e9),
    "no volume": _no_volume,
    "volume stops": _volume_stops,
    "one huge volume": _volume_huge_once,
    "frozen feed": _frozen_feed,
    "jumps of powers of ten": _jumps,
    "extremes in turn": _extremes_in_turn,
    "ends of float64": _ends_of_float,
    "one bad tick": _bad_tick,
    "steady growth": _steady_growth,
    "last digit": _last_digit,
    "bars without range": _point_ranges,
    "coarse ticks": lambda n: random_bars(n, price=1.0, tick=0.01),
}
