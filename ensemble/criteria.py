"""The verdict on a validated strategy: criteria as data, each a figure and the least it must be.

``configs/criteria.yaml`` says which figures are judged; this module says what the figures are, and turns
them into a list, a verdict, and one sentence. All figures are such that more is better: a drawdown is a
negative fraction, and a p value enters as a confidence, 1 less p.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from functools import cache
from importlib import resources
from typing import Any

import pydantic
from pydantic import Field, field_validator, model_validator

from backtest.metrics import Metrics
from backtest.simulate import BacktestResult
from configs.load import Config, did_you_mean, parse_yaml
from ensemble.evidence import STRATEGY, Evidence
from ensemble.paths import Paths
from ensemble.permutation import Permutations
from ensemble.robustness import Robustness
from experiments.promotion import Criterion, verdict

GROUPS = ("baselines", "members", "blenders")
_DEFAULTS = "criteria.yaml"
_REASONS = 4  # more would be no sentence

#: Figures of the strategy's own account, and of each it is held against.
METRICS = tuple(field.name for field in fields(Metrics))
#: Figures of the strategy alone, and what they are.
FIGURES = {
    "probabilistic_sharpe": "probability that the true Sharpe ratio is positive (PSR)",
    "deflated_unseen": "the same, against the best of all strategies ever judged on these rows (DSR)",
    "deflated_sharpe": "the same, against the best of all trials in the ledger (DSR)",
    "track_record": "bars out of sample over the minimum track record",
    "sharpe_low": "lower end of the bootstrap interval of the annual Sharpe ratio",
    "return_low": "lower end of the bootstrap interval of the total return",
    "drawdown_low": "lower end of the bootstrap interval of the drawdown",
    "choice_holds": "1 less the probability of backtest overfitting (PBO)",
    "choice_gains": "1 less the probability that the chosen variant loses out of sample",
    "choice_confidence": "1 less the probability of so low a PBO among variants that are alike",
    "degradation": "slope of the Sharpe ratio out of sample on the one in sample, of the chosen variant",
    "confidence_set": "smallest size at which the model confidence set leaves the strategy out (MCS p)",
    "break_even_costs": "times the costs at which nothing is left",
    "late_return": "total return with every order one bar later",
    "late_sharpe": "annual Sharpe ratio with every order one bar later",
    "perturbed_gains": "share of the strategies with shaken champions that gain, at the largest deviation",
    "perturbed_kept": "median share of the Sharpe ratio they keep, at the largest deviation",
    "permutation": "1 less the p of the bar-permutation test",
    "path_sharpe": "median annual Sharpe ratio of the paths of combinatorial cross-validation (CPCV)",
    "paths_positive": "share of these paths with a Sharpe ratio above 0",
    "paths_above_hold": "share of these paths with a Sharpe ratio above that of volatility-targeted hold",
}
#: Figures of the strategy beside one baseline.
VERSUS = {
    "superiority": "1 less the SPA p of the strategy against a baseline, after all variants looked at",
    "sharpe_lead_low": "lower end of the paired bootstrap interval of the lead in Sharpe ratio",
    "return_lead_low": "lower end of the paired bootstrap interval of the lead in total return",
}
_KNOWN = (*METRICS, *FIGURES, *VERSUS)
#: Figures that say something although the strategy never traded: how often it did, and what became of the
#: choice among its variants and of its search on other paths. All others would praise it for doing nothing.
WITHOUT_TRADES = (
    "n_trades", "choice_holds", "choice_gains", "choice_confidence", "degradation", "path_sharpe",
    "paths_positive", "paths_above_hold",
)  # fmt: skip


class CriterionConfig(Config):
    """One line of the verdict."""

    name: str = Field(min_length=1, description="What is measured, as a reader would say it.")
    figure: str = Field(description="Which figure.")
    threshold: float = Field(
        0.0, description="What it must at least be; with `against`, the least lead over each of them."
    )
    against: tuple[str, ...] = Field(
        (), description="baselines, members, blenders, or the name of one of them; none: on its own."
    )
    on: bool = Field(True, description="Whether it is asked.")
    required: bool = Field(
        True, description="Whether it fails where its figure was not asked for; else it is left out."
    )

    @field_validator("figure")
    @classmethod
    def _known(cls, figure: str) -> str:
        if figure not in _KNOWN:
            raise ValueError(f"must be a known figure{did_you_mean(figure, _KNOWN)}")
        return figure

    @model_validator(mode="after")
    def _comparable(self) -> "CriterionConfig":
        if self.figure in VERSUS and not self.against:
            raise ValueError(f"figure {self.figure} must say against which baselines it is taken")
        if self.figure in FIGURES and self.against:
            raise ValueError(f"figure {self.figure} is the strategy's alone; it must have no `against`")
        if self.figure in VERSUS and set(self.against) & {"members", "blenders"}:
            raise ValueError(f"figure {self.figure} is taken against baselines; against must name these")
        return self


class CriteriaConfig(Config):
    """The lines of a verdict by key; a key of the packaged file may give only what it changes."""

    model_config = pydantic.ConfigDict(frozen=True, extra="allow", allow_inf_nan=False)
    __pydantic_extra__: dict[str, CriterionConfig]

    @model_validator(mode="before")
    @classmethod
    def _over_defaults(cls, given: Any) -> Any:
        if not isinstance(given, Mapping):
            return given
        lines = {key: dict(line) for key, line in _packaged().items()}
        for key, line in given.items():
            if isinstance(line, CriterionConfig):
                line = line.model_dump()
            if not isinstance(line, Mapping):
                raise ValueError(f"{key} is {line!r}; it must be settings such as {{threshold: 0.9}}")
            if key not in lines and "figure" not in line:
                raise ValueError(
                    f"{key} is no criterion of {_DEFAULTS}, and has no figure to be one of its own"
                    f"{did_you_mean(key, sorted(lines))}"
                )
            lines[key] = {**lines.get(key, {}), **line}
        return lines

    def lines(self) -> dict[str, CriterionConfig]:
        """Return the criteria that are on, by key."""
        return {key: line for key, line in (self.model_extra or {}).items() if line.on}


@dataclass(frozen=True)
class Judgment:
    """What was asked of a strategy, and what came of it.

    Parameters
    ----------
    criteria : tuple of Criterion
    passed : bool
        Whether all of them are met; no criteria are no proof.
    sentence : str
        The same in one sentence, with reasons.
    """

    criteria: tuple[Criterion, ...]
    passed: bool
    sentence: str

    def to_dict(self) -> dict[str, Any]:
        """Return plain objects for JSON; an undefined value is None."""
        return {
            "verdict": self.sentence,
            "passed": self.passed,
            "criteria": [criterion.to_dict() for criterion in self.criteria],
        }


def judge(
    strategy: BacktestResult,
    *,
    members: Mapping[str, BacktestResult],
    blenders: Mapping[str, BacktestResult],
    baselines: Mapping[str, BacktestResult],
    evidence: Evidence,
    robustness: Robustness | None = None,
    permutations: Permutations | None = None,
    paths: Paths | None = None,
    config: CriteriaConfig | None = None,
    subject: str = "ensemble",
) -> Judgment:
    """Return the verdict on a strategy.

    Parameters
    ----------
    strategy : BacktestResult
        One that never trades has no drawdown and bears any costs, which proves nothing: whatever is not in
        ``WITHOUT_TRADES`` is undefined for it, and does not pass.
    members, blenders, baselines : mapping of str to BacktestResult
        What it is held against, on the same rows. One that never moves has earned nothing: its Sharpe ratio
        counts as 0.
    evidence : Evidence
    robustness : Robustness, optional
    permutations : Permutations, optional
    paths : Paths, optional
    config : CriteriaConfig, optional
        ``configs/criteria.yaml`` where none is given.
    subject : str
        What the sentence is about.
    """
    config = CriteriaConfig() if config is None else config
    groups = {"baselines": baselines, "members": members, "blenders": blenders}
    alone = figures(evidence, robustness, permutations, paths)
    beside = versus(evidence)
    lines: list[Criterion] = []
    for line in config.lines().values():
        found = _criteria(line, strategy.metrics, groups, alone, beside)
        if _idle(strategy.metrics) and line.figure not in WITHOUT_TRADES:
            found = (Criterion.at_least(one.name, math.nan, one.threshold) for one in found)
        lines += found
    judged = tuple(lines)
    return Judgment(judged, verdict(judged), sentence(judged, subject))


def figures(
    evidence: Evidence,
    robustness: Robustness | None = None,
    permutations: Permutations | None = None,
    paths: Paths | None = None,
) -> dict[str, float]:
    """Return ``FIGURES`` by name as far as they were asked for; NaN where one is not defined."""
    skill, chosen, spread = evidence.skill, evidence.selection, evidence.intervals
    found = {
        "probabilistic_sharpe": skill.probabilistic,
        "deflated_unseen": skill.deflated_unseen,
        "deflated_sharpe": skill.deflated,
        "track_record": skill.n_bars / skill.track_record,
        "sharpe_low": spread["sharpe"].low,
        "return_low": spread["total_return"].low,
        "drawdown_low": spread["max_drawdown"].low,
    }
    if chosen is not None:
        found["choice_holds"] = 1.0 - chosen.pbo
        found["choice_gains"] = 1.0 - chosen.loss
        found["choice_confidence"] = 1.0 - chosen.luck
        found["degradation"] = chosen.slope
    if evidence.confidence_set is not None:
        found["confidence_set"] = evidence.confidence_set.p_of[STRATEGY]
    if robustness is not None:
        found["break_even_costs"] = robustness.break_even
        late = robustness.late(1)
        if late is not None:
            found["late_return"], found["late_sharpe"] = late.total_return, late.sharpe
        if robustness.perturbations:
            widest = max(robustness.perturbations, key=lambda one: one.sigma)
            found["perturbed_gains"], found["perturbed_kept"] = widest.positive, widest.kept
    if permutations is not None:
        found["permutation"] = 1.0 - permutations.p
    if paths is not None:
        found["path_sharpe"] = paths.median
        found["paths_positive"], found["paths_above_hold"] = paths.positive, paths.above_hold
    return found


def versus(evidence: Evidence) -> dict[str, dict[str, float]]:
    """Return ``VERSUS`` by figure and by baseline, as far as they were asked for."""
    return {
        "superiority": {name: 1.0 - found.p_of[STRATEGY] for name, found in evidence.superiority.items()},
        "sharpe_lead_low": {name: lead["sharpe"].low for name, lead in evidence.leads.items()},
        "return_lead_low": {name: lead["total_return"].low for name, lead in evidence.leads.items()},
    }


def sentence(judged: tuple[Criterion, ...], subject: str = "ensemble") -> str:
    """Return the verdict as one sentence with its reasons, the first few of them."""
    failed = [criterion for criterion in judged if not criterion.passed]
    if not judged:
        return f"FAIL: nothing was asked of the {subject}, so nothing is proved."
    if not failed:
        return f"PASS: the {subject} meets all {len(judged)} criteria."
    reasons = [f"{c.name} is {_number(c.value)}, needs {_number(c.threshold)}" for c in failed[:_REASONS]]
    if len(failed) > _REASONS:
        reasons.append(f"and {len(failed) - _REASONS} more")
    return f"FAIL: the {subject} misses {len(failed)} of {len(judged)} criteria ({'; '.join(reasons)})."


def _criteria(
    line: CriterionConfig,
    own: Metrics,
    groups: Mapping[str, Mapping[str, BacktestResult]],
    alone: Mapping[str, float],
    beside: Mapping[str, Mapping[str, float]],
) -> Iterator[Criterion]:
    if line.figure in FIGURES:
        if line.figure in alone:
            yield Criterion.at_least(line.name, alone[line.figure], line.threshold)
        elif line.required:
            yield Criterion.at_least(line.name, math.nan, line.threshold)
        return
    if not line.against:
        yield Criterion.at_least(line.name, float(getattr(own, line.figure)), line.threshold)
        return
    for wanted in line.against:
        found = False
        for rival, metrics in _rivals(wanted, groups):
            name = f"{line.name} against {rival}"
            if line.figure in METRICS:
                found = True
                value, least = (
                    float(getattr(own, line.figure)),
                    _earned(metrics, line.figure) + line.threshold,
                )
                yield Criterion.at_least(name, value, least)
            elif rival in beside[line.figure]:
                found = True
                yield Criterion.at_least(name, beside[line.figure][rival], line.threshold)
        if not found and line.required and wanted not in GROUPS:
            yield Criterion.at_least(f"{line.name} against {wanted}", math.nan, line.threshold)


def _rivals(wanted: str, groups: Mapping[str, Mapping[str, BacktestResult]]) -> Iterator[tuple[str, Metrics]]:
    if wanted in groups:
        yield from ((name, result.metrics) for name, result in groups[wanted].items())
        return
    for group in groups.values():
        if wanted in group:
            yield wanted, group[wanted].metrics
            return


def _idle(metrics: Metrics) -> bool:
    return metrics.n_trades == 0 and metrics.total_return == 0.0


def _earned(metrics: Metrics, figure: str) -> float:
    # What never moves has no ratio of anything; to beat it is to earn more than nothing.
    value = float(getattr(metrics, figure))
    return 0.0 if math.isnan(value) else value


def _number(value: float) -> str:
    return f"{value:.3g}" if math.isfinite(value) else "undefined"


@cache
def _packaged() -> dict[str, Any]:
    text = (resources.files("configs") / _DEFAULTS).read_text(encoding="utf-8")
    return parse_yaml(text, f"configs/{_DEFAULTS}")
