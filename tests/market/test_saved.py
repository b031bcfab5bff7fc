"""Saved documents: written whole or not at all, read with suspicion."""

import json
import math
import os

import pytest

from market import saved
from market.saved import read_saved, write_saved
from market.table import DataError


def test_numbers_come_back_to_the_last_bit(tmp_path):
    numbers = [0.1 + 0.2, 1e-308, -0.0, 2**53 + 1.0]
    write_saved(tmp_path / "a.json", {"numbers": numbers})
    assert read_saved(tmp_path / "a.json", "thing", {"numbers": list})["numbers"] == numbers


def test_a_document_that_cannot_be_written_leaves_the_old_one(tmp_path):
    path = tmp_path / "a.json"
    write_saved(path, {"value": 1.0})
    with pytest.raises(ValueError, match="JSON"):
        write_saved(path, {"value": math.nan})
    assert read_saved(path, "thing", {"value": float})["value"] == 1.0


def test_a_reader_finds_the_old_file_or_the_new_one_and_never_half_of_one(tmp_path, monkeypatch):
    path, seen = tmp_path / "a.json", []
    write_saved(path, {"value": 1})
    replace = os.replace

    def watched(source, target):
        seen.append(json.loads(path.read_text()))  # the old one, until the new one is complete
        replace(source, target)

    monkeypatch.setattr(saved.os, "replace", watched)
    write_saved(path, {"value": 2})
    assert seen == [{"value": 1}]
    assert json.loads(path.read_text()) == {"value": 2}
    assert [p.name for p in tmp_path.iterdir()] == ["a.json"]


@pytest.mark.parametrize("content", ["", "[]", "{", '{"value": "text"}', "[" * 100_000])
def test_a_file_that_is_not_the_document_is_refused(tmp_path, content):
    path = tmp_path / "a.json"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(DataError, match=r"a\.json"):
        read_saved(path, "thing", {"value": float})
