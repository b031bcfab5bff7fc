"""Criteria as data: what each of them judges, what the packaged ones say, and the sentence."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest

from backtest.metrics import Metrics
from backtest.stress_report import CostStress, Variant
from configs.load import Config, ConfigError, config_text, dump, load, parse_yaml, validate
from ensemble.comparisons import ConfidenceSet, Interval, Superiority
from ensemble.criteria import FIGURES, METRICS, VERSUS, CriteriaConfig, figures, judge, sentence, versus
from ensemble.evidence import STRATEGY, Evidence, EvidenceConfig, Selection, Skill, weigh
from ensemble.paths import Paths
from ensemble.permutation import Permutations
from ensemble.robustness import Perturbation, Robustness
from experiments.ledger import LedgerSummary, Openings
from experiments.promotion import Criterion
from tests.ensemble.made_results import account, noise

HOLD, RANDOM = "buy and hold", "random routing"


class Holder(Config):
    """As a command has it."""

    criteria: CriteriaConfig = CriteriaConfig()


def settings(**lines):
    return validate(Holder, {"criteria": lines}, "validate.yaml").criteria


def only(**lines):
    """These lines and no other."""
    off = {key: {"on": False} for key in CriteriaConfig().lines() if key not in lines}
    return settings(**off, **lines)


# A strategy that meets everything; each test takes something away.


def good_strategy(**changed):
    return account(noise(1, 3_000, edge=0.1, scale=0.002), pnl=[2.0, -1.0] * 75, **changed)


def good_evidence():
    interval = Interval(2.0, 1.0, 3.0, 1.0)
    spread = {"sharpe": interval, "total_return": interval, "max_drawdown": Interval(-0.1, -0.15, -0.05, 0.0)}
    superior = Superiority(HOLD, 0.01, 0.01, 0.01, {STRATEGY: 0.01, "equal": 0.02}, (STRATEGY,), 0.05, 1, 99)
    return Evidence(
        skill=Skill(
            3.0, 3_000, 0.0, 3.0, 0.0, 0.999, 500.0, 2, 1, 0.99, 0.5, 100.0, 120, 100, 80.0, 3, 0.97, 1.0
        ),
        selection=Selection(0.1, 0.0, 0.2, 0.05, 0.1, 0.4, {10: 0.1, 16: 0.1}, 16, 10, 9, 4.0),
        superiority={HOLD: superior, RANDOM: superior},
        confidence_set=ConfidenceSet({STRATEGY: 0.8, "equal": 0.05}, 0.1, 1, 99),
        intervals=spread,
        leads={HOLD: spread, RANDOM: spread},
        mean_block=1.0,
    )  # fmt: skip


def good_robustness():
    metrics = good_strategy().metrics
    shaken = Perturbation(0.1, (1.0, 2.0, 1.5), (0.1, 0.2, 0.1), 2.0)
    worse = replace(shaken, sigma=0.02, total_return=(-1.0, -1.0, -1.0))
    costs = CostStress((Variant(0.0, metrics),), 2.5, "The total return is zero at 2.5 times the costs.")
    return Robustness(costs, (Variant(0, metrics), Variant(1, metrics)), (shaken, worse))


def judged(config=None, **changed):
    given = {
        "strategy": good_strategy(),
        "members": {"ranging": account(noise(2, 3_000))},
        "blenders": {"equal": account(noise(3, 3_000))},
        "baselines": {HOLD: account(noise(4, 3_000)), RANDOM: account(noise(5, 3_000))},
        "evidence": good_evidence(),
        "robustness": good_robustness(),
        "permutations": Permutations(2.0, (0.0,) * 99),
        **changed,
    }
    return judge(given.pop("strategy"), **given, config=config)


def failed(judgment):
    return [criterion.name for criterion in judgment.criteria if not criterion.passed]


# --- the packaged criteria -------------------------------------------------------------------------------


def test_a_strategy_that_meets_everything_passes_in_one_sentence():
    found = judged()
    assert failed(found) == []
    assert found.passed
    # One line faces two baselines, every other one a single rival or none.
    assert found.sentence == f"PASS: the ensemble meets all {len(found.criteria)} criteria."
    assert len(found.criteria) == len(CriteriaConfig().lines()) + 1


def test_every_packaged_line_can_fail_and_fails_alone():
    skill, chosen = good_evidence().skill, good_evidence().selection
    metrics = good_strategy().metrics

    def weak(**parts):
        return {"evidence": replace(good_evidence(), **parts)}

    def unable(name):
        one = replace(good_evidence().superiority[HOLD], p_of={STRATEGY: 0.2})
        return weak(superiority={**good_evidence().superiority, name: one})

    def fragile(**parts):
        return {"robustness": replace(good_robustness(), **parts)}

    late = replace(metrics, total_return=-0.01)
    broken = Perturbation(0.1, (1.0, -1.0), (0.1, -0.2), 2.0)
    above = account(noise(6, 3_000, edge=0.4))
    ways = {
        "skill": weak(skill=replace(skill, deflated_unseen=0.94)),
        "positive": weak(skill=replace(skill, probabilistic=0.94)),
        "path": weak(intervals={**good_evidence().intervals, "sharpe": Interval(1.0, -0.1, 2.0, 0.9)}),
        "trades": {"strategy": account(noise(1, 3_000, edge=0.1, scale=0.002), pnl=[2.0, -1.0] * 49)},
        "overfitting": weak(selection=replace(chosen, pbo=0.21)),
        "loss": weak(selection=replace(chosen, loss=0.51)),
        "baselines": {"baselines": {HOLD: above, RANDOM: account(noise(5, 3_000))}},
        "better_than_hold": unable(HOLD),
        "better_than_chance": unable(RANDOM),
        "members": {"members": {"ranging": above}},
        "among_the_best": weak(confidence_set=ConfidenceSet({STRATEGY: 0.09}, 0.1, 1, 99)),
        "drawdown": {"strategy": account(np.r_[noise(1, 3_000, edge=0.1), -0.25], pnl=[2.0, -1.0] * 75)},
        "profit_factor": {"strategy": account(noise(1, 3_000, edge=0.1, scale=0.002), pnl=[1.29, -1.0] * 75)},
        "break_even": fragile(costs=replace(good_robustness().costs, break_even=1.4)),
        "late": fragile(delays=(Variant(1, late),)),
        "perturbed": fragile(perturbations=(broken,)),
        "permutation": {"permutations": Permutations(2.0, (3.0,) * 10 + (0.0,) * 89)},
    }
    assert set(ways) == set(CriteriaConfig().lines())
    for key, change in ways.items():
        line = CriteriaConfig().lines()[key]
        found = judged(**change)
        assert not found.passed, key
        assert len(failed(found)) == 1, (key, failed(found))
        assert failed(found)[0].startswith(line.name), key
        assert found.sentence.startswith(f"FAIL: the ensemble misses 1 of {len(found.criteria)} criteria (")
        # Switched off, it is not missed.
        assert judged(settings(**{key: {"on": False}}), **change).passed, key


def test_every_figure_is_known_and_every_one_of_them_is_measured():
    paths = Paths(None, (), 2, 0, (), (good_strategy(), account(np.zeros(9))), good_strategy(), 0)
    measured = figures(good_evidence(), good_robustness(), Permutations(1.0, (0.0,) * 19), paths)
    assert set(measured) == set(FIGURES)
    assert set(versus(good_evidence())) == set(VERSUS)
    assert set(METRICS) == set(Metrics.__dataclass_fields__)
    assert len({*METRICS, *FIGURES, *VERSUS}) == len(METRICS) + len(FIGURES) + len(VERSUS)
    assert measured["choice_holds"] == pytest.approx(0.9)
    assert measured["choice_gains"] == pytest.approx(0.9)
    assert measured["track_record"] == 6.0
    assert (measured["paths_positive"], measured["paths_above_hold"]) == (0.5, 0.0)
    assert measured["path_sharpe"] == pytest.approx(good_strategy().metrics.sharpe / 2)
    assert measured["confidence_set"] == 0.8
    assert measured["perturbed_gains"] == 1.0  # at the largest deviation, wherever it stands
    assert measured["permutation"] == pytest.approx(0.95)


def test_the_packaged_file_is_what_a_config_without_settings_holds():
    document = parse_yaml(config_text("criteria.yaml")[0], "criteria.yaml")
    assert settings(**document) == CriteriaConfig() == settings()
    assert list(CriteriaConfig().model_extra) == list(document)
    assert not CriteriaConfig().model_extra["search"].on


# --- what is compared with what --------------------------------------------------------------------------


def test_a_figure_against_a_group_is_asked_of_each_of_it_with_a_lead():
    line = {"name": "Sharpe", "figure": "sharpe", "against": ["baselines", "members"], "threshold": 0.25}
    found = judged(only(mine=line))
    own, held = good_strategy().metrics.sharpe, account(noise(4, 3_000)).metrics.sharpe
    assert [c.name for c in found.criteria] == [
        "Sharpe against buy and hold",
        "Sharpe against random routing",
        "Sharpe against ranging",
    ]
    assert found.criteria[0] == Criterion.at_least("Sharpe against buy and hold", own, held + 0.25)


def test_who_never_trades_is_beaten_by_earning_something_and_not_by_losing():
    flat = {"baselines": {HOLD: account(np.zeros(300)), RANDOM: account(np.zeros(300))}}
    line = {"baselines": {"on": True}}
    assert judged(only(**line), **flat).passed
    losing = judged(only(**line), strategy=account(noise(1, 300, edge=-0.3)), **flat)
    assert len(failed(losing)) == 2
    # And a strategy that never trades beats nobody.
    assert len(failed(judged(only(**line), strategy=account(np.zeros(300)), **flat))) == 2


def test_what_was_not_asked_for_fails_unless_it_is_not_required():
    asked = judged(robustness=None, permutations=None)
    assert failed(asked) == [CriteriaConfig().lines()[key].name for key in ("break_even", "late")]
    assert all(math.isnan(c.value) for c in asked.criteria if not c.passed)
    assert "times the costs at which nothing is left is undefined, needs 1.5" in asked.sentence
    without = judged(baselines={HOLD: account(noise(4, 3_000))}, evidence=replace(
        good_evidence(), superiority={HOLD: good_evidence().superiority[HOLD]}))  # fmt: skip
    assert failed(without) == []  # random routing is not required
    neither = judged(baselines={}, evidence=replace(good_evidence(), superiority={}))
    assert failed(neither) == [f"{CriteriaConfig().lines()['better_than_hold'].name} against {HOLD}"]


def test_a_figure_that_is_not_defined_never_passes():
    skill = replace(good_evidence().skill, deflated_unseen=math.nan, track_record=math.nan)
    found = judged(only(skill={}), evidence=replace(good_evidence(), skill=skill))
    assert not found.passed
    assert found.to_dict()["criteria"][0]["value"] is None


def test_the_sentence_gives_the_first_reasons_and_counts_the_others():
    lines = tuple(Criterion.at_least(f"line {i}", float(i), 10.0) for i in range(12))
    assert sentence(lines, "strategy") == (
        "FAIL: the strategy misses 10 of 12 criteria (line 0 is 0, needs 10; line 1 is 1, needs 10; "
        "line 2 is 2, needs 10; line 3 is 3, needs 10; and 6 more)."
    )
    assert sentence((), "strategy") == "FAIL: nothing was asked of the strategy, so nothing is proved."
    everything_off = settings(**{key: {"on": False} for key in CriteriaConfig().lines()})
    assert not judged(everything_off).passed


# --- settings --------------------------------------------------------------------------------------------


def test_one_setting_of_a_packaged_line_may_be_changed_alone(tmp_path):
    (tmp_path / "mine.yaml").write_text("criteria: {trades: {threshold: 7}}\n")
    found = load(
        Holder, tmp_path / "mine.yaml", ["criteria.drawdown.threshold=-0.3", "criteria.late.on=false"]
    )
    lines = found.criteria.lines()
    assert (lines["trades"].threshold, lines["drawdown"].threshold) == (7, -0.3)
    assert lines["drawdown"].name == CriteriaConfig().lines()["drawdown"].name
    assert "late" not in lines
    dump(found, tmp_path / "resolved.yaml")
    assert load(Holder, tmp_path / "resolved.yaml") == found


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (
            {"drawdwn": {"threshold": -0.3}},
            r"drawdwn is no criterion of criteria.yaml.*did you mean drawdown\?",
        ),
        ({"drawdown": {"figure": "max_drawdwn"}}, r"drawdown.figure is 'max_drawdwn'; .*mean max_drawdown\?"),
        ({"drawdown": {"threshold": True}}, "drawdown.threshold is True; it must be a number"),
        ({"drawdown": {"threshold": math.nan}}, "drawdown.threshold is nan; it"),
        ({"drawdown": {"least": 1}}, "drawdown.least is not a setting"),
        ({"drawdown": -0.3}, "drawdown is -0.3; it must be settings"),
        ({"mine": {"figure": "sharpe"}}, "mine.name is missing"),
        ({"mine": {"name": "x", "figure": "superiority"}}, "must say against which baselines"),
        ({"skill": {"against": ["baselines"]}}, "figure deflated_unseen is the strategy's alone"),
        ({"better_than_hold": {"against": ["members"]}}, "figure superiority is taken against baselines"),
    ],
)
def test_a_line_that_cannot_be_judged_is_refused_in_one_sentence(lines, message):
    with pytest.raises(ConfigError, match=message) as error:
        settings(**lines)
    assert "\n" not in str(error.value)


# --- together --------------------------------------------------------------------------------------------


def verdict_of(edge):
    n = 1_500
    parts = {
        "members": {"ranging": account(noise(31, n, edge=edge / 3))},
        "blenders": {"equal": account(noise(32, n, edge=edge / 3))},
        "baselines": {HOLD: account(noise(33, n)), RANDOM: account(noise(34, n))},
    }
    strategy = account(noise(35, n, edge=edge, scale=0.003), pnl=[1.5, -1.0] * 60)
    evidence = weigh(
        strategy,
        **parts,
        trials=LedgerSummary("", 9, 9, 9.0, 9, 0.0, 1e-4, 1),
        looks=Openings(0, 0),
        seed=1,
        config=EvidenceConfig(paths=200, overfitting_paths=20, blocks=(6, 8)),
    )
    return judge(strategy, **parts, evidence=evidence, robustness=good_robustness())


def test_a_planted_edge_passes_and_noise_does_not():
    pytest.importorskip("arch")
    real = verdict_of(0.15)
    assert real.passed, real.sentence
    luck = verdict_of(0.0)
    assert not luck.passed
    document = json.loads(json.dumps(luck.to_dict(), allow_nan=False))
    assert document["verdict"] == luck.sentence
    assert {"name", "value", "threshold", "passed"} == set(document["criteria"][0])
