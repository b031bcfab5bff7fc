"""A name in a config becomes a plugin, whoever wrote it."""

import sys
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import EntryPoint

import pytest

from configs import registry as registry_module
from configs.load import Config, ConfigError
from configs.registry import Registry

PLUGIN = '''
from configs.load import Config
from pydantic import Field
from {package}.kind import PLUGINS

class {cls}Config(Config):
    """C."""
    n_states: int = Field(3, ge=2)

@PLUGINS.register("{name}", family="test")
class {cls}:
    """P."""
    Config = {cls}Config
    def __init__(self, config):
        self.config = config
'''


class PlainConfig(Config):
    width: int = 1


class Plain:
    Config = PlainConfig

    def __init__(self, config):
        self.config = config


@pytest.fixture
def package(tmp_path, monkeypatch, request):
    """A package on the path whose modules register plugins; forgotten after the test."""
    name = f"plugins_of_{request.node.name.partition('[')[0]}"
    folder = tmp_path / name
    folder.mkdir()
    (folder / "__init__.py").write_text('"""P."""\n')
    (folder / "kind.py").write_text(
        f'from configs.registry import Registry\nPLUGINS = Registry("test plugin", "{name}")\n'
    )
    (folder / "hmm.py").write_text(PLUGIN.format(package=name, cls="Hmm", name="hmm"))
    monkeypatch.syspath_prepend(tmp_path)
    yield folder
    for module in [module for module in sys.modules if module.partition(".")[0] == name]:
        del sys.modules[module]


def plugins(folder) -> Registry:
    return __import__(f"{folder.name}.kind", fromlist=["PLUGINS"]).PLUGINS


def empty() -> Registry:
    return Registry("plugin", "configs", modules=("registry",))


def test_a_module_of_the_package_is_found_without_being_listed(package):
    (package / "jump.py").write_text(PLUGIN.format(package=package.name, cls="Jump", name="jump"))
    found = plugins(package)
    assert found.names() == ["hmm", "jump"]
    assert list(found) == ["hmm", "jump"]
    assert "jump" in found
    assert "volatility" not in found
    assert found.tags("jump") == {"family": "test"}


def test_nothing_is_imported_before_it_is_needed(package):
    found = plugins(package)
    assert f"{package.name}.hmm" not in sys.modules
    found.names()
    assert f"{package.name}.hmm" in sys.modules


def test_a_thread_that_asks_while_another_imports_waits_for_all_plugins(package):
    slow = PLUGIN.format(package=package.name, cls="Jump", name="jump")
    (package / "jump.py").write_text(f"import time\ntime.sleep(0.2)\n{slow}")
    found = plugins(package)
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(lambda _: found.names(), range(4))) == [["hmm", "jump"]] * 4


def test_only_the_named_modules_are_imported_where_some_are_named(package):
    (package / "heavy.py").write_text("raise ImportError('a heavy library is missing')\n")
    found = Registry("test plugin", package.name, modules=("kind",))
    assert found.names() == []
    with pytest.raises(ImportError, match="heavy"):
        Registry("test plugin", package.name).names()


def test_a_plugin_is_created_from_validated_settings(package):
    found = plugins(package)
    assert found.create("hmm").config.n_states == 3
    assert found.create("hmm", {"n_states": 4}).config.n_states == 4
    with pytest.raises(ConfigError, match=r"^test plugin hmm: n_states is 1; it should be greater than"):
        found.create("hmm", {"n_states": 1})
    with pytest.raises(ConfigError, match=r"^test plugin hmm: n_state is not a setting; did you mean n_st"):
        found.create("hmm", {"n_state": 4})


def test_an_unknown_name_gets_a_suggestion_or_the_known_names(package):
    found = plugins(package)
    with pytest.raises(ConfigError, match=r"^no test plugin named 'hmn'; did you mean hmm\?$"):
        found.get("hmn")
    with pytest.raises(ConfigError, match=r"^no test plugin named 'zzz'; known: hmm$"):
        found.create("zzz")
    with pytest.raises(ConfigError, match=r"^no test plugin named 'zzz'"):
        found.tags("zzz")
    with pytest.raises(ConfigError, match=r"^no plugin named 'zzz'$"):
        empty().get("zzz")


def test_one_name_is_one_plugin():
    registry = empty()
    registry.register("plain")(Plain)
    with pytest.raises(ValueError, match=r"plugin 'plain' is registered twice: .*Plain.* and .*Other"):
        registry.register("plain")(type("Other", (), {}))
    assert registry.get("plain") is Plain


def test_a_module_that_is_run_as_a_command_may_register_again():
    # `python -m package.module` executes the module a second time, as __main__.
    registry = empty()
    registry.register("plain")(Plain)
    again = type("Plain", (), {})
    registry.register("plain")(again)
    assert registry.get("plain") is again


def test_registering_returns_the_class_unchanged():
    assert empty().register("plain", tag=1)(Plain) is Plain


def test_tags_are_copies():
    registry = empty()
    registry.register("plain", kind="a")(Plain)
    registry.tags("plain")["kind"] = "b"
    assert registry.tags("plain") == {"kind": "a"}


def test_third_parties_add_plugins_through_an_entry_point(package, tmp_path, monkeypatch):
    foreign = tmp_path / "foreign_plugin_of_somebody.py"
    foreign.write_text(PLUGIN.format(package=package.name, cls="Foreign", name="foreign"))
    asked = []

    def entry_points(*, group):
        asked.append(group)
        return [EntryPoint("foreign", "foreign_plugin_of_somebody:Foreign", group)]

    monkeypatch.setattr(registry_module, "entry_points", entry_points)
    try:
        assert plugins(package).names() == ["foreign", "hmm"]
    finally:
        sys.modules.pop("foreign_plugin_of_somebody", None)
    assert asked == ["regime_conductor.test_plugin"]


def test_a_broken_plugin_is_not_swallowed(package):
    (package / "broken.py").write_text("raise RuntimeError('broken at import')\n")
    with pytest.raises(RuntimeError, match="broken at import"):
        plugins(package).names()


def test_a_broken_plugin_is_not_swallowed_the_second_time_either(package):
    (package / "broken.py").write_text("raise RuntimeError('broken at import')\n")
    found = plugins(package)
    for _ in range(2):
        with pytest.raises(RuntimeError, match="broken at import"):
            found.names()


def test_two_plugins_with_equal_class_names_in_different_modules_are_two():
    registry = empty()
    registry.register("plain")(Plain)
    other = type("Plain", (), {"__module__": "somewhere.else"})
    with pytest.raises(ValueError, match="registered twice"):
        registry.register("plain")(other)
