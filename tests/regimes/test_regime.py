import numpy as np
import pytest

from configs.load import ConfigError
from market.table import DataError
from regimes.regime import REGIME_NAMES, Regime, RegimePath, RegimeProbabilities, Transition


def test_regimes_are_numbered_as_the_columns_of_their_probabilities():
    assert [(regime.name, regime.value) for regime in Regime] == [
        ("RANGING", 0),
        ("TRENDING", 1),
        ("VOLATILE", 2),
        ("CRISIS", 3),
    ]
    assert REGIME_NAMES == ("ranging", "trending", "volatile")


def test_a_regime_is_found_by_its_name_in_any_case():
    assert Regime.of(" Volatile ") is Regime.VOLATILE
    assert Regime.VOLATILE.text == "volatile"


def test_an_unknown_regime_is_refused_with_a_suggestion():
    with pytest.raises(ConfigError, match=r"no regime named 'volatil'; did you mean volatile\?"):
        Regime.of("volatil")
    with pytest.raises(ConfigError, match="known: ranging, trending, volatile"):
        Regime.of("xyzzy")


def test_probabilities_sum_to_one_or_are_unknown_throughout():
    rows = RegimeProbabilities(np.arange(2), [[np.nan] * 3, [0.2, 0.3, 0.5]], REGIME_NAMES)
    assert rows[1:].column("volatile") == 0.5
    assert isinstance(rows[1:], RegimeProbabilities)


@pytest.mark.parametrize(
    "row", [[0.2, 0.3, 0.4], [1.2, -0.2, 0.0], [np.nan, 0.5, 0.5], [1.0 + 3e-9, 0.0, 0.0]]
)
def test_a_row_that_is_no_distribution_is_refused(row):
    with pytest.raises(DataError, match="row 1 at 1970-01-01T00:00:00Z"):
        RegimeProbabilities(np.arange(2), [[1.0, 0.0, 0.0], row], REGIME_NAMES)


def test_probabilities_carry_the_names_of_the_regimes_in_their_order():
    with pytest.raises(DataError, match="columns are"):
        RegimeProbabilities(np.arange(1), [[0.2, 0.3, 0.5]], ("trending", "ranging", "volatile"))


def path(label):
    label = np.array(label)
    return RegimePath(np.arange(label.size) * 10, label, np.full(label.size, 0.9))


def test_transitions_are_the_changes_between_decided_regimes():
    assert path([-1, 0, 0, 2, 2, 1]).transitions() == (
        Transition(3, 30, Regime.RANGING, Regime.VOLATILE),
        Transition(5, 50, Regime.VOLATILE, Regime.TRENDING),
    )
    assert path([]).transitions() == ()


def test_share_and_mean_dwell_of_a_path_by_hand():
    one = path([-1, -1, 0, 0, 2, 2, 2, 0])
    np.testing.assert_allclose(one.share(), [3 / 6, 0, 3 / 6])
    np.testing.assert_array_equal(one.mean_dwell(), [1.5, np.nan, 3.0])
    assert np.isnan(path([-1]).share()).all()


def test_a_path_refuses_labels_that_are_no_regime():
    with pytest.raises(DataError, match=r"label is 3 in row 1; it must lie in -1\.\.2"):
        path([0, 3])
    with pytest.raises(DataError, match="confidence has shape"):
        RegimePath(np.arange(2), np.zeros(2), np.zeros(3))


def test_a_path_is_read_only_and_leaves_the_caller_his_arrays():
    label = np.zeros(2, dtype=np.int8)
    one = RegimePath(np.arange(2), label, np.ones(2))
    label[0] = 2
    assert one.label[0] == 0
    with pytest.raises(ValueError, match="read-only"):
        one.label[0] = 1
