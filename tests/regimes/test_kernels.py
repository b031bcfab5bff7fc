import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from regimes.kernels import dwell, forward_filter, gaussian_log_density, hysteresis, observe, whiten
from tests.reference import regimes as naive


def chain(seed, k=3, n=40, spread=3.0):
    random = np.random.default_rng(seed)
    transition = random.dirichlet(np.ones(k), size=k)
    return spread * random.normal(size=(n, k)), transition, random.dirichlet(np.ones(k))


def filtered(log_likelihood, transition, belief):
    out = np.empty(log_likelihood.shape)
    forward_filter(log_likelihood, transition, belief.copy(), out)
    return out


@pytest.mark.parametrize("k", [2, 3, 5])
@pytest.mark.parametrize("spread", [0.1, 3.0, 50.0])
def test_forward_filter_equals_its_naive_twin(k, spread):
    case = chain(k, k, 200, spread)
    np.testing.assert_allclose(filtered(*case), naive.forward_filter(*case), rtol=1e-10, atol=1e-14)


@pytest.mark.parametrize("seed", range(5))
def test_forward_filter_equals_the_sum_over_all_state_paths(seed):
    case = chain(seed, 3, 6)
    every_path = naive.enumerated(*case, last=lambda t: t)
    np.testing.assert_allclose(filtered(*case), every_path, rtol=1e-10)
    # Control: the same sum with hindsight is another number.
    assert np.abs(naive.enumerated(*case, last=lambda t: 5) - every_path).max() > 0.01


def test_forward_filter_by_hand():
    # A sticky chain predicts (0.74, 0.26) from (0.9, 0.1); the likelihood ratio is 3.
    out = filtered(np.log([[3.0, 1.0]]), np.array([[0.8, 0.2], [0.2, 0.8]]), np.array([0.9, 0.1]))
    np.testing.assert_allclose(out, [[2.22 / 2.48, 0.26 / 2.48]], rtol=1e-14)


@given(st.integers(0, 10_000), st.lists(st.integers(0, 60), max_size=6))
@settings(max_examples=50, deadline=None)
def test_forward_filter_does_not_care_where_it_is_cut(seed, cuts):
    log_likelihood, transition, belief = chain(seed, 3, 60)
    whole = filtered(log_likelihood, transition, belief)
    memory, parts = belief.copy(), []
    for rows in np.split(log_likelihood, sorted(cuts)):
        out = np.empty(rows.shape)
        forward_filter(np.ascontiguousarray(rows), transition, memory, out)
        parts.append(out)
    assert np.concatenate(parts).tobytes() == whole.tobytes()
    assert memory.tobytes() == whole[-1].tobytes()


@given(st.integers(0, 10_000), st.floats(0, 1e5))
@settings(max_examples=50, deadline=None)
def test_extreme_likelihoods_neither_underflow_nor_overflow(seed, size):
    log_likelihood, transition, belief = chain(seed, 3, 50)
    log_likelihood = size * log_likelihood + np.random.default_rng(seed).choice([-1e5, 0, 1e5], (50, 1))
    out = filtered(log_likelihood, np.maximum(transition, 1e-6), belief)
    assert (out >= 0).all()
    np.testing.assert_allclose(out.sum(axis=1), 1.0, atol=1e-12)


def test_a_state_given_up_for_good_comes_back_when_the_evidence_turns():
    log_likelihood = np.array([[0.0, -1e5]] * 50 + [[-1e5, 0.0]] * 2)
    out = filtered(log_likelihood, np.array([[1 - 1e-6, 1e-6], [1e-6, 1 - 1e-6]]), np.array([0.5, 0.5]))
    np.testing.assert_allclose(out[[49, 51]], [[1, 0], [0, 1]], atol=1e-12)
    # Control: products of plain likelihoods lose both states.
    with np.errstate(invalid="ignore"):
        plain = np.exp(log_likelihood).prod(axis=0) * 0.5
    assert plain.sum() == 0.0


def test_equal_likelihoods_only_carry_the_belief_forward():
    _, transition, belief = chain(1)
    out = filtered(np.full((3, 3), -7.0), transition, belief)
    np.testing.assert_allclose(out[2], belief @ transition @ transition @ transition, rtol=1e-12)


@pytest.mark.parametrize("f", [1, 2, 5])
def test_gaussian_densities_equal_the_textbook_formula(f):
    random = np.random.default_rng(f)
    root = random.normal(size=(3, f, f))
    covariance = root @ root.transpose(0, 2, 1) + 0.1 * np.eye(f)
    mean, x = random.normal(size=(3, f)), 3 * random.normal(size=(20, f))
    whitening, constant, out = np.empty((3, f, f)), np.empty(3), np.empty((20, 3))
    assert whiten(covariance, whitening, constant)
    gaussian_log_density(x, mean, whitening, constant, out)
    for j in range(3):
        away = x - mean[j]
        distance = np.einsum("tf,fg,tg->t", away, np.linalg.inv(covariance[j]), away)
        log_det = np.linalg.slogdet(2 * np.pi * covariance[j])[1]
        np.testing.assert_allclose(out[:, j], -0.5 * (log_det + distance), rtol=1e-9)


