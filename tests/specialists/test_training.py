import hashlib
from dataclasses import replace

import pytest

from compute.workers import SerialMapper, ThreadMapper
from configs.load import ConfigError
from market.sources.synthetic import SyntheticConfig, synthetic_market
from specialists.specialist import Specialist
from specialists.training import evolve_specialist, open_test, prepare
from tests.specialists.ground import small_config, small_evolved, small_ground


def unseen(evolved, ground=None):
    return open_test(ground or small_ground(), evolved.specialist, small_config().costs)


def digest(evolved):
    parts = hashlib.sha256()
    parts.update(evolved.specialist.genome.genes.tobytes())
    for result in (evolved.in_sample, unseen(evolved).champion):
        parts.update(result.trades.tobytes())
        parts.update(result.curve.values.tobytes())
    parts.update(evolved.trial_sharpes.tobytes())
    return parts.hexdigest()


def test_the_same_seed_gives_the_same_bytes_with_one_thread_or_two():
    expected = digest(small_evolved())
    for workers in (SerialMapper(), ThreadMapper(1), ThreadMapper(2)):
        with workers:
            assert digest(evolve_specialist(small_ground(), small_config(), workers)) == expected


def test_another_seed_gives_another_champion():
    other = evolve_specialist(small_ground(), small_config(seed=8), SerialMapper())
    assert digest(other) != digest(small_evolved())


def test_altering_the_test_rows_changes_nothing_that_was_learned():
    ground = small_ground()
    bars = ground.bars
    values = bars.values.copy()
    cut = ground.split.train.stop
    values[cut:, :4] = values[cut:, :4][::-1] * 3.0
    values[cut:, 4] *= 0.1
    altered = prepare(replace(bars, values=values), small_config())
    assert altered.split == ground.split
    again = evolve_specialist(altered, small_config(), SerialMapper())
    expected = small_evolved()
    assert again.specialist.genome.genes.tobytes() == expected.specialist.genome.genes.tobytes()
    assert again.in_sample.curve.values.tobytes() == expected.in_sample.curve.values.tobytes()
    later, expected_later = unseen(again, altered).champion, unseen(expected).champion
    assert later.curve.values.tobytes() != expected_later.curve.values.tobytes()


def test_everything_fitted_says_until_when_and_the_test_begins_after_an_embargo():
    ground, evolved = small_ground(), small_evolved()
    last = ground.bars.time[ground.split.train.stop - 1]
    assert evolved.specialist.fitted_until == last
    assert ground.detector.fitted_until == last
    assert evolved.specialist.scaler.fitted_until == last
    gap = ground.split.test.start - ground.split.train.stop
    assert gap == ground.split.embargo >= ground.features.warmup


def test_every_evaluation_is_reported_as_a_trial():
    evolved = small_evolved()
    assert evolved.n_unique == len(evolved.trial_sharpes)
    assert evolved.n_evaluated == evolved.n_unique + evolved.n_avoided
    assert evolved.n_evaluated == evolved.generations[-1]["evaluations"]


def test_evolution_improves_on_its_first_generation():
    best = [row["best"] for row in small_evolved().generations]
    assert best == sorted(best)
    assert best[-1] > best[0]


def test_too_few_bars_are_refused_with_the_numbers():
    bars = synthetic_market(SyntheticConfig(n_bars=2_000, seed=3)).bars
    with pytest.raises(ConfigError, match="2000 bars are too few"):
        prepare(bars, small_config())


def test_a_regime_that_never_occurs_in_training_is_refused():
    ground = small_ground()
    values = ground.labels.values.copy()
    values[values[:, 0] == 1, 0] = 0
    labels = replace(ground.labels, values=values)
    with pytest.raises(ConfigError, match="regime trending covers 0"):
        evolve_specialist(replace(ground, labels=labels), small_config(regime="trending"), SerialMapper())


def test_an_unknown_regime_is_refused_with_the_known_ones():
    with pytest.raises(ConfigError, match="volatil"):
        evolve_specialist(small_ground(), small_config(regime="volatil"), SerialMapper())


@pytest.mark.parametrize("family", [{"name": "origin8"}, {"name": "origin8", "signal": "reversion"}])
def test_the_origin_family_evolves_too(family):
    config = small_config(family=family, regime="ranging")
    evolved = evolve_specialist(small_ground(), config, SerialMapper())
    assert set(evolved.specialist.genes_by_name()) >= {"stop_loss", "max_hold_time"}


def test_a_generalist_may_trade_in_every_regime():
    evolved = evolve_specialist(small_ground(), small_config(regime="all"), SerialMapper())
    assert evolved.specialist.regime is None
    assert len(set(evolved.in_sample.trades["regime"].tolist())) > 1


def test_the_baselines_hold_without_a_stop_and_only_in_the_regime():
    ground, evolved = small_ground(), small_evolved()
    test = ground.split.test
    later = unseen(evolved)
    assert len(later.held.trades) == 1
    assert later.held.trades["bars"][0] == test.stop - test.start - 1
    inside = ground.regime_labels[test] == evolved.specialist.regime
    exposed = later.gated.curve.column("exposure") != 0
    # decided at a close, held from the next open on
    assert (exposed[1:-1] == inside[:-2]).all()
    assert not exposed[0]


def test_a_champion_that_has_seen_the_test_rows_is_refused():
    from market.table import DataError

    ground, specialist = small_ground(), small_evolved().specialist
    later = Specialist(
        specialist.family,
        specialist.genome,
        specialist.regime,
        specialist.scaler,
        specialist.limits,
        int(ground.bars.time[ground.split.test.start]),
    )
    with pytest.raises(DataError, match="not out of sample for it"):
        open_test(ground, later, small_config().costs)
    detector = ground.detector.fresh()
    detector.fitted_until = later.fitted_until
    with pytest.raises(DataError, match="not out of sample"):
        open_test(replace(ground, detector=detector), specialist, small_config().costs)


def test_the_hall_of_fame_begins_with_the_champion():
    evolved = small_evolved()
    fitness = [genome.fitness for genome in evolved.hall_of_fame]
    assert fitness == sorted(fitness, reverse=True)
    assert evolved.hall_of_fame[0].genes.tobytes() == evolved.specialist.genome.genes.tobytes()
