"""The population kernel against the streaming kernel and the account, and both against plain Python."""

import hashlib
import math
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numba
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backtest import kernels
from specialists import blend, origin8
from tests.reference import account as reference
from tests.reference import cases
from tests.reference.planted import interpreted

compiled = pytest.mark.skipif(
    bool(numba.config.DISABLE_JIT), reason="the intrinsics lift and lower exist only in compiled code"
)
FAMILIES = {"blend": blend.Blend(blend.BlendConfig()), "origin8": origin8.Origin8(origin8.Origin8Config())}
DECIDE = {"blend": blend.decide, "origin8": origin8.decide}
AWAKE = (
    "always",
    "never",
    "first bar",
    "last bar",
    "last two bars",
    "single bars",
    "every other",
    "episodes",
)
OFF = math.inf


NONE = (None,) * len(kernels.OPTIONS)
# The rules of a venue that each option of the kernel is for.
RULED = {
    "trail": ("trail",),
    "maker": ("maker",),
    "impact": ("impact",),
    "funding": ("funding",),
    "margin": ("margin", "mark"),
    "grid": ("lot", "grid", "least", "most"),
    "room": ("room",),
    "breakers": (),
}


class Market(NamedTuple):
    """What a population is evaluated on."""

    rows: np.ndarray
    prices: np.ndarray
    rates: np.ndarray
    terms: np.ndarray
    awake: np.ndarray
    ends: np.ndarray
    bounds: np.ndarray
    venue: np.ndarray
    tiers: np.ndarray

    def charged(self, rate):
        """Return the market with another cost of trading."""
        terms = self.terms.copy()
        terms[:, kernels.FEE], terms[:, kernels.RATE] = 0.0, rate
        return self._replace(rates=np.full(len(self.rows), rate), terms=terms)

    def cut(self, rows):
        """Return the market of some rows."""
        parts = (np.ascontiguousarray(array[rows]) for array in self[:5])
        return Market(*parts, *self[5:])


def market(family, seed, n=300, awake="episodes", folds=4, bounds=(1.0, 0.25, OFF), options=(), leverage=1.0):
    rng = np.random.default_rng(seed)
    rules = [rule for option in options for rule in RULED[option]]
    halts = {"max_drawdown": 0.0317, "daily_loss": 0.0117} if "breakers" in options else {}
    case = reference.scenario(seed, n, rules=rules, leverage=leverage, **halts)
    if family == "blend":
        signals = np.cumsum(rng.normal(0.0, 0.5, (n, 14)), axis=0)
        signals = np.clip(signals - signals.mean(axis=0), -4.0, 4.0)
        rows = np.column_stack([signals, rng.uniform(0.002, 0.03, (n, 2))])
    else:
        signal = np.clip(np.cumsum(rng.normal(0.0, 0.3, n)), -1.0, 1.0)
        rows = np.column_stack([signal, rng.uniform(0.01, 0.1, n), rng.normal(0.0, 0.015, n)])
    mask = np.zeros(n, np.int8)
    if awake == "always":
        mask[:] = 1
    elif awake == "first bar":
        mask[0] = 1
    elif awake == "last bar":
        mask[-1] = 1
    elif awake == "last two bars":
        mask[-2:] = 1
    elif awake == "single bars":
        mask[rng.random(n) < 0.1] = 1
    elif awake == "every other":
        mask[::2] = 1
    elif awake == "episodes":
        mask[:] = np.repeat(rng.random(n) < 0.4, rng.integers(1, 8, n))[:n]
    ends = np.append(np.sort(rng.choice(np.arange(1, n), folds - 1, replace=False)), n)
    limits = case.bounds.copy()
    limits[:4] = bounds[0], -bounds[0], *bounds[1:]
    rates = np.ascontiguousarray(case.terms[:, kernels.RATE])
    return Market(rows, case.prices, rates, case.terms, mask, ends, limits, case.venue, case.tiers)


