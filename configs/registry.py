"""A name in YAML becomes a class: one registry per kind of plugin."""

import importlib
import importlib.util
import pkgutil
import re
import threading
from collections.abc import Callable, Iterator, Mapping
from importlib.metadata import EntryPoints, entry_points
from typing import Any, Generic, TypeVar

from configs.load import ConfigError, did_you_mean, validate

P = TypeVar("P")
# `@FORECASTERS.register("xgboost", family="boosting")`
_REGISTERED = re.compile(r"""\.register\(\s*(["'])(?P<name>[^"'\n]+)\1""")


class Registry(Generic[P]):
    """Plugins of one kind, by name.

    The registry imports the modules of its own package on first use, so that a new file is found
    without being listed anywhere; third parties use an entry-point group named ``regime_conductor.KIND``.

    Parameters
    ----------
    kind : str
        What a plugin is called in messages, for example ``detector``.
    package : str
        Package whose modules register plugins of this kind.
    modules : tuple of str
        Only these modules of the package are imported; empty means all of them. A package with entry
        points or heavy imports names its plugin modules.
    lazy : bool
        Who asks for one name imports only what registers it: the modules in whose source that name stands
        after ``register(``, and the entry point of that name. Who asks for all names, or for one that is
        found in neither way, imports everything as without it. For kinds with heavy plugins beside light
        ones.
    """

    def __init__(self, kind: str, package: str, modules: tuple[str, ...] = (), *, lazy: bool = False) -> None:
        self.kind = kind
        self._package = package
        self._modules = modules
        self._lazy = lazy
        self._registering: dict[str, set[str]] | None = None  # names in the source of each module
        self._plugins: dict[str, type[P]] = {}
        self._tags: dict[str, dict[str, Any]] = {}
        self._discovered = False
        self._discovering = False
        self._lock = threading.RLock()

    def register(self, name: str, **tags: Any) -> Callable[[type[P]], type[P]]:
        """Register a class under a name; ``tags`` describe it (for example ``family="boosting"``)."""

        def decorator(plugin: type[P]) -> type[P]:
            known = self._plugins.get(name)
            if known is not None and _place(known) != _place(plugin):
                raise ValueError(f"{self.kind} {name!r} is registered twice: {known} and {plugin}")
            self._plugins[name] = plugin
            self._tags[name] = tags
            return plugin

        return decorator

    def names(self) -> list[str]:
        """Return the sorted names of all plugins."""
        self._discover()
        return sorted(self._plugins)

    def tags(self, name: str) -> dict[str, Any]:
        """Return the tags a plugin was registered with."""
        self.get(name)
        return dict(self._tags[name])

    def get(self, name: str) -> type[P]:
        """Return the class registered under a name; :class:`ConfigError` names the known ones."""
        if name not in self:
            raise ConfigError(f"no {self.kind} named {name!r}{did_you_mean(name, sorted(self._plugins))}")
        return self._plugins[name]

    def create(self, name: str, settings: Mapping[str, Any] | None = None) -> P:
        """Return a plugin built from settings that its ``Config`` class has validated."""
        plugin = self.get(name)
        config = validate(plugin.Config, dict(settings or {}), f"{self.kind} {name}")
        return plugin(config)

    def __iter__(self) -> Iterator[str]:
        return iter(self.names())

    def __contains__(self, name: object) -> bool:
        if self._lazy and isinstance(name, str):
            self._look_for(name)
            if name in self._plugins:
                return True
        self._discover()
        return name in self._plugins

    def _look_for(self, name: str) -> None:
        if self._discovered or name in self._plugins:
            return
        if self._registering is None:
            sources = module_sources(self._package)
            self._registering = {
                module: {found["name"] for found in _REGISTERED.finditer(sources.get(module, ""))}
                for module in self._modules or tuple(sources)
            }
        for module, names in self._registering.items():
            if name in names:
                importlib.import_module(f"{self._package}.{module}")
        for point in self._points():
            if point.name == name:
                point.load()

    def _points(self) -> EntryPoints:
        return entry_points(group=f"regime_conductor.{self.kind.replace(' ', '_')}")

    def _discover(self) -> None:
        if self._discovered:
            return
        with self._lock:  # another thread must not see half of the plugins
            if self._discovered or self._discovering:
                return
            self._discovering = True  # a plugin module may itself ask the registry
            try:
                for name in self._modules or _modules(self._package):
                    importlib.import_module(f"{self._package}.{name}")
                for point in self._points():
                    point.load()
                self._discovered = True
            finally:
                self._discovering = False


def module_sources(package: str) -> dict[str, str]:
    """Return the source of each module of a package, by its name; none of them is imported.

    A module without source (compiled, for example) has an empty one.
    """
    found = {}
    for name in _modules(package):
        loader = importlib.util.find_spec(f"{package}.{name}").loader
        read = getattr(loader, "get_source", None)
        found[name] = (read(f"{package}.{name}") if read else None) or ""
    return found


def _modules(package: str) -> tuple[str, ...]:
    path = importlib.import_module(package).__path__
    return tuple(module.name for module in pkgutil.iter_modules(path) if not module.ispkg)


def _place(plugin: object) -> tuple[str, str]:
    # A module that is loaded again brings its plugins again; that is no second plugin.
    # A feature is an object, not a class, and carries the name of the function that declared it.
    return plugin.__module__, getattr(plugin, "__qualname__", type(plugin).__qualname__)
