"""Text from outside becomes a validated object here, and is not checked again.

YAML files, ``--set a.b=c`` overrides and spelled-out flags end in one frozen pydantic model. What a user
can get wrong raises :class:`ConfigError` with the place, the value found and what it must be.
"""

import difflib
import re
import typing
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import pydantic
import yaml

MAX_BYTES = 64_000  # half a second of parsing
MAX_DEPTH = 20


class InputError(Exception):
    """Something the user gave is wrong; the message says where, what it was, and what it must be."""


class ConfigError(InputError):
    """A setting is unknown, malformed or out of bounds."""


class Config(pydantic.BaseModel):
    """Base of every config: frozen, unknown keys are errors, and a truth value is no number."""

    model_config = pydantic.ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @pydantic.field_validator("*", mode="before")
    @classmethod
    def _no_truth_as_number(cls, value: Any, info: pydantic.ValidationInfo) -> Any:
        if isinstance(value, bool):
            kinds = _kinds(cls.model_fields[info.field_name].annotation)
            if bool not in kinds and kinds & {int, float}:
                raise ValueError("must be a number")
        return value


class PluginConfig(Config):
    """The name of a registered plugin and its settings, which the plugin's own ``Config`` validates."""

    model_config = pydantic.ConfigDict(frozen=True, extra="allow")

    name: str

    @property
    def settings(self) -> dict[str, Any]:
        """The settings beside the name."""
        return dict(self.model_extra or {})


C = TypeVar("C", bound=Config)


class _SafeLoader(yaml.SafeLoader):
    """Safe YAML without aliases and duplicate keys, in which numbers mean what they look like.

    YAML 1.1 reads 010 as eight, 1:30 as ninety and ``no`` as false; here a whole number is decimal, the
    truth values are true and false, and everything else is text that the model may still refuse.
    """

    yaml_implicit_resolvers: ClassVar[dict] = {
        first: [
            (tag, pattern) for tag, pattern in resolvers if not tag.endswith((":int", ":bool", ":timestamp"))
        ]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.events.AliasEvent):
            event = self.peek_event()
            raise yaml.constructor.ConstructorError(
                None, None, "aliases are not allowed", event.start_mark
            )  # a handful of nested aliases expands to gigabytes
        return super().compose_node(parent, index)

    def construct_mapping(self, node: Any, deep: bool = False) -> dict:
        seen = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, str):
                raise yaml.constructor.ConstructorError(
                    None, None, f"key {key!r} must be text", key_node.start_mark
                )
            if key in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"{key} is given twice", key_node.start_mark
                )
            seen.add(key)
        return super().construct_mapping(node, deep)


class _SafeDumper(yaml.SafeDumper):
    """Safe YAML that puts quotes around every text the loader would take for something else."""


for _side in (_SafeLoader, _SafeDumper):
    _side.add_implicit_resolver(
        "tag:yaml.org,2002:int", re.compile(r"^[-+]?[0-9][0-9_]*$"), list("-+0123456789")
    )
    _side.add_implicit_resolver(
        "tag:yaml.org,2002:bool", re.compile(r"^(true|True|false|False)$"), list("tTfF")
    )
# Plain kinds only: tags such as !!binary or !!set would smuggle in objects that no setting expects.
_PLAIN = ("null", "bool", "int", "float", "seq", "map", "str")
_SafeLoader.yaml_constructors = {
    tag: build
    for tag, build in yaml.SafeLoader.yaml_constructors.items()
    if tag is None or tag.rpartition(":")[2] in _PLAIN
}
_SafeLoader.add_constructor(
    "tag:yaml.org,2002:int", lambda loader, node: int(loader.construct_scalar(node).replace("_", ""))
)


