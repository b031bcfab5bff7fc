"""Learning to learn: a regime never seen is learned from a few runs, better than by a net of other schooling,
and labels that teach nothing leave the network silent.

The tasks are made up: states of 64 numbers of which four matter, six bent features of these that all tasks
share, and for each task its own way from features to good residuals. On average over tasks nothing is good,
so what a network of all tasks together can learn is silence.
"""

import copy
import math

import numpy as np
import pytest
import torch

from conductor.model import Conductor
from conductor.network import N_CONTROLS, N_STATE, VARIANTS, tensors
from conductor.regression import as_tensors, fit, inputs_of_labels, one_per_fork
from conductor.school import Labels, School
from conductor.sight import Inputs
from conductor.state import HISTORY_NAMES, NO_REGIME
from conductor.steering import Steering
from conductor.variants.maml import Maml, MamlConfig, _Tasks, kinds_of, meta_trained
from ga.controls import GAControls
from regimes.regime import Regime

N_FEATURES, N_BRANCHES = 6, 12
NAMES = tuple(Labels.__dataclass_fields__)
TRENDING, VOLATILE = Regime.TRENDING, Regime.VOLATILE
SHARED = np.random.default_rng(11).normal(0.0, 1.0, (4, N_FEATURES))


@pytest.fixture(autouse=True, scope="module")
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def wanted(state, way):
    return np.tanh(state[:, :4] @ SHARED) @ way


