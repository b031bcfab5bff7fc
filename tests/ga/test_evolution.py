import numpy as np
import pytest
from deap import tools

from compute.workers import SerialMapper, ThreadMapper
from ga.archive import genome_keys
from ga.controls import GAControls, Hyperparameters
from ga.evaluation import Evaluator
from ga.evolution import Evolution, search
from ga.policies import FixedPolicy, ScheduledPolicy
from ga.space import GenomeSpace

D, P = 5, 40
SPACE = GenomeSpace(tuple("abcde"), np.zeros(D), np.ones(D), ("real",) * D, name="cube")
GRID = GenomeSpace(tuple("abc"), np.zeros(3), np.full(3, 11.0), ("integer",) * 3, name="grid")
CONTROLS = GAControls()


def evolution(seed=0, space=SPACE, kind=Evolution, **hyperparameters):
    run = Hyperparameters(**{"population_size": P, "n_generations": 12, "patience": 0, **hyperparameters})
    return kind(space, run, np.random.default_rng(seed), run="test")


def fitness_of(genes):
    return -((genes - 0.3) ** 2).sum(axis=1)


def complete(one, fitness=fitness_of, controls=CONTROLS):
    while not one.finished:
        one.tell(fitness(one.ask(controls)))
    return one


def test_the_first_ask_is_the_initial_population():
    one = evolution()
    genes = one.ask()
    assert genes.shape == (P, D)
    assert not one.population.evaluated.any()
    np.testing.assert_array_equal(one.population.genes, genes)
    one.tell(fitness_of(genes))
    assert one.population.evaluated.all()
    assert one.progress.generation == 0


def test_only_offspring_are_asked_for():
    one = evolution()
    one.tell(fitness_of(one.ask()))
    before = one.population
    offspring = one.ask(GAControls(elite_fraction=0.25))
    assert len(offspring) == P - 10
    known = set(genome_keys(before.genes))
    assert known.isdisjoint(genome_keys(offspring))


def test_the_population_holds_what_was_told():
    one = evolution(3)
    while not one.finished:
        one.tell(fitness_of(one.ask(CONTROLS)))
        np.testing.assert_array_equal(one.population.fitness, fitness_of(one.population.genes))
        assert one.population.fitness.max() == one.champion.fitness  # the champion is never lost


def test_ages_count_generations_survived():
    one = evolution(4)
    one.tell(fitness_of(one.ask()))
    best = one.population.genes[one.population.best]
    for generation in range(1, 6):
        one.tell(np.full(len(one.ask(CONTROLS)), -100.0))
        place = one.population.best
        np.testing.assert_array_equal(one.population.genes[place], best)
        assert one.population.age[place] == generation
        assert one.progress.stagnation == generation


def test_ask_and_tell_alternate():
    one = evolution()
    with pytest.raises(RuntimeError, match=r"tell\(\) was called without ask\(\)"):
        one.tell([1.0])
    one.ask()
    with pytest.raises(RuntimeError, match=r"ask\(\) was called twice; tell\(\) needs"):
        one.ask()


def test_fitness_of_the_wrong_shape_is_refused_and_can_be_told_again():
    one = evolution(population_size=200)
    genes = one.ask()
    message = r"fitness has shape \(199,\); tell\(\) needs \(200,\), one value per genome returned by ask\(\)"
    with pytest.raises(ValueError, match=message):
        one.tell(np.zeros(199))
    with pytest.raises(ValueError, match=r"fitness has shape \(200, 1\)"):
        one.tell(np.zeros((200, 1)))
    with pytest.raises(ValueError, match=r"fitness is \+inf in row 7"):
        one.tell(np.where(np.arange(200) == 7, np.inf, 0.0))
    one.tell(fitness_of(genes))
    with pytest.raises(TypeError, match=r"ask\(\) needs GAControls"):
        one.ask()


def test_the_run_ends_with_its_generations_and_refuses_more():
    one = complete(evolution(n_generations=4))
    assert one.progress.generation == 4
    assert [row["generation"] for row in one.logbook] == [0, 1, 2, 3, 4]
    with pytest.raises(RuntimeError, match="finished in generation 4"):
        one.ask(CONTROLS)


@pytest.mark.parametrize(("patience", "generations"), [(3, 3), (7, 7), (0, 12)])
def test_patience_ends_a_search_that_stands_still(patience, generations):
    flat = complete(evolution(patience=patience), lambda genes: np.zeros(len(genes)))
    assert flat.progress.generation == generations


def test_patience_begins_anew_with_every_better_champion():
    one = evolution(patience=3, n_generations=100)
    one.tell(np.zeros(len(one.ask())))
    for value in (0.0, 0.0, 1.0, 1.0, 1.0, 1.0):
        assert not one.finished
        one.tell(np.full(len(one.ask(CONTROLS)), value))
    assert one.finished


def test_invalid_fitness_is_the_worst_and_is_counted():
    one = evolution()
    genes = one.ask()
    fitness = fitness_of(genes)
    fitness[:7] = np.nan
    fitness[7:9] = -np.inf
    one.tell(fitness)
    assert one.progress.invalid == 9
    np.testing.assert_array_equal(one.population.fitness[:9], -np.inf)
    assert one.population.best >= 9
    assert one.progress.row()["invalid_share"] == 9 / P
    assert one.champion.fitness == fitness[9:].max()


def test_a_search_without_any_valid_genome_goes_on_and_has_no_champion():
    one = complete(evolution(), lambda genes: np.full(len(genes), np.nan))
    assert one.progress.generation == 12
    assert np.isfinite(one.progress.history).all()
    with pytest.raises(ValueError, match="there is no champion"):
        _ = one.champion


