import os
import subprocess
import sys

import pytest

SAYS = {
    "simulate_a_rule": "Sharpe", "simulate_and_report": "Sharpe", "stress_a_rule": "Sharpe",
    "evolve_a_specialist": "Sharpe", "detect_regimes": "balanced accuracy",
}  # fmt: skip


@pytest.mark.parametrize("name", SAYS)
def test_an_example_runs_as_it_stands(root, name, tmp_path):
    environment = os.environ | {"PYTHONPATH": str(root)}
    done = subprocess.run(
        [sys.executable, str(root / "examples" / f"{name}.py")],
        cwd=tmp_path, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert SAYS[name] in done.stdout
    assert not list(tmp_path.iterdir())


def test_every_example_is_run(root):
    names = {path.stem for path in (root / "examples").glob("*.py")}
    assert names == set(SAYS)


def test_the_rule_of_the_readme_is_the_example_that_runs(root):
    readme = (root / "README.md").read_text(encoding="utf-8")
    shown = readme.split("```python\n")[1].split("```")[0].split("\n\n", 1)[1]
    assert shown in (root / "examples" / "simulate_a_rule.py").read_text(encoding="utf-8")
