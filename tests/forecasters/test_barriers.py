"""Barriers that are evolved: their fitness, what they may know, what they find, and the whole command."""

import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backtest.costs import Costs
from backtest.limits import RiskLimits
from backtest.simulate import simulate
from configs.load import ConfigError, load
from experiments.ledger import Ledger
from forecasters import barrier_fitness, barrier_running, barrier_search
from forecasters.barrier_fitness import (
    BarrierFigures,
    BarrierGround,
    judged,
    scales,
    sides,
    trading_rates,
)
from forecasters.barrier_search import BarrierSearch, BarrierSpace, Material
from forecasters.barrier_settings import BarriersConfig, FitnessConfig
from forecasters.barriers import main
from forecasters.settings import ForecastConfig
from forecasters.training import prepare
from market.bars import OHLCV, Bars
from market.features.dataset import LabelConfig
from market.sample_weights import uniqueness
from market.sources.selection import select_bars
from market.sources.synthetic import SyntheticConfig, synthetic_market
from market.splits import folds
from market.table import Table
from tests.reference import labels_twin

HOUR = 3_600 * 10**9
TINY = [
    "market.synthetic.n_bars=4000",
    "space.up={least: 0.5, most: 2.0, step: 0.25}",
    "space.down={least: 0.5, most: 2.0, step: 0.25}",
    "space.horizons=[5, 24h]",
    "space.volatilities=[volatility_24, parkinson_24]",
    "fitness.lookbacks=[1, 12]",
    "fitness.blocks=3",
    "fitness.least_labels=20",
    "hyperparameters={population_size: 8, n_generations: 3, patience: 0}",
]
TINY_CONFIG = load(BarriersConfig, "barriers.yaml", TINY)
NAMES = ("volatility_24",)


def ground_of(bars, *, first=60, blocks=3, lookbacks=(1, 5), rates=None, names=NAMES):
    rows = slice(first, len(bars))
    return BarrierGround(
        bars=bars,
        rows=rows,
        first=first,
        blocks=folds(rows, blocks + 1)[1:],
        volatility=scales(bars, names),
        rates=trading_rates(bars, Costs()) if rates is None else rates,
        lookbacks=lookbacks,
    )


def with_gap(bars, row, missing):
    """Leave bars out."""
    kept = np.r_[0:row, row + missing : len(bars)]
    return Bars(bars.time[kept], bars.values[kept], OHLCV, symbol=bars.symbol, interval_ns=bars.interval_ns)


def altered(bars, row, seed=5):
    """Return other bars from a row on, that differ by far."""
    random = np.random.default_rng(seed)
    values = bars.values.copy()
    values[row:, :4] *= np.exp(np.cumsum(random.normal(0.0, 0.05, len(bars) - row)))[:, None]
    return Bars(bars.time, values, OHLCV, symbol=bars.symbol, interval_ns=bars.interval_ns)


