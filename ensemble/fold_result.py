"""What a fold of a walk-forward leaves behind: decisions on its test rows, and their rivals."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ensemble.signals import Blend
from ensemble.validation import FoldRecord
from market.table import Table


@dataclass(frozen=True, eq=False)
class FoldResult:
    """What a fold decided on its test rows, and what it is compared with there.

    Parameters
    ----------
    record : FoldRecord
    blend : Blend (m,)
        Of the strategy; one column of signals per member of the roster, NaN for one that is absent.
    rivals : mapping of str to float64 (m,)
        Exposure by the other blenders.
    generalist : float64 (m,) or None
        Signal of one specialist for all regimes.
    always_on : float64 (m,)
        Mean signal of the specialists when none of them ever sleeps.
    random_routing : float64 (m, d)
        Mean signal of the specialists whose regime leads, by regimes drawn at random.
    searches : tuple of mapping
        For the ledger: ``sharpes`` float64 (k,) per bar, ``n_evaluated``, ``n_unique``.
    """

    record: FoldRecord
    blend: Blend
    rivals: Mapping[str, np.ndarray]
    generalist: np.ndarray | None
    always_on: np.ndarray
    random_routing: np.ndarray
    searches: tuple[Mapping[str, Any], ...]

    def state(self) -> dict[str, Any]:
        """Return it as a checkpoint keeps it."""
        table = self.blend.to_table()
        return {
            "record": self.record.to_dict(),
            "blend": {"time": table.time, "values": table.values, "names": list(table.names)},
            "rivals": dict(self.rivals),
            "generalist": self.generalist,
            "always_on": self.always_on,
            "random_routing": self.random_routing,
            "searches": [dict(search) for search in self.searches],
        }

    @classmethod
    def of_state(cls, state: Mapping[str, Any]) -> "FoldResult":
        """Return what :meth:`state` gave."""
        kept = state["blend"]
        return cls(
            **{
                **state,
                "record": FoldRecord.of_dict(state["record"]),
                "blend": Blend.of_table(Table(kept["time"], kept["values"], tuple(kept["names"]))),
                "searches": tuple(state["searches"]),
            }
        )
