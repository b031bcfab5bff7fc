"""The race: the same runs for all, one honest row for each, and a command that ends with a verdict.

What a broken race would do is done here on purpose: a contestant that overspends, an error measured from a
best that somebody has beaten, rivals that learn on the problems of the race.
"""

import dataclasses
import json
import subprocess
import sys

import numpy as np
import pyarrow as pa
import pytest
import torch

from compute.workers import SerialMapper, ThreadMapper
from conductor import racing
from conductor.ablations import Conducted
from conductor.conducting import Conducting
from conductor.contestants import Fixed, Performance, RandomControl
from conductor.curriculum import Batch, Landscapes
from conductor.lineup import REFERENCE, RIVALS, SUBJECT, Practice, chosen, lineup
from conductor.model import Conductor
from conductor.network import VARIANTS
from conductor.objective import FLOOR, Outcome
from conductor.outside import Outside, fitness_of, random_search
from conductor.race import main
from conductor.race_running import unseen_from
from conductor.race_statistics import TARGETS
from conductor.racing import GRID, SCHEMA, about, race, read_results, write_results
from conductor.sight import Outlook
from conductor.state import STATE_NAMES
from conductor.static_tuning import StaticTuningConfig
from conductor.steering import Steering
from conductor.suites import Suite, bbob, families, windows
from conductor.tasks import SPLITS, Instance, Task, TaskSampler, Window
from conductor.windows import Calibration
from configs.load import ConfigError
from experiments.runs import Run
from ga.controls import SMOOTH, GAControls
from ga.progress import STATISTIC_NAMES
from ga.space import GenomeSpace
from ga.variation import Variation

MAPPER = SerialMapper()
STATIC = Fixed.at("static", SMOOTH)
DEFAULTS = Fixed.at("defaults", GAControls())
SIZES = {"dimension": 4, "population_size": 12, "n_generations": 14}


def conductor_of(scale=0.5):
    network = VARIANTS.create("es", {"features": STATE_NAMES})
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network.head.weight.normal_(std=scale)
    return Conductor("es", network, Steering.around(SMOOTH))


def suite_of(n_instances=2, n_seeds=2, **changed):
    return families(**(SIZES | changed), n_instances=n_instances, n_seeds=n_seeds, seed=3)


def raced(contestants, suite, **how):
    return race(contestants, suite, variation=Variation(), **({"mapper": MAPPER} | how))


def column(table, name, contestant=None):
    values = np.array(table[name].to_pylist())
    return values if contestant is None else values[np.array(table["contestant"].to_pylist()) == contestant]


def same(one, other):
    """Whether two tables hold the same rows to the bit, NaN for NaN."""
    return one.schema.equals(other.schema) and all(
        np.array_equal(one[name].to_numpy(), other[name].to_numpy(), equal_nan=True)
        if pa.types.is_floating(one.schema.field(name).type)
        else one[name].equals(other[name])
        for name in one.schema.names
    )


class Told:
    """A contestant whose curve is written down: error and evaluations after each generation."""

    def __init__(self, errors, asked, name="told", champion=0.0):
        self.name, self._champion = name, champion
        self._errors = np.asarray(errors, dtype=np.float64)
        self._asked = np.asarray(asked)

    def run(self, batch, variation, mapper):
        n, g = len(batch), len(self._errors)
        errors, asked = np.tile(self._errors, (n, 1)), np.tile(self._asked, (n, 1))
        history = np.zeros((n, g, len(STATISTIC_NAMES)))
        history[:, 0, STATISTIC_NAMES.index("cached_share")] = 0.25
        history[:, 0, STATISTIC_NAMES.index("invalid_share")] = 0.5
        champions = tuple(np.full(task.dimension, self._champion) for task in batch.tasks)
        return Performance(Outcome(batch.tasks, -errors, asked, history), champions)


