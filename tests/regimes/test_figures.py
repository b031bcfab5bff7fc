"""The pictures of regimes show what they are given, stay legible over years, and survive odd markets."""

import numpy as np
import pytest
from matplotlib.collections import PolyCollection
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.image import imread

from backtest.figures import REGIME_SHADES
from regimes import figures
from regimes.figures import STRETCHES, by_calendar, most_frequent
from regimes.regime import CRISIS_NAMES, REGIME_NAMES
from regimes.statistics import calibration, dwells

TRAIN, HELD_OUT = slice(10, 400), slice(410, 700)


@pytest.fixture
def drawn(monkeypatch):
    """The figures that were saved, kept instead of being written."""
    kept = []
    monkeypatch.setattr(Figure, "savefig", lambda figure, path, dpi: kept.append(figure))
    return kept


@pytest.fixture(scope="module")
def bars(make_bars):
    return make_bars(700, seed=5)


@pytest.fixture(scope="module")
def label():
    return np.repeat([0, 1, 2, -1, 1, 2, 0], 100).astype(np.int8)


def ns(text):
    return np.array(text, dtype="datetime64[ns]").astype(np.int64)


def test_a_regime_has_the_same_color_here_as_in_the_pictures_of_a_backtest():
    assert figures.SHADES == REGIME_SHADES
    assert set(figures.SHADES) == set(CRISIS_NAMES)


def test_the_most_frequent_regime_of_each_stretch_by_hand():
    label = np.array([0, 0, 1, 2, 2, -1, -1, -1, -1, 1])
    edges, most = most_frequent(label, 3, 5)
    assert edges.tolist() == [0, 2, 4, 6, 8, 10]
    assert most.tolist() == [0, 1, 2, -1, 1]
    edges, most = most_frequent(label, 3, 100)  # fewer rows than stretches: row by row
    assert most.tolist() == label.tolist()
    assert edges.tolist() == list(range(11))


def test_months_weeks_and_days_by_hand():
    year = ns(["2020-01-15", "2020-02-01T00:00", "2020-02-01T01:00", "2020-12-31"])
    starts, mean, unit = by_calendar(year, np.array([[0.2], [0.4], [1.0], [np.nan]]))
    # The bar that closes at midnight of 1 February is the last one of January.
    assert unit == "month"
    assert starts.tolist() == ns(["2020-01-01", "2020-02-01", "2020-12-01"]).tolist()
    np.testing.assert_allclose(mean[:, 0], [0.3, 1.0, np.nan])
    assert by_calendar(year[:1] + np.arange(3) * 86_400_000_000_000 * 40, np.ones((3, 1)))[2] == "week"
    assert by_calendar(year[:1], np.ones((1, 2)))[2] == "day"


def shaded(axes):
    """Rows of each shade on an axes, by color: number of bands, and their width in days."""
    bands = {}
    for collection in axes.collections:
        if isinstance(collection, PolyCollection) and len(collection.get_facecolor()):
            widths = [np.ptp(path.vertices[:, 0]) for path in collection.get_paths()]
            bands[to_hex(collection.get_facecolor()[0])] = (len(widths), float(np.sum(widths)))
    return bands


def test_the_price_is_shaded_by_its_labels_and_the_samples_are_marked(drawn, bars, label):
    figures.price_by_regime(bars, label, REGIME_NAMES, TRAIN, HELD_OUT, "", "A title")
    whole, latest = drawn[0].axes
    of = {name: to_hex(figures.SHADES[name]) for name in REGIME_NAMES}
    # Held-out rows 410 to 699: 90 trending, 100 volatile and 100 ranging hours; the last bar has no width.
    widths = {name: shaded(latest)[of[name]][1] * 24 for name in REGIME_NAMES}
    assert widths == pytest.approx({"ranging": 99, "trending": 90, "volatile": 100})
    assert shaded(whole)[of["trending"]][0] == 2
    lines = [line.get_xdata()[0] for line in whole.lines[1:]]
    assert len(lines) == 2
    texts = [text.get_text() for text in whole.texts]
    assert texts == ["training rows (in sample)", "held-out rows"]
    assert not latest.texts


def test_years_of_switches_are_drawn_in_a_few_hundred_bands(drawn, make_bars):
    bars = make_bars(20_000, seed=1)
    flicker = np.random.default_rng(0).integers(0, 3, 20_000)
    figures.price_by_regime(
        bars, flicker, REGIME_NAMES, slice(0, 12_000), slice(12_000, 20_000), "", "A title"
    )
    whole, latest = drawn[0].axes
    assert sum(count for count, _ in shaded(whole).values()) <= STRETCHES
    # Control: without the stretches every run would be a band.
    assert (np.diff(flicker) != 0).sum() > 10_000
    assert 500 < sum(count for count, _ in shaded(latest).values()) <= figures.LATEST


