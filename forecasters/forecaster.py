"""What a forecaster is: four methods, a ``Config``, a decorator, and a YAML file of its settings.

``fit`` learns, ``predict`` answers with the probabilities of down, none and up, ``save`` and ``load`` keep it
on disk without pickle. Everything that can leak is done by the training and not by the model: which rows
teach, scaling, weights, calibration::

    @FORECASTERS.register("coin", family="naive")
    class Coin(Forecaster):
        def fit(self, train, validation, *, seed, told=None): ...
        def predict(self, windows): ...
        def save(self, folder): ...
        @classmethod
        def load(cls, folder): ...

A file in this package is found without being listed; other packages use the entry-point group
``regime_conductor.forecaster``.
"""

import abc
import hashlib
import importlib.util
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any, ClassVar, Self, TypeVar

import numpy as np

from configs.load import Config, ConfigError, PluginConfig, config_text, parse_yaml, validate
from configs.registry import Registry, module_sources
from forecasters.windows import CLASSES, Examples
from market.saved import read_saved, write_saved
from market.table import DataError

C = TypeVar("C", bound=Config)
FORMAT = 1
DOCUMENT = "forecaster.json"
MAX_BYTES = 2_000_000_000
N_CLASSES = len(CLASSES)
#: Sections of a forecaster's YAML file that are no settings of it: what ``experiments.tune`` tries, and the
#: thresholds of decisions that it has found.
NOT_SETTINGS = ("search", "thresholds")
# A module is one of forecasters if it registers some, and one of networks if it cannot do without PyTorch.
_REGISTERS = re.compile(r"FORECASTERS\.register\(")
_NETWORKS = re.compile(r"^(?:from|import) (?:torch|forecasters\.torch_training)\b", re.MULTILINE)
#: What is told while a model learns: share done in 0..1, and a line about it.
Told = Callable[[float, str], None]


class Forecaster(abc.ABC):
    """Foretells the class of a row's label from a window of rows.

    A subclass has ``Config``, a :class:`configs.load.Config` of its settings, and takes one as its only
    argument.
    """

    #: Settings of the forecaster.
    Config: ClassVar[type[Config]] = Config
    #: Whether validation rows calibrate its answers; a rule that means what it says is left alone.
    calibrated: ClassVar[bool] = True

    def __init__(self, config: Config | None = None) -> None:
        self.config = self.Config() if config is None else config

    @property
    def lookback(self) -> int:
        """Rows of a window, the newest included: the setting of that name, or 1."""
        return int(getattr(self.config, "lookback", 1))

    @property
    def levels(self) -> tuple[float, ...]:
        """Levels of its quantiles, increasing: the setting ``quantiles``, or none."""
        return tuple(getattr(self.config, "quantiles", ()))

    @abc.abstractmethod
    def fit(self, train: Examples, validation: Examples, *, seed: int, told: Told | None = None) -> Self:
        """Learn from the training examples and return self.

        Parameters
        ----------
        train, validation : Examples
            With targets and weights. Validation is later than training, and may stop the training and
            nothing else. There is nothing else to see.
        seed : int
            Root of all random numbers; the same seed gives the same model on the CPU.
        told : callable, optional
            Called with the share that is done and a line about it.
        """

    @abc.abstractmethod
    def predict(self, windows: np.ndarray) -> np.ndarray:
        """Return float64 (m, 3): probabilities of down, none, up of each window, with the sum 1.

        Parameters
        ----------
        windows : float32 (m, lookback, k)
            Scaled rows, the newest last. Each is answered by itself: one alone as all together.
        """

    @abc.abstractmethod
    def save(self, folder: Path) -> None:
        """Write the fitted forecaster into a folder, without pickle."""

    @classmethod
    @abc.abstractmethod
    def load(cls, folder: Path) -> Self:
        """Return a saved forecaster that answers as the saved one did."""

    def quantiles(self, windows: np.ndarray) -> np.ndarray | None:
        """Return quantiles of the label's return, float64 (m, q), or None where a model has none.

        A model that has them learns from ``ret`` and ``ret_weight`` of the examples. One per level of
        :attr:`levels`, a fraction before costs; in each row none is below the one before it.
        """
        return None

    def importances(self) -> np.ndarray | None:
        """Return what each column contributes, float64 (k,) with the sum 1, or None where that is unknown."""
        return None


def _modules() -> tuple[str, ...]:
    with_torch = importlib.util.find_spec("torch") is not None
    return tuple(
        name
        for name, source in module_sources("forecasters").items()
        if _REGISTERS.search(source)
        and (with_torch or not _NETWORKS.search(source))
        and f"forecasters.{name}" != __name__
    )


#: Every forecaster, by the name used in YAML; its tag ``family`` says of which kind. Who asks for one does
#: not import the others: trees do not wait for PyTorch.
FORECASTERS: Registry[Forecaster] = Registry("forecaster", "forecasters", modules=_modules(), lazy=True)


def plugin_config(text: str) -> PluginConfig:
    """Return the name and settings of a forecaster.

    Parameters
    ----------
    text : str
        A name, with the settings of ``configs/forecasters/<name>.yaml`` if there is such a file; or a YAML
        file, which holds ``name`` and settings. Its sections :data:`NOT_SETTINGS` are left out.

    Raises
    ------
    ConfigError
        If the file is no such thing, or there is no such forecaster.
    """
    document, place = plugin_document(text)
    settings = {name: value for name, value in document.items() if name not in NOT_SETTINGS}
    chosen = validate(PluginConfig, settings, place)
    _known(chosen.name)
    return chosen


