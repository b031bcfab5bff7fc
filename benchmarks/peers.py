"""The rule of ``reference_family.py`` in backtesting.py and in vectorbt; needs only NumPy and the peer.

``population_kernel.py`` calls ``python benchmarks/peers.py NAME CASE.npz COUNT``, which prints a line of
JSON. Seconds are processor time per genome, best of some runs, from the bars to the metrics; compilation came
before.
"""

import json
import sys
import time

import numpy as np

CASH = 1e12  # whole units of backtesting.py are then no restriction
RUNS = 3


def backtesting(prices, genes, rate, bars_per_year):
    """Return version, seconds per genome, and what was read; indicators with pandas, as in its examples."""
    import pandas as pd
    from backtesting import Backtest, Strategy, __version__

    def average(values, share):
        return pd.Series(values).ewm(alpha=share, adjust=False).mean()

    def strength(values, period):
        change = pd.Series(values).diff().fillna(0.0)
        gain, loss = average(change.clip(lower=0), 1 / period), average(-change.clip(upper=0), 1 / period)
        return 100 * gain / (gain + loss)

    class Rule(Strategy):
        genes = ()

        def init(self):
            fast, slow, period = self.genes[:3]
            self.fast = self.I(average, self.data.Close, 2 / (fast + 1))
            self.slow = self.I(average, self.data.Close, 2 / (slow + 1))
            self.rsi = self.I(strength, self.data.Close, period)

        def next(self):
            cap, stop, target, hold, size = self.genes[3:]
            above = self.fast[-1] > self.slow[-1]
            if self.position:
                if not above or len(self.data) - self.trades[-1].entry_bar >= hold:
                    self.position.close()
            elif above and self.fast[-2] <= self.slow[-2] and self.rsi[-1] < cap:
                price = self.data.Close[-1]
                self.buy(size=size, sl=price - price * stop, tp=price + price * target)

    frame = pd.DataFrame(
        prices,
        columns=["Open", "High", "Low", "Close"],
        index=pd.date_range("2020-01-01", periods=len(prices), freq="h"),
    )
    frame["Volume"] = 1.0
    seconds, read = [], {"growth": [], "trades": [], "sharpe": [], "drawdown": []}
    for one in genes.tolist():
        took = []
        for _ in range(RUNS):
            start = time.process_time()
            test = Backtest(frame, Rule, cash=CASH, commission=rate, finalize_trades=True)
            result = test.run(genes=tuple(one))
            took.append(time.process_time() - start)
        seconds.append(min(took))
        read["growth"].append(float(result["Equity Final [$]"]) / CASH)
        read["trades"].append(int(result["# Trades"]))
        read["sharpe"].append(float(result["Sharpe Ratio"]))
        read["drawdown"].append(float(result["Max. Drawdown [%]"]) / 100)
    # Genomes trade more or less, so their mean is the time of one.
    return {"version": f"backtesting.py {__version__}", "seconds": float(np.mean(seconds)), **read}


def vectorbt(prices, genes, rate, bars_per_year):
    """Return version, seconds per genome, their parts, and what was read; all genomes are one broadcast."""
    import numba
    import pandas as pd
    import vectorbt as vbt

    index = pd.date_range("2020-01-01", periods=len(prices), freq="h")
    opened, high, low, close = (pd.Series(column.copy(), index=index) for column in prices.T)
    fast, slow, period = (column.astype(int).tolist() for column in genes[:, :3].T)
    cap, stop, target, hold, size = genes[:, 3:].T.copy()

    # vectorbt knows no longest hold; both stops are put where one of them closes at the open.
    @numba.njit
    def stop_of(context, opens, holds, distances):
        if context.position_now > 0 and context.i - context.init_i >= holds[context.col]:
            return (0.0 if opens[context.i] <= context.init_price else np.nan), False
        return context.curr_stop, False

    @numba.njit
    def target_of(context, opens, holds, distances):
        if context.position_now > 0 and context.i - context.init_i >= holds[context.col]:
            return 0.0
        return context.curr_stop

    extra = (prices[:, 0].copy(), hold, stop)
    parts = {}

    def run():
        start = time.process_time()
        options = {"ewm": True, "param_product": False, "run_unique": True}
        averages = [vbt.MA.run(close, window, **options) for window in (fast, slow)]
        # Wilder's share 1 / period is that of a span of 2 period - 1.
        rsi = vbt.RSI.run(close, [2 * p - 1 for p in period], **options)
        above = averages[0].ma.to_numpy() > averages[1].ma.to_numpy()
        weak = rsi.rsi.to_numpy() < cap
        late = np.zeros((1, len(genes)), bool)
        before = np.concatenate([~late, above[:-1]])  # a signal of a close is an order at the next open
        entries = np.concatenate([late, (above & ~before & weak)[:-1]])
        exits = np.concatenate([late, ~above[:-1]])
        parts["signals"] = time.process_time() - start
        portfolio = vbt.Portfolio.from_signals(
            close,
            pd.DataFrame(entries, index=index),
            pd.DataFrame(exits, index=index),
            price=opened,
            open=opened,
            high=high,
            low=low,
            size=size,
            size_type="percent",
            sl_stop=stop,
            tp_stop=target,
            adjust_sl_func_nb=stop_of,
            adjust_sl_args=extra,
            adjust_tp_func_nb=target_of,
            adjust_tp_args=extra,
            stop_entry_price="fillprice",
            fees=rate,
            init_cash=1.0,
            freq="h",
        )
        parts["simulation"] = time.process_time() - start - parts["signals"]
        read = {
            "growth": portfolio.total_return() + 1.0,
            "trades": portfolio.trades.count(),
            "sharpe": portfolio.sharpe_ratio(),
            "drawdown": portfolio.max_drawdown(),
        }
        whole = time.process_time() - start
        parts["metrics"] = whole - parts["signals"] - parts["simulation"]
        return whole, {name: column.to_numpy().tolist() for name, column in read.items()}

    run()
    runs = [(*run(), dict(parts)) for _ in range(RUNS)]
    seconds, read, best = min(runs, key=lambda one: one[0])
    p = len(genes)
    return {
        "version": f"vectorbt {vbt.__version__}",
        "seconds": seconds / p,
        "parts": {name: part / p for name, part in best.items()},
        **read,
    }


def main():
    name, path, count = sys.argv[1:]
    with np.load(path, allow_pickle=False) as case:
        genes = case["genes"][: int(count)]
        run = {"backtesting": backtesting, "vectorbt": vectorbt}[name]
        answer = run(case["prices"], genes, float(case["rate"]), float(case["bars_per_year"]))
    print(json.dumps(answer))


if __name__ == "__main__":
    main()
