"""Every mapper passes the same tests; the one that runs on Ray has more in test_ray.py."""

import sys
import threading
import time
import types

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from compute.messages import FEWEST_GENOMES, Worker, grouped
from compute.workers import (
    MAPPER_NAMES,
    ClusterError,
    SerialMapper,
    ThreadMapper,
    WorkersError,
    mapper,
    n_cores,
)
from configs.command import command

MAKERS = [
    pytest.param(SerialMapper, id="serial"),
    pytest.param(lambda: ThreadMapper(1), id="one thread"),
    pytest.param(lambda: ThreadMapper(4), id="four threads"),
    pytest.param(ThreadMapper, id="threads per core"),
    pytest.param(mapper, id="auto"),
]


class OwnError(Exception):
    pass


@pytest.mark.parametrize("make", MAKERS)
def test_results_keep_the_order_of_the_items(make):
    def slow_first(i):
        time.sleep(0.01 if i == 0 else 0.0)
        return i * i

    with make() as workers:
        assert workers.map(slow_first, range(20)) == [i * i for i in range(20)]


def test_order_check_catches_answers_as_they_complete():
    from concurrent.futures import ThreadPoolExecutor, as_completed

    def slow_first(i):
        time.sleep(0.05 if i == 0 else 0.0)
        return i * i

    with ThreadPoolExecutor(4) as pool:
        answers = [f.result() for f in as_completed([pool.submit(slow_first, i) for i in range(20)])]
    assert answers != [i * i for i in range(20)]


@pytest.mark.parametrize("make", MAKERS)
def test_an_error_in_a_worker_arrives_unchanged(make):
    error = OwnError("genome 3 is odd")

    def fail(i):
        if i == 3:
            raise error
        return i

    with make() as workers:
        with pytest.raises(OwnError) as caught:
            workers.map(fail, range(8))
        assert caught.value is error
        assert workers.map(lambda i: i, range(3)) == [0, 1, 2]  # and the mapper is still good


@pytest.mark.parametrize("make", MAKERS)
def test_the_first_failing_item_decides_which_error_is_raised(make):
    def fail(i):
        time.sleep(0.02 if i == 1 else 0.0)
        if i in (1, 5):
            raise OwnError(i)

    with make() as workers, pytest.raises(OwnError) as caught:
        workers.map(fail, range(8))
    assert caught.value.args == (1,)


@pytest.mark.parametrize("make", MAKERS)
def test_no_items_give_an_empty_list(make):
    with make() as workers:
        assert workers.map(abs, []) == []


@pytest.mark.parametrize("make", MAKERS)
def test_a_generator_of_items_is_accepted(make):
    with make() as workers:
        assert workers.map(abs, (-i for i in range(3))) == [0, 1, 2]


@pytest.mark.parametrize("make", MAKERS)
def test_a_closed_mapper_maps_no_more(make):
    workers = make()
    with workers:
        pass
    workers.close()  # harmless
    with pytest.raises(RuntimeError, match="closed mapper"):
        workers.map(abs, [1])


def test_threads_work_side_by_side():
    barrier = threading.Barrier(3, timeout=5)

    def meet(_):
        barrier.wait()  # breaks unless three items run at once
        return threading.current_thread().name

    with ThreadMapper(3) as workers:
        assert len(set(workers.map(meet, range(3)))) == 3


def test_serial_works_in_the_callers_thread():
    with SerialMapper() as workers:
        assert workers.map(lambda _: threading.current_thread(), [0]) == [threading.current_thread()]


def test_auto_takes_threads_only_for_more_than_one_worker():
    with mapper("auto", 1) as one, mapper("auto", 2) as two:
        assert type(one) is SerialMapper
        assert type(two) is ThreadMapper
        assert two.n_workers == 2


def test_every_listed_name_makes_a_mapper():
    assert set(MAPPER_NAMES) == {"auto", "serial", "threads", "ray"}
    for name in ("auto", "serial", "threads"):
        with mapper(name, 2) as workers:
            assert workers.map(abs, [-1]) == [1]
    with mapper("threads") as workers:
        assert workers.n_workers == n_cores()


def test_wrong_settings_are_refused_in_one_sentence():
    with pytest.raises(ValueError, match="no mapper named 'thread'; known: auto, serial, threads, ray"):
        mapper("thread")
    with pytest.raises(ValueError, match="number of workers is 0; it must be at least 1"):
        mapper("threads", 0)
    with pytest.raises(ValueError, match="number of workers is -1"):
        ThreadMapper(-1)


def test_only_ray_takes_an_address_or_serves_a_dashboard():
    with pytest.raises(WorkersError, match="a dashboard needs workers 'ray', not 'threads'"):
        mapper("threads", dashboard=True)
    with pytest.raises(WorkersError, match="a cluster's address needs workers 'ray', not 'auto'"):
        mapper("auto", address="host:6379")


