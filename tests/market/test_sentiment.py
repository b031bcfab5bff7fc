"""News sentiment: which headlines count, what a window knows, and what VADER is needed for."""

import json
import sys
from datetime import UTC, datetime

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from configs.load import ConfigError, load, validate
from market.sources.sentiment import (
    CRYPTO_WORDS,
    NewsConfig,
    NewsFeed,
    NewsFeedConfig,
    headlines,
    news_observations,
    vader_scores,
)
from market.sources.series import ExternalConfig, external_table, read_series
from market.table import DataError, Table

HOUR = 3_600_000_000_000
SCORED = NewsConfig(scorer="source", window="4h", step="1h")


def ns(text):
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()) * 10**9


def news(times, scores=None):
    times = np.array(times, np.int64)
    titles = [f"headline {i}" for i in range(times.size)]
    return headlines(
        "test", times, titles, [""] * times.size, None if scores is None else np.array(scores, float)
    )


def naive(times, scores, end, window):
    # Straight from the definition: the mean of what was published in (end - window, end].
    inside = [score for time, score in zip(times, scores, strict=True) if end - window < time <= end]
    return (sum(inside) / len(inside) if inside else None), len(inside)


NEWS = st.lists(
    st.tuples(st.integers(0, 30 * 60), st.sampled_from([-1.0, -0.5, 0.0, 0.25, 1.0])), min_size=1, max_size=20
)


