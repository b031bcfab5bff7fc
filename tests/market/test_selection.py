import numpy as np
import pytest

from configs.load import ConfigError
from market.sources.selection import MarketConfig, select_bars
from market.sources.synthetic import SyntheticConfig, synthetic_market
from market.store import BarStore

SMALL = SyntheticConfig(n_bars=400, seed=5, start="20210101")


def write(path, rows=48, **changed):
    lines = ["timestamp,open,high,low,close,volume"]
    for h in range(rows):
        price = 100 + h % 5
        lines.append(
            f"2021-01-{1 + h // 24:02d}T{h % 24:02d}:00:00Z,{price},{price + 2},{price - 2},{price},7"
        )
    for row, text in changed.items():
        lines[int(row.removeprefix("row_"))] = text
    path.write_text("\n".join(lines) + "\n")
    return str(path)


def test_without_a_file_the_market_is_synthetic_and_says_so():
    selection = select_bars(MarketConfig(synthetic=SMALL))
    assert selection.origin == "SYNTHETIC market (seed 5), not real prices"
    assert selection.truth.tobytes() == synthetic_market(SMALL).regime.tobytes()
    assert selection.warnings == ()


def test_a_timerange_takes_the_same_rows_of_bars_and_truth():
    whole = select_bars(MarketConfig(synthetic=SMALL))
    part = select_bars(MarketConfig(synthetic=SMALL, timerange="20210103-20210110"))
    first = int(np.searchsorted(whole.bars.time, part.bars.time[0]))
    assert first == 48
    assert len(part.bars) == 7 * 24
    assert part.bars.values.tobytes() == whole.bars.values[first : first + 168].tobytes()
    assert part.truth.tobytes() == whole.truth[first : first + 168].tobytes()


def test_a_file_brings_its_symbol_and_what_is_odd_about_it(tmp_path):
    path = write(tmp_path / "ETHUSDT-1h.csv", row_5="2021-01-01T04:00:00Z,100,102,98,100,0")
    selection = select_bars(MarketConfig(bars=path, timerange="20210101-20210102"))
    assert selection.bars.label == "ETH/USDT 1h"
    assert len(selection.bars) == 24
    assert selection.truth is None
    assert any("without volume" in warning for warning in selection.warnings)


def test_a_time_range_without_bars_is_refused():
    with pytest.raises(ConfigError, match="20300101-20310101; SYN/USDT 1h has no bars there"):
        select_bars(MarketConfig(synthetic=SMALL, timerange="20300101-20310101"))


def test_another_timeframe_than_the_synthetic_one_is_refused():
    with pytest.raises(ConfigError, match="timeframe is 4h; the synthetic market has 1h bars"):
        select_bars(MarketConfig(synthetic=SMALL, timeframe="4h"))
    assert len(select_bars(MarketConfig(synthetic=SMALL, timeframe="60m")).bars) == 400


@pytest.mark.parametrize("setting", [{"symbol": "BTC/USDT"}, {"layout": "ccxt"}, {"repairs": ("sort",)}])
def test_options_about_a_file_need_a_file(setting):
    with pytest.raises(ConfigError, match="name the file with --bars"):
        select_bars(MarketConfig(synthetic=SMALL, **setting))


def test_stored_bars_are_read_by_their_symbol(tmp_path):
    bars = synthetic_market(SMALL).bars
    BarStore(tmp_path).save(bars)
    selection = select_bars(MarketConfig(store=str(tmp_path), symbol=bars.symbol))
    assert selection.bars.fingerprint() == bars.fingerprint()
    assert selection.origin == f"store {tmp_path}"


@pytest.mark.parametrize("symbol", [None, "DOGE/USDT"])
def test_a_symbol_that_is_not_stored_is_refused_and_the_stored_ones_are_named(tmp_path, symbol):
    bars = synthetic_market(SMALL).bars
    BarStore(tmp_path).save(bars)
    with pytest.raises(ConfigError, match=f"it must name one of what is stored: {bars.symbol} 1h"):
        select_bars(MarketConfig(store=str(tmp_path), symbol=symbol))


def test_a_file_and_a_store_together_are_refused(tmp_path):
    with pytest.raises(ConfigError, match="name one of them"):
        select_bars(MarketConfig(bars="a.csv", store=str(tmp_path)))


def test_assets_have_their_own_synthetic_markets_that_depend_on_the_name_alone():
    markets = [
        select_bars(MarketConfig(synthetic=SMALL).of_asset(name)).bars for name in ("BTC", "ETH", "BTC")
    ]
    assert markets[0].fingerprint() == markets[2].fingerprint() != markets[1].fingerprint()
    assert [bars.symbol for bars in markets[:2]] == ["BTC/USDT", "ETH/USDT"]


def test_the_path_of_bars_names_the_asset_in_the_spelling_that_exists(tmp_path):
    write(tmp_path / "btc.csv")
    config = MarketConfig(bars=str(tmp_path / "{asset}.csv"))
    assert config.of_asset("BTC").bars == str(tmp_path / "btc.csv")
    with pytest.raises(ConfigError, match="no such file of bars for the asset ETH"):
        config.of_asset("ETH")
    with pytest.raises(ConfigError, match=r"must hold \{asset\}"):
        MarketConfig(bars=str(tmp_path / "btc.csv")).of_asset("BTC")


def test_the_symbol_of_a_stored_asset_has_a_quote(tmp_path):
    config = MarketConfig(store=str(tmp_path))
    assert config.of_asset("LTC").symbol == "LTC/USDT"
    assert config.of_asset("LTC/EUR").symbol == "LTC/EUR"
