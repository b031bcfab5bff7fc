"""Variant es: what it sees, and how a control with inertia adds up what it is told."""

import numpy as np
import pytest
import torch

from conductor.network import VARIANTS, new_network, tensors
from conductor.sight import Inputs
from conductor.state import CONTROLS, STATE_NAMES
from conductor.steering import Steering
from configs.load import ConfigError
from ga.controls import CONTROL_NAMES, GAControls, places_of, values_at

STEERING = Steering.around(GAControls())
STEP = CONTROL_NAMES.index("mutation_step")
CLOCK = STATE_NAMES.index("budget_used")


def settled(**settings):
    network = new_network("es", settings, 1)
    network.settle(STEERING)
    return network


def seen(places, clock):
    state = np.zeros((1, len(STATE_NAMES)), np.float32)
    state[:, CONTROLS] = places
    state[:, CLOCK] = clock
    return tensors(Inputs(state, np.zeros((1, 0, 30), np.float32), np.zeros((1, 0), bool), np.array([-1])))


def conducted(network, n=60):
    """Places of the controls, generation by generation, of a network that nothing changes for."""
    places, controls = [], np.full((1, 12), np.nan)
    for generation in range(n):
        shown = np.full(12, 0.5) if np.isnan(controls).any() else places_of(controls)
        with torch.inference_mode():
            residual = network(seen(shown, generation / n)).numpy()
        controls = STEERING.steered(residual, controls)
        places.append(places_of(controls)[0])
    return np.array(places)


@pytest.mark.parametrize("inertia", [False, True])
def test_a_new_network_leaves_the_tuned_controls_to_the_bit(inertia):
    places = conducted(settled(inertia=inertia))
    np.testing.assert_array_equal(places, np.tile(places_of(values_at(np.array(STEERING.static))), (60, 1)))


def test_without_inertia_a_control_comes_to_where_it_is_told_and_with_it_goes_on():
    plain, heavy = settled(), settled()
    with torch.no_grad():
        for network in (plain, heavy):
            network.head.bias[STEP] = -0.2
        heavy.inertia[STEP] = 1.0
    told = STEERING.target(np.where(np.arange(12) == STEP, -0.2, 0.0))[STEP]
    assert conducted(plain)[-1, STEP] == pytest.approx(told, abs=1e-6)
    way = conducted(heavy)[:, STEP]
    assert (np.diff(way[way > 0.0]) < 0.0).all()
    assert way[-1] < told - 0.2
    others = np.arange(12) != STEP
    np.testing.assert_allclose(conducted(heavy)[:, others], conducted(plain)[:, others], atol=1e-12)


def test_half_an_inertia_comes_to_rest():
    network = settled()
    with torch.no_grad():
        network.head.bias[STEP], network.inertia[STEP] = -0.2, 0.5
    way = conducted(network)[:, STEP]
    assert abs(way[-1] - way[-2]) < 1e-6
    # At rest the target is where the control stands: twice as far in logits as without inertia.
    double = STEERING.target(np.where(np.arange(12) == STEP, -0.4, 0.0))[STEP]
    assert way[-1] == pytest.approx(double, abs=1e-4)


def test_before_the_first_generation_there_is_nothing_to_stay_at():
    network = settled()
    with torch.no_grad():
        network.inertia.fill_(1.0)
    away = np.full(12, 0.9)
    assert not network(seen(away, 0.0)).detach().numpy().any()
    assert network(seen(away, 0.1)).detach().numpy().all()


def test_members_of_a_committee_learn_where_the_tuned_controls_stand():
    committee = VARIANTS.create("committee")
    committee.settle(STEERING)
    (es,) = (member for member in committee.members if hasattr(member, "home"))
    np.testing.assert_allclose(es.home.numpy(), STEERING.static, rtol=1e-6)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"features": ["budget_usd"]}, "budget_used"),
        ({"features": ["budget_used", "budget_used"]}, "once each"),
        ({"features": []}, "features"),
    ],
)
def test_wrong_features_are_refused(settings, message):
    with pytest.raises(ConfigError, match=message):
        VARIANTS.create("es", settings)
