"""What a comparison says: ``report.md``, the table of figures, and the lines on the screen."""

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from experiments.page import UNDEFINED, decimal, percent, printable, whole
from forecasters.comparison_measures import TRADING
from forecasters.measures import FIGURES

if TYPE_CHECKING:
    from rich.console import Console

JSON, MARKDOWN = "report.json", "report.md"
#: Figures by which the best of a horizon is named, and whether more (1) or less (-1) of each is better.
BEST = {"f1_macro": 1, "log_loss": -1, "information_coefficient": 1, "hit_rate": 1, "sharpe": 1}
HEADS = {
    "f1_macro": "F1 macro", "f1_up": "F1 up", "balanced_accuracy": "balanced accuracy",
    "log_loss": "log loss", "brier": "Brier", "calibration_error": "calibration error",
    "information_coefficient": "IC", "hit_rate": "hit rate", "signals": "signals",
    "net_return": "net return", "sharpe": "Sharpe", "max_drawdown": "drawdown",
    "profit_factor": "profit factor", "trades": "trades", "trade_hit_rate": "trades won",
    "turnover": "turnover/year", "exposure": "in market",
}  # fmt: skip
PICTURES = {
    "figures": "Figures with their 90 % intervals; baselines in gray.",
    "calibration": "How often what was given a probability came true; on the dotted line it is what it says.",
    "equity": "What the signals earned after costs, in logarithms.",
    "parts": "F1 macro and Sharpe ratio after costs, by fold and by regime.",
    "correlation": "How alike the forecasters are: their signals P(up) - P(down), and where they are wrong.",
}
_ON_SCREEN = ("f1_macro", "information_coefficient", "hit_rate", "net_return", "sharpe", "trades")
_SHARES = ("hit_rate", "signals", "exposure", "trade_hit_rate")
_IN_PARTS = ("f1_macro", "log_loss", "information_coefficient", "hit_rate", "net_return", "sharpe", "trades")


def table_of(horizons: Mapping[str, Any]) -> dict[str, list[Any]]:
    """Return every figure of every horizon, model, fold and regime as columns of one long table."""
    columns: dict[str, list[Any]] = {
        name: []
        for name in ("horizon", "model", "family", "scope", "part", "rows", "figure", "value", "low", "high")
    }
    for horizon, found in horizons.items():
        for scope, part, rows, name, one in _parts(found):
            for figure, value in one["figures"].items():
                low, high = one["intervals"].get(figure, (None, None))
                row = (
                    horizon, name, found["models"][name]["family"], scope, part, rows, figure, value, low,
                    high,
                )  # fmt: skip
                for column, entry in zip(columns, row, strict=True):
                    columns[column].append(entry)
    return columns


def _parts(found: Mapping[str, Any]) -> Iterator[tuple[str, str, int, str, Mapping[str, Any]]]:
    for name, one in found["models"].items():
        yield "all", "all", found["judged"], name, one
    for scope in ("folds", "regimes"):
        for part, group in found[scope].items():
            for name, one in group["models"].items():
                yield scope[:-1], part, group["rows"], name, one


def markdown(found: Mapping[str, Any]) -> str:
    """Return ``report.md``."""
    need = found["requirements"]
    lines = [
        f"# {printable(found['title'])}",
        "",
        f"{printable(found['data']['origin'])}. **Every figure is out of fold**: each row was answered by a "
        f"forecaster that knew nothing of it, and all are measured on the same rows. In brackets: "
        f"5 and 95 percent quantiles of {whole(found['bootstrap']['paths'])} stationary bootstrap paths.",
        "",
        *verdicts(found),
        "",
    ]
    for name, why in found["skipped"].items():
        lines.append(f"- {name} was left out: {printable(why)}")
    lines += [f"- {printable(one)}" for one in found["data"]["warnings"]]
    if lines[-1]:
        lines.append("")
    for horizon, group in found["horizons"].items():
        lines += _horizon(horizon, group, need)
    lines += _method(found)
    return "\n".join(lines).rstrip() + "\n"


