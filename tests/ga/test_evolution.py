import numpy as np
import pytest
from deap import tools

from compute.workers import SerialMapper, ThreadMapper
from ga.controls import GAControls, Hyperparameters
from ga.evaluation import Evaluator
from ga.evolution import Evolution
from ga.policies import FixedPolicy, ScheduledPolicy
from ga.progress import STATISTIC_NAMES
from ga.searching import search
from ga.space import GenomeSpace
from ga.variation import Variation

D, P = 5, 40
SPACE = GenomeSpace(tuple("abcde"), np.zeros(D), np.ones(D), ("real",) * D, name="cube")
GRID = GenomeSpace(tuple("abc"), np.zeros(3), np.full(3, 11.0), ("integer",) * 3, name="grid")
#: Partners more often than difference vectors, immigrants, restarts: something of everything.
CONTROLS = GAControls(
    mutation_rate=0.01,
    mutation_step=0.007,
    mutation_tail=0.5,
    crossover_rate=0.95,
    crossover_spread=0.5,
    differential_rate=0.4,
    differential_weight=0.35,
    tournament_size=4.5,
    elite_fraction=0.003,
    immigrant_fraction=0.02,
    crowding_rate=0.2,
    restart_fraction=0.3,
)
FIXED = FixedPolicy(FixedPolicy.Config(**CONTROLS.to_dict()))
PLAIN = Variation(recombination="blend", mutation="gaussian_cauchy", jitter=False, archive=False)


def evolution(seed=0, space=SPACE, kind=Evolution, **hyperparameters):
    run = Hyperparameters(**{"population_size": P, "n_generations": 12, "patience": 0, **hyperparameters})
    return kind(space, run, np.random.default_rng(seed), run="test", variation=PLAIN)


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
    known = set(SPACE.keys(before.genes))
    assert known.isdisjoint(SPACE.keys(offspring))


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
    message = r"fitness has shape \(199,\); it needs \(200,\), one value per genome returned by ask\(\)"
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

    def _repeated(self, keys):
        return np.empty(0, dtype=np.int64)


@pytest.mark.parametrize(("kind", "repeats"), [(Evolution, False), (Forgetful, True)])
def test_evaluated_genomes_are_not_asked_for_again(kind, repeats):
    one = evolution(6, GRID, kind, n_generations=8)  # 1,728 genomes in all, 352 evaluations
    asked = []
    while not one.finished:
        genes = one.ask(CONTROLS)
        asked += GRID.keys(genes)
        one.tell(-(GRID.decode(genes)[:, 0]) - GRID.decode(genes)[:, 1])
    again = len(asked) - len(set(asked))
    assert (again > 20) if repeats else (again <= 3)  # tries are bounded, a rare repeat may remain
    assert one.progress.history[:, 17].max() > 0.1 or repeats  # duplicate_share: there was work to do


def test_an_exhausted_space_does_not_hang():
    tiny = GenomeSpace(("a", "b"), [0, 0], [1, 1], ("integer", "integer"))
    evaluator = Evaluator(lambda genes: genes.sum(axis=1), tiny)
    one = evolution(7, tiny)
    search(one, evaluator, FIXED)
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
            policy or FIXED,
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
    policy, evaluator = FIXED, Evaluator(fitness_of, SPACE)
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
    search(one, Evaluator(fitness_of, SPACE), FIXED)
    assert record_of(one) == record_of(complete(evolution(9)))


def test_operators_can_be_replaced_by_name():
    from ga import operators

    def breed(rng, genes, order, parents, controls):
        m = len(parents)
        children = np.full((m, D), 0.123) + rng.random((m, D)) * 1e-6
        return operators.Bred(children, np.zeros(m, dtype=np.int8), np.full(m, np.nan), np.full(m, np.nan))

    box = operators.toolbox()
    box.register("breed", breed)
    run = Hyperparameters(population_size=P, n_generations=2, patience=0)
    one = Evolution(SPACE, run, np.random.default_rng(0), toolbox=box)
    one.tell(fitness_of(one.ask()))
    assert np.abs(one.ask(GAControls(immigrant_fraction=0.0)) - 0.123).max() < 1e-5


