"""Published Markov-switching results, reproduced by the recursions the detectors run on.

The data, the parameters and what Stata and E-views found with them come with statsmodels' own tests. Between
statsmodels and us, at the same parameters, nothing but rounding may differ. The published figures were
computed before their parameters were rounded for print: Stata's reach 1e-6 all the same, E-views' 1e-5, and
that is also what statsmodels itself is held to.
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from regimes.chain import chain_of_states
from regimes.hindsight import backward_smoother
from regimes.kernels import forward_filter
from regimes.range_kernels import expectation
from tests.reference import regimes as naive
from tests.reference.hamilton import HiddenChain, by_latest, hidden_chain, read

AUTOREGRESSION, REGRESSION = "test_markov_autoregression", "test_markov_regression"
#: Class in statsmodels' tests, its module, and what it is.
CASES = {
    "TestHamiltonAR4": AUTOREGRESSION,  # Hamilton (1989): growth of GNP, mean switching, E-views
    "TestHamiltonAR2Switch": AUTOREGRESSION,  # the same series, autoregression switching too, Stata
    "TestHamiltonAR1Switch": AUTOREGRESSION,  # E-views
    "TestFedFundsConst": REGRESSION,  # from here on Stata; two levels of the federal funds rate
    "TestFedFundsConstL1": REGRESSION,
    "TestFedFundsConstL1Exog": REGRESSION,  # a Taylor rule
    "TestFedFundsConstL1Exog3": REGRESSION,  # in three regimes
    "TestAreturnsConstL1Variance": REGRESSION,  # absolute returns of the S&P 500, variance switching
    "TestMumpspcNoconstL1Variance": REGRESSION,  # cases of mumps in New York, variance switching
}
#: Table of filtered (f), smoothed (sm) and predicted (p) probabilities, columns' prefix, blank rows in front.
STATA = {
    "TestHamiltonAR2Switch": ("results_predict_rgnp.csv", "switchar2", 3),
    "TestFedFundsConst": ("results_predict_fedfunds.csv", "const", 0),
}
#: Name of the filtered and smoothed probabilities, and the regime they are of.
EVIEWS = {
    "TestHamiltonAR4": ("hamilton_ar4", 1),
    "TestHamiltonAR1Switch": ("hamilton_ar1_switch", 0),
}
PROMISED = 1e-6
ROUNDING = 1e-9


class Case(NamedTuple):
    """One published example: statsmodels' test of it, its module, and the model written out by us."""

    published: type
    module: object
    n_regimes: int
    regime_transition: np.ndarray
    chain: HiddenChain


class Answer(NamedTuple):
    """Probabilities of the regimes, (n, k) each, and the log likelihood; states as the kernels wrote them."""

    filtered: np.ndarray
    predicted: np.ndarray
    smoothed: np.ndarray
    log_likelihood: float
    states: np.ndarray


def case_of(name: str) -> Case:
    pytest.importorskip("statsmodels", reason="statsmodels is not installed: the published results are in it")
    place = f"statsmodels.tsa.regime_switching.tests.{CASES[name]}"
    module = pytest.importorskip(place, reason="this build of statsmodels comes without its tests")
    published = getattr(module, name)
    published.setup_class()
    model = published.model
    order = getattr(model, "order", 0)
    y, x = (model.orig_endog, model.orig_exog) if order else (model.endog, model.exog)
    law = read(
        published.true["params"],
        model.k_regimes,
        x.shape[1],
        order,
        model.switching_variance,
        model.switching_ar if order else (),
    )
    return Case(published, module, model.k_regimes, law.transition, hidden_chain(law, y, x))


@pytest.fixture(scope="module", autouse=True)
def marks_of_statsmodels(pytestconfig):
    # Its tests carry a mark of their own, and an unknown mark is an error here.
    pytestconfig.addinivalue_line("markers", "smoke: statsmodels' own, on tests that only call something")


@pytest.fixture(scope="module", params=CASES)
def case(request) -> Case:
    return case_of(request.param)


@pytest.fixture(scope="module")
def gnp() -> Case:
    return case_of("TestHamiltonAR4")


