"""Units of external series: the name of a series carries its unit, and a copy in another unit is noticed."""

import math
from dataclasses import dataclass

from configs.load import ConfigError, did_you_mean
from market.external import ExternalSeries, unit_factor
from market.table import DataError


@dataclass(frozen=True)
class Unit:
    """A unit, and the ending that tells it in a name.

    Parameters
    ----------
    dimension : str
        What it measures; only units of one dimension convert into each other.
    size : float
        In the base unit of its dimension.
    ending : str
        The name of a series in this unit ends with it.
    """

    dimension: str
    size: float
    ending: str


UNITS = {
    "H/s": Unit("hashes per second", 1.0, "hs"),
    "GH/s": Unit("hashes per second", 1e9, "ghs"),
    "TH/s": Unit("hashes per second", 1e12, "ths"),
    "EH/s": Unit("hashes per second", 1e18, "ehs"),
    "USD": Unit("US dollars", 1.0, "usd"),
    "BTC": Unit("bitcoins", 1.0, "btc"),
    "coins": Unit("coins of the asset", 1.0, "coins"),
    "coin-days": Unit("coin-days", 1.0, "cdd"),
    "count": Unit("a count", 1.0, "count"),
    "fraction": Unit("a share", 1.0, "fraction"),
    "percent": Unit("a share", 1e-2, "pct"),
    "bps": Unit("a share", 1e-4, "bps"),
    "ratio": Unit("a ratio", 1.0, "ratio"),
    "points": Unit("index points", 1.0, "points"),
    "index": Unit("an index", 1.0, "index"),
    "score": Unit("a score", 1.0, "score"),
    "z-score": Unit("standard deviations", 1.0, "zscore"),
    "difficulty": Unit("difficulty", 1.0, "difficulty"),
    "bytes": Unit("bytes", 1.0, "bytes"),
    "BTC/USD": Unit("bitcoins per dollar", 1.0, "btc_per_usd"),
}


def unit(name: str) -> Unit:
    """Return the unit of a name.

    Raises
    ------
    ConfigError
        If it is not known.
    """
    try:
        return UNITS[name]
    except KeyError:
        raise ConfigError(f"unit {name}: no such unit{did_you_mean(name, sorted(UNITS))}") from None


def check_name(series: str, name: str) -> None:
    """Check that the name of a series ends with its unit, as ``hashrate_ths`` does.

    Raises
    ------
    ConfigError
        If it does not.
    """
    ending = unit(name).ending
    if not series.endswith(f"_{ending}"):
        raise ConfigError(
            f"series {series}: is in {name}; its name must carry the unit and end with _{ending}, because "
            f"the same figures circulate in units a thousand times apart"
        )


def conversion(given: str, wanted: str) -> float:
    """Return the factor from one unit to another.

    Raises
    ------
    ConfigError
        If they measure different things.
    """
    first, second = unit(given), unit(wanted)
    if first.dimension != second.dimension:
        raise ConfigError(
            f"unit {given} measures {first.dimension} and {wanted} {second.dimension}; the two must measure "
            f"the same"
        )
    return first.size / second.size


def column_unit(column: str) -> str | None:
    """Return the unit that the name of a column tells, or None."""
    found = [name for name, one in UNITS.items() if column.lower().endswith(f"_{one.ending}")]
    return max(found, key=lambda name: len(UNITS[name].ending)) if found else None


def check_units(first: ExternalSeries, second: ExternalSeries) -> float:
    """Return the median ratio of two copies of one quantity.

    Near 1 they agree; another number says that they are defined differently.

    Raises
    ------
    DataError
        If the ratio is a power of a thousand other than one, which only a wrong unit explains, or the two
        share no event.
    """
    factor = unit_factor(first, second)
    thousands = math.log(abs(factor), 1000) if factor else 0.0
    if round(thousands) and abs(thousands - round(thousands)) < 0.01:
        raise DataError(
            f"{second.name} is {factor:g} times {first.name} on common events; one of the two must be "
            f"declared in another unit"
        )
    return factor
