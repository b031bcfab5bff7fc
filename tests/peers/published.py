"""Published cases of stops, targets and gaps, on bars of our own and in our own words.

Each names where its expectation is published: the table of freqtrade's ``test_backtest_detail`` (tc0 to
tc59), LEAN's tests of its equity fill model, issues of others. Where a system would fill otherwise, its fills
stand beside ours, with whom they flatter.
"""

import math
from typing import NamedTuple

QUIET = (100, 100.8, 99.2, 100)  # a bar that touches nothing


class Fill(NamedTuple):
    """A round trip of a case: rows, prices, why it ended."""

    entry: int
    exit: int
    entry_price: float
    exit_price: float
    reason: str


class Case(NamedTuple):
    """Bars, what is wanted after each of them, and the fills; long, and mirrored short.

    ``theirs`` are the fills of the system that published the case where they differ from ours.
    """

    source: str
    bars: tuple
    wanted: tuple
    ours: tuple
    stop: float = math.inf
    take: float = math.inf
    trail: float | None = None
    theirs: tuple | None = None
    flatters: str = ""  # whom the difference flatters on these bars: them or us


def fill(leave, price, reason, entry=1, entry_price=100.0):
    return (Fill(entry, leave, entry_price, price, reason),)


# Where everybody agrees. The decision falls at the close of row 0 and fills at the open of row 1, at 100.
AGREED = {
    "an exit decided at a close fills at the next open": Case(
        "freqtrade tc0",
        (QUIET, QUIET, (100, 101, 99, 100.5), (100.5, 101, 99, 100.6), (100.7, 101, 100, 101)),
        (1, 1, 1, 0, 0),
        fill(4, 100.7, "signal"),
        stop=0.02,
    ),
    "a stop inside the bar fills at the stop, however low the bar goes": Case(
        "freqtrade tc1; LEAN stop market sell and buy",
        (QUIET, QUIET, (99.7, 100.2, 92, 92), QUIET),
        (1, 1, 0, 0),
        fill(2, 98.0, "stop"),
        stop=0.02,
    ),
    "a low that stays above the stop does nothing": Case(
        "freqtrade tc2",
        (QUIET, QUIET, (99.7, 100.2, 98.1, 99), (99, 100, 96, 99.2), QUIET),
        (1, 1, 1, 0, 0),
        fill(3, 98.0, "stop"),
        stop=0.02,
    ),
    "after a stop a new decision opens a new trade with a stop of its own": Case(
        "freqtrade tc3",
        (QUIET, QUIET, (99.5, 100, 96, 99), QUIET, QUIET, (99.8, 100, 80, 80), QUIET),
        (1, 1, 0, 1, 1, 0, 0),
        fill(2, 98.0, "stop") + fill(5, 98.0, "stop", entry=4),
        stop=0.02,
    ),
    "stop and target in one bar that closes far beyond the target: the stop": Case(
        "freqtrade tc4; backtesting.py discussion 242",
        (QUIET, QUIET, (99.7, 115, 97, 115), QUIET),
        (1, 1, 0, 0),
        fill(2, 98.0, "stop"),
        stop=0.02,
        take=0.06,
    ),
    "stop and target in one bar that closes between them: the stop": Case(
        "freqtrade tc6",
        (QUIET, QUIET, (99.7, 106, 97, 101), QUIET),
        (1, 1, 0, 0),
        fill(2, 98.0, "stop"),
        stop=0.02,
        take=0.05,
    ),
    "a target inside the bar fills at the target, however high the bar goes": Case(
        "freqtrade tc5; LEAN limit inside the bar",
        (QUIET, QUIET, (99.7, 100.5, 99.4, 99.8), (99.5, 120, 99.5, 120), QUIET),
        (1, 1, 1, 0, 0),
        fill(3, 103.0, "take"),
        stop=0.01,
        take=0.03,
    ),
    "a bar that holds the target and not the stop": Case(
        "freqtrade tc7",
        (QUIET, QUIET, (99.7, 106, 99, 101), QUIET),
        (1, 1, 0, 0),
        fill(2, 103.0, "take"),
        stop=0.02,
        take=0.03,
    ),
    "a target on the bar of the entry": Case(
        "freqtrade tc13",
        (QUIET, (100, 102, 99, 102), QUIET),
        (1, 0, 0),
        fill(1, 101.0, "take"),
        stop=0.1,
        take=0.01,
    ),
    "a stop on the bar of the entry": Case(
        "freqtrade tc14, tc36 to tc38",
        (QUIET, (100, 102, 92, 102), QUIET),
        (1, 0, 0),
        fill(1, 95.0, "stop"),
        stop=0.05,
        take=0.1,
    ),
    "a target on the bar of the entry, and a stop on that of the next": Case(
        "freqtrade tc15",
        (QUIET, (100, 102, 98, 102), (100, 105, 93, 102), QUIET),
        (1, 1, 0, 0),
        fill(1, 101.0, "take") + fill(2, 95.0, "stop", entry=2),
        stop=0.05,
        take=0.01,
    ),
    "a stop inside the bar whose close says exit: the stop was first": Case(
        "freqtrade tc25",
        (QUIET, QUIET, QUIET, (100.2, 100.4, 97, 100.2), (100.2, 100.4, 99, 100)),
        (1, 1, 1, 0, 0),
        fill(3, 98.0, "stop"),
        stop=0.02,
    ),
    "a stop inside the bar that opens with the exit: the exit was first": Case(
        "freqtrade tc26, tc28",
        (QUIET, QUIET, QUIET, (100.2, 100.4, 99, 100.2), (100.3, 100.4, 97, 100)),
        (1, 1, 1, 0, 0),
        fill(4, 100.3, "signal"),
        stop=0.02,
    ),
    "a target inside the bar whose close says exit: the target was first": Case(
        "freqtrade tc29",
        (QUIET, QUIET, QUIET, (100.2, 106, 99, 100.2), (100.2, 100.4, 97, 100)),
        (1, 1, 1, 0, 0),
        fill(3, 105.0, "take"),
        stop=0.1,
        take=0.05,
    ),
    "a target inside the bar that opens with the exit: the exit was first": Case(
        "freqtrade tc30",
        (QUIET, QUIET, QUIET, (100.2, 101, 99, 100.2), (100.2, 106, 97, 100)),
        (1, 1, 1, 0, 0),
        fill(4, 100.2, "signal"),
        stop=0.1,
        take=0.05,
    ),
    "a bar that lies wholly beyond the stop fills at its open": Case(
        "freqtrade tc31, tc32; LEAN stop market with an unfavourable gap; Nautilus; backtesting.py PR 1373",
        (QUIET, QUIET, (94, 95, 90, 92), QUIET),
        (1, 1, 0, 0),
        fill(2, 94.0, "stop"),
        stop=0.05,
    ),
    "a stop that is exactly the low is hit": Case(
        "LEAN stop market: attained or penetrated",
        (QUIET, QUIET, (99, 100, 98, 99), QUIET),
        (1, 1, 0, 0),
        fill(2, 98.0, "stop"),
        stop=0.02,
    ),
    "what happened before the order fills nothing": Case(
        "LEAN: no fill with data from before the order was sent",
        ((100, 120, 80, 100), QUIET, QUIET, (101, 101.5, 100, 101)),
        (1, 1, 0, 0),
        fill(3, 101.0, "signal"),
        stop=0.05,
        take=0.05,
    ),
    "an opposite decision closes and opens at one open": Case(
        "freqtrade tc54, tc55",
        (QUIET, QUIET, QUIET, (101, 102, 100, 101), QUIET, QUIET),
        (1, 1, -1, -1, 0, 0),
        fill(3, 101.0, "signal") + fill(5, 100.0, "signal", entry=3, entry_price=101.0),
        stop=0.1,
    ),
}

