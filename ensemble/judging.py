"""From the folds to the verdict: one account, its rivals, the evidence, the criteria, the report."""

import hashlib
from collections.abc import Sequence
from typing import Any

from rich.console import Console

from compute.workers import Mapper
from ensemble import criteria, report
from ensemble.baselines import targets_on
from ensemble.evidence import weigh
from ensemble.fold_result import FoldResult
from ensemble.folds import FoldJob
from ensemble.joining import joined
from ensemble.paths import Paths
from ensemble.permutation import Permutations
from ensemble.phases import phase
from ensemble.robustness import push
from ensemble.settings import ValidateConfig
from ensemble.shaking import Shaken
from ensemble.validation import Judged
from experiments.ledger import Ledger
from experiments.runs import Run
from market.bars import timeframe_text
from market.sources.selection import Selection


def judge(
    run: Run,
    config: ValidateConfig,
    selection: Selection,
    job: FoldJob,
    results: Sequence[FoldResult],
    ledger: Ledger,
    permutations: Permutations | None,
    paths: Paths | None,
    workers: Mapper,
    console: Console,
) -> dict[str, Any]:
    """Compare, weigh, decide, print and save; return the report."""
    bars = selection.bars
    fingerprint = bars.fingerprint()
    with phase(run, "baselines"):
        validated, draws = joined(config, bars, results)
    # The look is noted before anything is printed: who stops here has looked all the same.
    subject = hashlib.sha256("".join(fold.fingerprint for fold in validated.folds).encode()).hexdigest()
    first, last = (int(validated.time[i]) for i in (0, -1))
    if paths is not None:  # which open earlier rows as well
        first = min(first, int(paths.hold.curve.time[0]))
    looks = ledger.record_opening(fingerprint, run.id, first, last, subject)
    trials = ledger.summary(fingerprint)
    with phase(run, "evidence"), console.status("weighing the evidence"):
        evidence = weigh(
            validated.result, members=validated.members, blenders=validated.blenders,
            baselines=validated.baselines, trials=trials, looks=looks, seed=config.seed,
            config=config.evidence,
        )  # fmt: skip
    with phase(run, "robustness"), console.status("pushing costs, delays and genes"):
        shaken, threads = None, None if config.workers.name == "ray" else workers
        if config.robustness.sigmas and _can_shake(config):
            shaken = Shaken(job, validated.rows, config.seed, threads)
        known = bars[: validated.rows.stop]
        targets = targets_on(known, validated.rows, validated.blend.exposure)
        robustness = push(
            targets, known, config.costs, config.limits, config=config.robustness, decide=shaken,
            workers=threads, venue=config.venue, rows=validated.rows,
        )  # fmt: skip
    judgment = criteria.judge(
        validated.result, members=validated.members, blenders=validated.blenders,
        baselines=validated.baselines, evidence=evidence, robustness=robustness,
        permutations=permutations, paths=paths, config=config.criteria,
    )  # fmt: skip
    found = Judged(
        validated, evidence, robustness, permutations, judgment, draws, trials, looks,
        _provenance(run, config, selection, job, validated.rows), paths,
    )  # fmt: skip
    with phase(run, "report"):
        return report.write(run, found, console)


def _can_shake(config: ValidateConfig) -> bool:
    from specialists.family import FAMILIES

    own = config.specialists
    family = FAMILIES.create(own.family.name, own.family.settings)
    return bool(own.regimes) and not hasattr(family, "toolbox")  # a formula has no small change


def _provenance(
    run: Run, config: ValidateConfig, selection: Selection, job: FoldJob, rows: slice
) -> dict[str, Any]:
    bars = selection.bars
    return {
        "run": run.id,
        "seed": config.seed,
        "origin": selection.origin,
        "warnings": list(selection.warnings),
        "symbol": bars.symbol,
        "timeframe": timeframe_text(bars.interval_ns),
        "bars": len(bars),
        "fingerprint": bars.fingerprint(),
        "features": job.core.version,
        "forecast_features": None if job.wide is None else job.wide.version,
        "detector": config.detector.model_dump(mode="json"),
        "blender": config.blender.model_dump(mode="json"),
        "tested_on": config.folds.tested_on(),
        "settings": config.digest(),
        "truth": None if selection.truth is None else selection.truth[rows],
    }
