"""What an evolution leaves in the folder of its run."""

from collections.abc import Sequence
from typing import Any

from experiments.records import changed_settings
from experiments.runs import Run
from specialists import report
from specialists.settings import EvolveConfig
from specialists.training import Evolved, Ground, Unseen

STRESS_PATHS = 2_000
STRESS_DAYS = 7  # mean block of the bootstrap: long enough to keep the clusters of volatility together


def rows_of(ground: Ground) -> dict[str, list[int]]:
    """Return first and last row of training and test."""
    spans = {"train": ground.split.train, "test": ground.split.test}
    return {name: [rows.start, rows.stop] for name, rows in spans.items()}


def write_manifest(
    run: Run,
    config: EvolveConfig,
    ground: Ground,
    fingerprint: str,
    parents: Sequence[str] = (),
    **further: Any,
) -> None:
    """Write where the run's results come from; at its start, and again when it knows how long it took."""
    run.write_manifest(
        data={"bars": fingerprint},
        seeds={"root": config.seed},
        parents=parents,
        rows=rows_of(ground),
        changed=changed_settings(config, "evolve.yaml"),
        **further,
    )


def write_results(
    run: Run, config: EvolveConfig, ground: Ground, evolved: Evolved, unseen: Unseen
) -> dict[str, str]:
    """Write champion, detector, predictions, tables and pictures; return the pictures' captions by path."""
    from backtest.figures import equity_and_drawdown, trades_over_regimes

    test = ground.split.test
    evolved.specialist.save(run.folder / "checkpoints" / "specialist", config.family.name)
    ground.detector.save(run.folder / "checkpoints" / "detector")
    evolved.in_sample.save(run.folder / "predictions" / "in_sample")
    unseen.champion.save(run.folder / "predictions" / "out_of_sample")
    _write_generations(run, evolved)
    with run.writing("metrics/trials.npz") as draft:
        evolved.trials.save(draft)
    pictures = {
        "plots/trades.png": "Price, causal regimes and the champion's trades on the test rows",
        "plots/equity.png": "Equity and drawdown on the test rows, beside the baselines",
    }
    title = f"{config.regime} specialist, {ground.bars.label}"
    if "best" in evolved.generations[0]:
        from ga.figures import fitness_curve

        pictures = {"plots/fitness.png": "Fitness of each generation, on the training rows"} | pictures
        with run.writing("plots/fitness.png") as draft:
            fitness_curve(evolved.generations, draft, f"{title}: fitness in sample")
    names = dict(enumerate(ground.regime_names))
    with run.writing("plots/trades.png") as draft:
        trades_over_regimes(
            ground.bars[test],
            ground.regime_labels[test],
            names,
            unseen.champion,
            draft,
            f"{title}: trades out of sample",
        )
    results = {
        f"{config.regime} specialist": unseen.champion,
        "buy and hold": unseen.held,
        "hold in regime": unseen.gated,
    }
    with run.writing("plots/equity.png") as draft:
        equity_and_drawdown(results, draft, f"{title}: out of sample, after costs")
    if config.tearsheet:
        _write_tearsheet(run, config, ground, evolved, unseen, names)
        pictures["tearsheet/tearsheet.html"] = "Tear sheet of the test rows, with stress tests"
    run.write_json("checkpoints/hall_of_fame.json", hall_of_fame(evolved))
    return pictures


def write_report(run: Run, found: dict[str, Any], title: str, pictures: dict[str, str]) -> None:
    """Write the report for people and for programs; a run with a ``report.json`` is finished."""
    run.write_bytes("report.md", report.markdown(found, title, pictures).encode())
    run.write_json("report.json", found)


def hall_of_fame(evolved: Evolved) -> list[dict[str, Any]]:
    """Return the best distinct genomes as plain objects, fittest first."""
    space = evolved.specialist.family.space
    return [
        {"fitness": one.fitness, "generation": one.origin[1], "genes": space.values(one.genes)}
        for one in evolved.hall_of_fame
    ]


def _write_tearsheet(
    run: Run, config: EvolveConfig, ground: Ground, evolved: Evolved, unseen: Unseen, names: dict[int, str]
) -> None:
    from backtest.stress import stress
    from backtest.tearsheet import write_tearsheet

    test = ground.split.test
    bars, labels = ground.bars[test], ground.regime_labels[test]
    targets = evolved.specialist.fresh().update(bars, ground.features[test], ground.labels[test])
    stressed = stress(
        targets,
        bars,
        config.costs,
        config.limits,
        seed=config.seed,
        n_paths=STRESS_PATHS,
        mean_block=STRESS_DAYS * 86_400e9 / bars.interval_ns,
        venue=config.venue,
        regimes=labels,
    )
    write_tearsheet(
        unseen.champion,
        run.folder / "tearsheet",
        title=f"{config.regime} specialist, {bars.label}",
        sample="out-of-sample",
        bars=bars,
        labels=labels,
        regime_names=names,
        benchmarks={"buy and hold": unseen.held, "hold in regime": unseen.gated},
        stress=stressed,
    )


def _write_generations(run: Run, evolved: Evolved) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    with run.writing("metrics/generations.parquet") as draft:
        pq.write_table(pa.Table.from_pylist(evolved.generations), draft)
