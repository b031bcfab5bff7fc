"""Two runs side by side, and the paired bootstrap of their returns against an obvious twin."""

import json
from io import StringIO

import numpy as np
import pytest
from rich.console import Console

from experiments import comparing
from experiments.comparing import compare, paired_bootstrap, returns_test, show
from experiments.records import read
from tests.experiments.made_runs import GENES, Inner, Settings, make_run, report, write_curve

YEAR = 8760.0


def rng(seed=0):
    return np.random.default_rng(seed)


def accounts(n, seed=0, edge=0.0, memory=0.0):
    """Two accounts that share a market; the second earns ``edge`` more per bar."""
    random = rng(seed)
    market = random.normal(0.0, 0.01, n)
    own = random.normal(0.0, 0.002, (2, n))
    for t in range(1, n):
        own[:, t] += memory * own[:, t - 1]
    return market + own[0], market + own[1] + edge


def sharpe(returns):
    return returns.mean() / returns.std(ddof=1) * np.sqrt(YEAR)


# --- the bootstrap ----------------------------------------------------------------------------------


@pytest.mark.parametrize(("n", "mean_block"), [(2, 1.0), (37, 1.0), (400, 13.7), (400, 900.0)])
def test_the_bootstrap_equals_a_naive_one_of_the_same_blocks(n, mean_block):
    one, two = accounts(n, 3, 1e-4)
    found = paired_bootstrap(one, two, mean_block, YEAR, rng(5), n_paths=60)
    starts, lengths = comparing._blocks(n, mean_block, rng(5), 60)
    growth, ratio = [], []
    for start, length in zip(starts, lengths, strict=True):
        pieces = zip(start, length, strict=True)
        rows = np.concatenate([np.arange(first, first + many) for first, many in pieces]) % n
        assert rows.size == n
        growth.append((np.log1p(two[rows]) - np.log1p(one[rows])).mean() * YEAR)
        with np.errstate(divide="ignore", invalid="ignore"):  # two rows may be the same one twice
            ratio.append(sharpe(two[rows]) - sharpe(one[rows]))
    for name, paths, mine in (
        ("growth", np.array(growth), [np.log1p(x).mean() * YEAR for x in (one, two)]),
        ("sharpe", np.array(ratio), [sharpe(x) for x in (one, two)]),
    ):
        paths = paths[np.isfinite(paths)]
        difference = mine[1] - mine[0]
        p_value = (1 + (np.abs(paths - difference) >= abs(difference)).sum()) / (1 + paths.size)
        got = found[name]
        assert [got.first, got.second] == pytest.approx(mine, rel=1e-9)
        assert got.difference == pytest.approx(difference, rel=1e-9)
        assert [got.low, got.high] == pytest.approx(np.quantile(paths, [0.025, 0.975]), rel=1e-8, abs=1e-9)
        assert got.p_value == pytest.approx(p_value)


def test_blocks_have_geometric_lengths_and_every_row_is_equally_likely():
    n, mean_block, paths = 200, 8.0, 4000
    starts, lengths = comparing._blocks(n, mean_block, rng(), paths)
    assert (lengths.sum(axis=1) == n).all()
    first = lengths[:, 0]  # only the last block of a path is cut, and the first is hardly ever the last
    assert first.mean() == pytest.approx(mean_block, rel=0.05)
    assert (first == 1).mean() == pytest.approx(1 / mean_block, rel=0.15)
    assert starts.min() == 0
    assert starts.max() == n - 1
    counts = np.bincount(starts.ravel(), minlength=n)
    assert abs(counts / counts.mean() - 1.0).max() < 0.15


def rejections(memory, mean_block):
    found = 0
    for seed in range(120):
        one, two = accounts(300, seed, memory=memory)
        found += paired_bootstrap(one, two, mean_block, YEAR, rng(seed), n_paths=199)["growth"].p_value <= 0.1
    return found / 120


def test_equal_accounts_are_called_different_as_rarely_as_the_level_says():
    assert rejections(0.0, 5.0) <= 0.2
    # The control: returns with a memory, resampled as if they had none.
    assert rejections(0.8, 1.0) >= 0.35
    assert rejections(0.8, 20.0) <= 0.25


