"""The registry of strategies, on strategies of two small files; tests/jobs has it on real ones."""

import contextlib
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from configs.load import ConfigError
from experiments import model_history, model_store, models
from experiments.model_history import append_event, read_history
from experiments.model_origin import Source, objections
from experiments.model_tables import model_document, version_rows
from experiments.models import Models, differences
from experiments.runs import Run
from tests.experiments.made_runs import NOON, _manifest, place

ROOT = Path(__file__).resolve().parents[2]
PASSED = ({"name": "trades", "value": 200.0, "threshold": 100.0, "passed": True},)
FAILED = (*PASSED, {"name": "annual Sharpe ratio", "value": 0.2, "threshold": 1.0, "passed": False})


class Loaded:
    """What stands for a strategy here: it knows who it is, and what it decides."""

    def __init__(self, document):
        self.document = document

    def fingerprint(self):
        return self.document["digest"]


def load(folder):
    """Read a strategy as suspiciously as the real one is read."""
    path = folder / "strategy.json"
    if not path.is_file():
        raise ConfigError(f"{path}: no such file; save a fitted strategy there first")
    document = json.loads(path.read_text())
    for name, digest in document["files"].items():
        if sha(folder / name) != digest:
            raise ConfigError(f"{folder / name}: is not the file that was saved with strategy.json")
    return Loaded(document)


def identify(folder):
    return load(folder).fingerprint()


def sha(path):
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else None


def save(folder, word):
    """Save a strategy; its fingerprint comes of the word."""
    for name in ("detector/detector.json", "sources/ranging/source.json"):
        (folder / name).parent.mkdir(parents=True)
        (folder / name).write_text(f"{name} of {word}\n" * 50)
    names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.json"))
    document = {
        "label": "BTC/USDT 1h",
        "fitted_until": 1_700_000_000_000_000_000,
        "sources": ["ranging"],
        "files": {name: sha(folder / name) for name in names},
        "digest": hashlib.sha256(word.encode()).hexdigest(),
    }
    (folder / "strategy.json").write_text(json.dumps(document))
    return document["digest"]


def validation(root, words, criteria=PASSED, minutes=0, finished=True):
    """A validation as it is left on the disk, with one strategy per word."""
    run = Run.open(root, "validate", "route", NOON + timedelta(minutes=minutes))
    prints = [
        save(run.folder / "strategies" / f"fold-{i:03d}", word) for i, word in enumerate(words, start=1)
    ]
    passed = all(one["passed"] for one in criteria)
    report = {
        "verdict": f"{'PASS' if passed else 'FAIL'}: the ensemble.",
        "passed": passed,
        "criteria": list(criteria),
        "data": {"settings": "d" * 64, "origin": "file", "first": "2019-01-01", "last": "2020-01-01"},
        "metrics": {"strategy": {"sharpe": 1.25}},
        "folds": [{"number": i, "fingerprint": one} for i, one in enumerate(prints)],
        "ledger": {"trials": {"n_unique": 1_234}, "looks": {"earlier": 2, "others": 1}},
    }
    (run.folder / "config.yaml").write_text("seed: 7\n")
    place(run, "manifest.json", _manifest() | {"data": {"bars": "e" * 64}})
    if finished:
        place(run, "report.json", report)
    return run


@pytest.fixture(autouse=True)
def unflushed(monkeypatch):
    """Wait for no disk: a process that dies loses nothing that it has written."""
    for module in (model_history, model_store):
        monkeypatch.setattr(module, "sync", lambda path: None)


@pytest.fixture
def runs(tmp_path):
    validation(tmp_path / "runs", ["one", "two", "three"])
    return tmp_path / "runs"


@pytest.fixture
def registry(tmp_path):
    return Models(tmp_path / "models", identify)


@pytest.fixture
def three(registry, runs):
    """A model of three versions that have all passed."""
    for fold in (1, 2, 3):
        registry.register("btc", Source.find("latest", runs, fold))
    return registry


def refused(call, *arguments, **named):
    """The one sentence with which something is refused."""
    with pytest.raises(ConfigError) as caught:
        call(*arguments, **named)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def stages(registry, name="btc"):
    return [version.stage for version in registry.model(name).versions]


