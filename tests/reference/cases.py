"""Cases made by hand, and how an engine's answer is laid beside the twin's."""

import numpy as np

from tests.reference.account import (
    CURVE,
    OFF,
    Bounds,
    Outcome,
    Scenario,
    Terms,
    Trade,
    Venue,
    terms_of,
    tiers_of,
)


def case_of(bars, targets, *, fee=0.0, slippage=0.0, stop=OFF, take=OFF, close_last=True, **options):
    """Return a scenario of a few bars; options are entries of the terms, the bounds, the venue, and tiers.

    ``stop`` and ``take`` are distances of the targets; ``account_stop`` and ``account_take`` are bounds.
    ``most`` is the venue's largest quantity, ``cap`` the largest exposure on both sides.
    """
    prices = np.array(bars, dtype=float).reshape(-1, 4)
    rows = [(target, stop, take) if np.isscalar(target) else target for target in targets]
    cap = options.pop("cap", 1.0)
    bounds = {"largest": cap, "smallest": -cap}
    bounds |= {name: options.pop(f"account_{name}", OFF) for name in ("stop", "take")}
    venue = {"largest": options.pop("most", OFF)}
    tiers = tiers_of(*zip(*options.pop("tiers", [(0.0, 0.0)]), strict=True))
    terms = {"fee": fee, "rate": fee + slippage}
    for name, value in options.items():
        fields = next(f for f in (Terms, Bounds, Venue) if name in f._fields)
        {Terms: terms, Bounds: bounds, Venue: venue}[fields][name] = value
    return Scenario(
        targets=np.array(rows, dtype=float).reshape(len(prices), 3),
        prices=prices,
        terms=terms_of(prices, **terms),
        bounds=np.array(Bounds(**bounds)),
        venue=np.array(Venue(**venue)),
        tiers=tiers,
        close_last=close_last,
    )


def run(case, simulate_targets):
    """Return the outcome of a scenario in an engine."""
    n = len(case.targets)
    curve, trades = np.empty((n, len(CURVE))), np.empty((2 * n + 1, len(Trade._fields)))
    count = simulate_targets(*case, curve, trades)
    return Outcome(
        curve, [Trade(int(r[0]), int(r[1]), *r[2:12].tolist(), int(r[12])) for r in trades[:count]]
    )


def disagreement(case, one, two):
    """Return what differs between two outcomes of a scenario, or None."""
    capital = Venue(*case.venue).capital
    if one.curve.shape != two.curve.shape or len(one.trades) != len(two.trades):
        return f"{len(one.trades)} and {len(two.trades)} trades"
    for a, b in zip(one.trades, two.trades, strict=True):
        if a[:4] != b[:4] or a.reason != b.reason:
            return f"{a} and {b}"
        sizes = [0.0, capital / 100.0, *[capital] * 4, 1.0, 1.0]  # price, quantity, money, fractions
        if not (
            np.abs(np.subtract(a[4:12], b[4:12])) <= 1e-9 * np.abs(b[4:12]) + 1e-12 * np.array(sizes)
        ).all():
            return f"{a} and {b}"
    size = np.array([capital, 1.0, 1.0, 1.0, capital, capital, capital, capital / 100.0])
    error = np.abs(one.curve - two.curve) / np.maximum(size, np.abs(two.curve))
    if not (error <= 1e-9).all():
        t, k = np.argwhere(~(error <= 1e-9))[0]
        return f"{CURVE[k]} of bar {t}: {one.curve[t, k]!r} and {two.curve[t, k]!r}"
    return None


def flat(price):
    """Return a bar that never moves."""
    return (price, price, price, price)


def ends(done):
    """Return entry, exit, exit price and reason of each trade."""
    return [(t.entry, t.exit, t.exit_price, t.reason) for t in done.trades]
