"""What is fitted piece by piece: how a fold or a combination of groups is left on disk, and resumed."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Generic, Protocol, Self, TypeVar

from compute.workers import Mapper, SerialMapper
from ensemble.settings import ValidateConfig
from experiments.ledger import Batch, Ledger
from experiments.runs import Run
from ga.checkpoint import Checkpoints


class Kept(Protocol):
    """What a fit decides, as it is kept."""

    searches: tuple[Mapping[str, Any], ...]

    def state(self) -> dict[str, Any]:
        """Return it as a checkpoint keeps it."""
        ...

    @classmethod
    def of_state(cls, state: Mapping[str, Any]) -> Self:
        """Return what :meth:`state` gave."""
        ...


R = TypeVar("R", bound=Kept)


class FittingJob(ABC, Generic[R]):
    """Fits pieces by their number and leaves each on disk; travels to workers whole.

    A piece is called what ``piece`` says, in its folder ``checkpoints/<short>-NNN`` and in its identity.
    """

    piece: ClassVar[str]
    short: ClassVar[str]
    kept: ClassVar[type]

    run: Run
    config: ValidateConfig
    identity: Mapping[str, str]
    forced: tuple[str, ...]

    @abstractmethod
    def fit(self, number: int, workers: Mapper) -> R:
        """Fit a piece and return what it decided."""

    def __call__(self, number: int) -> tuple[int, tuple[str, ...]]:
        """Fit a piece and leave what it decided on disk; return its number and what is to be told."""
        with self._checkpoints(number) as checkpoints, SerialMapper() as workers:
            checkpoints.save(number, self.fit(number, workers).state())
        return number, ()

    def is_done(self, number: int) -> bool:
        """Return whether a piece is on disk."""
        return any(self._folder(number).glob("*.ckpt"))

    def load(self, number: int) -> R:
        """Return a piece that is on disk; :class:`ConfigError` if it is damaged or of another run."""
        with self._checkpoints(number) as checkpoints:
            return self.kept.of_state(checkpoints.load(self.forced).state)

    def record_searches(self, ledger: Ledger, fingerprint: str, found: R, first: int) -> None:
        """Count the trials of a piece; those that are counted already are not counted again.

        Parameters
        ----------
        ledger : Ledger
        fingerprint : str
            Of the bars.
        found : Kept
        first : int
            Number of its first search among those of the run.
        """
        batches = [
            Batch(search["sharpes"], search["n_evaluated"], search["n_unique"], first + i)
            for i, search in enumerate(found.searches)
        ]
        if batches:
            ledger.record_all(fingerprint, self.run.id, batches)

    def _folder(self, number: int) -> Path:
        return self.run.folder / "checkpoints" / f"{self.short}-{number + 1:03d}"

    def _checkpoints(self, number: int) -> Checkpoints:
        return Checkpoints(self._folder(number), {**self.identity, self.piece: str(number + 1)}, keep=1)
