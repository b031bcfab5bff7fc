import logging
from dataclasses import fields, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from regimes.em import FITTERS, MarkovModel, fit_em, fit_hmmlearn, prepared
from regimes.em_kernels import follow_level
from tests.reference import em as naive

FOREVER = -np.inf  # a tolerance that never ends EM


def case(seed, k=3, f=3, n=300, student=False, diagonal=False):
    """Rows of k sticky states, a start that is off, and lengths with sequences of one and two rows."""
    random = np.random.default_rng(seed)
    state = np.repeat(random.integers(0, k, n // 10 + 1), 10)[:n]
    center = 2.0 * random.normal(size=(k, f))
    rows = center[state] + random.normal(size=(n, f)) * random.uniform(0.5, 2.0, size=f)
    if student:
        rows[::17] *= 4.0
    spread = random.normal(size=(k, f, f))
    covariance = spread @ spread.transpose(0, 2, 1) / f + np.eye(f)
    model = MarkovModel(
        random.dirichlet(5 * np.ones(k)),
        0.8 * np.eye(k) + 0.2 * random.dirichlet(np.ones(k), size=k),
        center + 0.5 * random.normal(size=(k, f)),
        covariance * np.eye(f) if diagonal else covariance,
        random.uniform(3.0, 12.0, size=k) if student else np.full(k, np.inf),
    )
    lengths = np.array([1, n // 3, 2, n - n // 3 - 3])
    return rows, lengths, model


def one_step(rows, lengths, model, diagonal=False, **settings):
    return fit_em(rows, lengths, model, diagonal=diagonal, n_iterations=1, **settings)


def same(found, expected, tolerance):
    for field, one in zip(fields(MarkovModel), expected, strict=True):
        np.testing.assert_allclose(
            getattr(found, field.name), one, rtol=tolerance, atol=tolerance, err_msg=field.name
        )


@pytest.mark.parametrize("diagonal", [False, True])
@pytest.mark.parametrize(("k", "f", "n"), [(2, 1, 300), (3, 3, 523), (5, 4, 777)])
def test_an_iteration_with_gaussian_states_is_that_of_the_textbook(k, f, n, diagonal):
    rows, lengths, model = case(k, k, f, n, diagonal=diagonal)
    prior = 1 + 3 * np.eye(k)
    likelihood, *expected = naive.step(rows, lengths, model, diagonal, prior)
    fit = one_step(rows, lengths, model, diagonal, transition_prior=prior)
    assert fit.history[0] == pytest.approx(likelihood, rel=1e-12)
    same(fit.model, expected, 1e-10)
    # Controls: one long sequence, or no prior, is another model.
    assert one_step(rows, [n], model, diagonal).history[0] != pytest.approx(likelihood, rel=1e-6)
    assert np.abs(one_step(rows, lengths, model, diagonal).model.transition - expected[1]).max() > 1e-3


@pytest.mark.parametrize("diagonal", [False, True])
def test_an_iteration_with_student_states_is_that_of_the_textbook(diagonal):
    rows, lengths, model = case(9, student=True, diagonal=diagonal)
    likelihood, *expected = naive.step(rows, lengths, model, diagonal, 1.0)
    fit = one_step(rows, lengths, model, diagonal)
    assert fit.history[0] == pytest.approx(likelihood, rel=1e-12)
    same(replace(fit.model, degrees=expected[-1]), expected, 1e-10)
    np.testing.assert_allclose(fit.model.degrees, expected[-1], rtol=5e-3)  # the twin's grid
    gaussian = one_step(rows, lengths, replace(model, degrees=np.full(3, np.inf)), diagonal)
    assert np.abs(gaussian.model.mean - fit.model.mean).max() > 0.01  # control


def test_gaussian_and_student_states_may_stand_side_by_side():
    rows, lengths, model = case(4, student=True)
    mixed = replace(model, degrees=np.array([4.0, np.inf, 9.0]))
    likelihood, *expected = naive.step(rows, lengths, mixed, False, 1.0)
    fit = one_step(rows, lengths, mixed)
    assert fit.history[0] == pytest.approx(likelihood, rel=1e-12)
    same(replace(fit.model, degrees=expected[-1]), expected, 1e-10)
    assert fit.model.degrees[1] == np.inf


@pytest.mark.parametrize("diagonal", [False, True])
def test_twenty_iterations_end_where_those_of_hmmlearn_end(diagonal):
    rows, lengths, model = case(1, n=2000, diagonal=diagonal)
    settings = {
        "diagonal": diagonal,
        "transition_prior": 1 + 50 * (0.9 * np.eye(3) + 0.05),
        "n_iterations": 20,
        "tolerance": FOREVER,
    }
    ours, theirs = fit_em(rows, lengths, model, **settings), fit_hmmlearn(rows, lengths, model, **settings)
    assert len(ours.history) == len(theirs.history) == 20
    np.testing.assert_allclose(ours.history, theirs.history, rtol=0, atol=1e-6)
    same(ours.model, [getattr(theirs.model, field.name) for field in fields(MarkovModel)], 1e-8)
    assert np.ptp(ours.history) > 10  # control: it was a way to go


@pytest.mark.parametrize("fitter", sorted(FITTERS))
def test_both_fitters_end_when_little_is_gained_and_leave_logging_as_it_was(fitter):
    rows, lengths, model = case(2)
    level = logging.getLogger("hmmlearn.base").level
    fit = FITTERS[fitter](rows, lengths, model, diagonal=False, tolerance=0.5)
    assert 2 < len(fit.history) < 100
    gains = np.diff(fit.history)
    assert (gains[:-1] >= 0.5).all()
    assert gains[-1] < 0.5
    assert logging.getLogger("hmmlearn.base").level == level


def test_the_likelihood_never_falls_and_the_tails_are_found():
    random = np.random.default_rng(3)
    n, degrees = 12_000, np.array([4.0, 30.0])
    state = np.repeat(random.integers(0, 2, n // 50), 50)
    chi = random.chisquare(degrees[state]) / degrees[state]
    center = np.array([[0.0, 0.0], [3.0, -1.0]])
    rows = center[state] + random.normal(size=(n, 2)) / np.sqrt(chi)[:, None]
    transition = np.array([[0.9, 0.1], [0.1, 0.9]])
    start = MarkovModel(
        np.full(2, 0.5), transition, center + 0.5, np.tile(np.eye(2), (2, 1, 1)), np.full(2, 8.0)
    )
    fit = fit_em(rows, [n], start, diagonal=False, tolerance=1e-2)
    assert np.diff(fit.history).min() > -1e-6
    assert 3.5 < fit.model.degrees[0] < 4.6
    assert fit.model.degrees[1] > 15
    np.testing.assert_allclose(fit.model.mean, center, atol=0.06)
    np.testing.assert_allclose(fit.model.covariance, [np.eye(2)] * 2, atol=0.1)
    # Control: with Gaussian states the same rows are less likely, and the heavy state is too wide.
    gaussian = fit_em(rows, [n], replace(start, degrees=np.full(2, np.inf)), diagonal=False)
    assert gaussian.history[-1] < fit.history[-1] - 200
    assert gaussian.model.covariance[0].trace() > 2.6


@given(st.integers(0, 10_000), st.lists(st.integers(1, 40), min_size=1, max_size=12))
@settings(max_examples=30, deadline=None)
def test_the_order_of_the_sequences_does_not_matter(seed, lengths):
    rows, _, model = case(seed, n=sum(lengths))
    parts = np.split(rows, np.cumsum(lengths)[:-1])
    forth = one_step(rows, lengths, model)
    back = one_step(np.concatenate(parts[::-1]), lengths[::-1], model)
    assert back.history[0] == pytest.approx(forth.history[0], rel=1e-11)
    same(back.model, [getattr(forth.model, field.name) for field in fields(MarkovModel)], 1e-8)


def test_rows_that_no_state_expects_leave_everything_finite():
    rows, lengths, model = case(5, student=True)
    rows[50:53] = [[1e6, -1e6, 1e6], [1e9, 0, 0], [-1e9, 1e9, 0]]
    for degrees in (model.degrees, np.full(3, np.inf)):
        model = replace(model, degrees=degrees)
        fit = one_step(rows, lengths, model)
        log_density = naive.log_densities(rows, model.mean, model.covariance, degrees)
        assert np.isfinite(log_density).all()
        likelihood, *_ = naive.step(rows, lengths, model, False, 1.0)
        assert fit.history[0] == pytest.approx(likelihood, rel=1e-9)
        assert all(
            np.isfinite(getattr(fit.model, name)).all() for name in ("transition", "mean", "covariance")
        )


def test_the_input_is_left_alone_and_a_second_run_gives_the_same_bytes():
    rows, lengths, model = case(6, student=True)
    before = [array.tobytes() for array in (rows, lengths, *vars(model).values())]
    one, two = (fit_em(rows, lengths, model, diagonal=False, n_iterations=5) for _ in range(2))
    assert [array.tobytes() for array in (rows, lengths, *vars(model).values())] == before
    assert one.history == two.history
    for name, value in vars(one.model).items():
        assert value.tobytes() == getattr(two.model, name).tobytes()


def test_what_cannot_be_fitted_is_refused():
    rows, lengths, model = case(7)
    for wrong in ([len(rows) - 1], [0, len(rows)], [-1, len(rows) + 1]):
        with pytest.raises(ValueError, match="lengths are positive and sum to the rows"):
            one_step(rows, wrong, model)
    with pytest.raises(ValueError, match="not positive definite"):
        one_step(rows, lengths, replace(model, covariance=-model.covariance))
    away = replace(model, mean=model.mean + np.array([0, 0, 1e8])[:, None])
    with pytest.raises(ValueError, match="a state is left with"):
        fit_em(rows, lengths, away, diagonal=True, n_iterations=20)
    gap = rows.copy()
    gap[5, 1] = np.nan
    with pytest.raises(ValueError, match="log likelihood is nan in iteration 1"):
        one_step(gap, lengths, model)
    with pytest.raises(ValueError, match="hmmlearn knows no Student-t states"):
        fit_hmmlearn(rows, lengths, case(7, student=True)[2], diagonal=False)


@pytest.mark.parametrize("student", [False, True])
def test_a_level_is_followed_as_by_the_naive_twin(student):
    rows, _, model = case(8, n=200, student=student)
    rows[[0, 40, 41]] = np.nan
    rows[42, 1] = np.nan
    loading, belief = np.array([0.5, 2.0, 0.0]), np.array([0.2, 0.5, 0.3])
    whitening, constant = prepared(model)

    def followed(rows, memory, evidence=0.6, gain=0.05, fade=0.01):
        out, journal = np.empty((len(rows), 3)), np.empty((len(rows), 2))
        shape = model.mean, whitening, constant, model.degrees, loading, model.transition
        follow_level(rows, *shape, evidence, gain, fade, memory, out, journal)
        return out, journal

    memory = np.append(belief, 0.0)
    out, journal = followed(rows, memory)
    densities, levels, predictive = naive.followed(rows, model, loading, 0.6, 0.05, 0.01, belief)
    np.testing.assert_allclose(out, densities, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(journal, np.column_stack([levels, predictive]), rtol=1e-9, atol=1e-9)
    assert np.abs(levels).max() > 0.05  # control: the level does move
    # Cut anywhere, it goes on with the same bits.
    again = np.append(belief, 0.0)
    parts = [followed(rows[a:b], again) for a, b in ((0, 1), (1, 1), (1, 41), (41, 43), (43, 200))]
    for i, whole in enumerate((out, journal)):
        assert np.concatenate([part[i] for part in parts]).tobytes() == whole.tobytes()
    assert again.tobytes() == memory.tobytes()
    # Without a gain nothing is followed.
    still = followed(rows, np.append(belief, 0.0), gain=0.0, fade=0.0)[1]
    assert (still[:, 0] == 0).all()
