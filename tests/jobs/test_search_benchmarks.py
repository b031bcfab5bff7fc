"""The benchmarks of the search run on tiny settings and measure what they say they measure."""

import json
import re

import numpy as np
import pytest

from benchmarks import bbob, ga_tuning, landscapes, origin_landscapes
from benchmarks.origin_landscapes import FITNESS, GENES, METRICS, REGIMES, Landscape
from ga.controls import SMOOTH


@pytest.fixture(scope="module")
def origin(shared_data):
    """The folder of the origin's data; skips where there is none."""
    folder = shared_data / "origin"
    if not (folder / "phase3a_genomes.json").is_file():
        pytest.skip("no data of the origin system beside the repository (../shared/data/origin)")
    return folder


# Tuning landscapes


@pytest.mark.parametrize("name", landscapes.FAMILIES)
def test_every_landscape_is_lowest_at_its_optimum_and_the_same_for_the_same_seed(name):
    d = 5
    error = landscapes.landscape(name, d, 7)
    genes = np.random.default_rng(1).random((500, d))
    values = error(genes)
    assert np.isfinite(values).all()
    assert values.min() >= 0.0
    assert np.array_equal(landscapes.landscape(name, d, 7)(genes), values)
    assert not np.array_equal(landscapes.landscape(name, d, 8)(genes), values)
    best = ga_tuning.curve(
        lambda genes: -error(genes), d, 40, 6000, 1, lambda _: SMOOTH
    )[-1, 1]  # fmt: skip
    assert -best < 0.9 * values.min()  # a search gets closer to 0 than chance


def test_the_shares_of_targets_are_those_counted_by_hand():
    reached = ga_tuning.shares(np.array([[10.0, -1e3], [20.0, -1e2], [40.0, -1e-8]]))
    assert reached == (1.0, pytest.approx((10 * 0 + 10 * 1 / 51 + 20) / 40))
    assert ga_tuning.shares(np.array([[10.0, -1.1e2]])) == (0.0, 0.0)


def test_a_tuned_control_is_turned_by_a_step_of_its_range_and_no_other_is():
    controls = SMOOTH
    higher = ga_tuning.turned(controls, "tournament_size", 0.1)
    assert higher.tournament_size == pytest.approx(controls.tournament_size + 0.7)
    same = {**controls.to_dict(), "tournament_size": higher.tournament_size}
    assert higher.to_dict() == same
    assert ga_tuning.turned(controls, "tournament_size", 9.0).tournament_size == 8.0


# BBOB


def test_bbob_prints_a_share_for_each_search(capsys):
    pytest.importorskip("ioh")
    bbob.main(["--instances", "1", "--first", "31", "--only", "1", "20", "--functions", "--policy", "smooth"])
    printed = capsys.readouterr().out
    end, anytime = map(float, re.search(r"^smooth.* (0\.\d{3}) +(0\.\d{3})", printed, re.M).groups())
    assert 0.4 < end < 1.0  # the sphere is solved, function 20 is not
    assert anytime < end
    assert "f1 1.00" in printed


def test_the_errors_of_bbob_are_zero_at_the_optimum_and_the_peers_stop_at_the_budget():
    ioh = pytest.importorskip("ioh")
    optimum = ioh.get_problem(8, 2, 10, ioh.ProblemClass.BBOB).optimum.x
    error = bbob.problem(8, 2)
    assert error((np.array(optimum)[None] + 5.0) / 10.0) == pytest.approx(0.0, abs=1e-9)
    calls = []

    def forever(one):
        while True:
            calls.append(one(np.full(10, 0.5)))

    assert bbob.recorded(error, forever)[0] == bbob.random_search(lambda g: np.full(len(g), calls[0]), 1)[0]
    assert len(calls) == bbob.EVALUATIONS


# Origin landscapes


def test_the_evaluator_reproduces_all_metrics_of_the_published_genomes(origin):
    stored = json.loads((origin / "phase3a_genomes.json").read_text(encoding="utf-8"))
    landscape = {regime: Landscape.load(regime, origin) for regime in REGIMES}
    for regime, name, genes, hold, reported in origin_landscapes.published(origin):
        found = landscape[regime].metrics(genes[None], np.array([hold]))[0]
        assert found[FITNESS] == pytest.approx(reported, abs=1e-6), (regime, name)
        part = "specialists" if name == "with conductor" else "plain_ga_baseline_2025_11_05"
        entry = stored[part] if part == "specialists" else stored[part]["specialists"]
        entry = entry[regime].get("effective_genome", entry[regime])
        np.testing.assert_allclose(
            found, [entry["metrics"][metric] for metric in METRICS], rtol=0, atol=1e-12
        )
        # Negative control: a day more or less is another genome.
        assert landscape[regime].metrics(genes[None], np.array([hold + 1]))[0, FITNESS] != found[FITNESS]


