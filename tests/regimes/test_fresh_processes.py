"""What can only be seen in a process of its own: the number of threads, and what an import brings along.

A process that imports scipy and numba takes seconds, so each is asked about several detectors.
"""

import importlib.util
import os
import subprocess
import sys

import pytest

FIT = """
import sys
sys.path.insert(0, sys.argv[1])
from pathlib import Path
from market.causal import transform
from market.features.pipeline import FeaturePipeline, FeaturesConfig
from market.sources.synthetic import SyntheticConfig, synthetic_market
from regimes.hmm import HmmConfig, HmmDetector
from regimes.jump import JumpConfig, JumpDetector
from regimes.markov_ar import MarkovArDetector
from tests.reference.regimes import small_market

small = small_market(3000, seed=3)[1]
hmm = {"level_columns": ("parkinson_24",), "magnitude_columns": (), "stride_bars": 2, "n_starts": 2}
jump = JumpConfig(level_columns=("parkinson_24",), baseline_bars=100, n_starts=2)
bars = synthetic_market(SyntheticConfig(n_bars=3000, seed=3)).bars
columns = FeaturePipeline(FeaturesConfig(names=MarkovArDetector.columns))
folder = Path(sys.argv[2])
for name in sys.argv[3:]:
    if name.startswith("hmm"):
        detector = HmmDetector(HmmConfig(**hmm, fitter=name.removeprefix("hmm, "))).fit(small)
    elif name == "jump":
        detector = JumpDetector(jump).fit(small)
    else:
        detector = MarkovArDetector().fit(transform(columns, bars))
    detector.save(folder / name)
"""
HAS_JUMPMODELS = importlib.util.find_spec("jumpmodels") is not None
FITTED = ("hmm, hmmlearn", "hmm, numba", "markov_ar", *(["jump"] if HAS_JUMPMODELS else []))


def needs_jumpmodels(name):
    marks = [pytest.mark.skipif(not HAS_JUMPMODELS, reason="jumpmodels is not installed")]
    return pytest.param(name, marks=marks)


@pytest.fixture(scope="module")
def saved(root, tmp_path_factory):
    """Detectors that were fitted by one thread, and by two."""
    found = {}
    for threads in ("1", "2"):
        found[threads] = tmp_path_factory.mktemp("threads")
        settings = {f"{name}_NUM_THREADS": threads for name in ("OMP", "OPENBLAS", "MKL", "NUMBA")}
        command = [sys.executable, "-c", FIT, str(root), str(found[threads]), *FITTED]
        subprocess.run(command, check=True, env=os.environ | settings)
    return found


@pytest.mark.parametrize("name", ["hmm, hmmlearn", "hmm, numba", "markov_ar", needs_jumpmodels("jump")])
def test_parameters_do_not_depend_on_the_number_of_threads(name, saved):
    one, two = ((folder / name / "detector.json").read_bytes() for folder in saved.values())
    assert one == two


def test_importing_a_detector_or_our_em_imports_no_hmmlearn(root):
    code = "import sys, regimes.em, regimes.hmm; print({'hmmlearn', 'sklearn'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], check=True, cwd=root, capture_output=True, text=True)
    assert done.stdout.strip() == "set()"