def told_suite(n=2, n_generations=4, population_size=8, **changed):
    tasks = tuple(Task(Instance("sphere", 3 * i), 2, population_size, n_generations, i) for i in range(n))
    batch = Batch(tasks, Outlook.unknown(n), np.full(n, changed.pop("floor", FLOOR)))
    names = tuple(f"sphere {i}" for i in range(n))
    return Suite("told", batch, names, names, (1,) * n, **changed)


def test_every_contestant_makes_every_run_with_the_same_seeds():
    suite = suite_of()
    table = raced([STATIC, DEFAULTS, Outside("chance", random_search)], suite)
    assert table.schema.equals(SCHEMA, check_metadata=False)
    assert len(table) == 3 * len(suite)
    assert list(dict.fromkeys(table["contestant"].to_pylist())) == ["static", "defaults", "chance"]
    for name in ("problem", "cluster", "instance", "seed", "budget", "dimension"):
        parts = [column(table, name, who).tolist() for who in ("static", "defaults", "chance")]
        assert parts[0] == parts[1] == parts[2]
    assert about(table)["suite"] == suite.sentence
    assert about(table)["targets"] == TARGETS.tolist()
    assert set(about(table)["seconds"]) == {"static", "defaults", "chance"}


def test_rows_say_what_the_scores_of_the_batch_say():
    suite = suite_of()
    table = raced([STATIC], suite)
    scored = suite.batch.scores(STATIC.run(suite.batch, Variation(), MAPPER).outcome)
    assert np.array_equal(column(table, "anytime"), scored.anytime)
    assert np.array_equal(column(table, "final"), scored.final)
    assert np.log10(column(table, "error_100")) == pytest.approx(scored.final)
    curves = np.array(table["curve"].to_pylist())
    assert curves.shape == (len(suite), len(GRID))
    assert (np.diff(curves, axis=1) <= 0.0).all()
    assert curves[:, -1] == pytest.approx(scored.final)
    champions = table["champion"].to_pylist()
    for task, genes, final in zip(suite.batch.tasks, champions, scored.final, strict=True):
        error = -fitness_of(suite.batch, task)(np.array([genes]))[0]
        assert np.log10(max(error, FLOOR)) == final


def test_errors_targets_and_curves_are_read_where_generations_end():
    # 40 evaluations are granted, 8 + 7 + 7 + 7 + 7 = 36 asked for.
    table = raced([Told([500.0, 90.0, 1.0, 1e-9, 1e-9], [8, 7, 7, 7, 7])], told_suite())
    row = table.to_pylist()[0]
    assert (row["budget"], row["evaluations"]) == (40, 36)
    assert (row["unique_evaluations"], row["invalid_evaluations"]) == (34, 4)
    assert row["error_10"] == 500.0  # before the first generation is complete: its own
    assert row["error_30"] == 500.0  # 12 evaluations: the second ends with the 15th
    assert row["error_100"] == FLOOR
    assert row["target_00"] == 15.0  # 100
    assert row["target_10"] == 22.0  # 1
    assert row["target_11"] == row["target_50"] == 29.0
    assert row["anytime"] == pytest.approx(
        (8 * np.log10(500.0) + 7 * np.log10(90.0) + 0.0 - 8.0 * 7 - 8.0 * 7 - 8.0 * 4) / 40
    )
    at = {share: 10.0 ** row["curve"][i] for i, share in enumerate(np.round(GRID * 40, 6))}
    for evaluations, error in at.items():
        shown = (
            500.0 if evaluations < 15 else 90.0 if evaluations < 22 else 1.0 if evaluations < 29 else FLOOR
        )
        assert error == pytest.approx(shown)


def test_a_target_that_is_never_reached_is_none():
    table = raced([Told([50.0, 3.0, 3.0, 3.0, 3.0], [8, 8, 8, 8, 8])], told_suite(floor=0.01))
    reached = [row for row in range(51) if not np.isnan(table[f"target_{row:02d}"][0].as_py())]
    assert reached == [i for i in range(51) if TARGETS[i] >= 3.0]


def test_an_overspent_budget_is_refused():
    with pytest.raises(ValueError, match="told spent 41 evaluations on a run of 40"):
        raced([Told([1.0] * 5, [9, 8, 8, 8, 8])], told_suite())