def config_text(name: str | Path, beside: Path | None = None) -> tuple[str, str]:
    """Return the text of a YAML file and the place to name in messages.

    A name is looked up as a path, then beside the file that mentions it, then among the packaged files.
    """
    candidates = [Path(name)]
    if beside is not None:
        candidates.insert(0, beside / name)
    for path in candidates:
        try:
            found = path.is_file()
        except OSError:  # a name that the file system cannot hold
            found = False
        if found:
            if path.stat().st_size > MAX_BYTES:
                raise ConfigError(
                    f"{path}: has {path.stat().st_size} bytes; a config has at most {MAX_BYTES}"
                )
            try:
                return path.read_text(encoding="utf-8-sig"), str(path)
            except (OSError, UnicodeDecodeError) as error:
                raise ConfigError(f"{path}: cannot be read ({error})") from error
    known = sorted(
        entry.name for entry in resources.files("configs").iterdir() if entry.name.endswith(".yaml")
    )
    if str(name) in known:
        return (resources.files("configs") / str(name)).read_text(encoding="utf-8"), f"configs/{name}"
    raise ConfigError(f"{name}: no such config file{did_you_mean(str(name), known)}")


def parse_yaml(text: str, place: str) -> Any:
    """Return the plain objects in a YAML text; refuses tags, aliases, duplicate keys and deep nesting."""
    try:
        value = yaml.load(text, Loader=_SafeLoader)  # noqa: S506 - a SafeLoader
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f":{mark.line + 1}" if mark else ""
        problem = getattr(error, "problem", None) or str(error).splitlines()[0]
        raise ConfigError(f"{place}{line}: not valid YAML: {problem}") from error
    except RecursionError as error:
        raise ConfigError(f"{place}: nested deeper than {MAX_DEPTH} levels") from error
    _check_depth(value, place, MAX_DEPTH)
    return value


def load(model: type[C], name: str | Path, overrides: Sequence[str] = (), **shortcuts: Any) -> C:
    """Return the validated config of one command.

    Precedence: class default < YAML < ``overrides`` in order < ``shortcuts``.

    Parameters
    ----------
    model : type
        Subclass of :class:`Config`.
    name : str or Path
        YAML file: a path, or the name of a packaged file such as ``evolve.yaml``.
    overrides : sequence of str
        ``a.b=c`` texts, the value read as YAML.
    shortcuts : Any
        Top-level (or ``section__key``) settings from spelled-out flags; None means not given.

    Raises
    ------
    ConfigError
        With file, setting, value and what it must be.
    """
    text, place = config_text(name)
    document = parse_yaml(text, place)
    if document is None:
        document = {}
    if not isinstance(document, dict):
        raise ConfigError(f"{place}: is a {type(document).__name__}; a config is a mapping of settings")
    beside = Path(place).parent if Path(place).is_file() else None
    document = _include(document, beside, place)
    origins: dict[tuple[str, ...], str] = {}  # what was not in the file, and where it came from
    for override in overrides:
        path, value = _parse_override(override)
        _assign(document, path, value, beside)
        origins[tuple(path)] = "--set"
    for key, value in shortcuts.items():
        if value is not None:
            path = key.split("__")
            _assign(document, path, value, beside)
            origins[tuple(path)] = f"--{path[-1].replace('_', '-')}"
    return validate(model, document, place, origins)


def validate(
    model: type[C],
    document: Mapping[str, Any],
    place: str,
    origins: Mapping[tuple[str, ...], str] | None = None,
) -> C:
    """Return the document as a frozen config, or raise one :class:`ConfigError` sentence.

    Parameters
    ----------
    model : type
    document : mapping
    place : str
        Where the document came from, to name in messages.
    origins : mapping of tuple to str, optional
        Settings that came from elsewhere, by their path, and from where.
    """
    try:
        return model.model_validate(document)
    except pydantic.ValidationError as error:
        raise ConfigError(_sentence(error, model, place, origins or {})) from error


def dump(config: Config, path: Path) -> None:
    """Write the resolved config as YAML that :func:`load` reads back to an equal object."""
    text = yaml.dump(config.model_dump(mode="json"), Dumper=_SafeDumper, sort_keys=False)
    path.write_text(text, encoding="utf-8")


