"""The verdict of a race in sentences: what the interval says and no more.

An interval that contains zero is *undecided*, however good its middle looks, and who beats the subject is
named as plainly as whom it beats.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any

from conductor import race_statistics as statistics
from conductor.race_comparison import BETTER, UNDECIDED, WORSE
from conductor.race_statistics import Estimate, Saving
from experiments.page import decimal, percent

#: A word in the name of a contestant that plays back what the subject does on average, without looking.
FROZEN = "frozen"
#: Clusters from which on a signed-rank test can reject anything at 5 %.
LEAST_SIGNED = 6


def sentences(one: Mapping[str, Any]) -> list[str]:
    """Return what the comparison of a suite says, the verdict on the final error first.

    Parameters
    ----------
    one : mapping
        Of :func:`conductor.race_comparison.compare`.
    """
    subject, reference, size = one["subject"], one["reference"], one["size"]
    pair = one["against_reference"][subject]
    counted = f"{size['pairs']:,} pairs in {size['clusters']} cluster{'s' if size['clusters'] > 1 else ''}"
    said = [
        _judged(subject, reference, "at the end of the budget", pair["final"], size["clusters"], counted),
        _judged(subject, reference, "over the whole budget (anytime)", pair["anytime"], size["clusters"]),
    ]
    won = pair["final"]["clusters_won"]
    said.append(
        f"On the final error {subject} wins {interval(pair['final']['pairs_won'], share)} of the pairs and "
        f"{interval(won, share)} of the clusters."
    )
    if "saving" in pair:
        said.append(_saving(subject, reference, pair["saving"]))
    said += _rivals(one)
    said += _feedback(one)
    said += _unseen(one)
    said += [
        f"{name}: {figures['failures']:,} runs had no result and count as the worst of their pair."
        for name, figures in one["contestants"].items()
        if figures["failures"]
    ]
    return said


def _judged(
    subject: str, reference: str, when: str, figures: Mapping[str, Any], n: int, counted: str = ""
) -> str:
    estimate, p = figures["difference"], figures["p_holm"]
    amount = f"{interval(estimate)} decades of error"
    tail = f", {counted}" if counted else ""
    if figures["verdict"] == UNDECIDED:
        if not math.isfinite(estimate.low):
            return f"Undecided {when}: {amount}{tail}; one cluster gives no interval."
        return (
            f"Undecided {when}: {subject} against {reference} is {amount}{tail}; the interval contains zero, "
            "so this race does not show that they differ."
        )
    word = "better" if figures["verdict"] == BETTER else "worse"
    factor = 10.0 ** abs(estimate.value)
    line = (
        f"{subject} is {word} than {reference} {when}: {amount}{tail}; on geometric average its error is "
        f"{'divided' if word == 'better' else 'multiplied'} by {factor:,.2f}."
    )
    if p > 1.0 - statistics.CONFIDENCE and n >= LEAST_SIGNED:
        line += f" The signed-rank test over clusters does not confirm it (p = {p:.2f} after Holm)."
    return line


def _saving(subject: str, reference: str, saving: Saving) -> str:
    ratio = saving.ratio
    less = Estimate(1.0 - ratio.value, 1.0 - ratio.high, 1.0 - ratio.low)
    missed = (
        f"; in {saving.unreached} of {saving.groups} groups it never got there" if saving.unreached else ""
    )
    if less.excludes(0.0):
        word = "fewer" if less.value > 0.0 else "more"
        shown = less if less.value > 0.0 else Estimate(-less.value, -less.high, -less.low)
        return (
            f"{subject} reaches the final error of {reference} with {interval(shown, share)} {word} "
            f"evaluations{missed}."
        )
    return (
        f"It is undecided whether {subject} reaches the final error of {reference} with fewer evaluations: "
        f"{interval(less, lambda x: percent(x, 0))} less{missed}."
    )


def _rivals(one: Mapping[str, Any]) -> list[str]:
    sorted_out: dict[str, list[str]] = {BETTER: [], UNDECIDED: [], WORSE: []}
    for name, pair in one["subject_against"].items():
        if name != one["reference"]:
            sorted_out[pair["final"]["verdict"]].append(name)
    heads = ((WORSE, "beaten by"), (UNDECIDED, "not told apart from"), (BETTER, "better than"))
    return [
        f"On the final error {one['subject']} is {head}: {'; '.join(sorted_out[verdict])}."
        for verdict, head in heads
        if sorted_out[verdict]
    ]


def _feedback(one: Mapping[str, Any]) -> list[str]:
    said = []
    for name, pair in one["subject_against"].items():
        if FROZEN not in name:
            continue
        figures = pair["final"]
        shown = {
            BETTER: "reacting to the search is worth something beyond it",
            WORSE: "reacting to the search does harm",
            UNDECIDED: "this race does not show that reacting to the search adds anything to it",
        }[figures["verdict"]]
        said.append(f"Against {name}: {interval(figures['difference'])} decades of final error; {shown}.")
    return said


def _unseen(one: Mapping[str, Any]) -> list[str]:
    pair = one["against_reference"][one["subject"]]
    if "out_of_sample" not in pair:
        return []
    figures = pair["out_of_sample"]
    estimate = figures["difference"]
    if not math.isfinite(estimate.low):
        return ["Out of sample there are too few windows for a comparison."]
    verdict = (
        "significantly worse: the faster search fits the window more than the market"
        if estimate.high < 0.0
        else "significantly better"
        if estimate.low > 0.0
        else "no significant difference"
    )
    return [
        "Errors above are in sample: they say how well the search found what its window rewards.",
        f"Out of sample, on the bars that follow, champions of {one['subject']} have a net annual Sharpe "
        f"ratio {interval(estimate)} above that of {one['reference']}, {figures['clusters']} clusters: "
        f"{verdict}.",
    ]


def interval(estimate: Estimate, style: Callable[[float], str] | None = None) -> str:
    """Return an estimate as people read it, ``-0.41 [-0.60, -0.22]``, or alone where it has no interval.

    Plain numbers get a third decimal where an end would look like the zero that it is not.
    """
    if style is None:
        hidden = any(0.0 < abs(end) < 0.005 for end in estimate[1:])
        digits = 3 if hidden else 2

        def style(value: float) -> str:
            return decimal(value, digits, signed=True)

    if not math.isfinite(estimate.low):
        return style(estimate.value)
    return f"{style(estimate.value)} [{style(estimate.low)}, {style(estimate.high)}]"


def share(value: float) -> str:
    """Return a share in whole percent."""
    return percent(value, 0, signed=False)
