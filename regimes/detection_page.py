"""What a detection found, for people: the tables of the terminal, and the page ``regimes.html``.

Everything here is read from the report, the plain objects of ``report.json``; nothing is computed again, so
the page and the file cannot disagree.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from experiments.page import (
    UNDEFINED,
    Grid,
    bullets,
    chapter,
    decimal,
    document,
    paragraph,
    percent,
    picture,
    significant,
    table,
    whole,
)

Report = Mapping[str, Any]
Picture = tuple[bytes, str]  # a PNG, and what to say below it
HELD_OUT, IN_SAMPLE = "held_out", "in_sample"
SAMPLES = {HELD_OUT: "held out", IN_SAMPLE: "in sample"}  # as columns are named
ADJECTIVES = {HELD_OUT: "held-out", IN_SAMPLE: "in-sample"}


def regimes_grid(report: Report, name: str, sample: str = HELD_OUT, grid: str = "regimes") -> Grid:
    """Return what the market did in each regime, by one detector (or oracle) and sample."""
    one = report["detectors"][name]
    found, horizon = one[sample]["regimes"], report["measures"]["horizon_bars"]
    rows = (
        ("share of the bars", "share", lambda x: percent(x, signed=False)),
        ("mean stay, bars", "mean_dwell", lambda x: decimal(x, 1)),
        ("stays", "stays", whole),
        ("log return per year", "annual_return", percent),
        ("volatility per year", "annual_volatility", lambda x: percent(x, signed=False)),
        ("autocorrelation, 1 bar", "autocorrelation", lambda x: decimal(x, 3, signed=True)),
        (f"variance ratio, {horizon:,} bars", "variance_ratio", lambda x: decimal(x, 2)),
        (f"efficiency ratio, {horizon:,} bars", "efficiency", lambda x: decimal(x, 3)),
        ("bars counted", "bars", whole),
    )
    return Grid(
        grid,
        ("", *one["regimes"]),
        tuple(
            (title, *(style(_number(found[r][key])) for r in one["regimes"])) for title, key, style in rows
        ),
        title=f"{name}, {one[sample]['bars']:,} {ADJECTIVES[sample]} bars",
        note="Returns, autocorrelation and ratios are of the bars after each label, none of which the label "
        "had seen: the next one, two, or so many as stated. A random walk has a variance ratio of 1.",
    )


def likelihood_grid(report: Report, name: str) -> Grid:
    """Return what one detector's probabilities foretell of the next bar, held out and in sample."""
    samples = [report["detectors"][name][sample]["log_likelihood"] for sample in SAMPLES]
    rows = (
        ("log density of the return", "return", False),
        ("log density of the range", "range", False),
        ("both", "total", False),
        ("gain over no regimes, return", "gain_return", True),
        ("gain over no regimes, range", "gain_range", True),
        ("gain over no regimes", "gain", True),
    )
    return Grid(
        "likelihood",
        ("nats per bar", *SAMPLES.values()),
        tuple(
            (title, *(decimal(_number(one[key]), 4, signed) for one in samples))
            for title, key, signed in rows
        ),
        title=f"{name}: what its probabilities foretell of the next bar",
        note="Mean log density of each bar's log return and log range, given the rows before it. The laws of "
        "the regimes are fitted on the training rows, so the second column is in sample.",
    )


def order_grid(report: Report, name: str) -> Grid:
    """Return whether regimes differ on held-out rows in the statistics that name them."""
    rows = tuple(
        (
            f"{one['statistic']}: {one['higher']} above {one['lower']}",
            significant(_number(one["mean_higher"]), 4),
            significant(_number(one["mean_lower"]), 4),
            decimal(_number(one["p_value"]), 4),
        )
        for one in report["detectors"][name]["order"]
    )
    measures = report["measures"]
    return Grid(
        "order",
        ("statistic", "first mean", "second mean", "p-value"),
        rows,
        title=f"{name}: do regimes differ in the statistic that names them, held out?",
        note=f"Share of {measures['n_paths']:,} stationary bootstrap histories (mean block "
        f"{measures['block_bars']:,.0f} bars) in which the order is the other way round. The windows "
        "end at the bar of the label: they say what labels are about. The table above has what came after.",
    )


