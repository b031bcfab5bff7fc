from datetime import UTC, datetime, timedelta
from itertools import pairwise
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from market import splits
from market.splits import (
    Split,
    embargo_bars,
    folds,
    holdout,
    label_bars,
    purged_train,
    rolling_origin,
    walk_forward,
    window_lengths,
    windows,
)
from market.table import DataError
from tests.reference import splits as naive

HOUR = 3_600_000_000_000
DAY = 24 * HOUR
NEVER = np.iinfo(np.int64).max


def closes(first, last, step=timedelta(days=1)):
    """Close times from one date to another, both included."""
    moment, found = first, []
    while moment <= last:
        found.append(int(moment.timestamp()) * 1_000_000_000)
        moment += step
    return np.array(found, dtype=np.int64)


def day(year, month, number):
    return datetime(year, month, number, tzinfo=UTC)


def dates(time, rows):
    """First and last close of some rows as YYYY-MM-DD."""
    first, last = (datetime.fromtimestamp(int(t) // 10**9, UTC) for t in (time[rows][0], time[rows][-1]))
    return f"{first:%Y-%m-%d}", f"{last:%Y-%m-%d}"


def fixed_labels(time, bars):
    """Labels known ``bars`` rows later; the last ones never."""
    known = np.full(time.size, NEVER)
    known[: time.size - bars] = time[bars:]
    return known


# --- holdout and folds ------------------------------------------------------------------------------


def test_holdout_by_hand():
    assert holdout(10) == Split(slice(0, 7), slice(7, 7), slice(7, 10))
    assert holdout(10, train=0.7, purge=1, embargo=1) == Split(slice(0, 5), slice(7, 7), slice(7, 10), 1, 1)
    split = holdout(100, train=0.6, validation=0.2, purge=3, embargo=2)
    assert (split.train, split.validation, split.test) == (slice(0, 55), slice(60, 75), slice(80, 100))


def test_holdout_divides_the_rows_it_is_given():
    split = holdout(slice(50, 150), train=0.6, validation=0.2, purge=3, embargo=2)
    assert (split.train, split.validation, split.test) == (slice(50, 105), slice(110, 125), slice(130, 150))


def test_holdout_without_rows_left_says_so():
    with pytest.raises(DataError, match="no training rows are left before row 70 with a purge of 60"):
        holdout(100, purge=60, embargo=10)
    with pytest.raises(DataError, match="validation has 10 rows, all of them within the 12 rows"):
        holdout(100, train=0.6, validation=0.1, purge=4, embargo=8)
    with pytest.raises(DataError, match="no test rows"):
        holdout(2, train=0.9)
    with pytest.raises(ValueError, match="both and the rest need a share"):
        holdout(100, train=0.8, validation=0.2)


@given(st.integers(0, 1000), st.integers(1, 400), st.integers(1, 30))
@settings(max_examples=100, deadline=None)
def test_folds_are_contiguous_and_cover_the_rows(start, n, k):
    rows = slice(start, start + n)
    if n < k:
        with pytest.raises(DataError):
            folds(rows, k)
        return
    spans = folds(rows, k)
    assert [row for span in spans for row in range(span.start, span.stop)] == list(range(start, start + n))
    lengths = [span.stop - span.start for span in spans]
    assert len(spans) == k
    assert max(lengths) - min(lengths) <= 1


def test_folds_by_hand():
    assert folds(10, 3) == (slice(0, 3), slice(3, 6), slice(6, 10))


# --- the record ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("train", "validation", "test", "purge", "embargo", "reason"),
    [
        (slice(0, 5), slice(6, 6), slice(6, 9), 0, 0, "gap must be purge"),  # off by one
        (slice(0, 5), slice(6, 6), slice(6, 9), 1, 1, "gap must be purge"),
        (slice(0, 5), slice(5, 7), slice(6, 9), 0, 0, "gap must be at least the embargo"),
        (slice(0, 4), slice(5, 7), slice(7, 9), 0, 1, "gap must be at least the embargo"),
        (slice(6, 9), slice(0, 0), slice(0, 5), 0, 0, "gap must be purge"),
        (slice(0, 5), slice(5, 5), slice(5, 9), -1, 1, "neither can be negative"),
        (slice(0, 6, 2), slice(6, 6), slice(6, 9), 0, 0, "start:stop"),
        (slice(None, 6), slice(6, 6), slice(6, 9), 0, 0, "start:stop"),
    ],
)
def test_a_split_that_is_not_ordered_and_apart_is_refused(train, validation, test, purge, embargo, reason):
    with pytest.raises(ValueError, match=reason):
        Split(train, validation, test, purge, embargo)


# --- purging by label ends --------------------------------------------------------------------------


def test_purge_and_embargo_by_hand():
    # 20 hourly rows, labels known 3 rows later, test rows 8 to 11.
    time = np.arange(1, 21) * HOUR
    known = fixed_labels(time, 3)
    # Row 4 is known at the close of row 7, before the test. Row 5 is known at the close of row 8: purged.
    # The label of test row 11 ends at row 14, so row 15 is the first that begins after it; embargo 2.
    expected = [0, 1, 2, 3, 4, 17, 18, 19]
    assert purged_train(time, known, None, slice(8, 12), embargo=2).tolist() == expected
    assert purged_train(time, known, slice(2, 18), slice(8, 12), embargo=2).tolist() == [2, 3, 4, 17]
    assert purged_train(time, known, None, slice(8, 12)).tolist() == [0, 1, 2, 3, 4, *range(15, 20)]


def test_a_long_label_is_purged_wherever_it_starts():
    time = np.arange(1, 11) * HOUR
    known = time + HOUR
    known[1] = time[6]  # one position held from row 1 into the test
    assert purged_train(time, known, None, slice(6, 8)).tolist() == [0, 2, 3, 4, 9]


def test_the_latest_of_several_horizons_counts():
    time = np.arange(1, 11) * HOUR
    known = np.column_stack([time + HOUR, time + 3 * HOUR])
    one = purged_train(time, known[:, 1].copy(), None, slice(5, 7))
    assert purged_train(time, known, None, slice(5, 7)).tolist() == one.tolist() == [0, 1]


@st.composite
def markets(draw):
    """Irregular clocks (bars missing), labels of any length, a test somewhere."""
    n = draw(st.integers(3, 40))
    steps = draw(st.lists(st.integers(1, 4), min_size=n, max_size=n))
    time = np.cumsum(np.array(steps, dtype=np.int64)) * HOUR
    reach = draw(st.lists(st.integers(0, 12), min_size=n, max_size=n))
    known = time + np.array(reach, dtype=np.int64) * HOUR
    known[draw(st.integers(0, n - 1)) :] = NEVER if draw(st.booleans()) else known[-1] + 40 * HOUR
    first = draw(st.integers(0, n - 1))
    last = draw(st.integers(first + 1, n))
    return time, known, slice(first, last), draw(st.integers(0, 6))


@given(markets())
@settings(max_examples=300, deadline=None)
def test_no_training_label_meets_the_test(market):
    time, known, test, embargo = market
    rows = purged_train(time, known, None, test, embargo)
    test_rows = range(test.start, test.stop)
    everything = range(time.size)
    expected = naive.purged_train(time.tolist(), known.tolist(), everything, test_rows, embargo)
    assert rows.tolist() == expected


def leaks(time, known, rows, test, embargo):
    """What an auditor counts: training rows whose label meets the test, or that stand in the embargo."""
    honest = naive.purged_train(
        time.tolist(), known.tolist(), rows.tolist(), range(test.start, test.stop), embargo
    )
    return sorted(set(rows.tolist()) - set(honest))


def test_a_purge_off_by_one_and_an_embargo_on_the_wrong_side_are_caught():
    time = np.arange(1, 41) * HOUR
    known = fixed_labels(time, 3)
    test, embargo = slice(15, 20), 4
    good = purged_train(time, known, None, test, embargo)
    assert leaks(time, known, good, test, embargo) == []
    rows = np.arange(40)
    off_by_one = rows[(known[rows] <= time[15]) | (rows >= 23 + embargo)]  # <= in place of <
    assert leaks(time, known, off_by_one, test, embargo) == [12]
    wrong_side = rows[(rows < 12 - embargo) | (rows >= 23)]  # the embargo in front of the test
    assert leaks(time, known, wrong_side, test, embargo) == [23, 24, 25, 26]
    by_count_of_test_end = rows[(rows < 12) | (rows >= 20 + embargo)]  # forgets the labels of the test itself
    assert leaks(time, known, by_count_of_test_end, test, embargo) == [24, 25, 26]


def test_a_label_known_before_its_row_is_refused():
    time = np.arange(1, 6) * HOUR
    known = time.copy()
    known[2] = time[1]
    with pytest.raises(DataError, match="row 2 at 1970-01-01T03:00:00Z has a label known at 1970-01-01T02"):
        purged_train(time, known, None, slice(3, 4))


def test_the_longest_label_in_bars():
    time = np.array([1, 2, 3, 7, 8, 9, 10], dtype=np.int64) * HOUR  # three bars are missing
    assert label_bars(time, fixed_labels(time, 2)) == 2
    known = time.copy()
    known[1] = 8 * HOUR  # six hours, three bars
    assert label_bars(time, known) == 3
    assert holdout(20, purge=3).train == slice(0, 11)


def test_the_embargo_of_the_house_is_the_longest_memory():
    assert embargo_bars(HOUR, label=3, memory=10) == 24
    assert embargo_bars(HOUR, label=60, memory=10) == 60
    assert embargo_bars(HOUR, label=60, memory=168) == 168
    assert embargo_bars(7 * HOUR, label=0, memory=0) == 4  # a day is rounded up
    assert embargo_bars(7 * DAY, label=0, memory=0) == 1


# --- walk-forward ------------------------------------------------------------------------------------


def test_quarters_by_hand():
    # Daily bars close at midnight, so the bar that closes on 1 April is 31 March.
    time = closes(day(2020, 1, 2), day(2021, 2, 10))
    found = walk_forward(time, span="quarter", train_spans=2)
    assert [(dates(time, s.train), dates(time, s.test)) for s in found] == [
        (("2020-01-02", "2020-07-01"), ("2020-07-02", "2020-10-01")),
        (("2020-01-02", "2020-10-01"), ("2020-10-02", "2021-01-01")),
        (("2020-01-02", "2021-01-01"), ("2021-01-02", "2021-02-10")),  # the unfinished quarter
    ]
    rolling = walk_forward(time, span="quarter", train_spans=2, expanding=False)
    assert [dates(time, s.train) for s in rolling] == [
        ("2020-01-02", "2020-07-01"),
        ("2020-04-02", "2020-10-01"),
        ("2020-07-02", "2021-01-01"),
    ]


def test_months_with_validation_purge_and_embargo_by_hand():
    time = closes(day(2020, 1, 2), day(2020, 6, 1))
    found = walk_forward(
        time,
        span="month",
        train_spans=2,
        validation_spans=1,
        expanding=False,
        known_at=fixed_labels(time, 3),
        embargo=2,
    )
    # 1 March is row 60: labels of 3 bars and an embargo of 2 end training 5 rows before it.
    assert found[0] == Split(slice(0, 55), slice(60, 86), slice(91, 121), 3, 2)
    assert [(dates(time, s.train), dates(time, s.validation), dates(time, s.test)) for s in found] == [
        (("2020-01-02", "2020-02-25"), ("2020-03-02", "2020-03-27"), ("2020-04-02", "2020-05-01")),
        (("2020-02-02", "2020-03-27"), ("2020-04-02", "2020-04-26"), ("2020-05-02", "2020-06-01")),
    ]


def test_an_unfinished_first_quarter_is_no_whole_span_of_training():
    whole = closes(day(2020, 1, 2), day(2021, 1, 1))
    assert dates(whole, walk_forward(whole, train_spans=1)[0].test) == ("2020-04-02", "2020-07-01")
    later = whole[1:]  # without the bar of 1 January the first quarter is not whole
    assert dates(later, walk_forward(later, train_spans=1)[0].test) == ("2020-07-02", "2020-10-01")


def test_training_ends_before_the_first_row_whose_label_reaches_the_test():
    time = closes(day(2020, 1, 2), day(2020, 7, 1))
    known = time + DAY
    known[40] = known[-1]  # a position of months: everything from row 40 on is behind a label that reaches
    assert walk_forward(time, train_spans=1, known_at=known)[0] == Split(
        slice(0, 40), slice(91, 91), slice(91, 182), 51
    )


def test_walk_forward_errors_are_sentences():
    time = closes(day(2020, 1, 2), day(2020, 7, 1))
    with pytest.raises(
        DataError, match=r"2020-01-02.* to 2020-07-01.* give no fold; a test quarter needs 8 whole quarters"
    ):
        walk_forward(time)
    with pytest.raises(DataError, match="no training rows are left before 2020-04-02"):
        walk_forward(time, train_spans=1, purge=60, embargo=31)
    with pytest.raises(DataError, match="no validation rows are left before 2020-03-02"):
        walk_forward(time, span="month", train_spans=1, validation_spans=1, purge=28, embargo=2)
    with pytest.raises(ValueError, match="give one of them"):
        walk_forward(time, purge=3, known_at=time)
    with pytest.raises(ValueError, match="span is 'week'"):
        walk_forward(time, span="week")


@given(
    st.integers(0, 3 * 365),
    st.integers(300, 1200),
    st.sampled_from(["month", "quarter", "year"]),
    st.integers(1, 3),
    st.integers(0, 2),
    st.booleans(),
    st.integers(0, 12),
    st.integers(0, 6),
    st.integers(0, 2**32 - 1),
)
@settings(max_examples=120, deadline=None)
def test_walk_forward_folds_are_ordered_contiguous_and_honest(
    start, n, span, train_spans, validation_spans, expanding, longest, embargo, seed
):
    random = np.random.default_rng(seed)
    kept = np.sort(random.choice(n, size=int(n * 0.9), replace=False))  # a tenth of the bars is missing
    time = (18_000 + start + kept) * DAY
    known = time + random.integers(0, longest + 1, kept.size) * DAY
    arguments = (time, span, train_spans, validation_spans, expanding)
    try:
        found = walk_forward(*arguments, embargo=embargo, known_at=known)
    except DataError as error:
        if "give no fold" not in str(error):
            raise
        return
    assert found[-1].test.stop == time.size
    for before, after in pairwise(found):
        assert before.test.stop == after.test.start
    for split in found:
        fitted = [(split.train, split.validation if validation_spans else split.test)]
        if validation_spans:
            fitted.append((split.validation, split.test))
        for rows, judged in fitted:
            honest = naive.train_stop(time.tolist(), known.tolist(), rows.start, judged.start, embargo)
            assert rows.stop == honest  # neither a row too many nor one too few
            assert (known[rows] < time[max(judged.start - embargo, rows.start)]).all()
        assert split.train.start == 0 or not expanding


def test_a_walk_forward_that_forgets_the_boundary_row_is_caught(monkeypatch):
    # The planted bug: a label known exactly at the first test row counts as known before it.
    def off_by_one(time, known, start, boundary, purge, embargo):
        last = boundary - embargo
        reaching = known[start:last] > time[last]
        cost = last - start - int(np.argmax(reaching)) if reaching.any() else 0
        return slice(start, last - cost), cost

    time = closes(day(2020, 1, 2), day(2020, 7, 1))
    known = fixed_labels(time, 3)
    good = walk_forward(time, train_spans=1, known_at=known)[0]
    monkeypatch.setattr(splits, "_before", off_by_one)
    bad = walk_forward(time, train_spans=1, known_at=known)[0]
    assert (known[good.train] < time[good.test.start]).all()
    assert not (known[bad.train] < time[bad.test.start]).all()
    assert bad.train.stop == good.train.stop + 1


# --- windows of bars ---------------------------------------------------------------------------------


def hours(n):
    return np.arange(1, n + 1) * HOUR


def test_shares_are_cut_to_the_row():
    assert window_lengths(17_520, (0.7, 0.15, 0.15)) == (12_264, 2_628, 2_628)
    assert window_lengths(1_001, (0.7, 0.15, 0.15)) == (701, 150, 150)
    assert window_lengths(10, (0.5, 0.0, 0.5)) == (5, 0, 5)
    assert window_lengths(7, (3 / 7, 2 / 7, 2 / 7)) == (3, 2, 2)


@given(
    st.integers(3, 30_000), st.tuples(st.integers(1, 100), st.integers(0, 100), st.integers(1, 100)),
)  # fmt: skip
@settings(max_examples=200, deadline=None)
def test_lengths_are_the_window_and_within_a_row_of_their_shares(window, weights):
    shares = tuple(weight / sum(weights) for weight in weights)
    try:
        lengths = window_lengths(window, shares)
    except ValueError as error:
        if "is less than one" not in str(error) or min(window * one for one in shares if one) >= 1:
            raise
        return
    assert sum(lengths) == window
    for length, share in zip(lengths, shares, strict=True):
        assert abs(length - window * share) <= 1
        assert (length > 0) == (share > 0)


def test_windows_by_hand():
    thirds = (3 / 7, 2 / 7, 2 / 7)
    assert windows(hours(10), 7, thirds, expanding=False) == (
        Split(slice(0, 3), slice(3, 5), slice(5, 7)),
        Split(slice(2, 5), slice(5, 7), slice(7, 9)),
        Split(slice(4, 7), slice(7, 9), slice(9, 10)),  # the unfinished window
    )
    assert [split.train for split in windows(hours(10), 7, thirds)] == [
        slice(0, 3), slice(0, 5), slice(0, 7),
    ]  # fmt: skip
    assert windows(hours(7), 7, thirds) == windows(hours(10), 7, thirds)[:1]
    assert [split.test for split in windows(hours(11), 7, thirds)][-1] == slice(9, 11)  # it is finished now


def test_windows_lose_purge_and_embargo_at_both_seams():
    time = hours(200)
    found = windows(time, 100, (0.6, 0.2, 0.2), False, embargo=2, known_at=fixed_labels(time, 3))
    assert found[0] == Split(slice(0, 55), slice(60, 75), slice(80, 100), 3, 2)
    assert found[1] == Split(slice(20, 75), slice(80, 95), slice(100, 120), 3, 2)
    assert windows(time, 100, (0.6, 0.2, 0.2), False, purge=3, embargo=2)[:2] == found[:2]


def test_a_rolling_origin_by_hand():
    assert rolling_origin(hours(10), train=4, every=3) == (
        Split(slice(0, 4), slice(4, 4), slice(4, 7)),
        Split(slice(0, 7), slice(7, 7), slice(7, 10)),
    )
    assert rolling_origin(hours(10), train=4, every=3, first=1, expanding=False) == (
        Split(slice(0, 4), slice(4, 4), slice(4, 5)),
        Split(slice(1, 5), slice(5, 5), slice(5, 8)),
        Split(slice(4, 8), slice(8, 8), slice(8, 10)),
    )
    late = rolling_origin(hours(50), 20, 30, embargo=2, known_at=fixed_labels(hours(50), 3))
    assert late == (Split(slice(0, 15), slice(20, 20), slice(20, 50), 3, 2),)
    # A first test beyond the end is the only one.
    assert rolling_origin(hours(10), 4, 3, first=90) == (Split(slice(0, 4), slice(4, 4), slice(4, 10)),)


def test_what_gives_no_window_says_so():
    with pytest.raises(
        DataError, match="85 bars give no fold; of a window of 100 bars 85 lie before its test"
    ):
        windows(hours(85), 100)
    assert windows(hours(86), 100)[0].test == slice(85, 86)
    with pytest.raises(DataError, match="no training rows are left before 1970-01-02T07"):
        windows(hours(100), 100, (0.3, 0.4, 0.3), embargo=30)
    with pytest.raises(DataError, match="no validation rows are left before"):
        windows(hours(100), 100, embargo=15)
    for shares in ((0.7, 0.2, 0.2), (0.8, 0.3, -0.1), (1.1, -0.2, 0.1), (0.85, 0.15, 0.0)):
        with pytest.raises(ValueError, match="training and test need one above 0, and together they must be"):
            windows(hours(200), 100, shares)
    with pytest.raises(ValueError, match=r"validation has no rows: 0\.001 of a window of 100 bars"):
        windows(hours(200), 100, (0.9, 0.001, 0.099))
    with pytest.raises(ValueError, match="give one of them"):
        windows(hours(200), 100, purge=3, known_at=hours(200))
    with pytest.raises(DataError, match="rolling origin: 20 bars give no fold; 20 of them train"):
        rolling_origin(hours(20), 20, 5)
    with pytest.raises(DataError, match="no training rows are left before"):
        rolling_origin(hours(50), 20, 5, embargo=20)
    with pytest.raises(ValueError, match="every 0 and first 0; each must be at least 1 bar"):
        rolling_origin(hours(20), 5, 0)


def require_honest(found, time, known, embargo, before):
    """Stop unless tests join from a row to the end, and each span ends where what follows does not see it."""
    assert found[0].test.start == before
    assert found[-1].test.stop == time.size
    for one, other in pairwise(found):
        assert one.test.stop == other.test.start
    for split in found:
        spans = [split.train, split.validation, split.test]
        spans = [span for span in spans if span.stop > span.start]
        for rows, judged in pairwise(spans):
            honest = naive.train_stop(time.tolist(), known.tolist(), rows.start, judged.start, embargo)
            assert rows.stop == honest  # neither a row too many nor one too few


@st.composite
def labelled_clocks(draw):
    """Irregular clocks, labels of any length up to a longest one, an embargo."""
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    n = draw(st.integers(20, 300))
    time = np.cumsum(random.integers(1, 4, n)) * HOUR
    return time, time + random.integers(0, draw(st.integers(1, 12)), n) * HOUR, draw(st.integers(0, 6))


@given(
    labelled_clocks(),
    st.integers(20, 200),
    st.tuples(st.integers(2, 10), st.integers(0, 4), st.integers(1, 4)),
    st.booleans(),
)
@settings(max_examples=150, deadline=None)
def test_windows_are_ordered_contiguous_and_honest(clock, window, weights, expanding):
    time, known, embargo = clock
    shares = tuple(weight / sum(weights) for weight in weights)
    try:
        found = windows(time, window, shares, expanding, embargo=embargo, known_at=known)
    except DataError as error:
        if not ("give no fold" in str(error) or "rows are left" in str(error)):
            raise
        return
    train, validation, test = window_lengths(window, shares)
    require_honest(found, time, known, embargo, train + validation)
    for number, split in enumerate(found):
        assert split.train.start == (0 if expanding else number * test)
        assert split.validation.start == number * test + train
        assert split.test.stop - split.test.start == test or split is found[-1]


@given(labelled_clocks(), st.integers(5, 150), st.integers(1, 80), st.integers(1, 80), st.booleans())
@settings(max_examples=150, deadline=None)
def test_rolling_origins_are_ordered_contiguous_and_honest(clock, train, every, first, expanding):
    time, known, embargo = clock
    try:
        found = rolling_origin(time, train, every, first, expanding, embargo=embargo, known_at=known)
    except DataError as error:
        if not ("give no fold" in str(error) or "no training rows are left" in str(error)):
            raise
        return
    require_honest(found, time, known, embargo, train)
    for number, split in enumerate(found):
        assert split.train.start == (0 if expanding else split.test.start - train)
        assert split.test.stop - split.test.start == (every if number else first) or split is found[-1]


@pytest.mark.parametrize("bug", ["embargo before the test forgotten", "last window dropped"])
def test_windows_that_see_the_test_or_leave_rows_out_are_caught(bug):
    time = hours(210)
    known, shares = fixed_labels(time, 3), (0.6, 0.2, 0.2)
    found = list(windows(time, 100, shares, embargo=4, known_at=known))
    require_honest(found, time, known, 4, 80)
    if bug == "last window dropped":
        found.pop()
    else:
        bad = windows(time, 100, shares, embargo=0, known_at=known)[1].validation
        found[1] = SimpleNamespace(train=found[1].train, validation=bad, test=found[1].test)
    with pytest.raises(AssertionError):
        require_honest(found, time, known, 4, 80)