# --- registering ----------------------------------------------------------------------------------------


def test_a_version_is_the_whole_strategy_and_knows_where_it_comes_from(registry, runs):
    version = registry.register("btc", Source.find("latest", runs), "the first one")
    (run,) = runs.iterdir()
    source = run / "strategies" / "fold-003"  # the latest has seen most
    files = {path.relative_to(source): path.read_bytes() for path in source.rglob("*") if path.is_file()}
    copied = {path.relative_to(version.folder): path.read_bytes() for path in version.folder.rglob("*.json")}
    assert copied == files
    assert (version.number, version.stage, version.note) == (1, "candidate", "the first one")
    assert version.fingerprint == identify(source)
    origin = version.origin
    assert (origin["run"], origin["fold"], origin["folds"]) == (run.name, 3, 3)
    assert (origin["passed"], origin["verdict"], origin["sharpe"]) == (True, "PASS: the ensemble.", 1.25)
    assert origin["criteria"] == list(PASSED)
    assert origin["looks"] == {"earlier": 2, "others": 1}
    assert (origin["trials"], origin["settings"], origin["data"]) == (1_234, "d" * 64, {"bars": "e" * 64})
    assert origin["code"]["sources"] == _manifest()["code"]["sources"]
    assert origin["libraries"]["numpy"]
    assert origin["report"] == sha(run / "report.json")
    assert (origin["fitted_until"], origin["members"]) == (1_700_000_000_000_000_000, ["ranging"])


def test_what_else_lies_in_a_folder_is_not_the_strategy(registry, runs):
    source = Source.find("latest", runs)
    (source.folder / ".DS_Store").write_text("x")
    version = registry.register("btc", source)
    assert not (version.folder / ".DS_Store").exists()
    (version.folder / ".DS_Store").write_text("x")
    assert version.damage() is None


def test_a_strategy_is_found_by_run_by_beginning_by_folder_and_by_fold(runs):
    (run,) = runs.iterdir()
    for text in ("latest", run.name, run.name[:12], run):
        assert Source.find(text, runs).folder == run / "strategies" / "fold-003"
    assert Source.find(run.name, runs, 2).fold == 2
    direct = Source.find(run / "strategies" / "fold-001", "nowhere")
    assert (direct.fold, direct.record.run.id) == (1, run.name)


def test_the_latest_validation_is_meant_and_not_the_latest_run(runs):
    (run,) = runs.iterdir()
    Run.open(runs, "evolve", "volatile", NOON + timedelta(minutes=5))
    assert Source.find("latest", runs).record.run.id == run.name


def test_what_cannot_be_registered_is_one_sentence_and_leaves_nothing(registry, runs, tmp_path):
    (run,) = runs.iterdir()
    unfinished_runs = tmp_path / "others"
    unfinished = validation(unfinished_runs, ["x"], finished=False)
    other = Run.open(tmp_path / "elsewhere", "evolve", "volatile", NOON)
    alone = tmp_path / "alone"
    save(alone, "alone")
    damaged = shutil.copytree(alone, tmp_path / "damaged")
    (damaged / "detector/detector.json").write_text("other")
    (tmp_path / "empty").mkdir()

    def register(text, fold=None, name="btc", folder=runs):
        registry.register(name, Source.find(text, folder, fold))

    for sentence, arguments in {
        "has no strategy of fold 9; it has 3 folds": (run.name, 9),
        "has no strategy of fold 0": (run.name, 0),
        "no run 'nothing' in": ("nothing",),
        "is no finished validation: report.json is missing": (unfinished.id, None, "btc", unfinished_runs),
        "is no validation; python -m ensemble.validate makes one": (
            other.id, None, "btc", tmp_path / "elsewhere",
        ),
        "holds no validation; python -m ensemble.validate makes one": (
            "latest", None, "btc", tmp_path / "elsewhere",
        ),
        "holds no saved strategy (strategy.json), and is no validation": (tmp_path / "empty",),
        "detector.json: is not the file that was saved": (damaged,),
        "is the strategy of one fold; --fold chooses": (alone, 1),
        "model '../btc' is not a name": (alone, None, "../btc"),
        "model 'v1.2' is not a name; it must have no dots": (alone, None, "v1.2"),
    }.items():  # fmt: skip
        assert sentence in refused(register, *arguments)
    assert not registry.root.exists()


