"""Small files and registries of external series for tests."""

from datetime import UTC, datetime

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from configs.load import load, validate
from market.sources.series import ExternalConfig, read_series
from market.table import Table

HOUR = 3_600_000_000_000
DAY = 24 * HOUR


def ns(text):
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()) * 10**9


def clock(*texts):
    time = np.array([ns(text) for text in texts], np.int64)
    return Table(time, np.zeros((time.size, 1)), ("x",))


def config(folder, registry=None, **settings):
    """The shipped registry, or a registry of the test's own."""
    if registry is None:
        return load(ExternalConfig, "external.yaml").model_copy(update={"folder": str(folder), **settings})
    document = {"folder": str(folder), "series": registry, **settings}
    return validate(ExternalConfig, document, "test")


def one(chosen, name=None):
    """The only series of a config, and its report."""
    if name is not None:
        chosen = chosen.model_copy(update={"names": (name,)})
    [(series, report)], _ = read_series(chosen)
    return series, report


def with_setting(chosen, name, **settings):
    """A registry with one series changed."""
    series = {**chosen.series, name: chosen.series[name].model_copy(update=settings)}
    return chosen.model_copy(update={"series": series, "names": (name,)})


def write(folder, name, columns):
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    arrays = {
        key: pa.array(value, pa.timestamp("ns", "UTC")) if key == "timestamp" else pa.array(value)
        for key, value in columns.items()
    }
    pq.write_table(pa.table(arrays), path)
    return path


def days(n, first="2024-01-01"):
    return ns(first) + DAY * np.arange(n)
