"""L5: the leaks of regimes, planted in every registered detector, and the laws that must find each of them.

Every leak is one thing done to a sound detector that needs rows which are not there yet; all else it keeps,
its memory included. A detector is wrapped through its protocol alone (``update``, ``chain``, ``fit``), so a
new one is covered without a line here. What is planted (guarantees, section 5):

* in what a fitted detector says, found by cutting its rows and by altering the future: smoothed
  probabilities, the Viterbi path, probabilities one row early, statistics of all rows, a path whose minimum
  dwell is filled in retroactively;
* in how a detector is fitted, found by fitting again with the test rows altered, and where rows themselves
  were fitted also by the stamp ``fitted_until``: all rows, one row too many, statistics of all rows.
"""

import itertools
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from typing import Self

import numpy as np
import pytest

from market.causal import Chain, transform
from market.features.pipeline import FeaturePipeline, FeatureTable
from market.sources.synthetic import SyntheticConfig, synthetic_market
from market.table import DataError, Table, concat
from regimes.detector import DETECTORS, Detector, require_out_of_sample
from regimes.hindsight import backward_smoother, smoothed
from regimes.kernels import forward_filter
from regimes.path import PATH_COLUMNS, PathFilter
from regimes.regime import REGIME_NAMES, UNDECIDED, RegimeProbabilities
from tests.conformance.laws import POISONS, check_altered_future, check_chunk_law, replaced_by

WARM_UP, N_TRAIN, N_TEST = 2_000, 1_900, 1_000
NAMES = DETECTORS.names()
N_PLACES = 12
DOUBT = 0.1  # share of even odds in what a leak reads, so that detectors that never doubt leak as well


@cache
def features(seed: int = 5) -> FeatureTable:
    """Feature rows that are all known."""
    bars = synthetic_market(SyntheticConfig(n_bars=WARM_UP + N_TRAIN + N_TEST, seed=seed)).bars
    return transform(FeaturePipeline(), bars)[WARM_UP:]


@cache
def fitted(name: str) -> Detector:
    return once(on_training_rows, name)


@cache
def held_out() -> FeatureTable:
    return features()[N_TRAIN:]


@cache
def places(name: str) -> list[int]:
    """Rows at which a leak is looked for: where a detector has just changed its mind.

    One row is enough to convict, but not any row: a settled regime looks the same with hindsight.
    """
    best = transform(fitted(name), held_out()).values.argmax(axis=1)
    changes = np.flatnonzero(np.diff(best)) + 1
    assert changes.size > 2, "regimes must come and go, or nothing would be proved"
    return changes[np.linspace(0, changes.size - 1, min(N_PLACES, changes.size)).astype(int)].tolist()


# Leaks in what a fitted detector says


class Leak:
    """A stage whose rows are those of a sound one, changed by something that needs later rows."""

    def __init__(self, stage: Detector) -> None:
        self.stage, self.warmup = stage, stage.warmup
        self.begin()

    def begin(self) -> None:
        """Empty the memory of the leak itself."""

    def fresh(self) -> Self:
        return type(self)(self.stage.fresh())

    def update(self, rows: Table) -> Table:
        answers = self.stage.update(rows)
        assert np.isfinite(answers.values).all(), "the rows must be known, or the leak would prove nothing"
        return replace(answers, values=self.changed(answers.values))

    def changed(self, values: np.ndarray) -> np.ndarray:
        raise NotImplementedError

    @classmethod
    def fits(cls, name: str) -> bool:
        """Whether this can be planted in a detector."""
        return True


class Smoothed(Leak):
    """Probabilities of each row given the whole chunk, as hmmlearn's ``predict_proba`` gives them."""

    def changed(self, values):
        out = np.empty(values.shape)
        backward_smoother(doubted(values), self.stage.chain, out)
        return out


class Viterbi(Leak):
    """The likeliest path through the probabilities of the whole chunk, as hmmlearn's ``predict`` gives it."""

    def begin(self):
        self.score = np.zeros(len(self.stage.chain))

    def changed(self, values):
        path, self.score = viterbi(log(doubted(values)), self.stage.chain, self.score)
        return np.eye(values.shape[1])[path]


class OwnStates(Leak):
    """In a detector that shows what each row says of its hidden states, and sums them by their names."""

    @classmethod
    def fits(cls, name):
        return hasattr(DETECTORS.get(name), "log_likelihood") and hasattr(DETECTORS.get(name), "by_regime")

    def update(self, rows):
        hidden = self.of_states(self.stage.log_likelihood(rows))
        return RegimeProbabilities(rows.time, self.stage.by_regime(hidden), REGIME_NAMES)

    def of_states(self, log_density: np.ndarray) -> np.ndarray:
        raise NotImplementedError


class SmoothedStates(OwnStates):
    """Its hidden states by the smoother of ``regimes.hindsight``."""

    def begin(self):
        self.belief = self.stage.stationary.copy()

    def of_states(self, log_density):
        filtered, out = np.empty((2, *log_density.shape))
        forward_filter(log_density, self.stage.transition, self.belief, filtered)
        backward_smoother(filtered, self.stage.transition, out)
        return out


