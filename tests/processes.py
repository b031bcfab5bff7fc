"""Processes that tests kill. They come from one server that has imported once what all of them need.

A process of tests has one such server, and whoever asks first decides what it imports: so all ask here.
"""

import multiprocessing
from functools import cache
from multiprocessing import forkserver
from multiprocessing.context import ForkServerContext

from ga.controls import POLICIES
from market.features.feature import FEATURES
from regimes.detector import DETECTORS
from specialists.family import FAMILIES

PRELOADED = (
    "__main__", "backtest.figures", "ga.evolve", "ga.figures", "pyarrow.parquet",
    "specialists.evolution_page", "specialists.evolving", "tests.ga.test_checkpoint", "tests.jobs.test_kill",
)  # fmt: skip


@cache
def server() -> ForkServerContext:
    """Start the server if it does not run yet, and return what makes its processes."""
    plugins = {
        registry.get(name).__module__
        for registry in (DETECTORS, FAMILIES, FEATURES, POLICIES)
        for name in registry.names()
    }
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([*PRELOADED, *sorted(plugins)])
    forkserver.ensure_running()
    return context