def naive_figures(ground, label, horizon):
    """Say the same in plain Python, row by row."""
    bars, volatility = ground.bars, ground.volatility[label.volatility].tolist()
    n, close, rates = len(bars), bars.column("close").tolist(), ground.rates.tolist()
    found = labels_twin.triple_barrier(bars, horizon, label.up, label.down, volatility)
    rows = [t for t in range(ground.rows.start, ground.rows.stop - horizon) if found[t][2] is not None]
    crowd = [0] * n
    for t in rows:
        for s in range(t + 1, found[t][1] + 1):
            crowd[s] += 1
    weight = {}
    for t in rows:
        end = found[t][1]
        weight[t] = sum(1.0 / crowd[s] for s in range(t + 1, end + 1)) / (end - t)
    total = sum(weight.values())
    shares = [sum(weight[t] for t in rows if found[t][0] == one) / total for one in (-1, 0, 1)]
    balance = -sum(share * math.log(share) for share in shares if share) / math.log(3)

    def cost(t, end, ret):
        return rates[t + 1] + rates[end] * (1.0 + ret)

    moving = [t for t in rows if found[t][0]]
    beyond = [t for t in moving if abs(found[t][2]) > cost(t, found[t][1], found[t][2])]
    moves = sum(weight[t] for t in beyond) / sum(weight[t] for t in moving)

    def momentum(t):
        raw = [
            math.log(close[t] / close[t - back]) / volatility[t] / math.sqrt(back)
            for back in ground.lookbacks
        ]
        return [min(max(one, -4.0), 4.0) for one in raw]

    net_by_block, gross_by_block = [], []
    for block in ground.blocks:
        past = [t for t in range(ground.first, block.start - horizon) if found[t][2] is not None]
        slopes = []
        for i in range(len(ground.lookbacks)):
            target = {t: found[t][2] / volatility[t] / math.sqrt(horizon) for t in past}
            slopes.append(
                sum(momentum(t)[i] * target[t] for t in past) / sum(momentum(t)[i] ** 2 for t in past)
            )
        gross, net, lengths = [], [], []
        for t in range(block.start, block.stop - horizon):
            forecast = sum(one * slope for one, slope in zip(momentum(t), slopes, strict=True))
            side = 1 if forecast > 0 else -1
            one = labels_twin.triple_barrier(
                bars[t : t + horizon + 1], horizon, label.up, label.down, volatility[t:], [side] * n
            )[0]
            if one[2] is not None:
                gross.append(side * one[2])
                net.append(gross[-1] - cost(t, t + one[1], one[2]))
                lengths.append(one[1])
        cycle = sum(lengths) / len(lengths) + (block.stop - horizon - block.start) / len(lengths) - 1
        for returns, by_block in ((net, net_by_block), (gross, gross_by_block)):
            mean = sum(returns) / len(returns)
            spread = math.sqrt(sum((one - mean) ** 2 for one in returns) / (len(returns) - 1))
            by_block.append(mean / spread * math.sqrt(365 * 24 / cycle))
    return {
        "labels": len(rows), "effective": total, "shares": tuple(shares), "balance": balance, "moves": moves,
        "bars": sum(found[t][1] - t for t in rows) / len(rows),
        "sharpes": tuple(net_by_block), "gross_sharpes": tuple(gross_by_block),
    }  # fmt: skip


@pytest.mark.parametrize(("up", "down", "horizon"), [(1.0, 1.0, 6), (0.4, 1.7, 9), (0.25, 0.2, 3)])
def test_the_figures_of_barriers_are_those_of_plain_python(make_bars, up, down, horizon):
    # Barriers as near as the last ones are both touched inside one bar: it counts who has his stop where.
    bars = with_gap(make_bars(400, seed=3), 222, 7)
    ground = ground_of(bars)
    label = LabelConfig(horizon=str(horizon), up=up, down=down)
    found, naive = judged(ground, label), naive_figures(ground, label, horizon)
    for name, value in naive.items():
        assert getattr(found, name) == pytest.approx(value, rel=1e-9, abs=1e-12), name
    config = FitnessConfig(least_labels=1)
    bound = np.mean(naive["sharpes"]) - np.std(naive["sharpes"], ddof=1) / math.sqrt(3)
    expected = (naive["balance"] + naive["moves"] + bound / (1 + abs(bound))) / 3
    assert found.fitness(config) == pytest.approx(expected, rel=1e-9)


def test_what_is_judged_are_the_labels_that_forecasters_learn_from(make_bars):
    bars = make_bars(500, seed=8)
    ground = ground_of(bars)
    for label in (LabelConfig(horizon="8h", up=0.7, down=1.3), LabelConfig(horizon="5")):
        ours, theirs = barrier_fitness._labels(ground, label), label.labels(bars)
        for name in ("value", "known_at", "end", "ret"):
            np.testing.assert_array_equal(getattr(ours, name), getattr(theirs, name), name)


FIGURES = BarrierFigures(900, 400.0, 5.0, (0.3, 0.4, 0.3), 0.9, 0.8, (1.0, 3.0), (2.0, 4.0))