def test_a_real_difference_is_found_and_one_that_the_market_hides_too():
    one, two = accounts(2000, 1, edge=3e-4)
    paired = paired_bootstrap(one, two, 10.0, YEAR, rng())["growth"]
    assert paired.p_value < 0.01
    assert paired.low > 0.0
    # The control: against another stretch of the market what they share no longer cancels.
    apart = paired_bootstrap(one, np.roll(two, 700), 10.0, YEAR, rng())["growth"]
    assert apart.difference == pytest.approx(paired.difference)
    assert apart.p_value > 0.05
    assert apart.high - apart.low > 3.0 * (paired.high - paired.low)


def test_a_bootstrap_does_not_depend_on_how_paths_are_chunked(monkeypatch):
    one, two = accounts(500, 2)
    whole = paired_bootstrap(one, two, 500.0, YEAR, rng(), n_paths=50)
    assert whole == paired_bootstrap(one, two, 500.0, YEAR, rng(), n_paths=50)
    monkeypatch.setattr(comparing, "_CELLS", 7)
    parts = paired_bootstrap(one, two, 500.0, YEAR, rng(), n_paths=50)
    assert parts["growth"].difference == whole["growth"].difference
    assert parts["growth"].low == pytest.approx(whole["growth"].low, rel=0.6)


def test_the_order_of_accounts_turns_the_signs():
    one, two = accounts(500, 4, edge=1e-4)
    there, back = (paired_bootstrap(*pair, 7.0, YEAR, rng()) for pair in ((one, two), (two, one)))
    for name in ("growth", "sharpe"):
        assert back[name].difference == pytest.approx(-there[name].difference)
        assert [back[name].low, back[name].high] == pytest.approx([-there[name].high, -there[name].low])
        assert back[name].p_value == there[name].p_value


def test_an_account_does_not_differ_from_itself():
    one, _ = accounts(300)
    for difference in paired_bootstrap(one, one, 5.0, YEAR, rng()).values():
        assert difference.difference == difference.low == difference.high == 0.0
        assert difference.p_value == 1.0


def test_an_account_that_never_moved_has_growth_and_no_sharpe_ratio():
    one, _ = accounts(300)
    found = paired_bootstrap(np.zeros(300), one, 5.0, YEAR, rng())
    assert found["growth"].first == 0.0
    assert np.isfinite(found["growth"].p_value)
    assert np.isnan(found["sharpe"].first)
    assert np.isnan(found["sharpe"].p_value)


@pytest.mark.parametrize(
    ("one", "two", "block", "said"),
    [
        ([0.1], [0.1], 1.0, "two rows at least"),
        ([0.1, -1.0], [0.1, 0.1], 1.0, "above -1"),
        ([0.1, np.nan], [0.1, 0.1], 1.0, "above -1"),
        ([0.1, np.inf], [0.1, 0.1], 1.0, "above -1"),
        ([0.1, 0.2], [0.1, 0.1], 0.5, "mean_block is 0.5"),
        ([0.1, 0.2], [0.1, 0.1], np.inf, "mean_block is inf"),
    ],
)
def test_returns_and_blocks_that_mean_nothing_are_refused(one, two, block, said):
    with pytest.raises(ValueError, match=said):
        paired_bootstrap(np.array(one), np.array(two), block, YEAR, rng())


# --- two runs ---------------------------------------------------------------------------------------


@pytest.fixture
def two_runs(tmp_path):
    one, two = accounts(3000, 7, edge=2e-4)
    genes = GENES | {"bias": -0.5}
    first = make_run(tmp_path, returns=one, rows={"test": [0, 3000]})
    second = make_run(
        tmp_path,
        minutes=1,
        config=Settings(seed=8, hyperparameters=Inner(patience=5)),
        document=report(False, (3.0, 1.0), genes),
        returns=two,
        rows={"test": [0, 3000]},
    )
    return read(first), read(second), one, two


def printed(found):
    where = Console(file=StringIO(), width=160, highlight=False)
    show(where, found)
    return " ".join(where.file.getvalue().split())


