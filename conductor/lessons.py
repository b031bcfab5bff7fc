"""The tasks of a training: what trains, what selects, what judges, and how their markets are scaled.

Landscapes are split by family and by seed, windows by time, and by asset and regime where some are held out.
"""

from dataclasses import dataclass
from typing import Self

from rich.console import Console

from compute.workers import Mapper
from conductor.curriculum import Landscapes, Mixture, Source
from conductor.market_context import ContextScaler
from conductor.markets import Market, eras
from conductor.tasks import SPLITS, TaskSampler
from conductor.training_settings import TrainConfig
from conductor.windows import TradingWindows
from configs.load import ConfigError
from market.sources.selection import select_bars


@dataclass(frozen=True, eq=False)
class Lessons:
    """Sources of tasks that share nothing.

    Parameters
    ----------
    train, validation, test : Source
    scaler : ContextScaler or None
        Of the market features, fitted on the training windows.
    windows : dict of str to TradingWindows
        By split; empty without markets.
    fitted_until : int
        End of the last bar of a real market that training or validation reads, nanoseconds UTC; 0 for none.
    origin : tuple of str
        Where the tasks come from, for people.
    fingerprints : tuple of str
        Of the bars.
    """

    train: Source
    validation: Source
    test: Source
    scaler: ContextScaler | None
    windows: dict[str, TradingWindows]
    fitted_until: int
    origin: tuple[str, ...]
    fingerprints: tuple[str, ...]

    @classmethod
    def of(cls, config: TrainConfig, console: Console, mapper: Mapper) -> Self:
        """Return the tasks that the settings ask for; reads bars and fits detectors.

        Raises
        ------
        ConfigError, DataError
            If a setting or the bars will not do.
        """
        landscapes = _landscapes(config)
        origin = [f"{len(SPLITS['train'])} families of landscapes: {', '.join(SPLITS['train'])}"]
        if config.tasks == "landscapes":
            return cls(
                **landscapes, scaler=None, windows={}, fitted_until=0, origin=tuple(origin), fingerprints=()
            )
        markets, fingerprints, real = {}, [], False
        for asset in config.trading.assets:
            selection = select_bars(config.market.of_asset(asset))
            if asset == config.trading.assets[0]:
                selection.show(console)
            with console.status(f"describing bars of {asset}, fitting its regime detector"):
                markets[asset] = Market.of(selection.bars, config.trading.windows)
            real = real or config.market.bars is not None or config.market.store is not None
            fingerprints.append(selection.bars.fingerprint())
            origin.append(f"{selection.bars.label}, {len(selection.bars):,} bars, {selection.origin}")
        windows = _windows(config, markets)
        scaler = ContextScaler.fit(windows["train"].contexts())
        windows = {split: source.scaled(scaler) for split, source in windows.items()}
        until = 0
        if real:
            until = max(window.stop for split in ("train", "validation") for window in windows[split].windows)
            fitted = max(int(market.bars.time[market.first - 1]) for market in markets.values())
            until = max(until, fitted)
        mixed = windows
        if config.tasks == "both":
            shares = (1.0 - config.windows_share, config.windows_share)
            mixed = {split: Mixture((landscapes[split], windows[split]), shares) for split in windows}
        else:
            origin = origin[1:]
        return cls(
            **mixed,
            scaler=scaler,
            windows=windows,
            fitted_until=until,
            origin=tuple(origin),
            fingerprints=tuple(fingerprints),
        )


def _landscapes(config: TrainConfig) -> dict[str, Source]:
    sizes = {"dimensions": config.landscapes.dimensions, "sizes": config.landscapes.sizes}
    samplers = {split: TaskSampler(split, config.seed % 2**31, **sizes) for split in SPLITS}
    # Weights are chosen on new instances of the families that train, and on one that never does. One alone
    # would choose for itself: conductors that are good at a single strange family are poor elsewhere.
    seen = TaskSampler("validation", config.seed % 2**31, families=SPLITS["train"], **sizes)
    return {
        "train": Landscapes(samplers["train"]),
        "validation": Mixture((Landscapes(samplers["validation"]), Landscapes(seen)), (0.1, 0.9)),
        "test": Landscapes(samplers["test"]),
    }


def _windows(config: TrainConfig, markets: dict[str, Market]) -> dict[str, TradingWindows]:
    trading, settings = config.trading, config.trading.windows
    kept = tuple(name for name in settings.regimes if name not in trading.held_out_regimes)
    strangers = set(trading.held_out_regimes) - set(settings.regimes)
    if strangers or not kept:
        raise ConfigError(
            f"trading.held_out_regimes is {', '.join(trading.held_out_regimes)}; it must name some, not all, "
            f"of {', '.join(settings.regimes)}"
        )
    learning = [market for asset, market in markets.items() if asset not in trading.held_out]
    judging = [market for asset, market in markets.items() if asset in trading.held_out] or learning
    spans = eras(learning, trading.train, trading.validation)
    seen = settings.model_copy(update={"regimes": kept})
    unseen = settings.model_copy(update={"regimes": trading.held_out_regimes or settings.regimes})
    parts = {
        "train": (learning, seen, spans.train),
        "validation": (learning, seen, spans.validation),
        "test": (judging, unseen, spans.test),
    }
    return {
        split: TradingWindows(own, chosen, seed=config.seed, begin=span[0], end=span[1], split=split)
        for split, (own, chosen, span) in parts.items()
    }
