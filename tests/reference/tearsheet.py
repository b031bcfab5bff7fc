"""Every number in the tables of a tear sheet, recomputed from the files beside it in plain Python.

``cells`` reads the page as a person would: table, heading, row, column, text. ``recomputed`` makes the same
keys from ``equity.parquet`` and ``trades.parquet``. ``mismatches`` compares at the printed precision.
"""

import hashlib
import math
import re
from datetime import UTC, datetime
from html.parser import HTMLParser
from itertools import pairwise
from statistics import NormalDist, median

import pyarrow as pa
import pyarrow.parquet as pq

from tests.reference import evidence, metrics

MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
TITLES = {
    "total return": "total_return", "return per year": "annual_return",
    "volatility per year": "annual_volatility", "Sharpe ratio": "sharpe", "Sortino ratio": "sortino",
    "Calmar ratio": "calmar", "Omega ratio": "omega", "largest drawdown": "max_drawdown",
    "longest drawdown": "drawdown_duration", "ulcer index": "ulcer", "VaR 95 %, one bar": "var_95",
    "CVaR 95 %, one bar": "cvar_95", "tail ratio": "tail_ratio", "trades": "n_trades",
    "hit rate": "hit_rate", "profit factor": "profit_factor", "profit per trade": "expectancy",
    "worst trade": "worst_trade", "losing streak": "losing_streak", "turnover per year": "turnover",
    "time in market": "time_in_market", "mean size of exposure": "gross_exposure",
    "mean exposure": "net_exposure", "bars": "n_bars", "bars per year": "bars_per_year",
}  # fmt: skip


# The page


class _Cells(HTMLParser):
    def __init__(self):
        super().__init__()
        self.found, self.order = {}, []
        self.table = self.group = self.text = None
        self.columns, self.row = [], []

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        if tag == "table":
            self.table, self.columns, self.group = attributes["id"], [], ""
        elif tag == "tr":
            self.row = []
        elif tag in ("th", "td"):
            self.text, self.whole_row = "", "colspan" in attributes

    def handle_data(self, data):
        if self.text is not None:
            self.text += data

    def handle_endtag(self, tag):
        if tag in ("th", "td"):
            if self.whole_row:
                self.group = self.text
            else:
                self.row.append(self.text)
            self.text = None
        elif tag == "tr" and self.row:
            if not self.columns:
                self.columns = self.row
                return
            for column, text in zip(self.columns[1:], self.row[1:], strict=True):
                key = (self.table, self.group, self.row[0], column)
                assert key not in self.found, f"{key} is there twice"
                self.found[key] = text
            if self.table == "headline":
                self.found[self.table, "", self.row[0], self.columns[0]] = self.row[0]


def cells(page):
    """Text of every cell by (table, heading, row, column); cells of words about conventions left out."""
    parser = _Cells()
    parser.feed(page)
    return {key: text for key, text in parser.found.items() if key[3] != "convention"}


# The files


