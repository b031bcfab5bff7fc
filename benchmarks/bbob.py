"""Share of targets reached on the 24 BBOB functions in ten dimensions with 10,000 evaluations.

    python benchmarks/bbob.py [--instances 15] [--policy smooth ...] [--seed 1] [--rotation 0] [--peers]

A run counts how many of 51 error targets from 1e2 to 1e-8, spaced evenly on a logarithm, its best of 10,000
evaluations reaches. Printed are two means over all functions and instances: ``end``, the share reached when
the budget is spent, which is the figure quoted; and ``anytime``, the mean of that share over the evaluations,
the area under the curve of runtimes. The box is [-5, 5]; the functions come from package ``ioh``.

``--peers`` adds differential evolution of SciPy with its own defaults, DEAP's eaSimple with tutorial settings
at a population of 100, and random search, on the same instances. Nothing here was used for tuning.
"""

import argparse
import time
from contextlib import suppress

import numpy as np

from benchmarks.ga_tuning import TARGETS, curve, shares
from benchmarks.measuring import machine
from ga.controls import POLICIES
from ga.operators import python_random
from ga.variation import Variation

D, EVALUATIONS = 10, 10_000
FUNCTIONS = range(1, 25)
#: Individuals; a budget of 10,000 evaluations is then some 200 or 300 generations.
POPULATION = {"success_history": 40}
OTHERS_POPULATION = 50


class Spent(Exception):  # noqa: N818
    """The budget is used up: how a peer that knows no such limit is stopped."""


def problem(function, instance):
    """Return the error as a function of genes (p, 10) in the unit cube."""
    import ioh

    found = ioh.get_problem(function, instance, D, ioh.ProblemClass.BBOB)
    lowest = found.optimum.y
    return lambda genes: np.asarray(found((np.asarray(genes) * 10.0 - 5.0).tolist())) - lowest


def ours(error, seed, name, settings=None, population_size=None, variation=None):
    """Return (end, anytime) of one run of the search with a policy."""
    policy = POLICIES.create(name, settings or {})
    size = population_size or POPULATION.get(name, OTHERS_POPULATION)
    return shares(curve(lambda genes: -error(genes), D, size, EVALUATIONS, seed, policy.controls, variation))


def recorded(error, search):
    """Return (end, anytime) of a peer that calls a function of one genome, stopped after the budget."""
    errors = []

    def one(x):
        if len(errors) == EVALUATIONS:
            raise Spent
        errors.append(float(error(np.asarray(x)[None])[0]))
        return errors[-1]

    with suppress(Spent):
        search(one)
    best = np.minimum.accumulate(errors)
    best = np.append(best, np.full(EVALUATIONS - len(best), best[-1]))
    reached = (best[:, None] <= TARGETS).mean(axis=1)
    return reached[-1], reached.mean()


def scipy_evolution(error, seed):
    from scipy.optimize import differential_evolution

    return recorded(
        error,
        lambda one: differential_evolution(
            one, [(0.0, 1.0)] * D, maxiter=EVALUATIONS, tol=0.0, polish=False, rng=np.random.default_rng(seed)
        ),
    )


def deap_easy(error, seed):
    from deap import algorithms

    from benchmarks.ga_overhead import deap_toolbox

    def search(one):
        def evaluate(individual):
            individual[:] = [min(max(x, 0.0), 1.0) for x in individual]
            return (-one(individual),)

        with python_random(np.random.default_rng(seed)):
            box = deap_toolbox(evaluate, D, 0.1)
            algorithms.eaSimple(box.population(100), box, 0.5, 0.2, EVALUATIONS, verbose=False)

    return recorded(error, search)


def random_search(error, seed):
    rng = np.random.default_rng(seed)
    best = np.minimum.accumulate(error(rng.random((EVALUATIONS, D))))
    reached = (best[:, None] <= TARGETS).mean(axis=1)
    return reached[-1], reached.mean()


PEERS = {
    "scipy differential evolution": scipy_evolution,
    "DEAP eaSimple": deap_easy,
    "random search": random_search,
}


def table(run, instances, seed, functions=FUNCTIONS):
    """Return (end, anytime) of ``run(error, seed)`` on every function and instance, float64 (f, i, 2)."""
    return np.array(
        [
            [
                run(problem(f, i), int(np.random.SeedSequence([seed, f, i]).generate_state(1)[0]))
                for i in instances
            ]
            for f in functions
        ]
    )


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--instances", type=int, default=15)
    parser.add_argument("--first", type=int, default=1, help="number of the first instance")
    parser.add_argument("--policy", nargs="+", default=["smooth", "success_history"], help="control policies")
    parser.add_argument("--population", type=int, help="individuals, instead of the policy's advice")
    parser.add_argument("--only", type=int, nargs="+", default=list(FUNCTIONS), help="functions, 1 to 24")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--rotation", type=float, default=0.0, help="variation.rotation of our searches")
    parser.add_argument("--peers", action="store_true", help="run the other searches too")
    parser.add_argument("--functions", action="store_true", help="print the share of every function")
    options = parser.parse_args(arguments)
    variation = Variation(rotation=options.rotation)
    instances = range(options.first, options.first + options.instances)
    print(machine())
    print(
        f"BBOB, {D}-D, {EVALUATIONS:,} evaluations, {len(options.only)} functions, "
        f"instances {instances[0]} to {instances[-1]}, seed {options.seed}; "
        f"variation {variation.model_dump()}"
    )
    print(f"{'':32s} {'end':>6s} {'anytime':>8s} {'seconds':>8s}")
    runs = {
        f"{name}, population {options.population or POPULATION.get(name, OTHERS_POPULATION)}": (
            lambda error, seed, name=name: ours(
                error, seed, name, population_size=options.population, variation=variation
            )
        )
        for name in options.policy
    }
    for name, run in (runs | (PEERS if options.peers else {})).items():
        start = time.perf_counter()
        found = table(run, instances, options.seed, options.only)
        end, anytime = found.mean(axis=(0, 1))
        print(f"{name:32s} {end:6.3f} {anytime:8.3f} {time.perf_counter() - start:8.1f}", flush=True)
        if options.functions:
            named = zip(options.only, found[:, :, 0].mean(axis=1), strict=True)
            print("  " + " ".join(f"f{number} {share:.2f}" for number, share in named))


if __name__ == "__main__":
    main()
