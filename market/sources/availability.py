"""When a value of the outside world could first be used: one table of delays, each with its source.

Joining a daily value by its date is the commonest leak there is. Here the date is only the event; what a bar
may see is decided by the table, in the clock of the place that publishes.
"""

from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from functools import cache
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import numpy as np

from configs.load import ConfigError, did_you_mean
from market.bars import NS_PER_SECOND

NS_PER_DAY = 86_400 * NS_PER_SECOND
NEW_YORK = "America/New_York"


@dataclass(frozen=True)
class Availability:
    """How long after its event a value becomes known.

    Parameters
    ----------
    source : str
        Where the rule is from.
    days : int
        Calendar days after the event.
    business_days : int
        Business days of the United States after the event.
    clock : str, optional
        Time of that day, such as ``16:15``; the event is then a day, stamped with its 00:00 UTC.
    zone : str
        Time zone of the clock.
    delay_s : int
        Seconds on top.
    of_publication : bool
        Whether the rule speaks of the publication of a row instead of its event.
    """

    source: str
    days: int = 0
    business_days: int = 0
    clock: str | None = None
    zone: str = "UTC"
    delay_s: int = 0
    of_publication: bool = False

    def at(self, event_time: np.ndarray) -> np.ndarray:
        """Return when the values of some events become known.

        Parameters
        ----------
        event_time : int64 (m,)
            Nanoseconds UTC.

        Returns
        -------
        int64 (m,)
            Nanoseconds UTC, never before the event.
        """
        event_time = np.asarray(event_time, np.int64)
        if self.clock is None:
            known = event_time + self.days * NS_PER_DAY
        else:
            day, place = np.unique(event_time // NS_PER_DAY, return_inverse=True)
            known = self._clocked(day + self.days)[place]
        return np.maximum(known, event_time) + self.delay_s * NS_PER_SECOND

    def _clocked(self, day: np.ndarray) -> np.ndarray:
        # Days since 1970 to the clock on those days; the zone knows its summer time, also that of 1990.
        if self.business_days:
            days = day.astype("datetime64[D]")
            holidays = np.array(us_holidays(1970, 2100), "datetime64[D]")
            day = np.busday_offset(days, self.business_days, "forward", holidays=holidays).astype(np.int64)
        clock, zone = time.fromisoformat(self.clock), _zone(self.zone)
        seconds = [
            int(datetime.combine(date(1970, 1, 1) + timedelta(int(one)), clock, zone).timestamp())
            for one in day
        ]
        return np.array(seconds, np.int64) * NS_PER_SECOND


AVAILABILITY = {
    "settlement": Availability(
        "funding and snapshots: known at their own instant (the exchange publishes the rate at settlement)"
    ),
    "next-day": Availability(
        "figures of a whole UTC day (on-chain, open interest, dollar index): the day must be over",
        days=1,
    ),
    "us-close": Availability(
        "US stocks and funds: close of the exchange, 16:00 New York (21:00 UTC, 20:00 in summer)",
        clock="16:00",
        zone=NEW_YORK,
    ),
    "us-index-close": Availability(
        "VIX: close of its session, 16:15 New York (21:15 UTC, 20:15 in summer)",
        clock="16:15",
        zone=NEW_YORK,
    ),
    "next-business-day": Availability(
        "Treasury yields (FRED DGS2, DGS10, DFII10): the Federal Reserve's H.15 release of the next "
        "business day, 16:15 New York",
        business_days=1,
        clock="16:15",
        zone=NEW_YORK,
    ),
    "shortly-after": Availability(
        "fear and greed index: stamped 00:00 UTC and published some minutes later; ten are allowed",
        delay_s=600,
    ),
    "news": Availability(
        "headlines with a stated time zone: a feed shows them some minutes late; fifteen are allowed",
        delay_s=900,
    ),
    "news-unzoned": Availability(
        "headlines whose time zone is not stated, read as UTC: no inhabited zone is more than twelve hours "
        "behind UTC, so twelve hours and fifteen minutes are safe wherever they were written",
        delay_s=12 * 3600 + 900,
    ),
    "published": Availability(
        "a column holds the moment of publication (revisions are further rows)", of_publication=True
    ),
    "published-day": Availability(
        "a column holds the day of publication (FRED realtime_start): over at midnight in New York",
        days=1,
        clock="00:00",
        zone=NEW_YORK,
        of_publication=True,
    ),
}


def availability(name: str) -> Availability:
    """Return the rule of a name.

    Raises
    ------
    ConfigError
        If there is none.
    """
    try:
        return AVAILABILITY[name]
    except KeyError:
        raise ConfigError(
            f"available {name}: no such rule{did_you_mean(name, sorted(AVAILABILITY))}"
        ) from None


@cache
def us_holidays(first_year: int, last_year: int) -> tuple[date, ...]:
    """Return the federal holidays of the United States as observed, ascending.

    One that falls on a weekend is observed on the nearest weekday (5 U.S.C. 6103). Single closures by
    executive order are not among them.

    Parameters
    ----------
    first_year, last_year : int
        Both included.
    """
    found = []
    for year in range(first_year, last_year + 2):  # the first of January may be observed the year before
        fixed = [(1, 1), (7, 4), (11, 11), (12, 25)]
        if year >= 2021:
            fixed.append((6, 19))
        floating = [(2, 3, 0), (9, 1, 0), (10, 2, 0), (11, 4, 3)]  # month, which, weekday (Monday is 0)
        if year >= 1986:
            floating.append((1, 3, 0))
        found += [_observed(date(year, *day)) for day in fixed]
        found += [_nth(year, *rule) for rule in floating]
        memorial = date(year, 5, 31)
        found.append(memorial - timedelta(memorial.weekday()))
    return tuple(sorted(day for day in found if first_year <= day.year <= last_year))


def _observed(day: date) -> date:
    return day + timedelta({5: -1, 6: 1}.get(day.weekday(), 0))


def _nth(year: int, month: int, which: int, weekday: int) -> date:
    first = date(year, month, 1)
    return first + timedelta((weekday - first.weekday()) % 7 + 7 * (which - 1))


@cache
def _zone(name: str) -> ZoneInfo | type(UTC):
    try:
        return UTC if name == "UTC" else ZoneInfo(name)
    except ZoneInfoNotFoundError:
        raise ConfigError(
            f"time zone {name}: this system has no such zone; install the zones with: pip install tzdata"
        ) from None