def test_a_strategy_that_the_report_has_not_judged_is_refused(registry, runs):
    (run,) = runs.iterdir()
    folder = run / "strategies" / "fold-003"
    shutil.rmtree(folder)
    save(folder, "tuned afterwards")
    sentence = refused(registry.register, "btc", Source.find("latest", runs))
    assert "is not the strategy that the report of" in sentence
    assert not registry.root.exists()


def test_a_strategy_is_registered_once_under_a_name(three, runs):
    before = three.model("btc")
    sentence = refused(three.register, "btc", Source.find("latest", runs, 2))
    assert "is version 2 already" in sentence
    assert three.model("btc") == before
    assert three.register("eth", Source.find("latest", runs, 2)).number == 1


def test_a_strategy_that_changes_while_it_is_copied_is_refused(registry, runs, monkeypatch):
    source = Source.find("latest", runs)
    copy = shutil.copyfile

    def copying(one, two):
        copy(one, two)
        if one.name == "source.json":
            two.write_text("torn")

    monkeypatch.setattr(model_store.shutil, "copyfile", copying)
    assert "has changed while it was registered" in refused(registry.register, "btc", source)
    assert list(registry.root.iterdir()) == []


# --- promoting and rolling back ---------------------------------------------------------------------------


def test_one_version_is_served_at_a_time_and_a_rollback_serves_the_one_before(three):
    assert stages(three) == ["candidate"] * 3
    assert three.promote("btc", 1)[0] is None
    before, now = three.promote("btc", note="newer data")
    assert (before.number, now.number) == (1, 3)
    assert stages(three) == ["retired", "candidate", "production"]
    assert three.production("btc", load).fingerprint() == now.fingerprint
    before, now = three.rollback("btc", note="worse")
    assert (before.number, now.number) == (3, 1)
    assert three.production("btc", load).fingerprint() == now.fingerprint
    assert stages(three) == ["production", "candidate", "retired"]
    assert [(event.what, event.version, event.note) for event in three.model("btc").events[3:]] == [
        ("promote", 1, ""), ("promote", 3, "newer data"), ("rollback", 1, "worse"),
    ]  # fmt: skip


def test_what_cannot_be_served_is_one_sentence_and_changes_nothing(three):
    assert "there is nothing to roll back to; nothing is in production" in refused(three.rollback, "btc")
    assert "no version is in production" in refused(three.production, "btc", load)
    three.promote("btc", 1)
    assert "nothing was before version 1" in refused(three.rollback, "btc")
    three.promote("btc", 2)
    before = three.model("btc")
    assert "version 2 is in production already" in refused(three.promote, "btc", 2)
    assert "has no version 7; registered: 1, 2, 3" in refused(three.promote, "btc", 7)
    assert "version 2 is in production already" in refused(three.rollback, "btc", 2)
    sentence = refused(three.rollback, "btc", 3)
    assert "version 3 was not in production before version 2; it can go back to 1" in sentence
    assert "did you mean btc?" in refused(three.production, "btcc", load)
    assert three.model("btc") == before


def test_a_model_that_does_not_exist_makes_no_folder(registry):
    for call in (registry.promote, registry.rollback, registry.model):
        assert "no model 'btc'" in refused(call, "btc")
    assert not registry.root.exists()


def test_what_failed_its_validation_is_served_only_by_force_and_the_reason_is_kept(registry, tmp_path):
    validation(tmp_path / "runs", ["one"], FAILED)
    registry.register("btc", Source.find("latest", tmp_path / "runs"))
    sentence = refused(registry.promote, "btc")
    assert "misses 1 of 2 criteria (annual Sharpe ratio is 0.2, needs 1)" in sentence
    assert '--force "why"' in sentence
    assert "--force is empty" in refused(registry.promote, "btc", force=" ")
    assert stages(registry) == ["candidate"]
    registry.promote("btc", force="a rehearsal")
    told = registry.model("btc").events[-1].to_dict()
    assert told["forced"] == "a rehearsal"
    assert told["objections"] == ["its validation misses 1 of 2 criteria"]


