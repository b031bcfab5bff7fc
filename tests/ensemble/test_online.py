"""Members who weigh by what they earn: twins in plain loops, and the bound on regret against an adversary."""

import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ensemble.blenders import BLENDERS, load_blender, net_returns
from ensemble.online import OwnReturns, hedge
from ensemble.signals import SignalTable
from tests.ensemble.members_factory import COST, MEMBERS, fitted, market, part

S = len(MEMBERS)


def paid(signals, opens, cost, t, i):
    """Net return, known at t, of what member i wanted two rows before; None where it wanted nothing."""
    if t < 2 or math.isnan(signals[t - 2, i]):
        return None
    before = signals[t - 3, i] if t > 2 and not math.isnan(signals[t - 3, i]) else 0.0
    held = signals[t - 2, i]
    return held * (opens[t] / opens[t - 1] - 1.0) - cost * abs(held - before)


def test_own_returns_are_net_returns_two_rows_later():
    rows = market(300, seed=1)
    known = OwnReturns(S, COST).update(rows, None)
    ahead = net_returns(rows.signals.values, rows.bars, COST)
    spoke = ~np.isnan(rows.signals.values[:-2])
    np.testing.assert_allclose(known[2:][spoke], ahead[spoke], rtol=0, atol=1e-16)
    assert np.isnan(known[2:][~spoke]).all()
    assert np.isnan(known[:2]).all()
    # What was known by a time does not teach again.
    later = OwnReturns(S, COST).update(rows, int(rows.bars.time[99]))
    assert np.isnan(later[:100]).all()
    np.testing.assert_array_equal(later[100:], known[100:])


# -- rank --------------------------------------------------------------------------------------------------


def test_ranks_are_those_of_a_plain_loop():
    rows = market(400, seed=2, edges={"trees": 0.2})
    past, later = part(rows, 0, 150), part(rows, 150, 400)
    decay = 0.5 ** (1 / 50)
    sums = [[0.0, 0.0] for _ in MEMBERS]
    for span in (past, later):
        signals, opens = span.signals.values, span.bars.column("open")
        expected = np.zeros(signals.shape)
        for t in range(len(signals)):
            for i in range(S):
                net = paid(signals, opens, COST, t, i)
                if net is not None:
                    sums[i] = [decay * sums[i][0] + net, decay * sums[i][1] + net**2]
            score = [a / math.sqrt(b) if b else 0.0 for a, b in sums]
            known = [i for i in range(S) if not math.isnan(signals[t, i])]
            places = [
                sum(score[j] < score[i] for j in known) + (sum(score[j] == score[i] for j in known) + 1) / 2
                for i in known
            ]
            if known:
                expected[t, known] = np.array(places) / sum(places)
    weights = fitted("rank", past, {"half_life_bars": 50.0}).update(*later)[0]
    np.testing.assert_allclose(weights, expected, atol=1e-14)
    # Negative control: places differ.
    assert np.ptp(expected[-1]) > 0.2


def test_rank_begins_as_equal_and_puts_the_best_first():
    rows = market(3000, seed=4, edges={"network": 0.25, "ranger": -0.25}, holes=False)
    weights = fitted("rank", part(rows, 0, 3)).update(*part(rows, 3, 3000))[0]
    np.testing.assert_allclose(weights[:2], 1 / S, atol=1e-15)
    late = weights[1000:].mean(axis=0)
    assert late.argmax() == 5
    assert late.argmin() == 0
    assert late[5] == pytest.approx(6 / 21, abs=0.01)
    assert late[0] == pytest.approx(1 / 21, abs=0.01)


# -- online, against a plain loop --------------------------------------------------------------------------


def test_weights_of_hedge_are_those_of_a_plain_loop():
    rows = market(400, seed=5, edges={"trees": 0.3})
    past, later = part(rows, 0, 200), part(rows, 200, 400)
    made = fitted("online", past, {"rate": 2.0, "unit_quantile": 0.9})
    nets = np.abs(net_returns(past.signals.values, past.bars, COST)).ravel()
    unit = np.quantile(nets[nets > 0], 0.9)
    assert made.unit == unit
    gains, rounds = np.zeros(S), 0
    for span in (past, later):
        signals, opens = span.signals.values, span.bars.column("open")
        weights = np.zeros(signals.shape)
        for t in range(len(signals)):
            found = {i: paid(signals, opens, COST, t, i) for i in range(S)}
            found = {i: min(max(net / unit, -1), 1) for i, net in found.items() if net is not None}
            if found:
                rounds += 1
                own = sum(weights[t - 2, i] * gain for i, gain in found.items())
                # Who slept is credited with the gain of the blend.
                gains += np.array([found.get(i, own) for i in range(S)])
            rate = 2.0 * math.sqrt(math.log(S) / (rounds + 2))
            power = np.where(np.isnan(signals[t]), 0.0, np.exp(rate * (gains - gains.max())))
            weights[t] = power / power.sum() if power.any() else 0.0
    np.testing.assert_allclose(made.update(*later)[0], weights, atol=1e-12)
    assert np.ptp(weights[-1]) > 0.2


