"""How two sets of tuned fixed controls were found: one control turned at a time, on synthetic tasks only.

    python benchmarks/ga_tuning.py smooth [--rounds 1] [--repeats 2] [--seed 1] [--set crossover_rate=0.8 ...]
    python benchmarks/ga_tuning.py rugged [--rounds 1] [--repeats 2] [--seed 1]

``smooth`` is for ``ga.controls.SMOOTH``: every family of ``landscapes.py`` at 10 genes (population 50, 10,000
evaluations) and a third of them at 24 genes (population 100, 30,000). The score of a task is the mean of two
shares of 51 error targets from 1e2 to 1e-8, spaced evenly on a logarithm: those reached at the end, and those
reached on average over the evaluations. ``rugged`` is for ``RUGGED``: rules with thresholds,
traded on random walks with fat tails by the objective of ``origin_landscapes.py`` (population 200, 200
generations, and 256, 60). Its score is the rank of the fitness found, among the settings compared.

A round turns each control in turn down and up by ``--step`` of its range; all settings compared meet the
same tasks, the next control meets fresh ones. A change is kept if it is better by two standard errors of the
paired differences, so that a control without effect stays where it is.

``SMOOTH`` was set by hand and left by a round over nine controls (``smooth --repeats 2 --seed 1``), in
which no turn was better by two standard errors. No BBOB function was ever tuned on. ``RUGGED`` was begun in
the same way, but the random walks do not tell its last settings apart: mutation rate, crossover rate,
differential rate and weight, tournament size and the widths of ``multiscale`` were chosen among some forty
settings on the origin's landscapes, with seeds from 1000. What it reaches there is therefore an upper bound.
"""

import argparse
from dataclasses import replace

import numpy as np

from benchmarks.landscapes import FAMILIES, landscape
from benchmarks.origin_landscapes import Landscape
from ga.controls import CONTROL_NAMES, RUGGED, SMOOTH, GAControls, Hyperparameters
from ga.evolution import Evolution
from ga.space import GenomeSpace
from ga.variation import Variation

TARGETS = np.logspace(2.0, -8.0, 51)


def space(d, name="cube"):
    return GenomeSpace(tuple(f"x{i}" for i in range(d)), np.zeros(d), np.ones(d), ("real",) * d, name=name)