def did_you_mean(word: str, known: Sequence[str]) -> str:
    """Return ``; did you mean x?`` when a known word is close, else the list of known words."""
    close = difflib.get_close_matches(word, known, n=1, cutoff=0.6)
    if close:
        return f"; did you mean {close[0]}?"
    return f"; known: {', '.join(known)}" if known else ""


def _include(document: dict, beside: Path | None, place: str) -> dict:
    # The only include rule: a section that is the name of a YAML file is that file's content.
    resolved = {}
    for key, value in document.items():
        if isinstance(value, str) and value.endswith(".yaml"):
            text, inner = config_text(value, beside)
            value = parse_yaml(text, inner)
            if not isinstance(value, dict):
                raise ConfigError(f"{inner}: must be a mapping; {place} includes it as {key}")
        resolved[key] = value
    return resolved


def _parse_override(override: str) -> tuple[list[str], Any]:
    path, equals, text = override.partition("=")
    keys = path.strip().split(".")
    if not equals or not all(keys):
        raise ConfigError(f"--set {override}: must look like section.setting=value")
    return keys, parse_yaml(text, f"--set {override}")


def _assign(document: dict, path: Sequence[str], value: Any, beside: Path | None) -> None:
    *sections, last = path
    for section in sections:
        inner = document.setdefault(section, {})
        if inner is None:
            inner = document[section] = {}
        if not isinstance(inner, dict):
            raise ConfigError(f"--set {'.'.join(path)}: {section} is the value {inner!r}, not a section")
        document = inner
    if isinstance(value, str) and value.endswith(".yaml"):
        value = _include({last: value}, beside, "--set")[last]
    document[last] = value


def _check_depth(value: Any, place: str, left: int) -> None:
    if left < 0:
        raise ConfigError(f"{place}: nested deeper than {MAX_DEPTH} levels")
    if isinstance(value, Mapping):
        value = value.values()
    elif not isinstance(value, list):
        return
    for inner in value:
        _check_depth(inner, place, left - 1)


def _sentence(
    error: pydantic.ValidationError,
    model: type[Config],
    place: str,
    origins: Mapping[tuple[str, ...], str],
) -> str:
    # A misspelled setting is told before a missing one: it is often the same setting.
    found = error.errors(include_url=False)
    first = next((one for one in found if one["type"] == "extra_forbidden"), found[0])
    for path, origin in origins.items():
        if first["loc"][: len(path)] == path:
            place = origin
    where = ".".join(str(part) for part in first["loc"])
    more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
    if first["type"] == "extra_forbidden":
        known = _fields_at(model, first["loc"][:-1])
        return f"{place}: {where} is not a setting{did_you_mean(str(first['loc'][-1]), known)}{more}"
    if first["type"] == "missing":
        return f"{place}: {where} is missing{more}"
    message = first["msg"].removeprefix("Value error, ").removeprefix("Input ")
    message = message[:1].lower() + message[1:]
    if not where:
        return f"{place}: {message}{more}"
    if isinstance(first["input"], (Mapping, pydantic.BaseModel)):  # a rule of a section names its own setting
        return f"{place}: {where}: {message}{more}"
    return f"{place}: {where} is {_short(first['input'])}; it {message}{more}"


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _fields_at(model: Any, loc: Sequence[str | int]) -> list[str]:
    # The settings known at a place; a number in the place is the position in a list.
    for part in loc:
        if isinstance(part, str):
            field = getattr(model, "model_fields", {}).get(part)
            model = None if field is None else field.annotation
        model = next((kind for kind in _kinds(model) if hasattr(kind, "model_fields")), None)
    return sorted(getattr(model, "model_fields", {}))


def _kinds(annotation: Any) -> set[Any]:
    # The plain types inside an annotation: float | None holds float and NoneType.
    inner = typing.get_args(annotation)
    if not inner:
        return {annotation}
    return set().union(*(_kinds(one) for one in inner))
