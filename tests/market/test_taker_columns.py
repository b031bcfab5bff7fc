"""More columns of a file of bars, such as the taker volume, reach the features that read them."""

import numpy as np
import pytest

from configs.load import ConfigError, validate
from market.features.dataset import DatasetConfig, computed
from market.sources.selection import MarketConfig, select_bars
from market.sources.synthetic import SyntheticConfig
from market.table import DataError

TAKER = {"taker_buy_volume": "taker_buy_volume"}


def written(path, rows=400):
    """A file of bars of which takers bought a share of the volume that changes; unknown in row 5."""
    lines, bought = ["timestamp,open,high,low,close,volume,taker_buy_volume"], []
    for h in range(rows):
        price = 100 + h % 5
        share = "" if h == 5 else f"{10.0 * (0.2 + 0.6 * (h % 7) / 6):.6f}"
        bought.append(float(share or "nan"))
        stamp = f"2021-01-{1 + h // 24:02d}T{h % 24:02d}:00:00Z"
        lines.append(f"{stamp},{price},{price + 2},{price - 2},{price},10,{share}")
    path.write_text("\n".join(lines) + "\n")
    return str(path), np.array(bought)


def dataset(path, columns):
    document = {
        "market": {"bars": path, "columns": columns},
        "features": {"names": ["return_1"], "taker": True},
    }
    return validate(DatasetConfig, document, "here")


def test_a_column_that_was_asked_for_stands_behind_the_five_of_bars(tmp_path):
    path, bought = written(tmp_path / "BTCUSDT-1h.csv")
    bars = select_bars(MarketConfig(bars=path, columns=TAKER)).bars
    assert bars.names[5:] == ("taker_buy_volume",)
    np.testing.assert_array_equal(bars.column("taker_buy_volume"), bought)
    assert select_bars(MarketConfig(bars=path)).bars.names[5:] == ()
    first = select_bars(MarketConfig(bars=path, columns=TAKER, timerange="20210101-20210102")).bars
    np.testing.assert_array_equal(first.column("taker_buy_volume"), bought[:24])


def test_features_of_the_taker_volume_are_computed_from_a_file(tmp_path):
    path, bought = written(tmp_path / "BTCUSDT-1h.csv")
    config = dataset(path, TAKER)
    found = computed(select_bars(config.market).bars, config)
    known = ~np.isnan(bought)
    imbalance = found.column("taker_imbalance_1")
    np.testing.assert_allclose(imbalance[known], (2.0 * bought[known] - 10.0) / 10.0)
    assert np.ptp(imbalance[known]) > 1.0
    np.testing.assert_array_equal(found.column("taker_missing"), (~known).astype(float))
    without = dataset(path, {})
    with pytest.raises(DataError, match="taker_buy_volume") as caught:
        computed(select_bars(without.market).bars, without)
    assert "\n" not in str(caught.value)


def test_columns_without_a_file_or_that_the_file_has_not_are_refused(tmp_path):
    small = SyntheticConfig(n_bars=400, seed=5, start="20210101")
    with pytest.raises(ConfigError, match=r"market\.columns names columns of a file of bars"):
        select_bars(MarketConfig(synthetic=small, columns=TAKER))
    with pytest.raises(ConfigError, match=r"market\.columns names columns of a file of bars"):
        select_bars(MarketConfig(store=str(tmp_path), symbol="BTC/USDT", columns=TAKER))
    path, _ = written(tmp_path / "BTCUSDT-1h.csv")
    with pytest.raises(DataError, match="bought") as caught:
        select_bars(MarketConfig(bars=path, columns={"taker_buy_volume": "bought"}))
    assert "\n" not in str(caught.value)
