"""Bars whose moves are in another order, and a search that is run on them again."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from compute.seeds import stream
from compute.workers import ThreadMapper
from ensemble.permutation import PermutationTest, earned_sharpe, permuted
from market.bars import OHLCV, Bars
from market.table import DataError

HOUR = 3_600_000_000_000


def made(n, seed=0, phi=0.0, drift=0.0, scale=0.01, gaps=0.002):
    """Hourly bars whose closes follow each other by an autoregression, with gaps, volume and a mark price."""
    rng = np.random.default_rng(seed)
    moves = scale * rng.normal(size=n)
    for t in range(1, n):
        moves[t] += phi * moves[t - 1]
    gap = gaps * rng.normal(size=n)
    opens = 100 * np.exp(np.cumsum(moves + drift + gap) - moves - drift)
    closes = opens * np.exp(moves + drift)
    high = np.maximum(opens, closes) * np.exp(0.003 * rng.random(n))
    low = np.minimum(opens, closes) * np.exp(-0.003 * rng.random(n))
    values = np.column_stack([opens, high, low, closes, rng.random(n), high * 1.001, rng.normal(size=n)])
    return Bars(HOUR * np.arange(1, n + 1), values, (*OHLCV, "mark_high", "funding"), "TEST", HOUR)


def moves(bars):
    """Log gaps (n - 1,), and per bar the log moves from its open with what travels with them (n, k)."""
    values = bars.values
    gaps = np.log(values[1:, 0] / values[:-1, 3])
    inside = np.log(values[:, [1, 2, 3, 5]] / values[:, :1])
    return gaps, np.column_stack([inside, values[:, [4, 6]]])


def by_volume(inside):
    return inside[np.argsort(inside[:, -2])]


# --- what is kept, and what is not -----------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(n=st.integers(3, 60), seed=st.integers(0, 2**32), data=st.data())
def test_the_moves_are_the_same_numbers_in_another_order(n, seed, data):
    bars = made(n, seed)
    first = data.draw(st.integers(0, n - 3))
    last = data.draw(st.integers(first + 3, n))
    new = permuted(bars, np.random.default_rng(seed), slice(first, last))
    for rows in (slice(0, first), slice(last, n)):
        assert new.values[rows].tobytes() == bars.values[rows].tobytes()
    np.testing.assert_array_equal(new.time, bars.time)
    before, after = bars[first:last], new[first:last]
    assert after.values[0, 0] == before.values[0, 0]
    assert after.values[-1, 3] == pytest.approx(before.values[-1, 3], rel=1e-12)
    (gaps, inside), (new_gaps, new_inside) = moves(before), moves(after)
    np.testing.assert_allclose(np.sort(new_gaps), np.sort(gaps), rtol=0, atol=1e-13)
    np.testing.assert_allclose(by_volume(new_inside), by_volume(inside), rtol=0, atol=1e-13)
    # Volume and funding are not computed again: their bits are kept.
    np.testing.assert_array_equal(by_volume(new_inside)[:, -2:], by_volume(inside)[:, -2:])


def test_a_shuffle_that_forgets_the_gaps_or_draws_with_replacement_is_seen():
    bars, rng = made(200), np.random.default_rng(1)
    gaps, inside = moves(bars)
    new_gaps, new_inside = moves(permuted(bars, rng))
    drawn = inside[rng.integers(200, size=200)]
    assert not np.allclose(np.sort(gaps), np.sort(np.zeros(199)), atol=1e-13)
    assert not np.allclose(by_volume(drawn), by_volume(inside), atol=1e-13)
    # Gaps and bars go their own ways: no gap keeps the bar after it.
    came_from = np.array([int(np.argmin(abs(inside[:, -2] - v))) for v in new_inside[:, -2]])
    gap_from = np.array([int(np.argmin(abs(gaps - g))) for g in new_gaps]) + 1
    assert np.mean(came_from[1:] == gap_from) < 0.05
    # And neither stays where it was.
    assert np.mean(came_from == np.arange(200)) < 0.05
    assert np.mean(gap_from == np.arange(1, 200)) < 0.05


def test_every_order_is_as_likely_as_every_other():
    bars = made(4)
    counts = {}
    for seed in range(2_400):
        new = permuted(bars, np.random.default_rng(seed))
        order = tuple(np.argsort(new.values[:, 4]).tolist())
        counts[order] = counts.get(order, 0) + 1
    assert len(counts) == 24
    # Chi-squared of 23 degrees of freedom: 49.7 is its 99.9 % quantile.
    assert sum((count - 100) ** 2 / 100 for count in counts.values()) < 49.7


def test_the_same_generator_gives_the_same_bytes_and_another_one_others():
    bars = made(50)
    texts = [permuted(bars, stream(seed, "permutation", 3)).fingerprint() for seed in (1, 1, 2)]
    assert texts[0] == texts[1] != texts[2]


@pytest.mark.parametrize("rows", [slice(0, 2), slice(5, 5), slice(8, 2), slice(0, 10, 2)])
def test_rows_that_cannot_be_shuffled_are_refused(rows):
    with pytest.raises(DataError, match=r"bars to shuffle; a permutation needs at least 3"):
        permuted(made(10), np.random.default_rng(0), rows)
    with pytest.raises(DataError, match="bars to shuffle"):
        PermutationTest(made(10), np.zeros, seed=1, n=5, rows=rows)


# --- the test --------------------------------------------------------------------------------------------


def best_follower(bars):
    """A small search: of five spans and both signs, what follows or fades the last moves best."""
    change = np.diff(np.log(bars.column("close")), prepend=np.log(bars.values[0, 3]))
    total = np.concatenate([[0.0], np.cumsum(change)])
    found = []
    for span in (1, 2, 3, 5, 8):
        past = np.zeros(len(bars))
        past[span:] = np.sign(total[span:-1] - total[: -span - 1])
        found += [past * change, -past * change]
    return max(found, key=earned_sharpe)


def test_an_edge_in_the_order_of_bars_is_found_and_the_shuffled_bars_have_none():
    test = PermutationTest(made(800, phi=0.3), best_follower, seed=1, n=39)
    found = test.run()
    assert found.p == 1 / 40
    assert found.percentile == 1.0
    assert found.observed > 2 * max(found.found)
    assert all(one > 0 for one in found.found)  # the best of ten finds something in any noise


def test_drift_alone_is_no_discovery():
    def held(bars):
        return np.diff(np.log(bars.column("close")))

    def long_after_a_rise(bars):
        change = held(bars)
        return np.append(0.0, (change[:-1] > 0) * change[1:])

    bars = made(800, drift=0.002)
    holding = PermutationTest(bars, held, seed=1, n=19).run()
    # Only the first close moves, by the first bar's shape: the drift is the same on every permutation.
    assert holding.observed > 0.1
    assert holding.p > 0.05
    assert PermutationTest(bars, long_after_a_rise, seed=1, n=19).run().p > 0.05


def test_s3_a_search_in_noise_passes_as_rarely_as_it_says():
    p = np.array(
        [PermutationTest(made(120, seed), best_follower, seed=seed, n=9).run().p for seed in range(200)]
    )
    for level in (0.1, 0.5):
        assert np.mean(p <= level) == pytest.approx(level, abs=3.3 * (level * (1 - level) / 200) ** 0.5)

    def without_the_search(seed):
        # What is tested wrongly: the rule that was best on the bars, kept for their permutations.
        bars = made(120, seed)
        observed = earned_sharpe(best_follower(bars))
        kept = [earned_sharpe(one_rule(permuted(bars, stream(seed, "x", i)))) for i in range(9)]
        return (sum(one >= observed for one in kept) + 1) / 10

    def one_rule(bars):
        change = np.diff(np.log(bars.column("close")))
        return np.sign(change[:-1]) * change[1:]

    assert np.mean([without_the_search(seed) <= 0.1 for seed in range(100)]) > 0.25


def test_what_trades_nothing_finds_nothing():
    found = PermutationTest(made(60), lambda bars: np.zeros(len(bars)), seed=1, n=9).run()
    assert (found.observed, found.p) == (0.0, 1.0)  # equals count as as good: no p of 1/10


def test_a_test_that_is_interrupted_goes_on_to_the_same_numbers():
    bars = made(150, phi=0.2)
    whole = PermutationTest(bars, best_follower, seed=3, n=12).run()
    for stop in (0, 1, 5, 12):
        first = PermutationTest(bars, best_follower, seed=3, n=12)
        for _ in range(stop):
            first.step()
        second = PermutationTest(bars, best_follower, seed=3, n=12)
        second.restore(first.state())
        assert len(second.found) == max(stop - 1, 0)
        assert second.run() == whole
    longer = PermutationTest(bars, best_follower, seed=3, n=15).run()
    assert longer.found[:12] == whole.found


def test_workers_change_no_number():
    bars = made(150, phi=0.2)
    with ThreadMapper(3) as workers:
        spread = PermutationTest(bars, best_follower, seed=3, n=7).run(workers)
    assert spread == PermutationTest(bars, best_follower, seed=3, n=7).run()
    assert len(spread.found) == 7


def test_what_is_known_of_the_bars_themselves_is_not_asked_again():
    bars, asked = made(60), []

    def pipeline(given):
        asked.append(given.fingerprint())
        return best_follower(given)

    known = PermutationTest(bars, pipeline, seed=1, n=3, observed=best_follower(bars)).run()
    assert bars.fingerprint() not in asked
    assert known == PermutationTest(bars, best_follower, seed=1, n=3).run()


def test_the_state_of_another_test_is_refused():
    state = PermutationTest(made(60), best_follower, seed=1, n=3).state()
    for other in (
        PermutationTest(made(60, seed=1), best_follower, seed=1, n=3),
        PermutationTest(made(60), best_follower, seed=2, n=3),
        PermutationTest(made(60), best_follower, seed=1, n=3, rows=slice(10, 60)),
    ):
        with pytest.raises(
            DataError, match="of other bars, other rows or another seed; start the test again"
        ):
            other.restore(state)


def test_what_cannot_be_ranked_is_an_error():
    with pytest.raises(ValueError, match="the statistic is NaN"):
        PermutationTest(made(9), lambda b: np.ones(3), seed=1, n=2, statistic=lambda r: np.nan).run()
    with pytest.raises(ValueError, match="n is 0; a test needs at least 1 permutation"):
        PermutationTest(made(9), best_follower, seed=1, n=0)
    with pytest.raises(RuntimeError, match="has not been run"):
        PermutationTest(made(9), best_follower, seed=1, n=2).result()
