"""Every blender under the laws of flow and of fitting, and those that route against plain loops."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from configs.load import ConfigError
from ensemble import blenders
from ensemble.blenders import BLENDERS, Blender, Rows, blended, load_blender, net_returns, shared
from ensemble.signals import Member, SignalTable, earned
from market.table import DataError, Table
from regimes.regime import CRISIS_NAMES, REGIME_NAMES, Regime, RegimeProbabilities
from tests.conformance.laws import POISONS, check_altered_future, check_chunk_law, check_inputs_untouched
from tests.ensemble.members_factory import COST, IDS, KINDS, MEMBERS, Flow, fitted, market, part

N, TRAIN = 1000, 600
EDGES = {"ranger": 0.2, "trees": 0.2, "stormer": -0.2}
LEARN = {"online", "rank", "validated", "bma", "stack"}
each = pytest.mark.parametrize(("name", "chosen"), KINDS, ids=IDS)


@pytest.fixture(scope="module")
def rows():
    return market(N, seed=3, edges=EDGES)


@pytest.fixture(scope="module")
def made(rows):
    past = part(rows, 0, TRAIN)
    return {key: fitted(name, past, chosen) for key, (name, chosen) in zip(IDS, KINDS, strict=True)}


@pytest.fixture
def blender(made, request):
    chosen = request.node.callspec.params
    return made[IDS[KINDS.index((chosen["name"], chosen["chosen"]))]]


def files_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def saved(blender: Blender, folder: Path) -> dict[str, bytes]:
    blender.save(folder)
    return files_of(folder)


# -- the laws of flow --------------------------------------------------------------------------------------


@each
@settings(max_examples=8, deadline=None)
@given(cuts=st.lists(st.integers(0, 500), max_size=10), single=st.integers(0, 460))
def test_cutting_the_rows_anywhere_changes_no_bit(made, rows, name, chosen, cuts, single):
    blender = made[IDS[KINDS.index((name, chosen))]]
    # From inside the rows of the fit, which teach nothing twice, to those after them.
    check_chunk_law(Flow(blender), part(rows, N - 500, N), [*cuts, *range(single, single + 40)])


@pytest.mark.parametrize("poison", ["shuffled", "reversed", "frozen"])
@each
def test_altering_the_future_changes_nothing_before_it(blender, rows, name, chosen, poison):
    for row in (TRAIN + 5, N - 30):
        check_altered_future(Flow(blender), rows, row, POISONS[poison])


@each
def test_two_runs_are_equal_and_leave_their_input_alone(blender, rows, name, chosen):
    check_inputs_untouched(Flow(blender), rows)


class Peeks(Blender):
    name = "peeks"

    def _answer(self, rows):
        signals = rows.signals.values.copy()
        signals[:-1] = signals[1:]
        weights = shared(rows.signals.values, np.ones(signals.shape[1]))
        return weights, blended(signals, weights)


class Averages(Blender):
    name = "averages"

    def _answer(self, rows):
        weights = shared(rows.signals.values, np.ones(len(self.members)))
        found = blended(rows.signals.values, weights)
        return weights, np.clip(found - found.mean(), -1, 1) if len(found) else found


class Forgets(BLENDERS.get("online")):
    def _answer(self, rows):
        self._forget()
        return super()._answer(rows)


@pytest.mark.parametrize(("kind", "poison"), [(Peeks, "reversed"), (Averages, "frozen"), (Forgets, None)])
def test_a_blender_that_peeks_averages_or_forgets_is_caught(rows, kind, poison):
    found = Flow(kind().fit(*part(rows, 0, TRAIN), members=MEMBERS, cost=COST, seed=1))
    with pytest.raises(AssertionError, match="rows differ"):
        check_chunk_law(found, part(rows, TRAIN, N), range(0, N - TRAIN, 25))
    if poison:
        with pytest.raises(AssertionError, match="altered"):
            check_altered_future(found, rows, N - 30, POISONS[poison])


# -- what is answered --------------------------------------------------------------------------------------


@each
def test_weights_are_shares_and_the_blend_is_a_signal(blender, rows, name, chosen):
    wild = SignalTable(rows.signals.time, np.sign(rows.signals.values), rows.signals.names)
    for signals in (rows.signals, wild):
        weights, found = blender.fresh().update(signals, *rows[1:])
        assert np.isfinite(weights).all()
        assert (weights >= 0.0).all()
        assert weights.sum(axis=1).max() <= 1.0 + 1e-9
        assert (np.abs(found) <= 1.0).all()
        assert np.count_nonzero(found) > 0.6 * N
        assert (weights[np.isnan(signals.values)] == 0.0).all()
        silent = np.isnan(signals.values).all(axis=1)
        assert silent.sum() >= 5
        assert (found[silent] == 0.0).all()
        assert (weights[silent] == 0.0).all()
        if name != "stack":
            expected = np.nansum(weights * signals.values, axis=1)
            np.testing.assert_allclose(found, expected, atol=1e-15)


@each
def test_flat_members_leave_the_blend_flat(blender, rows, name, chosen):
    flat = SignalTable(rows.signals.time, np.zeros((N, len(MEMBERS))), rows.signals.names)
    assert not blender.fresh().update(flat, *rows[1:])[1].any()


@each
def test_the_votes_of_those_who_abstain_go_to_the_others(blender, rows, name, chosen):
    values = np.full((N, len(MEMBERS)), np.nan)
    values[:, 3:5] = 0.7  # of any regime: a generalist and a forecaster
    weights, found = blender.fresh().update(
        SignalTable(rows.signals.time, values, rows.signals.names), *rows[1:]
    )
    heard = weights[:, 3:5].sum(axis=1) > 0.0
    if name != "stack":
        np.testing.assert_allclose(found[heard], 0.7, atol=1e-9)
    assert heard.all() or name in ("validated", "stack")  # who was given the weight 0 has none to share


@given(data=st.data())
@settings(max_examples=60, deadline=None)
def test_shares_are_divided_among_those_with_an_opinion(data):
    n, s = data.draw(st.integers(1, 5)), data.draw(st.integers(1, 4))
    number = st.floats(-1.0, 1.0) | st.just(np.nan)
    signals = data.draw(arrays(np.float64, (n, s), elements=number))
    shares = data.draw(arrays(np.float64, (s,), elements=st.just(0.0) | st.floats(1e-3, 10.0)))
    weights = shared(signals, shares)
    found = blended(signals, weights)
    for t in range(n):
        known = [i for i in range(s) if not math.isnan(signals[t, i])]
        total = math.fsum(shares[i] for i in known)
        expected = [shares[i] / total if i in known and total else 0.0 for i in range(s)]
        np.testing.assert_allclose(weights[t], expected, atol=1e-15)
        mean = math.fsum(expected[i] * signals[t, i] for i in known)
        assert found[t] == pytest.approx(mean, abs=1e-15)
        assert abs(found[t]) <= 1.0


def test_net_returns_pay_the_next_open_and_the_turnover(rows):
    opens, values = rows.bars.column("open"), rows.signals.values
    found = net_returns(values, rows.bars, 0.01)
    assert found.shape == (N - 2, len(MEMBERS))
    for t in (0, 1, 37, N // 2 + 2, N - 3):
        for i in range(len(MEMBERS)):
            held = 0.0 if math.isnan(values[t, i]) else values[t, i]
            before = 0.0 if t == 0 or math.isnan(values[t - 1, i]) else values[t - 1, i]
            expected = held * (opens[t + 2] / opens[t + 1] - 1) - 0.01 * abs(held - before)
            assert found[t, i] == pytest.approx(expected, abs=1e-15)
    one = net_returns(values[:, 0], rows.bars, 0.01)
    np.testing.assert_array_equal(one, found[:, 0])
    for n in (0, 1, 2):
        assert len(net_returns(values[:n], rows.bars[:n], 0.01)) == 0


# -- routing, against plain loops --------------------------------------------------------------------------


def routed(signals, label, share):
    """What one row of signals comes to if a regime is in force, member by member."""
    speak = [
        i
        for i, member in enumerate(MEMBERS)
        if not math.isnan(signals[i]) and (member.regime is None or member.regime == label)
    ]
    groups = [[i for i in speak if MEMBERS[i].kind == kind] for kind in ("specialist", "forecaster")]
    weights = [0.0] * len(MEMBERS)
    for group, other, part_of in zip(groups, groups[::-1], (1 - share, share), strict=True):
        for i in group:
            weights[i] = (part_of if other else 1.0) / len(group)
    return np.array(weights)


def test_equal_is_the_mean_of_all_opinions(rows):
    found = fitted("equal", rows).update(*rows)[1]
    for t in range(N):
        known = [x for x in rows.signals.values[t] if not math.isnan(x)]
        assert found[t] == pytest.approx(sum(known) / len(known) if known else 0.0, abs=1e-15)


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_routes_are_those_of_a_plain_loop(rows, share):
    hard = fitted("route", rows, {"forecaster_share": share}).update(*rows)[0]
    soft = fitted("regime_weighted", rows, {"forecaster_share": share}).update(*rows)[0]
    label = rows.labels.column("label")
    for t in range(N):
        signals, chances = rows.signals.values[t], rows.regimes.values[t]
        np.testing.assert_allclose(hard[t], routed(signals, label[t], share), atol=1e-15)
        if math.isnan(chances[0]):
            expected = routed(signals, -1, share)
        else:
            expected = sum(chances[r] * routed(signals, r, share) for r in range(3))
        np.testing.assert_allclose(soft[t], expected, atol=1e-15)
    # Negative control: labels matter, and so do probabilities.
    assert np.abs(hard - soft).max() > 0.1


def test_a_certain_regime_makes_soft_routing_hard(rows):
    label = rows.labels.column("label").astype(int)
    chances = np.where(label[:, None] < 0, np.nan, np.eye(3)[label])
    certain = rows._replace(regimes=RegimeProbabilities(rows.bars.time, chances, REGIME_NAMES))
    soft, hard = (fitted(name, rows).update(*certain) for name in ("regime_weighted", "route"))
    np.testing.assert_array_equal(soft[0], hard[0])
    np.testing.assert_array_equal(soft[1], hard[1])


def test_a_regime_without_anybody_stays_in_cash(rows):
    alone = (MEMBERS[0],)
    signals = rows.signals.select(["ranger"])
    single = rows._replace(signals=SignalTable(signals.time, np.ones((N, 1)), signals.names))
    hard = fitted("route", single, members=alone).update(*single)[1]
    soft = fitted("regime_weighted", single, members=alone).update(*single)[1]
    np.testing.assert_array_equal(hard, rows.labels.column("label") == Regime.RANGING)
    np.testing.assert_allclose(soft, np.nan_to_num(rows.regimes.values[:, 0]), atol=1e-15)


# -- the laws of fitting -----------------------------------------------------------------------------------


@each
def test_a_loaded_blender_answers_to_the_bit_and_without_pickle(blender, rows, name, chosen, tmp_path):
    first = saved(blender, tmp_path / "one")
    for content in first.values():
        json.loads(content)  # nothing else is in the folder
    again = load_blender(tmp_path / "one")
    assert type(again) is type(blender)
    assert again.members == MEMBERS
    assert again.fitted_until == blender.fitted_until == rows.bars.time[TRAIN - 1]
    assert again.config == blender.config
    for one, other in zip(blender.fresh().update(*rows), again.update(*rows), strict=True):
        assert one.tobytes() == other.tobytes()
    assert saved(again, tmp_path / "two") == first


@each
def test_fitting_twice_gives_the_same_bytes(blender, rows, name, chosen, tmp_path):
    first = saved(blender, tmp_path / "one")
    again = fitted(name, part(rows, 0, TRAIN), chosen)
    assert saved(again, tmp_path / "two") == first
    # A second fit of the same object forgets the first, and what it has streamed.
    again.update(*part(rows, TRAIN, N))
    again.fit(*part(rows, 0, TRAIN), members=MEMBERS, cost=COST, seed=1)
    assert saved(again, tmp_path / "two") == first
    # Negative controls: other rows, and another seed where there is chance in it.
    if name in LEARN:
        other = fitted(name, part(rows, 50, TRAIN), chosen)
        assert saved(other, tmp_path / "three")["blender.json"] != first["blender.json"]
    if chosen.get("model") == "xgboost":
        other = fitted(name, part(rows, 0, TRAIN), chosen, seed=2)
        assert saved(other, tmp_path / "four") != first


class Cheats(Blender):
    """Reads what lies behind the rows it is given: a slice is a view."""

    name = "cheats"

    def _learn(self, rows, seed):
        base = rows.signals.values.base
        self._mean = np.nanmean(base if base is not None else rows.signals.values)

    def _answer(self, rows):
        weights = shared(rows.signals.values, np.ones(len(self.members)))
        return weights, np.clip(blended(rows.signals.values, weights) - self._mean, -1, 1)

    def _parameters(self):
        return {"mean": self._mean}


def fits_alike_whatever_comes_later(make, rows, folder) -> bool:
    later = Rows(*(POISONS["frozen"](table[TRAIN:]) for table in rows))
    found = []
    for i, future in enumerate((part(rows, TRAIN, N), later)):
        whole = Rows(
            *(
                type(old)(**{**vars(old), "values": np.vstack([old.values[:TRAIN], new.values])})
                for old, new in zip(rows, future, strict=True)
            )
        )
        found.append(saved(make(part(whole, 0, TRAIN)), folder / str(i)))
    return found[0] == found[1]


@each
def test_a_fit_does_not_see_rows_after_its_own(rows, name, chosen, tmp_path):
    assert fits_alike_whatever_comes_later(lambda past: fitted(name, past, chosen), rows, tmp_path)


def test_a_fit_that_sees_them_is_caught(rows, tmp_path):
    def cheat(past):
        return Cheats().fit(*past, members=MEMBERS, cost=COST, seed=1)

    assert not fits_alike_whatever_comes_later(cheat, rows, tmp_path)


def test_a_fit_does_not_count_decisions_that_are_not_over(rows):
    # The last two rows of a fit have not been paid; what members want there changes nothing that is learned.
    past = part(rows, 0, TRAIN)
    values = past.signals.values.copy()
    values[-2:] = -values[-2:]
    other = past._replace(signals=SignalTable(past.signals.time, values, past.signals.names))
    for name, key in (("validated", "weights"), ("bma", "weights"), ("rank", "sums"), ("online", "gains")):
        one, two = (fitted(name, rows)._parameters()[key] for rows in (past, other))
        np.testing.assert_array_equal(one, two)
    # Negative control: the row before them does count.
    values[-3] = -np.nan_to_num(values[-3])
    other = past._replace(signals=SignalTable(past.signals.time, values, past.signals.names))
    one, two = (fitted("online", rows)._parameters()["gains"] for rows in (past, other))
    assert not np.array_equal(one, two)


# -- what is refused ---------------------------------------------------------------------------------------


@each
def test_an_unfitted_blender_refuses(rows, name, chosen, tmp_path):
    new = BLENDERS.create(name, chosen)
    assert new.fitted_until is None
    with pytest.raises(ValueError, match=f"blender {name} is not fitted"):
        new.update(*rows)
    with pytest.raises(ValueError, match=f"blender {name} is not fitted"):
        new.save(tmp_path / "nothing")
    assert not (tmp_path / "nothing").exists()


@each
def test_other_members_regimes_and_clocks_are_refused(blender, rows, name, chosen):
    fewer = rows.signals.select(rows.signals.names[1:])
    with pytest.raises(DataError, match=f"blender {name}: signals are of trender.* fitted on ranger"):
        blender.fresh().update(SignalTable(fewer.time, fewer.values, fewer.names), *rows[1:])
    crisis = RegimeProbabilities(
        rows.bars.time,
        np.column_stack([rows.regimes.values, 0.0 * rows.regimes.values[:, 0]]),
        (*REGIME_NAMES, "crisis"),
    )
    with pytest.raises(DataError, match="there are 4 regimes; it was fitted on 3"):
        blender.fresh().update(rows.signals, crisis, *rows[2:])
    with pytest.raises(DataError, match="one clock"):
        blender.fresh().update(rows.signals, rows.regimes, rows.labels, rows.bars[1:])


def test_a_fit_refuses_what_does_not_fit_together(rows):
    past = part(rows, 0, TRAIN)
    new = BLENDERS.create("equal")
    with pytest.raises(DataError, match="and members are ranger, trender; they must be the same"):
        new.fit(*past, members=MEMBERS[:2], cost=COST, seed=1)
    stranger = (MEMBERS[0]._replace(regime=Regime.CRISIS), *MEMBERS[1:])
    with pytest.raises(DataError, match="ranger trades the regime crisis, which is none of ranging, "):
        new.fit(*past, members=stranger, cost=COST, seed=1)
    with pytest.raises(DataError, match="no rows to fit on"):
        new.fit(*part(rows, 0, 0), members=MEMBERS, cost=COST, seed=1)
    for cost in (-1.0, math.nan, math.inf):
        with pytest.raises(ValueError, match="costs zero or more"):
            new.fit(*past, members=MEMBERS, cost=cost, seed=1)
    assert new.fitted_until is None


@pytest.mark.parametrize("name", ["validated", "bma", "stack"])
def test_too_few_rows_are_refused_in_a_sentence(rows, name):
    with pytest.raises(DataError, match=rf"blender {name}: .* hold \d+ finished decisions; .* at least$"):
        fitted(name, part(rows, 0, 60))


def test_a_fit_that_failed_leaves_nothing_that_answers(rows):
    made = fitted("bma", part(rows, 0, TRAIN))
    with pytest.raises(DataError):
        made.fit(*part(rows, 0, 60), members=MEMBERS, cost=COST, seed=1)
    with pytest.raises(ValueError, match="not fitted"):
        made.update(*rows)


def altered(document: dict, path: str, value: object) -> dict:
    copy = json.loads(json.dumps(document))
    *parents, last = path.split(".")
    place = copy
    for key in parents:
        place = place[key]
    place[last] = value
    return copy


DAMAGES = [
    ("format", 99, "has format 99"),
    ("format", "one", "is no saved blender"),
    ("blender", "equal", "holds the blender 'equal'"),
    ("members", [], "there must be one at least"),
    ("members", [["a", "oracle", None]], "member a is 'oracle'"),
    ("members", [["a", "specialist", "sunny"]], "of 'sunny', which nobody is"),
    ("members", ["a"], "it must be name, kind and regime"),
    ("settings", {"no_such": 1}, "no_such"),
    ("cost", -1.0, "cost is -1"),
    ("parameters", {}, "parameters.[a-z]+ is missing"),
    ("files", {"../evil": "0"}, "is missing or too large"),
]


@pytest.mark.parametrize(("place", "value", "said"), DAMAGES)
def test_a_damaged_blender_is_refused_in_a_sentence(made, place, value, said, tmp_path):
    made["validated"].save(tmp_path)
    path = tmp_path / "blender.json"
    path.write_text(json.dumps(altered(json.loads(path.read_text()), place, value)))
    with pytest.raises((DataError, ConfigError), match=said):
        BLENDERS.get("validated").load(tmp_path)


@each
def test_lost_and_misshapen_parameters_are_refused(blender, name, chosen, tmp_path):
    blender.save(tmp_path)
    path = tmp_path / "blender.json"
    document = json.loads(path.read_text())
    for key in document["parameters"]:
        for value in ([], [[1.0]] * 7, "text", None, [-5.0] * len(MEMBERS), [float("nan")] * len(MEMBERS)):
            path.write_text(json.dumps(altered(document, f"parameters.{key}", value)))
            if key in ("gains", "log_score") and value == [-5.0] * len(MEMBERS):
                load_blender(tmp_path)  # nothing is wrong with these
                continue
            with pytest.raises(DataError, match=f"parameters.{key}"):
                load_blender(tmp_path)
    path.write_text("{")
    with pytest.raises(DataError, match="cannot be read as JSON"):
        load_blender(tmp_path)
    path.unlink()
    with pytest.raises(DataError, match="no such file"):
        load_blender(tmp_path)


def test_an_unknown_blender_is_refused(made, tmp_path):
    made["equal"].save(tmp_path)
    path = tmp_path / blenders.FILE
    path.write_text(json.dumps(altered(json.loads(path.read_text()), "blender", "oracle")))
    with pytest.raises(DataError, match="holds the blender 'oracle'; known are bma, equal"):
        load_blender(tmp_path)
    with pytest.raises(ConfigError, match=r"no blender named 'rout'.*route"):
        BLENDERS.create("rout")


# -- the edges ---------------------------------------------------------------------------------------------


@each
def test_one_member_alone_is_followed(rows, name, chosen):
    alone = (Member("trees", "forecaster", None),)
    signals = rows.signals.select(["trees"])
    single = rows._replace(signals=SignalTable(signals.time, signals.values, signals.names))
    made = fitted(name, part(single, 0, TRAIN), chosen, members=alone)
    weights, found = made.update(*single)
    known = ~np.isnan(signals.values[:, 0])
    if name != "stack":
        np.testing.assert_allclose(found[known], signals.values[known, 0], atol=1e-9)
        np.testing.assert_allclose(weights[known, 0], 1.0, atol=1e-9)
    assert (found[~known] == 0.0).all()


@each
def test_members_who_never_spoke_and_a_frozen_market_do_no_harm(rows, name, chosen):
    past, later = part(rows, 0, TRAIN), part(rows, TRAIN, N)
    for values in (np.zeros((TRAIN, 6)), np.full((TRAIN, 6), np.nan)):
        mute = past._replace(signals=SignalTable(past.signals.time, values, past.signals.names))
        weights, found = fitted(name, mute, chosen).update(*later)
        assert np.isfinite(weights).all()
        assert np.isfinite(found).all()
    frozen = POISONS["frozen"](past.bars)
    assert (np.nan_to_num(earned(frozen)) == 0.0).all()
    still = past._replace(bars=frozen)
    if name in ("bma", "stack"):
        with pytest.raises(DataError, match="hold 0 finished decisions"):
            fitted(name, still, chosen)
    else:
        weights, found = fitted(name, still, chosen).update(*later)
        assert np.isfinite(weights).all()
        assert np.isfinite(found).all()


@each
def test_single_rows_and_no_rows_are_answered(blender, rows, name, chosen):
    new = blender.fresh()
    weights, found = new.update(*part(rows, 0, 0))
    assert weights.shape == (0, len(MEMBERS))
    assert found.shape == (0,)
    weights, found = new.update(*part(rows, 20, 21))
    assert weights.shape == (1, len(MEMBERS))
    assert found.shape == (1,)


@each
def test_a_fourth_regime_is_blended_like_the_others(rows, name, chosen, tmp_path):
    chances = 0.5 * np.column_stack([rows.regimes.values, rows.regimes.values.sum(axis=1)])
    label = np.where(np.arange(N) % 50 < 10, 3.0, rows.labels.column("label"))
    four = rows._replace(
        regimes=RegimeProbabilities(rows.bars.time, chances, CRISIS_NAMES),
        labels=Table(rows.bars.time, label[:, None], ("label",)),
    )
    members = (*MEMBERS[:2], MEMBERS[2]._replace(regime=Regime.CRISIS), *MEMBERS[3:])
    made = fitted(name, part(four, 0, TRAIN), chosen, members=members)
    weights, found = made.update(*four)
    made.save(tmp_path)
    again = load_blender(tmp_path)
    assert again.members == members
    assert again.update(*four)[1].tobytes() == found.tobytes()
    assert np.isfinite(weights).all()
    if name == "route":
        assert (weights[label == 3.0, 2] > 0.0).any()
        assert not weights[(label == 2.0), :3].any()


def test_labels_need_a_column_of_that_name(rows):
    unlabelled = rows._replace(labels=Table(rows.bars.time, np.zeros((N, 1)), ("regime",)))
    with pytest.raises(LookupError, match="no column 'label'"):
        fitted("route", rows).update(*unlabelled)
