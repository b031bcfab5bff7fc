"""Steering: a residual moves the tuned controls inside their ranges, and none leaves them as they are."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from conductor.steering import MARGIN, Steering
from ga.controls import CONTROL_NAMES, CONTROL_RANGES, RUGGED, SMOOTH, GAControls, places_of, values_at

LOW = np.array([limits.low for limits in CONTROL_RANGES.values()])
HIGH = np.array([limits.high for limits in CONTROL_RANGES.values()])
NONE = np.full(12, np.nan)
places = arrays.arrays(np.float64, 12, elements=st.floats(MARGIN, 1.0 - MARGIN))
residuals = arrays.arrays(np.float32, 12, elements=st.floats(-50, 50, width=32))


@given(places)
def test_a_network_that_says_nothing_leaves_the_tuned_controls_as_they_are_to_the_bit(static):
    steering = Steering(tuple(static))
    tuned = steering.controls.to_array()
    first = steering.steered(np.zeros(12), NONE)
    np.testing.assert_array_equal(first, tuned)
    # The second generation reads its controls back from natural units.
    np.testing.assert_array_equal(steering.steered(np.zeros(12), first), tuned)


@given(places, residuals, places, st.floats(0.05, 1.0))
def test_controls_stay_in_their_ranges_and_move_by_no_more_than_the_rate(static, residual, before, rate):
    steering = Steering(tuple(static), rate)
    controls = values_at(before)
    chosen = steering.steered(residual, controls)
    assert ((chosen >= LOW) & (chosen <= HIGH)).all()
    assert (np.abs(places_of(chosen) - places_of(controls)) <= rate + 1e-9).all()


@given(places, residuals)
def test_each_control_moves_to_the_side_of_its_residual_and_no_other_moves(static, residual):
    steering = Steering(tuple(static))
    for j in range(12):
        alone = np.zeros(12)
        alone[j] = residual[j]
        moved = places_of(steering.steered(alone, NONE)) - np.array(steering.static)
        others = np.delete(moved, j)
        np.testing.assert_allclose(others, 0.0, atol=1e-9)
        if abs(residual[j]) > 1e-3:
            assert moved[j] * residual[j] > 0.0


def test_a_batch_is_steered_as_each_of_its_runs_alone():
    rng = np.random.default_rng(1)
    steering = Steering.around(SMOOTH)
    residual, controls = rng.normal(size=(5, 12)), values_at(rng.random((5, 12)))
    controls[2] = np.nan
    together = steering.steered(residual, controls)
    alone = np.array([steering.steered(one, before) for one, before in zip(residual, controls, strict=True)])
    np.testing.assert_array_equal(together, alone)


def test_residuals_that_are_no_numbers_count_as_nothing_and_infinite_ones_go_to_the_bounds():
    steering = Steering.around(GAControls(), rate=1.0)
    np.testing.assert_array_equal(steering.steered(np.full(12, np.nan), NONE), steering.controls.to_array())
    np.testing.assert_allclose(steering.steered(np.full(12, np.inf), NONE), HIGH, rtol=1e-9)
    np.testing.assert_allclose(steering.steered(np.full(12, -np.inf), NONE), LOW, atol=1e-9)


def test_controls_on_a_bound_are_moved_inside_so_that_a_residual_can_move_them():
    steering = Steering.around(RUGGED)
    assert min(steering.static) >= MARGIN
    assert max(steering.static) <= 1.0 - MARGIN
    assert steering.steered(np.ones(12), NONE)[CONTROL_NAMES.index("immigrant_fraction")] > 0.0


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Steering((0.5,) * 11), "static has 11 places"),
        (lambda: Steering((0.0,) + (0.5,) * 11), "place of mutation_rate is 0.0"),
        (lambda: Steering((0.5,) * 12, rate=0.0), "rate of steering is 0.0"),
    ],
)
def test_what_cannot_be_steered_is_refused_in_one_sentence(make, message):
    with pytest.raises(ValueError, match=message):
        make()
