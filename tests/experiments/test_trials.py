import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from compute.seeds import stream
from configs.load import ConfigError
from experiments.evidence import pbo
from experiments.trials import TrialMatrix

BLOCKS = 6
BARS = np.array([20, 20, 20, 20, 19, 19])


def keys_of(numbers):
    return [int(number).to_bytes(16, "little") for number in numbers]


def answers_of(returns, fitness=None):
    """What a fitness would answer about trials with these returns, float64 (n, trials)."""
    blocks = np.array_split(returns, BLOCKS)
    sums = np.array([block.sum(axis=0) for block in blocks]).T
    squares = np.array([(block**2).sum(axis=0) for block in blocks]).T
    if fitness is None:
        fitness = returns.mean(axis=0) / returns.std(axis=0, ddof=1)
    return np.hstack([fitness[:, None], sums, squares])


def some_returns(n_trials, seed=0):
    return stream(seed, "trials").normal(0.0002, 0.01, size=(int(BARS.sum()), n_trials))


def filled(numbers, returns, capacity=64, batch=17):
    matrix = TrialMatrix(BARS, capacity)
    answers = answers_of(returns)
    for i in range(0, len(numbers), batch):
        matrix.append(keys_of(numbers[i : i + batch]), answers[i : i + batch])
    return matrix


def test_pbo_of_a_search_is_pbo_of_the_returns_of_its_trials():
    returns = some_returns(40)
    found, expected = filled(np.arange(40), returns).pbo(), pbo(returns, BLOCKS)
    assert found.pbo == expected.pbo
    assert found.loss == expected.loss
    assert found.slope == pytest.approx(expected.slope, rel=1e-5)  # sums are kept in single precision
    wrong = pbo(returns[::-1] * np.linspace(1, 3, len(returns))[:, None], BLOCKS)
    assert wrong.slope != pytest.approx(expected.slope, rel=1e-2)


@given(st.permutations(range(150)), st.integers(1, 60))
@settings(max_examples=15, deadline=None)
def test_the_sample_does_not_depend_on_order_or_batches(order, batch):
    returns = some_returns(150)
    straight = filled(np.arange(150), returns)
    other = filled(np.array(order), returns[:, order], batch=batch)
    for one, two in zip(straight.sums(), other.sums(), strict=True):
        assert one.tobytes() == two.tobytes()
    assert straight.n_seen == other.n_seen == 150
    assert len(straight) in (64, 65)  # the fittest comes on top where the sample has not drawn it


def test_the_sample_is_uniform_over_the_order_of_a_search():
    # A search improves: a sample that leaned on its beginning or its end would show it.
    numbers = np.arange(20_000)
    fitness = numbers / 20_000
    matrix = TrialMatrix(BARS, 2_000)
    sums = np.hstack([np.tile(fitness[:, None], (1, BLOCKS)), np.ones((len(fitness), BLOCKS))])
    matrix.append(keys_of(numbers), np.column_stack([fitness, sums]))
    drawn = np.sort(matrix.sums()[0][0][:2_000])
    # Kolmogorov-Smirnov: beyond 1.63 / sqrt(n) is a chance of 1 in 100.
    distance = np.abs(drawn - np.arange(2_000) / 2_000).max()
    assert distance < 1.63 / np.sqrt(2_000)
    first = fitness[:2_000]  # the negative control: the first 2,000
    assert np.abs(first - np.arange(2_000) / 2_000).max() > 0.5


def test_asking_twice_counts_a_genome_once():
    returns = some_returns(30)
    once = filled(np.arange(30), returns)
    twice = filled(np.concatenate([np.arange(30), np.arange(30)]), np.hstack([returns, returns]))
    assert len(twice) == len(once) == 30
    assert once.sums()[0].tobytes() == twice.sums()[0].tobytes()


def test_the_fittest_is_always_among_the_trials():
    returns = some_returns(500, seed=3)
    matrix = filled(np.arange(500), returns, capacity=8)
    best = int(np.argmax(answers_of(returns)[:, 0]))
    expected = answers_of(returns)[best, 1 : 1 + BLOCKS].astype(np.float32)
    held = matrix.sums()[0].T.astype(np.float32)
    assert (held == expected).all(axis=1).any()
    # Without it 8 of 500 would hardly ever hold it, and here they do not.
    assert len(matrix) == 9
    nan = answers_of(returns[:, :2], fitness=np.array([np.nan, np.nan]))
    unfit = TrialMatrix(BARS, 8)
    unfit.append(keys_of([1, 2]), nan)
    assert len(unfit) == 2


def test_memory_does_not_grow_with_the_search():
    matrix = TrialMatrix(BARS, 64)
    for batch in range(50):
        matrix.append(keys_of(np.arange(200) + 200 * batch), answers_of(some_returns(200, batch)))
    assert matrix.n_seen == 10_000
    assert len(matrix) <= 65
    assert sum(np.asarray(part).nbytes for part in matrix.state().values()) < 8_000


def test_the_first_batch_is_kept_apart_from_what_was_bred_from_it():
    blind, bred = some_returns(40), some_returns(200, seed=9) + 0.01
    matrix = TrialMatrix(BARS, 64)
    assert matrix.pbo_of_first() is None
    matrix.append(keys_of(range(40)), answers_of(blind))
    before = matrix.pbo_of_first()
    assert before.logits == pytest.approx(pbo(blind, BLOCKS).logits)
    matrix.append(keys_of(range(40, 240)), answers_of(bred))
    assert matrix.pbo_of_first().logits.tobytes() == before.logits.tobytes()
    assert matrix.pbo().loss == 0.0 < before.loss  # what was bred gains in every block
    again = TrialMatrix(BARS, 64)
    again.restore(matrix.state())
    assert again.pbo_of_first().logits.tobytes() == before.logits.tobytes()


