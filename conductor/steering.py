"""From what a network says to the 12 controls: a residual around tuned controls, bounded and not abrupt.

A network that says nothing leaves the tuned controls as they are, to the bit, so that a conductor begins
where tuning ended. What it says is added in logit space, so that no control can leave its range; and each
control moves a share of the way per generation, so that what a generation shows is the work of controls that
did not jump just then.

Tuning likes bounds: of twelve controls it leaves half within a hundredth of one. The logits are therefore
those of a range that is a little wider than that of the control, and what falls beyond is cut off. Otherwise
no network could ever move such a control, nor learn that it should.
"""

from dataclasses import dataclass
from typing import Self

import numpy as np
from scipy.special import expit, logit

from ga.controls import CONTROL_NAMES, GAControls, places_of, values_at

#: Nearest to its bounds that a tuned control may stand.
MARGIN = 0.003
#: How far the logits reach beyond either bound, in ranges.
STRETCH = 0.1
#: Share of the way to its target that a control moves in one generation: the bound of its change.
RATE = 0.4
# Places are read back from natural units with the error of a logarithm; rounded, a place is itself again.
_DIGITS = 12


@dataclass(frozen=True)
class Steering:
    """Tuned fixed controls, and how a residual moves them.

    Parameters
    ----------
    static : tuple of 12 float
        Places of the tuned controls in their ranges, from ``MARGIN`` to ``1 - MARGIN``.
    rate : float
        Share of the way to the target per generation, above 0 and at most 1. No control ever moves by more
        than this share of its range in one generation.

    Raises
    ------
    ValueError
        If a place or the rate is out of range, or there are not 12 places.
    """

    static: tuple[float, ...]
    rate: float = RATE

    def __post_init__(self) -> None:
        if len(self.static) != len(CONTROL_NAMES):
            raise ValueError(f"static has {len(self.static)} places; there are {len(CONTROL_NAMES)} controls")
        for name, place in zip(CONTROL_NAMES, self.static, strict=True):
            if not MARGIN <= place <= 1.0 - MARGIN:
                raise ValueError(f"place of {name} is {place}; it must be from {MARGIN} to {1.0 - MARGIN}")
        if not 0.0 < self.rate <= 1.0:
            raise ValueError(f"rate of steering is {self.rate}; it must be above 0 and at most 1")
        object.__setattr__(self, "static", tuple(round(float(place), _DIGITS) for place in self.static))

    @classmethod
    def around(cls, controls: GAControls, rate: float = RATE) -> Self:
        """Return the steering around controls, each moved inside its range by the margin if it must be."""
        return cls(tuple(np.clip(controls.to_unit(), MARGIN, 1.0 - MARGIN).tolist()), rate)

    @property
    def controls(self) -> GAControls:
        """The tuned fixed controls."""
        return GAControls.from_array(values_at(np.array(self.static)))

    def steered(self, residual: np.ndarray, controls: np.ndarray) -> np.ndarray:
        """Return the controls of the next generation, float64 (..., 12), in natural units.

        Parameters
        ----------
        residual : float (..., 12)
            What the network says, added to the logits of the tuned places. One that is not a number is
            taken for 0.
        controls : float64 (..., 12)
            Of the generation before, in natural units; NaN where there was none, which stands for the tuned.
        """
        static = np.array(self.static)
        before = np.where(np.isnan(controls), static, np.round(places_of(controls), _DIGITS))
        target = self.target(residual)
        return values_at(np.clip(np.round(before + self.rate * (target - before), _DIGITS), 0.0, 1.0))

    def target(self, residual: np.ndarray) -> np.ndarray:
        """Return the places that residuals ask for, float64 (..., 12) from 0 to 1, however far the way."""
        static = np.array(self.static)
        said = np.nan_to_num(np.asarray(residual, dtype=np.float64), nan=0.0, posinf=np.inf, neginf=-np.inf)
        begin = logit((static + STRETCH) / (1.0 + 2.0 * STRETCH))
        # As a difference, so that a residual of zero is no change whatever the rounding of expit.
        moved = (1.0 + 2.0 * STRETCH) * (expit(begin + said) - expit(begin))
        return np.clip(static + moved, 0.0, 1.0)

    def residual(self, places: np.ndarray) -> np.ndarray:
        """Return the residuals, float64 (..., 12), that ask for places; the inverse of :meth:`target`."""
        asked, static = (
            logit((np.asarray(one, dtype=np.float64) + STRETCH) / (1.0 + 2.0 * STRETCH))
            for one in (places, self.static)
        )
        return asked - static
