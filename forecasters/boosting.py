"""Gradient-boosted trees: XGBoost, LightGBM, CatBoost. They read the newest row of a window.

All three are stopped by the validation rows, keep the trees up to the best round, and are saved in the own
format of their library, which none of them runs code to read.
"""

from pathlib import Path
from typing import Any, Self

import numpy as np
from pydantic import Field

from compute.seeds import stream
from compute.workers import n_cores
from configs.load import Config, ConfigError
from forecasters.array_forecaster import shares
from forecasters.forecaster import FORECASTERS, N_CLASSES, Forecaster, Told, read_forecaster, write_forecaster
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


class XGBoostConfig(BoostingConfig):
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
    FILE = "trees.ubj"
    booster: Any

    def fit(self, train: Examples, validation: Examples, *, seed: int, told: Told | None = None) -> Self:
        """Grow trees until the validation gets no better."""
        xgboost = _xgboost()
        config = self.config
        learn = xgboost.QuantileDMatrix(
            train.tabular(), train.target, weight=train.weight, max_bin=config.bins, nthread=_threads(config)
        )
        watched = [] if not len(validation) else [
            (
                xgboost.QuantileDMatrix(
                    validation.tabular(), validation.target, weight=validation.weight, ref=learn,
                    max_bin=config.bins, nthread=_threads(config),
                ),
                "validation",
            )
        ]  # fmt: skip
        parameters = {
            "objective": "multi:softprob",
            "num_class": N_CLASSES,
            "eval_metric": "mlogloss",
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
        self.booster = booster[: booster.best_iteration + 1] if watched else booster
        return self

    def predict(self, windows: np.ndarray) -> np.ndarray:
        """Return probabilities."""
        found = self.booster.inplace_predict(np.ascontiguousarray(windows[:, -1])) if len(windows) else ()
        return _summing_to_one(found)

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
        self.booster.save_model(folder / self.FILE)
        write_forecaster(folder, "xgboost", self.config, files=(self.FILE,))

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Return a saved one; it answers to the bit as the saved one did."""
        xgboost = _xgboost()
        saved = read_forecaster(folder, "xgboost")
        found = cls(saved.config(cls.Config))
        found.booster = xgboost.Booster({"nthread": _threads(found.config)})
        try:
            found.booster.load_model(Path(folder) / cls.FILE)
        except xgboost.core.XGBoostError as error:
            raise DataError(f"{Path(folder) / cls.FILE}: holds no trees of XGBoost") from error
        return found


class LightGBMConfig(BoostingConfig):
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

    def fit(self, train: Examples, validation: Examples, *, seed: int, told: Told | None = None) -> Self:
        """Grow trees until the validation gets no better."""
        lightgbm = _lightgbm()
        config = self.config
        root = int(stream(seed, "lightgbm").integers(2**31))
        parameters = {
            "objective": "multiclass",
            "num_class": N_CLASSES,
            "metric": "multi_logloss",
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
        learn = lightgbm.Dataset(train.tabular(), train.target, weight=train.weight, params=parameters)
        watched, callbacks = [], []
        if len(validation):
            watched = [learn.create_valid(validation.tabular(), validation.target, weight=validation.weight)]
            callbacks.append(lightgbm.early_stopping(config.patience, verbose=False))
        if told:
            callbacks.append(_lightgbm_told(told, config.rounds))
        booster = lightgbm.train(parameters, learn, config.rounds, valid_sets=watched, callbacks=callbacks)
        best = booster.best_iteration if watched else booster.current_iteration()
        # By way of its text: what is saved later is what answers now.
        self.booster = lightgbm.Booster(model_str=booster.model_to_string(num_iteration=best))
        return self

    def predict(self, windows: np.ndarray) -> np.ndarray:
        """Return probabilities."""
        if not len(windows):
            return _summing_to_one(())
        return _summing_to_one(
            self.booster.predict(np.ascontiguousarray(windows[:, -1]), num_threads=_threads(self.config))
        )

    def importances(self) -> np.ndarray:
        """Return the share of each column in the gain of all splits."""
        return shares(np.asarray(self.booster.feature_importance("gain"), np.float64))

    def save(self, folder: Path) -> None:
        """Write the trees."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / self.FILE).write_text(self.booster.model_to_string(), encoding="utf-8")
        write_forecaster(folder, "lightgbm", self.config, files=(self.FILE,))

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Return a saved one; it answers to the bit as the saved one did."""
        lightgbm = _lightgbm()
        saved = read_forecaster(folder, "lightgbm")
        found = cls(saved.config(cls.Config))
        text = (Path(folder) / cls.FILE).read_text(encoding="utf-8")
        try:
            found.booster = lightgbm.Booster(model_str=text)
        except lightgbm.basic.LightGBMError as error:
            raise DataError(f"{Path(folder) / cls.FILE}: holds no trees of LightGBM") from error
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
