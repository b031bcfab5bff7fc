"""Shows that every planted bug is caught: ``python -m tests.mutants [name ...] [--workers 2]``.

Exit status 1 when a bug survives, when it only breaks the code, or when its tests fail without it.
"""

import argparse
import difflib
import sys
import time
from collections.abc import Sequence

from tests.mutants.planted import NOT_YET, PLANTED
from tests.mutants.runner import KILLED, examine


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.mutants", description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", help="bugs to plant; all of them by default")
    parser.add_argument("--workers", type=int, default=1, help="copies of the tree that work side by side")
    parser.add_argument("--list", action="store_true", help="print the bugs and plant none")
    options = parser.parse_args(arguments)
    known = {mutant.name: mutant for mutant in PLANTED}
    for name in options.names:
        if name not in known:
            close = difflib.get_close_matches(name, known, 1)
            parser.error(f"there is no bug {name!r}; {f'{close[0]} is near' if close else 'see --list'}")
    if options.workers < 1:
        parser.error(f"--workers is {options.workers}; it must be at least 1")
    chosen = [known[name] for name in dict.fromkeys(options.names)] or list(PLANTED)
    width = max(len(mutant.name) for mutant in chosen)
    if options.list:
        for mutant in chosen:
            print(f"{mutant.name:<{width}}  {mutant.file:<28}  {mutant.entry}")
        return 0
    began, alive = time.perf_counter(), 0
    print(f"{'planted bug':<{width}}  {'outcome':<8}  seconds  by")
    for verdict in examine(chosen, options.workers):
        alive += verdict.outcome != KILLED
        said = verdict.said.removeprefix("tests/")
        print(
            f"{verdict.mutant.name:<{width}}  {verdict.outcome:<8}  {verdict.seconds:7.1f}  {said}",
            flush=True,
        )
    seconds = time.perf_counter() - began
    print(f"{len(chosen) - alive} of {len(chosen)} planted bugs killed, {seconds:.0f} s")
    if not options.names:
        for entry, reason in NOT_YET.items():
            print(f"not yet: {entry} ({reason})")
    return 1 if alive else 0


if __name__ == "__main__":
    sys.exit(main())
