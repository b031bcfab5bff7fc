"""A trained conductor on disk: a folder with its weights (safetensors) and all else as JSON.

Nothing that is read runs code. A conductor remembers until when it has seen bars of a real market
(``fitted_until``); who uses it on rows before that has no out-of-sample figures.
"""

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from conductor.market_context import STATE_VERSION, ContextScaler
from conductor.steering import Steering
from configs.load import ConfigError, did_you_mean, validate
from experiments.runs import list_runs
from ga.controls import CONTROL_NAMES
from ga.variation import Variation
from market.saved import read_saved, write_saved
from market.table import DataError

if TYPE_CHECKING:
    from conductor.network import ConductorNetwork

WEIGHTS, DOCUMENT, SCALER = "weights.safetensors", "conductor.json", "scaler.json"
#: Of the document; another one is not read.
FORMAT = 1
MAX_BYTES = 200_000_000
#: Where a training run keeps its conductor, and where those lie that come with the project.
FOLDER, TRAINED = "conductor", Path(__file__).parent / "trained"


@dataclass(frozen=True, eq=False)
class Conductor:
    """A network and what it needs to conduct.

    Parameters
    ----------
    variant : str
        Name in ``conductor.network.VARIANTS``.
    network : ConductorNetwork
    steering : Steering
        Around the static controls that were tuned on the same tasks.
    variation : Variation
        The operators behind the controls while it learned; with others its controls mean something else.
    scaler : ContextScaler or None
        Of market features; None where no task had a market.
    fitted_until : int
        End of the latest bar of a real market that it has seen, nanoseconds UTC; 0 for none.
    story : mapping
        How it was trained and what it reached: plain values, for people.
    """

    variant: str
    network: "ConductorNetwork"
    steering: Steering
    variation: Variation = field(default_factory=Variation)
    scaler: ContextScaler | None = None
    fitted_until: int = 0
    story: Mapping[str, Any] = field(default_factory=dict)

    def save(self, folder: str | Path) -> Path:
        """Write the conductor; the document, which names the digest of the weights, comes last.

        Returns
        -------
        Path
            The folder.
        """
        from safetensors.torch import save

        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        content = save({name: part.contiguous() for name, part in self.network.state_dict().items()})
        draft = folder / f"{WEIGHTS}.unfinished"
        draft.write_bytes(content)
        os.replace(draft, folder / WEIGHTS)
        if self.scaler is not None:
            self.scaler.save(folder / SCALER)
        document = {
            "format": FORMAT,
            "state_version": STATE_VERSION,
            "variant": self.variant,
            "settings": self.network.config.model_dump(mode="json"),
            "static": dict(zip(CONTROL_NAMES, self.steering.static, strict=True)),
            "rate": self.steering.rate,
            "variation": self.variation.model_dump(mode="json"),
            "scaled": self.scaler is not None,
            "fitted_until": int(self.fitted_until),
            "weights_sha256": hashlib.sha256(content).hexdigest(),
            "story": dict(self.story),
        }
        write_saved(folder / DOCUMENT, document)
        return folder

    @classmethod
    def load(cls, folder: str | Path) -> Self:
        """Return a saved conductor, ready to conduct.

        Raises
        ------
        DataError
            If a file is missing, is not what it must be, or belongs to another version of the state.
        ConfigError
            If the variant is unknown or its extra is not installed.
        """
        folder = Path(folder)
        document = read_document(folder)
        try:
            from safetensors import SafetensorError
            from safetensors.torch import load
        except ImportError as error:
            raise ConfigError(
                f"{folder}: a conductor needs PyTorch and safetensors; install the extra conductor"
            ) from error
        from conductor.network import VARIANTS

        content = (folder / WEIGHTS).read_bytes()
        if hashlib.sha256(content).hexdigest() != document["weights_sha256"]:
            raise DataError(f"{folder / WEIGHTS}: is not the file that was saved with {DOCUMENT}")
        network = VARIANTS.create(document["variant"], document["settings"])
        try:
            network.load_state_dict(load(content))
        except (SafetensorError, RuntimeError, ValueError) as error:
            raise DataError(
                f"{folder / WEIGHTS}: does not hold the weights of variant {document['variant']}: "
                f"{str(error).splitlines()[0]}"
            ) from error
        network.eval()
        return cls(
            document["variant"],
            network,
            _steering(folder, document),
            validate(Variation, document["variation"], f"{folder / DOCUMENT}: variation"),
            ContextScaler.load(folder / SCALER) if document["scaled"] else None,
            document["fitted_until"],
            document["story"],
        )


def read_document(folder: str | Path) -> dict[str, Any]:
    """Return what ``conductor.json`` says, checked; the weights are not read and PyTorch is not needed.

    Raises
    ------
    DataError
        If it, or the file of weights, is missing or no such thing.
    """
    path = Path(folder) / DOCUMENT
    document = read_saved(
        path,
        "conductor",
        {
            "format": int,
            "state_version": int,
            "variant": str,
            "settings": dict,
            "static": dict,
            "rate": (int, float),
            "variation": dict,
            "scaled": bool,
            "fitted_until": int,
            "weights_sha256": str,
            "story": dict,
        },
    )
    found = document["format"], document["state_version"]
    if found != (FORMAT, STATE_VERSION):
        raise DataError(
            f"{path}: has format {found[0]} and state version {found[1]}; this version reads format "
            f"{FORMAT} and state version {STATE_VERSION}, so train the conductor anew"
        )
    weights = path.with_name(WEIGHTS)
    if not weights.is_file() or weights.stat().st_size > MAX_BYTES:
        raise DataError(f"{weights}: is missing or larger than {MAX_BYTES} bytes; {DOCUMENT} belongs to it")
    return document


def find(name: str, runs: str | Path) -> Path:
    """Return the folder of a conductor.

    Parameters
    ----------
    name : str
        A folder; the id of a training run; the name of a variant, for the latest finished training run of
        it; or the name of a conductor that comes with the project. The first of these that there is.
    runs : str or Path
        Folder of runs.

    Raises
    ------
    ConfigError
        If there is none.
    """
    if (Path(name) / DOCUMENT).is_file():
        return Path(name)
    if (Path(name) / FOLDER / DOCUMENT).is_file():
        return Path(name) / FOLDER
    trained = [run for run in list_runs(runs, "train") if (run.folder / FOLDER / DOCUMENT).is_file()]
    for run in trained:
        if run.id == name:
            return run.folder / FOLDER
    for run in reversed(trained):
        if read_document(run.folder / FOLDER)["variant"] == name:
            return run.folder / FOLDER
    shipped = sorted(path.parent.name for path in TRAINED.glob(f"*/{DOCUMENT}"))
    if name in shipped:
        return TRAINED / name
    known = sorted({*shipped, *(run.id for run in trained)})
    raise ConfigError(
        f"no conductor named {name!r}{did_you_mean(name, known)}; train one with python -m conductor.train, "
        f"or give the folder of one"
    )


def _steering(folder: Path, document: Mapping[str, Any]) -> Steering:
    static = document["static"]
    try:
        return Steering(tuple(float(static[name]) for name in CONTROL_NAMES), float(document["rate"]))
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"{folder / DOCUMENT}: static is no set of tuned controls: {error}") from error