@pytest.mark.parametrize("make", MAKERS)
def test_gauges_go_nowhere_when_nobody_can_watch(make):
    with make() as workers:
        assert workers.publish({"generation": 1.0}, run="run") is None
        assert (workers.dashboard_url, workers.metrics_url, workers.dashboard_hint) == (None, None, None)


def test_a_missing_ray_is_named_with_the_extra_that_brings_it(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "ray", None)  # what import finds when a package is not there
    monkeypatch.setenv("RAY_AUTH_MODE", "token")

    def ask():
        with mapper("ray", 2):
            pass

    with pytest.raises(SystemExit) as left:
        command(ask)([])
    assert left.value.code == 2
    assert capsys.readouterr().err == (
        "error: workers 'ray' need the package ray; pip install 'regime-conductor[cluster]'\n"
    )


@pytest.mark.parametrize(("version", "old"), [("2.51.1", True), ("2.9.0", True), ("2.52.0", False)])
def test_an_old_ray_is_refused_in_one_sentence(monkeypatch, version, old):
    fake = types.ModuleType("ray")
    fake.__version__ = version
    fake.util = types.ModuleType("ray.util")
    for name in ("ray", "ray.util", "ray.util.client", "ray.util.metrics"):
        monkeypatch.setitem(sys.modules, name, fake if name == "ray" else types.ModuleType(name))
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    with pytest.raises(WorkersError if old else AttributeError) as caught:  # an empty module has no init()
        mapper("ray")
    if old:
        assert str(caught.value).startswith(f"Ray {version} is older than 2.52,")
        assert str(caught.value).endswith("pip install 'regime-conductor[cluster]'")


def test_a_broken_cluster_ends_a_command_with_one_sentence_and_status_1(capsys):
    def work():
        raise ClusterError("Ray's process raylet has died; the run can be resumed")

    with pytest.raises(SystemExit) as left:
        command(work)([])
    assert left.value.code == 1
    assert capsys.readouterr().err == "error: Ray's process raylet has died; the run can be resumed\n"


def genomes_of(items, groups):
    return [sum(len(item) for item in items[group]) for group in groups]


def check_messages(items, groups, n_workers):
    """Hold the law of messages: everything once and in order, none too small, enough to share out."""
    assert [i for group in groups for i in range(len(items))[group]] == list(range(len(items)))
    genomes = genomes_of(items, groups)
    total = sum(genomes)
    assert min(genomes) >= min(FEWEST_GENOMES, total)
    largest = max((len(item) for item in items), default=0)
    if largest == 1 and total >= FEWEST_GENOMES * n_workers:
        assert len(groups) >= n_workers


@given(st.lists(st.integers(1, 60), min_size=1, max_size=80), st.integers(1, 8))
def test_a_message_holds_enough_genomes_and_keeps_their_order(sizes, n_workers):
    items = [np.empty((size, 3)) for size in sizes]
    check_messages(items, grouped(items, n_workers), n_workers)


def test_the_law_of_messages_catches_one_genome_per_message_and_a_lost_one():
    items = [np.empty((1, 3))] * 60
    one_each = [slice(i, i + 1) for i in range(60)]
    with pytest.raises(AssertionError):
        check_messages(items, one_each, 2)
    with pytest.raises(AssertionError):
        check_messages(items, [slice(0, 30), slice(31, 60)], 2)
    with pytest.raises(AssertionError):
        check_messages(items, [slice(0, 60)], 2)


def test_what_is_no_array_travels_alone_since_it_may_be_work_for_minutes():
    assert grouped(["a", "b", "c"], 2) == [slice(0, 1), slice(1, 2), slice(2, 3)]
    mixed = [np.empty((1, 2)), np.empty((1, 2)), "a", np.empty((1, 2))]
    assert grouped(mixed, 2) == [slice(0, 2), slice(2, 3), slice(3, 4)]


def test_a_worker_sends_an_error_that_cannot_travel_by_its_name(monkeypatch):
    import pickle

    # This process is no worker's own: it keeps its threads.
    monkeypatch.setattr("compute.messages._one_thread", lambda: None)

    class RudeError(Exception):  # a class of a function cannot be pickled
        pass

    def fail(item):
        raise RudeError("genome 3 is odd")

    results, error, _ = pickle.loads(Worker(pickle.dumps, pickle.loads).run(1, fail, pickle.dumps([3])))
    assert results == []
    assert type(error) is RuntimeError
    assert "RudeError: genome 3 is odd" in str(error)


def test_quick_work_is_cut_into_fewer_messages_and_slow_work_is_shared_out():
    items = [np.empty((32, 3))] * 16
    assert len(grouped(items, 2)) == 8  # nothing is known yet
    assert len(grouped(items, 2, pace=1e-5)) == 2  # 3 ms for each worker
    assert len(grouped(items, 2, pace=1e-3)) == 4  # a quarter of a second
    assert len(grouped(items, 2, pace=1.0)) == 8