def test_two_runs_are_compared_in_everything_that_differs(two_runs):
    first, second, one, two = two_runs
    found = compare(first, second)
    assert found["settings"] == {"seed": [7, 8], "hyperparameters.patience": [20, 5]}
    assert found["same_data"] is True
    assert found["same_rows"] is True
    assert found["same_code"] is True
    assert found["metrics"]["out of sample"]["sharpe"] == [1.5, 1.0, -0.5]
    assert found["genes"]["bias"] == [0.25, -0.5]
    assert [one["passed"] for one in found["verdicts"]] == [True, False]
    test = found["returns"]
    assert test["rows"] == 3000
    assert test["mean_block_bars"] == pytest.approx(168.0)
    assert test["growth"]["difference"] == pytest.approx(
        (np.log1p(two) - np.log1p(one)).mean() * YEAR, rel=1e-6
    )
    assert test["sharpe"]["second"] == pytest.approx(sharpe(two), rel=1e-6)
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert found == compare(first, second)
    assert found["returns"]["growth"]["low"] != compare(first, second, seed=8)["returns"]["growth"]["low"]
    text = printed(found)
    assert "hyperparameters.patience 20 5" in text
    assert "Sharpe 2.50 3.00 +0.50 1.50 1.00 -0.50" in text
    assert "bias 0.25 -0.5" in text
    assert "stop_atr" not in text  # the same in both
    assert "3,000 out-of-sample rows that both have, 1970-01-01 00:00 to 1970-05-05 23:00" in text
    assert f"p = {test['growth']['p_value']:.4f}" in text
    assert "FAIL: said of the volatile specialist." in text


def test_only_rows_that_both_have_are_compared(two_runs):
    first, second, one, two = two_runs
    write_curve(second.run, two[1000:], first_hour=1000)
    test, _ = returns_test(first, second)
    assert test["rows"] == 2000
    assert test["from"] == "1970-02-11 16:00"
    part = (np.log1p(two) - np.log1p(one))[1000:].mean() * YEAR
    assert test["growth"]["difference"] == pytest.approx(part, rel=1e-6)
    back, _ = returns_test(second, first)
    assert back["growth"]["difference"] == pytest.approx(-part, rel=1e-6)
    write_curve(second.run, two, first_hour=2500)
    assert "500 out-of-sample rows in common; blocks of 7 days need 1,680" in returns_test(first, second)[1]
    write_curve(second.run, two, first_hour=9000)
    assert "no out-of-sample rows in common" in returns_test(first, second)[1]


def test_returns_on_other_bars_are_not_compared(two_runs, tmp_path):
    first, second, one, _ = two_runs
    other = read(make_run(tmp_path, minutes=2, returns=one, data={"bars": "0" * 64}))
    found = compare(first, other)
    assert found["same_data"] is False
    assert found["returns"] is None
    assert "Returns are not tested: their bars are not known to be the same." in printed(found)
    assert compare(first, second)["returns"] is not None  # the control


def test_a_curve_that_cannot_be_read_is_named(two_runs):
    first, second, _, two = two_runs
    path = second.run.folder / comparing.EQUITY
    path.write_bytes(b"PAR1 no")
    test, reason = returns_test(first, second)
    assert test is None
    assert f"{comparing.EQUITY} of {second.run.id} cannot be read" in reason
    write_curve(second.run, np.where(np.arange(two.size) == 5, -1.0, two))
    assert "lost everything" in returns_test(first, second)[1]
    path.unlink()
    assert returns_test(first, second)[1] == f"{second.run.id} has no {comparing.EQUITY}"


def test_runs_of_two_commands_are_compared_as_far_as_they_go(two_runs, tmp_path):
    first = two_runs[0]
    other = read(make_run(tmp_path, "hmm", command="detect", document={"seed": 7}))
    found = compare(first, other)
    assert found["metrics"]["in sample"]["sharpe"] == [2.5, None, None]
    assert "Sharpe 2.50 - - 1.50 - -" in printed(found)
    assert "PASS" in printed(found)