def test_the_criteria_are_judged_once_more():
    # A report that was improved by hand, and one whose figures are not defined.
    claimed = [{**one, "passed": True} for one in FAILED]
    origin = {"verdict": "PASS", "passed": True, "criteria": claimed}
    assert objections(origin) == ["its validation misses 1 of 2 criteria"]
    assert objections({**origin, "criteria": [{**PASSED[0], "value": None}]})
    assert objections({**origin, "criteria": []}) == ["its validation has asked no criterion"]
    assert objections({**origin, "criteria": list(PASSED), "passed": False})
    assert objections({"verdict": None}) == ["no finished validation has judged it"]
    assert objections({**origin, "criteria": list(PASSED)}) == []


def test_what_nobody_has_judged_is_not_served(registry, tmp_path):
    save(tmp_path / "alone", "alone")
    run = validation(tmp_path / "runs", ["x"], finished=False)
    registry.register("btc", Source.find(tmp_path / "alone", "nowhere"))
    registry.register("btc", Source.find(run.folder / "strategies" / "fold-001", "nowhere"))
    for number in (1, 2):
        assert "no finished validation has judged it" in refused(registry.promote, "btc", number)
    assert registry.model("btc").version(2).origin["run"] == run.id
    registry.promote("btc", 1, force="it is all there is")
    assert stages(registry) == ["production", "candidate"]


@settings(max_examples=12, deadline=None)
@given(moves=st.lists(st.tuples(st.sampled_from("pr"), st.integers(1, 3)), max_size=10))
def test_any_sequence_of_promotions_and_rollbacks_serves_what_a_chain_of_parents_says(
    moves, tmp_path_factory
):
    # The reference: a version in production and the chain of those before it, never a list.
    folder = tmp_path_factory.mktemp("moves")
    validation(folder / "runs", ["one", "two", "three"])
    registry = Models(folder / "models", identify)
    for fold in (1, 2, 3):
        registry.register("btc", Source.find("latest", folder / "runs", fold))
    node = None
    for move, number in moves:
        if move == "p":
            with contextlib.suppress(ConfigError):
                registry.promote("btc", number)
            if node is None or node[0] != number:
                node = (number, node)
        else:
            parent = None if node is None or node[0] == number else node[1]
            while parent is not None and parent[0] != number:
                parent = parent[1]
            with contextlib.suppress(ConfigError):
                registry.rollback("btc", number)
            node = node if parent is None else parent
        found = registry.model("btc").in_production
        assert (None if found is None else found.number) == (None if node is None else node[0])


# --- what lies on the disk --------------------------------------------------------------------------------


def test_a_copy_of_the_folder_serves_elsewhere(three, tmp_path):
    three.promote("btc", 2)
    shutil.copytree(three.root, tmp_path / "machine" / "models")
    shutil.rmtree(three.root)
    other = Models(tmp_path / "machine" / "models", identify)
    assert other.production("btc", load).fingerprint() == hashlib.sha256(b"two").hexdigest()
    assert other.promote("btc", 3)[0].number == 2  # and it goes on there


@pytest.mark.parametrize("how", ["altered", "missing", "exchanged"])
def test_a_version_whose_files_were_changed_is_reported_and_never_served(three, how):
    three.promote("btc", 1)
    three.promote("btc", 2)
    one, two = (three.model("btc").version(number) for number in (1, 2))
    if how == "altered":
        (two.folder / "detector/detector.json").write_text("other")
    elif how == "missing":
        (two.folder / "detector/detector.json").unlink()
    else:  # another strategy, whole in itself
        shutil.rmtree(two.folder)
        shutil.copytree(one.folder, two.folder)
    assert "v2: is damaged" in refused(three.production, "btc", load)
    rows = version_rows(three)
    assert [row["state"] for row in rows] == ["whole", "damaged", "whole"]
    assert str(two.folder) in rows[1]["problem"]
    assert model_document(three.model("btc"))["state"] == "damaged"
    assert three.rollback("btc")[1].number == 1  # the way out
    assert "is damaged" in refused(three.promote, "btc", 2, force="I insist")