@pytest.mark.parametrize("archive", [True, False])
def test_an_operator_is_handed_the_archive_that_its_variation_asks_for(archive):
    from ga import operators

    handed = []

    def breed(*args, **named):
        handed.append(named.get("archive"))
        return operators.breed(*args, variation=PLAIN)

    box = operators.toolbox(PLAIN)
    box.register("breed", breed)
    run = Hyperparameters(population_size=P, n_generations=9, patience=0)
    variation = PLAIN.model_copy(update={"archive": archive})
    one = Evolution(SPACE, run, np.random.default_rng(0), toolbox=box, variation=variation)
    lost = []
    while not one.finished:
        before = one.population
        genes = one.ask(CONTROLS)
        one.tell(fitness_of(genes))
        if before is not None and before.evaluated.all():
            gone = one.population.fitness > before.fitness
            lost += before.genes[gone].tolist()
    if archive:
        assert handed[0].shape == (0, D)
        kept = {tuple(row) for row in handed[-1].tolist()}
        assert len(handed[-1]) == P  # full: the oldest made room
        assert kept <= {tuple(row) for row in lost}
        assert tuple(lost[0]) not in kept
    else:
        assert handed == [None] * 9


def test_repeated_offspring_go_to_the_registered_remutation():
    from ga import operators

    attempts = []

    def remutate(rng, genes, controls, attempt):
        attempts.append(attempt)
        return genes if attempt < 2 else rng.random(genes.shape)

    box = operators.toolbox()
    box.register(
        "breed",
        lambda rng, genes, order, parents, controls: operators.Bred(
            genes[parents], np.zeros(len(parents), dtype=np.int8), *np.full((2, len(parents)), np.nan)
        ),
    )
    box.register("remutate", remutate)
    run = Hyperparameters(population_size=P, n_generations=2, patience=0)
    one = Evolution(SPACE, run, np.random.default_rng(0), toolbox=box)
    before = one.ask().copy()
    one.tell(fitness_of(before))
    children = one.ask(GAControls(immigrant_fraction=0.0))
    assert attempts == [0, 1, 2]
    assert set(SPACE.keys(before)).isdisjoint(SPACE.keys(children))


class Rounded(GenomeSpace):
    """Genomes that agree to one digit are the same."""

    def keys(self, genes):
        return [bytes(np.round(row * 10).astype(np.uint8)).ljust(16) for row in genes]


def test_a_space_may_say_which_genomes_are_the_same():
    rounded = Rounded(("a", "b"), np.zeros(2), np.ones(2), ("real",) * 2)
    plain = GenomeSpace(("a", "b"), np.zeros(2), np.ones(2), ("real",) * 2)
    for space, repeats in ((rounded, False), (plain, True)):
        one = evolution(5, space, population_size=20, n_generations=3)
        asked = []
        complete(one, lambda genes, asked=asked: asked.extend(rounded.keys(genes)) or fitness_of(genes))
        again = len(asked) - len(set(asked))
        assert (again > 20) if repeats else (again <= 5)
        assert len({rounded.keys(g.genes[None])[0] for g in one.hall_of_fame.genomes()}) == 10 or repeats


def busy(seed, variation=PLAIN):
    """Return a search in which everything happens: repeats, restarts, invalid genomes, an archive."""
    run = Hyperparameters(population_size=P, n_generations=18, patience=0)
    rng = np.random.default_rng(seed)
    return Evolution(GRID, run, rng, run="busy", stagnation_guard=2, hall_size=5, variation=variation)


def busily(one, generations, seed):
    controls = [CONTROLS, GAControls(crowding_rate=0.7, mutation_rate=0.3, immigrant_fraction=0.2)]
    for _ in range(generations):
        genes = one.ask(controls[one.progress.generation % 2])
        fitness = np.floor(GRID.decode(genes)[:, 0]) - seed
        fitness[::9] = np.nan
        one.tell(fitness, cached=1)


def bytes_of(state):
    if isinstance(state, dict):
        return b"".join(key.encode() + bytes_of(value) for key, value in sorted(state.items()))
    return state.tobytes() if isinstance(state, np.ndarray) else repr(state).encode()