def test_online_goes_on_where_its_fit_ended():
    rows = market(1500, seed=6, edges={"trees": 0.2}, holes=False)
    made = fitted("online", part(rows, 0, 1000), {"rate": 3.0})
    first = made.fresh().update(*part(rows, 1000, 1500))[0]
    assert first[0].argmax() == 4
    assert first[0].max() > 1.3 / S
    # Streamed again, the rows of the fit teach nothing twice: the weights do not move in them.
    again = made.fresh().update(*rows)[0]
    assert (again[:1000] == again[0]).all()
    np.testing.assert_array_equal(again[0], first[0])
    assert np.abs(again[1200] - again[0]).max() > 1e-3


# -- online, the planted best and what it costs ------------------------------------------------------------


@pytest.mark.parametrize("name", ["online", "rank"])
def test_who_earns_most_weighs_most(name):
    rows = market(4000, seed=7, edges={"stormer": 0.1})
    weights = fitted(name, part(rows, 0, 1000)).update(*part(rows, 1000, 4000))[0]
    assert weights[-500:].mean(axis=0).argmax() == 2
    nobody = market(4000, seed=7)
    weights = fitted(name, part(nobody, 0, 1000)).update(*part(nobody, 1000, 4000))[0]
    assert weights[-500:].mean(axis=0).max() < 0.3


@pytest.mark.parametrize("name", ["online", "rank"])
def test_a_busy_member_is_judged_after_its_costs(name):
    # Both foretell as well, and one changes its mind all the time.
    calm = market(3000, seed=8, edges={"trees": 0.1}, half_life=200.0, holes=False)
    values = calm.signals.values.copy()
    values[:, 5] = np.clip(values[:, 4] + 0.4 * np.where(np.arange(3000) % 2, 1.0, -1.0), -1.0, 1.0)
    rows = calm._replace(signals=SignalTable(calm.signals.time, values, calm.signals.names))
    free, dear = (
        fitted(name, part(rows, 0, 2500), cost=cost).update(*part(rows, 2500, 3000))[0].mean(axis=0)
        for cost in (0.0, 0.002)
    )
    assert dear[4] > 1.5 * dear[5]
    assert dear[5] < 0.8 * free[5]


# -- online, the bound on regret ---------------------------------------------------------------------------


def bound(rounds: int, members: int, rate: float) -> float:
    return (1 / rate + 3 * rate) * math.sqrt(rounds * math.log(members))


class Game:
    """The kernel played round by round: gains of a row are chosen when its weights are known."""

    def __init__(self, s: int, rate: float) -> None:
        self.rate, self.gains, self.rounds = rate, np.zeros(s), np.zeros(1)
        self.weights, self.pending = np.zeros((2, s)), [np.full((1, s), np.nan)] * 2

    def play(self, choose, asleep=None) -> tuple[np.ndarray, np.ndarray]:
        """Return weights and gains of one round; ``choose(weights)`` gives the gains of all members."""
        s = self.gains.size
        signals = np.zeros((1, s)) if asleep is None else np.where(asleep, np.nan, 0.0)[None, :]
        out = np.empty((1, s))
        hedge(self.pending[0], signals, self.rate, self.gains, self.rounds, self.weights, out)
        gained = np.where(np.isnan(signals[0]), np.nan, choose(out[0]))
        self.pending = [self.pending[1], gained[None, :]]
        return out[0], gained


