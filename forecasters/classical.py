"""Linear models, a forest and a support vector machine: scikit-learn fits them, plain arrays answer.

They read the newest row of a window.
"""

from typing import Any, Self

import numpy as np
from pydantic import Field

from compute.seeds import stream
from compute.workers import n_cores
from configs.load import Config
from forecasters.array_forecaster import (
    ArrayForecaster,
    linear,
    multinomial,
    quiet_about_steps,
    shares,
    softmax,
)
from forecasters.forecaster import FORECASTERS, N_CLASSES, Told
from forecasters.windows import Examples

_PIECE = 2048  # rows that walk through all trees of a forest at once


class LogisticConfig(Config):
    """Settings of ``logistic``."""

    penalty: float = Field(
        100.0, gt=0, le=1e9, description="Strength of the squared penalty, in examples of weight 1."
    )
    iterations: int = Field(300, ge=10, le=100_000, description="Most steps of the solver.")


@FORECASTERS.register("logistic", family="classical")
class Logistic(ArrayForecaster):
    """Multinomial logistic regression of the newest row, with a squared penalty."""

    Config = LogisticConfig
    name = "logistic"
    parts = ("coefficients", "intercept")
    coefficients: np.ndarray
    intercept: np.ndarray

    def fit(self, train: Examples, validation: Examples, *, seed: int, told: Told | None = None) -> Self:
        """Fit; nothing is random, and validation is not looked at."""
        x = train.tabular()
        self.coefficients, self.intercept = multinomial(
            x, train.target, train.weight, self.config.penalty, self.config.iterations
        )
        return self

    def predict(self, windows: np.ndarray) -> np.ndarray:
        """Return probabilities."""
        return softmax(linear(windows[:, -1], self.coefficients, self.intercept))

    def importances(self) -> np.ndarray:
        """Return the share of each column in the absolute coefficients, columns being of one scale."""
        return shares(np.abs(self.coefficients).sum(axis=0))


class ForestConfig(Config):
    """Settings of ``random_forest``."""

    trees: int = Field(200, ge=1, le=10_000, description="Trees.")
    max_depth: int = Field(10, ge=1, le=30, description="Levels of a tree.")
    min_leaf: float = Field(0.002, gt=0, lt=0.5, description="Least share of the examples' weight in a leaf.")
    columns: float = Field(0.1, gt=0, le=1, description="Share of the columns that a node chooses from.")
    rows: float = Field(0.5, gt=0, le=1, description="Share of the examples that a tree is drawn from.")
    threads: int | None = Field(None, ge=1, le=1024, description="Threads; by default one per core.")


@FORECASTERS.register("random_forest", family="classical")
class RandomForest(ArrayForecaster):
    """The mean of many trees of the newest row, each grown on rows and columns of its own."""

    Config = ForestConfig
    name = "random_forest"
    parts = ("roots", "left", "right", "column", "threshold", "shares", "importance")
    roots: np.ndarray
    left: np.ndarray
    right: np.ndarray
    column: np.ndarray
    threshold: np.ndarray
    shares: np.ndarray
    importance: np.ndarray

    def fit(self, train: Examples, validation: Examples, *, seed: int, told: Told | None = None) -> Self:
        """Grow the trees; validation is not looked at."""
        from sklearn.ensemble import RandomForestClassifier

        config = self.config
        forest = RandomForestClassifier(
            config.trees,
            max_depth=config.max_depth,
            min_weight_fraction_leaf=config.min_leaf,
            max_features=config.columns,
            max_samples=config.rows if config.rows < 1 else None,
            random_state=int(stream(seed, self.name).integers(2**31)),
            n_jobs=config.threads or n_cores(),
        ).fit(train.tabular(), train.target, train.weight)
        self._keep(forest)
        return self

    def predict(self, windows: np.ndarray) -> np.ndarray:
        """Return probabilities: the mean over the trees of the shares in the leaf that a row falls into."""
        x = np.ascontiguousarray(windows[:, -1])
        found = np.empty((len(x), N_CLASSES))
        for start in range(0, len(x), _PIECE):
            found[start : start + _PIECE] = self._answers(x[start : start + _PIECE])
        return found

    def importances(self) -> np.ndarray:
        """Return the share of each column in the impurity that the trees took away."""
        return shares(self.importance)

    def _keep(self, forest: Any) -> None:
        # All trees in one table of nodes, so that a row walks through all of them at once.
        trees = [one.tree_ for one in forest.estimators_]
        first = np.cumsum([0, *(tree.node_count for tree in trees)])
        self.roots = first[:-1].astype(np.int32)
        leaf = np.concatenate([tree.children_left < 0 for tree in trees])
        own = np.arange(first[-1])
        for side in ("left", "right"):
            children = [
                getattr(tree, f"children_{side}") + at for tree, at in zip(trees, first, strict=False)
            ]
            # A leaf is its own child: walking on from it changes nothing.
            setattr(self, side, np.where(leaf, own, np.concatenate(children)).astype(np.int32))
        self.column = np.where(leaf, 0, np.concatenate([tree.feature for tree in trees])).astype(np.int32)
        self.threshold = np.concatenate([tree.threshold for tree in trees])
        counts = np.concatenate([tree.value[:, 0, :] for tree in trees])
        self.shares = np.zeros((len(counts), N_CLASSES))
        self.shares[:, forest.classes_] = counts / counts.sum(axis=1, keepdims=True)
        self.importance = forest.feature_importances_

    def _answers(self, x: np.ndarray) -> np.ndarray:
        rows = np.arange(len(x))[:, None]
        node = np.broadcast_to(self.roots, (len(x), self.roots.size))
        for _ in range(self.config.max_depth):
            goes_left = x[rows, self.column[node]] <= self.threshold[node]
            node = np.where(goes_left, self.left[node], self.right[node])
        return self.shares[node].mean(axis=1)


