"""Who asks for one forecaster imports that one: trees do not wait for PyTorch, and nothing is listed."""

import importlib.util
import subprocess
import sys
from importlib.metadata import EntryPoint

import pytest

from configs import registry as registry_module
from configs.load import ConfigError
from configs.registry import Registry, module_sources
from forecasters.forecaster import FORECASTERS
from tests.house.tree import ROOT

LIGHT = '''
from {package}.kind import PLUGINS

@PLUGINS.register("{name}", family="test")
class Plugin:
    """P."""
'''
HEAVY = "raise ImportError('a heavy library is missing')\n"


@pytest.fixture
def package(tmp_path, monkeypatch, request):
    """A package with a light and a heavy module, neither listed anywhere; forgotten after the test."""
    name = f"lazy_plugins_of_{request.node.name.partition('[')[0]}"
    folder = tmp_path / name
    folder.mkdir()
    (folder / "__init__.py").write_text('"""P."""\n')
    (folder / "kind.py").write_text(
        f'from configs.registry import Registry\nPLUGINS = Registry("lazy plugin", "{name}", lazy=True)\n'
    )
    (folder / "light.py").write_text(LIGHT.format(package=name, name="light"))
    (folder / "heavy.py").write_text(HEAVY + LIGHT.format(package=name, name="heavy"))
    monkeypatch.syspath_prepend(tmp_path)
    yield folder
    for module in [module for module in sys.modules if module.partition(".")[0] == name]:
        del sys.modules[module]


def plugins(folder) -> Registry:
    return __import__(f"{folder.name}.kind", fromlist=["PLUGINS"]).PLUGINS


def imported(folder) -> set[str]:
    return {name.partition(".")[2] for name in sys.modules if name.startswith(f"{folder.name}.")} - {"kind"}


# The registry


def test_a_name_imports_the_module_that_registers_it_and_no_other(package):
    found = plugins(package)
    assert imported(package) == set()
    assert found.get("light").__module__ == f"{package.name}.light"
    assert "light" in found
    assert found.tags("light") == {"family": "test"}
    assert imported(package) == {"light"}


def test_without_being_lazy_every_module_is_imported_for_one_name(package):
    with pytest.raises(ImportError, match="heavy library"):
        Registry("lazy plugin", package.name).get("light")


def test_the_whole_list_and_a_name_that_nobody_registers_import_everything(package):
    for ask in (lambda found: found.names(), lambda found: found.get("lihgt"), lambda found: "none" in found):
        with pytest.raises(ImportError, match="heavy library"):
            ask(plugins(package))
    (package / "heavy.py").write_text(LIGHT.format(package=package.name, name="heavy"))
    found = plugins(package)
    with pytest.raises(ConfigError, match=r"^no lazy plugin named 'lihgt'; did you mean light\?$"):
        found.get("lihgt")
    assert found.names() == ["heavy", "light"]


def test_a_name_that_the_source_does_not_show_is_found_all_the_same(package):
    (package / "heavy.py").unlink()
    text = LIGHT.format(package=package.name, name="?").replace('"?"', '"dyn" + "amic"')
    (package / "hidden.py").write_text(text)
    found = plugins(package)
    assert found.get("dynamic").__module__ == f"{package.name}.hidden"
    assert found.get("light")


@pytest.mark.parametrize("call", ['register("odd")', "register(\n    'odd',\n    family='x',\n)"])
def test_other_ways_to_write_it_are_read_too(package, call):
    text = f"from {package.name}.kind import PLUGINS\n\n@PLUGINS.{call}\nclass Odd:\n    pass\n"
    (package / "odd.py").write_text(text)
    assert plugins(package).get("odd").__name__ == "Odd"
    assert imported(package) == {"odd"}


def test_a_module_that_only_speaks_of_a_name_costs_an_import_and_nothing_more(package):
    (package / "talk.py").write_text('"""As in ``@PLUGINS.register("light")``."""\n')
    assert plugins(package).get("light").__module__ == f"{package.name}.light"
    assert imported(package) == {"light", "talk"}


def test_a_broken_module_is_not_swallowed(package):
    for _ in range(2):
        with pytest.raises(ImportError, match="heavy library"):
            plugins(package).get("heavy")