def test_a_search_that_learns_from_all_blocks_hides_its_overfitting_from_cscv():
    # The reason for the first batch: kin of what was lucky everywhere make noise look like skill.
    all_trials, first = [], []
    for seed in range(8):
        blind = some_returns(2_000, seed=100 + seed) - 0.0002
        sharpe = blind.mean(axis=0) / blind.std(axis=0, ddof=1)
        champion = blind[:, np.argmax(sharpe)]
        kin = champion[:, None] + 0.1 * (some_returns(200, seed=200 + seed) - 0.0002)
        matrix = TrialMatrix(BARS, 512)
        matrix.append(keys_of(range(200)), answers_of(blind[:, :200]))
        matrix.append(keys_of(range(200, 400)), answers_of(kin))
        all_trials.append(matrix.pbo().loss)
        first.append(matrix.pbo_of_first().loss)
    assert np.mean(all_trials) < np.mean(first) - 0.15
    assert np.mean(first) == pytest.approx(0.5, abs=0.15)


# --- saved, and gone on with -----------------------------------------------------------------------------


def test_a_restored_matrix_goes_on_as_the_one_that_was_stopped():
    returns = some_returns(300, seed=5)
    answers = answers_of(returns)
    straight = filled(np.arange(300), returns)
    stopped = filled(np.arange(150), returns[:, :150])
    resumed = TrialMatrix(BARS, 64)
    resumed.restore(stopped.state())
    stopped.append(keys_of(range(150, 300)), answers[150:])
    resumed.append(keys_of(range(150, 300)), answers[150:])
    for matrix in (stopped, resumed):
        assert matrix.n_seen == 300
        assert matrix.sums()[0].tobytes() == straight.sums()[0].tobytes()
    # The negative control: forgetting the first half is seen.
    forgetful = TrialMatrix(BARS, 64)
    forgetful.append(keys_of(range(150, 300)), answers[150:])
    assert forgetful.sums()[0].tobytes() != straight.sums()[0].tobytes()


def test_a_saved_matrix_comes_back_whole_and_the_same_matrix_gives_the_same_bytes(tmp_path):
    matrix = filled(np.arange(100), some_returns(100))
    matrix.save(tmp_path / "trials.npz")
    again = TrialMatrix.load(tmp_path / "trials.npz")
    assert again.n_seen == 100
    assert again.pbo().logits.tobytes() == matrix.pbo().logits.tobytes()
    again.save(tmp_path / "again.npz")
    assert (tmp_path / "again.npz").read_bytes() == (tmp_path / "trials.npz").read_bytes()


class Runs:
    """What unpickling it would do."""

    def __reduce__(self):
        return os.mkdir, ("executed",)


@pytest.mark.parametrize("damage", ["missing", "cut", "flipped", "pickled", "other", "text"])
def test_a_file_that_is_no_trial_matrix_is_one_sentence(tmp_path, monkeypatch, damage):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "trials.npz"
    filled(np.arange(100), some_returns(100)).save(path)
    content = path.read_bytes()
    if damage == "missing":
        path.unlink()
    elif damage == "cut":
        path.write_bytes(content[: len(content) // 2])
    elif damage == "flipped":
        at = content.index(b"blocks.npy") + 2_000
        path.write_bytes(content[:at] + bytes([content[at] ^ 16]) + content[at + 1 :])
    elif damage == "pickled":
        np.savez(path, format=np.array([Runs()], dtype=object))
    elif damage == "other":
        np.savez(path, format=1, something=np.zeros(3))
    else:
        path.write_text("not an archive")
    with pytest.raises(ConfigError, match=r"trials\.npz: is not a trial matrix that can be read") as caught:
        TrialMatrix.load(path)
    assert "\n" not in str(caught.value)
    assert not Path("executed").exists()


def test_bad_trials_are_refused():
    matrix = TrialMatrix(BARS, 8)
    good = answers_of(some_returns(3))
    with pytest.raises(ValueError, match=r"answers has shape \(3, 12\) for 3 genomes"):
        matrix.append(keys_of(range(3)), good[:, 1:])
    with pytest.raises(ValueError, match=r"for 2 genomes"):
        matrix.append(keys_of(range(2)), good)
    good[1, 5] = np.nan
    with pytest.raises(ValueError, match="row 1 are not finite"):
        matrix.append(keys_of(range(3)), good)
    assert matrix.n_seen == len(matrix) == 0
    assert matrix.pbo() is None
    matrix.append([], good[:0])
    for blocks, capacity in (([20], 8), ([20, 1], 8), ([20, 20], 1)):
        with pytest.raises(ValueError, match="at least"):
            TrialMatrix(np.array(blocks), capacity)
    for wrong in (TrialMatrix(BARS, 9), TrialMatrix(BARS + 1, 8)):
        with pytest.raises(ValueError, match="of other blocks or of another capacity"):
            matrix.restore(wrong.state())


SAMPLE = """
import numpy as np
from experiments.trials import _names
print(_names([int(i).to_bytes(16, "little") for i in range(5)]).tolist())
"""


def test_names_do_not_depend_on_the_process(root):
    # Python's own hash would: a resumed run would then draw another sample.
    found = {
        subprocess.run(
            [sys.executable, "-c", SAMPLE],
            cwd=root,
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(found) == 1
