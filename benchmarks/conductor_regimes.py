"""What conductors are worth in each regime, and what is left of it in a regime that never trained them.

Trains one variant on windows of all regimes and once more without each of them, ``dann`` with and without its
adversary, ``specific`` and ``hybrid``; then races all of them on windows of the last part of the time. Prints
the difference from the tuned fixed controls by regime, which share of its gain the variant keeps in a regime
it never saw, and whether the hybrid is as good as its parts.

    python -m benchmarks.conductor_regimes [--bars 'data/{asset}usdt_1h.parquet' --assets BTC,ETH,LTC]
        [--variant es] [--without-parts] [--windows 60] [--seeds 30] [--runs FOLDER] [--set a.b=c]

Trainings that are finished in the folder of runs are not made again, so that a stopped study goes on.
"""

import argparse
import json
from pathlib import Path

import numpy as np
from rich.console import Console

from benchmarks.measuring import machine
from regimes.regime import CRISIS_NAMES, REGIME_NAMES

#: Name of a training, its variant, and the settings that make it differ.
PARTS = {
    "dann": ("dann", ()),
    "dann without adversary": ("dann", ("variant.adversary=0.0",)),
    "specific": ("specific", ()),
    "hybrid": ("hybrid", ()),
}
#: Where the folder of runs keeps which training is which.
TRAINED = "conductor_regimes.json"
#: Trainings judge themselves only in passing: the race of this benchmark judges them together.
SHORT = ("judging.race_tasks=16", "judging.schedule_iterations=0")


def wanted(variant: str, with_parts: bool) -> dict[str, tuple[str, tuple[str, ...]]]:
    """Return the trainings by name: variant, and the settings that make it differ."""
    found = {variant: (variant, ())}
    for regime in REGIME_NAMES:
        found[f"{variant} without {regime}"] = (variant, (f"trading.held_out_regimes=[{regime}]",))
    return found | (PARTS if with_parts else {})


def trained(options: argparse.Namespace, console: Console) -> dict[str, str]:
    """Return the run of each training by its name; what is not there yet is trained."""
    from conductor.training import train_run
    from conductor.training_settings import TrainConfig
    from configs.load import load

    book = Path(options.runs) / TRAINED
    known = json.loads(book.read_text(encoding="utf-8")) if book.is_file() else {}
    for name, (variant, settings) in wanted(options.variant, not options.without_parts).items():
        if name in known:
            continue
        console.print(f"[bold]{name}[/bold]")
        config = load(
            TrainConfig,
            "train.yaml",
            [f"variant.name={variant}", *settings, *SHORT, *options.settings],
            tasks="windows",
            market__bars=options.bars,
            trading__assets=options.assets and options.assets.split(","),
            runs=options.runs,
            seed=options.seed,
        )
        known[name] = train_run(config, console).name
        book.write_text(json.dumps(known, indent=1), encoding="utf-8")
    return known


def raced(options: argparse.Namespace, runs: dict[str, str], console: Console):
    """Return the race of all trained conductors, and the name that each has in it."""
    from conductor.lineup import REFERENCE, SUBJECT
    from conductor.race_comparison import Race
    from conductor.race_running import race_run
    from conductor.racing import read_results
    from conductor.racing_settings import RaceConfig
    from configs.load import load
    from experiments.runs import Run

    shapes = [one.removeprefix("trading.") for one in options.settings if one.startswith("trading.windows.")]
    config = load(
        RaceConfig,
        "race.yaml",
        shapes,
        conductors=list(runs.values()),
        suite="windows",
        contestants=[REFERENCE, "frozen mean schedule", "random around tuned"],
        bars=[options.bars] if options.bars else None,
        assets=options.assets and options.assets.split(","),
        n_windows=options.windows,
        seeds=options.seeds,
        runs=options.runs,
        seed=options.seed,
    )
    race = Race.of(read_results(Run.at(options.runs, race_run(config, console).name)))
    first, *others = runs.items()
    return race, {first[0]: SUBJECT} | {name: f"{SUBJECT} {run}" for name, run in others}


