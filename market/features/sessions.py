"""When a row is: hour, weekday, sessions, funding, expiry, in UTC; and whether bars are missing.

The time of a row is its bar's close, when what follows from it may be done. "Hour of the day" is thus the
hour that begins now. Sessions are fixed in UTC, without summer time.
"""

import math

from compute.kernels import kernel
from market.features.feature import TIME, Node, Window, further_features
from market.kernels import rolling

_MINUTE, _HOUR, _DAY = 60, 3_600, 86_400
_WEEK = 7 * _DAY
#: 1970-01-01 was a Thursday; weeks are counted from the Monday before.
_MONDAY = 3 * _DAY
#: From ... to, minutes of the day UTC: Tokyo to Singapore, London and Frankfurt, New York.
ASIA, EUROPE, AMERICA = (0, 8 * 60), (7 * 60, 16 * 60), (13 * 60 + 30, 21 * 60)
#: Perpetual futures settle funding at 00:00, 08:00 and 16:00 UTC.
FUNDING_HOURS = 8
#: Monthly options and futures expire on the month's last Friday at 08:00 UTC.
EXPIRY_HOUR = 8
_LONGEST_MONTH = 35.0  # days from one last Friday to the next, at most


@kernel(inline=True)
def _rest(seconds, offset, period):
    # Seconds since the period began, 0 <= rest < period; also before 1970.
    moved = seconds + offset
    return moved - period * math.floor(moved / period)


@rolling(1, 2)
def _sine(time, offset, period, first, out):
    for t in range(first, time.size):
        out[t - first] = math.sin(2.0 * math.pi * _rest(time[t], offset, period) / period)


@rolling(1, 2)
def _cosine(time, offset, period, first, out):
    for t in range(first, time.size):
        out[t - first] = math.cos(2.0 * math.pi * _rest(time[t], offset, period) / period)


@rolling(1, 4)
def _within(time, offset, period, start, end, first, out):
    for t in range(first, time.size):
        rest = _rest(time[t], offset, period)
        out[t - first] = 1.0 if rest >= start and rest < end else 0.0


@rolling(1, 2)
def _wait(time, offset, period, first, out):
    for t in range(first, time.size):
        out[t - first] = 1.0 - _rest(time[t], offset, period) / period


@kernel(inline=True)
def _day_of_month(day):
    # Days since 1970 to (first day of the month, days in the month), by the Gregorian calendar's 400 years.
    # Source: Hinnant (2013), chrono-compatible low-level date algorithms; years begin in March there.
    shifted = day + 719_468
    era = shifted // 146_097
    of_era = shifted - era * 146_097
    year = (of_era - of_era // 1_460 + of_era // 36_524 - of_era // 146_096) // 365
    of_year = of_era - (365 * year + year // 4 - year // 100)
    month = (5 * of_year + 2) // 153  # 0: March
    first = day - (of_year - (153 * month + 2) // 5)
    # February is the last month of such a year; the year in which it lies is the next one.
    leap = (year + 1) % 4 == 0 and ((year + 1) % 100 != 0 or (year + 1) % 400 == 0)
    february = 29 if leap else 28
    length = (153 * (month + 1) + 2) // 5 - (153 * month + 2) // 5
    return first, february if month == 11 else length


@rolling(1, 2)
def _month_turn(time, last_days, first_days, first, out):
    for t in range(first, time.size):
        day = math.floor(time[t] / _DAY)
        start, length = _day_of_month(day)
        of_month = day - start
        turns = of_month < first_days or of_month >= length - last_days
        out[t - first] = 1.0 if turns else 0.0


@rolling(1)
def _expiry_wait(time, hour, first, out):
    for t in range(first, time.size):
        start, length = _day_of_month(math.floor(time[t] / _DAY))
        expiry = 0.0
        for _ in range(2):  # this month's, or the next month's once that is over
            last = start + length - 1
            friday = last - (last + 6) % 7  # day 1 was a Friday
            expiry = friday * 86_400.0 + hour * 3_600.0
            if expiry > time[t]:
                break
            start, length = _day_of_month(start + length)
        out[t - first] = (expiry - time[t]) / 86_400.0 / _LONGEST_MONTH


@rolling(1)
def _outage(time, bars, first, out):
    for t in range(first, time.size):
        shortest = time[t] - time[t - 1]
        for i in range(t - bars + 1, t):
            shortest = min(shortest, time[i] - time[i - 1])
        out[t - first] = math.log((time[t] - time[t - bars]) / (bars * shortest))


@further_features(hour_sin=(0, _DAY), weekday_sin=(_MONDAY, _WEEK))
def cycle_sine(offset: int, period: int) -> Node:
    """Sine of the time of the day (0 at 00:00 UTC) or of the week (0 at Monday 00:00 UTC)."""
    return Window(_sine, (TIME,), (offset, period))


@further_features(hour_cos=(0, _DAY), weekday_cos=(_MONDAY, _WEEK))
def cycle_cosine(offset: int, period: int) -> Node:
    """Cosine of the time of the day (1 at 00:00 UTC) or of the week (1 at Monday 00:00 UTC)."""
    return Window(_cosine, (TIME,), (offset, period))


@further_features(session_asia=ASIA, session_europe=EUROPE, session_us=AMERICA)
def session(start: int, end: int) -> Node:
    """1 within a session, in UTC: Asia 00:00 to 08:00, Europe 07:00 to 16:00, US 13:30 to 21:00."""
    return Window(_within, (TIME,), (0, _DAY, start * _MINUTE, end * _MINUTE))


@further_features(weekend=())
def weekend() -> Node:
    """1 on Saturdays and Sundays, UTC."""
    return Window(_within, (TIME,), (_MONDAY, _WEEK, 5 * _DAY, _WEEK))


@further_features(funding_wait=FUNDING_HOURS)
def funding_wait(hours: int) -> Node:
    """Time to the next funding settlement (00:00, 08:00, 16:00 UTC) over 8 hours; 1 just as one passes."""
    return Window(_wait, (TIME,), (0, hours * _HOUR))


@further_features(funding_hour=FUNDING_HOURS)
def funding_hour(hours: int) -> Node:
    """1 when the next funding settlement is at most an hour away, but not now."""
    return Window(_within, (TIME,), (0, hours * _HOUR, (hours - 1) * _HOUR, hours * _HOUR))


@further_features(month_turn=(1, 3))
def month_turn(last_days: int, first_days: int) -> Node:
    """1 on the last day of a month and the first three of the next, UTC.

    Source: Lakonishok and Smidt (1988).
    """
    return Window(_month_turn, (TIME,), (last_days, first_days))


@further_features(expiry_wait=EXPIRY_HOUR)
def expiry_wait(hour: int) -> Node:
    """Time to the next monthly expiry (the last Friday of a month, 08:00 UTC) over 35 days, above 0 to 1."""
    return Window(_expiry_wait, (TIME,), (hour,))


@further_features(outage_24=24)
def outage(bars: int) -> Node:
    """Log of the time that 24 bars took over 24 times the shortest step between them; none missing: 0."""
    return Window(_outage, (TIME,), (bars,), lookback=bars + 1)