def verdicts(found: Mapping[str, Any]) -> list[str]:
    """Return one line per horizon and model: whether it passes, and if not, why."""
    need, lines = found["requirements"], []
    rule = (
        f"F1 macro above {need['f1_macro_above']:g} and above every naive baseline with p < "
        f"{need['p_below']:g}"
    )
    for horizon, group in found["horizons"].items():
        models = {name: one for name, one in group["models"].items() if not one["naive"]}
        failing = {name: one["fails"] for name, one in models.items() if one["fails"]}
        passing = [name for name in models if name not in failing]
        lines.append(f"**{horizon}**: {rule}")
        lines.append("")
        lines.append(f"- passes: {', '.join(passing) or 'none'}")
        lines += [f"- **fails: {name}** ({'; '.join(why)})" for name, why in failing.items()]
        promoted = [name for name, one in models.items() if one["promotion"]["promoted"]]
        lines.append(f"- promoted by the guardrails: {', '.join(promoted) or 'none'}")
        best = group["best"]
        said = ", ".join(f"{HEADS[figure]}: {name}" for figure, name in best.items() if name)
        lines.append(f"- best by {said}" if said else "- no model beside the baselines")
        lines.append("")
    return lines[:-1]


def _horizon(horizon: str, group: Mapping[str, Any], need: Mapping[str, float]) -> list[str]:
    models, out = group["models"], "out of fold"
    classes = ", ".join(f"{one} {percent(v or 0.0, signed=False)}" for one, v in group["classes"].items())
    lines = [
        f"## {group['label']}, {out}",
        "",
        f"{group['from']} to {group['to']}: {whole(group['rows'])} test rows, {whole(group['answered'])} "
        f"answered by all forecasters, {whole(group['judged'])} of them with a label ({classes}). Mean block "
        f"{group['mean_block']:g} bars.",
        "",
        f"### Answers, {out}",
        "",
        *_grid(("", *(HEADS[f] for f in FIGURES)), [_line(n, one, FIGURES) for n, one in models.items()]),
        "",
        f"### Signals after costs, {out}",
        "",
        *_grid(("", *(HEADS[f] for f in TRADING)), [_line(n, one, TRADING) for n, one in models.items()]),
        "",
        f"### Against the naive baselines, F1 macro {out}",
        "",
    ]
    leads = [
        (
            name,
            rival,
            f"{decimal(lead['lead'], 4, signed=True)} [{decimal(lead['low'], 4, signed=True)}, "
            f"{decimal(lead['high'], 4, signed=True)}]",
            decimal(lead["p"], 3),
            "yes" if lead["p"] < need["p_below"] else "NO",
        )
        for name, one in models.items()
        for rival, lead in one["leads"].items()
    ]
    if leads:
        lines += _grid(("model", "baseline", "lead", "p", "leads"), leads)
    else:
        lines.append("There was nothing to hold against each other.")
    lines += ["", f"### Promotion, {out} and after costs", ""]
    for name, one in models.items():
        if one["naive"]:
            continue
        found = one["promotion"]
        lines.append(f"**{name}: {'promoted' if found['promoted'] else 'refused'}**")
        lines.append("")
        lines += [f"- {reason}" for reason in found["reasons"]]
        lines.append(
            f"- PSR {_shown('psr', one['psr'])}; deflated by every trial on these bars "
            f"{_shown('psr', one['deflated'])}"
        )
        lines.append("")
    for scope, title in (("folds", "By fold (its first test day)"), ("regimes", "By regime")):
        if not group[scope]:
            continue
        lines += [f"### {title}, {out}", ""]
        heads = ("", "rows", *(HEADS[f] for f in _IN_PARTS))
        for name in models:
            rows = [
                (part, whole(one["rows"]), *(_shown(f, one["models"][name]["figures"][f]) for f in _IN_PARTS))
                for part, one in group[scope].items()
            ]
            lines += [f"**{name}**", "", *_grid(heads, rows), ""]
    lines += [f"### Calibration, {out}", "", *_calibration(models), ""]
    for kind, title in (("signals", "signals P(up) - P(down)"), ("errors", "errors (a wrong class is 1)")):
        found = group["correlation"][kind]
        if found:
            rows = [
                (one, *(UNDEFINED if v is None else decimal(v, 2) for v in others.values()))
                for one, others in found.items()
            ]
            lines += [f"### Correlation of {title}, {out}", "", *_grid(("", *found), rows), ""]
    for name, path in group["pictures"].items():
        lines += [f"![{PICTURES[name]}]({path})", "", f"*{horizon}, {out}. {PICTURES[name]}*", ""]
    return lines


