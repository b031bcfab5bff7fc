"""The list of planted bugs is sound and complete, and the runner tells a caught bug from all else (B12).

``python -m tests.mutants`` plants them all, which takes minutes; here only a few are really run.
"""

import ast
import re
from dataclasses import replace
from functools import cache

import pytest

from tests.house.tree import PACKAGES, ROOT
from tests.mutants import __main__ as command
from tests.mutants import runner
from tests.mutants.mutant import Mutant
from tests.mutants.planted import LISTED, NOT_YET, PLANTED
from tests.mutants.runner import BROKEN, KILLED, SURVIVED, UNSOUND, Copy, Note, Session, Verdict
from tests.mutants.witness import judges

LUCK = next(mutant for mutant in PLANTED if mutant.name == "kurtosis-taken-for-excess")


# The list.


def faults(mutant):
    """Return what is wrong with a bug: it cannot be planted, changes nothing, or nobody looks for it."""
    found, path = [], ROOT / mutant.file
    if not re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", mutant.name):
        found.append("its name is not made of words and hyphens")
    if mutant.file.partition("/")[0] not in PACKAGES or not path.is_file():
        return [*found, f"{mutant.file} is no source file that is shipped"]
    source = path.read_text(encoding="utf-8")
    try:
        planted = mutant.plant(source)
        if ast.dump(ast.parse(planted)) == code(source):
            found.append("the code is the same with it")
    except (ValueError, SyntaxError) as error:
        found.append(str(error))
    if not mutant.tests:
        found.append("no test is named")
    for test in mutant.tests:
        file, _, name = test.partition("::")
        path, function = ROOT / file, name.partition("[")[0]
        if not (file.startswith("tests/") and path.is_file()) or function not in functions(path):
            found.append(f"there is no test {test}")
    return found


@cache
def code(source):
    return ast.dump(ast.parse(source))


@cache
def functions(path):
    return {node.name for node in ast.parse(path.read_text(encoding="utf-8")).body if hasattr(node, "name")}


def gaps(planted, listed=LISTED, not_yet=NOT_YET):
    """Return where bugs, the list and what is left open do not fit together."""
    entries = {mutant.entry for mutant in planted}
    found = [f"{entry} is not planted" for entry in listed if entry not in entries | not_yet.keys()]
    found += [f"{entry} is planted and said to be missing" for entry in entries & not_yet.keys()]
    found += [f"{entry} is left open and not listed" for entry in not_yet.keys() - set(listed)]
    found += [
        f"{entry} is neither listed nor a guarantee"
        for entry in entries - set(listed)
        if not re.fullmatch(r"[BLSFXK][1-9]\d?", entry)
    ]
    names = [mutant.name for mutant in planted]
    return found + [f"{name} is there twice" for name in {name for name in names if names.count(name) > 1}]


def test_b12_every_bug_can_be_planted_and_is_looked_for():
    assert {mutant.name: faults(mutant) for mutant in PLANTED if faults(mutant)} == {}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"name": "Two words"}, "words and hyphens"),
        ({"file": "tests/conftest.py"}, "no source file"),
        ({"file": "experiments/luck.py"}, "no source file"),
        ({"before": "no such text"}, "0 times"),
        ({"before": "return"}, "times in"),
        ({"before": "(record.kurtosis - 1)", "after": "((record.kurtosis - 1))"}, "the same with it"),
        ({"after": "(record.kurtosis - ) / 4"}, "invalid syntax"),
        ({"tests": ()}, "no test is named"),
        ({"tests": ("tests/experiments/test_luck.py::test_a",)}, "there is no test"),
        ({"tests": ("tests/experiments/test_evidence.py::test_a",)}, "there is no test"),
        ({"tests": ("experiments/evidence.py::pbo",)}, "there is no test"),
    ],
)
def test_a_bug_that_cannot_be_planted_is_seen(change, said):
    found = faults(replace(LUCK, **change))
    assert len(found) == 1
    assert said in found[0]


def test_b12_the_list_of_the_guarantees_is_covered():
    assert gaps(PLANTED) == []
    assert len(set(LISTED)) == 40
    assert len(PLANTED) >= 45


def test_an_entry_that_is_left_out_is_seen():
    rest = [mutant for mutant in PLANTED if mutant.entry != "PBO ties"]
    assert gaps(rest) == ["PBO ties is not planted"]
    assert gaps(PLANTED, not_yet=NOT_YET | {"PBO ties": "no time"}) == [
        "PBO ties is planted and said to be missing"
    ]
    assert gaps(rest, not_yet=NOT_YET | {"PBO draws": "no time", "PBO ties": "no time"}) == [
        "PBO draws is left open and not listed"
    ]
    assert gaps([*PLANTED, replace(LUCK, name="other", entry="luck")]) == [
        "luck is neither listed nor a guarantee"
    ]
    assert gaps([*PLANTED, LUCK]) == ["kurtosis-taken-for-excess is there twice"]


