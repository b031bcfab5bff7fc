"""How every command ends: 0 done, 2 with one sentence when the user can mend it, 130 when interrupted.

A module with a command writes one typer function and ``main = command(function)``; typer and the standard
library are all it imports at the top, so that ``--help`` answers at once.
"""

import errno
import os
import sys
from collections.abc import Callable, Sequence
from typing import Any

import typer

USER_ERROR = 2
INTERRUPTED = 130
# What the machine lacks rather than what the program does wrong; anything else keeps its traceback.
_MACHINE = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO, errno.EMFILE}


def command(function: Callable[..., Any] | typer.Typer) -> Callable[[Sequence[str] | None], None]:
    """Return the ``main()`` of a command line.

    Parameters
    ----------
    function : callable or typer.Typer
        A typer function (its parameters are the options, its docstring the help), or an app of several.

    Returns
    -------
    callable
        ``main(arguments=None)`` runs the command and leaves through ``SystemExit``. An ``InputError`` and a
        wrong option become ``error: <sentence>`` on standard error and status 2; programming errors keep
        their plain traceback.
    """
    app = function if isinstance(function, typer.Typer) else _app(function)

    def main(arguments: Sequence[str] | None = None) -> None:
        sys.exit(_status(app, sys.argv[1:] if arguments is None else list(arguments)))

    main.__doc__ = function.__doc__ if not isinstance(function, typer.Typer) else None
    return main


def _app(function: Callable[..., Any]) -> typer.Typer:
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)
    app.command()(function)
    return app


def _status(app: typer.Typer, arguments: list[str]) -> int:
    try:
        result = typer.main.get_command(app)(arguments, prog_name=_program(), standalone_mode=False)
        sys.stdout.flush()
        if result != INTERRUPTED:
            return result if isinstance(result, int) else 0
    except (KeyboardInterrupt, typer.Abort):
        pass  # newer typers return 130 instead
    except BrokenPipeError:
        # The reader, for example `head`, has seen enough; the interpreter must not complain at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:
        sentence, status = _sentence(error)
        if sentence is None:
            raise
        print(f"error: {' '.join(sentence.split())}", file=sys.stderr)
        return status
    print("interrupted", file=sys.stderr)
    return INTERRUPTED


def _sentence(error: Exception) -> tuple[str | None, int]:
    # Wrong options. Some typers bring their own click, some use the installed one: the classes differ.
    if hasattr(error, "format_message"):
        return error.format_message(), USER_ERROR
    from configs.load import InputError  # imported late: a correct command pays nothing for its errors

    if isinstance(error, InputError):
        return str(error), USER_ERROR
    if isinstance(error, OSError) and error.errno in _MACHINE:
        where = f"{error.filename}: " if error.filename else ""
        return f"{where}{error.strerror}", 1
    return None, 1


def _program() -> str:
    spec = getattr(sys.modules.get("__main__"), "__spec__", None)
    name = getattr(spec, "name", None) or os.path.basename(sys.argv[0])
    return f"python -m {name.removesuffix('.__main__')}" if spec else name