def test_fitness_is_the_weighted_mean_of_its_terms_and_takes_the_spread_off():
    def fitness(**weights):
        return FIGURES.fitness(
            FitnessConfig(weights={"balance": 0, "moves": 0, "sharpe": 0} | weights, confidence=0.5)
        )

    assert fitness(balance=2) == pytest.approx(0.9)
    assert fitness(moves=1) == pytest.approx(0.8)
    assert fitness(sharpe=3) == pytest.approx(1.5 / 2.5)  # 2 less half of a standard error of 1
    assert fitness(balance=1, moves=3) == pytest.approx((0.9 + 2.4) / 4)
    assert math.isnan(FIGURES.fitness(FitnessConfig(least_labels=401)))


@settings(max_examples=15, deadline=None)
@given(
    seed=st.integers(0, 50),
    up=st.floats(0.05, 20.0),
    down=st.floats(0.05, 20.0),
    horizon=st.integers(1, 30),
)
def test_every_term_stays_within_its_bounds(make_bars, seed, up, down, horizon):
    ground = ground_of(make_bars(300, seed=seed))
    found = judged(ground, LabelConfig(horizon=str(horizon), up=up, down=down))
    assert 0.0 <= found.balance <= 1.0 + 1e-12
    assert 0.0 <= found.moves <= 1.0 + 1e-12
    assert found.effective <= found.labels + 1e-9
    assert np.isfinite((*found.sharpes, *found.gross_sharpes)).all()
    assert all(a <= b + 1e-9 for a, b in zip(found.sharpes, found.gross_sharpes, strict=True))
    assert -1.0 / 3.0 <= found.fitness(FitnessConfig(least_labels=1)) <= 1.0


def test_a_round_trip_costs_what_the_backtester_charges(make_bars):
    bars = make_bars(120, seed=2)
    exposure = np.zeros((120, 1))
    exposure[40:50] = 0.5  # bought at the open of bar 41, sold at the open of bar 51
    for costs in (Costs(), Costs(fee_bps=3, size_impact=1)):
        result = simulate(Table(bars.time, exposure, ("exposure",)), bars, costs, RiskLimits(stop=None))
        (trade,) = result.trades
        paid = trade["quantity"] * trade["entry_price"]
        sold = trade["quantity"] * trade["exit_price"]
        rates = trading_rates(bars, costs, capital=paid)
        expected = rates[41] * paid + rates[51] * sold
        assert trade["fees"] + trade["slippage"] == pytest.approx(expected, rel=5e-3)


def random_walk(seed=1, n=20_000):
    return synthetic_market(SyntheticConfig(scenario="random_walk", n_bars=n, seed=seed, steps=20)).bars


def test_near_targets_and_far_stops_earn_nothing_on_a_random_walk_as_they_would_by_uniqueness():
    """The one way in which a Sharpe ratio of labels goes wrong: what ends soon is unique, and near."""
    bars = random_walk()
    ground = ground_of(bars, blocks=1)
    short = np.full(len(bars), -1, np.int8)
    bets = barrier_fitness._labels(ground, LabelConfig(horizon="24h", up=2.8, down=0.55), short)
    _, before = barrier_fitness._sharpes(ground, bets, short, ground.blocks[0])
    rows = np.arange(ground.blocks[0].start, ground.blocks[0].stop - 24)
    weight = uniqueness(bets, rows)[rows]
    returns = -bets.ret[rows]
    weighed = np.average(returns, weights=weight) / returns.std() * math.sqrt(weight.sum())
    plain = returns.mean() / returns.std() * math.sqrt(weight.sum())
    assert weighed > 4.0  # the negative control: deviations of the mean from none at all
    assert abs(plain) < 2.5
    assert abs(before) < 2.0


def test_the_probe_finds_no_skill_on_random_walks_and_loses_its_costs():
    found = [judged(ground_of(random_walk(seed, 8_000), blocks=6), LabelConfig()) for seed in range(6)]
    before = [np.mean(one.gross_sharpes) for one in found]
    assert abs(np.mean(before)) < 3.0 * np.std(before, ddof=1) / math.sqrt(len(before))
    assert all(one.sharpe < np.mean(one.gross_sharpes) - 1.0 for one in found)