# The runner, on real runs: negative controls of the shipped tests' negative control.

HARMLESS = replace(
    LUCK,
    name="harmless",
    before="the next even number has four times as many",
    after="two more blocks make four times as many",
)
NOT_IMPORTED = replace(LUCK, name="not-imported", before="import math\n", after="import maths\n")


@pytest.fixture(scope="module")
def verdicts(tmp_path_factory):
    """What the runner says of a bug, of a changed comment, and of a module that cannot be imported."""
    folder = tmp_path_factory.mktemp("mutants")
    found = runner.examine([LUCK, HARMLESS, NOT_IMPORTED], folder=folder)
    return {one.mutant.name: one for one in found}, folder


def test_b12_a_bug_is_killed_by_the_test_that_is_named(verdicts):
    killed = verdicts[0][LUCK.name]
    assert (killed.outcome, killed.said) == (KILLED, LUCK.tests[0])
    assert killed.seconds > 0


def test_a_harmless_change_survives(verdicts):
    assert (verdicts[0]["harmless"].outcome, verdicts[0]["harmless"].said) == (SURVIVED, "1 tests passed")


def test_a_module_that_cannot_be_imported_proves_nothing(verdicts):
    broken = verdicts[0]["not-imported"]
    assert broken.outcome == BROKEN
    assert broken.said == "CollectError: ModuleNotFoundError: No module named 'maths' (collect)"


def test_the_copy_is_the_tree_again_when_the_bugs_are_gone(verdicts):
    copied = verdicts[1] / "0" / "tree"
    for name in ("experiments/evidence.py", "setup.cfg", "configs/evolve.yaml", "tests/conftest.py"):
        assert (copied / name).read_bytes() == (ROOT / name).read_bytes()
        assert (copied / name).stat().st_mtime_ns == (ROOT / name).stat().st_mtime_ns
    assert not list(copied.rglob("__pycache__"))
    assert not (copied / "experiments" / "runs").exists()


def test_no_two_versions_of_a_file_share_a_stamp(tmp_path, monkeypatch):
    (tmp_path / "experiments").mkdir()
    source = tmp_path / "experiments" / "evidence.py"
    source.write_bytes((ROOT / "experiments" / "evidence.py").read_bytes())
    monkeypatch.setattr(runner, "ROOT", tmp_path)
    monkeypatch.setattr(runner, "everything", lambda: [source])
    copy, stamps = Copy(tmp_path / "copy"), set()
    for _ in range(3):
        with copy.planted(LUCK):
            planted = copy.root / LUCK.file
            stamps.add(int(planted.stat().st_mtime))  # byte code is known by whole seconds
            assert LUCK.after in planted.read_text()
    assert len(stamps | {int(source.stat().st_mtime)}) == 4


def test_a_bug_whose_text_has_gone_is_not_planted(tmp_path):
    found = runner.verdict(Copy(tmp_path), replace(LUCK, before="no such text"))
    assert found.outcome == BROKEN
    assert found.said == (
        "kurtosis-taken-for-excess: the text to change is 0 times in experiments/evidence.py; "
        "it must be there once"
    )


# The runner, on what pytest could have said.

PASSED = Note("a.py::test_a", None, "passed")
FAILED = Note("a.py::test_b", True, "AssertionError: 1 (call)")
STOPPED = Note("a.py::test_b", False, "NameError: x (call)")


@pytest.mark.parametrize(
    ("session", "outcome", "said"),
    [
        (Session(1, (PASSED, FAILED), ""), KILLED, "a.py::test_b"),
        (Session(0, (PASSED, PASSED), ""), SURVIVED, "2 tests passed"),
        (Session(1, (PASSED, STOPPED), ""), BROKEN, "NameError: x (call)"),
        (Session(1, (STOPPED, FAILED), ""), BROKEN, "NameError: x (call)"),
        (Session(2, (STOPPED,), ""), BROKEN, "NameError: x (call)"),
        (Session(4, (), "no such file"), BROKEN, "no such file"),
        (Session(1, (PASSED,), "1 error"), BROKEN, "1 error"),
        (Session(-11, (PASSED,), "segmentation fault"), BROKEN, "segmentation fault"),
        (Session(None, (PASSED,), "no end after 1 s"), BROKEN, "no end after 1 s"),
    ],
)
def test_only_a_failed_judgment_kills(session, outcome, said):
    assert runner.judged(session) == (outcome, said)


def raised(function):
    with pytest.raises(BaseException) as caught:  # noqa: PT011 - whatever it is
        function()
    return caught.value


