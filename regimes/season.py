"""The hours of the week: how volatility depends on them, and how that is told from what regimes do."""

import numpy as np

from market.bars import timeframe_ns

HOUR_NS = timeframe_ns("1h")
WEEK_ROWS = 169  # hourly bars, odd: the span that the season is measured within
N_SEASON = 5


def hours_of_week(time: np.ndarray) -> np.ndarray:
    """Return float64 (n, N_SEASON): two waves of the day and the weekend, at the hour each bar ends in."""
    # 1970 began on a Thursday; hour 0 is Monday 00:00. A close at midnight belongs to the day before.
    hour = ((time - 1) // HOUR_NS + 72) % 168
    angle = 2 * np.pi * (hour % 24) / 24
    waves = [np.cos(angle), np.sin(angle), np.cos(2 * angle), np.sin(2 * angle)]
    return np.column_stack([*waves, hour >= 120])


def seasonal(hours: np.ndarray, season: np.ndarray) -> np.ndarray:
    """Return what the hours add to log levels.

    Parameters
    ----------
    hours : float64 (n, N_SEASON)
        From :func:`hours_of_week`, less what they are measured from.
    season : float64 (N_SEASON,) or (N_SEASON, c)
        Weights.

    Returns
    -------
    float64 (n,) or (n, c)
        Summed in a fixed order, so that a row does not depend on how many rows are asked for.
    """
    if season.ndim == 1:
        return sum(hours[:, i] * season[i] for i in range(N_SEASON))
    return sum(hours[:, i : i + 1] * season[i] for i in range(N_SEASON))


def learned_season(time: np.ndarray, log_levels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the weights of the hours in log levels, and what the hours are measured from. LOOKS AHEAD.

    For training rows only: a regression of the levels on the hours, both less their mean over the week
    around. What a regime adds is gone, and on bars of minutes, of which a day has many, the hours keep their
    weight.

    Parameters
    ----------
    time : int64 (n,)
        Bar close, nanoseconds UTC.
    log_levels : float64 (n,) or (n, c)

    Returns
    -------
    float64 (N_SEASON,) or (N_SEASON, c), float64 (N_SEASON,)
    """
    hours = hours_of_week(time)
    around = [one - centered_mean(one, WEEK_ROWS) for one in (hours, log_levels)]
    return np.linalg.lstsq(*around, rcond=None)[0], hours.mean(axis=0)


def centered_mean(values: np.ndarray, span: int) -> np.ndarray:
    """Return the mean of the ``span`` rows around each row, fewer at the ends, float64. LOOKS AHEAD.

    For training rows only; ``values`` is float64 (n,) or (n, c).
    """
    n = len(values)
    total = np.concatenate([np.zeros((1, *values.shape[1:])), np.cumsum(values, axis=0)])
    place = np.arange(n)
    first, end = np.maximum(place - span // 2, 0), np.minimum(place + span - span // 2, n)
    count = (end - first).reshape(-1, *[1] * (values.ndim - 1))
    return (total[end] - total[first]) / count
