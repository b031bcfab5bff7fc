"""Trading tasks: causal, calibrated alike for everybody, and the fitness of what is traded.

Broken markets stand beside the real one: one whose scaler learned from all rows, one whose labels know the
next days, one whose specialist wakes a bar late. The same comparisons must tell them apart.
"""

import re
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from backtest.simulate import simulate
from compute.workers import SerialMapper, ThreadMapper
from conductor.calibration import LEAST_SCALE, Calibration
from conductor.curriculum import Landscapes, Mixture
from conductor.market_context import ContextScaler, MarketContext
from conductor.markets import Market, WindowsConfig, eras
from conductor.tasks import SPLITS, TaskSampler, Window
from conductor.windows import TradingWindows
from configs.load import ConfigError
from ga.controls import GAControls
from ga.space import Genome
from market.bars import OHLCV, Bars
from market.causal import transform
from market.features.pipeline import FeaturePipeline
from market.scaling import Scaler
from market.sources.selection import MarketConfig, select_bars
from market.sources.synthetic import SyntheticConfig, synthetic_market
from market.table import DataError
from regimes.detector import DETECTORS
from regimes.path import PathFilter
from regimes.regime import Regime
from specialists.family import FAMILIES
from specialists.specialist import Specialist, decision_rows

CONFIG = WindowsConfig(
    window_bars=400,
    fit_share=0.4,
    least_awake=80,
    detector={"name": "volatility"},
    population_size=10,
    n_generations=5,
    reference_runs=2,
    reference_factor=2,
)
#: For what does not look at fitness: what is best known is hardly searched for.
NO_SEARCH = CONFIG.model_copy(update={"reference_runs": 1, "reference_factor": 1, "n_generations": 1})
HOUR = 3600 * 10**9


def synthetic(seed, symbol="SYN/USDT", n_bars=8000):
    config = SyntheticConfig(n_bars=n_bars, seed=seed, symbol=symbol, scenario="short_dwell")
    return synthetic_market(config).bars


@pytest.fixture(scope="module")
def markets():
    return [Market.of(synthetic(seed, symbol), CONFIG) for seed, symbol in ((3, "ONE"), (4, "TWO"))]


@pytest.fixture(scope="module")
def source(markets):
    return TradingWindows(markets, CONFIG, seed=1)


def genes_of(source, n=64, seed=0):
    return np.random.default_rng(seed).random((n, source.space.n_genes))


def with_values(bars, values):
    return Bars(bars.time, values, OHLCV, bars.symbol, bars.interval_ns)


def of_the(market, window):
    """All that a task of a window is made of, as arrays."""
    source = TradingWindows([market], CONFIG, seed=1)
    rows = market.spanned(window.start, window.stop)
    known = source.calibrated([window])[0]
    return {
        "fitness": source.raw_fitness(window)(genes_of(source)),
        "sharpe": source.value(window, genes_of(source)),
        "labels": market.labels[rows],
        "rows": market.rows[rows],
        "context": MarketContext.of(market.bars[rows]).values,
        "calibration": np.array([known.random, known.best_known]),
    }


# -- causality


def other_future(bars, stop):
    """The same bars up to a time, and from there on a wild market of another seed."""
    row = int(np.searchsorted(bars.time, stop))
    other = synthetic(99).values[row : len(bars)].copy()
    other[:, :4] = (other[:, :4] / other[0, 0]) ** 3 * bars.values[row - 1, 3]
    return with_values(bars, np.concatenate([bars.values[:row], other]))


def learned_from_all_rows(bars):
    """A broken market: its scaler has seen the future."""
    market = Market.of(bars, CONFIG)
    features = transform(FeaturePipeline(), bars)
    scaler = Scaler.fit(features[market.memory :].select(market.family.signals))
    return replace(market, rows=decision_rows(market.family, scaler, features))


def labelled_with_hindsight(bars):
    """A broken market: each label is that of four days later."""
    market = Market.of(bars, CONFIG)
    return replace(market, labels=np.roll(market.labels, -96))


def changed_by_the_future(build, bars, window):
    before, after = of_the(build(bars), window), of_the(build(other_future(bars, window.stop)), window)
    return {name for name in before if not np.array_equal(before[name], after[name], equal_nan=True)}