def everything(one):
    progress = one.progress
    shown = (
        np.array([*progress.trials, *progress.successes]),
        np.array([progress.successful_weight, progress.successful_rate, progress.best, progress.mean]),
    )
    return (
        bytes_of(one.state())
        + record_of(one)
        + progress.history.tobytes()
        + progress.statistics.tobytes()
        + b"".join(array.tobytes() for array in shown)
        + repr([(g.genes.tolist(), g.fitness, g.origin) for g in one.hall_of_fame.genomes()]).encode()
    )


@pytest.mark.parametrize(
    "variation",
    [PLAIN, Variation(recombination="mixed", mutation="polynomial", jitter=True, archive=True), Variation()],
)
def test_a_restored_search_goes_on_bit_for_bit(variation):
    whole = busy(3, variation)
    busily(whole, 8, 3)  # the initial population and seven generations
    state = whole.state()
    before = bytes_of(state)
    restored = busy(99, variation)  # its own generator must not matter
    restored.restore(state)
    assert everything(restored) == everything(whole)
    for one in (whole, restored):
        busily(one, 10, 3)
    assert whole.progress.generation == 17
    assert whole.progress.history[:, STATISTIC_NAMES.index("duplicate_share")].max() > 0
    assert whole.progress.history[:, STATISTIC_NAMES.index("restarted_share")].max() > 0
    assert everything(restored) == everything(whole)
    assert bytes_of(state) == before  # nobody wrote into it


@pytest.mark.parametrize("forgotten", ["rng", "seen", "order", "since_restart", "replaced", "n_replaced"])
def test_a_search_that_forgets_a_part_of_its_state_goes_on_differently(forgotten):
    variation = PLAIN.model_copy(update={"archive": True})
    whole = busy(3, variation)
    busily(whole, 12, 3)
    state = whole.state()
    wrong = dict(state)
    if forgotten == "since_restart":
        wrong[forgotten] = 0 if state[forgotten] >= 2 else 2  # on the other side of the guard
    elif forgotten == "n_replaced":
        wrong[forgotten] = state[forgotten] + 1
    elif forgotten in ("order", "replaced"):
        wrong[forgotten] = np.roll(state[forgotten], 1, axis=0)
    else:
        wrong[forgotten] = busy(98, variation).state()[forgotten]
    assert bytes_of(wrong) != bytes_of(state)
    restored = busy(99, variation)
    restored.restore(wrong)
    for one in (whole, restored):
        busily(one, 6, 3)
    assert record_of(restored) != record_of(whole)


def test_a_state_holds_plain_data_only():
    def check(value):
        if isinstance(value, dict):
            assert all(isinstance(key, str) for key in value)
            for inner in value.values():
                check(inner)
        elif isinstance(value, list):
            for inner in value:
                check(inner)
        else:
            assert value is None or type(value) in (np.ndarray, int, float, str, bool), type(value)
            assert not isinstance(value, np.ndarray) or value.dtype != object

    one = busy(1)
    check(one.state())
    busily(one, 4, 1)
    check(one.state())


def test_a_search_can_be_saved_before_it_began():
    one, other = busy(1), busy(2)
    other.restore(one.state())
    for search_ in (one, other):
        busily(search_, 3, 1)
    assert everything(other) == everything(one)


def test_states_are_refused_in_one_sentence():
    one = busy(1)
    busily(one, 3, 1)
    state = one.state()
    with pytest.raises(RuntimeError, match=r"restore\(\) was called after ask\(\)"):
        one.restore(state)
    one.ask(CONTROLS)
    with pytest.raises(RuntimeError, match=r"state\(\) was called between ask\(\) and tell\(\)"):
        one.state()
    larger = evolution(1, GRID, population_size=P + 1)
    with pytest.raises(
        ValueError, match=r"saved population has shape \(40, 3\); this search needs \(41, 3\)"
    ):
        larger.restore(state)
    shorter = evolution(1, GRID, n_generations=1)
    with pytest.raises(ValueError, match="saved history of the run has shape"):
        shorter.restore(state)
    other = Evolution(
        GRID, one.hyperparameters, np.random.Generator(np.random.MT19937(1)), variation=PLAIN, hall_size=5
    )
    with pytest.raises(ValueError, match="state must be for a MT19937"):
        other.restore(state)
    archived = busy(1, PLAIN.model_copy(update={"archive": True}))
    busily(archived, 3, 1)
    with pytest.raises(ValueError, match="saved archive of replaced individuals has shape"):
        busy(1).restore(archived.state())