def genomes(family, seed, p):
    space = FAMILIES[family].space
    return FAMILIES[family].express(space.decode(np.random.default_rng(seed).random((p, space.n_genes))))


def switches(options):
    return tuple(True if option in options else None for option in kernels.OPTIONS)


def evaluate(family, genes, case, options=()):
    out = np.full((len(genes), case.ends.size * 6), math.nan)
    FAMILIES[family].evaluate(genes, *case, out, *switches(options))
    return out.reshape(len(genes), case.ends.size, 6)


def follow(family, genes, case, cuts=()):
    """Return the decisions, and the memory at the end, of one genome streamed in pieces."""
    state = np.concatenate([kernels.SHADOW, FAMILIES[family].fresh])
    parts = []
    for first, end in zip([0, *cuts], [*cuts, len(case.rows)], strict=True):
        out = np.empty((end - first, 3))
        rows, prices = case.rows[first:end].copy(), case.prices[first:end].copy()
        FAMILIES[family].follow(genes, rows, prices, case.awake[first:end], case.bounds, state, out)
        parts.append(out)
    return np.concatenate(parts), state


def one_by_one(family, genes, case):
    """Return the statistics of a population by following each genome and trading what it decides."""
    out, last = [], (case.bounds, case.venue, case.tiers)
    for genome in genes:
        decisions = follow(family, genome, case)[0]
        scenario = reference.Scenario(decisions, case.prices, case.terms, *last)
        done = cases.run(scenario, kernels.simulate_targets)
        out.append(reference.statistics(done.curve[:, 1].tolist(), done.equity, done.trades, case.ends))
    return np.array(out)


def assert_same_statistics(population, expected):
    # Sums, trades and growth bit for bit; the drawdown of the twin is a ratio at every bar.
    assert np.array_equal(population[:, :, :5], expected[:, :, :5])
    assert np.allclose(population[:, :, 5], expected[:, :, 5], rtol=1e-12, atol=1e-15)


@compiled
@pytest.mark.parametrize("awake", AWAKE)
@pytest.mark.parametrize("family", FAMILIES)
def test_a_population_earns_what_its_genomes_earn_one_by_one(family, awake):
    for seed in range(3):
        case = market(family, seed, awake=awake)
        genes = genomes(family, seed, 20)
        statistics = evaluate(family, genes, case)
        assert statistics[:, -1, 4].min() > 1e-3  # nobody is ruined
        assert_same_statistics(statistics, one_by_one(family, genes, case))


@compiled
@pytest.mark.parametrize("family", FAMILIES)
def test_genomes_trade_at_all_in_these_markets(family):
    statistics = evaluate(family, genomes(family, 1, 100), market(family, 1, n=1000, awake="always"))
    traded = statistics[:, :, 3].sum(axis=1)
    assert np.median(traded) > 10
    assert len(np.unique(statistics[:, -1, 0])) > 50  # and each in its own way