def test_nothing_of_a_task_changes_when_bars_after_its_window_change(markets, source):
    bars = markets[0].bars
    own = [window for window in source.windows if window.symbol == "ONE"]
    for window in (own[0], own[-2]):
        assert changed_by_the_future(lambda bars: Market.of(bars, CONFIG), bars, window) == set()


@pytest.mark.parametrize(
    ("broken", "told"), [(learned_from_all_rows, "rows"), (labelled_with_hindsight, "labels")]
)
def test_a_market_that_knows_the_future_is_found_out(markets, source, broken, told):
    changed = changed_by_the_future(broken, markets[0].bars, source.windows[0])
    assert told in changed
    assert "fitness" in changed
    assert "context" not in changed


def test_windows_hold_no_row_that_detector_and_scaler_learned_from(markets, source):
    for market in markets:
        own = [window for window in source.windows if window.symbol == market.symbol]
        learned_until = int(market.bars.time[market.first - 1])
        assert market.first == round(0.4 * len(market.bars))
        assert min(window.start for window in own) - market.bars.interval_ns >= learned_until
    early = Window("ONE", int(markets[0].bars.time[10]), int(markets[0].bars.time[410]), "ranging")
    with pytest.raises(DataError, match="on holds rows that the detector learned from; the first that may"):
        source.raw_fitness(early)


# -- what is evolved is what is traded


def traded(bars, window, genes):
    """Annual Sharpe ratios of specialists that follow the bars of a window one by one, built anew."""
    family = FAMILIES.create("blend", {})
    pipeline, first = FeaturePipeline(), round(0.4 * len(bars))
    features = transform(pipeline, bars)
    fit = features[pipeline.warmup : first]
    detector = DETECTORS.create("volatility", {}).fit(fit)
    labels = transform(PathFilter(), transform(detector, features))
    scaler = Scaler.fit(fit.select(family.signals))
    rows = slice(int(np.searchsorted(bars.time, window.start)), int(np.searchsorted(bars.time, window.stop)))
    found = []
    for one in genes:
        specialist = Specialist(
            family, Genome(one, family.space.name), Regime.of(window.specialist), scaler, CONFIG.limits, 0
        )
        targets = specialist.update(bars[rows], features[rows], labels[rows])
        result = simulate(targets, bars[rows], CONFIG.costs, CONFIG.limits, venue=CONFIG.venue)
        earned = result.curve.column("net_return")
        deviation = earned.std(ddof=1)
        found.append(earned.mean() / deviation * np.sqrt(bars.bars_per_year) if deviation > 0 else 0.0)
    return np.array(found)


def test_the_value_of_genomes_is_what_their_specialists_earn_bar_by_bar(markets, source):
    bars, genes = markets[0].bars, genes_of(source, 6)
    window = next(w for w in source.windows if w.specialist == "volatile")
    after = source.next_window(window)
    for one in (window, after):
        assert source.value(one, genes) == pytest.approx(traded(bars, one, genes), abs=1e-9)
        assert np.ptp(source.value(one, genes)) > 0.1
    late = replace(markets[0], labels=np.roll(markets[0].labels, 1))
    broken = TradingWindows([late], CONFIG, seed=1).value(window, genes)
    assert np.abs(broken - traded(bars, window, genes)).max() > 0.01


def test_champions_re_evaluate_bit_for_bit_alone_and_in_company(source):
    batch = source.batch(0, 6)
    environment = batch.environment()
    outcome = environment.run_fixed(GAControls().to_array())
    for b, task in enumerate(batch.tasks):
        genes, fitness, _ = environment.population(b)
        best = int(np.argmax(fitness))
        _, opened = batch.opening(task)
        assert opened(genes[[best]])[0] == opened(genes)[best] == fitness[best] == outcome.best[b, -1]


# -- regret


def test_regret_is_one_where_a_random_search_ends_and_zero_at_the_best_known(source):
    window = source.windows[0]
    (known,) = source.calibrated([window])
    task = source.batch_of([window], [5]).tasks[0]
    _, opened = source.batch_of([window], [5]).opening(task)
    genes = genes_of(source, 4000)
    raw = source.raw_fitness(window)(genes)
    assert opened(genes) == pytest.approx((raw - known.best_known) / (known.best_known - known.random))
    searches = raw.reshape(100, 40).max(axis=1)
    assert np.median(known.regret(searches)) == pytest.approx(1.0, abs=0.1)
    assert known.regret(known.best_known) == 0.0
    assert known.fitness(known.regret(raw)) == pytest.approx(raw)
    assert known.best_known > np.quantile(searches, 0.9)


