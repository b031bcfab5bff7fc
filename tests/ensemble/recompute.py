"""Every headline number of a validation's report.json once more, from its Parquet files, with pandas alone.

Nothing of the project is imported: who distrusts it can read these lines and run them on the folder of a run,
``python tests/ensemble/recompute.py experiments/runs/validate-...``. Prints what does not agree.
"""

import json
import math
import sys
from pathlib import Path

import pandas as pd

CLOSE = 1e-8  # relative; what is printed has five digits at most
BELOW = -1e-9  # a shallower drawdown is rounding


def longest(chosen):
    """The longest unbroken run of true values."""
    return int(chosen.groupby((~chosen).cumsum()).sum().max()) if len(chosen) else 0


def over(above, below):
    return above / below if below > 0 else math.nan


def of_returns(r, year):
    """Figures of net returns per bar."""
    n, root = len(r), math.sqrt(year)
    total = (1 + r).prod() - 1
    annual = (1 + total) ** (year / n) - 1 if n else math.nan
    equity = (1 + r).cumprod()
    depth = equity / equity.cummax().clip(lower=1) - 1
    depth = depth.where(depth < BELOW, 0.0)
    worst, share = r.sort_values().to_list(), n / 20
    tail = sum(worst[: int(share)]) + (share - int(share)) * worst[int(share)] if n else math.nan
    moves = n > 1 and r.std() > 1e-9
    low, high = (r.quantile(q) for q in (0.05, 0.95))
    return {
        "total_return": total, "annual_return": annual, "annual_volatility": r.std() * root, "n_bars": n,
        "sharpe": r.mean() / r.std() * root if moves else math.nan,
        "sortino": over(r.mean(), math.sqrt((r.clip(upper=0) ** 2).mean())) * root,
        "calmar": over(annual, -depth.min()), "omega": over(r.clip(lower=0).sum(), -r.clip(upper=0).sum()),
        "max_drawdown": depth.min() if n else 0.0, "drawdown_duration": longest(depth < 0),
        "ulcer": math.sqrt((depth**2).mean()), "var_95": min(low, 0.0),
        "cvar_95": min(tail / share, 0.0) if n else math.nan,
        "tail_ratio": over(abs(high), abs(low)),
    }  # fmt: skip


def of_account(bars, pnl, year):
    """Figures of the bars of an account and of the profits of its trades."""
    wins, losses = pnl[pnl > 0].sum(), -pnl[pnl < 0].sum()
    return of_returns(bars.net_return, year) | {
        "n_trades": len(pnl), "hit_rate": (pnl > 0).mean(), "profit_factor": over(wins, losses),
        "expectancy": pnl.mean(), "worst_trade": pnl.min(), "losing_streak": longest(pnl < 0),
        "turnover": bars.turnover.mean() * year, "time_in_market": (bars.exposure != 0).mean(),
        "gross_exposure": bars.exposure.abs().mean(), "net_exposure": bars.exposure.mean(),
    }  # fmt: skip


