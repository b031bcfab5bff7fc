import dataclasses
import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from market.table import DataError, Table, concat
from regimes.regime import Regime
from specialists.specialist import Specialist, awake_rows, decision_rows
from tests.specialists.ground import small_evolved, small_ground


def whole(specialist, rows=slice(None)):
    ground = small_ground()
    return specialist.fresh().update(ground.bars[rows], ground.features[rows], ground.labels[rows])


def test_a_specialist_wants_nothing_outside_its_regime_and_trades_inside_it():
    specialist = small_evolved().specialist
    targets = whole(specialist)
    elsewhere = small_ground().regime_labels != Regime.VOLATILE
    assert (targets.column("exposure")[elsewhere] == 0).all()
    assert np.abs(targets.column("exposure")[~elsewhere]).max() > 0


@settings(max_examples=15, deadline=None)
@given(cuts=st.lists(st.integers(1, 8_999), max_size=6))
def test_cutting_the_input_anywhere_changes_no_bit(cuts):
    specialist, ground = small_evolved().specialist, small_ground()
    stage = specialist.fresh()
    edges = [0, *sorted(set(cuts)), len(ground.bars)]
    parts = [
        stage.update(ground.bars[a:b], ground.features[a:b], ground.labels[a:b])
        for a, b in itertools.pairwise(edges)
    ]
    assert concat(parts).values.tobytes() == whole(specialist).values.tobytes()


def test_what_happened_before_an_episode_of_its_regime_is_forgotten():
    specialist, ground = small_evolved().specialist, small_ground()
    asleep = np.flatnonzero(ground.regime_labels != Regime.VOLATILE)
    start = int(asleep[asleep > 4_000][0])
    late = whole(specialist, slice(start, None)).values
    assert late.tobytes() == whole(specialist).values[start:].tobytes()


def test_a_row_with_an_unknown_feature_is_flat():
    specialist, ground = small_evolved().specialist, small_ground()
    row = int(np.flatnonzero(np.abs(whole(specialist).column("exposure")) > 0)[5])
    values = ground.features.values.copy()
    values[row, ground.features.index("rsi_14")] = np.nan
    features = Table(ground.features.time, values, ground.features.names)
    targets = specialist.fresh().update(ground.bars, features, ground.labels)
    assert targets.column("exposure")[row] == 0


def test_a_generalist_is_awake_wherever_the_regime_is_decided():
    labels = np.array([-1, 0, 1, 2], dtype=np.int8)
    assert awake_rows(None, labels, np.zeros((4, 1))).tolist() == [0, 1, 1, 1]
    assert awake_rows(Regime.TRENDING, labels, np.zeros((4, 1))).tolist() == [0, 0, 1, 0]


def test_a_saved_specialist_loads_to_the_same_targets(tmp_path):
    specialist = small_evolved().specialist
    specialist.save(tmp_path, "blend")
    again = Specialist.load(tmp_path)
    assert again.fitted_until == specialist.fitted_until
    assert again.genes_by_name() == specialist.genes_by_name()
    assert whole(again).values.tobytes() == whole(specialist).values.tobytes()


@pytest.mark.parametrize("damage", ["{", "[]", '{"format": 99}', '{"format": 1}'])
def test_a_damaged_specialist_is_refused_in_one_sentence(tmp_path, damage):
    small_evolved().specialist.save(tmp_path, "blend")
    (tmp_path / "specialist.json").write_text(damage)
    with pytest.raises(DataError, match=r"specialist\.json"):
        Specialist.load(tmp_path)


def test_a_missing_specialist_is_refused(tmp_path):
    with pytest.raises(DataError, match="is not a saved specialist"):
        Specialist.load(tmp_path / "nowhere")


def test_decision_rows_hold_signals_scaled_and_levels_as_they_are():
    specialist, ground = small_evolved().specialist, small_ground()
    rows = decision_rows(specialist.family, specialist.scaler, ground.features)
    k = len(specialist.family.signals)
    known = np.isfinite(rows).all(axis=1)
    assert np.abs(rows[known, :k]).max() <= 4
    levels = ground.features.select(specialist.family.levels).values
    assert np.array_equal(rows[:, k:], levels, equal_nan=True)


def test_a_family_with_signals_needs_a_scaler():
    specialist = small_evolved().specialist
    with pytest.raises(ValueError, match="scaler"):
        Specialist(specialist.family, specialist.genome, None, None, specialist.limits, 0)


def test_frozen_parts_of_the_ground_cannot_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        small_ground().bars = None
