"""Which bars a job works on: a file, stored bars, or the synthetic market when neither is named."""

from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
from pydantic import Field
from rich.console import Console

from compute.seeds import stream
from configs.load import Config, ConfigError
from market.bars import Bars, between, timeframe_ns, timerange_ns
from market.sources.funding import read_funding, with_funding
from market.sources.synthetic import SyntheticConfig, synthetic_market
from market.table import utc


class MarketConfig(Config):
    """Where bars come from."""

    bars: str | None = Field(
        None, description="File of bars; without one and without a store, the synthetic market."
    )
    store: str | None = Field(
        None, description="Folder of bars stored by python -m market.ingest, to read the symbol from."
    )
    layout: str = Field("auto", description="Layout of the file, see python -m market.ingest --help.")
    columns: dict[str, str] = Field(
        {},
        description="More columns of the file by their house name: {taker_buy_volume: taker_buy_volume}; a "
        "name of the house such as open or time says which column is that.",
    )
    symbol: str | None = Field(
        None, description="Symbol, for example BTC/USDT; by default read off the file."
    )
    timeframe: str | None = Field(None, description="Length of a bar, for example 1h; by default measured.")
    timerange: str | None = Field(
        None, description="For example 20190101-20240630; either side may be empty."
    )
    funding: str | None = Field(
        None, description="File of funding rates of a perpetual, joined to the bars that settle them."
    )
    repairs: tuple[str, ...] = Field((), description="Named repairs that the file may need.")
    accept: tuple[str, ...] = Field((), description="Named oddities of the file to accept.")
    synthetic: SyntheticConfig = SyntheticConfig()

    def of_asset(self, asset: str, quote: str = "USDT") -> Self:
        """Return the same settings for one of several assets.

        ``{asset}`` in the path of the file becomes the asset, as written or in small or capital letters,
        whichever file exists. Of a store the symbol becomes ``asset/quote``, or the asset itself where it
        names its quote. Synthetic markets differ by their seed, which follows from the asset's name.

        Raises
        ------
        ConfigError
            If the file is one for all assets, or there is none for this one.
        """
        symbol = asset if "/" in asset else f"{asset}/{quote}"
        if self.bars is not None:
            if "{asset}" not in self.bars:
                raise ConfigError(
                    f"market.bars is {self.bars}; for several assets it must hold {{asset}}, for example "
                    "data/{asset}usdt_1h.parquet"
                )
            paths = [self.bars.replace("{asset}", name) for name in (asset, asset.lower(), asset.upper())]
            found = next((path for path in paths if Path(path).exists()), None)
            if found is None:
                raise ConfigError(f"{paths[0]}: there is no such file of bars for the asset {asset}")
            return self.model_copy(update={"bars": found})
        if self.store is not None:
            return self.model_copy(update={"symbol": symbol})
        seed = int(stream(self.synthetic.seed, "asset", asset).integers(2**31))
        return self.model_copy(
            update={"synthetic": self.synthetic.model_copy(update={"seed": seed, "symbol": symbol})}
        )


@dataclass(frozen=True, eq=False)
class Selection:
    """Bars and what to say about them.

    Parameters
    ----------
    bars : Bars (n,)
    origin : str
        One sentence: what these bars are.
    truth : int8 (n,) or None
        True regimes, where the market is synthetic.
    warnings : tuple of str
        What is odd about the file, one sentence each.
    """

    bars: Bars
    origin: str
    truth: np.ndarray | None = None
    warnings: tuple[str, ...] = ()

    def show(self, console: Console) -> None:
        """Print what the bars are, and what is odd about them."""
        time = self.bars.time
        console.print(
            f"[bold]{self.bars.label}[/bold]: {len(time):,} bars, {utc(time[0])} to {utc(time[-1])}. "
            f"{self.origin}.",
        )
        for warning in self.warnings:
            console.print(f"! {warning}", markup=False)


def select_bars(config: MarketConfig) -> Selection:
    """Return the bars that a config asks for.

    Raises
    ------
    ConfigError, DataError
        If the file is missing or wrong, or nothing lies in the time range.
    """
    if config.bars is not None and config.store is not None:
        raise ConfigError(f"market.bars is {config.bars} and market.store {config.store}; name one of them")
    if config.columns and config.bars is None:
        raise ConfigError("market.columns names columns of a file of bars; name the file with --bars")
    if config.store is not None:
        bars = _stored(config)
        truth, origin, warnings = None, f"store {config.store}", ()
    elif config.bars is None:
        if config.symbol is not None or config.layout != "auto" or config.repairs or config.accept:
            raise ConfigError(
                "symbol, layout, repair and accept are about a file of bars; name the file with --bars"
            )
        synthetic = config.synthetic
        if config.timeframe is not None and timeframe_ns(config.timeframe) != timeframe_ns(
            synthetic.timeframe
        ):
            raise ConfigError(
                f"market.timeframe is {config.timeframe}; the synthetic market has {synthetic.timeframe} bars"
            )
        market = synthetic_market(synthetic)
        bars, truth, warnings = market.bars, market.regime, ()
        origin = f"SYNTHETIC market (seed {synthetic.seed}), not real prices"
    else:
        from market.sources.files import read_bars  # pyarrow: only when there is a file to read

        bars, quality = read_bars(
            config.bars,
            layout=config.layout,
            columns=config.columns,
            symbol=config.symbol,
            timeframe=config.timeframe,
            repairs=config.repairs,
            accept=config.accept,
        )
        truth, origin, warnings = None, f"file {config.bars}", tuple(quality.warnings)
    if config.timerange is not None:
        start, end = timerange_ns(config.timerange)
        chosen = between(bars, start, end)
        if len(chosen) == 0:
            raise ConfigError(f"market.timerange is {config.timerange}; {bars.label} has no bars there")
        if truth is not None:
            first = int(np.searchsorted(bars.time, chosen.time[0]))
            truth = truth[first : first + len(chosen)]
        bars = chosen
    if config.funding is not None:
        bars = with_funding(bars, *read_funding(config.funding))
        origin += f", funding of {config.funding}"
    return Selection(bars, origin, truth, warnings)


def _stored(config: MarketConfig) -> Bars:
    from market.store import BarStore  # pyarrow: only when there is something to read

    store = BarStore(config.store)
    known = sorted(store.keys())
    matching = [
        key
        for key in known
        if key[0] == config.symbol and (config.timeframe is None or key[1] == config.timeframe)
    ]
    if len(matching) != 1:
        listed = ", ".join(f"{symbol} {timeframe}" for symbol, timeframe in known) or "nothing"
        wanted = " ".join(part for part in (config.symbol, config.timeframe) if part) or "no symbol"
        raise ConfigError(
            f"market.store {config.store}: {wanted} was asked for; it must name one of what is stored: "
            f"{listed}"
        )
    return store.load(*matching[0])
