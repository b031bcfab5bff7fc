import json
from dataclasses import replace

import numpy as np
import pytest

from backtest.costs import Costs
from compute.seeds import stream
from compute.workers import SerialMapper, ThreadMapper
from configs.load import ConfigError
from experiments.ledger import Ledger
from experiments.runs import Run
from ga.space import Genome
from specialists.archive_report import open_archive, save_archive, summary
from specialists.archives import ArchiveConfig, ArchiveSearch, evolve_archive
from specialists.fitness import FitnessConfig
from specialists.niches import AXES, COLUMNS, NicheFitness
from specialists.specialist import Specialist
from specialists.training import SpecialistSearch, judge, open_test, prepare
from specialists.watching import TrialBook
from tests.specialists.ground import small_config, small_ground

pytest.importorskip("ribs")

STEPS = ArchiveConfig(emitters=("gaussian", "line"))  # CMA-ES compiles for seconds


def evolved(config=None, workers=None, on_generation=None, ground=None):
    return evolve_archive(
        ground or small_ground(), config or small_config(), workers or SerialMapper(), on_generation, STEPS
    )


def fingerprint(archive):
    one = archive.evolved
    return (
        archive.fingerprint(),
        archive.objective.tobytes(),
        one.specialist.fingerprint(),
        one.in_sample.curve.values.tobytes(),
        one.trial_sharpes.tobytes(),
        json.dumps(one.generations),
    )


def niche_fitness():
    search = SpecialistSearch.of(small_ground(), small_config())
    return search, NicheFitness.of(search.fitness)


def test_behavior_is_what_the_simulator_says_of_the_same_specialist():
    search, fitness = niche_fitness()
    ground, family = small_ground(), fitness.family
    train = ground.split.train
    genes = family.space.sample(stream(5, "niches"), 16)
    answer = fitness(genes)
    seen = 0
    for row, (pace, hold, lean) in zip(genes, answer[:, COLUMNS], strict=True):
        until = int(ground.bars.time[train.stop - 1])
        specialist = Specialist(
            family, Genome(row, family.space.name), search.regime, search.scaler, search.config.limits, until
        )
        targets = specialist.fresh().update(ground.bars[train], ground.features[train], ground.labels[train])
        result = judge(specialist, ground, train, Costs())
        assert pace == pytest.approx(1000 * len(result.trades) / len(targets))
        if not len(result.trades):
            assert (hold, lean) == (0.0, 0.0)
            continue
        seen += 1
        wanted = targets.column("exposure")
        assert hold == pytest.approx(np.count_nonzero(wanted) / len(result.trades))
        assert lean == pytest.approx(wanted.sum() / np.abs(wanted).sum())
        # A trade ends on the bar after the last wish, or earlier by a stop: at most one bar apart.
        assert abs(hold - result.trades["bars"].mean()) <= 1.0
        longs = (result.trades["side"] > 0).mean()
        assert lean == pytest.approx(1.0) if longs == 1.0 else lean < 1.0
    assert seen > 8


def test_around_the_behavior_the_answer_is_that_of_the_fitness():
    search, fitness = niche_fitness()
    genes = fitness.family.space.sample(stream(5, "niches"), 8)
    answer = fitness(genes)
    assert np.array_equal(np.delete(answer, np.r_[COLUMNS], axis=1), search.fitness(genes))
    assert np.array_equal(np.concatenate([fitness(row[None]) for row in genes]), answer)
    assert fitness.n_details == COLUMNS.stop - 1
    assert len(AXES) == COLUMNS.stop - COLUMNS.start


def test_the_same_seed_gives_the_same_archive_with_one_thread_or_two():
    expected = fingerprint(evolved())
    for workers in (ThreadMapper(1), ThreadMapper(2)):
        with workers:
            assert fingerprint(evolved(workers=workers)) == expected
    assert fingerprint(evolved(small_config(seed=8))) != expected


@pytest.mark.parametrize(("regime", "steps"), [("volatile", 3), ("all", 3)])
def test_a_search_for_an_archive_that_is_stopped_goes_on_bit_for_bit(regime, steps):
    config = small_config(regime=regime)
    first, second = (
        ArchiveSearch(SpecialistSearch.of(small_ground(), config), SerialMapper(), STEPS) for _ in range(2)
    )
    for _ in range(steps):
        first.step()
    second.restore(first.state())
    while not second.finished:
        second.step()
    assert fingerprint(second.archive()) == fingerprint(evolved(config))


def test_a_generalist_means_an_archive_of_every_regime():
    archive = evolved(small_config(regime="all"))
    assert [one.regime.text for one in archive.regimes] == list(small_ground().regime_names)
    assert archive.n_cells == 3 * 240
    alone = evolved(small_config(regime="volatile"))
    together = next(one for one in archive.regimes if one.regime.text == "volatile")
    assert together.elites.genes.tobytes() == alone.regimes[0].elites.genes.tobytes()
    assert archive.evolved.fitness == archive.objective.max()
    assert [row["generation"] for row in archive.evolved.generations] == list(range(5))


