"""Shaken champions: as if every strategy were asked again from the first bar, without keeping them all."""

import numpy as np
import pytest

from compute.seeds import stream
from compute.workers import mapper
from ensemble import phases, shaking
from ensemble.informed import informed, wanted
from ensemble.robustness import perturbed
from ensemble.shaking import Shaken
from ensemble.signals import SignalTable
from ensemble.sources import SpecialistSource
from tests.ensemble.test_folds import INFORMED, job_of, settings

SHAKEN = ("robustness.sigmas=[0.05,0.3]", "robustness.draws=2")


def made(folder, *more):
    job = job_of(settings(*SHAKEN, "specialists.generalist=false", "rivals=[]", *more), folder)
    for number in range(len(job.splits)):
        job(number)
    return job


@pytest.fixture(scope="module")
def job(tmp_path_factory):
    return made(tmp_path_factory.mktemp("shaking"))


@pytest.fixture(scope="module")
def rows(job):
    return slice(job.splits[0].test.start, job.splits[-1].test.stop)


def slowly(job, rows, seed, sigma, draw):
    """Exposure of one draw with every champion and every blender asked about all bars from the first on."""
    out = np.zeros(rows.stop)
    for number, split in enumerate(job.splits):
        test, stop = split.test, split.test.stop
        bars, core, strategy = job.bars[:stop], job.core[:stop], job.strategy_of(number)
        signals, regimes, labels = strategy.hear(bars, core, None if job.wide is None else job.wide[:stop])
        values, rng = signals.values.copy(), stream(seed, "shaken", number, draw)
        for j, source in enumerate(strategy.sources):
            if sigma and isinstance(source, SpecialistSource):
                other = source.with_specialist(perturbed(source.specialist, sigma, rng))
                columns = wanted(source.columns)
                table = informed(core, columns, {name: signals.column(name) for name in signals.names})
                said = other.update(bars, table, regimes, labels)
                values[:, j] = np.where(bars.time > source.fitted_until, said, np.nan)
        table = SignalTable(signals.time, values, signals.names)
        out[test] = strategy.fresh().blend(bars, core, table, regimes, labels).exposure[test]
    return out


def test_a_draw_is_to_the_bit_what_strategies_asked_from_the_first_bar_decide(job, rows):
    shaken = Shaken(job, rows, 7)
    drawn = [(0.0, 0), (0.05, 0), (0.05, 1), (0.3, 0), (0.3, 1)]
    for one in drawn:
        np.testing.assert_array_equal(shaken(*one).values[:, 0], slowly(job, rows, 7, *one))
    together = {shaken(*one).values.tobytes() for one in drawn}
    assert len(together) == len(drawn)  # they are shaken indeed, each in its own way


@pytest.mark.parametrize(
    "more",
    [
        ("specialists.awake=probability", "blender.name=online", "folds.latest=1"),
        ("specialists.regimes=[all,volatile]", "blender.name=rank", "folds.latest=1"),
        (INFORMED, "folds.latest=1"),
    ],
)
def test_it_is_so_with_blenders_that_remember_and_champions_that_wake_or_read_otherwise(more, tmp_path):
    job = made(tmp_path, *more)
    rows = slice(job.splits[0].test.start, job.splits[-1].test.stop)
    shaken = Shaken(job, rows, 7)
    np.testing.assert_array_equal(shaken(0.3, 1).values[:, 0], slowly(job, rows, 7, 0.3, 1))


def test_a_champion_needs_no_past_before_its_last_sleep_and_does_need_its_stay(job):
    stop = job.splits[1].test.stop
    bars, core, strategy = job.bars[:stop], job.core[:stop], job.strategy_of(1)
    _, regimes, labels = strategy.hear(bars, core, job.wide[:stop])
    unlike = 0
    for source in (one for one in strategy.sources if isinstance(one, SpecialistSource)):
        whole = source.fresh().update(bars, core, regimes, labels)
        for row in range(2000, stop, 397):
            begin = shaking._last_asleep(source, regimes, labels, row)
            assert begin < row
            said = shaking._answer(source.fresh(), bars, core, regimes, labels, begin)
            np.testing.assert_array_equal(said[row - begin :], whole[row:])
            # Negative control: begun in the middle of a stay, it has forgotten what it held.
            said = shaking._answer(source.fresh(), bars, core, regimes, labels, row)
            unlike += not np.array_equal(said, whole[row:])
    assert unlike > 1


def test_not_branching_off_would_be_noticed(job, rows, monkeypatch):
    # Negative control: draws that go on where the one before ended.
    monkeypatch.setattr("ensemble.strategy.copy.deepcopy", lambda part: part)
    monkeypatch.setattr("ensemble.strategy.Strategy._follow", lambda self, way, new, last: None)
    shaken = Shaken(job, rows, 7)
    assert not np.array_equal(shaken(0.3, 1).values[:, 0], slowly(job, rows, 7, 0.3, 1))


def test_threads_shake_the_same(job, rows):
    with mapper("threads", 2) as workers:
        threaded = Shaken(job, rows, 7, workers)
    alone = Shaken(job, rows, 7)
    for one in ((0.0, 0), (0.3, 1)):
        assert threaded(*one).values.tobytes() == alone(*one).values.tobytes()


def test_no_strategy_is_kept_once_its_draws_are_decided(job, rows):
    shaken = Shaken(job, rows, 7)
    kept = vars(shaken)
    n_draws = 5
    assert shaken._exposure.nbytes == n_draws * (rows.stop - rows.start) * 8
    assert set(kept) == {"rows", "_time", "_place", "_exposure"}


def test_a_forecaster_that_has_answered_keeps_a_window_and_not_the_history(job):
    strategy = job.strategy_of(1)
    stop = job.splits[1].test.stop
    strategy.hear(job.bars[:stop], job.core[:stop], job.wide[:stop])
    for source in strategy.sources:
        if isinstance(source, SpecialistSource):
            continue
        whole = source._tail.values
        while whole.base is not None:
            whole = whole.base
        assert len(whole) == max(source.fitted.forecaster.lookback - 1, 1)


def test_a_phase_tells_its_seconds_and_the_peak_of_memory(job):
    with phases.phase(job.run, "evidence"):
        pass
    last = (job.run.folder / "log.txt").read_text().splitlines()[-1]
    assert "evidence: 0.0 s" in last
    if phases.peak_bytes() is not None:
        assert " GB at most so far" in last
        assert 1e7 < phases.peak_bytes() < 1e12


def test_a_phase_that_fails_is_not_told_as_done(job):
    before = (job.run.folder / "log.txt").read_text() if (job.run.folder / "log.txt").exists() else ""
    with pytest.raises(ValueError, match="stopped"), phases.phase(job.run, "folds"):
        raise ValueError("stopped")
    after = (job.run.folder / "log.txt").read_text() if (job.run.folder / "log.txt").exists() else ""
    assert after == before
