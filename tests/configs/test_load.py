"""Every sentence of the config door, and what may pass it."""

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Self

import pydantic
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import Field, model_validator

from configs.load import (
    MAX_BYTES,
    Config,
    ConfigError,
    InputError,
    PluginConfig,
    config_text,
    did_you_mean,
    dump,
    load,
    parse_yaml,
    validate,
)


class Exits(Config):
    stop: float = Field(0.1, gt=0, le=1)
    take: float | None = None


class Search(Config):
    population_size: int = Field(200, ge=8, le=8192)
    rates: tuple[float, ...] = ()
    exits: Exits = Exits()

    @model_validator(mode="after")
    def _even(self) -> Self:
        if self.population_size % 2:
            raise ValueError(f"population_size is {self.population_size}; it must be even")
        return self


class Job(Config):
    regime: str = "volatile"
    seed: int = 7
    trial: bool = False
    search: Search = Search()
    many: tuple[Exits, ...] = ()
    perhaps: Exits | None = None
    detector: PluginConfig = PluginConfig(name="hmm")


@pytest.fixture
def write(tmp_path):
    """Write a YAML text, by default as ``job.yaml``, and return its path."""

    def write(text: str | bytes, name: str = "job.yaml") -> Path:
        path = tmp_path / name
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    return write


def refusal(path: Path, *overrides: str, **shortcuts) -> str:
    """The sentence with which a file is refused, without the folder of the file."""
    with pytest.raises(ConfigError) as refused:
        load(Job, path, overrides, **shortcuts)
    sentence = str(refused.value)
    assert "\n" not in sentence
    return sentence.replace(f"{path.parent}{os.sep}", "")


# What passes


def test_a_class_default_gives_way_to_yaml_and_yaml_to_the_command_line(write):
    path = write("seed: 2\nsearch: {population_size: 64, exits: {stop: 0.3}}")
    config = load(Job, path, ["search.exits.stop=0.4", "search.exits.stop=0.5"], regime="trending")
    assert config.regime == "trending"
    assert config.seed == 2
    assert config.search == Search(population_size=64, exits=Exits(stop=0.5))
    assert load(Job, path, ["seed=3"], seed=4).seed == 4
    assert load(Job, path, ["seed=3"], seed=None).seed == 3
    assert load(Job, path, search__exits__stop=0.9).search.exits.stop == 0.9


def test_an_override_reaches_a_section_that_the_file_leaves_out_or_empty(write):
    assert load(Job, write(""), ["search.exits.stop=0.4"]).search.exits.stop == 0.4
    assert load(Job, write("search:"), ["search.exits.stop=0.4"]).search.exits.stop == 0.4


def test_an_override_is_read_as_yaml_and_may_contain_an_equals_sign(write):
    config = load(Job, write(""), ["search.rates=[1, 2.5]", "trial=true", "regime=a=b", "perhaps={stop: 1}"])
    assert config.search.rates == (1.0, 2.5)
    assert config.trial is True
    assert config.regime == "a=b"
    assert config.perhaps == Exits(stop=1.0)


def test_numbers_are_read_as_people_write_them(write):
    config = load(Job, write("seed: 1_000\nsearch: {exits: {stop: 1e-3}}"))
    assert config.seed == 1000
    assert config.search.exits.stop == 0.001


def test_a_byte_order_mark_is_not_part_of_the_first_key(write):
    assert load(Job, write(b"\xef\xbb\xbfseed: 9")).seed == 9


def test_configs_are_frozen():
    with pytest.raises(pydantic.ValidationError):
        Job().seed = 3


def test_a_section_may_be_the_name_of_a_file_beside_it(write):
    write("stop: 0.25", "exits.yaml")
    path = write("perhaps: exits.yaml")
    assert load(Job, path).perhaps == Exits(stop=0.25)
    assert load(Job, path, ["perhaps.take=0.5"]).perhaps == Exits(stop=0.25, take=0.5)
    assert load(Job, write("", "other.yaml"), ["perhaps=exits.yaml"]).perhaps == Exits(stop=0.25)