# Where a system fills otherwise, or did until the issue named was closed.
DISPUTED = {
    "a bar that opens beyond the stop and comes back fills at its open": Case(
        "freqtrade: the stop, unless the whole candle lies beyond it. LEAN, Nautilus and others: as here",
        (QUIET, QUIET, (94, 99, 93, 98), QUIET),
        (1, 1, 0, 0),
        fill(2, 94.0, "stop"),
        stop=0.05,
        theirs=fill(2, 95.0, "stop"),
        flatters="them",
    ),
    "a bar that opens beyond the target fills at the target": Case(
        "LEAN (7052), backtesting.py, vectorbt: the open. Nautilus and TorchTrade (PR 311): as here",
        (QUIET, QUIET, (110, 112, 107, 111), QUIET),
        (1, 1, 0, 0),
        fill(2, 104.0, "take"),
        take=0.04,
        theirs=fill(2, 110.0, "take"),
        flatters="them",
    ),
    "a bar wholly beyond the target fills at the target, not at its low": Case(
        "freqtrade: never below the candle, so at its low",
        (QUIET, QUIET, (110, 112, 107, 111), QUIET),
        (1, 1, 0, 0),
        fill(2, 104.0, "take"),
        take=0.04,
        theirs=fill(2, 107.0, "take"),
        flatters="them",
    ),
    "a target that is exactly the high is hit": Case(
        "LEAN: a limit is last in its queue and must be passed. backtesting.py and vectorbt: as here",
        (QUIET, QUIET, (100, 104, 99, 100), (99, 100, 98, 99)),
        (1, 1, 0, 0),
        fill(2, 104.0, "take"),
        take=0.04,
        theirs=fill(3, 99.0, "signal"),
        flatters="us",
    ),
    "what is open at the end is closed at the last close": Case(
        "freqtrade tc45, tc46 and backtesting.py: the last open",
        (QUIET, QUIET, (100, 100.5, 98, 98.5)),
        (1, 1, 1),
        fill(2, 98.5, "last bar"),
        theirs=fill(2, 100.0, "last bar"),
        flatters="them",
    ),
    "a stop is watched inside the bar and not at its close": Case(
        "freqtrade 985 and 1003, before they were fixed: the close below the stop",
        (QUIET, QUIET, (99.5, 100, 97, 99), (98.5, 99, 91, 92), QUIET),
        (1, 1, 0, 0, 0),
        fill(2, 98.0, "stop"),
        stop=0.02,
        theirs=fill(3, 92.0, "stop"),
        flatters="us",
    ),
    "a stop that is passed on the way to a far close fills at the stop": Case(
        "LEAN 4545, first scenario, before it was fixed: the close",
        (QUIET, QUIET, (99, 100, 88, 88), QUIET),
        (1, 1, 0, 0),
        fill(2, 95.0, "stop"),
        stop=0.05,
        theirs=fill(2, 88.0, "stop"),
        flatters="us",
    ),
    "a bar that gaps over the stop is not sold at the stop": Case(
        "LEAN 4545, second scenario; backtesting.py 521; TorchTrade 280, before they were fixed: the stop",
        (QUIET, QUIET, (90, 91, 88, 90), QUIET),
        (1, 1, 0, 0),
        fill(2, 90.0, "stop"),
        stop=0.02,
        theirs=fill(2, 98.0, "stop"),
        flatters="them",
    ),
    "a crossover is not filled at the close that made it": Case(
        "richkuo/go-trader 302, before it was fixed; by default vectorbt, and Nautilus without latency",
        ((96, 98, 95, 97), QUIET, (101, 104, 101, 103), (105, 106, 104, 105)),
        (1, 0, 0, 0),
        fill(2, 101.0, "signal"),
        theirs=fill(1, 100.0, "signal", entry=0, entry_price=97.0),
        flatters="them",
    ),
}

