"""The hours of the week, and means that training rows may take around themselves."""

import numpy as np

from regimes.season import N_SEASON, centered_mean, hours_of_week, learned_season, seasonal

HOUR = 3_600_000_000_000
MONDAY = 4 * 24 * HOUR  # 5 January 1970


def test_a_centered_mean_by_hand():
    np.testing.assert_allclose(centered_mean(np.array([1.0, 2, 6, 3]), 3), [1.5, 3, 11 / 3, 4.5])
    np.testing.assert_allclose(centered_mean(np.array([[1.0, 0], [3, 4]]), 1), [[1, 0], [3, 4]])
    # Of an even span the row itself and those before it are the longer half.
    np.testing.assert_allclose(centered_mean(np.array([1.0, 2, 6, 3]), 2), [1, 1.5, 4, 4.5])


def test_a_bar_belongs_to_the_hour_it_ends_in():
    hours = hours_of_week(MONDAY + HOUR * np.array([1, 24, 25, 5 * 24, 5 * 24 + 1, 7 * 24, 7 * 24 + 1]))
    assert hours[:, 4].tolist() == [0, 0, 0, 0, 1, 1, 0]  # the weekend begins after Friday's last bar
    np.testing.assert_allclose(hours[0, :4], [1, 0, 1, 0], atol=1e-12)
    np.testing.assert_allclose(hours[1], hours_of_week(np.array([MONDAY + 48 * HOUR]))[0])


def test_a_planted_season_is_found_beside_regimes_that_dwarf_it():
    random = np.random.default_rng(0)
    time = MONDAY + HOUR * np.arange(1, 20_001)
    hours = hours_of_week(time)
    planted = np.array([0.2, -0.1, 0.05, 0.0, -0.3])
    regime = np.repeat(random.choice([-1.0, 0.0, 1.0], 200), 100)
    levels = hours @ planted + regime + 0.3 * random.normal(size=time.size)
    season, center = learned_season(time, levels)
    np.testing.assert_allclose(season, planted, atol=0.06)  # a regime is worth 0.8
    np.testing.assert_allclose(center, hours.mean(axis=0))
    both, _ = learned_season(time, np.column_stack([levels, 2 * levels]))
    np.testing.assert_allclose(both, np.column_stack([season, 2 * season]))


def test_what_the_hours_add_does_not_depend_on_how_many_rows_are_asked_for():
    hours = np.random.default_rng(0).normal(size=(50, N_SEASON))
    for season in (np.linspace(-1, 1, N_SEASON), np.random.default_rng(1).normal(size=(N_SEASON, 2))):
        whole = seasonal(hours, season)
        np.testing.assert_allclose(whole, hours @ season, rtol=1e-12)
        assert b"".join(seasonal(hours[t : t + 1], season).tobytes() for t in range(50)) == whole.tobytes()
