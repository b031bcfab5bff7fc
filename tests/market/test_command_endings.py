import errno
import subprocess
import sys
from typing import Annotated

import pytest
import typer

from configs.command import command
from configs.load import ConfigError, InputError


def ended(function, *arguments):
    with pytest.raises(SystemExit) as end:
        command(function)(list(arguments))
    return end.value.code


def test_a_command_that_ends_well_has_status_0(capsys):
    def greet(name: Annotated[str, typer.Option()] = "you") -> None:
        """Greet."""
        print(f"hello {name}")

    assert ended(greet, "--name", "me") == 0
    assert capsys.readouterr() == ("hello me\n", "")


@pytest.mark.parametrize("error", [InputError, ConfigError])
def test_what_the_user_can_mend_is_one_sentence_and_status_2(capsys, error):
    def spoil() -> None:
        raise error("configs/x.yaml: a is 3;\nit must be 4")

    assert ended(spoil) == 2
    assert capsys.readouterr() == ("", "error: configs/x.yaml: a is 3; it must be 4\n")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--nmae", "x"], "No such option: --nmae"),
        (["--count", "many"], "--count"),
        (["surplus"], "unexpected extra argument"),
    ],
)
def test_wrong_options_are_one_sentence_and_status_2(capsys, arguments, says):
    def greet(
        name: Annotated[str, typer.Option()] = "you", count: Annotated[int, typer.Option()] = 1
    ) -> None:
        raise AssertionError("the options are wrong")

    assert ended(greet, *arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error: ")
    assert says in err
    assert err.count("\n") == 1


def test_an_interrupt_ends_with_status_130(capsys):
    def wait() -> None:
        raise KeyboardInterrupt

    assert ended(wait) == 130
    assert capsys.readouterr().err == "interrupted\n"


def test_a_full_disk_is_a_sentence_and_a_bug_keeps_its_traceback(capsys):
    def full() -> None:
        raise OSError(errno.ENOSPC, "No space left on device", "run/config.yaml")

    def bug() -> None:
        raise ZeroDivisionError("a bug")

    assert ended(full) == 1
    assert capsys.readouterr().err == "error: run/config.yaml: No space left on device\n"
    with pytest.raises(ZeroDivisionError):
        command(bug)([])


def test_exit_codes_and_apps_of_several_commands(capsys):
    app = typer.Typer()

    @app.command()
    def first() -> None:
        raise typer.Exit(3)

    @app.command()
    def second() -> None:
        print("second")

    assert ended(app, "first") == 3
    assert ended(app, "second") == 0
    assert capsys.readouterr().out == "second\n"


def test_the_help_of_a_command_is_its_docstring(capsys):
    def greet() -> None:
        """Greet a person."""

    assert ended(greet, "--help") == 0
    assert "Greet a person." in capsys.readouterr().out


def test_a_reader_that_stops_early_is_no_error():
    code = (
        "from configs.command import command\n"
        "def count() -> None:\n"
        "    for i in range(200_000): print(i)\n"
        "command(count)([])\n"
    )
    shell = f'set -o pipefail; "{sys.executable}" -c "$0" | head -1'
    done = subprocess.run(["bash", "-c", shell, code], capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("0\n", "")
