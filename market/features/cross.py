"""Columns that need more than open, high, low, close and volume: peers, external series, taker volume.

They come from a second table on the clock of the bars, made by :class:`market.external.AsOfJoin`, so each row
holds what was available when its bar closed. Here "not known" is no error: a funding rate has a first day,
and a peer may pause. Every column then is 0, the neutral value, and the column ``<name>_missing`` is 1; the
table stays finite, as its law demands, and a model can tell.

Which columns there are follows from the names in :class:`JoinedFeaturesConfig`, for example for peer ``eth``
``eth_beta_168``, and for series ``vix`` ``vix_zscore_168``.
"""

from collections.abc import Callable, Sequence

from pydantic import Field, field_validator, model_validator

from market.bars import OHLCV
from market.external import EVENT, AsOfJoin, ExternalSeries
from market.features import cross_kernels as compiled
from market.features.feature import (
    CLOSE,
    TIME,
    VOLUME,
    BarColumn,
    Feature,
    JoinedColumn,
    Node,
    Window,
    declared,
)
from market.features.pipeline import FeaturesConfig
from market.features.price import log_return
from market.features.volatility import RETURN

TAKER = BarColumn("taker_buy_volume")
_Template = Callable[..., Callable]


def joined(series: Sequence[ExternalSeries], max_age_ns: int | None = None) -> AsOfJoin:
    """Return the join that gives these features their second table.

    Beside each value it joins the time of the value's event, from which the features tell its age.

    Parameters
    ----------
    series : sequence of ExternalSeries
        Peers by their close (``ExternalSeries.of_bars(bars, "close", "eth")``) and anything else.
    max_age_ns : int, optional
        A value whose event is older than this is not known any more.

    Examples
    --------
    ::

        join = joined([ExternalSeries.of_bars(eth, "close", "eth"), vix], max_age_ns=7 * 86_400 * 10**9)
        config = JoinedFeaturesConfig(names="full", peers=("eth",), series=("vix",))
        features = FeaturePipeline(config).update(bars, join.update(bars))
    """
    return AsOfJoin([*series, *(one.events() for one in series)], max_age_ns)