def test_without_digests_an_exchanged_version_would_still_be_noticed_when_loaded(three, monkeypatch):
    three.promote("btc", 2)
    one, two = (three.model("btc").version(number) for number in (1, 2))
    shutil.rmtree(two.folder)
    shutil.copytree(one.folder, two.folder)
    monkeypatch.setattr(model_store.Version, "damage", lambda self: None)
    assert "loads as strategy" in refused(three.production, "btc", load)
    monkeypatch.setattr(Models, "_require_same", lambda self, version, fingerprint: None)
    assert three.production("btc", load).fingerprint() == one.fingerprint  # and without both it is served


def test_a_history_that_was_edited_is_noticed(three):
    three.promote("btc", 1)
    three.promote("btc", 2)
    place = three.root / "btc" / "history"
    whole = {path: path.read_bytes() for path in place.iterdir()}

    def sentence():
        found = refused(three.production, "btc", load)
        (row,) = version_rows(three)
        assert (row["state"], row["problem"]) == ("damaged", found)
        for path, content in whole.items():
            path.write_bytes(content)
        assert three.model("btc").in_production.number == 2
        return found

    last, first = place / "000005.json", place / "000001.json"
    last.write_bytes(whole[last].replace(b'"version": 2', b'"version": 3'))
    assert "000005.json: is not the event that was written; restore" in sentence()
    first.unlink()
    assert "000001.json: is missing" in sentence()
    first.write_bytes(whole[first][:100])
    assert "000001.json: cannot be read" in sentence()
    last.write_text("{}")
    assert "is not the event that was written" in sentence()
    told = {**json.loads(whole[last]), "format": 2}
    last.write_text(json.dumps(told))
    assert "has format 2; this version reads format 1" in sentence()
    # An event that is whole in itself, but follows another one.
    elsewhere = three.root / "other"
    append_event(elsewhere, read_history(three.root / "btc")[:4], "promote", 3, "", {"before": 1})
    early = json.loads((elsewhere / "history" / "000005.json").read_text())
    (place / "000005.json").unlink()
    told = {key: value for key, value in {**early, "previous": "0" * 64}.items() if key != "seal"}
    (place / "000005.json").write_text(json.dumps({**told, "seal": model_history._seal(told)}))
    shutil.rmtree(elsewhere)
    assert "does not follow the event before it" in sentence()


def test_what_sets_two_versions_apart_is_told(three):
    one, two = three.model("btc").versions[:2]
    assert differences(one, two) == {"fold": (1, 2)}
    assert differences(one, one) == {}
    assert differences(None, two)["fold"] == (None, 2)


def test_a_model_is_one_document(three):
    three.promote("btc", 1)
    found = model_document(three.model("btc"))
    assert (found["version"], found["stage"], found["state"]) == (1, "production", "whole")
    assert model_document(three.model("btc"), 3)["version"] == 3
    assert [row["version"] for row in found["versions"]] == [1, 2, 3]
    assert [event["what"] for event in found["history"]] == ["register"] * 3 + ["promote"]
    assert json.loads(json.dumps(found)) == found
    assert found["fitted_until"] == "2023-11-14T22:13:20Z"


def test_an_unusable_place_is_one_sentence(runs, tmp_path):
    (tmp_path / "file").write_text("x")
    source = Source.find("latest", runs)
    assert "cannot be" in refused(Models(tmp_path / "file", identify).register, "btc", source)
    assert "cannot be listed" in refused(Models(tmp_path / "file", identify).names)
    assert Models(tmp_path / "nowhere", identify).names() == []


def test_a_registry_that_is_held_for_too_long_is_one_sentence(three):
    with model_history.locked(three.root), pytest.raises(ConfigError, match=r"changing models for 0\.1 s"):
        model_history.locked(three.root, 0.1).__enter__()
    assert three.promote("btc", 1)  # let go


def test_two_who_have_read_the_same_history_cannot_both_go_on(three):
    events = read_history(three.root / "btc")
    append_event(three.root / "btc", events, "promote", 1, "", {"before": None})
    sentence = refused(append_event, three.root / "btc", events, "promote", 2, "", {"before": None})
    assert "another process has changed this model in the meantime" in sentence
    assert three.model("btc").in_production.number == 1
    assert all(path.name.endswith(".json") and path.name[0] == "0" for path in
               (three.root / "btc" / "history").iterdir())  # fmt: skip