def test_no_bet_of_the_probe_depends_on_later_bars(make_bars, monkeypatch):
    bars = make_bars(600, seed=4)
    label = LabelConfig(horizon="40", up=3.0, down=3.0)  # far barriers: labels last

    def bets(market):
        ground = ground_of(market)
        return sides(ground, label, barrier_fitness._labels(ground, label))

    rows = [block.start + after for block in ground_of(bars).blocks for after in (1, 10, 30)]
    changed = [altered(bars, row) for row in rows]

    def looks_ahead():
        own = bets(bars)
        return any((own[:row] != bets(other)[:row]).any() for row, other in zip(rows, changed, strict=True))

    assert not looks_ahead()
    assert (bets(bars) != bets(changed[0])).any()  # it looks at the bars at all
    # Negative controls: a probe that learns from the block it bets in, and one that forgets that labels last.
    monkeypatch.setattr(barrier_fitness, "past_of", lambda block, horizon: block.stop)
    assert looks_ahead()
    monkeypatch.setattr(barrier_fitness, "past_of", lambda block, horizon: block.start)
    assert looks_ahead()


def search_of(bars, config=TINY_CONFIG):
    material = Material.of(bars, config)
    return BarrierSearch(material, material.training()).run()


def trials_of(evolved):
    return [batch.trials.tobytes() for batch in evolved.batches]


@pytest.fixture(scope="module")
def market():
    return random_walk(3, 4_000)


def test_the_same_seed_finds_the_same_and_another_seed_tries_others(market):
    one, again = search_of(market), search_of(market)
    assert (one.label, one.fitness, one.best) == (again.label, again.fitness, again.best)
    assert trials_of(one) == trials_of(again)
    other = search_of(market, load(BarriersConfig, "barriers.yaml", TINY, seed=8))
    assert trials_of(other) != trials_of(one)


def test_bars_after_the_cut_change_no_bit_of_what_is_found(market, monkeypatch):
    cut = Material.of(market, TINY_CONFIG).split.train.stop
    found = search_of(market)
    for seed in (1, 2):
        other = search_of(altered(market, cut, seed))
        assert (other.label, other.best, trials_of(other)) == (found.label, found.best, trials_of(found))
    # Negative control: a search without its two guards is found out. It is given all bars, and counts labels
    # that end after the last training row.
    monkeypatch.setattr(barrier_search, "past", lambda bars, split: bars)
    monkeypatch.setattr(barrier_fitness, "decided", lambda rows, horizon: rows)
    assert trials_of(search_of(altered(market, cut, 1))) != trials_of(search_of(market))


def test_training_rows_and_the_later_ones_share_no_bar(market):
    material = Material.of(market, TINY_CONFIG)
    training, later = material.training(), material.later()
    assert len(training.bars) == training.rows.stop == training.blocks[-1].stop
    assert later.rows.start - training.rows.stop >= 24
    assert later.blocks[0].start == later.rows.start
    assert later.blocks[-1].stop == len(market) == later.rows.stop
    assert training.blocks[0].start > training.rows.start  # something to learn from


def planted_market(spike, cycles=400, seed=0):
    """A market that jumps, runs on by just so much while nobody looks, and comes back.

    In every cycle of 10 bars: a jump of 2 % up or down; two bars later the price touches ``spike`` beyond it
    in the same direction, and closes where it was; two bars later it falls back by 1 %.
    """
    direction = np.random.default_rng(seed).choice([-1.0, 1.0], cycles)
    moves = np.zeros((cycles, 10))
    moves[:, 0], moves[:, 4] = 0.02 * direction, -0.01 * direction
    close = 100.0 * np.exp(np.cumsum(moves.ravel()))
    open_ = np.concatenate([[100.0], close[:-1]])
    high, low = np.maximum(open_, close), np.minimum(open_, close)
    up, down = (10 * np.flatnonzero(direction == one) + 2 for one in (1, -1))
    high[up] = open_[up] * (1.0 + spike)
    low[down] = open_[down] * (1.0 - spike)
    values = np.column_stack([open_, high, low, close, np.ones(close.size)])
    time = (1 + np.arange(close.size)) * HOUR
    return Bars(time, values, OHLCV, symbol="PLANTED", interval_ns=HOUR)