def test_a_file_beside_goes_before_a_packaged_one(write, monkeypatch, tmp_path):
    write("stop: 0.25", "costs.yaml")
    assert load(Job, write("perhaps: costs.yaml")).perhaps == Exits(stop=0.25)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "costs.yaml").unlink()
    assert config_text("costs.yaml")[1] == "configs/costs.yaml"


def test_inclusion_is_one_level_deep(write):
    write("stop: 0.25", "exits.yaml")
    write("exits: exits.yaml", "search.yaml")
    path = write("search: search.yaml")
    assert refusal(path) == (
        "job.yaml: search.exits is 'exits.yaml'; it should be a valid dictionary or instance of Exits"
    )


def test_a_file_that_includes_itself_ends(write):
    assert "search.search is not a setting" in refusal(write("search: job.yaml"))


def test_a_dumped_config_loads_to_an_equal_one(tmp_path):
    config = Job(
        regime="äöü: #x",
        search=Search(population_size=10, rates=(0.1, 1e-300, 3.0), exits=Exits(take=0.2)),
        many=(Exits(), Exits(stop=0.2)),
        detector=PluginConfig(name="hmm", n_states=4, deep={"a": [1, 2]}),
    )
    dump(config, tmp_path / "out.yaml")
    again = load(Job, tmp_path / "out.yaml")
    assert again == config
    assert again.detector.settings == {"n_states": 4, "deep": {"a": [1, 2]}}
    assert again != Job()


@settings(max_examples=60, deadline=None)
@given(
    st.text(max_size=30).filter(lambda text: not text.endswith(".yaml")),
    st.integers(-(2**70), 2**70),
    st.lists(st.floats(allow_nan=False, allow_infinity=False), max_size=4),
)
def test_dump_and_load_are_inverse(tmp_path_factory, regime, seed, rates):
    try:
        regime.encode()
    except UnicodeEncodeError:
        return
    path = tmp_path_factory.mktemp("dump") / "config.yaml"
    config = Job(regime=regime, seed=seed, search=Search(rates=tuple(rates)))
    dump(config, path)
    assert load(Job, path) == config


def test_a_plugin_config_keeps_name_and_settings_apart():
    config = PluginConfig(name="jump", n_states=3)
    assert config.name == "jump"
    assert config.settings == {"n_states": 3}
    settings_of_one = config.settings
    settings_of_one["n_states"] = 4
    assert config.settings == {"n_states": 3}
    with pytest.raises(ConfigError, match=r"^here: name is missing$"):
        validate(PluginConfig, {"n_states": 3}, "here")


