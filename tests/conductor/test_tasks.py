"""Tasks and their streams: the splits never meet, and a batch is the same for everybody."""

import dataclasses
import re
from collections import Counter

import pytest

from conductor.landscapes import FAMILIES
from conductor.tasks import SPLITS, Instance, Task, TaskSampler, Window

TASK = Task(Instance("sphere", 3), 10, 40, 60, 7)


def drawn(split, seed=0, **settings):
    sampler = TaskSampler(split, seed, **settings)
    return [task for number in range(20) for task in sampler.batch(number, 24, 2)]


def overlap(one, other):
    """Instances, and random streams, that two lists of tasks share."""
    return (
        {task.problem for task in one} & {task.problem for task in other},
        {task.seed for task in one} & {task.seed for task in other},
    )


def test_every_family_belongs_to_exactly_one_split():
    assert Counter(family for families in SPLITS.values() for family in families) == Counter(FAMILIES)


def test_splits_share_no_family_no_instance_and_no_random_stream():
    batches = {split: drawn(split) for split in SPLITS}
    for split, tasks in batches.items():
        assert {task.problem.family for task in tasks} == set(SPLITS[split])
        for other in SPLITS:
            if other != split:
                assert overlap(tasks, batches[other]) == (set(), set())


def test_splits_stay_apart_on_the_same_families():
    one, other = (drawn(split, families=("sphere",)) for split in ("train", "validation"))
    assert overlap(one, other) == (set(), set())
    assert all(task.seed % 3 == 0 and task.problem.seed % 3 == 0 for task in one)
    assert all(task.seed % 3 == 1 and task.problem.seed % 3 == 1 for task in other)


def test_an_overlap_is_seen():
    assert all(overlap(drawn("train"), drawn("train")))


def test_a_batch_is_the_same_for_everybody_and_the_next_is_another():
    assert TaskSampler("train", 4).batch(3, 24, 2) == TaskSampler("train", 4).batch(3, 24, 2)
    sampler = TaskSampler("train", 4)
    sampler.batch(0, 24)  # what was drawn before does not matter
    assert sampler.batch(3, 24, 2) == TaskSampler("train", 4).batch(3, 24, 2)
    assert overlap(sampler.batch(3, 24), sampler.batch(4, 24)) == (set(), set())
    assert overlap(sampler.batch(3, 24), TaskSampler("train", 5).batch(3, 24)) == (set(), set())


def test_repeats_share_the_instance_and_differ_in_their_stream():
    tasks = TaskSampler("test").batch(0, 5, 3)
    assert len(tasks) == 15
    for i in range(0, 15, 3):
        assert len({(task.problem, task.dimension, task.population_size) for task in tasks[i : i + 3]}) == 1
        assert len({task.seed for task in tasks[i : i + 3]}) == 3


def test_families_take_turns_and_sizes_are_those_asked_for():
    sizes = ((40, 60), (16, 100))
    tasks = TaskSampler("train", dimensions=(5, 20), sizes=sizes).batch(0, len(SPLITS["train"]) * 20)
    assert set(Counter(task.problem.family for task in tasks).values()) == {20}
    assert {task.dimension for task in tasks} == {5, 20}
    assert {(task.population_size, task.n_generations) for task in tasks} == set(sizes)


def test_a_task_knows_its_landscape_its_budget_and_its_settings():
    assert (TASK.landscape().family, TASK.landscape().seed) == ("sphere", 3)
    assert TASK.budget == 2440
    settings = TASK.hyperparameters
    assert (settings.population_size, settings.n_generations, settings.patience) == (40, 60, 0)
    with pytest.raises(dataclasses.FrozenInstanceError):
        TASK.seed = 1
    assert len({TASK, dataclasses.replace(TASK), dataclasses.replace(TASK, seed=8)}) == 2


def test_a_window_has_no_landscape():
    window = dataclasses.replace(TASK, problem=Window("BTC/USDT", 0, 3600, "trend"))
    with pytest.raises(TypeError, match="market window of BTC/USDT; it has no landscape"):
        window.landscape()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Instance("cone", 0), "landscape family is 'cone'; known: sphere, "),
        (lambda: Instance("sphere", -1), "seed of sphere is -1; it must not be negative"),
        (lambda: Window("BTC/USDT", 5, 5, "trend"), "the window of BTC/USDT is from 5 to 5; it must end"),
        (lambda: dataclasses.replace(TASK, dimension=1), "dimension of a task is 1; it must be from 2 to 64"),
        (lambda: dataclasses.replace(TASK, population_size=7), "population_size of a task is 7; it must be"),
        (lambda: dataclasses.replace(TASK, n_generations=0), "n_generations of a task is 0; it must be from"),
        (lambda: dataclasses.replace(TASK, seed=-1), "seed of a task is -1; it must be from 0 to"),
        (lambda: TaskSampler("practice"), "split of tasks is 'practice'; known: train, validation, test"),
        (lambda: TaskSampler("test", -1), "seed of the test tasks is -1; it must not be negative"),
        (lambda: TaskSampler("test", sizes=()), "sizes of the test tasks are empty; at least one is needed"),
        (lambda: TaskSampler("test", families=("cone",)), "families of the test tasks name cone; known:"),
        (lambda: TaskSampler("test").batch(-1, 5), "batch -1 of 5 instances and 1 repeats was asked for; "),
        (lambda: TaskSampler("test").batch(0, 0), "batch 0 of 0 instances and 1 repeats was asked for; "),
    ],
)
def test_what_cannot_be_is_refused_in_one_sentence(make, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        make()
