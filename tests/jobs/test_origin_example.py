"""The origin task: the example finds every figure of the data's README again, and its honest ones pay costs.

What is published is read from the README beside the data, so that neither the example nor this file can say
something else than it does.
"""

import re
import runpy
import shutil
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest


@pytest.fixture(scope="module")
def example(root):
    """The names of the example, without running it."""
    return SimpleNamespace(**runpy.run_path(str(root / "examples" / "origin_phase_3d.py"), run_name="origin"))


@pytest.fixture(scope="module")
def folder(shared_data):
    """The folder of the origin's data; skips where there is none."""
    if not (shared_data / "origin" / "phase3a_genomes.json").is_file():
        pytest.skip("no data of the origin system beside the repository (../shared/data/origin)")
    return shared_data / "origin"


@pytest.fixture(scope="module")
def origin(example, folder):
    return example.Origin.load(folder)


@pytest.fixture(scope="module")
def readme(folder):
    return (folder / "README.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def again(example, origin):
    return example.published_again(origin)


@pytest.fixture(scope="module")
def left(example, origin):
    return example.honest(origin)


def told(readme, pattern):
    """The numbers of the README at a pattern; signs and thousands as it writes them."""
    found = re.search(pattern, readme)
    assert found, pattern
    return [float(text.replace(",", "")) for text in found.groups()]


def row(readme, title):
    """Return, Sharpe, drawdown (fractions) and trades of a row of the README's table."""
    line = next(line for line in readme.splitlines() if line.startswith(f"| {title}"))
    cells = [cell.strip() for cell in line.strip("|").split("|")][1:]
    gain, sharpe, drawdown, trades = (None if cell == "-" else float(cell) for cell in cells)
    return gain / 100.0, sharpe, drawdown / 100.0, None if trades is None else int(trades)


def naive_loop(origin, fill_late=0):
    """The origin's ensemble by hand: equity of each day [start 10,000] and profit of each trade."""
    closes, regimes = origin.bars.column("close"), origin.deployment
    cash, quantity, paid, equity, profits = 10_000.0, 0.0, 0.0, [], []
    for t in range(len(closes)):
        known = t - fill_late
        if known > 5 and regimes[known] == 2:
            rising = np.mean([closes[i] / closes[i - 1] - 1.0 for i in range(known - 4, known + 1)]) > 0.0
            if rising and quantity == 0.0:
                paid = 0.1 * cash
                quantity, cash = paid / closes[t], cash - paid
            elif quantity and not rising:
                profits.append(quantity * closes[t] - paid)
                quantity, cash = 0.0, cash + quantity * closes[t]
        equity.append(cash + quantity * closes[t])
    return np.array(equity), [*profits, quantity * closes[-1] - paid]


def test_the_published_ensemble_is_found_again_to_its_last_digit(example, again, readme):
    stated = told(
        readme,
        r"all 4,056 days: ([+\d.]+) %, Sharpe ([\d.]+) \(sqrt 252\), maximum drawdown ([\d.]+) %, "
        r"(\d+) trades, win rate ([\d.]+) %",
    )
    gain, sharpe, drawdown, trades = example.figures(again[example.LOOP], 252.0)
    won = again[example.LOOP].metrics.hit_rate
    found = [f"{100 * gain:.2f}", f"{sharpe:.2f}", f"{100 * drawdown:.2f}", trades, f"{100 * won:.1f}"]
    assert [float(one) for one in found] == stated
    assert example.PUBLISHED[example.LOOP] == pytest.approx((stated[0] / 100, stated[1], stated[2] / 100, 77))
    # Point 10: the same by 365 days; point 6: what one trade that is never closed earns.
    assert told(readme, r"with 365 days the ensemble figure is ([\d.]+\d)") == [
        round(example.figures(again[example.LOOP])[1], 2)
    ]
    pnl = again[example.LOOP].trades["pnl"]
    assert told(readme, r"never closed earns (\d+) % of the profit") == [round(100 * pnl[-1] / pnl.sum())]
    opened = np.datetime64(int(again[example.LOOP].trades["entry_time"][-1]), "ns").astype("M8[D]")
    assert f"opened on {opened - 1}" in readme  # a fill at the close of a day is stamped with the next


def test_our_engine_on_bent_bars_is_the_origins_loop_by_hand(example, origin, again):
    equity, profits = naive_loop(origin)
    curve = again[example.LOOP].curve.column("equity")
    np.testing.assert_allclose(curve, equity[example.DECIDES_FROM :], rtol=1e-9)
    np.testing.assert_allclose(again[example.LOOP].trades["pnl"], profits, rtol=1e-6, atol=1e-6)
    late, _ = naive_loop(origin, fill_late=1)  # negative control: a day later it is another account
    assert abs(late[-1] / equity[-1] - 1.0) > 1e-3


def test_the_published_return_needs_the_close_that_decides(example, origin, again):
    # Negative control: on the bars as they are, at the next open, the published figure is not reached.
    rows = slice(example.DECIDES_FROM, None)
    honest = example.simulate(
        example.loop_of_the_origin(origin), origin.bars, example.FREE, example.UNPROTECTED, rows=rows
    )
    assert honest.metrics.total_return < again[example.LOOP].metrics.total_return - 0.005


def test_the_loop_is_one_gene_of_one_genome(example, origin, again):
    # Point 6: the plain mean return never reaches the other thresholds, so their genes can be anything.
    other = {
        regime: genes if regime.text == "volatile" else dict.fromkeys(genes, 0.9) | {"entry_threshold": 0.18}
        for regime, genes in origin.genomes[example.STORED].items()
    }
    changed = example.replace(origin, genomes={example.STORED: other})
    same = example.loop_of_the_origin(changed).values
    assert np.array_equal(same, example.loop_of_the_origin(origin).values)
    lower = {regime: genes | {"entry_threshold": 0.0} for regime, genes in other.items()}
    changed = example.replace(origin, genomes={example.STORED: lower})
    assert not np.array_equal(same, example.loop_of_the_origin(changed).values)


def test_what_holding_earned_is_found_again(example, again, readme):
    tenth, sharpe_tenth, held, sharpe_held = told(
        readme,
        r"Constant 10 % in bitcoin over the same days: ([+\d]+) %, Sharpe ([\d.]+) on the same scale; "
        r"buy and hold: ([+\d,]+) %, Sharpe ([\d.]+)\.",
    )
    for name, gain, sharpe in (
        (example.CONSTANT, tenth, sharpe_tenth),
        (example.HELD, held, sharpe_held),
    ):
        found = example.figures(again[name], 252.0)
        assert (round(100 * found[0]), round(found[1], 2)) == (gain, sharpe)
        assert example.PUBLISHED[name][:2] == pytest.approx((gain / 100, sharpe))


def test_what_was_measured_from_2022_on_is_found_again(example, origin, readme):
    titles = {
        example.LOOP: "the origin's ensemble loop, published genomes",
        example.AS_STORED: "published genomes as stored",
        example.AS_EFFECTIVE: "published genomes, effective values",
        example.HELD: "buy and hold",
        example.CONSTANT: "constant 10 % bitcoin, no costs",
    }
    measured = example.measured_again(origin)
    assert list(measured) == list(titles) == list(example.MEASURED)
    for name, title in titles.items():
        stated, found = row(readme, title), example.figures(measured[name])
        assert example.MEASURED[name] == pytest.approx(stated), name
        # The loop's return there is 0.15 points less here, for a reason its one line does not tell.
        points = 0.002 if name == example.LOOP else 0.0005
        assert found[0] == pytest.approx(stated[0], abs=points), name
        assert found[1] == pytest.approx(stated[1], abs=0.005), name
        assert found[2] == pytest.approx(stated[2], abs=0.00055), name
        assert stated[3] in (None, found[3]), name


def test_the_rules_of_the_origin_are_told_from_others(example, origin):
    # Negative control of the test above: the effective genes are not those stored, nor is a longer hold.
    first, bars = origin.first, origin.bars
    genomes = origin.genomes[example.STORED]
    longer = {regime: genes | {"max_hold_time": 0.9} for regime, genes in genomes.items()}
    found = [
        example.simulate(
            example.rules_of_the_origin(origin, one, first), bars, example.FIFTEEN, example.UNPROTECTED,
            rows=slice(first, None),
        ).metrics.n_trades
        for one in (genomes, longer, origin.genomes[example.EFFECTIVE])
    ]  # fmt: skip
    assert len(set(found)) == 3


def test_the_honest_figures_are_of_unseen_days_at_the_next_open_with_costs(example, origin, left):
    day = int(np.datetime64("2022-01-01", "ns").astype(np.int64))
    for name, result in left.items():
        assert result.curve.time[0] == day, name  # the close of 2021-12-31, flat
        assert result.curve.column("turnover")[0] == 0.0, name
        assert (result.trades["fees"] > 0.0).all(), name
        assert (result.trades["slippage"] > 0.0).all(), name
        opens = dict(zip(origin.bars.time - origin.bars.interval_ns, origin.bars.column("open"), strict=True))
        entries = [opens[int(time)] for time in result.trades["entry_time"]]
        np.testing.assert_array_equal(result.trades["entry_price"], entries)
    # Nothing of the genomes is left, and nothing of the loop is more than its long position in a bull market.
    for name, result in left.items():
        if name.startswith("genomes"):
            assert result.metrics.total_return < 0.0 < left[example.CONSTANT].metrics.total_return


def test_our_regimes_were_fitted_before_the_test_and_the_genomes_were_not(example, origin):
    labels = example.our_labels(origin)
    values = origin.bars.values.copy()
    values[origin.first + 400 :, :4] *= 3.0  # altering the days after changes no label before
    altered = example.replace(origin, bars=example.replace(origin.bars, values=values))
    same = slice(0, origin.first + 400)
    np.testing.assert_array_equal(example.our_labels(altered).values[same], labels.values[same])
    values[origin.first - 400 : origin.first] = values[origin.first - 400]  # negative control: a frozen feed
    altered = example.replace(origin, bars=example.replace(origin.bars, values=values))
    assert not np.array_equal(example.our_labels(altered).values[same], labels.values[same], equal_nan=True)
    for specialist in example.specialists_of(origin, example.STORED):
        assert specialist.fitted_until == origin.bars.time[-1]


def test_the_example_prints_the_tables_and_what_they_say(example, folder, capsys):
    with pytest.raises(SystemExit) as ended:
        example.main(["--data", str(folder)])
    out, err = capsys.readouterr()
    assert (ended.value.code, err) == (0, "")
    for text in ("+189.36%", "+29,474.25%", "  stated", "Honest, from 2022-01-01", "our regimes"):
        assert text in out
    assert (
        "The published +189.36% at a Sharpe of 1.01 is found again: +189.36%, 1.01, 77 trades, 41.6%" in out
    )
    assert max(map(len, out.splitlines())) < 320


def test_a_missing_folder_is_one_sentence_and_status_2(root, tmp_path):
    done = subprocess.run(
        [sys.executable, str(root / "examples" / "origin_phase_3d.py"), "--data", str(tmp_path / "none")],
        capture_output=True, text=True, check=False, cwd=tmp_path,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.count("\n") == 1
    assert "has no btc_daily.parquet; it must hold the origin's data" in done.stderr


@pytest.mark.parametrize(
    ("name", "text", "sentence"),
    [
        ("phase3a_genomes.json", "{}", "labels or genomes are not those of the origin"),
        ("phase3a_genomes.json", "no json", "labels or genomes are not those of the origin"),
        ("btc_daily_regimes.parquet", "no parquet", "labels or genomes are not those of the origin"),
        ("btc_daily.parquet", "no parquet", "btc_daily.parquet"),
    ],
)
def test_a_damaged_folder_is_one_sentence_and_status_2(
    example, folder, tmp_path, capsys, name, text, sentence
):
    for file in ("btc_daily.parquet", "btc_daily_regimes.parquet", "phase3a_genomes.json"):
        shutil.copyfile(folder / file, tmp_path / file)
    (tmp_path / name).write_text(text, encoding="utf-8")
    with pytest.raises(SystemExit) as ended:
        example.main(["--data", str(tmp_path)])
    out, err = capsys.readouterr()
    assert (ended.value.code, out) == (2, "")
    assert err.count("\n") == 1
    assert sentence in err
