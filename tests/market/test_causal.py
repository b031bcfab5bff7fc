"""The laws of flow hold for chains and windows, and the checks would see it if they did not."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from market.causal import Chain, Windowed, transform
from market.table import DataError, Table, concat
from tests.conformance.laws import POISONS, check_altered_future, check_chunk_law, check_inputs_untouched

HOUR = 3_600 * 10**9


def table(n: int, columns: int = 2, seed: int = 0) -> Table:
    values = np.random.default_rng(seed).normal(size=(n, columns))
    return Table(np.arange(n) * HOUR, values, tuple("abcdef"[:columns]))


def means(lookback: int):
    """Mean of the last rows, each window summed afresh."""

    def function(values: np.ndarray) -> np.ndarray:
        padded = np.concatenate([np.full((lookback - 1, values.shape[1]), np.nan), values])
        windows = np.lib.stride_tricks.sliding_window_view(padded, lookback, axis=0)
        return np.array([[column.sum() for column in row] for row in windows]) / lookback

    return function


def mean_stage(lookback: int, names: tuple[str, ...] = ("a", "b")) -> Windowed:
    return Windowed(means(lookback), lookback, names)


class Total:
    """A recursion: the sum of everything so far."""

    warmup = 2

    def __init__(self):
        self._sum = 0.0

    def fresh(self):
        return type(self)()

    def update(self, new):
        rows = np.empty((len(new), 1))
        for t, value in enumerate(new.values[:, 0]):
            self._sum += value
            rows[t] = self._sum
        return Table(new.time, rows, ("total",))


class Forgetful(Total):
    """Broken: begins anew with every chunk."""

    def update(self, new):
        self._sum = 0.0
        return super().update(new)


class Centered:
    """Broken: knows the mean of a chunk before it is over."""

    warmup = 0

    def fresh(self):
        return type(self)()

    def update(self, new):
        return Table(new.time, new.values - new.values.mean(axis=0), new.names)


class Dropping:
    """Broken: fewer rows out than in."""

    warmup = 0

    def fresh(self):
        return type(self)()

    def update(self, new):
        return new[1:]


CUTS = st.lists(st.integers(0, 40), max_size=6)


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 40), st.integers(1, 12), CUTS)
def test_a_window_stage_keeps_the_chunk_law(n, lookback, cuts):
    check_chunk_law(mean_stage(lookback), table(n), cuts)


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 40), st.integers(1, 8), st.integers(1, 8), CUTS)
def test_a_chain_keeps_the_chunk_law(n, first, second, cuts):
    chain = Chain([mean_stage(first), mean_stage(second), Total()])
    check_chunk_law(chain, table(n), cuts)


@pytest.mark.parametrize("poison", POISONS.values(), ids=POISONS)
def test_a_window_does_not_see_what_comes_after_it(poison):
    check_altered_future(mean_stage(5), table(40), 20, poison)
    check_altered_future(Chain([mean_stage(5), Total()]), table(40), 20, poison)


@pytest.mark.parametrize("broken", [Forgetful(), Chain([mean_stage(3), Centered()]), Centered()])
def test_a_broken_stage_is_seen_by_the_chunk_law(broken):
    with pytest.raises(AssertionError, match="rows differ"):
        check_chunk_law(broken, table(40), [7, 19])


def test_a_window_that_is_too_short_for_its_function_is_seen():
    # The function reads 5 rows but declares 3: the kept tail is too short, so cuts show.
    with pytest.raises(AssertionError, match="rows differ"):
        check_chunk_law(Windowed(means(5), 3, ("a", "b")), table(40), [20])


def test_a_running_sum_is_no_window():
    # The trap of rolling sums: bits of rows long past remain, so the length of the tail shows.
    def function(values):
        total = np.cumsum(values, axis=0)
        total[5:] -= total[:-5].copy()
        return total / 5

    with pytest.raises(AssertionError, match="rows differ"):
        check_chunk_law(Windowed(function, 5, ("a", "b")), table(40), [20, 21, 22])


def test_a_window_gives_the_numbers_of_its_rows():
    made = transform(mean_stage(3), table(10))
    assert made.names == ("a", "b")
    assert np.isnan(made.values[:2]).all()
    for t in range(2, 10):
        assert made.values[t] == pytest.approx(table(10).values[t - 2 : t + 1].mean(axis=0), rel=1e-12)


def test_a_window_of_one_row_has_no_memory_and_no_warm_up():
    stage = Windowed(lambda values: values * 2.0, 1, ("a", "b"))
    assert stage.warmup == 0
    assert np.array_equal(transform(stage, table(5)).values, table(5).values * 2.0)


def test_no_rows_give_no_rows_and_change_nothing():
    stage = mean_stage(3).fresh()
    rows = table(10)
    empty = stage.update(rows[:0])
    assert len(empty) == 0
    assert empty.names == ("a", "b")
    parts = [stage.update(rows[:4]), stage.update(rows[4:4]), stage.update(rows[4:])]
    assert np.array_equal(concat(parts).values, transform(mean_stage(3), rows).values, equal_nan=True)


def test_a_fresh_stage_remembers_nothing_and_leaves_the_other_alone():
    stage = Chain([mean_stage(3), Total()])
    stage.update(table(5))
    rows = table(20, seed=1)
    assert np.array_equal(
        stage.fresh().update(rows).values,
        transform(Chain([mean_stage(3), Total()]), rows).values,
        equal_nan=True,
    )
    check_inputs_untouched(stage, rows)


def test_transform_does_not_advance_the_stage_it_is_given():
    stage = Total().fresh()
    transform(stage, table(5))
    assert stage.update(table(1)).values[0, 0] == table(1).values[0, 0]


def test_the_warm_up_of_a_chain_is_the_sum_of_its_stages():
    assert Chain([mean_stage(4), Total()]).warmup == 3 + 2


def test_a_chain_names_what_is_wrong_with_it():
    stage = mean_stage(3)
    with pytest.raises(ValueError, match=r"^a chain needs at least one stage$"):
        Chain([])
    with pytest.raises(ValueError, match=r"a stage appears twice in the chain; .* stage\.fresh\(\)$"):
        Chain([stage, stage])
    with pytest.raises(DataError, match=r"^tables have 5 and 4 rows; inputs of one stage share one clock$"):
        Chain([Dropping()]).update(table(5))


def test_a_window_names_what_is_wrong_with_it():
    with pytest.raises(ValueError, match=r"^lookback is 0; it must be at least 1 row$"):
        Windowed(means(1), 0, ("a",))
    one_column = Windowed(lambda values: values[:, :1], 2, ("a", "b"))
    with pytest.raises(DataError, match=r"^window function returned shape \(5, 1\); it must return one row"):
        one_column.update(table(5))
    short = Windowed(lambda values: values[1:], 2, ("a", "b"))
    with pytest.raises(DataError, match=r"returned shape \(4, 2\)"):
        short.update(table(5))


def test_rows_that_go_back_in_time_are_refused():
    stage = mean_stage(3).fresh()
    stage.update(table(5))
    with pytest.raises(DataError, match="times must strictly increase"):
        stage.update(table(3))


def test_rows_that_go_back_in_time_are_refused_without_a_tail_too():
    stage = mean_stage(1).fresh()
    stage.update(table(5))
    with pytest.raises(DataError, match="times must strictly increase"):
        stage.update(table(3))


def test_a_failed_update_leaves_the_memory_as_it_was():
    calls = []

    def function(values):
        calls.append(len(values))
        if len(calls) == 2:
            raise OSError("once")
        return means(3)(values)

    stage = Windowed(function, 3, ("a", "b"))
    rows = table(10)
    first = stage.update(rows[:4])
    with pytest.raises(OSError, match="once"):
        stage.update(rows[4:])
    again = concat([first, stage.update(rows[4:])])
    assert np.array_equal(again.values, transform(mean_stage(3), rows).values, equal_nan=True)
