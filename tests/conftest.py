"""What every test may rely on: where the repository is, and what may be missing around it."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest

from market.bars import OHLCV, Bars, timeframe_ns

ROOT = Path(__file__).resolve().parent.parent


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--network", action="store_true", help="run the tests that talk to a real server")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    missing = {}
    if not config.getoption("--network"):
        missing["network"] = "talks to a real server: give --network"
    if importlib.util.find_spec("ray") is None:
        missing["ray"] = "Ray is not installed"
    marked = {mark.name for item in items for mark in item.iter_markers()}
    if "gpu" in marked and not _has_gpu():  # torch takes seconds to import: only when a test asks
        missing["gpu"] = "there is no CUDA device"
    for item in items:
        for mark in list(item.iter_markers()):
            if mark.name in missing:
                item.add_marker(pytest.mark.skip(reason=missing[mark.name]))


def _has_gpu() -> bool:
    if importlib.util.find_spec("torch") is None:
        return False
    import torch

    return torch.cuda.is_available()


@pytest.fixture(scope="session")
def root() -> Path:
    """The root of the repository."""
    return ROOT


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real market data beside the repository; skips where there is none."""
    folder = ROOT.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("no market data beside the repository (../shared/data)")
    return folder


@pytest.fixture(scope="session")
def make_bars():
    """A function that makes valid bars of a random walk."""

    def make(n: int, seed: int = 0, timeframe: str = "1h", symbol: str = "BTC/USDT", start: int = 0) -> Bars:
        random = np.random.default_rng(seed)
        close = 100.0 * np.exp(np.cumsum(random.normal(0.0, 0.01, n)))
        before = np.concatenate([[100.0], close])[:n]
        reach = np.abs(random.normal(0.0, 0.005, (2, n)))
        high = np.maximum(before, close) * (1.0 + reach[0])
        low = np.minimum(before, close) * (1.0 - reach[1])
        volume = random.lognormal(3.0, 1.0, n)
        interval = timeframe_ns(timeframe)
        time = (start + 1 + np.arange(n)) * interval
        values = np.column_stack([before, high, low, close, volume])
        return Bars(time, values, OHLCV, symbol=symbol, interval_ns=interval)

    return make