def task_labels(seed, *, n_runs=8, forks=6, regime=NO_REGIME, first_run=0, true=True):
    """Labels of runs of one task: branches in pairs around none, better the nearer to what is wanted."""
    rng = np.random.default_rng(seed)
    way = rng.normal(0.0, 1.0, (N_FEATURES, N_CONTROLS))
    n = n_runs * forks
    state = rng.uniform(-1.5, 1.5, (n, N_STATE)).astype(np.float32)
    pairs = rng.normal(0.0, 1.0, (n, N_BRANCHES, N_CONTROLS))
    residual = np.concatenate([np.zeros((n, 1, N_CONTROLS)), pairs, -pairs], axis=1)
    gain = -((residual - wanted(state, way)[:, None]) ** 2).sum(axis=2)
    if not true:
        gain = rng.permuted(gain, axis=1)
    gain -= gain.mean(axis=1, keepdims=True)
    fork = first_run * forks + np.arange(n)
    each = residual.shape[1]
    return Labels(
        np.repeat(state, each, axis=0),
        np.zeros((n * each, 0, len(HISTORY_NAMES)), dtype=np.float32),
        np.zeros((n * each, 0), dtype=bool),
        np.full(n * each, regime, dtype=np.int64),
        residual.reshape(-1, N_CONTROLS).astype(np.float32),
        (gain / gain.std()).astype(np.float32).ravel(),
        np.repeat(fork, each),
        np.repeat(fork // forks, each),
    )


def joined(parts):
    return Labels(*(np.concatenate([getattr(p, name) for p in parts]) for name in NAMES))


def family(n_tasks, **settings):
    """Labels of several tasks, and which task each row belongs to."""
    parts = [task_labels(100 + t, first_run=8 * t, **settings) for t in range(n_tasks)]
    return joined(parts), np.repeat(np.arange(n_tasks), [len(part) for part in parts])


def new(seed=0, **settings):
    torch.manual_seed(seed)
    return Maml(MamlConfig(**{"support": 16, "query": 32, **settings}))


def error(network, labels):
    """Mean squared error on the forks of labels, as a share of that of silence."""
    rows = one_per_fork(labels)
    with torch.inference_mode():
        said = network(inputs_of_labels(as_tensors(rows))).numpy()
    return ((said - rows.residual) ** 2).sum() / (rows.residual**2).sum()


def unseen(number):
    """A few runs of a task that nothing was trained on, as a regime of its own, and other runs of it."""
    labels = task_labels(9000 + number, n_runs=24, regime=VOLATILE)
    few = labels.run < 4
    return labels.rows(np.flatnonzero(few)), labels.rows(np.flatnonzero(~few))


PAIRS = [tuple(map(one_per_fork, unseen(number))) for number in range(10)]


def mean_error(network, steps):
    """Of unseen regimes, learned from four runs of each, on twenty other runs of it."""
    return float(np.mean([error(network.adapted(few, steps), others) for few, others in PAIRS]))


@pytest.fixture(scope="module")
def many():
    return family(40)


@pytest.fixture(scope="module")
def trained(many):
    network = new()
    figures = meta_trained(network, many[0], steps=300, seed=1, task=many[1])
    return network, figures


def test_an_unseen_regime_is_learned_from_four_runs_better_than_without_learning_to_learn(trained, many):
    network, _ = trained
    steps = network.config.inner_steps
    adapted = mean_error(network, steps)
    pooled = new()
    fit(pooled, many[0], seed=1, epochs=40, keep="last")  # 320 steps of Adam on all tasks together
    # The rivals may have the best of many step sizes, as the tasks of the test themselves judge.
    rivals = {}
    for name, rival in (("pooled", pooled), ("untrained", new())):
        for step in (-6.0, -3.0, -1.0, 0.0, 2.0):
            rival.step.fill_(step)
            rivals[name, step] = mean_error(rival, steps)
    assert adapted < mean_error(network, 0) - 0.1
    assert adapted < min(rivals.values()) - 0.1


def test_more_steps_and_more_runs_teach_more(trained):
    network, _ = trained
    by_steps = [mean_error(network, steps) for steps in (0, 1, 3)]
    assert by_steps == sorted(by_steps, reverse=True)
    by_runs = [
        np.mean(
            [error(network.adapted(few.rows(np.flatnonzero(few.run < n))), others) for few, others in PAIRS]
        )
        for n in (1, 4)
    ]
    assert by_runs[1] < by_runs[0] - 0.02
    assert by_runs[1] == pytest.approx(mean_error(network, None))


def test_the_figures_say_what_adaptation_was_worth(trained):
    network, figures = trained
    assert figures["kept"] in figures["steps"][1:]
    at = figures["steps"].index(figures["kept"])
    assert figures["after"][at] == min(figures["after"]) < 0.9 * figures["silence"]
    assert figures["after"][at] < figures["before"][at]
    assert figures["before"][0] == pytest.approx(figures["silence"])  # a new network is silent
    assert figures["tasks"] == {str(task): 8 for task in range(40)}
    assert network.step.std() > 0.0  # a step size of its own for each control


def test_labels_that_teach_nothing_leave_the_network_silent():
    labels, task = family(12, true=False)
    network = new()
    figures = meta_trained(network, labels, steps=60, seed=1, task=task)
    assert figures["kept"] is None
    assert not answers(network, labels).any()


def answers(network, labels, regime=None):
    inputs = inputs_of_labels(as_tensors(one_per_fork(labels)))
    if regime is not None:
        inputs = inputs._replace(regime=torch.full_like(inputs.regime, int(regime)))
    with torch.inference_mode():
        return network(inputs).numpy()


def test_what_one_regime_has_learned_changes_no_other(trained):
    network, _ = trained
    few, others = PAIRS[0]
    adapted = network.adapted(few)
    for regime in (NO_REGIME, *Regime):
        same = np.array_equal(answers(adapted, others, regime), answers(network, others, regime))
        assert same == (regime != VOLATILE)
    # What is learned anew begins where the common layer is, not at what was learned before.
    assert np.array_equal(answers(adapted.adapted(few), others), answers(adapted, others))
    assert np.array_equal(answers(adapted.adapted(few, 0), others), answers(network.adapted(few, 0), others))


def test_each_regime_learns_for_itself(trained):
    network, _ = trained
    one, other = (
        task_labels(70, n_runs=4, regime=TRENDING),
        task_labels(71, n_runs=4, regime=VOLATILE, first_run=4),
    )
    both = network.adapted(joined([one, other]))
    for labels, regime in ((one, TRENDING), (other, VOLATILE)):
        assert np.array_equal(answers(both, one, regime), answers(network.adapted(labels), one, regime))


def test_after_schooling_a_regime_answers_with_what_it_has_learned():
    # Regimes that want different things, and one in which nothing helps.
    parts = [
        task_labels(5 + r, n_runs=40, regime=regime, first_run=40 * r, true=regime != VOLATILE)
        for r, regime in enumerate((Regime.RANGING, TRENDING, VOLATILE))
    ]
    network = new(steps=120)
    said = []
    school = School(
        None, None, None, lambda n: joined(parts), 3, 1.0, None, lambda *words: said.append(words)
    )
    figures = network.schooled(school)
    assert said[0][:2] == (0, 120)
    regimes = figures["regimes"]
    assert {name: found["answers"] for name, found in regimes.items()} == {
        "ranging": "learned",
        "trending": "learned",
        "volatile": "silent",
    }
    for name in ("ranging", "trending"):
        assert regimes[name]["learned"] < 0.9 * min(regimes[name]["common"], regimes[name]["silent"])
    ranging, trending, volatile = parts
    assert error_as(network, ranging, Regime.RANGING) < error_as(network, ranging, TRENDING) - 0.2
    assert error_as(network, trending, TRENDING) < error_as(network, trending, Regime.RANGING) - 0.2
    assert np.abs(answers(network, volatile)).max() < 1e-5


def error_as(network, labels, regime):
    rows = one_per_fork(labels)
    return ((answers(network, labels, regime) - rows.residual) ** 2).sum() / (rows.residual**2).sum()


def test_a_new_network_is_silent_in_every_regime_and_every_batch():
    network = VARIANTS.create("maml")
    rng = np.random.default_rng(0)
    inputs = some_inputs(rng, 15)
    with torch.inference_mode():
        assert not network(inputs).any()
    assert not [name for name, _ in network.searched() if "offset" in name or name == "step"]


def some_inputs(rng, n):
    state = rng.normal(size=(n, N_STATE)).astype(np.float32)
    regime = rng.integers(-1, 4, n)
    return tensors(Inputs(state, np.zeros((n, 0, 30), np.float32), np.zeros((n, 0), bool), regime))


def test_runs_may_stand_in_any_order_and_candidates_side_by_side(trained):
    network = copy.deepcopy(trained[0]).adapted(PAIRS[0][0])
    rng = np.random.default_rng(1)
    inputs = some_inputs(rng, 20)
    order = rng.permutation(20)
    with torch.inference_mode():
        said = network(inputs)
        turned = network(Inputs(*(part[order] for part in inputs)))
        torch.testing.assert_close(turned, said[order])
        weights = {name: torch.stack([one, 0.5 * one]) for name, one in network.named_parameters()}
        slices = Inputs(*(part.reshape(2, 10, *part.shape[1:]) for part in inputs))
        both = torch.func.vmap(lambda own, part: torch.func.functional_call(network, own, (part,)))(
            weights, slices
        )
    torch.testing.assert_close(both[0], said[:10])
    assert (both[1] != said[10:]).any()


def test_what_was_learned_is_saved_with_the_network(trained, tmp_path):
    few, others = PAIRS[0]
    network = trained[0].adapted(few)
    Conductor("maml", network, Steering.around(GAControls())).save(tmp_path)
    loaded = Conductor.load(tmp_path).network
    np.testing.assert_array_equal(answers(loaded, others), answers(network, others))
    np.testing.assert_array_equal(
        answers(loaded.adapted(few, 1), others), answers(network.adapted(few, 1), others)
    )


def test_the_same_seed_gives_the_same_weights(many):
    few = many[0].rows(np.flatnonzero(many[1] < 4))
    one, again, other = new(), new(), new()
    for network, seed in ((one, 1), (again, 1), (other, 2)):
        meta_trained(network, few, steps=15, seed=seed, task=many[1][many[1] < 4])
    weights = [torch.cat([part.ravel() for part in net.state_dict().values()]) for net in (one, again, other)]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


def test_support_and_query_share_no_run_and_held_out_runs_are_in_neither(many):
    rows = one_per_fork(many[0])
    task = rows.run // 8
    rng = np.random.default_rng(0)
    tasks = _Tasks(rows, task, rng)
    held = {int(run) for rows_held in tasks.held for run in rows.run[rows_held]}
    assert len(held) == 2 * 40
    for _ in range(50):
        support, query = tasks.draw(4, 5, 7, rng)
        assert support.shape == (4, 5)
        assert query.shape == (4, 7)
        for one, other in zip(rows.run[support], rows.run[query], strict=True):
            assert len({*(one // 8), *(other // 8)}) == 1
            assert not {*one} & {*other}
            assert not held & {*one.tolist(), *other.tolist()}


def test_runs_without_a_regime_are_sorted_by_what_their_search_looks_like():
    labels = joined(
        [
            task_labels(1, n_runs=12),
            task_labels(2, n_runs=12, first_run=12),
            task_labels(3, regime=VOLATILE, first_run=24),
        ]
    )
    second = (labels.run >= 12) & (labels.run < 24)
    labels.state[second, 3:8] += 4.0  # some statistics of the search tell the two apart
    found = kinds_of(labels, 2, seed=0)
    assert set(found[labels.regime == VOLATILE]) == {VOLATILE}
    assert len({*found[:1], *found[second]}) == 2
    assert len(set(found[second])) == len(set(found[labels.run < 12])) == 1
    assert set(found[labels.regime < 0]) == {-1, -2}
    assert set(kinds_of(labels.rows(np.flatnonzero(labels.run < 8)), 8, seed=0)) == {
        NO_REGIME
    }  # too few to sort


def test_too_few_runs_and_no_labels_are_refused():
    labels = task_labels(0, n_runs=3)
    with pytest.raises(ValueError, match="3 runs make no task of at least 4 runs"):
        meta_trained(new(), labels, steps=1, seed=0)
    with pytest.raises(ValueError, match="0 labels and 3 steps"):
        new().adapted(labels.rows(np.arange(0)))
    with pytest.raises(ValueError, match="-1 steps"):
        new().adapted(labels, -1)
    assert math.isclose(error(new(), labels), 1.0)
