"""The input mutators of single rows: wrong times and wrong values; see ``mutators.py``."""

from datetime import UTC, datetime, timedelta

import numpy as np

from tests.market.mutators import (
    HOUR_NS,
    N_BARS,
    NOW_NS,
    PRICES,
    Case,
    clean_frame,
    mutator,
    some_row,
    spoiled,
    write_csv,
)

# Time


def restamped(unit_ns: int):
    def change(rng, frame):
        frame["time"] = [stamp * 1_000_000 // unit_ns for stamp in frame["time"]]

    return change


for _name, _unit in (
    ("seconds", 10**9),
    ("milliseconds", 10**6),
    ("microseconds", 10**3),
    ("nanoseconds", 1),
):
    _change = restamped(_unit)
    _change.__name__ = _name
    spoiled("time", "benign")(_change)


@spoiled("time", "refused", "one unit")
def mixed_units(rng, frame):
    row = some_row(rng)
    factor = int(rng.choice([1_000, 1_000_000]))
    frame["time"] = [stamp * (factor if i >= row else 1) for i, stamp in enumerate(frame["time"])]


def iso(stamp: int, zone: str = "+00:00") -> str:
    return datetime.fromtimestamp(stamp / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S") + zone


@spoiled("time", "refused", "all carry a zone or none")
def zones_mixed(rng, frame):
    row = some_row(rng)
    frame["time"] = [iso(stamp, "" if i == row else "Z") for i, stamp in enumerate(frame["time"])]


@spoiled("time", "refused", "summer time|second bar of", {"accept": ["wall-clock"]})
def wall_clock_of_summer_time(rng, frame):
    # Berlin: the hour from 02:00 does not exist on 2023-03-26; New York: on 2023-03-12.
    switch = datetime(2023, 3, 26, 2) if rng.random() < 0.5 else datetime(2023, 3, 12, 2)
    before = int(rng.integers(30, 200))
    stamps = [switch + timedelta(hours=i - before) for i in range(N_BARS)]
    stamps = [stamp if i < before else stamp + timedelta(hours=1) for i, stamp in enumerate(stamps)]
    frame["time"] = [stamp.strftime("%Y-%m-%d %H:%M:%S") for stamp in stamps]


@spoiled("time", "refused", "--repair day-first", {"repairs": ["day-first"]}, restores=True)
def day_first(rng, frame):
    mark = rng.choice(["/", ".", "-"])
    frame["time"] = [
        datetime.fromtimestamp(stamp / 1000, UTC).strftime(f"%d{mark}%m{mark}%Y %H:%M")
        for stamp in frame["time"]
    ]


@spoiled("time", "refused", "--repair sort", {"repairs": ["sort"]}, restores=True)
def unsorted_rows(rng, frame):
    order = np.arange(N_BARS)
    if rng.random() < 0.5:
        order = order[::-1]
    else:
        rng.shuffle(order[10:])
    for name, column in frame.items():
        frame[name] = [column[i] for i in order]


def insert_copy(rng, frame) -> int:
    row = some_row(rng)
    for column in frame.values():
        column.insert(row + 1, column[row])
    return row


@spoiled("time", "refused", "--repair drop-duplicates", {"repairs": ["drop-duplicates"]}, restores=True)
def identical_duplicates(rng, frame):
    insert_copy(rng, frame)


@spoiled(
    "time", "refused", "--repair keep-first-conflict", {"repairs": ["keep-first-conflict"]}, restores=True
)
def conflicting_duplicates(rng, frame):
    row = insert_copy(rng, frame)
    frame["volume"][row + 1] += 1.5


@spoiled("time", "refused", "off the 1h grid", {"repairs": ["round-times"]}, restores=True)
def off_grid(rng, frame):
    frame["time"][some_row(rng)] += 14_000


@spoiled("time", "flagged", "^1 bar missing in 1 gap,")
def one_missing_bar(rng, frame):
    row = some_row(rng)
    for column in frame.values():
        del column[row]


@spoiled("time", "flagged", "^33 bars missing in 1 gap, the longest of 33")
def gap_of_33_hours(rng, frame):
    row = int(rng.integers(20, N_BARS - 60))
    for column in frame.values():
        del column[row : row + 33]


@spoiled("time", "refused", "in the future")
def future_stamps(rng, frame):
    first = int(rng.integers(1, 5))
    years = 3_600_000 * 24 * 365 * 20
    frame["time"][-first:] = [stamp + years for stamp in frame["time"][-first:]]


@spoiled("time", "refused", "before 1980|one unit")
def stamps_of_1970(rng, frame):
    if rng.random() < 0.5:
        frame["time"] = [stamp // 1_000_000 for stamp in frame["time"]]
    else:
        frame["time"][some_row(rng)] = 0


@spoiled("time", "refused", "2262|one unit|in the future")
def beyond_2262(rng, frame):
    frame["time"][some_row(rng)] = int(rng.choice([9_300_000_000_000, 2**62, 99_999_999_999]))


@spoiled("time", "refused", "irregular|grid")
def irregular_step(rng, frame):
    if rng.random() < 0.5:
        steps = rng.integers(60, 7_200, N_BARS) * 1000
    else:
        steps = np.where(np.arange(N_BARS) < N_BARS // 2, 3_600_000, 4 * 3_600_000)
    frame["time"] = [int(frame["time"][0] + step) for step in np.cumsum(steps)]


@spoiled("time", "refused", "has not closed yet", {"repairs": ["drop-unfinished"]})
def unfinished_last_bar(rng, frame):
    return {"now_ns": frame["time"][-1] * 1_000_000 + HOUR_NS // 2}


# Value


def one_cell(rng, frame, value, names=(*PRICES, "volume")) -> None:
    frame[str(rng.choice(list(names)))][some_row(rng)] = value


DROP = {"repairs": ["drop-bad-rows"]}


@spoiled("value", "refused", "is (nan|'nan'|'NaN'|'')", DROP)
def nan_in_any_column(rng, frame):
    one_cell(rng, frame, float("nan") if rng.random() < 0.5 else None)


@spoiled("value", "refused", "is -?inf", DROP)
def infinity(rng, frame):
    one_cell(rng, frame, float("inf") if rng.random() < 0.5 else float("-inf"))


@spoiled("value", "refused", "is 0 at", DROP)
def zero_price(rng, frame):
    one_cell(rng, frame, 0.0, PRICES)


@spoiled("value", "refused", "is -", DROP)
def negative_price(rng, frame):
    name, row = str(rng.choice(PRICES)), some_row(rng)
    frame[name][row] = -frame[name][row]


@spoiled("value", "refused", "high must enclose", DROP)
def high_below_low(rng, frame):
    row = some_row(rng)
    frame["high"][row] = frame["low"][row] - 5


def outside(name):
    def change(rng, frame):
        row = some_row(rng)
        up = rng.random() < 0.5
        frame[name][row] = frame["high"][row] + 3 if up else frame["low"][row] - 3

    change.__name__ = f"{name}_outside"
    return change


spoiled("value", "refused", "high must enclose", {"repairs": ["widen-range"]})(outside("close"))
spoiled("value", "refused", "high must enclose", {"repairs": ["widen-range"]})(outside("open"))


@spoiled("value", "refused", "volume is -", DROP)
def negative_volume(rng, frame):
    frame["volume"][some_row(rng)] *= -1


@spoiled("value", "flagged", "^15 bars without volume")
def zero_volume_run(rng, frame):
    row = some_row(rng)
    frame["volume"][row : row + 15] = [0.0] * 15


@mutator("value", "refused", "it must be a number", DROP)
def text_nulls(rng, folder):
    frame = clean_frame(rng)
    one_cell(rng, frame, str(rng.choice(["NULL", "N/A", "-", "None", "#N/A", "null", "--", "1.2.3"])))
    return Case(write_csv(frame, folder / "bars.csv"))


@spoiled("value", "refused", r"is 1e\+308", DROP)
def huge_value(rng, frame):
    one_cell(rng, frame, 1e308)


@spoiled("value", "refused", "is 4.94", DROP)
def denormal(rng, frame):
    one_cell(rng, frame, 5e-324, PRICES)


@spoiled("value", "refused", "a print this far away", {"repairs": ["drop-outliers"]})
def spike_of_1000(rng, frame):
    row, length = some_row(rng), int(rng.integers(1, 4))
    factor = float(rng.choice([1000.0, 0.001]))
    for at in range(row, row + length):
        for name in PRICES:
            frame[name][at] = round(frame[name][at] * factor, 4)


@spoiled("value", "refused", "a print this far away", {"repairs": ["clip-outliers"]})
def wick_of_87_percent(rng, frame):
    row = some_row(rng)
    frame["low"][row] = round(frame["open"][row] * 0.13, 2)


@spoiled("value", "refused", "the price is constant", {"accept": ["frozen"]})
def ten_thousand_constant_bars(rng, frame):
    last = {name: column[-1] for name, column in frame.items()}
    frame["time"] += [last["time"] + 3_600_000 * (i + 1) for i in range(10_000)]
    for name in PRICES:
        frame[name] += [last["close"]] * 10_000
    frame["volume"] += [0.0] * 10_000
    return {"now_ns": NOW_NS + 10_000 * HOUR_NS}


@spoiled("value", "refused", "the same bar repeats", {"accept": ["frozen"]})
def frozen_feed(rng, frame):
    row, length = some_row(rng), int(rng.integers(4, 15))
    for name in (*PRICES, "volume"):
        frame[name][row : row + length] = [frame[name][row]] * length


@spoiled("value", "refused", "--repair swap-high-low", {"repairs": ["swap-high-low"]}, restores=True)
def swapped_high_and_low(rng, frame):
    for row in rng.choice(N_BARS, int(rng.integers(1, 8)), replace=False):
        frame["high"][row], frame["low"][row] = frame["low"][row], frame["high"][row]


@spoiled("value", "refused", "split, a redenomination", {"accept": ["jumps"]})
def redenomination(rng, frame):
    row = some_row(rng)
    factor = float(rng.choice([1000.0, 0.001, 2.0, 0.1]))
    for name in PRICES:
        frame[name][row:] = [round(value * factor, 6) for value in frame[name][row:]]


@spoiled("value", "refused", "is -|finite and positive", DROP)
def integer_overflow(rng, frame):
    one_cell(rng, frame, float(np.array(int(rng.integers(2**31, 2**32 - 1)), np.uint32).astype(np.int32)))


@mutator("value", "benign")
def decimals_of_20_digits(rng, folder):
    frame = clean_frame(rng)
    for name in (*PRICES, "volume"):
        frame[name] = [f"{value!r}{'0' * 17}1" for value in frame[name]]
    return Case(write_csv(frame, folder / "bars.csv"))
