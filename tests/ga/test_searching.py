import numpy as np
import pytest

from compute.seeds import stream
from compute.workers import ThreadMapper
from configs.load import ConfigError
from ga.controls import GAControls, Hyperparameters
from ga.evaluation import Evaluator
from ga.evolution import Evolution
from ga.islands import IslandPolicies, Islands, IslandsConfig
from ga.policies import FixedPolicy
from ga.searching import Search, search
from ga.space import GenomeSpace

SPACE = GenomeSpace(tuple("abcd"), np.zeros(4), np.ones(4), ("real",) * 4, name="cube")
SIZE = Hyperparameters(population_size=24, n_generations=12, patience=0)
FOUR = IslandsConfig(count=2, interval=3, migrants=2)


def sphere(genes):
    return -((genes - 0.3) ** 2).sum(axis=1)


def single(workers=None, function=sphere):
    evolution = Evolution(SPACE, SIZE, stream(3, "ga"))
    return Search(evolution, Evaluator(function, SPACE, workers, chunk_size=8), FixedPolicy())


def two_islands(workers=None, function=sphere, config=FOUR):
    islands = Islands(SPACE, SIZE, config, seed=3)
    policies = IslandPolicies([FixedPolicy() for _ in range(config.count)])
    return Search(islands, Evaluator(function, SPACE, workers, chunk_size=8), policies)


def result(searching):
    population = searching.evolution.population
    hall = searching.evolution.hall_of_fame.genomes()
    rows = [tuple(row.values()) for row in searching.evolution.logbook]
    return (
        population.genes.tobytes(),
        population.fitness.tobytes(),
        b"".join(genome.genes.tobytes() for genome in hall),
        repr(rows),
        searching.evaluator.evaluations,
        searching.evaluator.hits,
    )


@pytest.mark.parametrize("make", [single, two_islands])
def test_the_same_seed_gives_the_same_bytes_whatever_the_workers(make):
    alone = make()
    alone.run()
    with ThreadMapper(3) as workers:
        together = make(workers)
        together.run()
    assert result(alone) == result(together)


@pytest.mark.parametrize("make", [single, two_islands])
@pytest.mark.parametrize("stop", [0, 1, 5, 11])
def test_a_search_that_is_restored_ends_as_if_it_had_never_stopped(make, stop):
    whole = make()
    whole.run()
    first = make()
    for _ in range(stop + 1):
        first.step()
    assert first.generation == stop
    second = make()
    second.restore(first.state())
    second.run()
    assert result(second) == result(whole)


@pytest.mark.parametrize("make", [single, two_islands])
def test_a_state_without_its_random_numbers_would_be_noticed(make):
    whole = make()
    whole.run()
    first = make()
    for _ in range(5):
        first.step()
    state = first.state()
    second = make()
    fresh = make()
    fresh.step()
    parts = [(state["evolution"], fresh.state()["evolution"])]
    if make is two_islands:
        parts = list(zip(parts[0][0]["islands"], parts[0][1]["islands"], strict=True))
    for old, new in parts:
        old["rng"] = new["rng"]
    second.restore(state)
    second.run()
    assert result(second) != result(whole)


def test_search_returns_the_champion_and_reports_each_generation():
    seen = []
    evolution = Evolution(SPACE, SIZE, stream(3, "ga"))
    champion = search(
        evolution, Evaluator(sphere, SPACE), FixedPolicy(), lambda e: seen.append(e.progress.generation)
    )
    assert seen == list(range(13))
    assert champion.fitness == max(row["best"] for row in evolution.logbook)


class Rotating:
    """A fitness with two windows: even generations want genes of 0.2, odd ones of 0.8, both together 0.5."""

    def __call__(self, genes):
        return np.column_stack([-((genes - aim) ** 2).sum(axis=1) for aim in (0.5, 0.2, 0.8)])

    def score(self, details, generation):
        return details[:, generation % 2]

    rotates = True


def test_where_fitness_rotates_everybody_alive_is_judged_on_the_window_of_the_generation():
    searching = single(function=Rotating())
    for generation in range(6):
        searching.step()
        population = searching.evolution.population
        aim = (0.2, 0.8)[generation % 2]
        np.testing.assert_array_equal(population.fitness, -((population.genes - aim) ** 2).sum(axis=1))


def test_the_champion_of_a_rotating_fitness_is_the_best_on_all_windows_together():
    searching = single(function=Rotating())
    champion = searching.run()
    population = searching.evolution.population
    assert champion.fitness == (-((population.genes - 0.5) ** 2).sum(axis=1)).max()


def test_looking_again_at_the_living_costs_no_evaluation():
    rotating, steady = single(function=Rotating()), single()
    rotating.run()
    steady.run()
    assert rotating.evaluator.evaluations + rotating.evaluator.hits == (
        steady.evaluator.evaluations + steady.evaluator.hits
    )


def test_islands_divide_the_population_and_do_not_lose_anybody():
    assert IslandsConfig(count=3).sizes(50) == [17, 17, 16]
    islands = two_islands().evolution
    islands.ask()
    assert [len(island.population) for island in islands.islands] == [12, 12]


def test_an_island_too_small_to_evolve_is_refused():
    with pytest.raises(
        ConfigError, match=r"islands.count is 4 for a population of 24: an island would hold 6"
    ):
        IslandsConfig(count=4).sizes(24)


def test_the_best_of_an_island_arrive_on_the_next_one():
    searching = two_islands()
    while searching.generation < 2:
        searching.step()
    islands = searching.evolution.islands
    # The generation that ends with a migration, done by hand beside it.
    genes = islands and searching.evolution.ask([GAControls(), GAControls()])
    fitness = sphere(genes)
    searching.evolution.tell(fitness, known=np.zeros(len(genes), dtype=bool))
    best = [np.sort(island.population.fitness)[-2:] for island in islands]
    for i in (0, 1):
        assert set(best[i]) <= set(islands[1 - i].population.fitness)


def test_without_a_migration_islands_know_nothing_of_each_other():
    apart = two_islands(config=IslandsConfig(count=2, interval=1000, migrants=2))
    apart.run()
    alone = Evolution(SPACE, SIZE.model_copy(update={"population_size": 12}), stream(3, "ga", "island", 1))
    search(alone, Evaluator(sphere, SPACE), FixedPolicy())
    assert apart.evolution.islands[1].population.genes.tobytes() == alone.population.genes.tobytes()


def test_the_rows_of_all_islands_are_kept_in_order():
    searching = two_islands()
    searching.run()
    rows = searching.evolution.logbook
    assert [(row["generation"], row["island"]) for row in rows] == [(g, i) for g in range(13) for i in (0, 1)]


def test_islands_and_their_policies_belong_together():
    with pytest.raises(TypeError, match="one policy each"):
        Search(Islands(SPACE, SIZE, FOUR, seed=1), Evaluator(sphere, SPACE), FixedPolicy())
