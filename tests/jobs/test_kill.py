"""F1 and F2 on the whole command: killed at any moment and resumed, it ends in the same bytes."""

import hashlib

import pytest

from benchmarks import kills
from benchmarks.kills import Campaign, Kill, Trial, Workplace, evolve, kill_after, lost
from ga.checkpoint import Checkpoints
from ga.evolve import main
from ga.snapshot import pack
from tests.processes import server
from tests.unpainted import unpainted

# --- runs that are killed -------------------------------------------------------------------------------


def quick(arguments, said, told):
    """Run the command without painting its pictures, of which no byte is compared."""
    with unpainted():
        evolve(arguments, said, told)


@pytest.fixture(scope="module", autouse=True)
def ready():
    """The server from which the processes come."""
    server()


@pytest.fixture(scope="module")
def campaign(tmp_path_factory):
    """An undisturbed run to compare with."""
    return Campaign(tmp_path_factory.mktemp("kills"), seed=3, target=quick)


@pytest.mark.parametrize("kind", ["random"] * 5 + ["double"] * 2 + ["aimed"] * 3)
def test_a_killed_run_is_resumed_to_the_same_bytes_and_the_same_count_of_trials(kind, campaign):
    trial = getattr(campaign, kind)()
    assert trial.kills
    assert trial.differing == ()
    assert trial.lost <= 1
    if kind == "aimed":
        assert trial.kills[0].draft


def test_an_undisturbed_run_tells_every_generation_once(campaign):
    assert campaign.generations == kills.GENERATIONS
    for name in ("checkpoints/hall_of_fame.json", "metrics/generations.parquet", "ledger", "report: metrics"):
        assert name in campaign.expected
    assert any("specialist/genome.json" in name for name in campaign.expected)


def test_what_is_saved_does_not_change_while_the_search_goes_on(tmp_path, monkeypatch, blank_pictures):
    # A checkpoint may be written beside the next generation; a shared array would then be torn.
    def digest(state):
        return hashlib.sha256(b"".join(pack({}, state))).hexdigest()

    kept = []
    save = Checkpoints.save

    def noting(self, generation, state):
        kept.append((generation, state, digest(state)))
        return save(self, generation, state)

    monkeypatch.setattr(Checkpoints, "save", noting)
    with pytest.raises(SystemExit) as exit_:
        main(["--runs", str(tmp_path / "runs"), *kills.SETTINGS])
    assert exit_.value.code == 0
    assert [generation for generation, _, _ in kept] == list(range(kills.GENERATIONS + 1))
    assert [generation for generation, state, before in kept if digest(state) != before] == []


def test_a_run_whose_newest_checkpoint_is_damaged_says_so_and_goes_on_from_the_one_before(campaign, tmp_path):
    place = Workplace(tmp_path / "place", target=quick)
    kill = kill_after(place, 12)
    newest = sorted((place.run / kills.STATE).glob("*.ckpt"))[-1]
    content = bytearray(newest.read_bytes())
    content[len(content) // 2] ^= 16
    newest.write_bytes(content)
    trial = campaign.compared("damaged", place, [kill])
    assert trial.differing == ()
    assert 1 <= trial.lost <= 2
    said = " ".join(place.said.read_text().split())
    assert f"! {newest.name}: does not match its checksum; passed over" in said
    assert "! falling back to the checkpoint of generation" in said


def test_a_run_that_cannot_be_resumed_is_one_sentence_and_is_left_as_it_is(tmp_path):
    place = Workplace(tmp_path / "place", target=quick)
    kill_after(place, 3)
    state = place.run / kills.STATE

    def resumed():
        length = len(place.said.read_text())
        process = place.begin()
        process.join(kills.PATIENCE_S)
        assert process.exitcode == 2
        said = " ".join(place.said.read_text()[length:].split())
        assert "Traceback" not in said
        assert said.count("error: ") == 1
        return said

    with Checkpoints(state, {}):
        assert "another process works on this run" in resumed()
    files = sorted(state.glob("*.ckpt"))
    for path in files:
        path.write_bytes(path.read_bytes()[:-1])
    assert f"no checkpoint is intact ({files[-1].name}: has" in resumed()
    assert sorted(state.glob("*.ckpt")) == files
    assert not (place.run / "report.json").exists()


# --- builds that are broken on purpose -----------------------------------------------------------------


def without_its_generator(arguments, said, told):
    """Resume with the random numbers of a new search."""
    from ga.searching import Search

    restore = Search.restore

    def forgetful(search, state):
        fresh = search.evolution._rng.bit_generator.state
        restore(search, state)
        search.evolution._rng.bit_generator.state = fresh

    Search.restore = forgetful
    quick(arguments, said, told)


def saving_only_once(arguments, said, told):
    """Save the first generation and no other."""
    save = Checkpoints.save
    Checkpoints.save = lambda self, generation, state: generation or save(self, generation, state)
    quick(arguments, said, told)


def counting_from_the_resume_on(arguments, said, told):
    """Enter into the ledger what a resumed process evaluates, and not what was evaluated before it."""
    from specialists.watching import TrialBook

    note = TrialBook.note

    def forgetful(book, evaluator):
        if book._evaluator is None and "--resume" in arguments:
            book._written = len(evaluator.calls) - 1
        note(book, evaluator)

    TrialBook.note = forgetful
    quick(arguments, said, told)


@pytest.mark.parametrize(
    ("target", "what"),
    [
        (without_its_generator, "metrics/generations.parquet"),
        (saving_only_once, None),
        (counting_from_the_resume_on, "ledger"),
    ],
)
def test_a_broken_build_would_be_noticed(target, what, campaign, tmp_path):
    # Negative controls: killed in the middle and resumed, each of them differs from the sound one.
    place = Workplace(tmp_path / "place", target=target)
    kill = kill_after(place, campaign.generations // 2)
    assert kill is not None
    trial = campaign.compared("middle", place, [kill])
    assert not trial.passed
    if what is None:
        assert trial.lost > 1
    else:
        assert what in trial.differing


# --- the counting itself -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("told", "generations"),
    [
        ([], 0),
        ([0, 1, 2, 3], 0),
        ([0, 1, 2, 2, 3], 1),
        ([0, 1, 2, 2, 2, 3], 1),
        ([0, 1, 2, 1, 2, 3], 2),
        ([0, 1, 0, 1, 2, 3, 4, 1], 4),
    ],
)
def test_lost_generations_are_those_told_again(told, generations):
    assert lost(told) == generations


def test_the_table_fails_for_one_run_that_differs_or_lost_two_generations(capsys):
    good = Trial("random", (Kill(3, False),), 1, ())
    assert kills.show([good, Trial("aimed", (Kill(7, True),), 0, ())])
    assert "FAILED" not in capsys.readouterr().out
    assert not kills.show([good, Trial("random", (Kill(3, False),), 2, ())])
    assert not kills.show([good, Trial("double", (Kill(3, False), Kill(4, False)), 1, ("ledger",))])
    assert "('ledger',)" in capsys.readouterr().out