def test_nothing_has_a_name_before_it_is_on_the_disk(registry, runs, monkeypatch):
    told = []

    def spied(name, what):
        def call(*paths):
            told.append((name, *map(Path, paths)))
            return what(*paths)

        return call

    for module in (model_history, model_store):
        monkeypatch.setattr(module, "sync", spied("sync", module.sync))
    monkeypatch.setattr(model_history.os, "link", spied("name", os.link))
    monkeypatch.setattr(Path, "rename", spied("name", Path.rename))
    version = registry.register("btc", Source.find("latest", runs))
    named = [(i, *call[1:]) for i, call in enumerate(told) if call[0] == "name"]
    assert [call[2].name for call in named] == ["v1", "000001.json"]
    for i, draft, target in named:
        flushed = {path for _, path in (call for call in told[:i] if call[0] == "sync")}
        assert draft in flushed
        assert ("sync", target.parent) in told[i + 1 :]
        if target == version.folder:
            parts = {draft / path.relative_to(target) for path in target.rglob("*")}
            assert parts
            assert parts <= flushed


# --- processes that are killed ------------------------------------------------------------------------------


def work(registry, runs):
    """What is broken off: a second version is registered, and promoted."""
    registry.register("btc", Source.find("latest", runs, 2))
    registry.promote("btc", 2)


def die_at(number, under):
    """Kill this process before its so-manieth change of the disk; a file that it opens is half written."""
    changes = {"os.rename", "os.link", "os.mkdir", "os.remove", "os.rmdir", "shutil.copyfile"}
    left = [number]

    def hook(event, arguments):
        writes = (
            event == "open" and isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR)
        )
        if left[0] < 0 or not (writes or event in changes) or under not in str(arguments[0]):
            return
        left[0] -= 1
        if left[0] == 0:
            left[0] = -1
            if writes:
                Path(os.fsdecode(arguments[0])).write_bytes(b'{"half')
            os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)


def check_whole(registry, runs):
    """Whatever was broken off: what is served is whole, and the work can be done again to the same end."""
    words = {number: hashlib.sha256(word).hexdigest() for number, word in ((1, b"one"), (2, b"two"))}
    served = registry.model("btc").in_production
    assert registry.production("btc", load).fingerprint() == words[served.number]
    assert [row["state"] for row in version_rows(registry)] == ["whole"] * len(registry.model("btc").versions)
    for step in (
        lambda: registry.register("btc", Source.find("latest", runs, 2)),
        lambda: registry.promote("btc", 2),
    ):
        try:
            step()
        except ConfigError as error:
            assert "already" in str(error)  # noqa: PT017 - done before the kill, or now
    model = registry.model("btc")
    assert {version.number: version.fingerprint for version in model.versions} == words
    assert model.served == (1, 2)
    assert [event.what for event in model.events] == ["register", "promote", "register", "promote"]
    registry.promote("btc", 1)
    assert list(registry.root.rglob(".*")) == []
    assert registry.model("btc").leftovers == ()


def copies_in_place(monkey):
    """A broken build: the version is not made aside and renamed."""

    def place_version(root, model, source, files):
        number = 1 + len(model.versions)
        (root / model.name).mkdir(exist_ok=True)
        with contextlib.suppress(FileExistsError):
            model_store._copy(source, root / model.name / f"v{number}", files)
        return number

    monkey.setattr(models, "place_version", place_version)


def notes_first(monkey):
    """A broken build: the event is written before the version is there."""
    put, append, late = model_store.place_version, model_history.append_event, []

    def place_version(*arguments):
        late.append(arguments)
        return 1 + len(arguments[1].versions)

    def append_event(*arguments):
        append(*arguments)
        while late:
            put(*late.pop())

    monkey.setattr(models, "place_version", place_version)
    monkey.setattr(models, "append_event", append_event)


def writes_in_place(monkey):
    """A broken build: events are not linked into place whole."""

    def link(draft, target):
        Path(target).write_bytes(Path(draft).read_bytes())

    monkey.setattr(model_history.os, "link", link)


def sound(monkey):
    """The build as it is."""