class JoinedFeaturesConfig(FeaturesConfig):
    """Which features are computed, those of joined columns included."""

    peers: tuple[str, ...] = Field(
        (), max_length=50, description="Joined columns that hold the price of another symbol: eth."
    )
    series: tuple[str, ...] = Field(
        (),
        max_length=200,
        description="Joined columns that hold anything else, in any unit: funding, vix. Their event times "
        "are joined as well, see market.features.cross.joined.",
    )
    taker: bool = Field(
        False, description="Whether the bars have a column taker_buy_volume, base currency, to be used."
    )

    @field_validator("peers", "series")
    @classmethod
    def _named(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        for name in names:
            if not name.isidentifier() or name in OHLCV:
                raise ValueError(f"must hold names of joined columns, such as eth; {name!r} is none")
        return names

    @model_validator(mode="after")
    def _once(self) -> "JoinedFeaturesConfig":
        names = [feature.name for feature in self.selected()]
        if len(set(names)) != len(names):
            twice = next(name for name in names if names.count(name) > 1)
            raise ValueError(f"column {twice} would be there twice; peers and series need names of their own")
        return self

    def selected(self) -> list[Feature]:
        """Return the features: of bars, of peers, of series, of taker volume."""
        found = super().selected()
        for templates, names, columns in (
            (PEER, self.peers, ("",)),
            (SERIES, self.series, ("", EVENT)),
        ):
            for name in names:
                nodes = [JoinedColumn(name + ending) for ending in columns]
                found += [
                    declared(f"{name}_{ending}", function, *nodes, *numbers)
                    for ending, (function, numbers) in templates.items()
                ]
        if self.taker:
            found += [
                declared(f"taker_{ending}", function, *numbers)
                for ending, (function, numbers) in FLOW.items()
            ]
        return found


def _templates(found: dict[str, tuple[Callable, tuple[int, ...]]]) -> _Template:
    # A decorator: the endings of column names and the numbers the declaring function is called with.
    def template(**columns: int | tuple[int, ...]) -> Callable:
        def decorator(function: Callable) -> Callable:
            for ending, numbers in columns.items():
                found[ending] = function, numbers if isinstance(numbers, tuple) else (numbers,)
            return function

        return decorator

    return template


#: Ending of the column, the function that declares it, and its numbers: per peer, per series, and once.
PEER: dict[str, tuple[Callable, tuple[int, ...]]] = {}
SERIES: dict[str, tuple[Callable, tuple[int, ...]]] = {}
FLOW: dict[str, tuple[Callable, tuple[int, ...]]] = {}
_peer, _series, _flow = _templates(PEER), _templates(SERIES), _templates(FLOW)


# -- peers -------------------------------------------------------------------------------------------------


def _return(price: Node, bars: int = 1) -> Node:
    return Window(compiled.change, (price,), (bars,), lookback=bars + 1)


@_peer(return_1=1, return_24=24)
def peer_return(price: Node, bars: int) -> Node:
    """Log return of the peer; not known: 0."""
    return Window(compiled.or_neutral, (_return(price, bars),))


@_peer(ratio_return_1=1, ratio_return_24=24, ratio_return_168=168)
def ratio_return(price: Node, bars: int) -> Node:
    """Log return of the peer's price in units of this symbol (ETH/BTC): its relative strength."""
    return Window(compiled.ahead, (_return(price, bars), log_return(bars)))


@_peer(ratio_zscore_168=168)
def ratio_zscore(price: Node, bars: int) -> Node:
    """Standard deviations (ddof 0) of the log price ratio above its mean; constant: 0.

    At least half of the window must be known, here and below.
    """
    return Window(compiled.zscore, (Window(compiled.log_of_ratio, (price, CLOSE)),), (1, bars), lookback=bars)


@_peer(correlation_168=(0, 168, 0), lead_168=(1, 168, 0), beta_168=(0, 168, 1))
def comovement(price: Node, lag: int, bars: int, as_beta: int) -> Node:
    """Correlation of both returns, of this one with the peer's before (lead), or the slope on it (beta)."""
    return Window(compiled.comovement, (RETURN, _return(price)), (lag, bars, as_beta), lookback=bars)


@_peer(volatility_ratio_72=72)
def peer_volatility_ratio(price: Node, bars: int) -> Node:
    """Log of the peer's volatility over this symbol's, both at least STILL."""
    return Window(compiled.volatility_ratio, (RETURN, _return(price)), (bars,), lookback=bars)


@_peer(missing=())
def peer_missing(price: Node) -> Node:
    """1 where no price of the peer is known."""
    return Window(compiled.missing_price, (price,))


# -- external series ---------------------------------------------------------------------------------------


@_series(zscore_168=168, zscore_720=720)
def series_zscore(values: Node, event: Node, bars: int) -> Node:
    """Standard deviations (ddof 0) of the value above its mean over bars; constant or not known: 0."""
    return Window(compiled.zscore, (values,), (0, bars), lookback=bars)


@_series(change_24=(24, 720), change_168=(168, 720))
def series_change(values: Node, event: Node, lag: int, bars: int) -> Node:
    """Change over a day (24 bars) or a week, in standard deviations of the value over 720 bars."""
    return Window(compiled.standard_change, (values,), (lag, bars), lookback=bars)


@_series(level_720=720)
def series_level(values: Node, event: Node, bars: int) -> Node:
    """Value over its root mean square of 720 bars: its sign and its size, in no unit; not known: 0."""
    return Window(compiled.level, (values,), (bars,), lookback=bars)


@_series(age=())
def series_age(values: Node, event: Node) -> Node:
    """Log of 1 plus the hours since the event that the value is about; not known: 0."""
    return Window(compiled.age, (TIME, event, values))


@_series(missing=())
def series_missing(values: Node, event: Node) -> Node:
    """1 where no value is known."""
    return Window(compiled.missing, (values,))


# -- taker volume ------------------------------------------------------------------------------------------


@_flow(imbalance_1=1, imbalance_24=24, imbalance_168=168)
def taker_imbalance(bars: int) -> Node:
    """Volume bought by takers minus volume sold by them, over all of it, -1 to 1; not known or none: 0."""
    return Window(compiled.taker_share, (TAKER, VOLUME), (bars,), lookback=bars)


@_flow(divergence_24=24)
def taker_divergence(bars: int) -> Node:
    """Taker imbalance minus the return made over the way travelled, -2 to 2: pushing without moving."""
    return Window(compiled.taker_divergence, (TAKER, VOLUME, RETURN), (bars,), lookback=bars)


@_flow(missing=())
def taker_missing() -> Node:
    """1 where the taker volume of the bar is not known."""
    return Window(compiled.missing, (TAKER,))