def answer(case: Case, chain: HiddenChain | None = None) -> Answer:
    """What our recursions say of a case, or of a chain in place of the one written out."""
    chain = chain or case.chain
    filtered, smoothed = np.empty((2, *chain.log_density.shape))
    forward_filter(chain.log_density, chain.transition, chain.start.copy(), filtered)
    backward_smoother(filtered, chain.transition, smoothed)
    predicted = np.vstack([chain.start, filtered[:-1]]) @ chain.transition
    likelihood = np.log((predicted * np.exp(chain.log_density)).sum(axis=1)).sum()
    rows = [by_latest(one, chain.states, case.n_regimes) for one in (filtered, predicted, smoothed)]
    return Answer(*rows, float(likelihood), filtered)


def by_statsmodels(case: Case) -> Answer:
    result = case.published.result
    predicted = result.predicted_joint_probabilities
    while predicted.ndim > 2:
        predicted = predicted.sum(axis=1)
    filtered, smoothed = (
        np.asarray(one)
        for one in (result.filtered_marginal_probabilities, result.smoothed_marginal_probabilities)
    )
    return Answer(filtered, predicted.T, smoothed, float(result.llf), np.empty(0))


def distance(one: np.ndarray, other: np.ndarray) -> float:
    assert one.shape == other.shape
    return float(np.abs(one - other).max())


def test_filtered_and_predicted_probabilities_are_those_of_statsmodels(case):
    ours, theirs = answer(case), by_statsmodels(case)
    assert distance(ours.filtered, theirs.filtered) < ROUNDING
    assert distance(ours.predicted, theirs.predicted) < ROUNDING
    assert np.ptp(theirs.filtered, axis=0).min() > 0.9  # a case in which the regimes do switch


def test_smoothed_probabilities_are_those_of_the_smoother_of_kim(case):
    ours, theirs = answer(case), by_statsmodels(case)
    assert distance(ours.smoothed, theirs.smoothed) < ROUNDING
    assert distance(ours.filtered, theirs.smoothed) > 0.05  # control: the filter is another thing


def test_the_log_likelihood_is_the_published_one(case):
    ours, published = answer(case).log_likelihood, case.published
    assert ours == pytest.approx(published.result.llf, abs=1e-8)
    np.testing.assert_allclose(ours, published.true["llf"], rtol=published.rtol, atol=published.atol)


@pytest.mark.parametrize("name", STATA)
def test_probabilities_published_by_stata_are_met_within_a_millionth(name):
    case = case_of(name)
    file, prefix, blank = STATA[name]
    folder = Path(case.module.__file__).parent / "results"
    if not (folder / file).is_file():
        pytest.skip("this build of statsmodels comes without the tables of its tests")
    table = np.genfromtxt(folder / file, delimiter=",", names=True)[blank:]
    ours = answer(case)
    for column, found in (("f", ours.filtered), ("p", ours.predicted), ("sm", ours.smoothed)):
        published = np.column_stack([table[f"{prefix}_{column}{regime}"] for regime in (1, 2)])
        assert distance(found, published) < PROMISED, column
    assert distance(ours.filtered[1:], ours.filtered[:-1]) > 0.1  # control: rows do differ


@pytest.mark.parametrize("name", EVIEWS)
def test_probabilities_published_by_eviews_are_met_as_well_as_their_parameters_are_known(name):
    case = case_of(name)
    published, regime = EVIEWS[name]
    ours = answer(case)
    filtered, smoothed = (getattr(case.module, f"{published}_{what}") for what in ("filtered", "smoothed"))
    assert distance(ours.filtered[:, regime], np.array(filtered)) < 1e-5
    assert distance(ours.smoothed[:, regime], np.array(smoothed)) < 1e-5


