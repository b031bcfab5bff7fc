"""L5: the detector finds 24 of 24 planted leaks and accuses none of 12 clean stages."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from market.bars import Bars
from market.causal import Windowed
from market.external import ExternalSeries
from market.features.pipeline import FeaturePipeline, FeaturesConfig
from market.leaks import inspect
from market.poisons import POISONS, Futures
from market.scaling import Scaler
from market.table import DataError, Table, utc
from tests.leaks.controls import CONTROLS
from tests.leaks.ground import FEW, HOUR, TRAIN, N, bars, frame, inputs, returns
from tests.leaks.planted import FITTED, FROM_TRAIN, HONEST, LEAKS

#: How far each leak looks ahead, where that is a fact of its lines and not of the data.
REACH = {
    "shift(-1)": 1,
    "shift(-10) in the entry only": 10,
    "centred rolling": 10,
    "pivots (fractals)": 2,
    "resample, left label, no shift": 3,
    "stop from this bar's high": 1,
}
FOUND_BY = {
    "HMM parameters from all data": {"refit", "stamp"},
    "GARCH fitted on all data": {"refit", "stamp"},
    "model trained through the test": {"stamp"},
    "early stopping on the test": {"refit", "stamp"},
    "stop from this bar's high": {"altered future"},  # shortened data end before the bar in question
}


def test_there_are_24_leaks_and_12_controls():
    assert len({case.name for case in LEAKS}) == 24
    assert len({case.name for case in CONTROLS}) == 12


@pytest.mark.parametrize("case", LEAKS, ids=lambda case: case.name)
def test_a_planted_leak_is_found(case):
    report = case.inspected()
    assert not report.clean
    assert set(report.routes) == FOUND_BY.get(case.name, {"prefix", "altered future"})
    first = report.first
    assert first.row == min(one.row for one in report.findings)
    assert first.time == bars().time[first.row]
    assert f"{first.column}, row {first.row} ({utc(first.time)})" in str(report)
    reach = max(one.reach for one in report.findings)
    assert 1 <= reach <= REACH.get(case.name, N) or report.routes == ("stamp",)
    # The column that looks ahead is accused, and no other.
    accused = {one.column for one in report.findings}
    assert accused == {"entry"} if "entry" in report.columns else len(accused) == 1
    assert not report.deaf


@pytest.mark.parametrize("case", CONTROLS, ids=lambda case: case.name)
def test_a_clean_stage_is_not_accused(case):
    report = case.inspected()
    assert report.clean, str(report)
    assert report.worst == 0.0
    assert report.runs > 40
    assert not report.refused, report.reason  # each poison was swallowed, so each proves something
    assert str(report).startswith("no leak in")


@pytest.mark.parametrize("case", [case for case in LEAKS if case.name in REACH], ids=lambda case: case.name)
def test_what_looks_ahead_a_known_number_of_rows_is_measured_to_the_row(case):
    report = case.inspected(cuts=40, prefixes=40)
    assert max(one.reach for one in report.findings) == REACH[case.name]


@pytest.mark.parametrize("name", FITTED)
def test_where_nobody_can_fit_again_the_stamp_finds_it_and_nothing_else_does(name):
    whole = inputs()["bars"]
    report = inspect(FITTED[name](whole), whole, **FEW, **FROM_TRAIN)
    assert report.routes == ("stamp",)
    assert report.first.row == TRAIN
    assert "was trained through" in str(report)
    silent = FITTED[name](whole)
    assert inspect(lambda given: silent(given), whole, **FEW, **FROM_TRAIN).clean  # without it, nothing would


@pytest.mark.parametrize("name", HONEST)
def test_the_same_thing_fitted_on_training_rows_is_clean_by_both_routes(name):
    whole = inputs()["bars"]
    report = inspect(None, whole, fit=HONEST[name], **FEW, **FROM_TRAIN)
    assert report.clean, str(report)
    # Its answers to its own training rows are not out of sample, and somebody must say so.
    own = inspect(HONEST[name](whole), whole, **FEW)
    assert own.routes == ("stamp",)
    assert own.first.row == 0


@pytest.mark.parametrize(("embargo", "clean"), [(0, True), (4, True), (5, False)])
def test_the_embargo_lies_between_what_taught_and_what_is_answered(embargo, clean):
    whole = inputs()["bars"]
    fitted = HONEST["model trained through the test"](whole)  # until 4 rows before the first answer
    report = inspect(fitted, whole, embargo=embargo, **FEW, **FROM_TRAIN)
    assert report.clean == clean
    if not clean:
        assert (report.first.row, report.first.cut) == (TRAIN, TRAIN - 5)


def test_a_fit_that_refuses_fewer_rows_is_found_by_altering_them():
    def fit(given):
        if len(given) < N:
            raise ValueError("too few rows")
        mean = given.column("close").mean()
        return lambda later: later.column("close") - mean

    report = inspect(None, bars(), fit=fit, **FEW, **FROM_TRAIN)
    assert report.routes == ("refit",)
    assert report.refused == {"shortened data": 5}
    assert report.first.how.startswith("the rows after 419 were ")


def test_a_stamp_per_row_convicts_the_row_that_it_belongs_to():
    whole = bars()
    through = whole.time - 30 * HOUR
    through[500] = whole.time[503]
    report = inspect(lambda given: given.column("close"), whole, trained_through=through, first=50, **FEW)
    assert [(one.route, one.row, one.cut) for one in report.findings] == [("stamp", 500, 503)]

    def earlier(time):
        return time - 30 * HOUR

    assert inspect(lambda given: given.column("close"), whole, trained_through=earlier, first=50, **FEW).clean


def test_a_fit_that_is_not_the_same_twice_proves_nothing_and_says_so():
    random = np.random.default_rng(1)

    def fit(given):
        factor = random.normal()
        return lambda later: later.column("close") * factor

    report = inspect(None, bars(), fit=fit, **FEW, **FROM_TRAIN)
    assert report.routes[0] == "repeat"
    moody = inspect(lambda given: given.column("close") * random.normal(), bars(), **FEW)
    assert moody.routes[0] == "repeat"
    assert "nothing can be proved" in str(moody)


def test_an_expanding_statistic_is_no_leak_but_its_start_is_told():
    expanding = next(case for case in CONTROLS if case.name == "expanding z-score").inspected()
    assert expanding.clean
    assert {one.column for one in expanding.starts} == {"zscore"}
    assert "must begin at the same row live" in str(expanding)
    window = next(case for case in CONTROLS if case.name == "warm-up NaN")
    assert window.inspected().starts == ()
    short = replace(window, options={"warmup": 100}).inspected()  # one of its windows holds 200 rows
    assert {one.column for one in short.starts} == {"place"}


def test_a_stage_of_the_house_is_inspected_by_its_own_warmup():
    mean = Windowed(lambda values: pd.DataFrame(values).rolling(5).mean().to_numpy()[:, 3:4], 5, ("mean",))
    report = inspect(mean, bars(), **FEW)
    assert report.columns == ("mean",)
    assert report.clean
    assert report.starts == ()
    pipeline = FeaturePipeline(FeaturesConfig(names=("return_4", "rsi_14", "volatility_24")))
    report = inspect(pipeline, bars(), **FEW)
    assert report.clean
    assert report.columns == ("return_4", "rsi_14", "volatility_24")
    assert report.refused == {"a future that is unknown": 10}  # it refuses bars that are NaN, as it must


def test_a_scaler_of_all_rows_is_found_and_one_of_training_rows_is_not():
    table = Table(bars().time, np.column_stack([returns(bars()), returns(bars()) ** 2]), ("r", "v"))
    for rows, routes in ((slice(TRAIN), ()), (slice(None), ("refit", "stamp"))):
        report = inspect(
            None, table, fit=lambda given, rows=rows: Scaler.fit(given[rows]), **FEW, **FROM_TRAIN
        )
        assert report.routes == routes


@pytest.mark.parametrize("poison", POISONS)
def test_each_poison_finds_a_leak_without_the_others(poison):
    case = next(case for case in LEAKS if case.name == "whole-sample z-score")
    report = replace(case, options={"poisons": (poison,)}).inspected(prefixes=0)
    assert report.routes == ("altered future",)
    assert report.first.how.endswith(POISONS[poison])
    assert replace(case, options={"poisons": ()}).inspected().routes == ("prefix",)


def test_what_acts_inside_its_row_must_be_known_before_it_and_the_rest_need_not():
    def stage(given):
        table = frame(given)
        return {"signal": table.close.diff(3), "stop": table.low.rolling(5).min()}

    assert inspect(stage, bars(), **FEW).clean
    report = inspect(stage, bars(), delay={"stop": 1}, **FEW)
    assert {(one.column, one.route, one.reach) for one in report.findings} == {("stop", "altered future", 1)}
    before = inspect(lambda given: stage(given)["stop"].shift(1), bars(), delay=1, **FEW)
    assert before.clean


def test_a_leak_in_one_row_is_found_at_its_row():
    def stage(given):
        close = given.column("close").copy()
        if close.size > 402:
            close[400] = close[402]
        return {"close": close, "volume": given.column("volume")}

    report = inspect(stage, bars(), cuts=0, prefixes=N)
    assert [(one.route, one.column, one.row, one.reach) for one in report.findings] == [
        ("prefix", "close", 400, 2)
    ]
    assert inspect(stage, bars(), **FEW).clean  # as the documentation says: no cut fell behind that row


def test_the_earliest_row_is_named_though_a_later_cut_shows_it():
    def stage(given):
        close = given.column("close").copy()
        if close.size > 301:
            close[300] = close[301]
        close[5] += 500 <= close.size <= 650  # a path that only data of some lengths take
        return close

    report = inspect(stage, bars(), cuts=0, prefixes=N)
    assert (report.first.row, report.first.cut) == (5, 499)
    assert report.first.reach == 645


def test_a_difference_of_rounding_counts_unless_it_is_allowed():
    def stage(given):
        return given.column("close") * (1.0 + 1e-15 * len(given))

    assert not inspect(stage, bars(), **FEW).clean
    assert inspect(stage, bars(), tolerance=1e-9, **FEW).clean


@settings(max_examples=12, deadline=None)
@given(ahead=st.integers(1, 30), seed=st.integers(0, 1000))
def test_any_shift_is_found_and_measured_and_the_same_shift_back_is_clean(ahead, seed):
    small = bars()[:120]

    def shifted(by):
        return lambda table: frame(table).close.shift(by)

    report = inspect(shifted(-ahead), small, cuts=6, prefixes=40, starts=0, seed=seed)
    assert report.first.column == "answer"
    assert 1 <= max(one.reach for one in report.findings) <= ahead
    assert inspect(shifted(ahead), small, cuts=6, prefixes=6, seed=seed).clean


def test_the_same_seed_gives_the_same_report_and_another_looks_elsewhere():
    one, again, other = (LEAKS[1].inspected(seed=seed) for seed in (3, 3, 4))
    assert one == again
    assert [finding.cut for finding in one.findings] != [finding.cut for finding in other.findings]


def test_inputs_are_cut_when_their_values_became_known():
    futures = Futures([inputs()[name] for name in ("bars", "daily", "funding")])
    row = 100
    moment = int(bars().time[row])
    hours, days, rates = futures.past(row)
    assert hours.time[-1] == moment
    assert days.time[-1] <= moment < days.time[-1] + 24 * HOUR
    assert rates.available_at[-1] <= moment
    for poison in POISONS:
        altered = futures.altered(row, poison)
        for known, whole in zip((hours, days), altered[:2], strict=True):
            np.testing.assert_array_equal(whole.values[: len(known)], known.values)
            assert not np.array_equal(whole.values[len(known) :], inputs()["bars"].values[len(known) :])
        np.testing.assert_array_equal(altered[2].value[: len(rates)], rates.value)
    # A rate that settles at this very close is published a minute later: it is not known yet.
    settled = inputs()["funding"].event_time
    assert int(bars().time[7]) in settled
    assert len(futures.past(7)[2]) == 0
    assert len(futures.past(8)[2]) == 1


def test_a_value_that_has_happened_and_is_not_published_is_altered_with_the_future():
    funding = inputs()["funding"]
    row = 7  # a rate settles at its very close, and is published a minute later
    assert int(bars().time[row]) == funding.event_time[0] < funding.available_at[0]
    futures = Futures([bars(), funding])
    for poison in POISONS:
        # Compared as lists, for what becomes unknown is left out of a series altogether.
        first, second = (futures.altered(at, poison)[1].value[:1].tolist() for at in (row, row + 1))
        assert first != funding.value[:1].tolist() == second


def test_the_other_market_may_be_a_real_one():
    other = Bars(bars().time, bars().values[::-1] * 0.5, bars().names, "ETH/USDT", HOUR)
    futures = Futures([bars()], {0: other})
    np.testing.assert_array_equal(futures.altered(300, "other coin")[0].values[301:], other.values[301:])
    with pytest.raises(DataError, match="other market for input 0 has 10 rows"):
        Futures([bars()], {0: other[:10]})
    with pytest.raises(DataError, match="input 1 is a series"):
        Futures([bars(), inputs()["funding"]], {1: other})


def test_a_future_that_is_the_same_is_none():
    flat = Table(np.arange(50) * HOUR, np.zeros((50, 1)), ("zero",))
    assert Futures([flat]).altered(20, "times 1000") is None
    assert Futures([flat]).altered(20, "nan") is not None


def test_what_a_stage_reads_beside_its_inputs_is_suspected():
    held = frame(bars()).close.rank(pct=True)  # of all rows; the stage only cuts it to length

    report = inspect(lambda given: held.iloc[: len(given)], bars(), **FEW)
    assert report.clean
    assert report.deaf
    assert "may not be its inputs" in str(report)


def test_runs_that_end_in_an_error_are_counted_and_prove_nothing():
    def picky(given):
        if np.isnan(given.values).any():
            raise ValueError("no NaN please")
        return given.column("close")

    report = inspect(picky, bars(), **FEW)
    assert report.clean
    assert report.refused == {"a future that is unknown": 10}
    assert "the first error was: ValueError: no NaN please" in str(report)

    def useless(given):
        if not np.array_equal(given.values, bars().values):
            raise ValueError("other data")
        return given.column("close")

    with pytest.raises(DataError, match="error on everything but the whole data: ValueError: other data"):
        inspect(useless, bars(), **FEW)


@pytest.mark.parametrize(
    ("stage", "sentence"),
    [
        (lambda given: given.column("close")[1:], r"answer has shape \(699,\) for 700 rows"),
        (lambda given: given[:-1], "700 rows in, 699 out"),
        (lambda given: ["buy"] * len(given), "holds <U3; a stage answers numbers"),
        (lambda given: {}, "without a column"),
        (lambda given: None, r"answer has shape \(\) for 700 rows"),
    ],
)
def test_what_is_no_answer_per_row_is_refused_in_a_sentence(stage, sentence):
    with pytest.raises(DataError, match=sentence):
        inspect(stage, bars())


def test_what_cannot_be_inspected_is_refused_in_a_sentence():
    with pytest.raises(DataError, match="leave nothing to cut"):
        inspect(lambda given: given.column("close"), bars()[:2])
    with pytest.raises(DataError, match="leave nothing to cut"):
        inspect(lambda given: given.column("close"), bars(), first=N - 1)
    with pytest.raises(DataError, match="neither a stage nor a fit"):
        inspect(None, bars())
    with pytest.raises(DataError, match="first input must be a table"):
        inspect(lambda given: given.value, inputs()["funding"])
    with pytest.raises(DataError, match="input 1 is a DataFrame; it must be a Table or an ExternalSeries"):
        inspect(lambda given, days: given.column("close"), bars(), frame(bars()))
    with pytest.raises(DataError, match="delay names stop; the columns are answer"):
        inspect(lambda given: given.column("close"), bars(), delay={"stop": 1})
    with pytest.raises(DataError, match="the stamp is float64"):
        inspect(lambda given: given.column("close"), bars(), trained_through=1.5)
    with pytest.raises(ValueError, match="no poison named 'arsenic'"):
        inspect(lambda given: given.column("close"), bars(), poisons=("arsenic",))


@pytest.mark.parametrize(
    ("output", "columns"),
    [
        (lambda table: table["close"], ("answer",)),
        (lambda table: table[["close", "low"]], ("close", "low")),
        (lambda table: table[["close", "low"]].to_numpy(), ("answer[0]", "answer[1]")),
        (lambda table: {"a": table["close"].to_numpy(), "b": table[["low"]]}, ("a", "low")),
        (lambda table: table["close"].tolist(), ("answer",)),
        (lambda table: table["close"] > table["open"], ("answer",)),
    ],
)
def test_whatever_people_return_is_read_as_columns(output, columns):
    report = inspect(lambda given: output(frame(given)), bars()[:60], cuts=2, prefixes=2)
    assert report.columns == columns
    assert report.clean


def test_a_column_that_comes_and_goes_with_the_future_is_accused():
    def chosen(given):
        best = "high" if given.column("close")[-1] > 30_000 else "low"
        return {best: given.column(best)}

    report = inspect(chosen, bars(), **FEW)
    assert report.first.row == 0
    assert np.isnan(report.first.after)


def test_series_alone_may_hold_the_leak():
    events = ExternalSeries.delayed(bars().time[::10], np.arange(70.0), "count", HOUR)

    def counted(side):
        def stage(given, series):
            known = np.searchsorted(getattr(series, side), given.time, side="right") - 1
            return np.where(known >= 0, series.value[known] if len(series) else 0.0, np.nan)

        return stage

    assert inspect(counted("available_at"), bars(), events, **FEW).clean
    report = inspect(counted("event_time"), bars(), events, **FEW)  # an hour before it was published
    assert set(report.routes) == {"prefix", "altered future"}
