"""What a tuning tries: the section ``search`` of a forecaster's YAML file, held against its settings.

A parameter is a setting of the forecaster. Two ends make a range, a list makes choices::

    search:
      max_depth: {low: 3, high: 9}
      learning_rate: {low: 0.01, high: 0.2, log: true}
      lookback: {low: 32, high: 64, step: 8}
      heads: [2, 4, 8]
"""

from collections.abc import Mapping
from typing import Any

from configs.load import Config, ConfigError, PluginConfig, did_you_mean, validate
from experiments.ranges import Range
from forecasters.forecaster import FORECASTERS, plugin_document

SECTION = "search"
PREFIX = "forecasters."


class _Space(Config):
    search: dict[str, Range]


def target_model(target: str) -> str:
    """Return what ``plugin_config`` takes: the name of a forecaster, or a YAML file of one.

    Raises
    ------
    ConfigError
        If the target is neither ``forecasters.<name>`` nor such a file.
    """
    if target.endswith((".yaml", ".yml")):
        return target
    name = target.removeprefix(PREFIX)
    if not target.startswith(PREFIX) or not name or "." in name:
        raise ConfigError(
            f"--target {target}: cannot be tuned; it must be forecasters.<name>, for example "
            f"forecasters.xgboost, or a YAML file of a forecaster"
        )
    return name


def search_space(text: str, given: Mapping[str, Range] | None = None) -> dict[str, Range]:
    """Return the ranges that the YAML file of a forecaster has in its section ``search``.

    Parameters
    ----------
    text : str
        As of :func:`forecasters.forecaster.plugin_config`.
    given : mapping of str to Range, optional
        Further ones, and others instead of those in the file.

    Raises
    ------
    ConfigError
        If there is no such section and none is given, or it is wrong.
    """
    document, place = plugin_document(text)
    given = dict(given or {})
    if not document.get(SECTION):
        if given:
            return given
        raise ConfigError(
            f"{place}: forecaster {document.get('name')} has no section {SECTION}, which would say what to "
            f"try, for example {SECTION}: {{penalty: {{low: 1.0, high: 100.0, log: true}}}}"
        )
    return validate(_Space, {SECTION: document[SECTION]}, place).search | given


def check_space(model: PluginConfig, space: Mapping[str, Range]) -> None:
    """See that every value of a space can be a value of the setting.

    Parameters
    ----------
    model : PluginConfig
        The settings beside those that are tried.
    space : mapping of str to Range

    Raises
    ------
    ConfigError
        If a parameter is no setting, or an end of its range is out of bounds. What only together will not do
        is left to the trial that meets it.
    """
    kind = FORECASTERS.get(model.name).Config
    known = sorted(kind.model_fields)
    if not space:
        raise ConfigError(f"forecaster {model.name}: nothing is left to try; it takes a parameter at least")
    for name in space:
        if name not in known:
            raise ConfigError(
                f"{SECTION}.{name}: is not a setting of forecaster {model.name}{did_you_mean(name, known)}"
            )
    bottom, top = ({name: one.ends()[end] for name, one in space.items()} for end in (0, -1))
    for name, one in space.items():
        for value in one.ends():
            # A rule about several settings, as that heads divide d_model, may be broken beside the defaults
            # and hold among other values of the space.
            errors = [
                error
                for beside in ({}, bottom, top)
                if (error := _error(kind, {**model.settings, **beside, name: value}, model.name)) is not None
            ]
            if len(errors) == 3:
                raise ConfigError(f"{SECTION}.{name}: {value} cannot be tried: {errors[0]}") from errors[0]


def _error(kind: type[Config], settings: Mapping[str, Any], name: str) -> ConfigError | None:
    try:
        validate(kind, settings, f"forecaster {name}")
    except ConfigError as error:
        return error
    return None