def test_a_flat_window_has_no_scale_to_explode():
    flat = Calibration(Window("A", 0, 1, "all"), 0.3, 0.3)
    assert flat.scale == LEAST_SCALE
    assert flat.regret(np.array([0.3, 0.2])) == pytest.approx([0.0, 1.0])


def test_a_new_best_raises_the_measure_of_tasks_that_are_opened_after_it(markets):
    source = TradingWindows(markets, CONFIG, seed=1)
    batch = source.batch(0, 1)
    task, genes = batch.tasks[0], genes_of(source, 8)
    (known,) = source.calibrated([task.problem])
    _, before = batch.opening(task)
    first = before(genes)
    assert not source.note_best(task.problem, known.best_known)
    assert not source.note_best(task.problem, known.best_known - 1.0)
    assert source.note_best(task.problem, known.best_known + 1.0)
    assert source.calibrated([task.problem]) == (replace(known, best_known=known.best_known + 1.0),)
    _, after = batch.opening(task)
    assert np.array_equal(before(genes), first)  # a run keeps the measure it began with
    raw = source.raw_fitness(task.problem)(genes)
    (raised,) = source.calibrated([task.problem])
    assert after(genes) == pytest.approx(-raised.regret(raw))
    assert not np.array_equal(after(genes), first)
    for value in (np.nan, np.inf):
        with pytest.raises(ValueError, match=r"best value of the window of (ONE|TWO) is .*; it must be fin"):
            source.note_best(task.problem, value)


def test_a_calibration_depends_on_its_window_alone(markets, source):
    some = source.windows[:3]
    alone = [TradingWindows(markets, CONFIG, seed=9, split="test").calibrated([w])[0] for w in some]
    together = TradingWindows(markets[::-1], CONFIG, seed=2).calibrated(some[::-1])[::-1]
    assert tuple(alone) == together == source.calibrated(some)
    other = CONFIG.model_copy(update={"reference_factor": 1, "reference_runs": 1})
    fewer = TradingWindows(markets, other, seed=1).calibrated(some)
    assert fewer != together  # what the best known depends on would be seen


# -- batches


def test_a_batch_is_the_same_for_everybody_and_the_next_is_another(markets, source):
    again = TradingWindows(markets, CONFIG, seed=1)
    again.batch(2, 5)  # what was drawn before does not matter
    assert again.batch(3, 8).tasks == source.batch(3, 8).tasks
    assert source.batch(4, 8).tasks != source.batch(3, 8).tasks
    assert TradingWindows(markets, CONFIG, seed=2).batch(3, 8).tasks != source.batch(3, 8).tasks


def test_splits_share_no_random_stream(markets):
    seeds = {}
    for split in SPLITS:
        source = TradingWindows(markets, NO_SEARCH, seed=1, split=split)
        seeds[split] = {task.seed for number in range(5) for task in source.batch(number, 9).tasks}
    for place, split in enumerate(SPLITS):
        assert len(seeds[split]) == 45
        assert {seed % 3 for seed in seeds[split]} == {place}


def test_every_window_comes_once_before_any_comes_twice_and_regimes_share_any_batch(source):
    n = len(source)
    tasks = source.batch(0, 2 * n).tasks
    for half in (tasks[:n], tasks[n:]):
        assert sorted(t.problem.start for t in half) == sorted(w.start for w in source.windows)
        assert {t.problem for t in half} == set(source.windows)
    share = {name: np.mean([w.specialist == name for w in source.windows]) for name in CONFIG.regimes}
    for m in (6, 12, 20):
        for name in CONFIG.regimes:
            count = sum(task.problem.specialist == name for task in tasks[:m])
            assert abs(count - m * share[name]) <= 1.0
    assert all(task.dimension == 24 and task.budget == 60 for task in tasks)


