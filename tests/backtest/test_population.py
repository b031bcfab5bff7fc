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


class Market(NamedTuple):
    """What a population is evaluated on."""

    rows: np.ndarray
    prices: np.ndarray
    rates: np.ndarray
    awake: np.ndarray
    ends: np.ndarray
    bounds: np.ndarray


def market(family, seed, n=300, awake="episodes", folds=4, bounds=(1.0, 0.25, OFF)):
    rng = np.random.default_rng(seed)
    case = reference.scenario(seed, n)
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
    return Market(rows, case.prices, case.fees + case.slippage, mask, ends, np.array(bounds))


def genomes(family, seed, p):
    space = FAMILIES[family].space
    return FAMILIES[family].express(space.decode(np.random.default_rng(seed).random((p, space.n_genes))))


def evaluate(family, genes, case):
    out = np.full((len(genes), case.ends.size * 6), math.nan)
    FAMILIES[family].evaluate(genes, *case, out)
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
    n, out = len(case.rows), []
    bounds = np.append(case.bounds, [OFF, OFF])
    for genome in genes:
        curve, raw = np.empty((n, 6)), np.empty((2 * n + 1, 9))
        count = kernels.simulate_targets(
            follow(family, genome, case)[0],
            case.prices,
            case.rates,
            np.zeros(n),
            np.ones(n, np.int8),
            bounds,
            True,
            curve,
            raw,
        )
        trades = [reference.Trade(int(r[0]), int(r[1]), *r[2:8], int(r[8])) for r in raw[:count]]
        out.append(reference.statistics(curve[:, 1].tolist(), curve[:, 0].tolist(), trades, case.ends))
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
            plain = reference.follow(decide, fresh, genome, case.rows, case.prices, case.awake, case.bounds)
            assert np.array_equal(follow(family, genome, case)[0], np.array(plain))
        plain = reference.population(decide, fresh, genes, *case)
        statistics = evaluate(family, genes, case)
        assert np.array_equal(statistics[:, :, 3], plain[:, :, 3])
        assert np.allclose(statistics, plain, rtol=1e-9, atol=1e-12)


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
    altered = [array.copy() for array in case[:4]]
    for array, other in zip(altered, stranger[:4], strict=True):
        array[cut:] = other[cut:]
    altered = Market(*altered, case.ends, case.bounds)
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
    later = Market(*(array[episode:].copy() for array in case[:4]), case.ends, case.bounds)
    alone = follow(family, genomes(family, 6, 1)[0], later)[0]
    assert np.array_equal(alone, out[episode:])


@compiled
@pytest.mark.parametrize("family", FAMILIES)
def test_a_population_equals_its_genomes_when_some_lose_everything(family):
    case = market(family, 2, n=2000, awake="always")._replace(rates=np.full(2000, 0.6))
    genes = genomes(family, 2, 60)
    statistics = evaluate(family, genes, case)
    assert_same_statistics(statistics, one_by_one(family, genes, case))


def ruin():
    """Return statistics, (p, 2, 6), of genomes that trade too dearly, and who is ruined in the first fold."""
    case = market("blend", 2, n=3000, awake="always", folds=2)
    case = case._replace(rates=np.full(3000, 0.3), ends=np.array([2000, 3000]))
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


def statistics_of(engine, decide, genes, case, like_row):
    out = np.empty((len(genes), case.ends.size * 6))
    like_genes = tuple(genes[0].tolist())
    engine.population(decide, like_genes, like_row, (0.0,), genes, *case, out)
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
    _, _, exposure, _, _ = engine.decided((math.nan, 0.1, 0.1, (0.0,)), 0.0, OFF, OFF, 1.0, OFF, OFF)
    assert exposure == 0.0


# B12: planted bugs in the loop over genomes and in the step.

