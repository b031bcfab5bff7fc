"""What every detector promises, and the leaks that the laws must find."""

import json

import numpy as np
import pytest

from configs.load import ConfigError, InputError
from market.causal import transform
from market.table import DataError, Table
from regimes.detector import DETECTORS, load_detector, name_states, require_out_of_sample
from regimes.regime import Regime, RegimeProbabilities
from tests.conformance import laws
from tests.reference.regimes import HOUR_NS, WINDOWS, small_market

NAMES = ("hmm", "volatility")
SETTINGS = {
    "hmm": WINDOWS | {"baseline_bars": 300, "evidence": 1.0, "dwell_bars": 50, "stickiness": 1.0},
    "volatility": {"baseline_bars": 300},
}
TRAIN, N = 4000, 6000


@pytest.fixture(scope="module")
def market():
    return small_market(N, seed=1)


@pytest.fixture(scope="module")
def fitted(market):
    return {name: DETECTORS.create(name, SETTINGS[name]).fit(market[1][:TRAIN]) for name in NAMES}


def with_gaps(features):
    values = features.values.copy()
    values[:7] = np.nan
    values[[50, 51, 300], [0, 1, 2]] = np.nan
    values[55] = np.nan
    return Table(features.time, values, features.names)


def test_these_are_all_the_detectors():
    others = {"bocpd", "committee", "crisis", "jump", "markov_ar"}  # which have tests of their own
    assert DETECTORS.names() == sorted({*NAMES, *others})
    with pytest.raises(ConfigError, match=r"no detector named 'hmn'; did you mean hmm\?"):
        DETECTORS.get("hmn")


@pytest.mark.parametrize("name", NAMES)
def test_cutting_the_input_anywhere_changes_no_bit(name, fitted, market):
    features = with_gaps(market[1][TRAIN:])
    for cuts in (range(400), [1, 7, 8, 50, 51, 51, 1900], np.random.default_rng(0).integers(0, 2000, 30)):
        rows = features[: 400 if isinstance(cuts, range) else None]
        laws.check_chunk_law(fitted[name], rows, [int(cut) for cut in cuts])


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("poison", sorted(laws.POISONS))
def test_altering_the_future_changes_nothing_before_it(name, poison, fitted, market):
    for row in (0, 3, 500, 1200):
        laws.check_altered_future(fitted[name], with_gaps(market[1][TRAIN:]), row, laws.POISONS[poison])


@pytest.mark.parametrize("name", NAMES)
def test_after_the_warmup_it_does_not_matter_where_the_rows_began(name, fitted, market):
    laws.check_start_invariance(fitted[name], market[1], [1, 100, 777, 3000])


@pytest.mark.parametrize("name", NAMES)
def test_rows_are_distributions_and_nan_only_before_the_first_known_row(name, fitted, market):
    rows = transform(fitted[name], with_gaps(market[1][TRAIN:]))
    assert isinstance(rows, RegimeProbabilities)
    assert np.isnan(rows.values[:7]).all()
    np.testing.assert_allclose(rows.values[7:].sum(axis=1), 1.0, atol=1e-12)
    laws.check_inputs_untouched(fitted[name], with_gaps(market[1][TRAIN:]))
    assert len(transform(fitted[name], market[1][:0])) == 0


@pytest.mark.parametrize("name", NAMES)
def test_an_order_of_columns_or_a_further_column_does_not_matter(name, fitted, market):
    features = market[1][TRAIN:]
    shuffled = Table(
        features.time,
        np.column_stack([features.values[:, ::-1], np.full(len(features), np.nan)]),
        (*features.names[::-1], "other"),
    )
    np.testing.assert_array_equal(
        transform(fitted[name], features).values, transform(fitted[name], shuffled).values
    )


@pytest.mark.parametrize("name", NAMES)
def test_the_same_rows_and_seed_give_the_same_detector(name, fitted, market, tmp_path):
    again = DETECTORS.create(name, SETTINGS[name]).fit(market[1][:TRAIN])
    fitted[name].save(tmp_path / "a")
    again.save(tmp_path / "b")
    assert (tmp_path / "a/detector.json").read_bytes() == (tmp_path / "b/detector.json").read_bytes()


@pytest.mark.parametrize("name", NAMES)
def test_a_detector_comes_back_from_disk_bit_by_bit(name, fitted, market, tmp_path):
    fitted[name].save(tmp_path)
    loaded = load_detector(tmp_path)
    assert type(loaded) is type(fitted[name])
    assert loaded.config == fitted[name].config
    assert loaded.fitted_until == fitted[name].fitted_until
    rows = market[1][TRAIN:]
    assert transform(loaded, rows).values.tobytes() == transform(fitted[name], rows).values.tobytes()


@pytest.mark.parametrize("name", NAMES)
def test_saving_in_the_middle_keeps_parameters_and_drops_memory(name, fitted, market, tmp_path):
    used = fitted[name].fresh()
    used.update(market[1][:500])
    used.save(tmp_path)
    rows = market[1][TRAIN:]
    expected = transform(fitted[name], rows).values.tobytes()
    assert load_detector(tmp_path).update(rows).values.tobytes() == expected
    assert used.fresh().update(rows).values.tobytes() == expected
    assert used.update(rows).values.tobytes() != expected  # control: a memory does matter