def test_the_e_step_has_the_likelihood_the_smoothed_states_and_the_transitions_of_statsmodels(case):
    chain, result = case.chain, case.published.result
    smoothed, counts = np.empty(chain.log_density.shape), np.empty(chain.transition.shape)
    likelihood = expectation(chain.log_density, chain.transition, chain.start, smoothed, counts)
    assert likelihood == pytest.approx(result.llf, abs=1e-8)
    theirs = by_statsmodels(case).smoothed
    assert distance(by_latest(smoothed, chain.states, case.n_regimes), theirs) < ROUNDING
    assert counts.sum() == pytest.approx(len(smoothed) - 1, abs=1e-9)
    joint = np.asarray(result.smoothed_joint_probabilities)
    if joint.ndim > 2:  # an autoregression keeps regimes of bars before: now, one ago, further ones, row
        pairs = joint[..., 1:].sum(axis=-1)
        while pairs.ndim > 2:
            pairs = pairs.sum(axis=-1)
        found = np.zeros(pairs.shape)
        for a, before in enumerate(chain.states):
            for b, after in enumerate(chain.states):
                found[after[0], before[0]] += counts[a, b]
        assert distance(found, pairs) < 1e-7


def test_a_filter_that_is_fed_quarter_by_quarter_says_the_same_to_the_bit(gnp):
    chain, whole = gnp.chain, answer(gnp).states
    belief, out = chain.start.copy(), np.empty((1, len(chain.states)))
    for t, row in enumerate(chain.log_density):
        forward_filter(row[None], chain.transition, belief, out)
        assert out.tobytes() == whole[t].tobytes()


def test_the_naive_filter_agrees_so_three_programs_say_the_same(gnp):
    chain, few = gnp.chain, slice(0, 25)
    possible = np.maximum(chain.transition, 1e-300)  # the naive one takes logs
    found = naive.forward_filter(chain.log_density[few], possible, chain.start)
    assert distance(found, answer(gnp).states[few]) < ROUNDING


def test_states_of_past_regimes_amount_to_the_chain_of_regimes(case):
    chain = case.chain
    latest = [regimes[0] for regimes in chain.states]
    # The start is the stationary law of the states, so one more step leaves it where it was.
    assert distance(chain.start @ chain.transition, chain.start) < 1e-12
    found = chain_of_states(chain.transition, chain.start, latest, case.n_regimes)
    assert distance(found, case.regime_transition) < 1e-12


# Negative controls: what is done wrong must show, by far more than what is promised.

FAR = 1000 * PROMISED


def transposed(case: Case) -> HiddenChain:
    return case.chain._replace(transition=np.ascontiguousarray(case.chain.transition.T))


def one_row_late(case: Case) -> HiddenChain:
    return case.chain._replace(log_density=np.roll(case.chain.log_density, 1, axis=0))


def even_start(case: Case) -> HiddenChain:
    n_states = len(case.chain.states)
    return case.chain._replace(start=np.full(n_states, 1 / n_states))


@pytest.mark.parametrize("fault", [transposed, one_row_late, even_start])
def test_the_comparison_sees_a_chain_that_is(fault, gnp):
    theirs, ours = by_statsmodels(gnp), answer(gnp, fault(gnp))
    assert distance(ours.filtered, theirs.filtered) > FAR
    assert distance(ours.predicted, theirs.predicted) > FAR
    assert distance(ours.smoothed, theirs.smoothed) > FAR
    assert abs(ours.log_likelihood - theirs.log_likelihood) > FAR


def test_the_comparison_sees_a_filter_that_is_a_row_early_or_late_or_predicts(gnp):
    ours, theirs = answer(gnp), by_statsmodels(gnp)
    assert distance(ours.filtered[1:], theirs.filtered[:-1]) > FAR
    assert distance(ours.filtered[:-1], theirs.filtered[1:]) > FAR
    assert distance(ours.predicted, theirs.filtered) > FAR


@pytest.mark.parametrize("fault", [transposed, one_row_late, even_start])
def test_a_fault_is_seen_in_every_other_published_case_too(fault, case):
    # Where the first row leaves no doubt, a wrong start shows in the likelihood only; rows in another place
    # may leave the likelihood alone.
    theirs, ours = by_statsmodels(case), answer(case, fault(case))
    shown = abs(ours.log_likelihood - theirs.log_likelihood), distance(ours.filtered, theirs.filtered)
    assert max(shown) > FAR