def calibration_grids(report: Report, name: str) -> tuple[Grid, Grid]:
    """Return calibration error and Brier score of held-out and training rows, and the held-out bins."""
    samples = [report["detectors"][name][sample]["calibration"] for sample in SAMPLES]
    summary = Grid(
        "calibration",
        ("", *SAMPLES.values()),
        (
            *(
                (title, *(decimal(_number(one[key]), 4) for one in samples))
                for title, key in (("expected calibration error", "error"), ("Brier score", "brier"))
            ),
            ("rows", *(whole(sum(one["rows"])) for one in samples)),
        ),
        title=f"{name}: confidence against {report['calibrated_against']}",
    )
    first = samples[0]
    bins = Grid(
        "bins",
        ("confidence from", "to", "rows", "mean confidence", "label right"),
        tuple(
            (
                percent(first["edges"][i], 0, signed=False),
                percent(first["edges"][i + 1], 0, signed=False),
                whole(rows),
                percent(_number(first["confidence"][i]), signed=False),
                percent(_number(first["hit_rate"][i]), signed=False),
            )
            for i, rows in enumerate(first["rows"])
            if rows
        ),
        title="Held-out rows by confidence",
    )
    return summary, bins


def chain_grid(report: Report, name: str) -> Grid:
    """Return the chain a detector learned, and the one counted on its held-out labels."""
    one = report["detectors"][name]
    rows: list[tuple[str, ...]] = []
    for title, key in (
        ("learned from training rows", "chain"),
        ("counted on held-out labels", "counted_chain"),
    ):
        rows.append((title,))
        rows += [
            (regime, *(decimal(p, 4) for p in chances))
            for regime, chances in zip(one["regimes"], one[key], strict=True)
        ]
    return Grid(
        "chain",
        ("from, to the regime of the next bar", *one["regimes"]),
        tuple(rows),
        title=f"{name}: transition probabilities",
        note="The counted chain is of the labels in force, which threshold and minimum stay hold.",
    )


def truth_grid(report: Report, names: Sequence[str]) -> Grid:
    """Return agreement with the true regimes on held-out rows, of detectors and of both oracles."""
    everyone = _everyone(report, names)
    regimes = next(iter(everyone.values()))["truth"]["likeliest"]["recall"]
    rows: list[tuple[str, ...]] = []
    for title, key in (("most probable", "likeliest"), ("in force", "path")):
        rows.append((title,))
        for name, one in everyone.items():
            found = one["truth"][key]
            rows.append(
                (
                    name,
                    decimal(found["balanced_accuracy"], 3),
                    *(decimal(_number(x), 3) for x in found["recall"].values()),
                    decimal(_number(found["median_delay"]), 1),
                    whole(found["false_switches"]),
                )
            )
    switches = next(iter(everyone.values()))["truth"]["path"]["switches"]
    return Grid(
        "truth",
        ("", "balanced accuracy", *(f"found {name}" for name in regimes), "median delay", "false switches"),
        tuple(rows),
        title="Against the true regimes, held-out rows",
        note=f"{switches:,} true switches; delays in bars. Most probable: by the probabilities alone; in "
        "force: with threshold and minimum stay. The oracles know the true parameters and see no future "
        "either; one reads high, low and close, the other closes only. No causal filter of the same bars can "
        "be better on average.",
    )


def comparison_grid(report: Report) -> Grid:
    """Return one row per detector: what it foretells, how it switches, how sure it may be."""
    rows = []
    for name, one in _everyone(report, list(report["detectors"])).items():
        found = one[HELD_OUT]
        rows.append(
            (
                name,
                decimal(_number(found["log_likelihood"]["gain"]), 4, signed=True),
                decimal(_number(found["mean_dwell"]), 1),
                decimal(_number(found["switches_per_year"]), 0),
                decimal(_number(found["calibration"]["error"]), 3),
                decimal(_number(found["calibration"]["brier"]), 3),
            )
        )
    return Grid(
        "comparison",
        ("", "gain, nats per bar", "mean stay", "switches per year", "calibration error", "Brier score"),
        tuple(rows),
        title="Detectors on held-out rows",
        note="Gain: what the probabilities foretell of the next bar beyond what is foretold without regimes. "
        f"Calibration error and Brier score: against {report['calibrated_against']}.",
    )


def agreement_grid(report: Report) -> Grid:
    """Return on how many held-out rows each two detectors carry the same label."""
    found = report["agreement"]
    return Grid(
        "agreement",
        ("", *found),
        tuple(
            (name, *(percent(_number(x), 0, signed=False) for x in row.values()))
            for name, row in found.items()
        ),
        title="Held-out rows with the same label",
    )


def effort_grid(report: Report) -> Grid:
    """Return what each detector reads and what it costs."""
    return Grid(
        "effort",
        ("", "fit, seconds", "us per bar", "warm-up, bars", "reads"),
        tuple(
            (
                name,
                decimal(one["fit_seconds"], 2),
                decimal(one["microseconds_per_bar"], 2),
                whole(one["warmup"]),
                ", ".join(one["columns"]),
            )
            for name, one in report["detectors"].items()
        ),
        words=(4,),
        title="What each detector reads, and its cost on this machine",
    )