def damaged(**changes):
    def damage(document):
        for key, value in changes.items():
            *path, last = key.split("__")
            inner = document
            for part in path:
                inner = inner[part]
            if value is None:
                del inner[last]
            else:
                inner[last] = value

    return damage


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    "damage",
    [
        damaged(parameters__location=None),
        damaged(parameters__location=[1.0]),
        damaged(parameters__location=["a", "b", "c"]),
        damaged(parameters__scale=[float("nan")] * 3),
        damaged(format=2),
        damaged(detector="jump"),
        damaged(fitted_until="today"),
        damaged(config={"no_such_setting": 1}),
    ],
)
def test_a_damaged_file_is_refused_in_one_sentence(name, damage, fitted, tmp_path):
    fitted[name].save(tmp_path)
    file = tmp_path / "detector.json"
    document = json.loads(file.read_text())
    damage(document)
    file.write_text(json.dumps(document))
    with pytest.raises(InputError) as refusal:
        type(fitted[name]).load(tmp_path)
    assert "\n" not in str(refusal.value)
    assert str(file) in str(refusal.value)


def test_a_file_that_is_missing_cut_off_or_of_another_detector_is_refused(fitted, tmp_path):
    with pytest.raises(DataError, match="no such file"):
        load_detector(tmp_path)
    fitted["hmm"].save(tmp_path)
    with pytest.raises(DataError, match="holds the detector 'hmm'; it must be 'volatility'"):
        type(fitted["volatility"]).load(tmp_path)
    text = (tmp_path / "detector.json").read_text()
    (tmp_path / "detector.json").write_text(text[: len(text) // 2])
    with pytest.raises(DataError, match="cannot be read as JSON"):
        load_detector(tmp_path)


@pytest.mark.parametrize("name", NAMES)
def test_unfitted_detectors_say_so(name, market, tmp_path):
    detector = DETECTORS.create(name)
    assert detector.fitted_until is None
    for call in (lambda: detector.update(market[1]), lambda: detector.save(tmp_path)):
        with pytest.raises(ValueError, match="not fitted"):
            call()
    assert detector.fresh().fitted_until is None


@pytest.mark.parametrize("name", NAMES)
def test_training_rows_that_cannot_teach_are_refused_in_one_sentence(name, market):
    features = market[1]
    detector = DETECTORS.create(name, SETTINGS[name])
    with pytest.raises(DataError, match=r"known in all of .*; fitting needs at least"):
        detector.fit(features[:150])
    unknown = Table(features.time, np.full(features.values.shape, np.nan), features.names)
    with pytest.raises(DataError, match="0 of 6000 training rows"):
        detector.fit(unknown)
    still = features.values.copy()
    still[:, 0] = 0.01
    with pytest.raises(DataError, match="column parkinson_24 does not vary"):
        detector.fit(Table(features.time, still, features.names))
    missing = Table(features.time, features.values[:, :1], ("parkinson_42",))
    with pytest.raises(DataError, match=r"no feature column 'parkinson_24'; did you mean parkinson_42\?"):
        detector.fit(missing)


@pytest.mark.parametrize("name", NAMES)
def test_the_fit_reads_its_rows_only_and_records_the_last_of_them(name, fitted, market):
    features = market[1]
    detector = fitted[name]
    assert detector.fitted_until == features.time[TRAIN - 1]
    later = features.values.copy()
    later[TRAIN:] *= 1000
    altered = Table(features.time, later, features.names)
    again = DETECTORS.create(name, SETTINGS[name]).fit(altered[:TRAIN])
    rows = features[TRAIN:]
    assert transform(again, rows).values.tobytes() == transform(detector, rows).values.tobytes()


@pytest.mark.parametrize("name", NAMES)
def test_rows_up_to_the_last_fitted_one_are_not_out_of_sample(name, fitted, market):
    first_test_time = int(market[1].time[TRAIN])
    require_out_of_sample(fitted[name], first_test_time)
    with pytest.raises(DataError, match="not out of sample, fit it on earlier rows"):
        require_out_of_sample(fitted[name], first_test_time - HOUR_NS)
    with pytest.raises(DataError, match="not fitted"):
        require_out_of_sample(DETECTORS.create(name), first_test_time)


def test_names_follow_the_statistics_and_not_the_order_of_states():
    random = np.random.default_rng(0)
    for k in (3, 4, 5, 8):
        for _ in range(50):
            volatility, direction = random.normal(size=(2, k))
            names = name_states(volatility, direction)
            assert set(names) == {0, 1, 2}
            assert names[np.argmax(volatility)] == Regime.VOLATILE
            order = random.permutation(k)
            np.testing.assert_array_equal(name_states(volatility[order], direction[order]), names[order])


def test_names_by_hand():
    assert name_states([0.0, 2.0, -1.0], [0.3, 0.9, -0.2]).tolist() == [1, 2, 0]
    # Two of four lie in the upper half of volatility; of the other two the directed one is trending.
    assert name_states([1.8, 2.0, -1.0, 0.0], [0.9, 0.9, -0.2, 0.5]).tolist() == [2, 2, 0, 1]
    # Two calm states remain however many are volatile.
    assert name_states([2.0, 2.0, 2.0, 0.0], [0.3, 0.2, 0.1, 0.0]).tolist() == [2, 2, 1, 0]
    with pytest.raises(ValueError, match="at least 3 states"):
        name_states([0.0, 1.0], [0.0, 1.0])