def test_networks_see_the_scaled_market_and_the_regime_of_each_window(source):
    scaler = ContextScaler.fit(source.contexts())
    batch = source.scaled(scaler).batch(1, 9)
    contexts = dict(zip(source.windows, source.contexts(), strict=True))
    for b, task in enumerate(batch.tasks):
        scaled = scaler.scaled(contexts[task.problem])
        assert np.array_equal(batch.outlook.market[b], scaled.values)
        assert np.array_equal(batch.outlook.known[b], scaled.known)
        assert Regime(batch.outlook.regime[b]).text == task.problem.specialist
    assert batch.outlook.known.mean() > 0.9
    assert (batch.floor == CONFIG.floor).all()
    blind = source.batch(1, 9)
    assert blind.tasks == batch.tasks
    assert not blind.outlook.known.any()
    assert np.array_equal(blind.outlook.regime, batch.outlook.regime)


def test_no_market_feature_is_constant_and_the_scaler_learned_from_its_windows_only(markets):
    end = int(markets[0].bars.time[6000])
    source = TradingWindows(markets, CONFIG, seed=1, end=end)
    scaler = ContextScaler.fit(source.contexts())
    assert scaler.fitted_until == max(w.stop for w in source.windows) - HOUR <= end
    assert len(scaler.names) == 13


def test_a_generalist_belongs_to_no_regime(markets):
    config = CONFIG.model_copy(update={"regimes": ("all",), "n_windows": 2})
    source = TradingWindows(markets[:1], config, seed=1)
    assert [w.specialist for w in source.windows] == ["all", "all"]
    assert source.batch(0, 2).outlook.regime.tolist() == [-1, -1]
    rows = markets[0].spanned(source.windows[0].start, source.windows[0].stop)
    assert markets[0].awake("all")[rows].all()


def test_windows_and_landscapes_make_one_batch_and_one_environment(source):
    mixture = Mixture((Landscapes(TaskSampler("train", sizes=((10, 5),))), source), (1.0, 1.0))
    batch = mixture.batch(0, 8)
    with ThreadMapper(2) as threads, SerialMapper() as serial:
        one, two = (
            batch.environment(mapper=mapper).run_fixed(GAControls().to_array())
            for mapper in (threads, serial)
        )
    assert np.array_equal(one.best, two.best)
    final = batch.scores(one).final
    assert np.isfinite(final).all()
    assert (final[4:] >= np.log10(CONFIG.floor)).all()


def test_windows_answer_several_threads_at_once_like_one(markets):
    source, genes = TradingWindows(markets, CONFIG, seed=1), genes_of(TradingWindows(markets, CONFIG, seed=1))

    def answer(window):
        batch = source.batch_of([window], [3])
        return batch.opening(batch.tasks[0])[1](genes)

    windows = source.windows[:4] * 4
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(answer, windows))
    alone = [answer(window) for window in windows]
    assert all(np.array_equal(a, b) for a, b in zip(together, alone, strict=True))


# -- where windows lie


@settings(max_examples=40, deadline=None)
@given(
    edges=st.tuples(st.integers(0, 8000), st.integers(0, 8000)).map(sorted),
    bars=st.integers(200, 900),
    overlap=st.floats(0.0, 0.9),
    n_windows=st.none() | st.integers(1, 5),
)
def test_windows_lie_whole_inside_the_asked_time_and_beyond_each_other(
    markets, edges, bars, overlap, n_windows
):
    market = markets[0]
    begin, end = (int(edge) * HOUR + int(market.bars.time[0]) for edge in edges)
    config = CONFIG.model_copy(
        update={"window_bars": bars, "overlap": overlap, "n_windows": n_windows, "least_awake": 40}
    )
    try:
        source = TradingWindows([market], config, seed=1, begin=begin, end=end)
    except DataError:
        rows = market.rows_between(begin, end)
        assert rows.stop - rows.start < bars + 400  # a longer stretch has some regime
        return
    for name in CONFIG.regimes:
        own = [window for window in source.windows if window.specialist == name]
        assert n_windows is None or len(own) <= n_windows
        for window, following in pairwise(own):
            assert following.start - window.start >= round(bars * (1.0 - overlap)) * HOUR
        for window in own:
            rows = market.spanned(window.start, window.stop)
            assert rows.stop - rows.start == bars
            assert window.start - HOUR >= begin
            assert window.stop - HOUR <= end
            assert market.awake(name)[rows].sum() >= 40