def plugin_document(text: str) -> tuple[dict[str, Any], str]:
    """Return all that the YAML file of a forecaster says, and the place to name in messages.

    The parameter and the errors are those of :func:`plugin_config`.
    """
    if text.endswith((".yaml", ".yml")):
        content, place = config_text(text)
    else:
        _known(text)
        place = f"configs/forecasters/{text}.yaml"
        file = resources.files("configs") / "forecasters" / f"{text}.yaml"
        if not file.is_file():
            return {"name": text}, place
        content = file.read_text(encoding="utf-8")
    document = parse_yaml(content, place)
    if not isinstance(document, dict):
        raise ConfigError(f"{place}: must be a mapping with name and settings")
    return document, place


def new_forecaster(chosen: PluginConfig) -> Forecaster:
    """Return a new forecaster; :class:`ConfigError` for an unknown one or a wrong setting."""
    _known(chosen.name)
    return FORECASTERS.create(chosen.name, chosen.settings)


def checked(probabilities: np.ndarray, m: int, name: str) -> np.ndarray:
    """Return the answer of a forecaster as float64 (m, 3).

    Raises
    ------
    ValueError
        If it is no such thing: a mistake of the forecaster's author, not of its user.
    """
    found = np.asarray(probabilities, dtype=np.float64)
    if found.shape != (m, N_CLASSES):
        raise ValueError(f"forecaster {name}: answered {found.shape}; it must answer {(m, N_CLASSES)}")
    if not (np.isfinite(found).all() and (found >= 0.0).all()):
        raise ValueError(f"forecaster {name}: a probability is negative or no number")
    if m and np.abs(found.sum(axis=1) - 1.0).max() > 1e-6:
        raise ValueError(f"forecaster {name}: probabilities of a row have the sum {found.sum(axis=1)[0]:g}")
    return found


@dataclass(frozen=True)
class Saved:
    """What :func:`write_forecaster` wrote: the folder, the settings, and what the model needs beside them."""

    folder: Path
    settings: dict[str, Any]
    state: dict[str, Any]

    def config(self, model: type[C]) -> C:
        """Return the settings, checked; :class:`ConfigError` if they are not those of the forecaster."""
        return validate(model, self.settings, f"{self.folder / DOCUMENT}: settings")

    def array(self, key: str, shape: tuple[int, ...] | None = None) -> np.ndarray:
        """Return numbers of the state, float64; DataError if they are not there, not finite, or misshapen."""
        try:
            found = np.array(self.state[key], dtype=np.float64)
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(f"{self.folder / DOCUMENT}: {key} is missing or no array of numbers") from error
        if not np.isfinite(found).all() or (shape is not None and found.shape != shape):
            raise DataError(f"{self.folder / DOCUMENT}: {key} has shape {found.shape}; it must be {shape}")
        return found


def write_forecaster(
    folder: str | Path,
    name: str,
    config: Config,
    state: Mapping[str, Any] | None = None,
    files: Sequence[str] = (),
) -> None:
    """Write ``forecaster.json`` beside files that were written before, with the digest of each.

    Parameters
    ----------
    folder : Path
        Made if missing.
    name : str
        In :data:`FORECASTERS`.
    config : Config
    state : mapping, optional
        Plain objects; floats read back to the same bits.
    files : sequence of str
        Names of files in the folder that belong to it: weights, trees.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    document = {
        "format": FORMAT,
        "forecaster": name,
        "settings": config.model_dump(mode="json"),
        "state": dict(state or {}),
        "files": {file: hashlib.sha256((folder / file).read_bytes()).hexdigest() for file in files},
    }
    write_saved(folder / DOCUMENT, document)


def read_forecaster(folder: str | Path, name: str) -> Saved:
    """Return what was saved in a folder, after its files have been held against their digests.

    Raises
    ------
    DataError
        If something is missing, is not what was saved, or is another forecaster.
    """
    folder = Path(folder)
    document = _document(folder)
    if document["forecaster"] != name:
        raise DataError(
            f"{folder / DOCUMENT}: holds the forecaster {document['forecaster']!r}; it must be {name!r}"
        )
    for file, digest in document["files"].items():
        path = folder / file
        if path.parent != folder or not path.is_file() or path.stat().st_size > MAX_BYTES:
            raise DataError(f"{path}: is missing or too large; {DOCUMENT} belongs to it")
        if hashlib.sha256(path.read_bytes()).hexdigest() != digest:
            raise DataError(f"{path}: is not the file that was saved with {DOCUMENT}")
    return Saved(folder, document["settings"], document["state"])


def load_forecaster(folder: str | Path) -> Forecaster:
    """Return whichever forecaster was saved in a folder."""
    name = _document(Path(folder))["forecaster"]
    _known(name)
    return FORECASTERS.get(name).load(Path(folder))


def saved_name(folder: str | Path) -> str:
    """Return the name of the forecaster that was saved in a folder."""
    return _document(Path(folder))["forecaster"]


def _document(folder: Path) -> dict[str, Any]:
    types = {"format": int, "forecaster": str, "settings": dict, "state": dict, "files": dict}
    document = read_saved(folder / DOCUMENT, "forecaster", types)
    if document["format"] != FORMAT:
        raise DataError(
            f"{folder / DOCUMENT}: has format {document['format']}; this version reads format {FORMAT}"
        )
    return document


def _known(name: str) -> None:
    if name not in FORECASTERS and importlib.util.find_spec("torch") is None:
        raise ConfigError(
            f"no forecaster named {name!r}; known: {', '.join(FORECASTERS.names())}, and networks once "
            f"PyTorch is installed: the extra conductor"
        )
    FORECASTERS.get(name)