def test_modules_that_are_not_named_are_not_looked_at(package):
    found = Registry("lazy plugin", package.name, modules=("kind",), lazy=True)
    with pytest.raises(ConfigError, match="no lazy plugin named 'light'"):
        found.get("light")
    assert imported(package) == set()


def test_an_entry_point_of_that_name_is_loaded_and_others_are_left_alone(package, tmp_path, monkeypatch):
    foreign = tmp_path / "lazy_foreign_plugin_of_somebody.py"
    foreign.write_text(LIGHT.format(package=package.name, name="foreign"))

    def entry_points(*, group):
        assert group == "regime_conductor.lazy_plugin"
        return [
            EntryPoint("foreign", "lazy_foreign_plugin_of_somebody:Plugin", group),
            EntryPoint("absent", "no_such_package_at_all:Plugin", group),
        ]

    monkeypatch.setattr(registry_module, "entry_points", entry_points)
    try:
        found = plugins(package)
        assert found.get("light")
        assert "lazy_foreign_plugin_of_somebody" not in sys.modules
        assert found.get("foreign").__module__ == "lazy_foreign_plugin_of_somebody"
        assert imported(package) == {"light"}
        with pytest.raises(ModuleNotFoundError, match="no_such_package_at_all"):
            found.get("absent")
    finally:
        sys.modules.pop("lazy_foreign_plugin_of_somebody", None)


def test_sources_are_read_without_an_import(package):
    found = module_sources(package.name)
    assert set(found) == {"heavy", "kind", "light"}
    assert found["heavy"].startswith(HEAVY)
    assert imported(package) == set()


# The forecasters


def test_every_module_that_registers_a_forecaster_is_found_and_no_other_is_imported():
    sources = module_sources("forecasters")
    registering = {
        name
        for name, text in sources.items()
        if any(line.startswith("@FORECASTERS") for line in text.splitlines())
    }
    if importlib.util.find_spec("torch") is None:
        pytest.skip("PyTorch is not installed, so networks are not there")
    assert set(FORECASTERS._modules) == registering >= {"boosting", "naive", "recurrent", "tft"}
    assert not {"train", "running", "forecaster", "torch_training"} & set(FORECASTERS._modules)


PRINT = "import sys; print(*sorted({'torch', 'sklearn', 'lightgbm', 'pyarrow'} & set(sys.modules)))"


def heavy(code):
    """Return which heavy libraries a fresh process has loaded after some code."""
    found = subprocess.run(
        [sys.executable, "-c", f"{code}\n{PRINT}"], cwd=ROOT, capture_output=True, text=True
    )
    assert found.returncode == 0, found.stderr
    return set(found.stdout.splitlines()[-1].split())


ASK = "from forecasters.forecaster import new_forecaster, plugin_config; new_forecaster(plugin_config({!r}))"
needs_torch = pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="PyTorch is not installed")


@needs_torch
def test_trees_are_there_without_pytorch_and_networks_bring_it():
    assert heavy(ASK.format("xgboost")) == set()
    assert heavy(ASK.format("gru")) >= {"torch"}


TRAIN = """
from forecasters.train import main
settings = [
    "market.synthetic.n_bars=3000", "features.names=[return_1,return_24]", "bootstrap_paths=20",
    "label.kind=return", "schedule.span=month", "schedule.train_spans=2", "schedule.embargo_bars=24",
    "schedule.latest=1", "model.rounds=5", "model.threads=1",
]
try:
    main(["--model", "xgboost", "--runs", {!r}, *(part for one in settings for part in ("--set", one))])
except SystemExit as end:
    assert end.code == 0
"""


@needs_torch
def test_a_whole_training_of_trees_and_baselines_never_imports_pytorch(tmp_path):
    pytest.importorskip("xgboost")
    found = heavy(TRAIN.format(str(tmp_path)))
    assert "pyarrow" in found
    assert "torch" not in found
    assert list(tmp_path.glob("forecast-*/report.json"))


@needs_torch
def test_help_imports_neither():
    assert (
        heavy("from forecasters.train import main\ntry:\n    main(['--help'])\nexcept SystemExit: pass")
        == set()
    )
