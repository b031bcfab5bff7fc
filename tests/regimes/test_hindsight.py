import ast
from pathlib import Path

import numpy as np
import pytest

from market.causal import transform
from regimes.accuracy import balanced_accuracy
from regimes.hindsight import backward_smoother, smoothed
from regimes.hmm import HmmConfig, HmmDetector
from regimes.kernels import forward_filter
from tests.reference import regimes as naive
from tests.reference.regimes import WINDOWS, small_market

ROOT = Path(__file__).parents[2]
PACKAGES = (
    "backtest",
    "conductor",
    "ensemble",
    "forecasters",
    "ga",
    "live",
    "market",
    "regimes",
    "specialists",
)


@pytest.mark.parametrize("seed", range(3))
def test_smoothing_equals_the_sum_over_all_state_paths(seed):
    random = np.random.default_rng(seed)
    log_likelihood, transition = 3 * random.normal(size=(6, 3)), random.dirichlet(np.ones(3), size=3)
    belief = random.dirichlet(np.ones(3))
    filtered, out = np.empty((2, 6, 3))
    forward_filter(log_likelihood, transition, belief.copy(), filtered)
    backward_smoother(filtered, transition, out)
    np.testing.assert_allclose(
        out, naive.enumerated(log_likelihood, transition, belief, last=lambda t: 5), rtol=1e-9
    )


def test_hindsight_knows_more_and_ends_where_the_filter_ends():
    truth, features = small_market(6000, seed=8, dwell_bars=30)
    values = features.values.copy()
    random = np.random.default_rng(1)
    values[:, 0] *= np.exp(0.8 * random.normal(size=6000))
    values[:, 1:] += 0.3 * random.normal(size=(6000, 3))
    noisy = type(features)(features.time, values, features.names)
    detector = HmmDetector(HmmConfig(**WINDOWS, evidence=1.0, dwell_bars=30, stickiness=1.0))
    detector.fit(noisy)
    filtered, behind = transform(detector, noisy), smoothed(detector, noisy)
    np.testing.assert_array_equal(behind.values[-1], filtered.values[-1])
    gain = balanced_accuracy(truth, behind.values.argmax(1)) - balanced_accuracy(
        truth, filtered.values.argmax(1)
    )
    assert gain > 0.03


def test_no_module_imports_hindsight():
    for package in (
        "regimes",
        "specialists",
        "forecasters",
        "conductor",
        "ensemble",
        "live",
        "ga",
        "backtest",
    ):
        for path in (ROOT / package).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
                if isinstance(node, ast.ImportFrom):
                    names = [f"{node.module}.{alias.name}" for alias in node.names]
                assert not any("hindsight" in name for name in names), f"{path} imports {names}"
