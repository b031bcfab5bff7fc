import os
import subprocess
import sys

import pytest


@pytest.mark.parametrize("name", ["simulate_a_rule", "evolve_a_specialist"])
def test_an_example_runs_as_it_stands(root, name, tmp_path):
    environment = os.environ | {"PYTHONPATH": str(root)}
    done = subprocess.run(
        [sys.executable, str(root / "examples" / f"{name}.py")],
        cwd=tmp_path, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "Sharpe" in done.stdout
    assert not list(tmp_path.iterdir())


def test_every_example_is_run(root):
    names = {path.stem for path in (root / "examples").glob("*.py")}
    assert names == {"simulate_a_rule", "evolve_a_specialist"}