def test_the_asked_time_is_kept_to_the_bar(markets):
    market, time = markets[0], markets[0].bars.time
    opened, closed = int(time[4000]) - HOUR, int(time[4399])
    assert market.rows_between(opened, closed) == slice(4000, 4400)
    assert market.rows_between(opened + 1, closed - 1) == slice(4001, 4399)
    assert market.rows_between(None, None) == slice(market.first, len(time))
    every = CONFIG.model_copy(update={"regimes": ("all",)})
    (window,) = TradingWindows([market], every, seed=1, begin=opened, end=closed).windows
    assert (window.start, window.stop) == (opened + HOUR, closed + HOUR)
    for begin, end in ((opened + 1, closed), (opened, closed - 1)):
        with pytest.raises(DataError, match="has no stretch of 400 bars"):
            TradingWindows([market], every, seed=1, begin=begin, end=end)


def test_the_next_window_follows_and_ends_with_the_asked_time(markets):
    market = markets[0]
    end = int(market.bars.time[7000])
    source = TradingWindows(markets, CONFIG, seed=1, end=end)
    for window in source.windows:
        after = source.next_window(window)
        if after is None:
            assert window.stop - HOUR + CONFIG.window_bars * HOUR > end
        else:
            assert after.start == window.stop
            assert (after.stop - after.start, after.specialist) == (
                window.stop - window.start,
                window.specialist,
            )
            assert after.stop - HOUR <= end
    assert {source.next_window(window) is None for window in source.windows} == {True, False}


def test_a_stretch_with_little_of_its_regime_is_no_task(markets):
    market = markets[0]
    asleep = replace(market, labels=np.where(market.labels == 2, 0, market.labels))
    assert {w.specialist for w in TradingWindows([asleep], CONFIG, seed=1).windows} <= {"ranging", "trending"}
    # All in one fold: whatever it earns there, the lower bound over five folds is 0.
    labels = np.zeros(len(market.bars), dtype=np.int8)
    lumped = np.arange(market.first, len(labels) - 400, 400)[:, None] + np.arange(80)
    labels[lumped] = 1
    config = CONFIG.model_copy(update={"regimes": ("trending",)})
    with pytest.raises(DataError, match="has no stretch of 400 bars with 80 of one of the regimes trending"):
        TradingWindows([replace(market, labels=labels)], config, seed=1)
    spread = np.zeros(len(market.bars), dtype=np.int8)
    spread[::4] = 1
    assert len(TradingWindows([replace(market, labels=spread)], config, seed=1)) == 12


def test_a_stretch_with_a_hole_or_a_price_that_stands_still_is_no_task():
    bars = synthetic(3)
    there = np.ones(len(bars), dtype=bool)
    there[5000:5400] = False
    holed = Bars(bars.time[there], bars.values[there], OHLCV, "HOLE", bars.interval_ns)
    values = bars.values.copy()
    values[5000:6000, :4] = values[4999, 3]
    values[5000:6000, 4] = 0.0
    still = with_values(bars, values)
    quiet = range(5000, 5600)  # windows that begin here see no price move
    for one, silent in ((holed, range(4601, 5000)), (still, quiet)):
        market = Market.of(one, CONFIG)
        config = CONFIG.model_copy(update={"overlap": 0.75})
        starts = {
            market.spanned(w.start, w.stop).start for w in TradingWindows([market], config, seed=1).windows
        }
        assert len(starts) > 10
        assert not starts & set(silent)
        assert market.stretch(slice(5100, 5500)) is not None
    market = Market.of(holed, CONFIG)
    assert market.stretch(slice(4700, 5100)) is None
    last = Window("HOLE", int(holed.time[4500]), int(holed.time[4899]) + HOUR, "ranging")
    following = TradingWindows([market], CONFIG, seed=1).next_window(last)
    assert following is None


def test_eras_share_nothing_and_lie_a_memory_apart(markets):
    config = CONFIG.model_copy(update={"fit_share": 0.25, "window_bars": 300})
    long = [Market.of(synthetic(seed, str(seed), 24_000), config) for seed in (1, 2)]
    cut = eras(long)
    gap = long[0].embargo_ns
    assert gap == long[0].memory * HOUR > 1000 * HOUR
    assert (cut.validation[0] - cut.train[1], cut.test[0] - cut.validation[1]) == (gap, gap)
    assert cut.test[1] == long[0].bars.time[-1]
    windows = [
        TradingWindows(long, config, seed=1, begin=begin, end=end, split=split).windows
        for split, (begin, end) in zip(SPLITS, cut, strict=True)
    ]
    for before, after in pairwise(windows):
        assert max(w.stop for w in before) - HOUR + gap <= min(w.start for w in after)
    with pytest.raises(DataError, match="there is no room for three eras that lie 82 days apart"):
        eras(markets)
    with pytest.raises(
        ValueError, match=r"2 markets, shares 0\.8 and 0\.2; both and the rest need some time"
    ):
        eras(long, 0.8, 0.2)


