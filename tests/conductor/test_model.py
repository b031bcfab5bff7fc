"""A conductor on disk: it comes back to the bit, and what is no conductor is refused in one sentence."""

import json

import numpy as np
import pytest
import torch

from conductor.conducting import Conducting
from conductor.market_context import CONTEXT_NAMES, ContextScaler
from conductor.model import DOCUMENT, SCALER, WEIGHTS, Conductor, find, read_document
from conductor.network import flat, new_network, put, tensors
from conductor.sight import Inputs
from conductor.state import HISTORY_NAMES, STATE_NAMES
from conductor.steering import Steering
from configs.load import ConfigError
from experiments.runs import Run
from ga.controls import RUGGED, GAControls
from ga.variation import Variation
from market.table import DataError


def made(name="es", settings=None, seed=1, **further):
    network = new_network(name, settings or {}, seed)
    rng = np.random.default_rng(seed)
    put(network, flat(network) + rng.normal(0.0, 0.2, flat(network).size))
    return Conductor(name, network.eval(), Steering.around(RUGGED), **further)


def seen(n=5, n_history=0, seed=3):
    rng = np.random.default_rng(seed)
    return Inputs(
        rng.normal(size=(n, len(STATE_NAMES))).astype(np.float32),
        rng.normal(size=(n, n_history, len(HISTORY_NAMES))).astype(np.float32),
        np.ones((n, n_history), dtype=bool),
        np.arange(n) % 4 - 1,
    )


def answer(conductor, inputs):
    steering, network = conductor.steering, conductor.network
    return steering.steered(
        Conducting(network, steering, None).residual(tensors(inputs)),
        np.full((len(inputs.state), 12), np.nan),
    )


@pytest.mark.parametrize(
    "name", ["es", "dann", "hybrid", "specific", "multitask", "committee", "transformer", "maml"]
)
def test_every_variant_comes_back_from_the_disk_and_answers_with_the_same_bits(name, tmp_path):
    conductor = made(name)
    again = Conductor.load(conductor.save(tmp_path / "c"))
    inputs = seen(n_history=conductor.network.n_history)
    np.testing.assert_array_equal(answer(conductor, inputs), answer(again, inputs))
    assert again.steering == conductor.steering
    assert again.variation == conductor.variation
    assert type(again.network) is type(conductor.network)


def test_scaler_operators_dates_and_story_come_back_too(tmp_path):
    scaler = ContextScaler(CONTEXT_NAMES[:2], (0.1, -0.3), (1.5, 2.0), 12_345, 4.0)
    story = {"tasks": ["sphere"], "curve": [{"generation": 0.0, "final": -0.25}]}
    conductor = made(variation=Variation(rotation=0.25), scaler=scaler, fitted_until=99, story=story)
    again = Conductor.load(conductor.save(tmp_path))
    assert (again.scaler, again.fitted_until, again.story) == (scaler, 99, story)
    assert again.variation.rotation == 0.25


def test_saving_twice_gives_the_same_bytes(tmp_path):
    for folder in ("a", "b"):
        made().save(tmp_path / folder)
    for name in (WEIGHTS, DOCUMENT):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_loading_moves_no_global_generator(tmp_path):
    made().save(tmp_path)
    before = torch.random.get_rng_state()
    new_network("es", {}, 3)
    assert torch.equal(before, torch.random.get_rng_state())


def _changed(folder, **entries):
    document = json.loads((folder / DOCUMENT).read_text())
    (folder / DOCUMENT).write_text(json.dumps(document | entries))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda f: (f / DOCUMENT).unlink(), "no such file"),
        (lambda f: (f / DOCUMENT).write_text("{}"), "is no saved conductor"),
        (lambda f: (f / WEIGHTS).unlink(), "is missing"),
        (lambda f: (f / WEIGHTS).write_bytes((f / WEIGHTS).read_bytes()[:-1] + b"x"), "is not the file"),
        (lambda f: _changed(f, format=2), "has format 2"),
        (lambda f: _changed(f, state_version=0), "state version 0"),
        (lambda f: _changed(f, static={"mutation_rate": 0.5}), "static is no set of tuned controls"),
        (lambda f: _changed(f, settings={"hidden": 3}), "does not hold the weights of variant es"),
        (lambda f: _changed(f, variant="dann", settings={}), "does not hold the weights of variant dann"),
        (lambda f: _changed(f, scaled=True), SCALER),
    ],
)
def test_a_damaged_conductor_is_refused_in_one_sentence(damage, message, tmp_path):
    made().save(tmp_path)
    damage(tmp_path)
    with pytest.raises(DataError, match=message) as error:
        Conductor.load(tmp_path)
    assert "\n" not in str(error.value)


def test_an_unknown_variant_or_setting_is_refused_with_its_name(tmp_path):
    made().save(tmp_path)
    _changed(tmp_path, variant="oracle")
    with pytest.raises(ConfigError, match="oracle"):
        Conductor.load(tmp_path)
    _changed(tmp_path, variant="es", settings={"hiden": 3})
    with pytest.raises(ConfigError, match="hiden"):
        Conductor.load(tmp_path)


def test_conductors_are_found_by_folder_run_and_variant(tmp_path):
    runs = tmp_path / "runs"
    folders = []
    for seed in (1, 2):
        run = Run.open(runs, "train", "es")
        folders.append(made(seed=seed).save(run.folder / "conductor"))
    Run.open(runs, "train", "es")  # broken off: there is no conductor in it
    assert find(str(folders[0]), runs) == folders[0]
    assert find(str(folders[0].parent), runs) == folders[0]
    assert find(folders[0].parent.name, runs) == folders[0]
    assert find("es", runs) == folders[1]
    with pytest.raises(ConfigError, match="no conductor named 'dann'"):
        find("dann", runs)


def test_the_document_is_read_without_the_weights(tmp_path):
    conductor = made(fitted_until=7)
    conductor.save(tmp_path)
    assert read_document(tmp_path)["fitted_until"] == 7
    assert Steering.around(GAControls()) != conductor.steering


def test_the_conductor_that_comes_with_the_project_is_found_loads_and_tells_its_story(tmp_path):
    folder = find("es", tmp_path / "runs")
    conductor = Conductor.load(folder)
    assert conductor.fitted_until == 0  # it has seen no market, so it may conduct on any bars
    assert conductor.story["tasks"]
    said = answer(conductor, seen())
    static = conductor.steering.controls.to_array()
    assert np.isfinite(said).all()
    assert (said != static).any()