def test_probabilities_fill_the_height_and_their_means_are_stacked(drawn, bars):
    probabilities = np.random.default_rng(0).dirichlet([1, 1, 1], 700)
    probabilities[:5] = np.nan
    figures.probabilities_over_time(bars.time, probabilities, REGIME_NAMES, TRAIN, HELD_OUT, "", "A title")
    latest, whole = drawn[0].axes
    tops = [polygon.get_paths()[0].vertices[:, 1].max() for polygon in latest.collections]
    assert tops[-1] == pytest.approx(1.0)
    heights = np.array([patch.get_height() for patch in whole.patches]).reshape(3, -1)
    np.testing.assert_allclose(heights.sum(axis=0), 1.0)
    _, mean, unit = by_calendar(bars.time, probabilities)
    assert unit == "day"
    np.testing.assert_allclose(heights, mean.T)


def test_the_chains_are_written_into_their_maps(drawn):
    chain = np.array([[0.9, 0.1, 0.0], [0.25, 0.7, 0.05], [0.001, 0.009, 0.99]])
    figures.transition_matrices({"one": chain, "two": chain.T}, REGIME_NAMES, "", "A title")
    first = [text.get_text() for text in drawn[0].axes[0].texts]
    assert first == ["0.900", "0.100", "0.0000", "0.250", "0.700", "0.050", "0.0010", "0.0090", "0.990"]
    assert "stays 10 bars" in drawn[0].axes[0].get_yticklabels()[0].get_text()


def test_every_stay_is_in_its_histogram(drawn):
    held_out = [np.array([1, 5, 300]), np.array([], dtype=int), np.array([12] * 7)]
    figures.dwell_histograms(held_out, held_out[::-1], REGIME_NAMES, "", "A title")
    for axes, name, stays in zip(drawn[0].axes, REGIME_NAMES, held_out, strict=True):
        assert f"{name}: {stays.size} stays" in axes.get_title()
        filled = [patch for patch in axes.patches if patch.get_fill()]
        assert bool(filled) == bool(stays.size)
        assert len(axes.lines) == bool(stays.size)


def test_reliability_stands_where_the_bins_say(drawn):
    p = np.random.default_rng(0).dirichlet([1, 1, 1], 3000)
    found = calibration(p, p.argmax(axis=1), np.zeros(3000, int), 10).to_dict()
    figures.reliability({"one": found, "another": found}, "the true regime", "", "A title")
    axes, counts = drawn[0].axes
    x, y = axes.lines[1].get_data()
    np.testing.assert_allclose(x, [c for c in found["confidence"] if c is not None])
    np.testing.assert_allclose(y, [h for h in found["hit_rate"] if h is not None])
    assert [patch.get_height() for patch in counts.patches] == found["rows"]
    assert "the true regime" in axes.get_ylabel()


def test_the_strips_of_a_comparison_are_the_labels_of_the_latest_bars(drawn, bars, label):
    strips = {"one": label, "other": label[::-1]}
    figures.detectors_compared(bars, strips, REGIME_NAMES, "", "A title")
    strip = drawn[0].axes[3]
    picture = strip.images[0].get_array()
    assert picture.shape == (2, 700, 3)
    assert to_hex(picture[0, 0]) == figures.SHADES["ranging"]
    assert to_hex(picture[0, 350]) == "#ffffff"  # undecided
    np.testing.assert_array_equal(picture[0], picture[1, ::-1])
    assert [text.get_text() for text in strip.get_yticklabels()] == ["one", "other"]


@pytest.mark.parametrize("kind", ["one regime", "undecided", "a flat price", "few rows", "an odd symbol"])
def test_odd_markets_are_drawn_without_a_warning(kind, make_bars, tmp_path):
    n = 30 if kind == "few rows" else 700
    bars = make_bars(n, seed=2, symbol="$_猫/USD" if kind == "an odd symbol" else "BTC/USDT")
    if kind == "a flat price":
        values = np.column_stack([np.full((n, 4), 1e-6), np.ones(n)])
        bars = type(bars)(bars.time, values, bars.names, bars.symbol, bars.interval_ns)
    label = np.full(n, -1 if kind == "undecided" else 1)
    probabilities = np.full((n, 3), np.nan) if kind == "undecided" else np.tile([0.0, 1.0, 0.0], (n, 1))
    train, held_out = slice(1, n // 2), slice(n // 2 + 1, n)
    stays = dwells(label, 3)
    judged = calibration(probabilities, label, label, 5).to_dict()
    path = tmp_path / "picture.png"
    for draw in (
        lambda: figures.price_by_regime(bars, label, REGIME_NAMES, train, held_out, path, "$1_title"),
        lambda: figures.probabilities_over_time(
            bars.time, probabilities, REGIME_NAMES, train, held_out, path, "A title"
        ),
        lambda: figures.dwell_histograms(stays, stays, REGIME_NAMES, path, "A title"),
        lambda: figures.reliability({"_one": judged}, "the true regime", path, "A title"),
        lambda: figures.detectors_compared(bars, {"_one": label}, REGIME_NAMES, path, "A title"),
    ):
        draw()
        assert imread(path).std() > 0.01