class ViterbiStates(OwnStates):
    """Its most probable path of hidden states."""

    def begin(self):
        self.score = log(self.stage.stationary)

    def of_states(self, log_density):
        path, self.score = viterbi(log_density, self.stage.transition, self.score)
        return np.eye(len(self.score))[path]


class Early(Leak):
    """Probabilities one row early: a row knows the next bar."""

    def changed(self, values):
        return np.vstack([values[1:], values[-1:]])


class Scaled(Leak):
    """Columns over their root mean square *of all rows so far, those of the whole chunk included*.

    Row by row that is an expanding statistic and sound, which is why only the cut shows it.
    """

    def begin(self):
        self.squares, self.count = 0.0, 0

    def update(self, rows):
        self.squares = self.squares + (rows.values**2).sum(axis=0)
        self.count += len(rows)
        level = np.sqrt(self.squares / max(self.count, 1))
        usual = np.sqrt((features()[:N_TRAIN].values ** 2).mean(axis=0))
        return self.stage.update(replace(rows, values=rows.values * (usual / np.maximum(level, 1e-12))))


LEAKS = (Smoothed, Viterbi, SmoothedStates, ViterbiStates, Early, Scaled)
PLANTED = [(leak, name) for leak in LEAKS for name in NAMES if leak.fits(name)]


def doubted(values: np.ndarray) -> np.ndarray:
    return (1 - DOUBT) * values + DOUBT / values.shape[1]


def log(values: np.ndarray) -> np.ndarray:
    return np.log(np.maximum(values, 1e-300))


def viterbi(log_density, transition, score):
    """States of the likeliest path, int (n,), and the score of ending in each state; ``score`` before."""
    step, back = log(transition), np.empty(log_density.shape, dtype=int)
    for t, density in enumerate(log_density):
        joint = score[:, None] + step
        back[t] = joint.argmax(axis=0)
        score = joint.max(axis=0) + density
    path = np.empty(len(back), dtype=int)
    state = int(score.argmax())
    for t in range(len(back) - 1, -1, -1):
        path[t] = state
        state = back[t, state]
    return path, score - score.max()


class Backdated:
    """Stage: the path of the most probable regimes, in which only stays of the minimum dwell count.

    That a stay will last is known at its end, and it is labelled from its beginning.
    """

    def __init__(self) -> None:
        self.min_dwell = PathFilter().config.min_dwell_bars
        self.warmup, self.label = self.min_dwell, UNDECIDED

    def fresh(self) -> Self:
        return type(self)()

    def update(self, probabilities: RegimeProbabilities) -> Table:
        best = probabilities.values.argmax(axis=1)
        label = np.empty(len(best), dtype=int)
        for start, end in itertools.pairwise(np.flatnonzero(np.diff(best, prepend=-1, append=-1))):
            if self.label == UNDECIDED or end - start >= self.min_dwell:
                self.label = best[start]
            label[start:end] = self.label
        confidence = probabilities.values[np.arange(len(label)), label]
        return Table(probabilities.time, np.column_stack([label, confidence]), PATH_COLUMNS)


def sees_the_future(stage, name: str) -> bool:
    """Whether any other future changes what was said at the places of a detector."""
    for row, poison in itertools.product(places(name), POISONS.values()):
        try:
            check_altered_future(stage, held_out(), row, poison)
        except AssertionError:
            return True
    return False


def check_that_both_laws_convict(stage, name: str) -> None:
    with pytest.raises(AssertionError, match="rows differ"):
        check_chunk_law(stage, held_out(), range(1, N_TEST))
    assert sees_the_future(stage, name)


@pytest.mark.parametrize("name", NAMES)
def test_a_sound_detector_and_its_path_pass_wherever_a_leak_is_looked_for(name):
    for sound in (fitted(name), Chain([fitted(name).fresh(), PathFilter()])):
        check_chunk_law(sound, held_out(), range(1, N_TEST))
        assert not sees_the_future(sound, name)


@pytest.mark.parametrize(("leak", "name"), PLANTED)
def test_the_laws_find_probabilities_that_are(leak, name):
    check_that_both_laws_convict(leak(fitted(name).fresh()), name)


@pytest.mark.parametrize("name", NAMES)
def test_the_laws_find_a_dwell_that_is_filled_in_retroactively(name):
    check_that_both_laws_convict(Chain([fitted(name).fresh(), Backdated()]), name)


class RowByRow:
    """A stage that is never given more than one row at once."""

    def __init__(self, stage) -> None:
        self.stage, self.warmup = stage, stage.warmup

    def fresh(self) -> Self:
        return type(self)(self.stage.fresh())

    def update(self, rows):
        return concat([self.stage.update(rows[t : t + 1]) for t in range(len(rows))])


@pytest.mark.parametrize(("leak", "name"), PLANTED)
def test_where_no_later_row_is_given_nothing_is_wrong_with(leak, name):
    # What the laws find is the look ahead alone, not for instance a memory that the leak forgot to keep.
    stage, rows = RowByRow(leak(fitted(name).fresh())), held_out()[:150]
    check_chunk_law(stage, rows, [1, 2, 70, 149])
    check_altered_future(stage, rows, 75, POISONS["reversed"])