# What is refused, and how it is said


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("sed: 1", "job.yaml: sed is not a setting; did you mean seed?"),
        (
            "search: {populaton_size: 10}",
            "job.yaml: search.populaton_size is not a setting; did you mean population_size?",
        ),
        (
            "search: {exits: {zzz: 1}}",
            "job.yaml: search.exits.zzz is not a setting; known: stop, take",
        ),
        (
            "seed: many",
            "job.yaml: seed is 'many'; it should be a valid integer, unable to parse string as an integer",
        ),
        (
            "seed: 2.5",
            "job.yaml: seed is 2.5; it should be a valid integer, got a number with a fractional part",
        ),
        (
            "search: {exits: {stop: 2}}",
            "job.yaml: search.exits.stop is 2; it should be less than or equal to 1",
        ),
        ("search: {exits: {stop: .nan}}", "job.yaml: search.exits.stop is nan; it should be a finite number"),
        ("search: {exits: {take: .inf}}", "job.yaml: search.exits.take is inf; it should be a finite number"),
        ("search:", "job.yaml: search is None; it should be a valid dictionary or instance of Search"),
        ("search: 3", "job.yaml: search is 3; it should be a valid dictionary or instance of Search"),
        ("detector: {n_states: 3}", "job.yaml: detector.name is missing"),
        ("a: 1\nb: 2", "job.yaml: a is not a setting; known: detector, many, perhaps, regime, search, "
         "seed, trial (and 1 more)"),
        ("- 1", "job.yaml: is a list; a config is a mapping of settings"),
        ("words", "job.yaml: is a str; a config is a mapping of settings"),
        ("perhaps: list.yaml", "list.yaml: must be a mapping; job.yaml includes it as perhaps"),
    ],
)  # fmt: skip
def test_a_wrong_setting_is_one_sentence(write, text, sentence):
    write("- 1", "list.yaml")
    assert refusal(write(text)) == sentence


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("seed: 1\nregime: [}", "job.yaml:2: not valid YAML: expected the node content, but found '}'"),
        ("a:\n\tb: 1", "job.yaml:2: not valid YAML: found character '\\t' that cannot start any token"),
        ("seed: 1\n---\nseed: 2", "job.yaml:2: not valid YAML: but found another document"),
        ("seed: 1\nseed: 2", "job.yaml:2: not valid YAML: seed is given twice"),
        ("search: {rates: [], rates: []}", "job.yaml:1: not valid YAML: rates is given twice"),
        ("a: &x {b: 1}\nc: *x", "job.yaml:2: not valid YAML: aliases are not allowed"),
        ("1: 2", "job.yaml:1: not valid YAML: key 1 must be text"),
        ("~: 2", "job.yaml:1: not valid YAML: key None must be text"),
        ("true: 2", "job.yaml:1: not valid YAML: key True must be text"),
        ("? [a]\n: 2", "job.yaml:1: not valid YAML: key ['a'] must be text"),
    ],
)  # fmt: skip
def test_wrong_yaml_is_named_with_its_line(write, text, sentence):
    assert refusal(write(text)) == sentence


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        ("seed", "--set seed: must look like section.setting=value"),
        ("", "--set : must look like section.setting=value"),
        ("=1", "--set =1: must look like section.setting=value"),
        ("search..rates=1", "--set search..rates=1: must look like section.setting=value"),
        ("seed.x=1", "--set seed.x: seed is the value 7, not a section"),
        ("seed=[1", "--set seed=[1:1: not valid YAML: expected ',' or ']', but got '<stream end>'"),
        ("seed=*a", "--set seed=*a:1: not valid YAML: aliases are not allowed"),
        ("perhaps=nowhere.yaml", "nowhere.yaml: no such config file"),
    ],
)
def test_a_wrong_override_is_one_sentence(write, override, sentence):
    assert refusal(write("seed: 7"), override).startswith(sentence)


def test_a_typo_in_an_override_gets_a_suggestion(write):
    assert "search.exits.stpo is not a setting; did you mean stop?" in refusal(
        write(""), "search.exits.stpo=0.2"
    )


@pytest.mark.parametrize(
    "tag",
    [
        "!!python/object/apply:os.mkdir [boom]",
        "!!python/name:os.mkdir",
        "!!python/object:os.mkdir {}",
        "!own 3",
    ],
)
def test_no_tag_makes_an_object(write, tmp_path, monkeypatch, tag):
    monkeypatch.chdir(tmp_path)
    assert "could not determine a constructor for the tag" in refusal(write(f"seed: {tag}"))
    assert not (tmp_path / "boom").exists()


def test_the_gadget_is_live_in_an_unsafe_loader(tmp_path):
    # Negative control: the text above does run in a loader that allows it.
    script = "import yaml; yaml.unsafe_load('!!python/object/apply:os.mkdir [boom]')"
    subprocess.run([sys.executable, "-c", script], cwd=tmp_path, check=True)
    assert (tmp_path / "boom").is_dir()


def test_an_alias_bomb_is_refused_before_it_grows(write):
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += (f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 10))
    start = time.perf_counter()
    assert refusal(write("\n".join(lines))) == "job.yaml:2: not valid YAML: aliases are not allowed"
    assert time.perf_counter() - start < 2


@pytest.mark.parametrize(
    "text", ["seed: " + "[" * 21 + "]" * 21, "seed: " + "[" * 30_000 + "]" * 30_000, "- " * 30_000 + "1",
             "{a: " * 12_000 + "1" + "}" * 12_000],
    ids=["21", "flow", "block", "mappings"],
)  # fmt: skip
def test_deep_nesting_is_refused(write, text):
    assert refusal(write(text)) == "job.yaml: nested deeper than 20 levels"


