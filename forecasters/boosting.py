"""Gradient-boosted trees: XGBoost, LightGBM, CatBoost. They read the newest row of a window.

All three are stopped by the validation rows, keep the trees up to the best round, and are saved in the own
format of their library, which none of them runs code to read. For quantiles of the return, where these are
asked for, XGBoost and LightGBM grow trees of their own.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np
from pydantic import Field

from compute.seeds import stream
from compute.workers import n_cores
from configs.load import Config, ConfigError
from forecasters.array_forecaster import shares
from forecasters.forecaster import FORECASTERS, N_CLASSES, Forecaster, Told, read_forecaster, write_forecaster
from forecasters.quantiles import Levels, column, returns_of
from forecasters.windows import Examples
from market.table import DataError

_TELL_EVERY = 10  # rounds


class BoostingConfig(Config):
    """What boosted trees have in common; the ranges are wider than those of common practice."""

    rounds: int = Field(400, ge=1, le=100_000, description="Most rounds; each grows a tree per class.")
    patience: int = Field(
        30, ge=1, le=10_000, description="Rounds without a better validation after which it stops."
    )
    learning_rate: float = Field(0.05, gt=0, le=1, description="Share of a tree's answer that counts.")
    max_depth: int = Field(4, ge=1, le=16, description="Levels of a tree.")
    subsample: float = Field(0.7, gt=0, le=1, description="Share of the rows that a tree is grown on.")
    columns: float = Field(0.3, gt=0, le=1, description="Share of the columns that a tree may ask for.")
    penalty: float = Field(5.0, ge=0, le=1e6, description="Squared penalty on the answers of leaves.")
    bins: int = Field(64, ge=2, le=255, description="Steps into which the values of a column are sorted.")
    threads: int | None = Field(None, ge=1, le=1024, description="Threads; by default one per core.")


class QuantileBoostingConfig(BoostingConfig):
    """Boosted trees that can have quantiles."""

    quantiles: Levels = Field(
        (),
        max_length=99,
        description="Levels of the return's quantiles to grow trees for beside the classes; none.",
    )


class XGBoostConfig(QuantileBoostingConfig):
    """Settings of ``xgboost``."""

    min_child_weight: float = Field(
        10.0, ge=0, le=1e6, description="Least sum of second derivatives in a leaf."
    )
    gamma: float = Field(0.0, ge=0, le=1e3, description="What a split must gain.")


@FORECASTERS.register("xgboost", family="boosting")
class XGBoost(Forecaster):
    """Trees by XGBoost (histograms), saved as UBJSON.

    Source: Chen and Guestrin (2016), "XGBoost: a scalable tree boosting system".
    """

    Config = XGBoostConfig
    FILE, QUANTILES = "trees.ubj", "quantiles.ubj"
    booster: Any
    #: Of all quantiles together; None without any.
    quantile_booster: Any = None

    def fit(self, train: Examples, validation: Examples, *, seed: int, told: Told | None = None) -> Self:
        """Grow trees until the validation gets no better."""
        levels = self.config.quantiles
        classes = {"objective": "multi:softprob", "num_class": N_CLASSES, "eval_metric": "mlogloss"}
        turns = _in_turn(told, 1 + bool(levels))
        self.booster = self._grown(classes, _of_classes(train), _of_classes(validation), seed, turns[0])
        if levels:
            quantiles = {"objective": "reg:quantileerror", "quantile_alpha": np.array(levels)}
            data = (_of_returns("xgboost", *one) for one in (("training", train), ("validation", validation)))
            self.quantile_booster = self._grown(quantiles, *data, seed, turns[1])
        return self

    def _grown(
        self, objective: dict[str, Any], train: "_Data", validation: "_Data", seed: int, told: Told | None
    ) -> Any:
        xgboost = _xgboost()
        config = self.config
        sorting = {"max_bin": config.bins, "nthread": _threads(config)}
        learn = xgboost.QuantileDMatrix(*train[:2], weight=train.weight, **sorting)
        watched = [] if not len(validation.x) else [
            (
                xgboost.QuantileDMatrix(*validation[:2], weight=validation.weight, ref=learn, **sorting),
                "validation",
            )
        ]  # fmt: skip
        parameters = {
            **objective,
            "tree_method": "hist",
            "max_bin": config.bins,
            "eta": config.learning_rate,
            "max_depth": config.max_depth,
            "subsample": config.subsample,
            "colsample_bytree": config.columns,
            "lambda": config.penalty,
            "min_child_weight": config.min_child_weight,
            "gamma": config.gamma,
            "nthread": _threads(config),
            "seed": int(stream(seed, "xgboost").integers(2**31)),
            "verbosity": 0,
        }
        booster = xgboost.train(
            parameters,
            learn,
            config.rounds,
            evals=watched,
            early_stopping_rounds=config.patience if watched else None,
            verbose_eval=False,
            callbacks=[_xgboost_told(xgboost, told, config.rounds)] if told else None,
        )
        return booster[: booster.best_iteration + 1] if watched else booster

    def predict(self, windows: np.ndarray) -> np.ndarray:
        """Return probabilities."""
        found = self.booster.inplace_predict(np.ascontiguousarray(windows[:, -1])) if len(windows) else ()
        return _summing_to_one(found)

    def quantiles(self, windows: np.ndarray) -> np.ndarray | None:
        """Return quantiles of the return, float64 (m, q), or None without the setting."""
        if not self.config.quantiles:
            return None
        if not len(windows):
            return np.empty((0, len(self.config.quantiles)))
        found = self.quantile_booster.inplace_predict(np.ascontiguousarray(windows[:, -1]))
        return _rising(np.asarray(found, np.float64).reshape(len(windows), -1))

    def importances(self) -> np.ndarray:
        """Return the share of each column in the gain of all splits."""
        gain = self.booster.get_score(importance_type="total_gain")
        values = np.zeros(self.booster.num_features())
        for name, one in gain.items():
            values[int(name.removeprefix("f"))] = one
        return shares(values)

    def save(self, folder: Path) -> None:
        """Write the trees."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        files = {self.FILE: self.booster}
        if self.config.quantiles:
            files[self.QUANTILES] = self.quantile_booster
        for file, booster in files.items():
            booster.save_model(folder / file)
        write_forecaster(folder, "xgboost", self.config, files=tuple(files))

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Return a saved one; it answers to the bit as the saved one did."""
        xgboost = _xgboost()
        saved = read_forecaster(folder, "xgboost")
        found = cls(saved.config(cls.Config))

        def read(file: str) -> Any:
            booster = xgboost.Booster({"nthread": _threads(found.config)})
            try:
                booster.load_model(Path(folder) / file)
            except xgboost.core.XGBoostError as error:
                raise DataError(f"{Path(folder) / file}: holds no trees of XGBoost") from error
            return booster

        found.booster = read(cls.FILE)
        if found.config.quantiles:
            found.quantile_booster = read(cls.QUANTILES)
        return found


class LightGBMConfig(QuantileBoostingConfig):
    """Settings of ``lightgbm``."""

    leaves: int = Field(15, ge=2, le=4096, description="Most leaves of a tree.")
    min_leaf: int = Field(100, ge=1, le=1_000_000, description="Least examples in a leaf.")


@FORECASTERS.register("lightgbm", family="boosting")
class LightGBM(Forecaster):
    """Trees by LightGBM, grown leaf by leaf, saved as its text.

    Source: Ke et al. (2017), "LightGBM: a highly efficient gradient boosting decision tree".
    """

    Config = LightGBMConfig
    FILE = "trees.txt"
    booster: Any
    #: One per quantile.
    quantile_boosters: Sequence[Any] = ()

    def fit(self, train: Examples, validation: Examples, *, seed: int, told: Told | None = None) -> Self:
        """Grow trees until the validation gets no better."""
        levels = self.config.quantiles
        classes = {"objective": "multiclass", "num_class": N_CLASSES, "metric": "multi_logloss"}
        turns = _in_turn(told, 1 + len(levels))
        self.booster = self._grown(classes, _of_classes(train), _of_classes(validation), seed, turns[0])
        if levels:
            data = [
                _of_returns("lightgbm", *one) for one in (("training", train), ("validation", validation))
            ]
            self.quantile_boosters = [
                self._grown(
                    {"objective": "quantile", "metric": "quantile", "alpha": level}, *data, seed, turn
                )
                for level, turn in zip(levels, turns[1:], strict=True)
            ]
        return self

    def _grown(
        self, objective: dict[str, Any], train: "_Data", validation: "_Data", seed: int, told: Told | None
    ) -> Any:
        lightgbm = _lightgbm()
        config = self.config
        root = int(stream(seed, "lightgbm").integers(2**31))
        parameters = {
            **objective,
            "learning_rate": config.learning_rate,
            "max_depth": config.max_depth,
            "num_leaves": config.leaves,
            "min_data_in_leaf": config.min_leaf,
            "bagging_fraction": config.subsample,
            "bagging_freq": 1 if config.subsample < 1 else 0,
            "feature_fraction": config.columns,
            "lambda_l2": config.penalty,
            "max_bin": config.bins,
            "num_threads": _threads(config),
            "seed": root,
            # The same trees again: summed in one order, and never chosen by how fast a first try was.
            "deterministic": True,
            "force_row_wise": True,
            "verbosity": -1,
        }
        learn = lightgbm.Dataset(*train[:2], weight=train.weight, params=parameters)
        watched, callbacks = [], []
        if len(validation.x):
            watched = [learn.create_valid(*validation[:2], weight=validation.weight)]
            callbacks.append(lightgbm.early_stopping(config.patience, verbose=False))
        if told:
            callbacks.append(_lightgbm_told(told, config.rounds))
        booster = lightgbm.train(parameters, learn, config.rounds, valid_sets=watched, callbacks=callbacks)
        best = booster.best_iteration if watched else booster.current_iteration()
        # By way of its text: what is saved later is what answers now.
        return lightgbm.Booster(model_str=booster.model_to_string(num_iteration=best))

    def predict(self, windows: np.ndarray) -> np.ndarray:
        """Return probabilities."""
        if not len(windows):
            return _summing_to_one(())
        return _summing_to_one(
            self.booster.predict(np.ascontiguousarray(windows[:, -1]), num_threads=_threads(self.config))
        )

    def quantiles(self, windows: np.ndarray) -> np.ndarray | None:
        """Return quantiles of the return, float64 (m, q), or None without the setting."""
        if not self.config.quantiles:
            return None
        if not len(windows):
            return np.empty((0, len(self.config.quantiles)))
        x, threads = np.ascontiguousarray(windows[:, -1]), _threads(self.config)
        return _rising(
            np.column_stack([one.predict(x, num_threads=threads) for one in self.quantile_boosters])
        )

    def importances(self) -> np.ndarray:
        """Return the share of each column in the gain of all splits."""
        return shares(np.asarray(self.booster.feature_importance("gain"), np.float64))

    def save(self, folder: Path) -> None:
        """Write the trees."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        files = dict(zip(self._files(self.config), (self.booster, *self.quantile_boosters), strict=True))
        for file, booster in files.items():
            (folder / file).write_text(booster.model_to_string(), encoding="utf-8")
        write_forecaster(folder, "lightgbm", self.config, files=tuple(files))

    @classmethod
    def _files(cls, config: LightGBMConfig) -> tuple[str, ...]:
        return (cls.FILE, *(f"{column(level)}.txt" for level in config.quantiles))

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Return a saved one; it answers to the bit as the saved one did."""
        lightgbm = _lightgbm()
        saved = read_forecaster(folder, "lightgbm")
        found = cls(saved.config(cls.Config))

        def read(file: str) -> Any:
            try:
                return lightgbm.Booster(model_str=(Path(folder) / file).read_text(encoding="utf-8"))
            except (lightgbm.basic.LightGBMError, OSError) as error:
                raise DataError(f"{Path(folder) / file}: holds no trees of LightGBM") from error

        found.booster, *found.quantile_boosters = [read(file) for file in cls._files(found.config)]
        return found


class CatBoostConfig(BoostingConfig):
    """Settings of ``catboost``."""


@FORECASTERS.register("catboost", family="boosting")
class CatBoost(Forecaster):
    """Symmetric trees by CatBoost, saved in its binary format.

    Source: Prokhorenkova et al. (2018), "CatBoost: unbiased boosting with categorical features".
    """

    Config = CatBoostConfig
    FILE = "trees.cbm"
    model: Any

    def fit(self, train: Examples, validation: Examples, *, seed: int, told: Told | None = None) -> Self:
        """Grow trees until the validation gets no better."""
        catboost = _catboost()
        config = self.config
        if np.unique(train.target).size < 2:
            raise DataError("forecaster catboost: all training rows have one class; it takes two at least")
        model = catboost.CatBoostClassifier(
            loss_function="MultiClass",
            classes_count=N_CLASSES,
            iterations=config.rounds,
            learning_rate=config.learning_rate,
            depth=config.max_depth,
            bootstrap_type="Bernoulli",
            subsample=config.subsample,
            rsm=config.columns,
            l2_leaf_reg=config.penalty,
            border_count=config.bins,
            random_seed=int(stream(seed, "catboost").integers(2**31)),
            thread_count=_threads(config),
            allow_writing_files=False,
            verbose=False,
        )
        learn = catboost.Pool(train.tabular(), train.target, weight=train.weight)
        if len(validation):
            watched = catboost.Pool(validation.tabular(), validation.target, weight=validation.weight)
            model.fit(learn, eval_set=watched, early_stopping_rounds=config.patience, use_best_model=True)
        else:
            model.fit(learn)
        self.model = model
        return self

    def predict(self, windows: np.ndarray) -> np.ndarray:
        """Return probabilities."""
        if not len(windows):
            return _summing_to_one(())
        return _summing_to_one(
            self.model.predict_proba(np.ascontiguousarray(windows[:, -1]), thread_count=_threads(self.config))
        )

    def importances(self) -> np.ndarray:
        """Return the share of each column in how much the answers change with it."""
        return shares(np.asarray(self.model.get_feature_importance(), np.float64))

    def save(self, folder: Path) -> None:
        """Write the trees."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        self.model.save_model(str(folder / self.FILE))
        write_forecaster(folder, "catboost", self.config, files=(self.FILE,))

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Return a saved one; it answers to the bit as the saved one did."""
        catboost = _catboost()
        saved = read_forecaster(folder, "catboost")
        found = cls(saved.config(cls.Config))
        found.model = catboost.CatBoostClassifier()
        try:
            found.model.load_model(str(Path(folder) / cls.FILE))
        except catboost.CatBoostError as error:
            raise DataError(f"{Path(folder) / cls.FILE}: holds no trees of CatBoost") from error
        return found


class _Data(NamedTuple):
    # What trees are grown on: columns (m, k), what they are to foretell (m,), and what each row counts.
    x: np.ndarray
    wanted: np.ndarray
    weight: np.ndarray | None


def _of_classes(examples: Examples) -> _Data:
    return _Data(examples.tabular(), examples.target, examples.weight)


def _of_returns(name: str, what: str, examples: Examples) -> _Data:
    return _Data(examples.tabular(), returns_of(examples, name, what), examples.ret_weight)


def _in_turn(told: Told | None, n: int) -> list[Told | None]:
    # One after the other: of n, each tells of its share in the whole.
    if told is None:
        return [None] * n
    return [lambda share, line, i=i: told((i + share) / n, line) for i in range(n)]


def _rising(quantiles: np.ndarray) -> np.ndarray:
    # Trees that were grown for one level know nothing of the others, and may cross; put in order they are no
    # worse. Source: Chernozhukov et al. (2010), "Quantile and probability curves without crossing".
    return np.sort(quantiles, axis=1)


def _xgboost() -> Any:
    try:
        import xgboost
    except ImportError as error:
        raise _missing("xgboost") from error
    return xgboost


def _lightgbm() -> Any:
    try:
        import lightgbm
    except ImportError as error:
        raise _missing("lightgbm") from error
    return lightgbm


def _catboost() -> Any:
    try:
        import catboost
    except ImportError as error:
        raise _missing("catboost") from error
    return catboost


def _missing(name: str) -> ConfigError:
    return ConfigError(f"the forecaster {name} needs the package {name}; install it, or the extra forecast")


def _threads(config: BoostingConfig) -> int:
    return config.threads or n_cores()


def _summing_to_one(found: Any) -> np.ndarray:
    # Libraries answer in single precision, whose sums are off in the seventh digit.
    answers = np.asarray(found, dtype=np.float64).reshape(-1, N_CLASSES)
    return answers / answers.sum(axis=1, keepdims=True)


def _xgboost_told(xgboost: Any, told: Told, rounds: int) -> Any:
    class Tell(xgboost.callback.TrainingCallback):
        def after_iteration(self, model: Any, epoch: int, evals_log: dict) -> bool:
            if epoch % _TELL_EVERY == 0:
                told((epoch + 1) / rounds, f"round {epoch + 1}")
            return False

    return Tell()


def _lightgbm_told(told: Told, rounds: int) -> Any:
    def tell(environment: Any) -> None:
        if environment.iteration % _TELL_EVERY == 0:
            told((environment.iteration + 1) / rounds, f"round {environment.iteration + 1}")

    return tell