@pytest.mark.parametrize("contestants", [[], [STATIC, Fixed.at("static", GAControls())]])
def test_a_race_of_nobody_or_of_namesakes_is_refused(contestants):
    with pytest.raises(ValueError, match="each its own name"):
        raced(contestants, suite_of())


def test_the_table_does_not_depend_on_threads():
    suite, field = suite_of(3, 2), [STATIC, RandomControl("random"), Conducted("conductor", conductor_of())]
    serial = raced(field, suite)
    with ThreadMapper(2) as threads:
        assert same(serial, raced(field, suite, mapper=threads))
    assert not same(serial, raced(field, suite_of(3, 2, n_generations=13)))


def test_a_long_race_is_run_in_pieces_and_its_table_is_the_same(monkeypatch):
    # Networks left out: last bits of their products depend on how many runs they are asked about at once.
    suite, field, told = suite_of(3, 2), [STATIC, RandomControl("random")], []
    whole = raced(field, suite)
    monkeypatch.setattr(racing, "_EVALUATIONS_AT_ONCE", 700)
    cut = raced(field, suite, told=lambda *now: told.append(now))
    assert same(whole, cut)
    assert len(told) == 2 * 5
    assert told[4] == ("static", 18, 18)


def test_runs_of_different_lengths_race_together():
    short, long = suite_of(1, 1), suite_of(1, 1, n_generations=20)
    both = Suite(
        "both",
        Batch.joined([short.batch, long.batch]),
        tuple(f"{name} {i}" for i, name in enumerate((*short.problems, *long.problems))),
        (*short.clusters, *long.clusters),
        (*short.instances, *long.instances),
    )
    joined = raced([STATIC], both)
    for name in ("anytime", "final", "evaluations", "error_30"):
        apart = [column(raced([STATIC], one), name) for one in (short, long)]
        assert column(joined, name) == pytest.approx(np.concatenate(apart), rel=1e-12)


def test_when_somebody_beats_the_best_known_all_errors_are_measured_from_there():
    def rebase(problem, errors, lowest):
        return errors - lowest

    field = [Told([1.0, 0.5], [8, 8], "slow"), Told([1.0, -0.3], [8, 8], "quick")]
    fair = raced(field, told_suite(n_generations=1, floor=0.01, rebase=rebase))
    assert 10 ** column(fair, "final", "slow") == pytest.approx([0.8, 0.8])
    assert 10 ** column(fair, "final", "quick") == pytest.approx([0.01, 0.01])
    unfair = raced(field, told_suite(n_generations=1, floor=0.01))
    assert 10 ** column(unfair, "final", "slow") == pytest.approx([0.5, 0.5])
    alone = raced(field[:1], told_suite(n_generations=1, floor=0.01, rebase=rebase))
    assert 10 ** column(alone, "final", "slow") == pytest.approx([0.5, 0.5])


def test_results_are_read_back_as_they_were_written(tmp_path):
    table = raced([STATIC], suite_of())
    run = Run.open(tmp_path, "race", "es-families")
    write_results(run, table)
    back = read_results(run)
    assert same(back, table)
    assert about(back) == about(table)


# Suites.


def test_bbob_has_its_optimum_where_it_is_published_and_a_cluster_for_each_function():
    ioh = pytest.importorskip("ioh")
    suite = bbob(dimension=3, n_instances=2, n_seeds=2, population_size=8, n_generations=2)
    assert len(suite) == 24 * 2 * 2
    assert len(set(suite.clusters)) == 24
    assert len(set(suite.problems)) == 48
    assert len({task.seed for task in suite.batch.tasks}) == 96
    for b in (0, 41, 95):
        task = suite.batch.tasks[b]
        function, instance = int(suite.clusters[b][1:]), suite.instances[b]
        published = ioh.get_problem(function, instance, 3, ioh.ProblemClass.BBOB)
        genes = (np.array(published.optimum.x) + 5.0) / 10.0
        fitness = fitness_of(suite.batch, task)
        assert fitness(genes[None])[0] == pytest.approx(0.0, abs=1e-7)
        there = np.array([[0.2, 0.4, 0.9]])
        error = published(list(there[0] * 10.0 - 5.0)) - published.optimum.y
        assert -fitness(there)[0] == pytest.approx(error, rel=1e-12)