def test_twenty_levels_are_allowed():
    assert parse_yaml("[" * 20 + "]" * 20, "here") is not None


def test_a_huge_file_is_refused_unread(write):
    path = write("# " + "x" * MAX_BYTES)
    assert refusal(path) == f"job.yaml: has {MAX_BYTES + 2} bytes; a config has at most {MAX_BYTES}"
    assert load(Job, write("# " + "x" * 1_000)) == Job()


@pytest.mark.parametrize("content", [b"seed: \xff\xfe", "seed: 1".encode("utf-16"), b"seed: \x00"])
def test_what_is_no_text_is_refused(write, content):
    assert "job.yaml: " in refusal(write(content))


@pytest.mark.parametrize(
    "name", ["evolv.yaml", "nowhere/evolve.yaml", "../evolve.yaml", "evolve", "", ".", "a\0b"]
)
def test_a_missing_file_is_one_sentence(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match="no such config file; "):
        load(Job, name)


def test_a_missing_file_gets_a_suggestion(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=r"^evolv\.yaml: no such config file; did you mean evolve\.yaml\?$"):
        config_text("evolv.yaml")


def test_a_validator_of_the_whole_config_speaks_for_itself():
    with pytest.raises(ConfigError, match=r"^here: population_size is 11; it must be even$"):
        validate(Search, {"population_size": 11}, "here")


def test_config_errors_are_what_a_user_can_mend():
    assert issubclass(ConfigError, InputError)
    assert not issubclass(InputError, ValueError)


def test_a_suggestion_needs_a_close_word():
    assert did_you_mean("volatle", ["hmm", "volatile"]) == "; did you mean volatile?"
    assert did_you_mean("zzz", ["hmm", "jump"]) == "; known: hmm, jump"
    assert did_you_mean("zzz", []) == ""


def is_value_or_sentence(read: Callable[[], object]) -> bool:
    try:
        read()
    except ConfigError as error:
        return "\n" not in str(error)
    return True


@settings(max_examples=150, deadline=None)
@given(st.text(max_size=60))
def test_any_text_is_a_value_or_one_sentence(text):
    assert is_value_or_sentence(lambda: parse_yaml(text, "here"))


@settings(max_examples=80, deadline=None)
@given(st.binary(max_size=80))
def test_any_bytes_are_a_config_or_one_sentence(tmp_path_factory, content):
    path = tmp_path_factory.mktemp("bytes") / "job.yaml"
    path.write_bytes(content)
    assert is_value_or_sentence(lambda: load(Job, path))


# Wished for


def test_a_validator_of_a_section_speaks_for_itself_too(write):
    assert (
        refusal(write("search: {population_size: 11}"))
        == "job.yaml: search: population_size is 11; it must be even"
    )


@pytest.mark.parametrize("text", ["many: [{stpo: 0.1}]", "perhaps: {stpo: 0.1}"])
def test_suggestions_reach_into_lists_and_optional_sections(write, text):
    assert refusal(write(text)).endswith("is not a setting; did you mean stop?")


def test_a_name_too_long_for_a_file_is_one_sentence(write):
    assert "no such config file" in refusal(write("seed: 1"), f"perhaps={'a' * 300}.yaml")


def test_a_truth_value_is_no_number(write):
    assert "seed is True" in refusal(write("seed: true"))


@pytest.mark.parametrize(("text", "value"), [("seed: 010", 10), ("seed: 0b11", None), ("seed: 1:30", None)])
def test_numbers_mean_what_they_look_like(write, text, value):
    if value is None:
        refusal(write(text))
    else:
        assert load(Job, write(text)).seed == value


def test_a_long_value_is_quoted_in_short(write):
    assert len(refusal(write(f"seed: '{'x' * 5_000}'"))) < 300


def test_the_largest_file_is_refused_within_a_second(write):
    start = time.perf_counter()
    refusal(write("many: [" + "1," * 120_000 + "]"))
    assert time.perf_counter() - start < 1