PLANTED = {
    "asleep before the exit": ("busy = 3", "busy = 2"),
    "asleep before the fill": ("busy = 3", "busy = 1"),
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
    "memory of the last block": (
        "lower(state, MEMORY * LANES + lane, LANES, fresh)\n            started",
        "lower(state, MEMORY * LANES + lane, LANES, fresh) if first == 0 else None\n            started",
    ),
    "gap forgotten": (
        "gap = price - prices[t - 1, 3] if t > 0 else 0.0\n                rate",
        "gap = 0.0\n                rate",
    ),
    "age is not reset": ("age = 0.0 if changed else age", "age = age"),
    "age runs while flat": (
        "age = age + 1.0 if held != 0.0 else 0.0\n    position",
        "age = age + 1.0\n    position",
    ),
    "ruined genome trades on": (
        "exposure = exposure if account[EQUITY] > RUIN else 0.0",
        "exposure = exposure",
    ),
    "NaN decision is full": ("exposure = exposure if exposure == exposure else 0.0", "exposure = exposure"),
    "age a bar ahead": ("held, account[AGE], memory)", "held, account[AGE] + 1.0, memory)"),
    "decision on the exposure before the bar": (
        "account = step(account, price, high, low, close, gap, per_unit, rate, closing_rate)\n"
        "                        held, stop, take = account[HELD], account[STOP], account[TAKE]",
        "held = account[HELD]\n"
        "                        account = step(account, price, high, low, close, gap, per_unit, rate, 0.0)\n"
        "                        stop, take = account[STOP], account[TAKE]",
    ),
    "bars counted as trades": ("opened = changed &", "opened = changed |"),
    "gains in the downside": ("(squared if result < 0.0 else 0.0)", "squared"),
    "return over the equity after": (
        "result = (equity - before) / before",
        "result = (equity - before) / equity",
    ),
    "drawdown from the running equity": (
        "peak = equity if equity > peak else peak\n    #",
        "peak = equity\n    #",
    ),
    "drawdown in money": ("equity * worst_peak < worst * peak", "peak - equity > worst_peak - worst"),
    "cap ignored": ("exposure = exposure if exposure < cap else cap", "exposure = exposure"),
    "row of the bar before": (
        "row = lift(rows, t * k, 1, like_row)",
        "row = lift(rows, (t - 1) * k, 1, like_row)",
    ),
    "memory not written back": ("lower(state, MEMORY * LANES + lane, LANES, answer[3])", "pass"),
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
    rng, cases = np.random.default_rng(0), []
    for seed, awake in enumerate(
        ("always", "single bars", "episodes", "every other", "last two bars", "always")
    ):
        case = market("blend", seed, n=80, awake=awake, bounds=(0.9, 0.25, OFF))
        case = case._replace(rates=np.full(80, 0.001 if seed < 5 else 0.5))  # the last one ruins
        rhythms = np.column_stack([rng.integers(1, 6, 5), rng.integers(1, 4, 5), rng.uniform(-1, 1, 5)])
        for decide, genes in ((blended, genomes("blend", seed, 5)), (rhythm, rhythms)):
            answer = reference.population(decide, (0.0,), genes, *case)
            cases.append((decide, genes, case, answer))
    return cases


def caught(engine, battery):
    for decide, genes, case, answer in battery:
        with np.errstate(all="ignore"):
            found = statistics_of(engine, decide, genes, case, (0.0,) * 16)
        if not np.allclose(found, answer, rtol=1e-9, atol=1e-12):
            return True
    return False


def test_b12_the_interpreted_population_without_a_planted_bug_passes_the_same_check(battery):
    assert not caught(interpreted(lanes=2), battery)


@pytest.mark.parametrize("bug", PLANTED)
def test_b12_a_bug_planted_in_the_population_is_caught(bug, battery):
    assert caught(interpreted(PLANTED[bug], lanes=2), battery)


@compiled
@pytest.mark.parametrize("wrong", ["genes", "rows", "prices", "ends", "out"])
def test_arrays_of_the_wrong_shape_are_refused_instead_of_read_past_their_end(wrong):
    case = market("blend", 1, n=50, awake="always")
    arrays = {
        "genes": np.array(genomes("blend", 1, 3)),
        **case._asdict(),
        "out": np.empty((3, case.ends.size * 6)),
    }
    cut = (slice(None), slice(-1)) if wrong in ("genes", "rows") else slice(-1)
    arrays[wrong] = np.ascontiguousarray(arrays[wrong][cut])
    with pytest.raises(ValueError, match=r"must have|not as wide"):
        blend.evaluate(*arrays.values())
