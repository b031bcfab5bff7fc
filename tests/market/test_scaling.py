"""The scaler: what it learns, from which rows, and how it is kept."""

import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from market.causal import Chain, transform
from market.features.pipeline import FeaturePipeline
from market.scaling import NORMAL_IQR, Scaler
from market.table import DataError, Table
from tests.conformance.laws import POISONS, check_altered_future, check_chunk_law, check_inputs_untouched
from tests.market.bars_factory import random_bars


def table(values, names=None, start=0):
    values = np.asarray(values, dtype=np.float64)
    names = names or tuple(f"c{j}" for j in range(values.shape[1]))
    return Table(np.arange(len(values)) + start, values, names)


@pytest.fixture
def random_table():
    rng = np.random.default_rng(6)
    values = rng.normal([0, 5, 1e9, 1e-9], [1, 0.1, 1e7, 1e-12], (500, 4))
    return table(values)


def test_median_and_quartiles_by_hand():
    # Median 3, quartiles 2 and 4: scale 2 / 1.349.
    scaler = Scaler.fit(table([[1.0], [2.0], [3.0], [4.0], [100.0]], start=10))
    assert scaler.center == (3.0,)
    assert scaler.scale == (2 / NORMAL_IQR,)
    assert scaler.fitted_until == 14
    rows = scaler.update(table([[3.0], [5.0], [100.0], [-100.0], [np.nan]]))
    np.testing.assert_allclose(rows.values[:, 0], [0.0, 1.349, 4.0, -4.0, np.nan])


def test_a_normal_column_gets_about_its_standard_deviation(random_table):
    scaler = Scaler.fit(random_table)
    np.testing.assert_allclose(scaler.scale, random_table.values.std(axis=0), rtol=0.1)
    values = scaler.update(random_table).values
    np.testing.assert_allclose(np.median(values, axis=0), 0.0, atol=1e-12)
    assert np.abs(values).max() <= 4.0


def test_one_wild_row_hardly_moves_the_scale(random_table):
    values = random_table.values.copy()
    values[7] = 1e30
    wild = Scaler.fit(table(values))
    np.testing.assert_allclose(wild.scale, Scaler.fit(random_table).scale, rtol=0.05)
    assert wild.update(table(values)).values[7, 0] == 4.0


def test_constant_columns_are_zero_and_named():
    values = np.column_stack([np.full(9, 0.1), np.arange(9.0), np.full(9, 3.0) + 1e-15 * np.arange(9)])
    scaler = Scaler.fit(table(values))
    assert scaler.constant == ("c0", "c2")
    later = scaler.update(table([[7.0, 4.0, np.nan]])).values[0]
    assert later[0] == 0.0
    assert later[1] == 0.0
    assert np.isnan(later[2])


def test_a_column_that_mostly_stays_put_is_scaled_by_its_deviation():
    values = np.zeros((100, 1))
    values[::10] = 1.0
    scaler = Scaler.fit(table(values))
    assert scaler.constant == ()
    assert scaler.scale == (values.std(),)


def test_only_the_rows_given_count(random_table):
    train = random_table[:300]
    scaler = Scaler.fit(train)
    altered = random_table.values.copy()
    altered[300:] = 1e6
    assert Scaler.fit(table(altered)[:300]) == scaler
    assert Scaler.fit(table(altered)) != scaler
    assert scaler.fitted_until == 299


def test_unknown_rows_are_left_out_of_the_fit():
    values = np.array([[np.nan], [np.nan], [1.0], [2.0], [3.0]])
    assert Scaler.fit(table(values)).center == (2.0,)


@settings(max_examples=20, deadline=None)
@given(cuts=st.lists(st.integers(0, 500), max_size=6), seed=st.integers(0, 99))
def test_the_scaler_obeys_the_laws_of_flow(cuts, seed):
    rows = table(np.random.default_rng(seed).normal(size=(500, 3)))
    scaler = Scaler.fit(rows[:100])
    check_chunk_law(scaler, rows, cuts)
    check_altered_future(scaler, rows, 250, POISONS["times 1000"])
    check_inputs_untouched(scaler, rows)