def test_reassessing_replaces_the_fitness_and_rebuilds_the_hall():
    one = evolution(2, n_generations=30)
    for _ in range(6):
        one.tell(fitness_of(one.ask(CONTROLS)))
    before, rows = one.population, [dict(row) for row in one.logbook]
    state = one.progress
    new = -np.abs(before.genes - 0.8).sum(axis=1) - 100.0
    new[3] = np.nan
    one.reassess(new)
    np.testing.assert_array_equal(one.population.genes, before.genes)
    np.testing.assert_array_equal(one.population.age, before.age)
    np.testing.assert_array_equal(one.population.fitness, np.where(np.arange(P) == 3, -np.inf, new))
    best = int(np.nanargmax(new))
    champion = one.champion
    assert champion.fitness == new[best] == one.progress.best
    assert champion.genes.tobytes() == before.genes[best].tobytes()
    assert champion.origin == ("test", 5 - before.age[best])
    assert (one.progress.generation, one.progress.stagnation) == (5, state.stagnation)
    assert list(one.logbook) == rows
    assert one.state()["order"][0] == best
    one.tell(np.full(len(one.ask(CONTROLS)), new[best] - 1.0))
    assert one.progress.stagnation == state.stagnation + 1  # lower values alone are no reason to begin anew
    one.tell(np.full(len(one.ask(CONTROLS)), new[best] + 1.0))
    assert one.progress.stagnation == 0
    assert 0.0 < one.progress.row()["improvement_1"] <= 1.0


def test_migrants_take_the_places_of_the_worst():
    one = evolution(2)
    for _ in range(4):
        one.tell(fitness_of(one.ask(CONTROLS)))
    before = one.population
    migrants = np.full((3, D), 0.3) + np.arange(3)[:, None] * 1e-4
    one.immigrate(migrants, fitness_of(migrants))
    after = one.population
    moved = np.flatnonzero((after.genes != before.genes).any(axis=1))
    assert sorted(moved) == sorted(np.argsort(before.fitness)[:3])
    np.testing.assert_array_equal(after.fitness, fitness_of(after.genes))
    assert (after.age[moved] == 0).all()
    assert one.champion.fitness == 0.0
    assert one.progress.evaluations == 4 * P - 3  # one elite per generation; migrants were paid for elsewhere
    offspring = one.ask(CONTROLS)
    assert set(SPACE.keys(offspring)).isdisjoint(SPACE.keys(migrants))
    one.tell(fitness_of(offspring))
    assert one.progress.stagnation == 0
    one.immigrate(np.empty((0, D)), [])
    one.immigrate(migrants[:1], [np.nan])  # known ones are welcome


def test_migrants_and_new_fitness_are_refused_in_one_sentence():
    one = evolution(2)
    with pytest.raises(RuntimeError, match=r"immigrate\(\) was called before ask\(\)"):
        one.immigrate(np.zeros((1, D)), [0.0])
    one.tell(fitness_of(one.ask()))
    with pytest.raises(ValueError, match=r"fitness has shape \(3,\); it needs \(40,\)"):
        one.reassess(np.zeros(3))
    with pytest.raises(ValueError, match="40 migrants come to 40 individuals with 1 elites; too many"):
        one.immigrate(np.zeros((P, D)), np.zeros(P))
    with pytest.raises(ValueError, match="outside the unit cube"):
        one.immigrate(np.full((1, D), np.nan), [0.0])
    with pytest.raises(ValueError, match=r"migrants have genes of shape \(1, 2\)"):
        one.immigrate(np.zeros((1, 2)), [0.0])
    one.ask(CONTROLS)
    with pytest.raises(RuntimeError, match=r"reassess\(\) was called before tell\(\) completed"):
        one.reassess(np.zeros(P))


def test_a_guard_below_one_generation_is_refused():
    with pytest.raises(ValueError, match="stagnation_guard is 0; it must be at least 1"):
        Evolution(SPACE, Hyperparameters(), np.random.default_rng(0), stagnation_guard=0)
