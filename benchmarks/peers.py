"""The rule of ``population_kernel.py`` in backtesting.py and in vectorbt; needs only NumPy and the peer.

Called by that benchmark: ``python benchmarks/peers.py NAME CASE.npz COUNT`` prints one line of JSON.
"""

import json
import sys
import time

import numpy as np

CASH = 1e12  # whole units of backtesting.py are then no restriction


def backtesting(prices, rows, genes, rate):
    """Return version, processor seconds, growth and trades."""
    import pandas as pd
    from backtesting import Backtest, Strategy, __version__

    class Rule(Strategy):
        genes = ()

        def init(self):
            pass

        def next(self):
            entry, leave, rsi_cap, stop, target, size = self.genes
            gap, rsi = self.data.Gap[-1], self.data.Rsi[-1]
            if self.position:
                if gap <= leave:
                    self.position.close()
            elif gap > entry and rsi < rsi_cap:
                price = self.data.Close[-1]
                self.buy(size=size, sl=price - price * stop, tp=price + price * target)

    frame = pd.DataFrame(
        np.column_stack([prices, rows]),
        columns=["Open", "High", "Low", "Close", "Gap", "Rsi"],
        index=pd.date_range("2020-01-01", periods=len(prices), freq="h"),
    )
    frame["Volume"] = 1.0
    seconds, growth, trades = [], [], []
    for one in genes.tolist():
        test = Backtest(frame, Rule, cash=CASH, commission=rate, finalize_trades=True)
        start = time.process_time()
        result = test.run(genes=tuple(one))
        seconds.append(time.process_time() - start)
        growth.append(float(result["Equity Final [$]"]) / CASH)
        trades.append(int(result["# Trades"]))
    # One genome per run: the times are per genome, and the caller divides by all of them.
    return f"backtesting.py {__version__}", [s * len(genes) for s in seconds], growth, trades


def vectorbt(prices, rows, genes, rate):
    """Return version, processor seconds, growth and trades."""
    import pandas as pd
    import vectorbt as vbt

    gap, rsi = rows[:, :1], rows[:, 1:]
    late = np.zeros((1, len(genes)), bool)
    # A signal of a close is an order at the next open.
    entries = np.concatenate([late, ((gap > genes[:, 0]) & (rsi < genes[:, 2]))[:-1]])
    exits = np.concatenate([late, (gap <= genes[:, 1])[:-1]])
    opened, high, low, close = (pd.Series(column) for column in prices.T.copy())

    def run():
        return vbt.Portfolio.from_signals(
            close,
            pd.DataFrame(entries),
            pd.DataFrame(exits),
            price=opened,
            open=opened,
            high=high,
            low=low,
            size=genes[:, 5],
            size_type="percent",
            sl_stop=genes[:, 3],
            tp_stop=genes[:, 4],
            stop_entry_price="fillprice",
            fees=rate,
            init_cash=1.0,
            freq="h",
        )

    run()
    seconds = []
    for _ in range(3):
        start = time.process_time()
        portfolio = run()
        seconds.append(time.process_time() - start)
    growth, trades = portfolio.total_return().to_numpy() + 1.0, portfolio.trades.count().to_numpy()
    return f"vectorbt {vbt.__version__}", seconds, growth.tolist(), trades.tolist()


def main():
    name, path, count = sys.argv[1:]
    with np.load(path, allow_pickle=False) as case:
        genes = case["genes"][: int(count)]
        run = {"backtesting": backtesting, "vectorbt": vectorbt}[name]
        version, seconds, growth, trades = run(case["prices"], case["rows"], genes, float(case["rate"]))
    print(json.dumps({"version": version, "seconds": seconds, "growth": growth, "trades": trades}))


if __name__ == "__main__":
    main()