def sentences(report: Report, name: str) -> tuple[str, ...]:
    """Return the held-out figures of one detector that are no table, one sentence each."""
    one = report["detectors"][name]
    found = one[HELD_OUT]
    nats, calibrated = found["log_likelihood"], found["calibration"]
    return (
        f"Foretells the next held-out bar with {decimal(_number(nats['total']), 3)} nats, "
        f"{decimal(_number(nats['gain']), 3, signed=True)} against no regimes (return "
        f"{decimal(_number(nats['gain_return']), 3, signed=True)}, range "
        f"{decimal(_number(nats['gain_range']), 3, signed=True)}).",
        f"{whole(_number(found['switches_per_year']))} switches per year, mean stay "
        f"{decimal(_number(found['mean_dwell']), 1)} bars.",
        f"Confidence against {report['calibrated_against']}: calibration error "
        f"{decimal(_number(calibrated['error']), 3)}, Brier score "
        f"{decimal(_number(calibrated['brier']), 3)}.",
    )


def state_sentence(now: Report) -> str:
    """Return the state at the latest bar as one sentence."""
    return (
        f"At {now['time']}: {now['regime']} for {whole(now['bars'])} bars, confidence "
        f"{percent(_number(now['confidence']), 0, signed=False)}; most probable is {now['likeliest']}, for "
        f"{decimal(now['remaining_bars'], 0)} bars more on average."
    )


def warnings(report: Report) -> tuple[str, ...]:
    """Return what speaks against the figures, one sentence each."""
    name = report["detector"]
    one = report["detectors"][name]
    found = one[HELD_OUT]
    unlike = [row for row in one["order"] if row["p_value"] is None or row["p_value"] > 0.05]
    rare = [regime for regime, figures in found["regimes"].items() if (figures["share"] or 0.0) < 0.02]
    short = report["years"][HELD_OUT] < 1.0
    worse = (found["log_likelihood"]["gain"] or 0.0) <= 0.0
    checks = (
        (report["truth_known"], f"{report['data']['origin']}."),
        (short, "The held-out rows span less than a year: annual figures extrapolate."),
        (worse, f"{name} foretells held-out bars no better than no regimes at all."),
        (bool(rare), f"Hardly ever in force on held-out rows: {', '.join(rare)}."),
        (bool(unlike), "Not told apart on held-out rows (p above 0.05): "
         + "; ".join(f"{r['higher']} from {r['lower']} by {r['statistic']}" for r in unlike) + "."),
    )  # fmt: skip
    return (*(sentence for found, sentence in checks if found), *report["data"]["warnings"])


def detection_page(
    report: Report, title: str, pictures: Mapping[str, Picture], files: Mapping[str, str]
) -> bytes:
    """Return ``regimes.html``: one page that needs nothing else.

    Parameters
    ----------
    report : mapping
        What ``report.json`` holds.
    title : str
    pictures : mapping of str to Picture
        By name: price, probabilities, transitions, dwell, reliability, and detectors of a comparison. One
        that is missing is left out.
    files : mapping of str to str
        SHA-256 of the files that the numbers come from, by name.
    """

    def see(name: str) -> str:
        return picture(*pictures[name]) if name in pictures else ""

    name = report["detector"]
    against = report["calibrated_against"]
    return document(
        title,
        *_opening(report),
        chapter("Now", *_now(report)),
        chapter("Price and regimes", see("price")),
        chapter(
            "Regimes on held-out rows",
            table(regimes_grid(report, name)),
            table(order_grid(report, name)),
            table(likelihood_grid(report, name)),
        ),
        chapter(
            "Regimes in sample",
            paragraph("The detector was fitted on these rows. They are here for comparison only.", "warning"),
            table(regimes_grid(report, name, IN_SAMPLE, "regimes-in-sample")),
        ),
        chapter("Probabilities", see("probabilities")),
        chapter(
            "How regimes follow each other", see("transitions"), table(chain_grid(report, name)), see("dwell")
        ),
        chapter(
            f"Is the confidence deserved? Against {against}",
            ""
            if report["truth_known"]
            else paragraph(
                "The truth is not known here. Confidence is held against the detector's own later label: "
                "that says whether regimes persist as surely as the detector is sure of them, not whether "
                "they are right.",
                "warning",
            ),
            *(table(grid) for grid in calibration_grids(report, name)),
            see("reliability"),
        ),
        chapter("Against the truth", table(truth_grid(report, list(report["detectors"]))))
        if report["truth_known"]
        else "",
        _comparison(report, see("detectors")) if report["compared"] else "",
        chapter("Where the numbers come from", *_sources(report, files)),
    )


