"""``stack``: a meta-learner that reads signals and regimes and foretells the sign of what will be earned.

The members' signals on the rows of the fit are out of sample, so the learner sees them as good as they are.
It may say whom to believe, how much and in which regime, and nothing of its own: a member never counts
against its signal, all signals turned around turn the answer around, and flat signals leave it flat.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
from pydantic import Field

from compute.seeds import stream
from configs.load import Config, ConfigError
from ensemble.blenders import BLENDERS, Blender, Rows, SavedBlender, least_rows, opinions, shared
from market.bars import Bars
from market.table import DataError

#: Fewer finished decisions than this teach nothing.
LEAST_ROWS = 200
#: Quantile of the answers on the rows of the fit that counts as a full signal.
FULL_QUANTILE = 0.95
#: Returns beyond this quantile of their size weigh as it does.
WEIGHT_QUANTILE = 0.99
#: Strength, in rows of weight 1, with which logistic coefficients are held near 0 as a whole.
LEVEL_PENALTY = 50.0


class StackConfig(Config):
    """Which meta-learner, what it is asked, and how strongly it is held back."""

    model: Literal["logistic", "xgboost"] = Field(
        "logistic", description="logistic: one coefficient per member and regime; xgboost: shallow trees."
    )
    horizon_bars: int = Field(
        6, ge=1, le=10_000, description="Bars from the next open over which the sign is foretold."
    )
    penalty: float = Field(
        300.0,
        ge=0,
        le=1e9,
        description="Squared penalty: on differences of coefficients (logistic), or on leaves (xgboost); a "
        "row of weight 1 pulls with a quarter.",
    )
    floor: float = Field(
        0.05,
        gt=0,
        le=1,
        description="Least difference of P(up) and P(down) that counts as a full signal, so that a learner "
        "who knows nothing does not shout.",
    )
    rounds: int = Field(60, ge=1, le=10_000, description="Trees (xgboost).")
    max_depth: int = Field(2, ge=1, le=8, description="Levels of a tree (xgboost).")
    learning_rate: float = Field(
        0.05, gt=0, le=1, description="Share of a tree's answer that counts (xgboost)."
    )
    subsample: float = Field(0.7, gt=0, le=1, description="Share of the rows a tree is grown on (xgboost).")


@BLENDERS.register("stack")
class Stack(Blender):
    """A meta-learner of the sign of the return over the next bars, from out-of-sample signals and regimes.

    ``blended`` is ``(P(up) - P(down)) / scale``, cut to [-1, 1]; the scale is the 95 % quantile of that
    difference on the rows of the fit, ``floor`` at least. Rows weigh in proportion to the size of the return,
    as a large move missed costs more than a small one, and all together as much as the returns among them
    that do not overlap.

    ``logistic``: the log odds are ``sum c[i, r] p[r] signal[i]`` over members i and regimes r, all c zero or
    more (Breiman 1996, "Stacked regressions": without that bound stacking overfits) and held to one value
    for all: without evidence everybody counts the same. ``xgboost``: shallow trees that rise with every
    signal, grown on each row and its mirror image (signals and outcome turned around), and answering with
    half the difference of both.

    ``weights`` say whom it listens to and are not factors of a sum: the shares of ``sum c[i, r] p[r]`` at
    each row (logistic), or of the gain of all splits (xgboost), among members with an opinion.
    """

    name = "stack"
    Config = StackConfig
    FILE: ClassVar[str] = "trees.json"

    def __init__(self, config: Config | None = None) -> None:
        super().__init__(config)
        self.coefficients = np.zeros((0, 0))
        self.scale = 1.0
        self.shares = np.zeros(0)
        self._trees: Any = None

    def _learn(self, rows: Rows, seed: int) -> None:
        move = ahead(rows.bars, self.config.horizon_bars)
        known = np.isfinite(move) & (move != 0.0)
        least_rows(self._place, int(known.sum()), LEAST_ROWS, rows.bars.time[-1])
        signals, regimes = opinions(rows.signals.values[known]), self._regimes(rows)[known]
        size = np.abs(move[known])
        size = np.minimum(size, np.quantile(size, WEIGHT_QUANTILE))
        weight = size / size.mean() / self.config.horizon_bars
        up = move[known] > 0.0
        if self.config.model == "logistic":
            self.coefficients = fit_logistic(signals, regimes, up, weight, self.config.penalty)
        else:
            self._grow(signals, regimes, up, weight, seed)
        leaning = np.abs(self._leaning(signals, regimes))
        self.scale = max(float(np.quantile(leaning, FULL_QUANTILE)), self.config.floor)

    def _grow(
        self, signals: np.ndarray, regimes: np.ndarray, up: np.ndarray, weight: np.ndarray, seed: int
    ) -> None:
        xgboost, config = _xgboost(), self.config
        s, k = signals.shape[1], regimes.shape[1]
        both = np.vstack([np.hstack([signals, regimes]), np.hstack([-signals, regimes])])
        data = xgboost.DMatrix(both, np.concatenate([up, ~up]), weight=np.tile(weight / 2.0, 2), nthread=1)
        parameters = {
            "objective": "binary:logistic",
            "base_score": 0.5,
            "tree_method": "hist",
            "max_bin": 64,
            "eta": config.learning_rate,
            "max_depth": config.max_depth,
            "subsample": config.subsample,
            "lambda": config.penalty,
            "min_child_weight": 5.0,
            "monotone_constraints": "(" + ",".join(["1"] * s + ["0"] * k) + ")",
            "nthread": 1,
            "seed": int(stream(seed, "stack").integers(2**31)),
            "verbosity": 0,
        }
        self._trees = xgboost.train(parameters, data, config.rounds, verbose_eval=False)
        gain = self._trees.get_score(importance_type="total_gain")
        found = np.array([gain.get(f"f{i}", 0.0) for i in range(s)], dtype=np.float64)
        self.shares = found / found.sum() if found.sum() > 0.0 else np.full(s, 1.0 / s)

    def _leaning(self, signals: np.ndarray, regimes: np.ndarray) -> np.ndarray:
        # P(up) - P(down), float64 (n,); every row by itself, whatever rows are around it.
        if self.config.model == "logistic":
            odds, heard = np.zeros(len(signals)), self._heard(regimes)
            for i in range(signals.shape[1]):
                odds += heard[:, i] * signals[:, i]
            return _odd(odds)
        if not len(signals):
            return np.zeros(0)
        sides = [
            self._trees.inplace_predict(np.hstack([side, regimes]), predict_type="margin").astype(np.float64)
            for side in (signals, -signals)
        ]
        return _odd((sides[0] - sides[1]) / 2.0)

    def _heard(self, regimes: np.ndarray) -> np.ndarray:
        # The coefficient of each member as regimes are, float64 (n, s).
        found = np.zeros((len(regimes), len(self.members)))
        for r in range(regimes.shape[1]):
            found += regimes[:, r : r + 1] * self.coefficients[:, r]
        return found

    def _regimes(self, rows: Rows) -> np.ndarray:
        # Where probabilities are not known, all regimes are equally probable.
        values = rows.regimes.values
        return np.where(np.isnan(values), 1.0 / self.n_regimes, values)

    def _answer(self, rows: Rows) -> tuple[np.ndarray, np.ndarray]:
        signals, regimes = rows.signals.values, self._regimes(rows)
        shares = self._heard(regimes) if self.config.model == "logistic" else self.shares
        leaning = self._leaning(opinions(signals), regimes)
        return shared(signals, shares), np.clip(leaning / self.scale, -1.0, 1.0)

    def _parameters(self) -> Mapping[str, Any]:
        if self.config.model == "logistic":
            return {"coefficients": self.coefficients, "scale": self.scale}
        return {"shares": self.shares, "scale": self.scale}

    def _write(self, folder: Path) -> tuple[str, ...]:
        if self.config.model == "logistic":
            return ()
        self._trees.save_model(folder / self.FILE)
        return (self.FILE,)

    def _restore(self, saved: SavedBlender) -> None:
        s = len(self.members)
        self.scale = float(saved.array("scale", ()))
        if self.scale <= 0.0:
            raise DataError(f"{saved.path}: parameters.scale is {self.scale:g}; it must be above zero")
        if self.config.model == "logistic":
            self.coefficients = saved.array("coefficients", (s, self.n_regimes))
            if (self.coefficients < 0.0).any():
                raise DataError(f"{saved.path}: parameters.coefficients has one below zero; none may be")
            return
        xgboost = _xgboost()
        self.shares = saved.shares("shares", (s,))
        path = saved.path.parent / self.FILE
        if self.FILE not in saved.document["files"]:
            raise DataError(f"{saved.path}: names no file {self.FILE}, which holds the trees")
        self._trees = xgboost.Booster({"nthread": 1})
        try:
            self._trees.load_model(path)
        except xgboost.core.XGBoostError as error:
            raise DataError(f"{path}: holds no trees of XGBoost") from error
        if self._trees.num_features() != s + self.n_regimes:
            raise DataError(f"{path}: trees of {self._trees.num_features()} columns; there are {s} members")


def ahead(bars: Bars, horizon: int) -> np.ndarray:
    """Return what one unit bought at the next open has earned ``horizon`` bars later, float64 (n,).

    ``open[t + 1 + horizon] / open[t + 1] - 1``; NaN in the last ``horizon + 1`` rows. It looks ahead: for
    fits on past rows.
    """
    opens = bars.column("open")
    found = np.full(len(bars), np.nan)
    if len(bars) > horizon + 1:
        found[: -horizon - 1] = opens[horizon + 1 :] / opens[1:-horizon] - 1.0
    return found


def fit_logistic(
    signals: np.ndarray, regimes: np.ndarray, up: np.ndarray, weight: np.ndarray, penalty: float
) -> np.ndarray:
    """Return logistic coefficients of member times regime, float64 (s, k), none below zero.

    They minimize the weighted log loss, plus half ``penalty`` times the squared distances of the coefficients
    from their mean, plus half ``LEVEL_PENALTY`` times their squares: a convex problem.

    Parameters
    ----------
    signals : float64 (n, s)
    regimes : float64 (n, k)
    up : bool (n,)
    weight : float64 (n,)
    penalty : float
    """
    from scipy.optimize import minimize
    from scipy.special import expit, log_expit

    n, s = signals.shape
    k = regimes.shape[1]
    x = (signals[:, :, None] * regimes[:, None, :]).reshape(n, s * k)
    side = np.where(up, 1.0, -1.0)

    def loss(c: np.ndarray) -> tuple[float, np.ndarray]:
        margin = side * np.einsum("nj,j->n", x, c)
        apart = c - c.mean()
        value = -float((weight * log_expit(margin)).sum())
        value += 0.5 * penalty * float((apart**2).sum()) + 0.5 * LEVEL_PENALTY * float((c**2).sum())
        slope = -np.einsum("nj,n->j", x, weight * side * expit(-margin))
        return value, slope + penalty * apart + LEVEL_PENALTY * c

    found = minimize(
        loss, np.zeros(s * k), jac=True, method="L-BFGS-B", bounds=[(0.0, None)] * (s * k),
        options={"maxiter": 500, "ftol": 1e-12, "gtol": 1e-8},
    )  # fmt: skip
    return found.x.reshape(s, k)


def _odd(odds: np.ndarray) -> np.ndarray:
    # 2 P - 1 of log odds: rows one by one, as a vector loop rounds otherwise at its end.
    from scipy.special import expit

    return expit(odds) - expit(-odds)


def _xgboost() -> Any:
    try:
        import xgboost
    except ImportError as error:
        raise ConfigError(
            "blender stack: model is xgboost, which is not installed; install the extra forecast, or choose "
            "logistic"
        ) from error
    return xgboost