def recomputed(folder, report):
    """The same numbers as in the report, by their path in it."""
    read = {name: pd.read_parquet(folder / f"{name}.parquet") for name in
            ("metrics/equity", "metrics/trades", "metrics/returns", "predictions/decisions")}  # fmt: skip
    bars, trades, returns, said = read.values()
    own = report["metrics"]["strategy"]
    year, capital = own["bars_per_year"], report["costs"]["capital"]
    found = {"metrics/strategy": of_account(bars, trades.pnl, year)}
    for group in ("baselines", "members", "blenders"):
        for name in report["metrics"][group]:
            found[f"metrics/{group}/{name}"] = of_returns(returns[name], year)
    instant = pd.Timedelta(1, "ns")
    for i, (name, rows) in enumerate(bars.groupby((bars.time - instant).dt.year, sort=True)):
        before = bars.time[rows.index[0] - 1] if rows.index[0] else pd.Timestamp(0, tz="UTC")
        ended = trades[(trades.exit_time > before) & (trades.exit_time <= rows.time.iloc[-1])]
        found[f"years/{i}"] = {"name": str(name)}
        found[f"years/{i}/metrics"] = of_account(rows, ended.pnl, year)
    for i, fold in enumerate(report["folds_performance"]):
        rows = bars[(bars.time >= fold["first"]) & (bars.time <= fold["last"])]
        before = bars.time[rows.index[0] - 1] if rows.index[0] else pd.Timestamp(0, tz="UTC")
        ended = trades[(trades.exit_time > before) & (trades.exit_time <= rows.time.iloc[-1])]
        found[f"folds_performance/{i}/metrics"] = of_account(rows, ended.pnl, year)
        for name in fold["baselines"]:
            beside = of_returns(returns[name][rows.index], year)
            found[f"folds_performance/{i}/baselines/{name}"] = {
                k: beside[k] for k in ("total_return", "sharpe")
            }
    held = said.label.shift(1, fill_value=-1)  # the regime that was known when the bar's position was decided
    names = [name.removeprefix("p_") for name in said.columns if name.startswith("p_")]
    for i, one in enumerate(report["regimes"]):
        code = names.index(one["name"]) if one["name"] in names else -1
        mine = of_account(bars[held == code], trades.pnl[trades.regime == code], year)
        found[f"regimes/{i}/metrics"] = mine
        found[f"regimes/{i}"] = {"bars": int((held == code).sum()), "share": (held == code).mean()}
    groups = {"side": trades.side.map({1: "long", -1: "short"}), "reason of the exit": trades.reason}
    for kind, key in groups.items():
        for i, one in enumerate(report["trades"]["groups"].get(kind, ())):
            mine = trades[key == one["name"]]
            found[f"trades/groups/{kind}/{i}"] = {
                "n_trades": len(mine), "pnl": mine.pnl.sum(), "hit_rate": (mine.pnl > 0).mean(),
                "costs": (mine.fees + mine.slippage + mine.funding).sum(), "mean_bars": mine.bars.mean(),
                "mean_return": (mine.pnl / (mine.quantity * mine.entry_price)).mean(),
            }  # fmt: skip
    found["trades"] = {"count": len(trades), "median_bars": trades.bars.median()}
    paid = {name: bars[name].sum() for name in ("fees", "slippage", "funding")}
    net = trades.pnl.sum()  # the profit of the trades has to be what the equity grew by
    found["costs"] = {**paid, "net": net, "costs": sum(paid.values()), "gross": net + sum(paid.values())}
    daily = (1 + bars.net_return).groupby((bars.time - instant).dt.date).prod() - 1
    days, of_bars = of_returns(daily, 365), found["metrics/strategy"]
    found["tails"] = {
        "var_95_bar": of_bars["var_95"], "cvar_95_bar": of_bars["cvar_95"], "worst_day": daily.min(),
        "var_95_day": days["var_95"], "cvar_95_day": days["cvar_95"], "worst_day_date": str(daily.idxmin()),
    }  # fmt: skip
    for i, one in enumerate(report["crises"]):
        rows = bars[(bars.time > one["start"]) & (bars.time <= one["end"])]
        if one["account"] and len(rows) == one["bars"]:
            mine = of_returns(rows.net_return, year)
            found[f"crises/{i}/account"] = {key: mine[key] for key in ("total_return", "max_drawdown")}
    for name in report["members"]:
        signal = said[f"signal_{name}"]
        found[f"members/{name}"] = {
            "opinion": signal.notna().mean(), "active": (signal.fillna(0) != 0).mean(),
            "mean_weight": said[f"weight_{name}"].mean(),
        }  # fmt: skip
    wish = said.exposure.fillna(0)
    found["stages/2"] = {"turnover": wish.diff().fillna(wish).abs().mean() * year, "flat": (wish == 0).mean()}
    grown = capital * (1 + bars.net_return).prod()
    found["equity"] = {
        "last": (bars.equity.iloc[-1], grown),
        "by trades": (bars.equity.iloc[-1], capital + net),
    }
    return found


def mismatches(folder):
    """What the report of a run says otherwise than its files, one line each; and how many were compared."""
    folder = Path(folder)
    report = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    wrong, count = [], 0
    for path, figures in recomputed(folder, report).items():
        place = report
        for key in path.split("/") if path != "equity" else ():
            place = place[int(key)] if isinstance(place, list) else place[key]
        for name, value in figures.items():
            said, value = value if isinstance(value, tuple) else (place[name], value)
            count += 1
            if isinstance(value, str):
                same = said == value
            elif said is None:
                same = value != value
            else:
                same = math.isclose(said, value, rel_tol=CLOSE, abs_tol=1e-9)
            if not same:
                wrong.append(f"{path}/{name}: the report says {said}, the files {value}")
    return wrong, count


if __name__ == "__main__":
    lines, compared = mismatches(sys.argv[1])
    print("\n".join([*lines, f"{compared} numbers compared, {len(lines)} do not agree"]))
    sys.exit(bool(lines))