def shown(estimate) -> str:
    """Return a figure with its interval."""
    return f"{estimate.value:+6.2f} [{estimate.low:+.2f}, {estimate.high:+.2f}]"


def tables(race, places: dict[str, str], variant: str) -> list[str]:
    """Return the lines of the study: gains by regime, shares that are kept, and the hybrid beside its parts.

    Parameters
    ----------
    race : Race
        Of tuned fixed controls and all conductors.
    places : dict of str to str
        Contestant by the name of its training.
    variant : str
        The one that was trained without each regime.
    """
    from conductor.lineup import REFERENCE
    from conductor.race_statistics import Clusters, kept_share

    at = {name: race.contestants.index(place) for name, place in places.items()}
    reference = race.contestants.index(REFERENCE)
    regime = race.values["regime"][reference]
    rows = {"all": np.ones(regime.size, bool)} | {
        name: regime == number for number, name in enumerate(CRISIS_NAMES) if (regime == number).any()
    }

    def clusters(mine: np.ndarray) -> Clusters:
        return Clusters(np.unique(race.clusters.codes[mine], return_inverse=True)[1])

    def gain(name: str, metric: str, mine: np.ndarray, over: int = reference) -> np.ndarray:
        return (race.values[metric][at[name]] - race.values[metric][over])[mine]

    lines = []
    for metric in ("final", "anytime"):
        lines.append(f"{metric}: decades of normalised regret against the tuned fixed controls")
        lines.append(f"{'':28s}" + "".join(f"{name:>24s}" for name in rows))
        for name in places:
            cells = [shown(clusters(mine).estimate(gain(name, metric, mine))) for mine in rows.values()]
            lines.append(f"{name:28s}" + "".join(f"{cell:>24s}" for cell in cells))
        lines.append("")
    lines.append(f"{variant} without a regime, on the windows of that regime: share of the gain that is kept")
    for name, mine in rows.items():
        unseen = f"{variant} without {name}"
        if unseen not in at:
            continue
        for metric in ("final", "anytime"):
            kept = kept_share(gain(unseen, metric, mine), gain(variant, metric, mine), clusters(mine))
            said = "no gain to keep: the interval of the whole gain contains zero"
            lines.append(f"  {name:10s} {metric:8s} {said if np.isnan(kept.value) else shown(kept)}")
    pairs = [("hybrid", "dann"), ("hybrid", "specific"), ("dann", "dann without adversary")]
    for one, other in pairs:
        if one in at and other in at:
            lines.append(f"{one} against {other}, below 0 the first is better")
            for name, mine in rows.items():
                cells = [
                    shown(clusters(mine).estimate(gain(one, metric, mine, over=at[other])))
                    for metric in ("final", "anytime")
                ]
                lines.append(f"  {name:10s} final {cells[0]}   anytime {cells[1]}")
    return lines


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--variant", default="es", help="the one that is trained without each regime")
    parser.add_argument("--without-parts", action="store_true", help="leave dann, specific and hybrid out")
    parser.add_argument("--bars", help="file of bars, {asset} standing for each; default: synthetic markets")
    parser.add_argument("--assets", help="for example BTC,ETH,LTC")
    parser.add_argument("--windows", type=int, default=60)
    parser.add_argument("--seeds", type=int, default=30)
    parser.add_argument("--runs", default="experiments/runs")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument(
        "--set", dest="settings", action="append", default=[], help="any setting of the trainings"
    )
    options = parser.parse_args(arguments)
    console = Console(highlight=False)
    console.print(machine())
    runs = trained(options, console)
    chosen = {name: runs[name] for name in wanted(options.variant, not options.without_parts)}
    for line in tables(*raced(options, chosen, console), options.variant):
        console.print(line, markup=False, soft_wrap=True)


if __name__ == "__main__":
    main()