# -- what a user can get wrong


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"family": {"name": "tree"}}, "family.name is tree, which brings its own operators; windows need"),
        ({"regimes": ("crisis",)}, "regimes: crisis is not known to the detector volatility, which tells"),
        ({"fit_share": 0.2}, "SYN/USDT 1h: 8000 bars, of which 1600 are to learn from; features need 19"),
        ({"window_bars": 5000}, "and a window 5000 more, so it takes more bars or another fit_share"),
    ],
)
def test_a_market_that_cannot_be_prepared_is_refused_in_one_sentence(change, message):
    with pytest.raises(ConfigError, match=re.escape(message)):
        Market.of(synthetic(3), WindowsConfig(**{**CONFIG.model_dump(), **change}))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"regimes": ("calm",)}, "must hold names out of ranging, trending, volatile, crisis, all; 'calm'"),
        ({"regimes": ("ranging", "ranging")}, "must name each regime once"),
        ({"fitness": {"rotation": 0.5}}, "must have the rotation 1, not 0.5: a task is the same in all gen"),
    ],
)
def test_settings_that_make_no_sense_are_refused(change, message):
    with pytest.raises(ValidationError, match=re.escape(message)):
        WindowsConfig(**change)


def test_a_source_that_cannot_be_is_refused_in_one_sentence(markets, source):
    def with_(**settings):
        return lambda: TradingWindows(
            settings.pop("markets", markets),
            CONFIG.model_copy(update=settings.pop("config", {})),
            **{"seed": 1, **settings},
        )

    for error, make, message in (
        (ValueError, with_(split="practice"), "split of windows is 'practice'; known: train, validation, "),
        (ValueError, with_(seed=-1), "seed of the train windows is -1; it must not be negative"),
        (
            ValueError,
            with_(config={"fit_share": 0.5}),
            "ONE was prepared with another fit_share than is asked",
        ),
        (
            DataError,
            with_(markets=markets[:1] * 2),
            "train windows: the markets are ONE, ONE; each must have",
        ),
        (DataError, with_(end=0), "train windows: ONE, TWO from the beginning to 1970-01-01T00:00:00Z has"),
        (
            ConfigError,
            with_(config={"costs": CONFIG.costs.model_copy(update={"delay_bars": 1})}),
            "delay_bars",
        ),
        (
            ValueError,
            lambda: source.batch(-1, 3),
            "batch -1 of 3 windows was asked for; a batch has a number",
        ),
        (ValueError, lambda: source.batch(0, 0), "batch 0 of 0 windows was asked for; a batch has a number"),
        (
            DataError,
            lambda: source.raw_fitness(replace(source.windows[0], symbol="XYZ")),
            "the window is one of XYZ; the markets here are ONE, TWO",
        ),
        (
            DataError,
            lambda: source.raw_fitness(replace(source.windows[0], start=source.windows[0].start + 1)),
            "does not begin with a bar and end after one",
        ),
    ):
        with pytest.raises(error, match=re.escape(message)):
            make()


# -- real bars


def test_real_bars_make_tasks_of_all_regimes(shared_data):
    path = shared_data / "ohlcv" / "btcusdt_binance_spot_1h.parquet"
    bars = select_bars(MarketConfig(bars=str(path), timerange="20190101-20210101")).bars
    config = WindowsConfig(
        window_bars=800, n_windows=3, n_generations=10, reference_runs=1, reference_factor=1
    )
    source = TradingWindows([Market.of(bars, config)], config, seed=1)
    assert {window.specialist for window in source.windows} == {"ranging", "trending", "volatile"}
    batch = source.batch(0, 3)
    outcome = batch.environment().run_fixed(GAControls().to_array())
    assert (outcome.best[:, -1] > outcome.best[:, 0]).all()
    assert (batch.scores(outcome).final < batch.scores(outcome).anytime).all()
