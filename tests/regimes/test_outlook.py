"""The outlook beside enumerated, simulated and true futures; events of transitions however rows are cut."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from configs.load import ConfigError
from market.causal import transform
from market.sources.law import TrueLaw
from market.sources.synthetic import SyntheticConfig, synthetic_market
from market.table import DataError, Table
from regimes.chain import chain_of_states
from regimes.outlook import HORIZONS, Outlook, TransitionEvent, TransitionWatch, events
from regimes.path import PathConfig, PathFilter, regime_path
from regimes.regime import CRISIS_NAMES, REGIME_NAMES, Regime, RegimePath, RegimeProbabilities
from tests.conformance import laws
from tests.reference.regimes import HOUR_NS

CHAIN = np.array([[0.9, 0.07, 0.03], [0.2, 0.7, 0.1], [0.05, 0.15, 0.8]])
BELIEF = np.array([0.25, 0.15, 0.6])


def probabilities(rows, names=REGIME_NAMES, first=1):
    rows = np.atleast_2d(np.array(rows, dtype=float))
    return RegimeProbabilities((first + np.arange(len(rows))) * HOUR_NS, rows, names)


def drawn(n, seed, names=REGIME_NAMES):
    rows = np.random.default_rng(seed).dirichlet(np.full(len(names), 0.3), size=n)
    rows[: min(n, 3)] = np.nan
    return probabilities(rows, names)


def drawn_chain(seed, k):
    return np.random.default_rng(seed).dirichlet(np.full(k, 0.5), size=k) * 0.5 + 0.5 * np.eye(k)


def enumerated(belief, chain, h):
    """Over every path of h more bars: the regime at its end, whether the first was left, bars of its stay."""
    k = len(chain)
    ahead, switch, stay = np.zeros(k), 0.0, np.zeros(k)
    for path in itertools.product(range(k), repeat=h + 1):
        weight = belief[path[0]] * np.prod([chain[a, b] for a, b in itertools.pairwise(path)])
        ahead[path[-1]] += weight
        switch += weight * (len(set(path)) > 1)
        stay[path[0]] += weight * (len(list(itertools.takewhile(path[0].__eq__, path))) - 1)
    return ahead, switch, stay


@pytest.mark.parametrize("h", [1, 2, 5])
def test_the_outlook_is_the_sum_over_every_future(h):
    row = Outlook(CHAIN, (h,)).update(probabilities(BELIEF))
    ahead, switch, _ = enumerated(BELIEF, CHAIN, h)
    np.testing.assert_allclose([row.column(f"{name}_in_{h}")[0] for name in REGIME_NAMES], ahead, rtol=1e-13)
    np.testing.assert_allclose(row.column(f"switch_in_{h}")[0], switch, rtol=1e-13)


def test_the_remaining_stay_is_the_sum_over_every_future():
    # A stay that is cut off at 7 bars falls short of the closed form by p s^8 / (1 - s): what is beyond.
    _, _, stay = enumerated(BELIEF, CHAIN, 7)
    beyond = BELIEF[2] * CHAIN[2, 2] ** 8 / (1 - CHAIN[2, 2])
    row = Outlook(CHAIN).update(probabilities(BELIEF))
    assert row.column("remaining_bars")[0] == pytest.approx(stay[2] + beyond, rel=1e-13)
    assert row.column("remaining_bars")[0] == pytest.approx(0.6 * 0.8 / 0.2)


def test_the_outlook_is_what_simulated_chains_do():
    random, n, length = np.random.default_rng(0), 40_000, 120
    state = np.empty((length, n), dtype=int)
    state[0] = random.choice(3, size=n, p=BELIEF)
    edges = CHAIN.cumsum(axis=1)
    for t in range(1, length):
        state[t] = (random.random(n)[:, None] > edges[state[t - 1]]).sum(axis=1)
    left = np.logical_or.accumulate(state != state[0])
    row = Outlook(CHAIN, HORIZONS).update(probabilities(BELIEF))
    for h in HORIZONS:
        for regime, name in enumerate(REGIME_NAMES):
            near(row.column(f"{name}_in_{h}")[0], state[h] == regime)
        near(row.column(f"switch_in_{h}")[0], left[h])
        # Control: being elsewhere h bars later is another question, with another answer.
        if h > 1:
            with pytest.raises(AssertionError):
                near(row.column(f"switch_in_{h}")[0], state[h] != state[0])
    near(row.column("remaining_bars")[0], np.where(state[0] == 2, (~left).sum(axis=0) - 1, 0))


def near(expected, outcomes):
    outcomes = np.asarray(outcomes, dtype=float)
    assert abs(outcomes.mean() - expected) < 4.5 * outcomes.std() / np.sqrt(outcomes.size)


@pytest.fixture(scope="module")
def market():
    """A market with many switches, its true chain and what the oracle believed row by row."""
    market = synthetic_market(SyntheticConfig(scenario="short_dwell", n_bars=20_000, seed=7))
    law = TrueLaw.of(market.config)
    chain = chain_of_states(law.transition, law.stationary, law.regime_of, 3)
    return market, chain, RegimeProbabilities(market.bars.time, market.oracle.values, REGIME_NAMES)


def miscalibration(forecast, outcome, n_bins=10):
    """Mean distance between forecasts and how often they come true, over bins of like forecasts."""
    bins = np.minimum((forecast * n_bins).astype(int), n_bins - 1)
    share = np.bincount(bins, minlength=n_bins)
    gap = np.bincount(bins, forecast - outcome, minlength=n_bins)
    return np.abs(gap[share > 0]).sum() / forecast.size


def test_forecasts_of_the_synthetic_market_come_true_as_often_as_they_say(market):
    market, chain, belief = market
    regime, h = market.regime, 24
    rows = np.arange(100, len(regime) - h)
    table = Outlook(chain, (h,)).update(belief)
    sure = Outlook(chain, (h,)).update(probabilities(np.eye(3)[belief.values.argmax(axis=1)]))
    came = np.eye(3)[regime[rows + h]].ravel()
    windows = np.lib.stride_tricks.sliding_window_view(regime, h + 1)[rows]
    left = (windows != windows[:, :1]).any(axis=1)
    columns = [f"{name}_in_{h}" for name in REGIME_NAMES]
    ahead, naive = (one.select(columns).values[rows].ravel() for one in (table, sure))
    # The episodes of 20,000 bars are few: frequencies are known to about two percent.
    assert miscalibration(ahead, came) < 0.02
    assert miscalibration(table.column(f"switch_in_{h}")[rows], left) < 0.03
    # Control: whoever takes the most probable regime for certain says too much where it is not.
    doubtful = (belief.values[rows].max(axis=1) < 0.7).repeat(3)
    assert miscalibration(ahead[doubtful], came[doubtful]) < 0.04
    assert miscalibration(naive[doubtful], came[doubtful]) > 0.06
    # Control: the chance to be elsewhere at the end understates the chance to have left.
    elsewhere = 1 - (belief.values * [np.linalg.matrix_power(chain, h)[i, i] for i in range(3)]).sum(axis=1)
    assert miscalibration(elsewhere[rows], left) > 0.05


def test_the_remaining_stay_is_right_on_average_and_a_certain_belief_says_too_much(market):
    market, chain, belief = market
    regime = market.regime
    edges = np.flatnonzero(np.diff(regime)) + 1
    end = np.append(edges, len(regime))[np.searchsorted(edges, np.arange(len(regime)), side="right")]
    best = belief.values.argmax(axis=1)
    truth = np.where(best == regime, end - np.arange(len(regime)) - 1, 0)[: edges[-1]]
    forecast = Outlook(chain).update(belief).column("remaining_bars")[: edges[-1]]
    certain = Outlook(chain).update(probabilities(np.eye(3)[best])).column("remaining_bars")[: edges[-1]]
    assert abs(forecast.mean() / truth.mean() - 1) < 0.06
    doubtful = belief.values[: edges[-1]].max(axis=1) < 0.7
    assert abs(forecast[doubtful].mean() / truth[doubtful].mean() - 1) < 0.15
    assert certain[doubtful].mean() / truth[doubtful].mean() > 1.4  # control


@given(st.integers(0, 10_000), st.sampled_from([REGIME_NAMES, CRISIS_NAMES]))
@settings(max_examples=40, deadline=None)
def test_an_outlook_is_made_of_probabilities(seed, names):
    rows = drawn(30, seed, names)
    table = transform(Outlook(drawn_chain(seed, len(names)), (1, 3, 50)), rows)
    assert np.isnan(table.values[:3]).all()
    known = table[3:]
    for h in (1, 3, 50):
        ahead = known.select([f"{name}_in_{h}" for name in names]).values
        assert ((ahead >= 0) & (ahead <= 1 + 1e-12)).all()
        np.testing.assert_allclose(ahead.sum(axis=1), 1.0, atol=1e-12)
    switch = known.select([f"switch_in_{h}" for h in (1, 3, 50)]).values
    assert (np.diff(switch, axis=1) >= 0).all()
    assert ((switch >= 0) & (switch <= 1 + 1e-12)).all()
    assert (known.column("remaining_bars") >= 0).all()


def test_far_ahead_only_the_long_run_shares_are_left():
    row = Outlook(CHAIN, (100_000,)).update(probabilities([[1.0, 0, 0], [0, 0, 1.0]]))
    np.testing.assert_allclose(row.values[0, :3], row.values[0, :3] @ CHAIN, atol=1e-12)
    np.testing.assert_allclose(row.values[0, :3], row.values[1, :3], atol=1e-12)
    assert row.column("switch_in_100000").tolist() == [1.0, 1.0]


def test_a_regime_that_never_stays_is_left_for_certain():
    chain = np.array([[0.0, 0.5, 0.5], [0.1, 0.8, 0.1], [0.1, 0.1, 0.8]])
    row = Outlook(chain, (1,)).update(probabilities([1.0, 0, 0]))
    assert row.column("switch_in_1")[0] == 1.0
    assert row.column("remaining_bars")[0] == 0.0


def several():
    chains = np.stack([CHAIN, drawn_chain(1, 3), drawn_chain(2, 3)])
    return chains, Outlook(chains, used_from=np.array([40, 80, 81]) * HOUR_NS)


STAGES = {"one chain": Outlook(CHAIN), "several": several()[1]}


@pytest.mark.parametrize("stage", STAGES.values(), ids=STAGES)
@pytest.mark.parametrize("cuts", [range(120), [1, 2, 39, 50, 50, 79, 119], []])
def test_cutting_the_input_anywhere_changes_no_bit(stage, cuts):
    laws.check_chunk_law(stage, drawn(120, 1), cuts)
    laws.check_inputs_untouched(stage, drawn(120, 1))


@pytest.mark.parametrize("stage", STAGES.values(), ids=STAGES)
@pytest.mark.parametrize("poison", ["reversed", "shuffled", "frozen"])
def test_altering_the_future_changes_nothing_before_it(stage, poison):
    for row in (45, 80, 110):
        laws.check_altered_future(stage, drawn(120, 2), row, laws.POISONS[poison])


class Settled(Outlook):
    """A planted leak: the belief of the last row is taken to be that of every row."""

    def update(self, rows):
        return super().update(
            RegimeProbabilities(rows.time, rows.values[-1:].repeat(len(rows), 0), rows.names)
        )


def test_the_laws_find_an_outlook_that_knows_how_it_ends():
    with pytest.raises(AssertionError, match="rows differ"):
        laws.check_chunk_law(Settled(CHAIN), drawn(60, 3), [30])
    with pytest.raises(AssertionError, match="altered"):
        laws.check_altered_future(Settled(CHAIN), drawn(60, 3), 30, laws.POISONS["reversed"])


def test_of_several_chains_each_row_takes_the_one_in_use():
    chains, stage = several()
    rows = drawn(120, 4)
    table = stage.update(rows)
    assert np.isnan(table.values[:39]).all()  # row 39 is hour 40
    for chain, first, end in ((chains[0], 39, 79), (chains[1], 79, 80), (chains[2], 80, 120)):
        np.testing.assert_array_equal(table.values[first:end], Outlook(chain).update(rows[first:end]).values)


@pytest.mark.parametrize(
    ("chain", "used_from", "message"),
    [
        (
            np.eye(3) * 0.9,
            None,
            r"row 0 of the chain is \[0.9, 0.0, 0.0\]; it must not be negative and must sum",
        ),
        ([[0.9, 0.1], [-0.1, 1.1]], None, "row 1 of the chain"),
        ([[0.9, np.nan], [0.1, 0.9]], None, "row 0 of the chain"),
        ([[0.9, 0.1], [0.0, 1.0]], None, "never leaves regime 1"),
        (np.ones((2, 3)) / 3, None, r"the chain has shape \(2, 3\)"),
        ([CHAIN, CHAIN], [5], "1 times for 2 chains"),
        ([CHAIN, CHAIN], [5, 5], "increasing"),
        (CHAIN, [5], "a row and a column"),
    ],
)
def test_chains_that_are_none_are_refused_in_one_sentence(chain, used_from, message):
    with pytest.raises(DataError, match=message) as refusal:
        Outlook(np.array(chain), used_from=used_from)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("horizons", [(), (0,), (6, 1), (1, 1), (1.5,), (True,), (100_001,)])
def test_horizons_that_are_no_bars_ahead_are_refused(horizons):
    with pytest.raises(ConfigError, match="whole bars, increasing, in"):
        Outlook(CHAIN, horizons)


def test_a_chain_of_other_regimes_is_refused():
    with pytest.raises(DataError, match="the chain has 3 regimes, the probabilities have 4"):
        Outlook(CHAIN).update(drawn(5, 0, CRISIS_NAMES))


# Events


def path_of(label, confidence=0.81, first=1):
    label = np.array(label)
    names = CRISIS_NAMES if label.size and label.max() > 2 else REGIME_NAMES
    return RegimePath(
        (first + np.arange(label.size)) * HOUR_NS, label, np.full(label.size, confidence), names
    )


def remaining(path, bars=41.2):
    return Table(path.time, np.full((len(path), 1), bars), ("remaining_bars",))


def test_events_by_hand():
    path = path_of([-1, 0, 0, 2, 2, 2, 1])
    assert events(path, remaining(path)) == (
        TransitionEvent(3, 4 * HOUR_NS, Regime.RANGING, Regime.VOLATILE, 0.81, 2, False, 41.2),
        TransitionEvent(6, 7 * HOUR_NS, Regime.VOLATILE, Regime.TRENDING, 0.81, 3, True, 41.2),
    )


def test_an_event_reads_as_one_line():
    time = 1_709_647_200 * 10**9
    event = TransitionEvent(99, time, Regime.RANGING, Regime.VOLATILE, 0.813, 63, True, 41.2)
    assert event.text("BTC/USDT") == (
        "2024-03-05 14:00 UTC: BTC/USDT turns volatile (81 %), after 63 bars of ranging; "
        "expected to last 41 bars"
    )
    short = event._replace(dwelt_bars=1, complete=False, remaining_bars=0.3, after=Regime.CRISIS)
    assert short.text("X") == (
        "2024-03-05 14:00 UTC: X turns crisis (81 %), after at least 1 bar of ranging; "
        "expected to last less than a bar"
    )
    unknown = event._replace(confidence=np.nan, remaining_bars=np.nan, dwelt_bars=1_234)
    assert unknown.text("X") == "2024-03-05 14:00 UTC: X turns volatile, after 1,234 bars of ranging"


def streamed(path, outlook, edges, fresh_each=False):
    watch, found = TransitionWatch(), []
    for start, end in itertools.pairwise(edges):
        watch = watch.fresh() if fresh_each else watch
        part = RegimePath(path.time[start:end], path.label[start:end], path.confidence[start:end], path.names)
        found += watch.update(part, outlook[start:end])
    return tuple(found)


labels = st.lists(st.integers(-1, 3), max_size=80)


@given(labels, st.lists(st.integers(0, 80), max_size=8))
@settings(max_examples=60, deadline=None)
def test_the_events_are_the_transitions_however_the_rows_are_cut(label, cuts):
    path = path_of(np.array(label, dtype=np.int8))
    outlook = remaining(path)
    whole = events(path, outlook)
    assert [event[:4] for event in whole] == [tuple(one) for one in path.transitions()]
    edges = [0, *sorted(min(cut, len(path)) for cut in cuts), len(path)]
    assert streamed(path, outlook, edges) == whole
    assert streamed(path, outlook, range(len(path) + 1)) == whole


def test_a_watch_without_memory_is_found():
    path = path_of([0, 0, 1, 1, 1, 2])
    outlook = remaining(path)
    assert streamed(path, outlook, [0, 2, 6], fresh_each=True) != events(path, outlook)


@given(labels)
@settings(max_examples=40, deadline=None)
def test_stays_between_events_add_up(label):
    path = path_of(np.array(label, dtype=np.int8))
    for before, after in itertools.pairwise(events(path, remaining(path))):
        if after.complete and before.after == after.before and -1 not in label[before.row : after.row]:
            assert after.dwelt_bars == after.row - before.row
    for event in events(path, remaining(path)):
        stay = label[event.row - event.dwelt_bars : event.row]
        assert set(stay) == {event.before}
        start = event.row - event.dwelt_bars
        assert event.complete == (start > 0 and label[start - 1] not in (-1, event.before))


def test_events_of_a_filtered_path_tell_what_the_outlook_said():
    rows = drawn(400, 5)
    path = regime_path(transform(PathFilter(PathConfig(min_dwell_bars=4)), rows))
    outlook = transform(Outlook(CHAIN), rows)
    found = events(path, outlook)
    assert len(found) > 20
    for event in found:
        belief = rows.values[event.row]
        assert event.after == belief.argmax()
        assert event.confidence == belief.max()
        stay = CHAIN[event.after, event.after]
        assert event.remaining_bars == pytest.approx(belief.max() * stay / (1 - stay))


def test_a_path_and_an_outlook_of_other_rows_are_refused():
    path = path_of([0, 1])
    with pytest.raises(DataError, match="both must be of the same rows"):
        events(path, remaining(path_of([0, 1], first=2)))
    with pytest.raises(DataError, match="the path has 2 rows and the outlook 1"):
        events(path, remaining(path_of([0])))
