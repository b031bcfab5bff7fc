"""A pytest plugin that writes down how each test ended, so that a proof can be told from a breakdown.

A test that fails because the planted bug broke an import, or made the code stop with a ``NameError``, has
judged nothing. What counts is a failed assertion, or an expected error that did not come.
"""

import json
import os
from pathlib import Path
from typing import Any

import pytest

#: Names the file that takes one line of JSON per ended test.
VARIABLE = "MUTANTS_WITNESS"


def judges(error: BaseException) -> bool:
    """Return whether an error is a test's own judgment, and not a breakdown on the way to it.

    A time limit is none, and neither is a negative control of another test that did not find the text it
    wanted to plant a bug into.
    """
    if isinstance(error, BaseExceptionGroup):  # hypothesis found several
        return all(judges(one) for one in error.exceptions)
    said = str(error)
    if isinstance(error, AssertionError):
        return not said.startswith("planted bug:")
    return isinstance(error, pytest.fail.Exception) and not said.startswith("Timeout")


def pytest_exception_interact(call: pytest.CallInfo, report: Any) -> None:
    error, collecting = call.excinfo.value, call.when == "collect"
    lines = str(error).splitlines() or [""]
    said = lines[-1].removeprefix("E").strip() if collecting else lines[0]  # there the cause comes last
    _note(
        report.nodeid, call.when == "call" and judges(error), f"{type(error).__name__}: {said} ({call.when})"
    )


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    if report.when == "call" and report.passed:
        _note(report.nodeid, None, "passed")
    elif report.skipped:
        _note(report.nodeid, None, "skipped")


def _note(test: str, judgment: bool | None, said: str) -> None:
    # judgment: True a failed judgment, False a breakdown, None no failure.
    with Path(os.environ[VARIABLE]).open("a", encoding="utf-8") as file:
        file.write(json.dumps({"test": test, "judgment": judgment, "said": said}) + "\n")