def curve(fitness, d, population_size, evaluations, seed, choose, variation=None):
    """Return evaluations and best fitness so far after each generation, float64 (g, 2).

    Parameters
    ----------
    fitness : callable
        Genes (p, d) to fitness (p,).
    d, population_size, evaluations, seed : int
        Nothing beyond the evaluations allowed counts.
    choose : callable
        Progress to controls: ``policy.controls``.
    variation : Variation, optional
    """
    run = Hyperparameters(
        population_size=population_size, n_generations=-(-2 * evaluations // population_size), patience=0
    )
    evolution = Evolution(space(d), run, np.random.default_rng(seed), variation=variation)
    used, best, rows = 0, -np.inf, []
    while used < evaluations:
        genes = evolution.ask(choose(evolution.progress))
        values = fitness(genes)
        best = max(best, values[: evaluations - used].max())
        used += len(genes)
        evolution.tell(values)
        rows.append((min(used, evaluations), best))
    return np.array(rows)


def shares(rows):
    """Return the share of targets reached at the end, and the mean of that share over the evaluations."""
    reached = (-rows[:, 1:] <= TARGETS).mean(axis=1)
    return reached[-1], np.average(reached, weights=np.diff(rows[:, 0], prepend=0.0))


def market(seed):
    """Return the objective of a rule with thresholds over one random walk with fat tails."""
    rng = np.random.default_rng([99, seed])
    n, volatility = int(rng.integers(600, 1600)), 0.03 * np.exp(0.3 * rng.standard_normal())
    step = np.clip(volatility * rng.standard_t(3, n) / 1.7 + 0.001 * rng.standard_normal(), -0.4, 0.6)
    close = 100.0 * np.exp(np.cumsum(np.log1p(step)))
    reach = np.abs(rng.normal(0.0, volatility, (2, n)))
    returns = np.concatenate([[np.nan], np.diff(close) / close[:-1]])
    return Landscape.of(
        close * (1.0 + reach[0]), close * (1.0 - np.minimum(reach[1], 0.5)), close, returns, bool(seed % 2)
    )


def smooth_tasks(seed):
    """Return tasks (fitness, d, population size, evaluations, seed) on test functions."""
    for number, name in enumerate(FAMILIES):
        sizes = [(10, 50, 10_000)]
        if (number + seed) % 3 == 0:
            sizes.append((24, 100, 30_000))
        for d, population_size, evaluations in sizes:
            error = landscape(name, d, seed)
            yield lambda genes, error=error: -error(genes), d, population_size, evaluations, seed


def rugged_tasks(seed):
    """Return tasks (fitness, d, population size, evaluations, seed) on rules with thresholds."""
    for number, (population_size, generations) in enumerate([(200, 200)] * 4 + [(256, 60)] * 2):
        number += 6 * seed
        yield market(number), 8, population_size, population_size * generations, number


def scores(candidates, tasks, variation):
    """Return the score of each candidate on each task, float64 (candidates, tasks); higher is better."""
    table = []
    for fitness, d, population_size, evaluations, seed in tasks:
        row = []
        for controls in candidates:
            rows = curve(fitness, d, population_size, evaluations, seed, lambda _, c=controls: c, variation)
            row.append(rows[-1, 1] if isinstance(fitness, Landscape) else np.mean(shares(rows)))
        if isinstance(fitness, Landscape):
            row = np.searchsorted(np.sort(row), row).tolist()  # equals share the lowest rank
        table.append(row)
    return np.array(table).T


def turned(controls, name, step):
    """Return the controls with one of them turned by a step of its range, kept inside it."""
    unit = controls.to_unit()
    place = CONTROL_NAMES.index(name)
    unit[place] = min(max(unit[place] + step, 0.0), 1.0)
    return replace(controls, **{name: getattr(GAControls.from_unit(unit), name)})


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("tasks", choices=["smooth", "rugged"])
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=2, help="sets of tasks per control")
    parser.add_argument("--step", type=float, default=0.15, help="how far a control is turned, of its range")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--controls", nargs="+", default=CONTROL_NAMES, help="which to turn")
    parser.add_argument("--set", nargs="+", default=[], help="start: NAME=VALUE of controls or variation")
    options = parser.parse_args()
    given = dict(item.split("=") for item in options.set)
    start = {name: float(given.pop(name)) for name in CONTROL_NAMES if name in given}
    controls = replace(SMOOTH if options.tasks == "smooth" else RUGGED, **start)
    variation = Variation(**given)
    make = smooth_tasks if options.tasks == "smooth" else rugged_tasks
    seed = 1000 * options.seed
    for _ in range(options.rounds):
        for name in options.controls:
            candidates = [
                controls,
                turned(controls, name, -options.step),
                turned(controls, name, options.step),
            ]
            tasks = [task for repeat in range(options.repeats) for task in make(seed + repeat)]
            seed += options.repeats
            score = scores(candidates, tasks, variation)
            gain = score - score[0]
            error = gain.std(axis=1, ddof=1) / np.sqrt(len(tasks))
            better = gain.mean(axis=1) - 2.0 * error
            best = int(np.argmax(better))  # the present one stands first, with 0
            shown = ", ".join(
                f"{getattr(c, name):.4g}: {s:.4f} (+-{e:.4f})"
                for c, s, e in zip(candidates, score.mean(axis=1), error, strict=True)
            )
            controls = candidates[best]
            print(f"{name:20s} {shown} -> {getattr(controls, name):.4g}", flush=True)
    print(", ".join(f"{name}={value:.4g}" for name, value in controls.to_dict().items()))


if __name__ == "__main__":
    main()