def not_raised():
    with pytest.raises(ValueError, match="never"):
        pass


def test_a_judgment_is_an_assertion_or_an_error_that_did_not_come():
    assert judges(AssertionError("1"))
    assert judges(raised(not_raised))
    assert judges(ExceptionGroup("two", [AssertionError("1"), AssertionError("2")]))
    for error in (ImportError("x"), NameError("x"), TypeError("x"), ValueError("x"), ZeroDivisionError("x")):
        assert not judges(error)
        assert not judges(ExceptionGroup("two", [AssertionError("1"), error]))
    assert not judges(AssertionError("planted bug: 'x' is 0 times in the file"))
    assert not judges(raised(lambda: pytest.fail("Timeout (>300.0s) from pytest-timeout.")))


@pytest.mark.parametrize(
    ("notes", "said"),
    [
        ((PASSED,), None),
        ((PASSED, FAILED), None),
        ((Note("a.py::test_a[1]", None, "passed"), Note("a.py::test_a[2]", None, "passed")), None),
        ((), "a.py::test_a was not found"),
        ((FAILED,), "a.py::test_a was not found"),
        ((Note("a.py::test_ab", None, "passed"),), "a.py::test_a was not found"),
        ((PASSED, Note("a.py::test_a", None, "skipped")), "a.py::test_a without the bug: skipped"),
        ((Note("a.py::test_a", True, "no"),), "a.py::test_a without the bug: no"),
        ((Note("a.py::test_a[1]", True, "no"),), "a.py::test_a without the bug: no"),
    ],
)
def test_a_test_that_does_not_pass_without_the_bug_proves_nothing(monkeypatch, notes, said):
    class Sound:
        def __init__(self, folder):
            pass

        def test(self, tests, **_):
            assert tests == ["a.py::test_a"]
            return Session(1, notes, "")

    monkeypatch.setattr(runner, "Copy", Sound)
    monkeypatch.setattr(runner, "verdict", lambda copy, mutant: Verdict(mutant, KILLED, "it"))
    mutant = replace(LUCK, tests=("a.py::test_a",))
    (found,) = runner.examine([mutant])
    assert (found.outcome, found.said) == ((UNSOUND, said) if said else (KILLED, "it"))


def test_a_tree_that_cannot_be_tested_at_all_is_an_error(monkeypatch):
    class Torn:
        def __init__(self, folder):
            pass

        def test(self, tests, **_):
            return Session(4, (), "no such option")

    monkeypatch.setattr(runner, "Copy", Torn)
    with pytest.raises(RuntimeError, match=r"^the sound tree cannot be tested: no such option$"):
        list(runner.examine([LUCK]))


def test_a_run_that_does_not_end_is_ended(tmp_path, monkeypatch):
    monkeypatch.setattr(runner, "everything", lambda: [])
    copy = Copy(tmp_path)
    copy.root.mkdir()
    session = copy.test(["never.py"], seconds=0.001)
    assert (session.status, session.last) == (None, "no end after 0.001 s")


# The command.


@pytest.mark.parametrize(("outcome", "status"), [(KILLED, 0), (SURVIVED, 1), (BROKEN, 1), (UNSOUND, 1)])
def test_the_command_ends_well_only_when_every_bug_is_killed(monkeypatch, capsys, outcome, status):
    def examine(mutants, workers):
        assert (workers, len(mutants)) == (2, 2)
        return [
            Verdict(mutants[0], KILLED, "t", 1.0),
            Verdict(mutants[1], outcome, "tests/t.py::test_t", 2.0),
        ]

    monkeypatch.setattr(command, "examine", examine)
    assert command.main([PLANTED[0].name, LUCK.name, LUCK.name, "--workers", "2"]) == status
    printed = capsys.readouterr().out.splitlines()
    assert re.fullmatch(rf"{LUCK.name} +{outcome} +2\.0  t\.py::test_t", printed[2])
    assert printed[3].startswith(f"{2 - status} of 2 planted bugs killed")


def test_the_command_lists_the_bugs_and_refuses_a_name_it_does_not_know(capsys):
    assert command.main(["--list"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == len(PLANTED)
    for arguments, said in (
        (["purge-off-by-two"], "purge-off-by-one is near"),
        (["--workers", "0"], "at least 1"),
    ):
        with pytest.raises(SystemExit) as end:
            command.main(arguments)
        assert end.value.code == 2
        assert said in capsys.readouterr().err


def test_a_mutant_names_its_file_and_how_often_the_text_is_there():
    bug = Mutant("a", "B1", "a.py", "x", "y", ())
    assert bug.plant("1 + x") == "1 + y"
    with pytest.raises(
        ValueError, match=r"^a: the text to change is 2 times in a\.py; it must be there once$"
    ):
        bug.plant("x + x")