@compiled
@settings(max_examples=40, deadline=None)
@given(
    family=st.sampled_from(list(FAMILIES)),
    seed=st.integers(0, 2**32 - 1),
    n=st.integers(2, 80),
    mask=st.sampled_from(AWAKE),
    bounds=st.sampled_from([(1.0, OFF, OFF), (0.3, 0.02, 0.05), (0.05, 0.25, OFF)]),
    p=st.integers(1, 70),
)
def test_any_population_in_any_market_equals_its_genomes(family, seed, n, mask, bounds, p):
    case = market(family, seed, n, mask, folds=1 if n < 4 else 3, bounds=bounds)
    genes = genomes(family, seed, p)
    chosen = np.arange(p) if p < 8 else np.array([0, 1, p // 2, p - 1])
    assert_same_statistics(evaluate(family, genes, case)[chosen], one_by_one(family, genes[chosen], case))


@compiled
@pytest.mark.parametrize("family", FAMILIES)
def test_b2_population_and_stream_equal_loops_in_plain_python(family):
    decide = DECIDE[family].py_func
    fresh = FAMILIES[family].fresh
    for seed, awake in enumerate(AWAKE):
        case = market(family, seed, n=70, awake=awake)
        genes = genomes(family, seed, 4)
        for genome in genes:
            bounds = case.bounds[:5]
            plain = reference.follow(decide, fresh, genome, case.rows, case.prices, case.awake, bounds)
            assert np.array_equal(follow(family, genome, case)[0], np.array(plain))
        plain = reference.population(decide, fresh, genes, *case)
        statistics = evaluate(family, genes, case)
        assert np.array_equal(statistics[:, :, 3], plain[:, :, 3])
        assert np.allclose(statistics, plain, rtol=1e-9, atol=1e-12)


EVERY = tuple(kernels.OPTIONS)


@compiled
@pytest.mark.parametrize("options", [*((option,) for option in EVERY), EVERY], ids="+".join)
def test_an_option_of_the_population_kernel_earns_what_the_complete_account_earns(options):
    traded = 0.0
    for seed in range(6):
        case = market("blend", seed, options=options, leverage=3.0 if "margin" in options else 1.0)
        genes = genomes("blend", seed, 12)
        statistics = evaluate("blend", genes, case, options)
        assert_same_statistics(statistics, one_by_one("blend", genes, case))
        traded += np.abs(statistics - evaluate("blend", genes, case)).max()
    assert traded > 1e-9  # and the option makes a difference in some market


@compiled
def test_options_that_restrict_nothing_change_no_bit():
    case = market("blend", 3)
    genes = genomes("blend", 3, 70)
    for options in ((), *((option,) for option in EVERY if option != "margin")):
        assert np.array_equal(evaluate("blend", genes, case, options), evaluate("blend", genes, case))


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    n=st.integers(2, 60),
    mask=st.sampled_from(AWAKE),
    options=st.sets(st.sampled_from(EVERY)),
    leverage=st.sampled_from([1.0, 3.0]),
)
def test_any_choice_of_options_equals_the_plain_twin_interpreted(seed, n, mask, options, leverage):
    case = market("blend", seed, n, mask, folds=1 if n < 4 else 3, options=options, leverage=leverage)
    genes = genomes("blend", seed, 3)
    blended = getattr(blend.decide, "py_func", blend.decide)
    with np.errstate(all="ignore"):
        found = statistics_of(interpreted(lanes=2), blended, genes, case, (0.0,) * 16, options)
    expected = reference.population(blended, (0.0,), genes, *case)
    assert np.array_equal(found[:, :, 3], expected[:, :, 3])
    assert np.allclose(found, expected, rtol=1e-9, atol=1e-12)


@compiled
@pytest.mark.parametrize("family", FAMILIES)
def test_a_genome_earns_the_same_alone_and_among_any_neighbours(family):
    case = market(family, 5)
    genes = genomes(family, 5, 200)
    whole = evaluate(family, genes, case)
    for p in (1, 63, 64, 65, 128, 200):
        assert np.array_equal(evaluate(family, genes[:p], case), whole[:p])
        assert np.array_equal(evaluate(family, genes[200 - p :], case), whole[200 - p :])
    order = np.random.default_rng(0).permutation(200)
    assert np.array_equal(evaluate(family, genes[order], case), whole[order])


@compiled
@settings(max_examples=30, deadline=None)
@given(st.sampled_from(list(FAMILIES)), st.integers(0, 999), st.sets(st.integers(1, 119), max_size=6))
def test_a_stream_cut_anywhere_is_the_whole_stream_bit_for_bit(family, seed, cuts):
    case = market(family, seed, n=120)
    genome = genomes(family, seed, 1)[0]
    whole, end = follow(family, genome, case)
    pieces, last = follow(family, genome, case, sorted(cuts))
    assert np.array_equal(whole, pieces)
    assert np.array_equal(end, last)


@compiled
@pytest.mark.parametrize("family", FAMILIES)
def test_a_stream_cut_bar_by_bar_is_the_whole_stream(family):
    case = market(family, 3, n=150)
    for genome in genomes(family, 3, 5):
        whole, end = follow(family, genome, case)
        pieces, last = follow(family, genome, case, range(1, 150))
        assert np.array_equal(whole, pieces)
        assert np.array_equal(end, last)


@compiled
@pytest.mark.parametrize("family", FAMILIES)
def test_an_altered_future_changes_no_earlier_fold_and_no_earlier_decision(family):
    case, stranger = market(family, 7), market(family, 8)
    cut = int(case.ends[1])
    altered = [array.copy() for array in case[:5]]
    for array, other in zip(altered, stranger[:5], strict=True):
        array[cut:] = other[cut:]
    altered = Market(*altered, *case[5:])
    genes = genomes(family, 7, 70)
    assert np.array_equal(evaluate(family, genes, case)[:, :2], evaluate(family, genes, altered)[:, :2])
    one, two = follow(family, genes[0], case)[0], follow(family, genes[0], altered)[0]
    assert np.array_equal(one[:cut], two[:cut])
    assert not np.array_equal(one, two)


@compiled
@pytest.mark.parametrize("family", FAMILIES)
def test_b11_two_runs_and_two_threads_give_the_same_bytes(family):
    case = market(family, 9, n=2000)
    genes = genomes(family, 9, 130)

    def digest(_=None):
        return hashlib.sha256(evaluate(family, genes, case).tobytes()).hexdigest()

    with ThreadPoolExecutor(2) as threads:
        digests = {digest(), digest(), *threads.map(digest, range(4))}
        halves = threads.map(lambda part: evaluate(family, part, case), (genes[:65], genes[65:]))
        digests.add(hashlib.sha256(np.concatenate(list(halves)).tobytes()).hexdigest())
    assert len(digests) == 1


@compiled
@pytest.mark.parametrize("family", FAMILIES)
def test_bounds_of_the_account_bind_every_decision(family):
    case = market(family, 4, awake="always", bounds=(0.02, 0.003, 0.004))
    for genome in genomes(family, 4, 10):
        out = follow(family, genome, case)[0]
        assert np.abs(out[:, 0]).max() <= 0.02
        assert out[:, 1].max() <= 0.003
        assert out[:, 2].max() <= 0.004


@compiled
@pytest.mark.parametrize("family", FAMILIES)
def test_asleep_nothing_is_wanted_and_nothing_is_remembered(family):
    case = market(family, 6)
    out = follow(family, genomes(family, 6, 1)[0], case)[0]
    asleep = case.awake == 0
    assert not out[asleep, 0].any()
    assert np.isinf(out[asleep, 1:]).all()
    # The first decisions of an episode are those of a specialist that has just been made.
    episode = int(np.flatnonzero(np.diff(case.awake) == 1)[3]) + 1
    alone = follow(family, genomes(family, 6, 1)[0], case.cut(slice(episode, None)))[0]
    assert np.array_equal(alone, out[episode:])


@compiled
@pytest.mark.parametrize("family", FAMILIES)
def test_a_population_equals_its_genomes_when_some_lose_everything(family):
    case = market(family, 2, n=2000, awake="always").charged(0.6)
    genes = genomes(family, 2, 60)
    statistics = evaluate(family, genes, case)
    assert_same_statistics(statistics, one_by_one(family, genes, case))


def ruin():
    """Return statistics, (p, 2, 6), of genomes that trade too dearly, and who is ruined in the first fold."""
    case = market("blend", 2, n=3000, awake="always", folds=2)
    case = case.charged(0.3)._replace(ends=np.array([2000, 3000]))
    statistics = evaluate("blend", genomes("blend", 2, 100), case)
    return statistics, statistics[:, 0, 4] <= kernels.RUIN * 1.5


@compiled
def test_dear_trading_ruins_some_genomes():
    statistics, ruined = ruin()
    assert 10 < ruined.sum() < 90
    assert (statistics[ruined, 0, 5] < -0.99999).all()


@compiled
def test_a_ruined_genome_earns_nothing_in_later_folds():
    statistics, ruined = ruin()
    assert not statistics[ruined, 1, :4].any()
    assert (statistics[ruined, 1, 4] == 1.0).all()


# Families of other people, uncompiled.


def statistics_of(engine, decide, genes, case, like_row, options=()):
    out = np.empty((len(genes), case.ends.size * 6))
    like_genes = tuple(genes[0].tolist())
    engine.population(decide, like_genes, like_row, (0.0,), genes, *case, out, *switches(options))
    return out.reshape(len(genes), case.ends.size, 6)


def test_age_is_the_same_in_stream_and_population_while_flat():
    ages = {"population": [], "stream": []}

    def decide(genes, row, held, age, memory):
        ages[now].append(float(age))
        return (1.0 if row[0] > 0 else 0.0), OFF, OFF, memory

    case = market("origin8", 1, n=40, awake="single bars")
    case = case._replace(awake=(np.arange(40) % 8 < 2).astype(np.int8))
    engine = interpreted(lanes=1)
    now = "population"
    statistics_of(engine, decide, np.zeros((1, 1)), case, (0.0,) * 3)
    now = "stream"
    state, out = np.zeros(6), np.empty((40, 3))
    engine.stream(
        decide,
        (0.0,),
        (0.0,) * 3,
        (0.0,),
        np.zeros(1),
        case.rows,
        case.prices,
        case.awake,
        case.bounds,
        state,
        out,
    )
    assert ages["population"] == ages["stream"]


def test_a_decision_that_is_not_a_number_is_flat():
    engine = interpreted()
    _, _, exposure, _, _ = engine.decided((math.nan, 0.1, 0.1, (0.0,)), 0.0, OFF, OFF, 1.0, -1.0, OFF, OFF)
    assert exposure == 0.0


# B12: planted bugs in the loop over genomes and in the step.

PLANTED = {
    "asleep before the exit": ("busy = 3  # what", "busy = 2  # what"),
    "asleep before the fill": ("busy = 3  # what", "busy = 1  # what"),
    "memory survives sleep": (
        "(0.0,))\n                        lower(state, MEMORY * LANES + lane, LANES, fresh)",
        "(0.0,))",
    ),
    "position survives sleep": ("lower(state, PENDING * LANES + lane, LANES, (0.0,))", "pass"),
    "sums run on over folds": ("lower(state, SUM * LANES + lane, LANES, (0.0, 0.0, 0.0, 0.0))", "pass"),
    "growth since the first bar": ("started[lane] = account[EQUITY]", "pass"),
    "last close free of costs": ("closing_rate = rate if t == n - 1 else 0.0", "closing_rate = 0.0"),
    "genes of a neighbour": ("genes[genome, i]", "genes[first, i]"),
    "state of the last block": (
        "lower(state, lane, LANES, FRESH_ACCOUNT)",
        "lower(state, lane, LANES, FRESH_ACCOUNT) if first == 0 else None",
    ),
    "gap forgotten": (
        "gap = price - prices[t - 1, 3] if t > 0 else 0.0\n                rate",
        "gap = 0.0\n                rate",
    ),
    "age is not reset": ("age = 0.0 if changed else age", "age = age"),
    "age runs while flat": (
        "age = age + 1.0 if held != 0.0 else 0.0\n    halt",
        "age = age + 1.0\n    halt",
    ),
    "ruined genome trades on": (
        "exposure = exposure if account[EQUITY] > ruin else 0.0",
        "exposure = exposure",
    ),
    "NaN decision is full": ("exposure = exposure if known else 0.0", "exposure = exposure"),
    "age a bar ahead": ("held, account[AGE], memory)", "held, account[AGE] + 1.0, memory)"),
    "decision on the exposure before the bar": (
        "held, stop, take = account[HELD], account[STOP], account[TAKE]",
        "held, stop, take = state[HELD * LANES + lane], account[STOP], account[TAKE]",
    ),
    "bars counted as trades": ("opened = (quantity != 0.0) & (was", "opened = (quantity != 0.0) | (was"),
    "gains in the downside": ("downside + squared if result < 0.0 else downside", "downside + squared"),
    "return over the equity after": (
        "result = (equity - before) / before",
        "result = (equity - before) / equity",
    ),
    "drawdown from the running equity": (
        "peak = equity if equity > peak else peak\n    #",
        "peak = equity\n    #",
    ),
    "drawdown in money": ("equity * worst_peak < worst * peak", "peak - equity > worst_peak - worst"),
    "cap ignored": (
        "exposure = exposure if exposure < largest else largest",
        "exposure = exposure",
    ),
    "row of the bar before": (
        "row = lift(rows, t * k, 1, like_row)",
        "row = lift(rows, (t - 1) * k, 1, like_row)",
    ),
    "memory not written back": ("lower(state, MEMORY * LANES + lane, LANES, answer[3])", "pass"),
}

# Bugs in what only options compile: a market with all of them.
PLANTED_OPTIONS = {
    "goal of the last block": ("lower(state, extras + lane, LANES, (0.0, 0.0, capital, 0.0))", "pass"),
    "asleep while an exit waits": ("busy = 3  # an exit", "busy = busy  # an exit"),
    "day never ends": (
        "                dawned = False\n            if t + 1",
        "            if t + 1",
    ),
    "trail is no stop": ("account_stop = min(account_stop, trail_distance)", "pass"),
    "trail does not move": ("if trailing:\n        stop", "if False:\n        stop"),
    "margin before the fill": (
        "math.inf if called else posted_margin(posted, was, quantity, price, leverage)",
        "math.inf if called else posted_margin(posted, was, was, price, leverage)",
    ),
    "halt ignored": (
        "halt >= 1.0, price, per_unit",
        "False, price, per_unit",
    ),
    "halt lifted at every bar": ("    halt = rearmed(halt, new_day)", "    halt = 0.0"),
    "halt for good": ("    halt = rearmed(halt, new_day)", "    halt = halt"),
    "re-armed and forgotten": ("changed | resumed, halt", "changed, halt"),
    "loss of the day from the start": (
        "day_equity = before if new_day else day_equity",
        "day_equity = day_equity",
    ),
    "room for every order of a bar": ("room = left if limited else math.inf", "room = room"),
    "funding on what is left only": (
        "funding = funding_due(filled, quantity",
        "funding = funding_due(quantity, quantity",
    ),
    "impact at the last close forgotten": (
        "closing_depth = depth if t == n - 1 else 0.0",
        "closing_depth = 0.0",
    ),
}


def rhythm(genes, row, held, age, memory):
    """Hold for so many bars, then rest for so many, or turn: decisions of age and memory; some are NaN."""
    hold, rest, size = genes
    if held != 0:
        end = -held if rest == 1 else 0.0
        return (held if age < hold else end), 0.04, 0.06, (rest,)
    opening = math.nan if row[0] > 3 else size
    return (opening if memory[0] <= 0 and age == 0 else 0.0), 0.04, 0.06, (memory[0] - 1,)


@pytest.fixture(scope="module")
def battery():
    """Return markets, genomes and the twin's answers; five genomes over lanes of two."""
    blended = getattr(blend.decide, "py_func", blend.decide)
    rng, markets = np.random.default_rng(0), []
    for seed, awake in enumerate(
        ("always", "single bars", "episodes", "every other", "last two bars", "always")
    ):
        case = market("blend", seed, n=80, awake=awake, bounds=(0.9, 0.25, OFF))
        case = case.charged(0.001 if seed < 5 else 0.5)  # the last one ruins
        rhythms = np.column_stack([rng.integers(1, 6, 5), rng.integers(1, 4, 5), rng.uniform(-1, 1, 5)])
        for decide, genes in ((blended, genomes("blend", seed, 5)), (rhythm, rhythms)):
            answer = reference.population(decide, (0.0,), genes, *case)
            markets.append((decide, genes, case, answer))
    return markets


def caught(engine, battery, options=()):
    for decide, genes, case, answer in battery:
        with np.errstate(all="ignore"):
            found = statistics_of(engine, decide, genes, case, (0.0,) * 16, options)
        if not np.allclose(found, answer, rtol=1e-9, atol=1e-12):
            return True
    return False


def test_b12_the_interpreted_population_without_a_planted_bug_passes_the_same_check(battery):
    assert not caught(interpreted(lanes=2), battery)


@pytest.mark.parametrize("bug", PLANTED)
def test_b12_a_bug_planted_in_the_population_is_caught(bug, battery):
    assert caught(interpreted(PLANTED[bug], lanes=2), battery)


@pytest.fixture(scope="module")
def restricted():
    """Return markets with every option, genomes and the twin's answers."""
    blended, markets = getattr(blend.decide, "py_func", blend.decide), []
    rhythms = np.random.default_rng(1)
    for seed in range(8):
        awake = ("always", "episodes")[seed % 2]
        chosen = EVERY if seed < 4 else tuple(o for o in EVERY if o not in ("grid", "margin"))
        case = market("blend", 20 + seed, 90, awake, bounds=(2.0, 0.2, OFF), options=chosen, leverage=2.0)
        case.bounds[6] = OFF if seed % 4 > 1 else 0.2
        columns = rhythms.integers(1, 6, 5), rhythms.integers(1, 4, 5), rhythms.uniform(-2, 2, 5)
        for decide, genes in ((blended, genomes("blend", seed, 5)), (rhythm, np.column_stack(columns))):
            answer = reference.population(decide, (0.0,), genes, *case)
            markets.append((decide, genes, case, answer))
    return markets


def test_b12_the_interpreted_population_with_every_option_passes_the_same_check(restricted):
    assert not caught(interpreted(lanes=2), restricted, EVERY)


@pytest.mark.parametrize("bug", PLANTED_OPTIONS)
def test_b12_a_bug_planted_in_the_options_is_caught(bug, restricted):
    assert caught(interpreted(PLANTED_OPTIONS[bug], lanes=2), restricted, EVERY)


def test_b12_a_day_that_begins_asleep_counts_and_forgetting_it_is_caught():
    blended, sleepers = getattr(blend.decide, "py_func", blend.decide), []
    for seed in range(12):
        case = market("blend", 40 + seed, 90, "episodes", options=("breakers",), leverage=2.0)
        case.bounds[6] = OFF
        genes = genomes("blend", seed, 5)
        sleepers.append((blended, genes, case, reference.population(blended, (0.0,), genes, *case)))
    asleep = ("dawned = dawned | (terms[t, NEW_DAY] != 0.0)", "dawned = terms[t, NEW_DAY] != 0.0")
    assert not caught(interpreted(lanes=2), sleepers, ("breakers",))
    assert caught(interpreted(asleep, lanes=2), sleepers, ("breakers",))


@compiled
@pytest.mark.parametrize("wrong", ["genes", "rows", "prices", "ends", "out", "bounds", "venue", "tiers"])
def test_arrays_of_the_wrong_shape_are_refused_instead_of_read_past_their_end(wrong):
    case = market("blend", 1, n=50, awake="always")
    arrays = {
        "genes": np.array(genomes("blend", 1, 3)),
        **case._asdict(),
        "out": np.empty((3, case.ends.size * 6)),
    }
    cut = (slice(None), slice(-1)) if wrong in ("genes", "rows", "tiers") else slice(-1)
    arrays[wrong] = np.ascontiguousarray(arrays[wrong][cut])
    with pytest.raises(ValueError, match=r"must have|not as wide"):
        blend.evaluate(*arrays.values(), *NONE)