BUILDS = (sound, copies_in_place, notes_first, writes_in_place)


def die_everywhere(folder):
    """Kill the work before each of its changes of the disk, with each build; print what came of it."""
    folder = Path(folder)
    registry, runs = Models(folder / "first" / "models", identify), folder / "runs"
    model_history.sync = model_store.sync = lambda path: None
    validation(runs, ["one", "two"])
    registry.register("btc", Source.find("latest", runs, 1))
    registry.promote("btc", 1)
    for build in BUILDS:
        with pytest.MonkeyPatch.context() as monkey:
            build(monkey)
            print(
                build.__name__, *killed_everywhere(folder / build.__name__, registry.root, runs), flush=True
            )


def killed_everywhere(folder, first, runs):
    """Whether what is left by a kill was ever not as it must be, and after how many changes of the disk."""
    for number in range(1, 1_000):
        place = folder / str(number)
        shutil.copytree(first, place / "models")
        child = os.fork()
        if not child:
            die_at(number, str(place))
            work(Models(place / "models", identify), runs)
            os._exit(0)
        status = os.waitpid(child, 0)[1]
        try:
            check_whole(Models(place / "models", identify), runs)
        except (AssertionError, ConfigError) as error:
            return "broken", number, " ".join(str(error).split())[:200]
        if status == 0:
            return "whole", number - 1
    raise AssertionError("the work never ends")


def compete(folder):
    """Promote from three processes at once, soundly and without the lock; print what came of it."""
    model_history.sync = model_store.sync = lambda path: None
    print(*promoted_at_once(Path(folder) / "sound", identify), flush=True)
    models.locked = lambda root: contextlib.nullcontext(root.mkdir(parents=True, exist_ok=True))
    model_history.os.link = os.replace
    print(*promoted_at_once(Path(folder) / "unlocked", lambda path: (time.sleep(0.003), identify(path))[1]))


def promoted_at_once(folder, identify):
    """How many promotions succeeded, how many events say so, and whether each follows the one before."""
    runs, registry = folder / "runs", Models(folder / "models", identify)
    validation(runs, ["one", "two"])
    for fold in (1, 2):
        registry.register("btc", Source.find("latest", runs, fold))
    children = []
    for name in range(3):
        child = os.fork()
        if not child:
            done = 0
            for turn in range(12):
                with contextlib.suppress(ConfigError, OSError):
                    registry.promote("btc", 1 + (turn + name) % 2)
                    done += 1
            (folder / f"done-{name}").write_text(str(done))
            os._exit(0)
        children.append(child)
    for child in children:
        os.waitpid(child, 0)
    succeeded = sum(int(path.read_text()) for path in folder.glob("done-*"))
    try:
        events = registry.model("btc").events[2:]
    except ConfigError:
        return succeeded, "damaged", False
    befores = [event.details["before"] for event in events]
    return succeeded, len(events), befores == [None, *[event.version for event in events[:-1]]]


def apart(call, folder):
    """What a process of its own prints, which may fork: nothing else runs in it."""
    program = f"import sys; from tests.experiments import test_models; test_models.{call}(sys.argv[1])"
    command = [sys.executable, "-W", "ignore", "-c", program, str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-2_000:]
    return [line.split() for line in done.stdout.splitlines()]


@pytest.fixture(scope="module")
def kills(tmp_path_factory):
    return {name: rest for name, *rest in apart("die_everywhere", tmp_path_factory.mktemp("kills"))}


def test_killed_at_any_moment_it_serves_a_whole_version_and_goes_on_to_the_same_end(kills):
    outcome, count = kills["sound"]
    assert outcome == "whole"
    assert int(count) >= 15


@pytest.mark.parametrize("build", [build.__name__ for build in BUILDS[1:]])
def test_a_build_that_is_not_whole_at_every_moment_is_caught(build, kills):
    assert kills[build][0] == "broken"


def test_promotions_at_once_wait_for_each_other_and_would_be_lost_without_the_lock(tmp_path):
    sound, unlocked = apart("compete", tmp_path)
    assert sound[0] == sound[1]
    assert sound[2] == "True"
    assert int(sound[1]) >= 10
    assert unlocked[0] != unlocked[1] or unlocked[2] == "False"