def test_the_callers_fitness_is_not_changed():
    one = evolution()
    fitness = np.full(len(one.ask()), np.nan)
    one.tell(fitness)
    assert np.isnan(fitness).all()


def test_genes_from_ask_are_read_only_and_in_the_cube():
    one = evolution(5)
    wild = GAControls(mutation_rate=1.0, mutation_step=0.5, mutation_tail=1.0, differential_weight=1.2)
    while not one.finished:
        genes = one.ask(wild)
        assert ((genes >= 0.0) & (genes <= 1.0)).all()
        with pytest.raises(ValueError, match="read-only"):
            genes[0, 0] = 0.5
        one.tell(fitness_of(genes))


class Forgetful(Evolution):
    """Wrong on purpose: does not look whether an offspring was evaluated before."""

    def _repeated(self, keys, rows):
        return []


@pytest.mark.parametrize(("kind", "repeats"), [(Evolution, False), (Forgetful, True)])
def test_evaluated_genomes_are_not_asked_for_again(kind, repeats):
    one = evolution(6, GRID, kind, n_generations=8)  # 1,728 genomes in all, 352 evaluations
    asked = []
    while not one.finished:
        genes = one.ask(CONTROLS)
        asked += genome_keys(GRID.decode(genes))
        one.tell(-(GRID.decode(genes)[:, 0]) - GRID.decode(genes)[:, 1])
    again = len(asked) - len(set(asked))
    assert (again > 20) if repeats else (again <= 3)  # tries are bounded, a rare repeat may remain
    assert one.progress.history[:, 17].max() > 0.1 or repeats  # duplicate_share: there was work to do


def test_an_exhausted_space_does_not_hang():
    tiny = GenomeSpace(("a", "b"), [0, 0], [1, 1], ("integer", "integer"))
    evaluator = Evaluator(lambda genes: genes.sum(axis=1), tiny)
    one = evolution(7, tiny)
    search(one, evaluator, FixedPolicy())
    assert evaluator.evaluations == 4
    assert one.progress.row()["cached_share"] == 1.0


def test_the_logbook_is_deaps_and_has_one_row_per_generation():
    one = complete(evolution())
    assert isinstance(one.logbook, tools.Logbook)
    assert len(one.logbook) == 13
    assert one.logbook.select("best")[-1] == one.champion.fitness
    assert one.logbook[-1]["mutation_step"] == CONTROLS.mutation_step
    assert np.isnan(one.logbook[0]["mutation_step"])
    assert one.logbook[-1]["evaluations"] == one.progress.evaluations


def test_the_champion_is_the_best_of_all_time_with_its_origin():
    one = complete(evolution(8))
    champion = one.champion
    assert champion.fitness == fitness_of(champion.genes[None])[0]
    assert champion.space == "cube"
    run, generation = champion.origin
    assert run == "test"
    rising = [row["generation"] for row in one.logbook if row["best"] == champion.fitness]
    assert generation == rising[0]


def record_of(one):
    rows = np.array([list(row.values()) for row in one.logbook])
    return b"".join(
        a.tobytes()
        for a in (one.population.genes, one.population.fitness, one.population.age, rows, one.champion.genes)
    )


def searched(seed, mapper, policy=None):
    one = evolution(seed, GRID, n_generations=10)
    with mapper:
        search(
            one,
            Evaluator(lambda g: -((g - 0.4) ** 2).sum(axis=1), GRID, mapper, chunk_size=8),
            policy or FixedPolicy(),
        )
    return record_of(one)


def test_the_same_seed_gives_the_same_bytes_with_any_number_of_workers():
    results = {
        searched(1, mapper)
        for mapper in (SerialMapper(), SerialMapper(), ThreadMapper(1), ThreadMapper(2), ThreadMapper(3))
    }
    assert len(results) == 1
    assert searched(2, SerialMapper()) not in results
    assert searched(1, SerialMapper(), ScheduledPolicy()) not in results


def test_search_is_the_ask_tell_loop():
    seen = []
    policy, evaluator = FixedPolicy(), Evaluator(fitness_of, SPACE)
    one = evolution(9)
    champion = search(one, evaluator, policy, lambda e: seen.append(e.progress.generation))
    assert seen == list(range(13))
    by_hand = complete(evolution(9))
    assert champion.genes.tobytes() == by_hand.champion.genes.tobytes()
    assert evaluator.evaluations + evaluator.hits == one.progress.evaluations


def test_a_search_goes_on_from_where_it_stopped():
    one = evolution(9)
    for _ in range(5):
        one.tell(fitness_of(one.ask(CONTROLS)))
    search(one, Evaluator(fitness_of, SPACE), FixedPolicy())
    assert record_of(one) == record_of(complete(evolution(9)))


def test_operators_can_be_replaced_by_name():
    from ga import operators

    box = operators.toolbox()
    box.register("mutate", lambda rng, genes, *_: np.full_like(genes, 0.123) + rng.random(genes.shape) * 1e-6)
    run = Hyperparameters(population_size=P, n_generations=2, patience=0)
    one = Evolution(SPACE, run, np.random.default_rng(0), toolbox=box)
    one.tell(fitness_of(one.ask()))
    assert np.abs(one.ask(GAControls(immigrant_fraction=0.0)) - 0.123).max() < 1e-5


def test_a_guard_below_one_generation_is_refused():
    with pytest.raises(ValueError, match="stagnation_guard is 0; it must be at least 1"):
        Evolution(SPACE, Hyperparameters(), np.random.default_rng(0), stagnation_guard=0)
