"""Purging in plain Python: label intervals as closed intervals, compared one by one."""


def meets(a, b):
    """Return whether two closed intervals share a point."""
    return a[0] <= b[1] and b[0] <= a[1]


def purged_train(time, known, train_rows, test_rows, embargo):
    """Keep the rows whose label interval does not meet the test, nor the embargo behind it."""
    test_rows = list(test_rows)
    end = max([known[row] for row in test_rows] + [time[test_rows[-1]]])
    interval = (time[test_rows[0]], end)
    behind = [row for row in range(len(time)) if time[row] > end][:embargo]
    return [row for row in train_rows if not meets((time[row], known[row]), interval) and row not in behind]


def train_stop(time, known, start, boundary, embargo):
    """Walk forward from ``start`` until a label reaches the embargo before the boundary row."""
    row, last = start, max(boundary - embargo, start)
    while row < last and known[row] < time[last]:
        row += 1
    return row
