"""What every test may rely on: where the repository is, and what may be missing around it."""

import contextlib
import importlib
import importlib.util
from pathlib import Path

import numpy as np
import pytest

from market.bars import OHLCV, Bars, timeframe_ns
from tests.house.tree import shipped
from tests.unpainted import unpainted

ROOT = Path(__file__).resolve().parent.parent


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--network", action="store_true", help="run the tests that talk to a real server")


def pytest_collection(session: pytest.Session) -> None:
    """Share the work of compiling kernels among the processes of a complete run.

    A kernel is compiled when its module is imported, which takes minutes for all of them after a change. All
    processes import the tests in the same order, and would compile the same kernels at the same time.
    """
    worker = getattr(session.config, "workerinput", None)
    if worker is None or [Path(one).resolve() for one in session.config.args] != [ROOT / "tests"]:
        return
    count, own = worker["workercount"], int(worker["workerid"].removeprefix("gw"))
    sources = [module for module in shipped() if "@kernel(" in module.text or "@variants(" in module.text]
    names = [module.name for module in sorted(sources, key=lambda module: len(module.text), reverse=True)]
    mine = names[own::count]
    for name in [*mine, *(name for name in reversed(names) if name not in mine)]:
        with contextlib.suppress(Exception):  # the tests of a module that cannot be imported say why
            importlib.import_module(name)


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


@pytest.fixture
def blank_pictures():
    """Figures are composed and saved blank: see :mod:`tests.unpainted`."""
    with unpainted():
        yield


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
