import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from configs.load import ConfigError, validate
from ga.controls import CONTROL_NAMES, CONTROL_RANGES, POLICIES, GAControls, Hyperparameters
from ga.policies import FixedPolicy, ScheduledPolicy
from ga.progress import Chronicle


def progress(generation, **hyperparameters):
    run = Hyperparameters(**hyperparameters)
    start = Chronicle(run, 5).start()
    return type(start)(**{**vars(start), "generation": generation})


def test_there_are_twelve_controls_in_the_order_of_their_fields():
    assert CONTROL_NAMES == (
        "mutation_rate",
        "mutation_step",
        "mutation_tail",
        "crossover_rate",
        "crossover_spread",
        "differential_rate",
        "differential_weight",
        "tournament_size",
        "elite_fraction",
        "immigrant_fraction",
        "crowding_rate",
        "restart_fraction",
    )
    controls = GAControls()
    assert list(controls.to_dict()) == list(CONTROL_NAMES)
    np.testing.assert_array_equal(controls.to_array(), list(controls.to_dict().values()))


@given(st.lists(st.floats(-10, 10), min_size=12, max_size=12))
@settings(max_examples=100, deadline=None)
def test_from_array_clips_into_the_ranges(values):
    controls = GAControls.from_array(np.array(values))
    for name, given_value in zip(CONTROL_NAMES, values, strict=True):
        limits = CONTROL_RANGES[name]
        assert getattr(controls, name) == min(max(given_value, limits.low), limits.high)


@given(st.lists(st.floats(0, 1), min_size=12, max_size=12))
@settings(max_examples=100, deadline=None)
def test_unit_scale_is_inverted(unit):
    controls = GAControls.from_unit(np.array(unit))
    np.testing.assert_allclose(controls.to_unit(), unit, atol=1e-9)
    again = GAControls.from_unit(controls.to_unit())
    np.testing.assert_allclose(again.to_array(), controls.to_array(), rtol=1e-9, atol=1e-12)


def test_the_middle_of_a_log_scale_is_the_geometric_mean():
    middle = GAControls.from_unit(np.full(12, 0.5))
    assert middle.mutation_step == pytest.approx(np.sqrt(1e-4 * 0.5))
    assert middle.tournament_size == pytest.approx(4.5)


@pytest.mark.parametrize("name", CONTROL_NAMES)
def test_a_control_outside_its_range_is_refused(name):
    for value in (CONTROL_RANGES[name].low - 1e-6, CONTROL_RANGES[name].high + 1e-6, float("nan")):
        with pytest.raises(ValueError, match=f"{name} is .*; it must lie between"):
            GAControls(**{name: value})


def test_arrays_of_the_wrong_length_or_with_nan_are_refused():
    with pytest.raises(ValueError, match=r"shape \(11,\); from_array\(\) needs \(12,\)"):
        GAControls.from_array(np.zeros(11))
    with pytest.raises(ValueError, match="mutation_rate is nan"):
        GAControls.from_array(np.full(12, np.nan))
    with pytest.raises(ValueError, match="from_unit"):
        GAControls.from_unit(np.zeros(3))


def test_policies_are_found_by_name():
    assert {"fixed", "scheduled"} <= set(POLICIES.names())
    policy = POLICIES.create("fixed", {"mutation_step": 0.2})
    assert policy.controls(progress(3)) == GAControls(mutation_step=0.2)
    with pytest.raises(ConfigError, match="no policy named 'fixd'; did you mean fixed"):
        POLICIES.create("fixd")
    with pytest.raises(ConfigError, match="mutation_stp is not a setting; did you mean mutation_step"):
        POLICIES.create("fixed", {"mutation_stp": 0.2})
    with pytest.raises(ConfigError, match=r"mutation_step is 0\.9"):
        POLICIES.create("fixed", {"mutation_step": 0.9})


def test_fixed_controls_stay_fixed():
    policy = FixedPolicy()
    assert {policy.controls(progress(g)) for g in range(60)} == {GAControls()}


def test_the_schedule_ends_where_the_hyperparameters_say():
    policy = POLICIES.create("scheduled", {"mutation_step": 0.1, "crossover_rate": 0.3})
    run = {"n_generations": 41, "mutation_schedule": 0.01, "crossover_schedule": 0.4}
    first, middle, last = (policy.controls(progress(g, **run)) for g in (0, 20, 40))
    assert first == GAControls(mutation_step=0.1, crossover_rate=0.3)
    assert middle.mutation_step == pytest.approx(0.01)  # half way of an exponential: the geometric mean
    assert middle.crossover_rate == pytest.approx(0.5)
    assert last.mutation_step == pytest.approx(0.001)
    assert last.crossover_rate == pytest.approx(0.7)


def test_the_schedule_stays_inside_the_ranges():
    policy = ScheduledPolicy(ScheduledPolicy.Config(mutation_step=1e-3, crossover_rate=0.9))
    run = {"n_generations": 10, "mutation_schedule": 1e-3, "crossover_schedule": 0.8}
    last = policy.controls(progress(9, **run))
    assert last.mutation_step == CONTROL_RANGES["mutation_step"].low
    assert last.crossover_rate == 1.0
    one = policy.controls(progress(0, n_generations=1))
    assert one.mutation_step == pytest.approx(1e-3)


def test_hyperparameters_are_checked_with_their_name():
    with pytest.raises(ConfigError, match="population_size is 2"):
        validate(Hyperparameters, {"population_size": 2}, "evolve.yaml")
    with pytest.raises(ConfigError, match="populaton_size is not a setting; did you mean population_size"):
        validate(Hyperparameters, {"populaton_size": 2}, "evolve.yaml")
    for field in (*Hyperparameters.model_fields.values(), *FixedPolicy.Config.model_fields.values()):
        assert field.description.endswith(".")
        assert len(field.metadata) == 2  # both bounds