def _opening(report: Report) -> tuple[str, ...]:
    name = report["detector"]
    one = report["detectors"][name]
    found, times, data = one[HELD_OUT], report["times"], report["data"]
    headline = {
        "detector": name,
        "gain, nats per bar": decimal(_number(found["log_likelihood"]["gain"]), 3, signed=True),
        "mean stay, bars": decimal(_number(found["mean_dwell"]), 1),
        "switches per year": whole(_number(found["switches_per_year"])),
        "calibration error": decimal(_number(found["calibration"]["error"]), 3),
    }
    if report["truth_known"]:
        headline["balanced accuracy"] = decimal(one["truth"]["likeliest"]["balanced_accuracy"], 3)
    record = (
        ("source", data["origin"]),
        ("symbol and timeframe", data["label"]),
        ("bars", whole(data["bars"])),
        *(
            (f"{title}, closes in UTC", f"{times[sample][0]} to {times[sample][1]}, {whole(size)} bars")
            for sample, title, size in (
                (IN_SAMPLE, "training rows", one[IN_SAMPLE]["bars"]),
                (HELD_OUT, "held-out rows", one[HELD_OUT]["bars"]),
            )
        ),
        ("embargo between them", f"{whole(report['rows']['embargo'])} bars"),
        ("label changes from a probability of", percent(report["path"]["threshold"], signed=False)),
        ("label stays at least", f"{whole(report['path']['min_dwell_bars'])} bars"),
    )
    return (
        paragraph("held-out rows", "sample"),
        paragraph(
            "Unless it says in sample, every figure is of rows that no parameter has seen, each from what "
            "was known at its close.",
            "note",
        ),
        *(paragraph(warning, "warning") for warning in warnings(report)),
        table(Grid("headline", tuple(headline), (tuple(headline.values()),))),
        table(Grid("record", ("", "the record"), record, words=(1,))),
    )


def _now(report: Report) -> tuple[str, ...]:
    now = report["now"]
    if now is None:
        return (paragraph("The latest bar has no label yet."),)
    state = (
        ("latest bar, UTC", now["time"]),
        ("regime in force", now["regime"]),
        ("since, UTC", now["since"]),
        ("bars so far", whole(now["bars"])),
        ("confidence", percent(_number(now["confidence"]), signed=False)),
        ("most probable regime", now["likeliest"]),
        ("its expected further stay, bars", decimal(now["remaining_bars"], 1)),
    )
    ahead = Grid(
        "ahead",
        ("probability", *now["probabilities"], "of a switch until then"),
        (
            ("now", *(percent(x, signed=False) for x in now["probabilities"].values()), UNDEFINED),
            *(
                (
                    f"in {bars} bar{'' if bars == '1' else 's'}",
                    *(percent(x, signed=False) for x in (*chances.values(), now["switch"][bars])),
                )
                for bars, chances in now["ahead"].items()
            ),
        ),
        title="What is likely next",
        note="From the latest probabilities and the learned chain; the minimum stay of labels plays no part.",
    )
    latest = Grid(
        "changes",
        ("UTC", "from", "to", "confidence", "bars the ended one lasted", "bars ago"),
        tuple(
            (
                one["time"],
                one["before"],
                one["after"],
                percent(_number(one["confidence"]), signed=False),
                whole(one["dwelt_bars"]),
                whole(one["bars_ago"]),
            )
            for one in now["transitions"]
        ),
        title="Latest changes of the label, the latest first",
    )
    return (
        table(Grid("now", ("", "the state"), state, title="At the latest bar")),
        table(ahead),
        table(latest) if now["transitions"] else "",
    )


def _comparison(report: Report, overview: str) -> str:
    names = list(report["detectors"])
    return chapter(
        "Detectors compared",
        table(comparison_grid(report)),
        overview,
        table(agreement_grid(report)) if len(names) > 1 else "",
        *(
            table(regimes_grid(report, name, grid=f"regimes-{name}"))
            for name in names
            if name != report["detector"]
        ),
        table(effort_grid(report)),
        paragraph("Detectors that could not run:", "note") if report["unavailable"] else "",
        bullets([f"{name}: {why}" for name, why in report["unavailable"].items()], "unavailable")
        if report["unavailable"]
        else "",
    )


def _sources(report: Report, files: Mapping[str, str]) -> tuple[str, ...]:
    lines = [
        "Every number in the tables is one of report.json, rounded; labels and probabilities of every bar "
        "are in the Parquet files.",
        f"Seed {report['seed']}. Times are UTC; a bar is known by its close.",
    ]
    grid = Grid("files", ("file", "SHA-256"), tuple(files.items()), words=(1,))
    return (bullets(lines, "sources"), table(grid))


def _everyone(report: Report, names: Sequence[str]) -> dict[str, Mapping[str, Any]]:
    return {name: report["detectors"][name] for name in names} | dict(report["oracles"])


def _number(value: float | None) -> float:
    return math.nan if value is None else float(value)