# Trailing stops: not mirrored, for a fraction of a price has no mirror image. The level that a bar's extreme
# makes works from the next bar on.
TRAILING = {
    "the high of a bar raises the stop of the next": Case(
        "freqtrade tc8",
        (QUIET, (100, 101, 99, 100), (100, 105, 95, 97), (97, 101, 93, 95), (95, 99, 87, 95)),
        (1, 1, 1, 0, 0),
        fill(3, 105 * 0.9, "stop"),
        trail=0.1,
    ),
    "a bar below the raised stop fills at its open": Case(
        "freqtrade tc31",
        (QUIET, (100, 101, 99, 101), (101, 105, 101, 102), (97, 101, 93, 95), QUIET),
        (1, 1, 1, 0, 0),
        fill(3, 97.0, "stop"),
        trail=0.03,
    ),
    "a short whose market opens at twice the price pays twice the price": Case(
        "Nautilus 2397, before it was fixed: the stop",
        (QUIET, QUIET, (200, 210, 190, 200), QUIET),
        (-1, -1, 0, 0),
        fill(2, 200.0, "stop"),
        trail=0.05,
        theirs=fill(2, 99.2 * 1.05, "stop"),
        flatters="them",
    ),
    "the stop of a bar is not raised by its own high": Case(
        "freqtrade tc33",
        (QUIET, QUIET, (98, 105, 90, 102), QUIET),
        (1, 1, 0, 0),
        fill(2, 100.8 * 0.97, "stop"),
        trail=0.03,
    ),
    "on the bar of the entry the stop trails the fill": Case(
        "freqtrade tc34",
        (QUIET, (100, 110, 98, 98), QUIET),
        (1, 0, 0),
        fill(1, 99.0, "stop"),
        trail=0.01,
    ),
    "a high and a low of one bar: only the next bar knows the high": Case(
        "freqtrade tc9, tc12 (the high comes first); richkuo/go-trader 715",
        (QUIET, QUIET, QUIET, (100, 104, 91, 97), (92, 99, 87, 95)),
        (1, 1, 1, 1, 0),
        fill(4, 92.0, "stop"),
        trail=0.1,
        theirs=fill(3, 104 * 0.9, "stop"),
        flatters="them",
    ),
}

BRACKETS = AGREED | DISPUTED
EVERY = BRACKETS | TRAILING


def mirrored(case):
    """Return the case upside down around 100, where every bracket of a case is measured from."""

    def flip(fills):
        return tuple(
            f._replace(entry_price=200 - f.entry_price, exit_price=200 - f.exit_price) for f in fills
        )

    return case._replace(
        bars=tuple((200 - o, 200 - low, 200 - high, 200 - c) for o, high, low, c in case.bars),
        wanted=tuple(-w for w in case.wanted),
        ours=flip(case.ours),
        theirs=None if case.theirs is None else flip(case.theirs),
    )