def test_a_scaler_refit_on_what_it_sees_is_caught(random_table):
    class Refit:
        warmup = 0

        def fresh(self):
            return self

        def update(self, new):
            return Scaler.fit(new).update(new)

    with pytest.raises(AssertionError, match="column c0"):
        check_chunk_law(Refit(), random_table, [250])
    with pytest.raises(AssertionError, match="column c0"):
        check_altered_future(Refit(), random_table, 250, POISONS["times 1000"])


def test_features_and_scaler_chain_into_one_stage():
    bars = random_bars(2300)
    features = FeaturePipeline()
    scaler = Scaler.fit(transform(features, bars)[:2100])
    chain = Chain([features.fresh(), scaler])
    assert chain.warmup == features.warmup
    check_chunk_law(chain, bars, [1, 2, 2100, 2200])
    rows = transform(chain, bars)
    assert np.isfinite(rows.values[chain.warmup :]).all()
    assert np.abs(rows.values[chain.warmup :]).max() <= 4.0


@settings(max_examples=50, deadline=None)
@given(
    values=st.lists(
        st.floats(allow_nan=False, allow_infinity=False, min_value=-1e300, max_value=1e300),
        min_size=1,
        max_size=9,
    )
)
def test_saved_and_loaded_is_equal_to_the_last_bit(tmp_path_factory, values):
    path = tmp_path_factory.mktemp("scaler") / "scaler.json"
    scaler = Scaler.fit(table(np.array(values)[:, None]), limit=3.3)
    scaler.save(path)
    loaded = Scaler.load(path)
    assert loaded == scaler
    assert [math.copysign(1, x) for x in loaded.center] == [math.copysign(1, x) for x in scaler.center]


def test_loaded_scalers_give_the_same_rows(tmp_path, random_table):
    scaler = Scaler.fit(random_table)
    scaler.save(tmp_path / "scaler.json")
    again = Scaler.load(tmp_path / "scaler.json").update(random_table)
    np.testing.assert_array_equal(again.values, scaler.update(random_table).values)
    assert [entry.name for entry in tmp_path.iterdir()] == ["scaler.json"]


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (("c0", "c1", "c2"), "column c3 is missing"),
        (("c0", "c1", "c2", "c3", "new"), "column new was not there"),
        (("c0", "c2", "c1", "c3"), "column 1 is c2 where it was c1"),
    ],
)
def test_other_columns_are_refused_in_one_sentence(random_table, names, message):
    scaler = Scaler.fit(random_table)
    with pytest.raises(DataError, match=message) as caught:
        scaler.update(table(np.zeros((2, len(names))), names))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (np.empty((0, 1)), "no training rows"),
        ([[np.nan], [np.nan]], "c0 is not known in any of 2"),
        ([[1.0], [np.inf]], "c0 is infinite in row 1"),
    ],
)
def test_rows_that_teach_nothing_are_refused(values, message):
    with pytest.raises(DataError, match=message):
        Scaler.fit(table(values))


def _damaged(document, **changes):
    return {**document, **changes}


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda d: "not json", "cannot be read"),
        (lambda d: json.dumps([1]), "no saved scaler"),
        (lambda d: json.dumps(_damaged(d, kind="detector")), "holds detector format 1"),
        (lambda d: json.dumps(_damaged(d, format=2)), "scaler format 2"),
        (lambda d: json.dumps(_damaged(d, fitted_until="now")), "no saved scaler"),
        (lambda d: json.dumps(_damaged(d, limit=-1)), "limit is -1"),
        (lambda d: json.dumps(_damaged(d, columns={"a": 3})), "center of column a is None"),
        (lambda d: json.dumps(_damaged(d, columns={"a": {"center": 0, "scale": -1}})), "scale of column a"),
        (
            lambda d: json.dumps(_damaged(d, columns={"a": {"center": math.nan, "scale": 1}})),
            "center of column a",
        ),
    ],
)
def test_damaged_files_are_refused_in_one_sentence(tmp_path, random_table, damage, message):
    path = tmp_path / "scaler.json"
    Scaler.fit(random_table).save(path)
    path.write_text(damage(json.loads(path.read_text())))
    with pytest.raises(DataError, match=message) as caught:
        Scaler.load(path)
    assert "scaler.json" in str(caught.value)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(DataError, match=r"nowhere\.json: no such file"):
        Scaler.load(tmp_path / "nowhere.json")