@pytest.mark.parametrize("suite", [suite_of(), suite_of(1, 5)], ids=("instances", "seeds"))
def test_no_run_of_a_race_draws_what_training_draws(suite):
    seeds = [task.seed for task in suite.batch.tasks]
    assert len(set(seeds)) == len(seeds)
    assert {seed % len(SPLITS) for seed in seeds} == {list(SPLITS).index("test")}
    assert set(suite.clusters) == set(SPLITS["test"])
    for name in set(suite.clusters):
        own = [i for i, cluster in enumerate(suite.clusters) if cluster == name]
        assert len({suite.batch.tasks[i].problem for i in own}) == len({suite.instances[i] for i in own})
    again = suite_of(len(set(suite.instances)), len(seeds) // len(set(suite.problems)))
    assert again.batch.tasks == suite.batch.tasks


def test_a_suite_needs_a_cluster_for_every_run():
    suite = suite_of()
    with pytest.raises(ValueError, match="needs one for each of its 12 runs"):
        dataclasses.replace(suite, clusters=suite.clusters[1:])


class Stretches:
    """Two stretches of two markets, three specialists each: what a source of windows answers."""

    def __init__(self):
        day = 86_400 * 10**9
        self.windows = [
            Window(symbol, 10 * i * day, (10 * i + 10) * day, name)
            for symbol in ("A", "B")
            for i in range(2)
            for name in ("ranging", "volatile")
        ]

    def __len__(self):
        return len(self.windows)

    def batch(self, number, n):
        chosen = np.random.default_rng(number).permutation(len(self.windows))[:n]
        return self.batch_of([self.windows[i] for i in chosen], range(n))

    def batch_of(self, windows, seeds):
        tasks = tuple(Task(w, 2, 8, 4, seed) for w, seed in zip(windows, seeds, strict=True))
        space = GenomeSpace(("a", "b"), np.zeros(2), np.ones(2), ("real",) * 2)

        def opening(task):
            known = self.calibrated([task.problem])[0]
            # Fitness is at most 3, and 2 is the best known.
            return space, lambda genes: -known.regret(3.0 - 8.0 * ((genes - 0.3) ** 2).sum(axis=1))

        outlook = Outlook.unknown(len(tasks))
        regime = np.array([0 if w.specialist == "ranging" else 2 for w in windows])
        outlook = dataclasses.replace(outlook, regime=regime)
        return Batch(tasks, outlook, np.full(len(tasks), 0.01), opening)

    def calibrated(self, windows):
        return tuple(Calibration(window, 1.0, 2.0) for window in windows)

    def value(self, window, genes):
        return genes.sum(axis=1) + (100.0 if window.start else 0.0)

    def next_window(self, window):
        if window.start:
            return None
        return dataclasses.replace(window, start=window.stop, stop=2 * window.stop)


def test_windows_are_clustered_by_stretch_and_their_champions_valued_there_and_after():
    suite = windows(Stretches(), n_windows=99, n_seeds=3, seed=1)
    assert len(suite) == 8 * 3
    assert len(set(suite.clusters)) == 4
    assert suite.problems[0] == "A 1970-01-01 to 1970-01-11 ranging"
    assert suite.clusters[0] == "A 1970-01-01 to 1970-01-11"
    table = raced([STATIC, Outside("chance", random_search)], suite)
    genes = np.array(table["champion"].to_pylist())
    late = np.array(["1970-01-11 to" in name for name in table["cluster"].to_pylist()])
    assert column(table, "in_sample") == pytest.approx(genes.sum(axis=1) + 100.0 * late)
    after = column(table, "out_of_sample")
    assert np.isnan(after[late]).all()
    assert after[~late] == pytest.approx(genes[~late].sum(axis=1) + 100.0)
    assert set(column(table, "regime")) == {0, 2}


def test_windows_that_are_beaten_are_calibrated_anew_for_everybody():
    table = raced([STATIC, Outside("chance", random_search)], windows(Stretches(), n_windows=4, n_seeds=2))
    errors = 10.0 ** column(table, "final")
    fitness = 3.0 - 8.0 * ((np.array(table["champion"].to_pylist()) - 0.3) ** 2).sum(axis=1)
    problems = column(table, "problem")
    assert fitness.max() > 2.0  # better than what was known
    for problem in set(problems):
        mine = problems == problem
        best = fitness[mine].max()
        assert errors[mine] == pytest.approx(np.maximum((best - fitness[mine]) / (best - 1.0), 0.01))


def test_fewer_windows_may_be_asked_for():
    suite = windows(Stretches(), n_windows=3, n_seeds=2)
    assert len(set(suite.problems)) == 3
    assert len(suite) == 6


# Lineup and command.


def practice_of(conductor=None, **how):
    source = Landscapes(TaskSampler("train", 3, dimensions=(4,), sizes=((12, 14),)))
    config = StaticTuningConfig(iterations=1, candidates=4, tasks=4)
    return Practice(conductor or conductor_of(), source, config, 8, 1, MAPPER, **how)


def test_every_rival_can_race_and_reference_and_subject_come_first():
    places = {name: [0.4, 0.6] for name in GAControls().to_dict()}
    practice = practice_of(dataclasses.replace(conductor_of(), story={"schedule": places}))
    field = lineup(chosen([]), practice, 5)
    assert [one.name for one in field] == [REFERENCE, SUBJECT, *RIVALS]
    table = raced(field, suite_of(1, 1))
    assert np.isfinite(column(table, "final")).all()
    assert np.isfinite(column(table, "anytime")).all()
    finals = {one.name: tuple(column(table, "final", one.name)) for one in field}
    # No market on landscapes: that one sees what the conductor sees. All others are different contestants.
    assert finals.pop("without market features") == finals[SUBJECT]
    assert len(set(finals.values())) == len(finals)
    assert set(practice.learned()) == {
        "tuned schedule",
        "frozen mean action",
        "frozen mean schedule",
        "logit spread",
    }


def test_rivals_learn_only_what_they_are_asked_for_and_never_on_problems_of_the_race():
    seen, practice = [], practice_of()

    class Watched(Landscapes):
        def batch(self, number, n):
            seen.append(super().batch(number, n))
            return seen[-1]

    practice.source = Watched(practice.source.sampler)
    lineup(chosen(["CMA-ES", "one-fifth rule"]), practice, 5)
    assert not seen
    lineup(chosen([]), practice, 5)
    learned_on = {task.problem for batch in seen for task in batch.tasks}
    assert learned_on
    assert not learned_on & {task.problem for task in suite_of().batch.tasks}
    assert {problem.seed % len(SPLITS) for problem in learned_on} == {list(SPLITS).index("train")}


def test_windows_begin_after_all_that_any_conductor_has_seen():
    fresh, early, late = (dataclasses.replace(conductor_of(), fitted_until=until) for until in (0, 500, 900))
    assert unseen_from(1000, [fresh], 200) == 1000
    assert unseen_from(1000, [fresh, early], 200) == 1000
    assert unseen_from(1000, [early, late], 200) == 1100
    assert unseen_from(1000, [late, early], 200) == 1100


def test_habits_and_schedule_are_learned_on_batches_that_no_step_of_training_asks_for():
    numbers, practice = [], practice_of()

    class Watched(Landscapes):
        def batch(self, number, n):
            numbers.append(number)
            return super().batch(number, n)

    practice.source = Watched(practice.source.sampler)
    practice.schedule()
    practice.habits()
    assert len(set(numbers)) == len(numbers) == 3
    assert min(numbers) > 3_000_000


def test_a_schedule_that_a_conductor_carries_is_not_tuned_again():
    places = {name: [0.25, 0.75] for name in GAControls().to_dict()}
    carried = dataclasses.replace(conductor_of(), story={"schedule": places})
    assert practice_of(carried).schedule().to_dict() == places


def test_rivals_are_named_in_any_spelling():
    assert chosen(["cma_es", "One-Fifth Rule", "tuned static"]) == ("one-fifth rule", "CMA-ES")
    assert chosen([]) == tuple(RIVALS)
    with pytest.raises(ConfigError, match="no contestant named 'tuned shedule'"):
        chosen(["tuned shedule"])


def test_conductors_see_the_market_through_their_own_scaler():
    suite = suite_of(1, 1)
    other = dataclasses.replace(
        suite.batch.outlook, market=np.full((3, 13), 0.5), known=np.ones((3, 13), bool)
    )
    one = conductor_of()
    own = Conducted("own", one, outlook=lambda tasks: other)
    policy = Conducting(one.network, one.steering, other)
    environment = suite.batch.environment(Variation(), mapper=MAPPER)
    expected = environment.run(policy).best
    assert np.array_equal(own.run(suite.batch, Variation(), MAPPER).outcome.best, expected)
    theirs = Conducted("theirs", one).run(suite.batch, Variation(), MAPPER).outcome.best
    assert not np.array_equal(theirs, expected)


def command(*arguments):
    with pytest.raises(SystemExit) as ended:
        main([str(argument) for argument in arguments])
    return ended.value.code


def test_the_command_races_reports_and_keeps_the_table(tmp_path, capsys):
    first = conductor_of().save(tmp_path / "one")
    second = conductor_of(0.1).save(tmp_path / "two")
    code = command(
        *("--conductor", first, "--conductor", second, "--suite", "families", "--instances", 2, "--seeds", 2),
        *("--dimension", 4, "--population", 12, "--generations", 14, "--contestants", "frozen mean schedule"),
        *("--set", "practice=8", "--runs", tmp_path / "runs", "--threads", 1, "--json"),
    )
    printed = capsys.readouterr()
    assert code == 0, printed.err
    assert json.loads(printed.out)["subject"] == SUBJECT
    (folder,) = (tmp_path / "runs").iterdir()
    assert folder.name.startswith("race-es-families_")
    table = read_results(Run(folder.name, folder))
    names = [REFERENCE, SUBJECT, "conductor two", "frozen mean schedule"]
    assert list(dict.fromkeys(table["contestant"].to_pylist())) == names
    assert len(table) == 4 * 3 * 2 * 2
    assert json.loads((folder / "rivals.json").read_text()).keys() >= {"frozen mean schedule"}
    assert set(json.loads((folder / "manifest.json").read_text())["seconds"]) == set(names)
    for name in ("report.md", "report.json", "race.html", "config.yaml"):
        assert (folder / name).stat().st_size > 0


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ((), "no conductor was named"),
        (("--conductor", "nobody"), "no conductor named 'nobody'"),
        (("--conductor", "HERE", "--contestants", "nobody"), "no contestant named 'nobody'"),
        (("--conductor", "HERE", "--suite", "nowhere"), "suite is 'nowhere'"),
        (("--conductor", "HERE", "--conductor", "HERE"), "each may be named once"),
        (("--conductor", "HERE", "--suite", "windows", "--bars", "nowhere.csv"), "nowhere.csv"),
    ],
)
def test_a_mistake_is_one_sentence_and_leaves_no_folder(tmp_path, capsys, arguments, sentence):
    here = conductor_of().save(tmp_path / "one")
    told = [here if argument == "HERE" else argument for argument in arguments]
    assert command(*told, "--runs", tmp_path / "runs") == 2
    assert sentence in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "runs").exists()


def test_help_answers_without_pytorch(root):
    code = (
        "import sys; from conductor.race import main\n"
        "try: main(['--help'])\n"
        "except SystemExit as end: assert not end.code\n"
        "assert not {'torch', 'numpy', 'numba'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "--conductor" in done.stdout