def test_a_row_with_an_unknown_value_says_nothing_about_the_state():
    out = np.empty((2, 2))
    whitening, constant = np.empty((2, 2, 2)), np.empty(2)
    assert whiten(np.array([np.eye(2), 2 * np.eye(2)]), whitening, constant)
    gaussian_log_density(np.array([[0.0, np.nan], [0.0, 0.0]]), np.zeros((2, 2)), whitening, constant, out)
    assert (out[0] == 0).all()
    assert out[1, 0] > out[1, 1]


@pytest.mark.parametrize(
    "matrix", [[[1.0, 2.0], [2.0, 1.0]], [[0.0, 0.0], [0.0, 1.0]], [[np.nan, 0.0], [0.0, 1.0]]]
)
def test_a_covariance_that_is_not_positive_definite_is_noticed(matrix):
    assert not whiten(np.array([matrix]), np.empty((1, 2, 2)), np.empty(1))


@given(st.integers(0, 10_000), st.integers(0, 12), st.lists(st.integers(0, 50), max_size=5))
@settings(max_examples=50, deadline=None)
def test_observations_equal_their_naive_twin_however_they_are_cut(seed, window, cuts):
    random = np.random.default_rng(seed)
    values = np.exp(random.normal(size=(50, 3)))
    values[random.random((50, 3)) < 0.03] = np.nan
    values[random.random((50, 3)) < 0.03] = 0.0
    location, scale, base = random.normal(size=3), np.exp(random.normal(size=3)), random.normal(size=2)
    ring, memory = np.tile(base, (window, 1)), np.append(base * window, 0.0)
    parts = []
    for rows in np.split(values, sorted(cuts)):
        out = np.empty(rows.shape)
        observe(np.ascontiguousarray(rows), location, scale, 1e-7, 5.0, ring, memory, out)
        parts.append(out)
    twin = naive.observe(values, location, scale, 1e-7, 5.0, base, window, 2)
    np.testing.assert_allclose(np.concatenate(parts), twin, rtol=1e-9, atol=1e-9)
    ring, memory, whole = np.tile(base, (window, 1)), np.append(base * window, 0.0), np.empty((50, 3))
    observe(values, location, scale, 1e-7, 5.0, ring, memory, whole)
    assert np.concatenate(parts).tobytes() == whole.tobytes()


def test_the_running_mean_of_a_level_stays_exact_over_many_rows():
    n, window = 200_000, 100
    values = np.exp(10 * np.random.default_rng(0).normal(size=(n, 1)))
    ring, memory, out = np.zeros((window, 1)), np.zeros(2), np.empty((n, 1))
    observe(values, np.zeros(1), np.ones(1), 1e-300, np.inf, ring, memory, out)
    expected = np.log(values[-1, 0]) - np.log(values[-1 - window : -1, 0]).mean()
    assert abs(out[-1, 0] - expected) < 1e-12


@given(st.integers(0, 10_000), st.lists(st.integers(0, 60), max_size=5))
@settings(max_examples=50, deadline=None)
def test_the_two_switches_equal_their_naive_twin_however_they_are_cut(seed, cuts):
    random = np.random.default_rng(seed)
    seen = random.normal(size=(60, 2))
    seen[random.random(60) < 0.1, random.integers(2)] = np.nan
    enter, leave = np.array([0.5, 0.4]), np.array([0.1, -0.3])
    memory, parts = np.full(5, np.nan), []
    for rows in np.split(seen, sorted(cuts)):
        out = np.empty((len(rows), 3))
        hysteresis(np.ascontiguousarray(rows), enter, leave, 2.0, memory, out)
        parts.append(out)
    np.testing.assert_allclose(np.concatenate(parts), naive.hysteresis(seen, enter, leave, 2.0), rtol=1e-12)


def test_a_switch_turns_on_high_and_off_low():
    seen = np.column_stack([[0.0, 0.4, 0.6, 0.4, 0.2, 0.0, 0.4], np.full(7, -9.0)])
    out = np.empty((7, 3))
    hysteresis(seen, np.array([0.5, 0.0]), np.array([0.1, 0.0]), 3.0, np.full(5, np.nan), out)
    assert out.argmax(axis=1).tolist() == [0, 0, 2, 2, 2, 0, 0]


@given(
    st.integers(0, 10_000), st.integers(1, 9), st.floats(0.34, 0.95), st.lists(st.integers(0, 80), max_size=5)
)
@settings(max_examples=60, deadline=None)
def test_the_path_equals_its_naive_twin_however_it_is_cut(seed, min_dwell, threshold, cuts):
    random = np.random.default_rng(seed)
    rows = random.dirichlet(np.full(3, 0.4), size=80)
    rows[: random.integers(5)] = np.nan
    rows[random.random(80) < 0.05] = np.nan
    label, confidence = naive.dwell(rows, threshold, min_dwell)
    memory, parts = np.array([-1.0, 0.0]), []
    for part in np.split(rows, sorted(cuts)):
        out = np.empty((len(part), 2))
        dwell(np.ascontiguousarray(part), threshold, min_dwell, memory, out)
        parts.append(out)
    np.testing.assert_array_equal(np.concatenate(parts), np.column_stack([label, confidence]))