def against_the_heavy(weights):
    """The adversary that knows the weights: half of the members by weight lose, the others win."""
    order = np.argsort(-weights, kind="stable")
    gains = np.ones(weights.size)
    gains[order[: max(weights.size // 2, 1)]] = -1.0
    return gains


def regrets(rounds, s, rate, choose, sleepers=None) -> np.ndarray:
    """What each member gained more than the blend, in the rounds in which it was awake."""
    game, regret = Game(s, rate), np.zeros(s)
    for t in range(rounds):
        asleep = None if sleepers is None else sleepers(t)
        weights, gained = game.play(lambda w, t=t: choose(t, w), asleep)
        known = ~np.isnan(gained)
        own = float(weights[known] @ gained[known])
        regret[known] += gained[known] - own
    return regret


@pytest.mark.parametrize("s", [2, 3, 8])
def test_regret_stays_below_the_bound_against_an_adversary(s):
    rate = BLENDERS.create("online").config.rate
    for rounds in (50, 1500):
        worst = regrets(rounds, s, rate, lambda t, w: against_the_heavy(w)).max()
        assert worst <= bound(rounds, s, rate)
        # The adversary is a good one: the regret is of the order of the bound.
        assert worst > 0.1 * bound(rounds, s, rate)


@given(seed=st.integers(0, 10_000), s=st.integers(2, 6), rounds=st.integers(5, 150), rate=st.floats(0.2, 3.0))
@settings(max_examples=40, deadline=None)
def test_regret_stays_below_the_bound_on_sequences_with_sleepers(seed, s, rounds, rate):
    random = np.random.default_rng(seed)
    drift = random.uniform(-1, 1, s)
    share = random.uniform(0, 0.6)

    def choose(t, weights):
        pick = random.integers(3)
        if pick == 0:
            return against_the_heavy(weights)
        return np.clip(drift * (pick == 1) + random.normal(0, 0.5, s), -1, 1)

    worst = regrets(rounds, s, rate, choose, lambda t: random.random(s) < share).max()
    assert worst <= bound(rounds, s, rate)


def test_following_the_leader_breaks_the_bound():
    # Negative control: gains that swing by turns ruin whoever bets all on the best so far.
    def swing(t, weights):
        side = 1.0 if (t // 2) % 2 else -1.0
        return np.array([side, -side]) * (0.5 if t < 2 else 1.0)

    rounds = 600
    allowed = bound(rounds, 2, BLENDERS.create("online").config.rate)
    assert regrets(rounds, 2, 1e4, swing).max() > allowed
    assert regrets(rounds, 2, 0.577, swing).max() <= allowed


def test_weights_of_equal_gains_never_move():
    # The smallest regret there is: nothing can be lost by choosing among equals.
    assert np.abs(regrets(200, 4, 0.577, lambda t, w: np.full(4, math.sin(t)))).max() < 1e-12


@pytest.mark.parametrize("rate", [0.3, 0.577, 2.0])
def test_weights_move_no_further_than_the_bound_says(rate):
    rounds, s = 1500, 5
    game, moved, before = Game(s, rate), 0.0, None
    for _ in range(rounds):
        weights, _ = game.play(against_the_heavy)
        moved += 0.0 if before is None else np.abs(weights - before).sum()
        before = weights
    assert moved <= 3 * rate * math.sqrt(rounds * math.log(s))


def test_the_net_return_of_the_blend_keeps_the_bound(tmp_path):
    # Through the public class, in returns: what the best member nets more than the blend, costs included.
    rows = market(3000, seed=9, edges={"trees": 0.1, "ranger": -0.1}, holes=False)
    net = net_returns(rows.signals.values, rows.bars, COST)
    fitted("online", rows).save(tmp_path)
    path = tmp_path / "blender.json"
    document = json.loads(path.read_text())
    # As if it had learned nothing yet, in a unit that cuts nothing.
    document["fitted_until"], unit = 0, float(np.abs(net).max())
    document["parameters"] = {"gains": [0.0] * S, "rounds": 0.0, "unit": unit}
    path.write_text(json.dumps(document))
    made = load_blender(tmp_path)
    weights, found = made.update(*rows)
    own = net_returns(found, rows.bars, COST)
    rate, root = made.config.rate, math.sqrt(len(net) * math.log(S))
    missed = (net.sum(axis=0) - own.sum()).max()
    assert 0.0 < missed <= unit * (1 / rate + 3 * rate) * root + COST * 3 * rate * root
    # The blend pays for no more turnover than its members, weighted, and the moves of the weights.
    change = np.abs(np.diff(rows.signals.values, axis=0))
    paid_for = (weights[1:] * change).sum() + np.abs(np.diff(weights, axis=0)).sum()
    assert np.abs(np.diff(found)).sum() <= paid_for
    assert np.abs(np.diff(weights, axis=0)).sum() <= 3 * rate * root