class SupportVectorConfig(Config):
    """Settings of ``svm``."""

    landmarks: int = Field(
        300, ge=10, le=5_000, description="Training rows that stand for all in the kernel (Nystroem)."
    )
    gamma: float = Field(
        0.3, gt=0, le=1e3, description="Of the kernel exp(-gamma |x - y|^2 / number of columns)."
    )
    c: float = Field(0.1, gt=0, le=1e6, description="What a row on the wrong side costs.")
    iterations: int = Field(300, ge=10, le=100_000, description="Most steps of the solver.")


@FORECASTERS.register("svm", family="classical")
class SupportVectorMachine(ArrayForecaster):
    """A support vector machine with a Gaussian kernel, of the newest row, one class against the others.

    An exact kernel machine takes the square of the number of examples; this one knows the kernel by some
    training rows alone. Its distances become probabilities by a logistic regression on the validation rows
    (Platt), because those of the training rows are too sure.

    Source: Williams and Seeger (2001), "Using the Nystroem method to speed up kernel machines".
    """

    Config = SupportVectorConfig
    name = "svm"
    parts = ("landmarks", "projection", "coefficients", "intercept", "slopes", "offsets")
    landmarks: np.ndarray
    projection: np.ndarray
    coefficients: np.ndarray
    intercept: np.ndarray
    slopes: np.ndarray
    offsets: np.ndarray

    def fit(self, train: Examples, validation: Examples, *, seed: int, told: Told | None = None) -> Self:
        """Fit the machine on the training examples, and its probabilities on the validation."""
        from sklearn.kernel_approximation import Nystroem
        from sklearn.svm import LinearSVC

        x, config = train.tabular().astype(np.float64), self.config
        kernel = Nystroem(
            gamma=config.gamma / x.shape[1],
            n_components=min(config.landmarks, len(x)),
            random_state=int(stream(seed, self.name).integers(2**31)),
        ).fit(x)
        self.landmarks, self.projection = kernel.components_, kernel.normalization_
        self.coefficients = np.zeros((N_CLASSES, len(self.projection)))
        self.intercept = np.full(N_CLASSES, -1.0)  # a class that nobody has seen is far away
        mapped = self._mapped(x)
        for one in np.unique(train.target) if np.unique(train.target).size > 1 else ():
            machine = LinearSVC(C=config.c, dual=False, max_iter=config.iterations)
            with quiet_about_steps():
                machine.fit(mapped, train.target == one, train.weight)
            self.coefficients[one], self.intercept[one] = machine.coef_[0], machine.intercept_[0]
        judges = validation if len(validation) else train
        margins = self._margins(judges.tabular())
        self.slopes, self.offsets = multinomial(margins, judges.target, judges.weight, 1.0, config.iterations)
        return self

    def predict(self, windows: np.ndarray) -> np.ndarray:
        """Return probabilities."""
        return softmax(linear(self._margins(windows[:, -1]), self.slopes, self.offsets))

    def _mapped(self, x: np.ndarray) -> np.ndarray:
        squares = (x**2).sum(axis=1)[:, None] + (self.landmarks**2).sum(axis=1) - 2.0 * x @ self.landmarks.T
        near = np.exp(-self.config.gamma / x.shape[1] * np.maximum(squares, 0.0))
        return near @ self.projection.T

    def _margins(self, x: np.ndarray) -> np.ndarray:
        return linear(self._mapped(x.astype(np.float64)), self.coefficients, self.intercept)
