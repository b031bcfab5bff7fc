import json
import os
import subprocess
import sys

import pytest

SAYS = {
    "simulate_a_rule": "Sharpe", "simulate_and_report": "Sharpe", "stress_a_rule": "Sharpe",
    "evolve_a_specialist": "Sharpe", "detect_regimes": "balanced accuracy",
}  # fmt: skip


# One process runs them all: what they import takes longer than what they do.
RUN = """
import contextlib, io, json, runpy, sys, traceback
told = {}
for file in sys.argv[1:]:
    with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.redirect_stderr(io.StringIO()) as err:
        try:
            runpy.run_path(file, run_name="__main__")
        except BaseException:
            traceback.print_exc()
    told[file] = out.getvalue(), err.getvalue()
print(json.dumps(told))
"""


@pytest.fixture(scope="module")
def told(root, tmp_path_factory):
    """What each example prints, and its errors, by name; nothing is written where they run."""
    place = tmp_path_factory.mktemp("examples")
    files = {str(root / "examples" / f"{name}.py"): name for name in SAYS}
    done = subprocess.run(
        [sys.executable, "-c", RUN, *files],
        cwd=place, env=os.environ | {"PYTHONPATH": str(root)}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert not list(place.iterdir())
    return {files[file]: streams for file, streams in json.loads(done.stdout).items()}


@pytest.mark.parametrize("name", SAYS)
def test_an_example_runs_as_it_stands(name, told):
    out, err = told[name]
    assert "Traceback" not in err, err
    assert SAYS[name] in out


def test_every_example_is_run(root):
    names = {path.stem for path in (root / "examples").glob("*.py")}
    assert names == set(SAYS) | {"origin_phase_3d"}  # that one reads data: see test_origin_example.py


def test_the_rule_of_the_readme_is_the_example_that_runs(root):
    readme = (root / "README.md").read_text(encoding="utf-8")
    shown = readme.split("```python\n")[1].split("```")[0].split("\n\n", 1)[1]
    assert shown in (root / "examples" / "simulate_a_rule.py").read_text(encoding="utf-8")
