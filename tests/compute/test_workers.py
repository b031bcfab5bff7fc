"""Every mapper passes the same tests."""

import threading
import time

import pytest

from compute.workers import MAPPER_NAMES, SerialMapper, ThreadMapper, mapper, n_cores

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
    for name in MAPPER_NAMES:
        with mapper(name, 2) as workers:
            assert workers.map(abs, [-1]) == [1]
    with mapper("threads") as workers:
        assert workers.n_workers == n_cores()


def test_wrong_settings_are_refused_in_one_sentence():
    with pytest.raises(ValueError, match="no mapper named 'thread'; known: auto, serial, threads"):
        mapper("thread")
    with pytest.raises(ValueError, match="number of workers is 0; it must be at least 1"):
        mapper("threads", 0)
    with pytest.raises(ValueError, match="number of workers is -1"):
        ThreadMapper(-1)