def slow_metrics(landscape, genes, hold):
    """Return the metrics of one genome from the README's rules, one list of trades at a time."""
    gene = dict(zip(GENES, genes, strict=True))
    equity, worths, trades, position = 10_000.0, [10_000.0], [], None
    n = len(landscape.close)
    for t in range(n + 1):
        price, signal = landscape.close[min(t, n - 1)], landscape.signal[t] if t < n else 0.0
        if position:
            side, entry, start, size = position
            change = (price / entry - 1.0) * side
            out = change <= -gene["stop_loss"] or change >= gene["take_profit"]
            out = out or abs(signal) < gene["exit_threshold"] or side * signal < -0.3 or t - start >= hold
            if out or t == n:
                trades.append((change, equity * size * change, t - start))
                equity += trades[-1][1]
                position = None
        elif t < n and abs(signal) >= gene["entry_threshold"]:
            size = np.clip(
                gene["position_size"] / (gene["volatility_scaling"] * landscape.reach[t] / price), 0.01, 0.1
            )
            weight, momentum = gene["momentum_weight"], abs(landscape.momentum[t])
            if weight > 0.5 and momentum > 0.01:
                size *= 1.0 + weight / 2.0
            elif weight <= 0.5 and momentum > 0.02:
                size *= 1.0 - 0.3 * (1.0 - weight)
            position = (1 if signal > 0 else -1, price, t, np.clip(size, 0.01, 0.1))
        if position:
            worths.append(equity * (1.0 + position[3] * (price / position[1] - 1.0) * position[0]))
        else:
            worths.append(equity)
    if not trades:
        return 0.0
    change, profit, days = np.array(trades).T
    peaks = np.maximum.accumulate(worths)
    won, lost = profit[profit > 0].sum(), -profit[profit <= 0].sum()
    sharpe = change.mean() / change.std() * np.sqrt(252 / max(1.0, days.mean())) if change.std() > 0 else 0.0
    fitness = 10 * sharpe + 20 * (equity / 1e4 - 1) + 5 * (profit > 0).mean()
    fitness += 3 * min(won / lost if lost > 0 else won, 3.0) - 15 * ((peaks - worths) / peaks).max()
    return fitness if np.isfinite(fitness) else -1000.0


@pytest.mark.parametrize("seed", [0, 1])
def test_the_compiled_evaluator_trades_like_a_plain_loop(seed):
    landscape = ga_tuning.market(seed)
    genes = np.random.default_rng(seed).random((60, 8))
    hold = np.maximum(1, np.floor(14 * genes[:, 5])).astype(int)
    slow = [slow_metrics(landscape, row, days) for row, days in zip(genes, hold, strict=True)]
    np.testing.assert_allclose(landscape(genes), slow, rtol=1e-9, atol=1e-9)
    assert len(set(np.round(slow, 6))) > 30


def test_a_genome_that_never_trades_scores_nothing_and_one_that_trades_before_the_range_is_undefined():
    landscape = ga_tuning.market(0)
    quiet = np.full(8, 0.5)
    silent = Landscape(landscape.close, np.zeros_like(landscape.signal), landscape.momentum, landscape.reach)
    assert silent(quiet[None])[0] == 0.0
    eager = np.array([0.5, 0.5, 0.5, 0.0, 0.0, 0.5, 0.5, 0.5])
    assert landscape(eager[None])[0] == origin_landscapes.UNDEFINED


def test_searches_print_their_caution_and_champions_come_back_bit_for_bit(origin, tmp_path, capsys):
    tiny = ["--seeds", "1", "--population", "40", "--generations", "5", "--data", str(origin)]
    with pytest.raises(SystemExit) as left:
        origin_landscapes.main([*tiny, "--save", str(tmp_path)])
    assert left.value.code == 0
    printed = capsys.readouterr().out
    assert "no trading result" in printed
    assert "3 of 3 stored champions" in printed
    for regime in REGIMES:
        assert re.search(rf"^rugged, {regime} +-?\d+\.\d\d", printed, re.M)
    # Negative control: one gene moved by one bit is found out.
    file = next(tmp_path.glob("volatile*.json"))
    genome = json.loads(file.read_text())
    genome["fitness"] = float(np.nextafter(genome["fitness"], np.inf))
    file.write_text(json.dumps(genome))
    with pytest.raises(SystemExit) as left:
        origin_landscapes.main(["--load", str(tmp_path), "--data", str(origin)])
    assert left.value.code == 1
    assert "2 of 3 stored champions" in capsys.readouterr().out


def test_reproducing_prints_reported_and_measured_fitness(origin, capsys):
    origin_landscapes.main(["--reproduce", "--data", str(origin)])
    printed = capsys.readouterr().out
    assert len(re.findall(r"(?:with conductor|plain GA) +\S+ +\S+ +-?\d\.\de-\d\d", printed)) == 6