@given(NEWS)
@settings(max_examples=100, deadline=None)
def test_a_window_is_its_definition(rows):
    rows = sorted(rows)
    times, scores = [row[0] * HOUR // 60 for row in rows], [row[1] for row in rows]
    means = news_observations(news(times, scores), SCORED)
    counts = news_observations(news(times), NewsConfig(measure="count", window="4h"))
    expected = {int(end): naive(times, scores, int(end), 4 * HOUR) for end in counts.event_time}
    assert counts.value.tolist() == [count for _, count in expected.values()]
    held = {end: mean for end, (mean, _) in expected.items() if mean is not None}
    assert means.event_time.tolist() == list(held)
    np.testing.assert_allclose(means.value, list(held.values()), atol=1e-12)


def changes_the_past(observed, rows, later, end):
    """Whether headlines after ``end`` change the windows up to it."""
    before = [row for row in rows if row[0] * HOUR // 60 <= end]
    if not before:
        return False
    results = []
    for chosen in (before, sorted(before + [row for row in later if row[0] * HOUR // 60 > end])):
        got = observed(news([row[0] * HOUR // 60 for row in chosen], [row[1] for row in chosen]), SCORED)
        known = got.event_time <= end
        results.append((got.event_time[known].tolist(), got.value[known].tolist()))
    # The last window of the shorter history may lie after its last headline only if the grid goes on.
    shared = [dict(zip(*one, strict=True)) for one in results]
    return any(shared[1].get(time) != value for time, value in shared[0].items())


@given(NEWS, NEWS, st.integers(1, 30))
@settings(max_examples=100, deadline=None)
def test_later_headlines_change_no_window(rows, later, hour):
    assert not changes_the_past(news_observations, sorted(rows), later, hour * HOUR)


def test_scores_centered_on_the_whole_history_are_caught():
    # Negative control: subtracting the mean of all scores is the usual way to leak here.
    def centered(one, config):
        return news_observations(
            headlines("test", one.time, list(one.text), [""] * len(one), one.score - one.score.mean()), config
        )

    rows, later = [(10, 0.5), (70, 0.0), (130, -0.5)], [(500, 1.0)]
    assert not changes_the_past(news_observations, rows, later, 3 * HOUR)
    assert changes_the_past(centered, rows, later, 3 * HOUR)


def test_headlines_without_title_and_repeats_need_their_rule():
    time = np.array([3, 1, 2, 4]) * HOUR
    titles, bodies = ["Rally", "Crash", None, "  rally "], ["later", "first", "x", "y"]
    with pytest.raises(DataError, match=r"row 3 of .* has no title; .* rule drop-nulls"):
        headlines("test", time, titles, bodies)
    with pytest.raises(DataError, match=r"row 4 of .* repeats the title of row 1; .* rule drop-duplicates"):
        headlines("test", time, titles, bodies, rules=("drop-nulls",))
    kept = headlines("test", time, titles, bodies, rules=("drop-nulls", "drop-duplicates"))
    assert kept.text == ("Crash. first", "Rally. later")  # the earliest of two, in order of time
    assert kept.touched == {"drop-nulls": 1, "drop-duplicates": 1}


def test_scores_of_the_source_must_be_there_and_be_scores():
    with pytest.raises(ConfigError, match="brings no scores of its own"):
        news_observations(news([HOUR]), SCORED)
    with pytest.raises(DataError, match="scores 2; a score must lie in -1 to 1"):
        news_observations(news([HOUR, 2 * HOUR], [0.5, 2.0]), SCORED)
    with pytest.raises(DataError, match="holds no headline"):
        news_observations(news([]), SCORED)


def test_without_vader_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "vaderSentiment", None)
    monkeypatch.setitem(sys.modules, "vaderSentiment.vaderSentiment", None)
    with pytest.raises(ConfigError, match=r"pip install 'regime-conductor\[sentiment\]'") as error:
        vader_scores(["anything"])
    assert "\n" not in str(error.value)


def test_vader_scores_as_its_authors_publish():
    pytest.importorskip("vaderSentiment")
    # From the examples in VADER's own documentation.
    published = {
        "VADER is smart, handsome, and funny.": 0.8316,
        "Today SUX!": -0.5461,
        "The book was good.": 0.4404,
        "At least it isn't a horrible book.": 0.431,
    }
    assert vader_scores(list(published)).tolist() == list(published.values())


def test_vader_learns_the_words_of_the_trade():
    pytest.importorskip("vaderSentiment")
    up, down = vader_scores(["Bitcoin is bullish", "Exchange hacked, token rekt"])
    assert up > 0.3
    assert down < -0.6
    # Negative control: the plain lexicon has no opinion on the first.
    from vaderSentiment.vaderSentiment import SentimentIntensityAnalyzer

    assert SentimentIntensityAnalyzer().polarity_scores("Bitcoin is bullish")["compound"] == 0
    assert vader_scores(["Bitcoin is bullish"], {"Bullish": -3.0})[0] < 0
    assert all(-4 <= valence <= 4 for valence in CRYPTO_WORDS.values())
    with pytest.raises(ConfigError, match="news word up is 9; a valence must lie in -4 to 4"):
        vader_scores(["x"], {"up": 9.0})
    with pytest.raises(ConfigError, match=r"words\.up is 9.0; it should be less than or equal to 4"):
        validate(NewsConfig, {"words": {"up": 9.0}}, "test")


def shipped(folder, name, **settings):
    config = load(ExternalConfig, "external.yaml")
    series = {name: config.series[name].model_copy(update=settings)}
    return config.model_copy(update={"folder": str(folder), "names": (name,), "series": series})


def test_real_headlines_become_a_series_without_vader(shared_data):
    own = NewsConfig(scorer="source", window="1d")
    [(series, report)], _ = read_series(
        shipped(shared_data, "news_sentiment_score", news=own, value="polarity")
    )
    assert report.rules == {"drop-nulls": 28, "drop-duplicates": 4}
    assert np.abs(series.value).max() <= 1
    # Stamps without a zone are trusted only when they are past in every zone.
    assert (series.available_at - series.event_time == 12 * HOUR + 15 * HOUR // 60).all()


def test_real_headlines_are_counted_and_expire(shared_data):
    config = shipped(shared_data, "news_headlines_count")
    time = np.array([ns("2021-10-01"), ns("2022-05-12T12:00:00"), ns("2022-07-20")], np.int64)
    counts = external_table(config, Table(time, np.zeros((3, 1)), ("x",))).values[:, 0]
    assert np.isnan(counts[[0, 2]]).all()
    assert counts[1] > 10


def test_vader_scores_real_headlines(shared_data):
    pytest.importorskip("vaderSentiment")
    [(series, _)], _ = read_series(shipped(shared_data, "news_sentiment_score"))
    crash = series.value[(series.event_time > ns("2022-05-12")) & (series.event_time < ns("2022-05-14"))]
    assert crash.mean() < np.median(series.value)


# A list of headlines, newest first, paged backwards.


class List:
    """The part of a web client that a feed uses, over headlines of its own."""

    def __init__(self, stamps, page=3):
        self.rows = [
            {"id": str(i), "published_on": stamp, "title": f"headline {i}", "body": "b", "source": "s"}
            for i, stamp in enumerate(sorted(stamps, reverse=True))
        ]
        self.page = page
        self.queries = []

    def secret(self, variable, parameter):
        return {}

    def json(self, url, query, secrets=None):
        self.queries.append(query)
        rows = [row for row in self.rows if row["published_on"] <= query["lTs"]]
        return json.loads(json.dumps({"Type": 100, "Message": "News list", "Data": rows[: self.page]}))

    def field(self, reply, path, kind, url):
        return reply[path]


def feed(**settings):
    return NewsFeed(validate(NewsFeedConfig, {"measure": "count", "window": "2h", **settings}, "test"))


def test_a_list_of_headlines_is_paged_backwards():
    hours = [1, 2, 3, 3.5, 5, 6, 6.25, 9]
    web = List([int(hour * 3600) for hour in hours])
    rows = feed().observations(web, "BTC", 4 * HOUR, 10 * HOUR)
    times = [int(hour * HOUR) for hour in hours]
    assert rows.event_time.tolist() == [hour * HOUR for hour in range(4, 10)]
    assert rows.value.tolist() == [naive(times, times, hour * HOUR, 2 * HOUR)[1] for hour in range(4, 10)]
    assert [query["lTs"] for query in web.queries] == [36_000, 6 * 3600, int(3.5 * 3600), 2 * 3600][
        : len(web.queries)
    ]


def test_windows_behind_the_oldest_headline_are_left_out():
    web = List([hour * 3600 for hour in (5, 6, 7, 8)])
    rows = feed().observations(web, "BTC", 1 * HOUR, 10 * HOUR)
    assert rows.event_time.tolist() == [7 * HOUR, 8 * HOUR]
    # Negative control: the window that ends at six would count headlines of one hour as those of two.
    assert 6 * HOUR not in rows.event_time
    with pytest.raises(DataError, match="it must cover a window of 2h between"):
        feed().observations(List([5 * 3600]), "BTC", 1 * HOUR, 6 * HOUR)
    with pytest.raises(DataError, match="nothing was sent before"):
        feed().observations(List([]), "BTC", 1 * HOUR, 6 * HOUR)