def test_the_champion_of_an_archive_is_its_best_elite_and_may_be_tested():
    archive = evolved()
    best = archive.regimes[0].elites
    one = archive.evolved
    assert one.fitness == best.objective.max() == archive.objective.max()
    assert one.specialist.genome.genes.tobytes() == best.genes[best.objective.argmax()].tobytes()
    assert [genome.fitness for genome in one.hall_of_fame] == sorted(best.objective, reverse=True)
    assert len(open_test(small_ground(), one.specialist, small_config().costs).champion.curve)


@pytest.mark.parametrize("regime", ["volatile", "all"])
def test_every_evaluation_of_an_archive_reaches_the_ledger(tmp_path, regime):
    ledger = Ledger(tmp_path / "ledger.sqlite")
    with TrialBook(ledger, "a" * 64, "run") as book:
        archive = evolved(small_config(regime=regime), on_generation=lambda _, known: book.note(known))
    one, found = archive.evolved, ledger.summary("a" * 64)
    assert found.n_unique == one.n_unique == len(one.trial_sharpes) == one.trials.n_seen
    assert found.n_evaluated == one.n_evaluated == 5 * 24 * len(archive.regimes)


def test_elites_are_judged_on_unseen_rows_as_the_streaming_specialist_trades_there():
    ground, archive = small_ground(), evolved()
    unseen = open_archive(ground, archive, SerialMapper())
    assert unseen.objective.shape == (len(archive),)
    one = archive.regimes[0]
    i = int(one.elites.objective.argmax())
    result = open_test(ground, archive.evolved.specialist, small_config().costs).champion
    assert unseen.measures[i, 0] == pytest.approx(1000 * len(result.trades) / len(result.curve))
    with ThreadMapper(2) as workers:
        again = open_archive(ground, archive, workers)
    assert again.objective.tobytes() == unseen.objective.tobytes()


def test_the_test_rows_change_what_is_unseen_and_nothing_else():
    ground, archive = small_ground(), evolved()
    values = ground.bars.values.copy()
    cut = ground.split.train.stop
    values[cut:, :4] = values[cut:, :4][::-1] * 3.0
    altered = prepare(replace(ground.bars, values=values), small_config())
    again = evolved(ground=altered)
    assert fingerprint(again) == fingerprint(archive)
    unseen = [open_archive(one, archive, SerialMapper()).objective.tobytes() for one in (ground, altered)]
    assert unseen[0] != unseen[1]


def test_an_archive_counts_what_stays_positive_out_of_sample():
    archive = evolved(small_config(regime="all"))
    unseen = open_archive(small_ground(), archive, SerialMapper())
    figures = summary(archive, unseen)
    assert set(figures) == {"all", *small_ground().regime_names}
    inside, outside = archive.objective, unseen.objective
    total = figures["all"]
    assert total["filled"] == len(archive) == round(total["coverage"] * total["cells"])
    assert total["qd_score"] == pytest.approx(inside[inside > 0].sum())
    assert total["qd_score_out_of_sample"] == pytest.approx(outside[outside > 0].sum())
    assert total["positive"] == (inside > 0).sum()
    assert total["still_positive"] == ((inside > 0) & (outside > 0)).sum() <= total["positive"]
    assert 0.0 <= total["same_cell"] <= 1.0
    # The same rows again: every elite is found where it stands.
    trained = [one.search.fitness for one in archive.regimes]
    there = np.concatenate(
        [NicheFitness.of(f)(one.elites.genes) for f, one in zip(trained, archive.regimes, strict=True)]
    )
    same = summary(archive, replace(unseen, objective=there[:, 0], measures=there[:, COLUMNS]))["all"]
    assert same["same_cell"] == 1.0
    assert same["qd_score_out_of_sample"] == same["qd_score"]


@pytest.mark.parametrize(
    ("regime", "pictures"), [("volatile", ["plots/archive.png"]), ("all", ["plots/archive-ranging.png"])]
)
def test_an_archive_is_saved_as_json_arrays_and_pictures(tmp_path, regime, pictures):
    archive = evolved(small_config(regime=regime))
    unseen = open_archive(small_ground(), archive, SerialMapper())
    run = Run.open(tmp_path, "evolve", regime)
    captions = save_archive(run, archive, unseen, "specialists")
    assert set(pictures) <= set(captions)
    assert all((run.folder / path).read_bytes()[:4] == b"\x89PNG" for path in captions)
    found = json.loads((run.folder / "archive.json").read_text())
    assert found["figures"] == summary(archive, unseen)
    assert [one["fitness"] for one in found["elites"]] == archive.objective.tolist()
    assert len({(one["regime"], *one["cell"]) for one in found["elites"]}) == len(archive)
    with np.load(run.folder / "elites.npz", allow_pickle=False) as arrays:
        assert np.array_equal(arrays["genes"], np.concatenate([one.elites.genes for one in archive.regimes]))
        assert np.array_equal(arrays["unseen_objective"], unseen.objective)
        assert len(arrays["regime"]) == len(arrays["cells"]) == len(archive)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"fitness": FitnessConfig(folds=4, rotation=0.5)}, "fitness.rotation is 0.5"),
        ({"islands": {"count": 2}}, "islands.count is 2"),
        ({"regime": "volatil"}, "volatil"),
    ],
)
def test_settings_that_no_archive_can_have_are_refused_in_one_sentence(changes, message):
    with pytest.raises(ConfigError, match=message):
        evolved(small_config(**changes))