@pytest.mark.parametrize(("spike", "width"), [(0.0202, 1.0), (0.0302, 1.5)])
def test_the_width_at_which_a_planted_market_turns_is_found(spike, width):
    bars = planted_market(spike)
    config = load(
        BarriersConfig,
        "barriers.yaml",
        [
            "space.up={least: 0.5, most: 2.5, step: 0.05}",
            "space.down={least: 0.5, most: 2.5, step: 0.05}",
            "space.horizons=[1, 4]",
            "space.volatilities=[volatility_24]",
            "fitness={weights: {balance: 0, moves: 0, sharpe: 1}, lookbacks: [1], blocks: 4}",
            "hyperparameters={population_size: 32, n_generations: 20, patience: 0}",
        ],
    )
    rows = slice(10, len(bars))
    constant = {"volatility_24": np.full(len(bars), 0.01)}  # an expected move over 4 bars: 2 %
    ground = BarrierGround(bars, rows, 10, folds(rows, 5)[1:], constant, np.full(len(bars), 1e-3), (1,))
    space = BarrierSpace(config.space, HOUR)
    material = Material(bars, None, space, config)  # the search reads space and settings
    found = BarrierSearch(material, ground).run()
    assert (found.label.up, found.label.down, found.label.horizon) == (width, width, "4")
    # It is the best of a grid, too, and the house's default is far from it.
    grid = [judged(ground, LabelConfig(horizon="4", up=one / 20, down=one / 20)) for one in range(10, 51)]
    best = max(grid, key=lambda one: one.fitness(config.fitness))
    assert found.fitness == pytest.approx(best.fitness(config.fitness), abs=1e-12)
    beyond = LabelConfig(horizon="4", up=width + 0.05, down=width + 0.05)
    assert judged(ground, beyond).sharpe < 0.75 * best.sharpe


def test_genomes_are_barriers_in_steps_and_what_has_one_value_is_no_gene():
    config = load(BarriersConfig, "barriers.yaml", TINY).space
    space = BarrierSpace(config, HOUR)
    assert space.space.names == ("up", "down", "horizon", "volatility")
    assert space.horizons == ("5", "24h")
    low, high = space.label(np.zeros(4)), space.label(np.ones(4))
    assert (low.up, low.down, low.horizon, low.volatility) == (0.5, 0.5, "5", "volatility_24")
    assert (high.up, high.down, high.horizon, high.volatility) == (2.0, 2.0, "24h", "parkinson_24")
    fixed = {"horizons": ["4h"], "volatilities": ["volatility_8"], "down": {"least": 1, "most": 1}}
    alone = BarrierSpace(config.model_validate({"up": config.up.model_dump(), **fixed}), HOUR)
    assert alone.space.names == ("up",)
    found = {alone.label(np.array([place])).up for place in np.linspace(0.0, 1.0, 50)}
    assert found == {0.5, 0.75, 1.0, 1.25, 1.5, 1.75, 2.0}
    with pytest.raises(ConfigError, match="leaves one choice"):
        BarrierSpace(config.model_validate({"up": fixed["down"], **fixed}), HOUR)
    with pytest.raises(ConfigError, match="4h and 4 are both 4 bars"):
        BarrierSpace(config.model_validate({"horizons": ["4h", "4"]}), HOUR)


def evolve(runs, *arguments, settings=TINY):
    """Return the status, and the latest run."""
    given = [part for setting in settings for part in ("--set", setting)]
    with pytest.raises(SystemExit) as end:
        main([*given, *arguments, "--runs", str(runs)])
    folders = sorted(runs.glob("barriers-*")) if runs.exists() else []
    return end.value.code, folders[-1] if folders else None