def _calibration(models: Mapping[str, Any]) -> list[str]:
    rows = []
    for name, one in models.items():
        for side, curve in one["calibration"].items():
            points = "; ".join(
                f"{decimal(bin_['probability'], 3)} → {decimal(bin_['frequency'], 3)} ({whole(bin_['rows'])})"
                for bin_ in curve
            )
            rows.append((name, side, points))
    return _grid(("", "class", "mean probability → frequency (rows), bins of a tenth"), rows)


def _method(found: Mapping[str, Any]) -> list[str]:
    trials = found["trials"]
    regimes = (
        "No regimes were told apart."
        if found["regimes"] is None
        else f"Regimes are those that the detector {found['regimes']} knew at each close, fitted on earlier "
        "rows."
    )
    return [
        "## How it was measured",
        "",
        "- The signal: a decision up or down is held for the span of its label, until the opposite decision, "
        "or longer if it is repeated. It is filled at the next open, one unit of equity long or short. "
        "Every fold begins flat with fresh capital and is closed at its end.",
        *(f"- {printable(one)}" for one in found["assumptions"]),
        "- Hit rate: share of decisions up or down whose label's return had that sign, before costs. Trades "
        "won: share of trades with a profit after costs. Profit factor: of the returns of trades. IC: rank "
        "correlation of P(up) - P(down) with the label's return. Signals: share of rows decided up or down.",
        f"- {regimes} A return belongs to the regime known before its bar, a trade to that of its decision.",
        "- A trade counts in the fold in which it ended.",
        f"- The trial ledger holds {whole(trials['counted'])} trials on these bars, of "
        f"{whole(trials['runs'])} runs, these models among them; the deflated figure is the probability that "
        "a model has skill beyond the luck of the best of so many.",
    ]


def show(console: "Console", found: Mapping[str, Any]) -> None:
    """Print the main figures and the verdicts."""
    from rich.table import Table as RichTable

    for group in found["horizons"].values():
        shown = RichTable(title=f"{group['label']}, out of fold")
        for column in ("", *(HEADS[figure] for figure in _ON_SCREEN), "promoted"):
            shown.add_column(column.replace(" ", "\n"), justify="right" if column else "left", no_wrap=True)
        for name, one in group["models"].items():
            promoted = UNDEFINED if one["naive"] else "yes" if one["promotion"]["promoted"] else "no"
            cells = (_shown(figure, one["figures"][figure]) for figure in _ON_SCREEN)
            shown.add_row(name, *cells, promoted)
        console.print(shown)
        for name, one in group["models"].items():
            for reason in one["promotion"]["reasons"] if not one["naive"] else ():
                console.print(f"{name} is not promoted: {reason}", markup=False)
    for line in verdicts(found):
        if line:
            console.print(line.replace("**", ""), markup=False)


def _line(name: str, one: Mapping[str, Any], names: Sequence[str]) -> tuple[str, ...]:
    cells = [name]
    for figure in names:
        text = _shown(figure, one["figures"][figure])
        interval = one["intervals"].get(figure)
        if interval and text != UNDEFINED:
            text += f" [{', '.join(_shown(figure, value) for value in interval)}]"
        cells.append(text)
    return tuple(cells)


def _shown(figure: str, value: float | None) -> str:
    if value is None or not np.isfinite(value):
        return UNDEFINED
    if figure in _SHARES:
        return percent(value, signed=False)
    if figure in ("net_return", "max_drawdown"):
        return percent(value)
    if figure == "trades":
        return whole(value)
    if figure == "turnover":
        return decimal(value, 1)
    digits = {"information_coefficient": 3, "sharpe": 2, "profit_factor": 2, "psr": 3}.get(figure, 4)
    return decimal(value, digits)


def _grid(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    lines = ["| " + " | ".join(columns) + " |", "|---" * len(columns) + "|"]
    return lines + ["| " + " | ".join(_escaped(cell) for cell in row) + " |" for row in rows]


def _escaped(cell: str) -> str:
    return printable(cell).replace("|", "\\|")