@pytest.mark.parametrize("name", [name for name in NAMES if SmoothedStates.fits(name)])
def test_smoothed_states_are_those_of_the_house(name):
    ours = transform(SmoothedStates(fitted(name).fresh()), held_out())
    assert ours.values.tobytes() == smoothed(fitted(name), held_out()).values.tobytes()


def test_the_viterbi_path_is_the_likeliest_of_all_paths():
    random = np.random.default_rng(3)
    density, start = random.normal(size=(6, 3)), np.log([0.2, 0.3, 0.5])
    transition = random.dirichlet(np.ones(3), 3)

    def likelihood(path):  # path[0] is the state before the first row
        steps = sum(np.log(transition[i, j]) for i, j in itertools.pairwise(path))
        return start[path[0]] + steps + sum(density[t, state] for t, state in enumerate(path[1:]))

    best = max(itertools.product(range(3), repeat=7), key=likelihood)
    assert tuple(viterbi(density, transition, start)[0]) == best[1:]


# Leaks in how a detector is fitted

Procedure = Callable[[str, FeatureTable], "Detector | Before"]


class Refitted:
    """The stage from raw rows to answers: fits on what is given before the first test row, answers it all."""

    warmup = 0

    def __init__(self, procedure: Procedure, name: str) -> None:
        self.procedure, self.name = procedure, name

    def fresh(self) -> Self:
        return self

    def update(self, rows: FeatureTable) -> RegimeProbabilities:
        unaltered = rows is features()
        fit = once(self.procedure, self.name) if unaltered else self.procedure(self.name, rows)
        return fit.fresh().update(rows)


@cache
def once(procedure: Procedure, name: str) -> "Detector | Before":
    return procedure(name, features())


class Before:
    """A detector behind a change of its feature rows."""

    def __init__(self, change: Callable[[Table], Table], detector: Detector) -> None:
        self.change, self.detector = change, detector

    def fresh(self) -> Self:
        return type(self)(self.change, self.detector.fresh())

    def update(self, rows):
        return self.detector.update(self.change(rows))


def on_training_rows(name, rows):
    """As it must be."""
    return DETECTORS.create(name).fit(rows[:N_TRAIN])


def on_all_rows(name, rows):
    return DETECTORS.create(name).fit(rows)


def one_row_too_many(name, rows):
    return DETECTORS.create(name).fit(rows[: N_TRAIN + 1])


def behind_a_scaler_of(statistics: slice, name, rows):
    """Columns cut to the inner 96 % of some rows, over the root mean square of these rows."""
    known = rows[statistics].values
    low, high = np.quantile(known, (0.02, 0.98), axis=0)
    level = np.maximum(np.sqrt((known**2).mean(axis=0)), 1e-12)
    usual = np.sqrt((features().values ** 2).mean(axis=0))  # of another table: only to keep the units

    def change(table):
        return replace(table, values=np.clip(table.values, low, high) / level * usual)

    detector = DETECTORS.create(name).fit(change(rows[:N_TRAIN]))
    return Before(change, detector)


def behind_a_scaler_of_training_rows(name, rows):
    """As it must be."""
    return behind_a_scaler_of(slice(N_TRAIN), name, rows)


def behind_a_scaler_of_all_rows(name, rows):
    return behind_a_scaler_of(slice(None), name, rows)


def check_refit_law(procedure: Procedure, name: str) -> None:
    """Check that altered test rows change no answer on training rows when the fit is run again (L6)."""
    other_market = replaced_by(features(seed=6))
    check_altered_future(Refitted(procedure, name), features(), N_TRAIN - 1, other_market)


@pytest.mark.parametrize("name", NAMES)
def test_altered_test_rows_leave_the_training_rows_as_they_were(name):
    check_refit_law(on_training_rows, name)


def test_a_scaler_of_training_rows_is_no_leak():
    check_refit_law(behind_a_scaler_of_training_rows, "volatility")


@pytest.mark.parametrize("procedure", [on_all_rows, one_row_too_many, behind_a_scaler_of_all_rows])
@pytest.mark.parametrize("name", NAMES)
def test_fitting_again_finds_a_detector_that_was_fitted(name, procedure):
    with pytest.raises(AssertionError, match="altered"):
        check_refit_law(procedure, name)


@pytest.mark.parametrize("name", NAMES)
def test_the_stamp_refuses_a_detector_that_has_seen_a_row_it_is_to_be_judged_by(name):
    # Only the stamp is left where nobody can fit again: a filter with leaked parameters is causal itself.
    first_test_time = int(held_out().time[0])
    require_out_of_sample(fitted(name), first_test_time)
    for procedure in (on_all_rows, one_row_too_many):
        leaked = once(procedure, name)
        assert not sees_the_future(leaked, name)
        with pytest.raises(DataError, match="not out of sample, fit it on earlier rows"):
            require_out_of_sample(leaked, first_test_time)
    with pytest.raises(DataError, match="not fitted"):
        require_out_of_sample(DETECTORS.create(name), first_test_time)