class Account:
    """One pair of files."""

    def __init__(self, folder, capital, bars_per_year):
        curve, trades = (pq.read_table(folder / f"{name}.parquet") for name in ("equity", "trades"))
        for name in ("time", "equity", "net_return", "exposure", "turnover", "fees", "slippage", "funding"):
            setattr(self, name, _plain(curve.column(name)))
        self.trades = [
            dict(zip(trades.column_names, row, strict=True))
            for row in zip(*(_plain(column) for column in trades.columns), strict=True)
        ]
        self.capital, self.year = capital, bars_per_year
        self.pnl = [trade["pnl"] for trade in self.trades]

    def metric(self, name):
        own = {"n_trades": len(self.trades), "n_bars": len(self.time), "bars_per_year": self.year}
        if name in own:
            return own[name]
        if name == "turnover":
            return metrics.annual_turnover(self.turnover, self.year)
        if name in metrics.ANNUAL:
            return getattr(metrics, name)(self.net_return, self.year)
        if name in metrics.ON_RETURNS:
            return getattr(metrics, name)(self.net_return)
        values = {metrics.ON_TRADES: self.pnl, metrics.ON_EXPOSURES: self.exposure}
        return getattr(metrics, name)(next(given for names, given in values.items() if name in names))

    def calendar(self, form):
        growth = {}
        for time, r in zip(self.time, self.net_return, strict=True):
            period = datetime.fromtimestamp((time - 1) // 10**9, UTC).strftime(form)
            growth[period] = growth.get(period, 1.0) * (1 + r)
        return {period: value - 1 for period, value in growth.items()}


def _plain(column):
    return (column.cast(pa.int64()) if pa.types.is_timestamp(column.type) else column).to_pylist()


def clock(time):
    """An instant as the sheet writes it, for bars on whole minutes."""
    return datetime.fromtimestamp(time // 10**9, UTC).strftime("%Y-%m-%d %H:%M")


def deviation(values):
    """As the reference says, but without its rule on rounding where there is one value."""
    return metrics.deviation(values)


def distribution(values):
    """The row of a distribution."""
    moving = len(values) > 1 and max(values) > min(values)
    _, skewness, kurtosis, _ = evidence.moments(values) if moving else [math.nan] * 4
    return {
        "number": len(values),
        "positive": len([v for v in values if v > 0]) / len(values),
        "mean": metrics.mean(values),
        "median": median(values),
        "deviation": deviation(values),
        "skewness": skewness,
        "kurtosis": kurtosis,
        "worst": min(values),
        "5 %": metrics.quantile(values, 0.05),
        "95 %": metrics.quantile(values, 0.95),
        "best": max(values),
    }


def skill(account):
    """Moments, the probability of a positive Sharpe ratio, the years needed; sums of an AR(1) written out."""
    if len(set(account.net_return)) == 1:
        return [math.nan] * 5
    sharpe, skewness, kurtosis, lag = evidence.moments(account.net_return)
    terms = range(1, 10 + int(50 / (1 - abs(lag))))
    once, twice = (math.fsum(lag ** (k * power) for k in terms) for power in (1, 2))
    spread = (
        1 + 2 * once - (1 + once + twice) * skewness * sharpe
        + (1 + 2 * twice) * (kurtosis - 1) / 4 * sharpe**2
    )  # fmt: skip
    if not spread > 0:  # the formula gives no error: too few bars for their autocorrelation
        return skewness, kurtosis, lag, math.nan, math.nan
    normal = NormalDist()
    probability = normal.cdf(sharpe * math.sqrt((len(account.time) - 1) / spread))
    needed = 1 + spread * (normal.inv_cdf(0.95) / sharpe) ** 2 if sharpe > 0 else math.nan
    return skewness, kurtosis, lag, probability, needed / account.year


def spells(account):
    """Peak, trough and recovery rows, depth and length of every drawdown, the deepest first."""
    found, current = [], None
    for row, depth in enumerate(metrics.drawdown(account.net_return)):
        if depth < 0 and current is None:
            current = {"peak": row - 1, "trough": row, "depth": depth, "bars": 0, "recovery": None}
            found.append(current)
        if depth < 0:
            current["bars"] += 1
            if depth < current["depth"]:
                current |= {"depth": depth, "trough": row}
        elif current is not None:
            current["recovery"], current = row, None
    return sorted(found, key=lambda spell: spell["depth"])


def groups(account, regimes):
    """The trades of every row of the table of groups."""
    bounds = ((1, 1), (2, 4), (5, 16), (17, 64), (65, 256), (257, math.inf))
    names = (
        "1 bar", "2 to 4 bars", "5 to 16 bars", "17 to 64 bars", "65 to 256 bars", "257 bars or more",
    )  # fmt: skip
    found = {}
    for trade in account.trades:
        held = next(name for (a, b), name in zip(bounds, names, strict=True) if a <= trade["bars"] <= b)
        for heading, name in (
            ("by side", "long" if trade["side"] == 1 else "short"),
            ("by reason of the exit", trade["reason"]),
            ("by regime at the decision", regimes[trade["regime"]]),
            ("by holding time", held),
        ):
            found.setdefault((heading, name), []).append(trade)
    return found


def paid(trades):
    """Costs of some trades."""
    return math.fsum(trade[name] for trade in trades for name in ("fees", "slippage", "funding"))


def gain(trade):
    """Return of a trade."""
    return trade["pnl"] / (trade["quantity"] * trade["entry_price"])


def recomputed(folder, capital, bars_per_year, benchmarks, regimes, bars_about):
    """Every cell of the page that is no stress test.

    What the files do not hold is given: ``benchmarks`` are names in order, ``regimes`` names by code,
    ``bars_about`` symbol and timeframe.
    """
    own = Account(folder, capital, bars_per_year)
    everyone = {"strategy": own}
    for i, name in enumerate(benchmarks, 1):
        everyone[name] = Account(folder / f"benchmark-{i}", capital, bars_per_year)
    found = {}

    def put(table, row, column, value, group=""):
        found[table, group, row, column] = value

    equity = [capital, *own.equity]
    n, years = len(own.time), len(own.time) / bars_per_year
    fees, slippage, funding = (math.fsum(values) for values in (own.fees, own.slippage, own.funding))
    costs, net = fees + slippage + funding, equity[-1] - capital
    gross = net + costs
    traded = math.fsum(share * before for share, before in zip(own.turnover, equity, strict=False))
    eaten = costs / gross if gross > 0 else math.nan

    headline = {
        "total return": own.metric("total_return"), "return per year": own.metric("annual_return"),
        "Sharpe ratio": own.metric("sharpe"), "largest drawdown": own.metric("max_drawdown"),
        "costs / gross profit": eaten, "trades": len(own.trades),
    }  # fmt: skip
    for column, value in headline.items():
        put("headline", None, column, value)
    record = {
        "symbol": bars_about[0], "timeframe": bars_about[1],
        "first close, UTC": clock(own.time[0]) if n else math.nan,
        "last close, UTC": clock(own.time[-1]) if n else math.nan,
        "bars": n, "bars per year": bars_per_year, "years": years,
    }  # fmt: skip
    account = {
        "capital": capital, "last equity": equity[-1], "highest equity at a close": max(equity),
        "lowest equity at a close": min(equity), "costs paid": costs, "value traded": traded,
        "trades closed": len(own.trades),
    }  # fmt: skip
    for row, value in record.items():
        put("record", row, "the record", value)
    for row, value in account.items():
        put("account", row, "the account", value)

    for name, one in everyone.items():
        for title, metric in TITLES.items():
            put("metrics", title, name, one.metric(metric))
        if n >= 3:
            rows = (
                "skewness of bar returns", "kurtosis of bar returns", "autocorrelation",
                "probability of skill", "years needed",
            )  # fmt: skip
            for row, value in zip(rows, skill(one), strict=True):
                put("luck", row, name, value)
        if name != "strategy" and n >= 3:
            excess = [a - b for a, b in zip(own.net_return, one.net_return, strict=True)]
            other = one.net_return
            still = max(other) == min(other)
            slope = math.nan
            if not still:
                center, middle = metrics.mean(own.net_return), metrics.mean(other)
                slope = math.fsum(
                    (a - center) * (b - middle) for a, b in zip(own.net_return, other, strict=True)
                ) / math.fsum((b - middle) ** 2 for b in other)
            flat = max(own.net_return) == min(own.net_return)
            error = deviation(excess) * math.sqrt(bars_per_year) if max(excess) > min(excess) else math.nan
            comparison = {
                "correlation": math.nan if still or flat else evidence.correlation(own.net_return, other),
                "beta": slope,
                "alpha per year": (metrics.mean(own.net_return) - slope * metrics.mean(other))
                * bars_per_year,
                "tracking error per year": error,
                "information ratio": metrics.mean(excess) * bars_per_year / error,
            }
            for row, value in comparison.items():
                put("comparison", row, name, value)
        if n:
            months = list(one.calendar("%Y-%m").values())
            spread = {
                "number": len(months),
                "with a gain": len([m for m in months if m > 0]) / len(months),
                "mean": metrics.mean(months), "best": max(months), "worst": min(months),
            }  # fmt: skip
            for row, value in spread.items():
                put("spread", row, name, value)
            for year, value in one.calendar("%Y").items():
                put("years", year, name, value)
            held = [abs(e) for e in one.exposure if e != 0]
            exposure = {
                "bars long": len([e for e in one.exposure if e > 0]) / n,
                "bars short": len([e for e in one.exposure if e < 0]) / n,
                "bars flat": one.exposure.count(0.0) / n,
                "mean size while held": metrics.mean(held),
                "largest long": max(0.0, *one.exposure, 0.0),
                "largest short": min(0.0, *one.exposure, 0.0),
                "bars with a trade": len([t for t in one.turnover if t > 0]) / n,
            }
            for row, value in exposure.items():
                put("exposure", row, name, value)

    for i, spell in enumerate(spells(own)[:5], 1):
        peak, recovery = spell["peak"], spell["recovery"]
        row = {
            "depth": spell["depth"],
            "peak": clock(own.time[peak]) if peak >= 0 else "start",
            "trough": clock(own.time[spell["trough"]]),
            "recovery": "not yet" if recovery is None else clock(own.time[recovery]),
            "bars to the trough": spell["trough"] - peak,
            "bars below": spell["bars"],
            "days below": spell["bars"] / bars_per_year * 365,
        }
        for column, value in row.items():
            put("drawdowns", str(i), column, value)

    months, yearly = own.calendar("%Y-%m"), own.calendar("%Y")
    for year, value in yearly.items():
        put("months", year, "year", value)
        for i, month in enumerate(MONTHS, 1):
            put("months", year, month, months.get(f"{year}-{i:02}", ""))

    kinds = {
        "bars": own.net_return,
        "bars that moved": [r for r in own.net_return if r != 0],
        "trades": [gain(trade) for trade in own.trades],
    }
    for name, values in kinds.items():
        for column, value in (distribution(values) if values else {}).items():
            put("distribution", name, column, value)
    if n:
        put("few-bars", "as it was", "total return", own.metric("total_return"))
    for count in (10, 50):
        if len(kinds["bars that moved"]) > count:
            ordered = sorted(own.net_return)
            for kind, kept in (("best", ordered[:-count]), ("worst", ordered[count:])):
                put(
                    "few-bars", f"without the {count} {kind} bars", "total return", metrics.total_return(kept)
                )

    if traded > 0:
        bill = {
            "profit before costs": gross, "fees": fees, "slippage": slippage, "funding": funding,
            "all costs": costs, "profit after costs": net,
        }  # fmt: skip
        for row, amount in bill.items():
            put("bill", row, "amount", amount)
            put("bill", row, "of profit before costs", amount / gross if gross > 0 else math.nan)
            put("bill", row, "basis points of value traded", amount / traded * 10_000)
            put("bill", row, "of the capital, per year", amount / capital / years)
        closed = math.fsum(own.pnl)
        balance = {
            "capital": capital, "net profit of closed trades": closed, "not in a closed trade": net - closed,
            "last equity": equity[-1], "value traded": traded,
        }  # fmt: skip
        for row, value in balance.items():
            put("balance", row, "amount", value)

    for (heading, name), trades in groups(own, regimes).items():
        pnl = [trade["pnl"] for trade in trades]
        row = {
            "trades": len(trades), "hit rate": metrics.hit_rate(pnl),
            "profit factor": metrics.profit_factor(pnl), "net profit": math.fsum(pnl),
            "per trade": math.fsum(pnl) / len(pnl), "mean return": metrics.mean([gain(t) for t in trades]),
            "costs": paid(trades), "mean bars": metrics.mean([t["bars"] for t in trades]),
        }  # fmt: skip
        for column, value in row.items():
            put("groups", name, column, value, heading)
    ranked = sorted(own.pnl, reverse=True)
    for row, count in (("as it was", 0), ("without the best trade", 1), *(
        (f"without the {count} best trades", count) for count in (5, 10)
    )):  # fmt: skip
        if len(ranked) > count:
            put("few-trades", row, "net profit of trades", math.fsum(ranked[count:]))
    for name, chosen in (
        ("with a profit", [t for t in own.trades if t["pnl"] > 0]),
        ("without", [t for t in own.trades if not t["pnl"] > 0]),
    ):
        if chosen:
            mae, mfe = [t["mae"] for t in chosen], [t["mfe"] for t in chosen]
            row = {
                "number": len(chosen), "mean MAE": metrics.mean(mae), "median MAE": median(mae),
                "worst MAE": min(mae), "mean MFE": metrics.mean(mfe), "median MFE": median(mfe),
                "best MFE": max(mfe),
            }  # fmt: skip
            for column, value in row.items():
                put("excursions", name, column, value)
    for table, chosen in (
        ("best", sorted((i for i, p in enumerate(own.pnl) if p > 0), key=lambda i: -own.pnl[i])[:5]),
        ("worst", sorted((i for i, p in enumerate(own.pnl) if p <= 0), key=lambda i: own.pnl[i])[:5]),
    ):
        for i in chosen:
            trade = own.trades[i]
            row = {
                "entry, UTC": clock(trade["entry_time"]), "exit, UTC": clock(trade["exit_time"]),
                "side": "long" if trade["side"] == 1 else "short", "entry": trade["entry_price"],
                "exit": trade["exit_price"], "net profit": trade["pnl"], "return": gain(trade),
                "costs": paid([trade]), "MAE": trade["mae"], "MFE": trade["mfe"], "bars": trade["bars"],
                "reason": trade["reason"], "regime": regimes[trade["regime"]],
            }  # fmt: skip
            for column, value in row.items():
                put(table, str(i), column, value)

    for path in sorted(folder.rglob("*.parquet")):
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        put("files", path.relative_to(folder).as_posix(), "SHA-256", digest)
    return found


# Side by side

_NUMBER = re.compile(r"([+-]?)((?:\d{1,3}(?:,\d{3})*|\d+))(?:\.(\d+))?(%?)", re.ASCII)


def agrees(text, value):
    """Whether a printed text is this value, at the precision it is printed with."""
    if isinstance(value, str):
        return text == value
    if math.isnan(value):
        return text == "-"
    match = _NUMBER.fullmatch(text)
    if match is None:
        return False
    sign, digits, decimals, share = match.groups()
    printed = float(f"{sign}{digits.replace(',', '')}.{decimals or 0}") / (100 if share else 1)
    step = 10.0 ** -len(decimals or "") / (100 if share else 1)
    if sign == "-" and printed == 0:
        return False  # no negative zero
    return abs(printed - value) <= 0.5 * step * (1 + 1e-6) + 1e-9 * abs(value)


def mismatches(page, expected):
    """Cells that are missing, too many or wrong, by key: what the page says and what it must say."""
    found = {(t, g, None if t == "headline" else r, c): text for (t, g, r, c), text in cells(page).items()}
    found = {key: text for key, text in found.items() if not key[0].startswith("stress-")}
    wrong = {key: (found.get(key), expected.get(key)) for key in found.keys() ^ expected.keys()}
    return wrong | {
        key: (text, expected[key])
        for key, text in found.items()
        if key in expected and not agrees(text, expected[key])
    }


def in_order(page, table):
    """Whether the rows of a list of trades go from the largest size of profit down."""
    amounts = [
        abs(float(text.replace(",", ""))) for key, text in cells(page).items()
        if key[0] == table and key[3] == "net profit"
    ]  # fmt: skip
    return all(a >= b for a, b in pairwise(amounts))
