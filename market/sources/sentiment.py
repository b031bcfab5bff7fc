"""Sentiment: the fear and greed index, and headlines scored with VADER over a trailing window."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any

import numpy as np
from pydantic import Field

from configs.load import Config, ConfigError
from market.bars import timeframe_ns
from market.sources.observations import SERIES_SOURCES, Observations
from market.sources.web import Web, day_text, stamp_ns, value_of
from market.table import DataError, utc

# Words of the trade that VADER does not know or takes for something else, on its scale of -4 to 4.
CRYPTO_WORDS = {
    "adoption": 1.5,
    "airdrop": 1.0,
    "ath": 2.0,
    "bearish": -2.5,
    "bullish": 2.5,
    "burn": 0.0,
    "capitulation": -2.5,
    "crash": -3.0,
    "crashes": -3.0,
    "crypto": 0.0,
    "delisted": -2.0,
    "depeg": -3.0,
    "dip": -1.0,
    "downtrend": -2.0,
    "dump": -2.5,
    "dumps": -2.5,
    "exploit": -2.5,
    "exploited": -2.5,
    "fud": -2.0,
    "hack": -3.0,
    "hacked": -3.0,
    "halving": 1.0,
    "hodl": 1.0,
    "insolvent": -3.0,
    "liquidated": -2.0,
    "liquidation": -2.0,
    "liquidations": -2.0,
    "moon": 2.0,
    "outflows": -1.5,
    "inflows": 1.5,
    "plunge": -2.5,
    "plunges": -2.5,
    "ponzi": -3.0,
    "pump": 1.0,
    "rally": 2.0,
    "rallies": 2.0,
    "rekt": -3.0,
    "rug": -2.5,
    "rugpull": -3.5,
    "selloff": -2.0,
    "share": 0.0,
    "surge": 2.0,
    "surges": 2.0,
    "uptrend": 2.0,
}


@dataclass(frozen=True, eq=False)
class Headlines:
    """News in order of time.

    Parameters
    ----------
    place : str
        File or address, for messages.
    time : int64 (m,)
        When each was published as the source says, nanoseconds UTC, ascending.
    text : tuple of str
        Title and first sentences.
    score : float64 (m,), optional
        A score the source brings along, -1 to 1.
    touched : dict of str to int
        What was left out, by rule.
    notes : tuple of str
        How they were read.
    """

    place: str
    time: np.ndarray
    text: tuple[str, ...]
    score: np.ndarray | None = None
    touched: dict[str, int] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return self.time.size


class NewsConfig(Config):
    """How headlines become a series."""

    measure: str = Field(
        "score",
        pattern="^(score|count)$",
        description="score: mean sentiment of the window, -1 to 1; count: its headlines.",
    )
    window: str = Field("1d", description="Trailing window.")
    step: str = Field("1h", description="Distance of the values; each is about the window that ends there.")
    scorer: str = Field(
        "vader", pattern="^(vader|source)$", description="vader, or source: the score of the source itself."
    )
    words: dict[str, Annotated[float, Field(ge=-4, le=4)]] = Field(
        {}, description="Valence of further words, -4 to 4, beside those of crypto markets."
    )


def headlines(
    place: str,
    time: np.ndarray,
    title: Sequence[str | None],
    body: Sequence[str | None],
    score: np.ndarray | None = None,
    rules: Sequence[str] = (),
) -> Headlines:
    """Return headlines in order of time, without the empty and the repeated ones.

    Of headlines with one title the earliest counts, so that a later copy changes nothing earlier.

    Parameters
    ----------
    place : str
        For messages.
    time : int64 (m,)
        Nanoseconds UTC.
    title, body : sequence of str or None
        As the source has them.
    score : float64 (m,), optional
        Of the source.
    rules : sequence of str
        ``drop-nulls`` leaves out what has no title, ``drop-duplicates`` what repeats one.

    Raises
    ------
    DataError
        If a title is missing or repeated and the rule for it was not named.
    """
    counts = {rule: 0 for rule in ("drop-nulls", "drop-duplicates") if rule in rules}
    seen: dict[str, int] = {}
    kept = []
    for row in np.argsort(time, kind="stable"):
        words = " ".join((title[row] or "").split())
        rule = "drop-nulls" if not words else "drop-duplicates" if words.casefold() in seen else None
        if rule is None:
            seen[words.casefold()] = int(row)
            kept.append(row)
        elif rule in counts:
            counts[rule] += 1
        else:
            what = "has no title" if not words else f"repeats the title of row {seen[words.casefold()] + 1}"
            raise DataError(
                f"{place}: row {row + 1} of {utc(time[row])} {what}; a headline must be new; go on with the "
                f"rule {rule}"
            )
    text = tuple(". ".join(filter(None, (title[row], body[row]))) for row in kept)
    rows = np.array(kept, np.intp)
    return Headlines(
        place, np.asarray(time, np.int64)[rows], text, None if score is None else score[rows], counts
    )


def vader_scores(text: Sequence[str], words: Mapping[str, float] | None = None) -> np.ndarray:
    """Return VADER's compound score of each text, float64 (m,), -1 to 1 (Hutto and Gilbert 2014).

    The lexicon is fixed, so that no score depends on other headlines.

    Raises
    ------
    ConfigError
        If vaderSentiment is not installed, or a word's valence lies outside -4 to 4.
    """
    try:
        from vaderSentiment.vaderSentiment import SentimentIntensityAnalyzer
    except ImportError:
        raise ConfigError(
            "news sentiment: needs vaderSentiment; install it with: pip install 'regime-conductor[sentiment]'"
        ) from None
    for word, valence in (words or {}).items():
        if not -4 <= valence <= 4:
            raise ConfigError(f"news word {word} is {valence:g}; a valence must lie in -4 to 4")
    analyzer = SentimentIntensityAnalyzer()
    analyzer.lexicon.update({**CRYPTO_WORDS, **{word.lower(): one for word, one in (words or {}).items()}})
    return np.array([analyzer.polarity_scores(one)["compound"] for one in text], np.float64)


def news_observations(news: Headlines, config: NewsConfig) -> Observations:
    """Return the mean score, or the count, of the headlines in the window that ends at each step.

    A window is open at its start and closed at its end. Where it holds no headline there is no mean,
    and the count is zero. Each value is about the end of its window and uses nothing later.
    """
    step, window = timeframe_ns(config.step), timeframe_ns(config.window)
    if not len(news):
        raise DataError(f"{news.place}: holds no headline; it must hold at least one")
    end = np.arange(-(-news.time[0] // step), -(-news.time[-1] // step) + 1, dtype=np.int64) * step
    last = np.searchsorted(news.time, end, side="right")
    first = np.searchsorted(news.time, end - window, side="right")
    count = last - first
    if config.measure == "count":
        value = count.astype(np.float64)
    else:
        total = np.concatenate([[0.0], np.cumsum(_scored(news, config))])
        value = np.full(end.size, np.nan)
        full = count > 0
        value[full] = (total[last[full]] - total[first[full]]) / count[full]
    held = ~np.isnan(value)
    return Observations(
        news.place,
        end[held],
        value[held],
        counted="window",
        notes=(*news.notes, f"{len(news):,} headlines"),
        touched=dict(news.touched),
    )


def _scored(news: Headlines, config: NewsConfig) -> np.ndarray:
    if config.scorer == "vader":
        return vader_scores(news.text, config.words)
    if news.score is None:
        raise ConfigError(f"{news.place}: brings no scores of its own; the scorer must be vader")
    wrong = ~(np.abs(news.score) <= 1)
    if wrong.any():
        row = int(np.argmax(wrong))
        raise DataError(
            f"{news.place}: the headline of {utc(news.time[row])} scores {news.score[row]:g}; a score must "
            f"lie in -1 to 1"
        )
    return news.score


class FearGreedConfig(Config):
    """Settings of the fear and greed index of alternative.me."""

    base: str = Field("https://api.alternative.me/fng/", description="Address of the API.")


@SERIES_SOURCES.register("fear-greed")
class FearGreed:
    """One value a day, 0 (extreme fear) to 100 (extreme greed), stamped 00:00 UTC."""

    Config = FearGreedConfig

    def __init__(self, config: FearGreedConfig) -> None:
        self.config = config

    def observations(self, web: Web, asset: str, start_ns: int, end_ns: int) -> Observations:
        """Return the days of the range."""
        place = "alternative.me fear and greed"
        reply = web.json(self.config.base, {"limit": 0, "format": "json"})
        data = web.field(reply, "data", list, self.config.base)
        rows = [(stamp_ns(row, "timestamp", place), value_of(row, "value", place)) for row in data]
        return web.observations(place, sorted(rows), start_ns, end_ns)


class NewsFeedConfig(NewsConfig):
    """Settings of headlines from a JSON interface.

    The defaults are those of CryptoCompare's news list; another list is a matter of names.
    """

    base: str = Field("https://min-api.cryptocompare.com/data/v2/news/", description="Address of the list.")
    parameters: dict[str, str] = Field({"lang": "EN"}, description="Fixed parameters of the query.")
    before: str = Field("lTs", description="Parameter that asks for headlines before a time in seconds.")
    list_path: str = Field("Data", description="Where the reply holds the list, keys joined by dots.")
    time: str = Field("published_on", description="Field of the time.")
    title: str = Field("title", description="Field of the title.")
    body: str = Field("body", description="Field of the text.")
    key_variable: str | None = Field(None, description="Environment variable that holds a key.")
    key_parameter: str = Field("api_key", description="Parameter that carries the key.")
    most_pages: int = Field(200, ge=1, le=10_000, description="Requests after which the past is let be.")


@SERIES_SOURCES.register("news")
class NewsFeed:
    """Headlines of a news list, newest first, paged backwards."""

    Config = NewsFeedConfig

    def __init__(self, config: NewsFeedConfig) -> None:
        self.config = config

    def observations(self, web: Web, asset: str, start_ns: int, end_ns: int) -> Observations:
        """Return the windows that end in the range and are known in full."""
        config = self.config
        window = timeframe_ns(config.window)
        news, reached = self._news(web, start_ns - window, end_ns)
        rows = news_observations(news, config)
        # A window that reaches behind the oldest headline fetched would count too few.
        whole = (rows.event_time >= max(start_ns, reached + window)) & (rows.event_time < end_ns)
        if not whole.any():
            raise DataError(
                f"{rows.place}: the list reaches back to {utc(reached)}; it must cover a window of "
                f"{config.window} between {day_text(start_ns)} and {day_text(end_ns)}"
            )
        return rows.take(whole)

    def _news(self, web: Web, start_ns: int, end_ns: int) -> tuple[Headlines, int]:
        config = self.config
        secrets = web.secret(config.key_variable, config.key_parameter)
        place = f"news of {config.base}"
        found: dict[tuple[int, str], Any] = {}
        before = end_ns
        for _ in range(config.most_pages):
            query = {**config.parameters, config.before: before // 1_000_000_000}
            reply = web.json(config.base, query, secrets=secrets)
            page = web.field(reply, config.list_path, list, config.base)
            stamps = [stamp_ns(row, config.time, place) for row in page]
            known = len(found)
            found |= {
                (ns, str(row.get(config.title))): row
                for ns, row in zip(stamps, page, strict=True)
                if ns < end_ns
            }
            if len(found) == known:  # empty, or nothing but what was sent before: the list ends here
                break
            before = min(stamps)
            if before < start_ns:
                break
        if not found:
            raise DataError(f"{place}: nothing was sent before {utc(end_ns)}")
        rows = sorted(found.items(), key=lambda item: item[0])
        texts = {
            field: [one if isinstance(one := row.get(name), str) else None for _, row in rows]
            for field, name in (("title", config.title), ("body", config.body))
        }
        time = np.array([key[0] for key, _ in rows], np.int64)
        news = headlines(place, time, texts["title"], texts["body"], None, ("drop-nulls", "drop-duplicates"))
        return news, max(start_ns, int(time[0]))