def test_a_run_leaves_barriers_that_a_training_takes_and_a_report_of_both_spans(tmp_path, capsys):
    code, folder = evolve(tmp_path / "runs", "--json")
    said = capsys.readouterr()
    assert code == 0, said.err
    found = json.loads((folder / "report.json").read_text())
    assert json.loads(said.out) == found
    names = ["default", "horizon alone", "evolved"]
    if found["barriers"]["horizon"] == "4h":
        names.remove("horizon alone")
    for span in ("training", "later"):
        assert list(found["figures"][span]) == names
    training = {name: one["fitness"] for name, one in found["figures"]["training"].items()}
    assert training["evolved"] == found["search"]["best"][-1] == max(found["search"]["best"])
    assert found["rows"]["training"]["to"] < found["rows"]["later"]["from"]
    for name in ("config.yaml", "manifest.json", "report.md", "barriers.yaml"):
        assert (folder / name).stat().st_size
    text = (folder / "report.md").read_text()
    assert "in sample" in text
    assert "out of sample" in text
    assert "SYNTHETIC" in text
    # The trials of the search and the barriers beside it are in the ledger, and the look at later rows.
    trials = Ledger(tmp_path / "ledger.sqlite").summary(found["data"]["fingerprint"])
    assert trials.n_unique == found["search"]["evaluations"] + len(names) - 1
    assert trials.n_evaluated >= trials.n_unique
    assert found["ledger"]["earlier_looks"] == 0
    # A training takes the file, and learns from these labels.
    chosen = [f"label={folder / 'barriers.yaml'}", "features.names=[return_1]", *TINY[:1]]
    training = load(ForecastConfig, "forecast.yaml", chosen)
    assert training.label.model_dump(mode="json") == found["barriers"]
    ground = prepare(select_bars(training.market).bars, training.dataset())
    assert ground.labels.name == f"triple_barrier_{found['barriers']['horizon']}"
    assert ground.bars.fingerprint() == found["data"]["fingerprint"]
    np.testing.assert_array_equal(ground.labels.value, training.label.labels(ground.bars).value)


def test_the_same_settings_give_the_same_bytes_and_a_second_look_is_told(tmp_path, capsys):
    folders = [evolve(tmp_path / name / "runs")[1] for name in "ab"]
    for name in ("report.json", "report.md", "barriers.yaml"):
        assert (folders[0] / name).read_bytes() == (folders[1] / name).read_bytes(), name
    capsys.readouterr()
    code, _ = evolve(tmp_path / "a" / "runs")
    assert code == 0
    assert "looked at 1 time(s) before" in capsys.readouterr().out


def test_a_search_that_is_broken_off_has_counted_what_it_tried(tmp_path, capsys, monkeypatch):
    step, steps = barrier_search.Search.step, []

    def stops(search, *arguments):
        if len(steps) == 2:
            raise KeyboardInterrupt
        steps.append(1)
        return step(search, *arguments)

    monkeypatch.setattr(barrier_search.Search, "step", stops)
    code, folder = evolve(tmp_path / "runs")
    assert code == 130
    assert not (folder / "report.json").exists()
    data = json.loads((folder / "manifest.json").read_text())["data"]["bars"]
    assert Ledger(tmp_path / "ledger.sqlite").summary(data).n_unique >= 8 + 1


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--horizon", "90m"], "horizon '90m' on bars of 1h"),
        (["--set", "space.volatilities=[volatility_25]"], "'volatility_25' is none; did you mean"),
        (["--set", "space.volatilities=[rsi_14]"], "rsi_14 lies between"),
        (["--set", "space.up={least: 2, most: 1}"], "must be at least the nearest distance, 2"),
        (["--set", "label.kind=return"], "must be of kind triple_barrier, not return"),
        (["--set", "fitness.least_labels=100000"], "fitness.least_labels is 100000"),
        (["--set", "fitness.weights={balance: 0, moves: 0, sharpe: 0}"], "must hold a weight above 0"),
        (["--set", "fitness.lookbacks=[5, 5]"], "must name each lookback once"),
        (["--set", "policy.name=clever"], "no policy named 'clever'"),
        (["--set", "market.synthetic.n_bars=1000"], "1000 bars are too few"),
        (["--bars", "nowhere.parquet"], "nowhere.parquet"),
    ],
)
def test_what_a_user_gets_wrong_ends_in_a_sentence_and_leaves_nothing(tmp_path, capsys, arguments, sentence):
    code, folder = evolve(tmp_path / "runs", *arguments)
    said = capsys.readouterr()
    assert code == 2
    assert sentence in said.err
    assert said.err.count("\n") == 1
    assert folder is None


def test_the_packaged_settings_are_the_defaults():
    assert load(BarriersConfig, "barriers.yaml") == BarriersConfig()
    assert barrier_running.COMMAND == "barriers"
