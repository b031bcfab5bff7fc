"""No spoiled file is accepted silently, and each refusal is one sentence (guarantees F7 and section 9)."""

import re
import time

import numpy as np
import pytest

import tests.market.row_mutators  # noqa: F401 - registers the mutators of rows
from market.quality import QualityReport
from market.sources.files import read_bars
from market.table import DataError
from tests.market.mutators import MUTATORS, N_BARS, NOW_NS, clean_frame, write_any, write_csv

SEEDS = range(6)
SLOW = {"single_line_of_100_mb", "zip_bomb"}


def read(case, **more):
    options = {"symbol": "BTC/USDT", "now_ns": NOW_NS} | case.options | more
    return read_bars(case.path, **options)


def clean_fingerprint(seed, folder):
    folder.mkdir(exist_ok=True)
    path = write_csv(clean_frame(np.random.default_rng(seed)), folder / "clean.csv")
    bars, report = read_bars(path, symbol="BTC/USDT", now_ns=NOW_NS)
    return bars.fingerprint(), report


def test_all_71_mutators_of_the_guarantees_are_there():
    shelves = [one.shelf for one in MUTATORS.values()]
    counts = {shelf: shelves.count(shelf) for shelf in ("file", "container", "time", "value")}
    assert counts == {"file": 22, "container": 10, "time": 19, "value": 20}


def test_the_clean_file_is_accepted_without_any_warning(tmp_path):
    for seed in SEEDS:
        _, report = clean_fingerprint(seed, tmp_path)
        assert report.rows == N_BARS
        assert report.warnings == ()


@pytest.mark.parametrize("name", MUTATORS)
def test_every_spoiled_file_is_refused_flagged_or_harmless(name, tmp_path):
    mutator = MUTATORS[name]
    for seed in SEEDS if name not in SLOW else range(2):
        folder = tmp_path / str(seed)
        folder.mkdir()
        fingerprint, _ = clean_fingerprint(seed, tmp_path / "clean")
        case = mutator.make(np.random.default_rng(seed), folder)
        started = time.perf_counter()
        if mutator.outcome == "benign":
            bars, _ = read(case)
            assert bars.fingerprint() == fingerprint, seed
        elif mutator.outcome == "flagged":
            bars, report = read(case)
            assert bars.fingerprint() != fingerprint
            assert any(re.search(mutator.says, warning) for warning in report.warnings), report.warnings
        else:
            with pytest.raises(DataError) as refusal:
                read(case)
            sentence = str(refusal.value)
            assert sentence.startswith(str(case.path)), sentence
            assert "\n" not in sentence
            assert len(sentence) < 500
            assert re.search(mutator.says, sentence), (seed, sentence)
            if mutator.remedy:
                check_remedy(mutator, case, fingerprint, seed)
        assert time.perf_counter() - started < 10


def check_remedy(mutator, case, fingerprint, seed):
    bars, report = read(case, **mutator.remedy)
    assert isinstance(report, QualityReport)
    if mutator.restores:
        assert bars.fingerprint() == fingerprint, seed
    for kind, counts in (("repairs", report.repairs), ("accept", report.accepted)):
        for name in mutator.remedy.get(kind, ()):
            assert counts[name] > 0, (seed, name, counts)


def test_a_reader_that_accepts_everything_would_be_caught(tmp_path, monkeypatch):
    # The negative control: without its rules, the reader lets most spoiled values through.
    import market.sources.files as files

    def believing(rows, remedies, *, interval_ns, now_ns, wall_clock=False):
        return rows, 3_600 * 10**9, ()

    monkeypatch.setattr(files, "clean", believing)
    accepted = 0
    for name in ("spike_of_1000", "frozen_feed", "redenomination", "wick_of_87_percent", "off_grid"):
        folder = tmp_path / name
        folder.mkdir()
        read(MUTATORS[name].make(np.random.default_rng(0), folder))
        accepted += 1
    assert accepted == 5


def test_a_damaged_file_never_ends_in_a_traceback(tmp_path):
    rng = np.random.default_rng(7)
    refused = loaded = 0
    for index in range(300):
        folder = tmp_path / str(index)
        folder.mkdir()
        path = write_any(rng, clean_frame(rng, 40), folder)
        body = bytearray(path.read_bytes())
        if rng.random() < 0.3:
            body = body[: int(rng.integers(0, len(body)))]
        for _ in range(int(rng.integers(1, 6))):
            if body:
                body[int(rng.integers(0, len(body)))] = int(rng.integers(0, 256))
        path.write_bytes(bytes(body))
        try:
            read_bars(path, symbol="BTC/USDT", now_ns=NOW_NS)
            loaded += 1
        except DataError as error:
            refused += str(error).startswith(str(path))
    assert refused > 200
    assert loaded + refused == 300


@pytest.mark.parametrize("swap", range(1, 120))
def test_columns_in_another_order_without_a_header_are_refused(swap, tmp_path):
    # Only the order of the file is right; of the other 119 orders of five columns each must be noticed.
    import itertools

    names = ("open", "high", "low", "close", "volume")
    order = list(itertools.permutations(names))[swap]
    frame = clean_frame(np.random.default_rng(swap))
    path = write_csv(
        {"time": frame["time"], **{n: frame[n] for n in order}}, tmp_path / "x.csv", header=False
    )
    with pytest.raises(DataError, match=r"columns|prices must|exchanged|another order|print this far"):
        read_bars(path, symbol="BTC/USDT", now_ns=NOW_NS)
