"""Labels and their weights in plain Python: events in order, label by label, indicator matrices."""

import math

NEVER = 2**63 - 1


def widths(multiple, volatility, horizon, sqrt_horizon, least):
    """Return the distance of a barrier as a fraction, infinite for none, None where it is not known."""
    if math.isnan(volatility):
        return None
    if math.isinf(multiple):
        return math.inf
    scale = volatility * math.sqrt(horizon) if sqrt_horizon else volatility
    return max(multiple * scale, least)


def events(bars, first, last, upper, lower, side):
    """Yield (row, value, price) for every contact with a barrier, in the order in which they happen."""
    open_, high, low = (bars.column(name).tolist() for name in ("open", "high", "low"))
    for s in range(first, last + 1):
        if open_[s] <= lower:
            yield s, -1, open_[s]
        if open_[s] >= upper:
            yield s, 1, open_[s]
        touches = [(-1, lower)] * (low[s] <= lower) + [(1, upper)] * (high[s] >= upper)
        for value, price in touches[::-1] if side < 0 else touches:
            yield s, value, price


def triple_barrier(
    bars, horizon, up, down, volatility, side=None, sqrt_horizon=True, least=1e-6, across_gaps=False
):
    """Return one (value, end, ret, settled) per row; rows without a label have (0, NEVER, None, settled)."""
    n, time = len(bars), bars.time.tolist()
    open_, close = bars.column("open").tolist(), bars.column("close").tolist()
    found = []
    for t in range(n):
        above = widths(up, volatility[t], horizon, sqrt_horizon, least)
        below = widths(down, volatility[t], horizon, sqrt_horizon, least)
        if above is None or below is None:
            found.append((0, NEVER, None, t))
            continue
        gaps = [s for s in range(t + 1, n) if time[s] - time[s - 1] > bars.interval_ns]
        hole = min(gaps, default=n) if not across_gaps else n
        stop = min(hole, n, t + horizon + 1)  # the first row that the label may not read
        contact = None
        if stop > t + 1:
            entry = open_[t + 1]
            levels = entry * (1.0 + above), entry * (1.0 - below)
            contact = next(events(bars, t + 1, stop - 1, *levels, 1 if side is None else side[t]), None)
        if contact is None and stop == t + horizon + 1:
            contact = (t + horizon, 0, close[t + horizon])
        if contact is not None:
            end, value, price = contact
            found.append((value, end, price / entry - 1.0, end))
        else:
            found.append((0, NEVER, None, hole if hole < n else NEVER))
    return found


def spans(labels, rows):
    """Return {row: set of the bars that its label reads} for the known labels among the rows."""
    return {row: set(range(row + 1, int(labels.end[row]) + 1)) for row in rows if labels.known[row]}


def concurrency(labels, rows):
    read = spans(labels, rows)
    return [sum(bar in span for span in read.values()) for bar in range(len(labels))]


def uniqueness(labels, rows):
    crowd, weights = concurrency(labels, rows), [0.0] * len(labels)
    for row, span in spans(labels, rows).items():
        weights[row] = sum(1 / crowd[bar] for bar in span) / len(span)
    return weights


def return_weights(labels, bars, rows):
    """Share each bar's log return among the labels that read it, each from its own entry to its own exit."""
    open_, close = bars.column("open").tolist(), bars.column("close").tolist()
    crowd, weights = concurrency(labels, rows), [0.0] * len(labels)
    read = spans(labels, rows)
    for row, span in read.items():
        entry, end = open_[row + 1], int(labels.end[row])
        exit_price = entry * (1.0 + float(labels.ret[row]))
        total = 0.0
        for bar in sorted(span):
            before = entry if bar == row + 1 else close[bar - 1]
            after = exit_price if bar == end else close[bar]
            total += (math.log(after) - math.log(before)) / crowd[bar]
        weights[row] = abs(total)
    mean = sum(weights) / len(read) if read else 0.0
    return [weight / mean if mean else float(row in read) for row, weight in enumerate(weights)]


def time_decay(weights, oldest):
    """The snippet of the book, one label after the other."""
    total, age, factors = sum(weights), 0.0, []
    slope = (1.0 - oldest) / total if oldest >= 0 else 1.0 / ((oldest + 1.0) * total)
    for weight in weights:
        age += weight
        factors.append(max(1.0 - slope * total + slope * age, 0.0) if weight else 0.0)
    return factors


def draw_probabilities(read, drawn):
    """Return how probable each label is to be drawn next: by its mean uniqueness if it joined those drawn."""
    means = {}
    for row, span in read.items():
        crowd = [1 + sum(bar in read[other] for other in drawn) for bar in span]
        means[row] = sum(1 / c for c in crowd) / len(span)
    total = sum(means.values())
    return {row: mean / total for row, mean in means.items()}


def sequential_bootstrap(labels, rows, uniform):
    """Draw with the probabilities of :func:`draw_probabilities`, in the order of rows."""
    read, drawn = spans(labels, rows), []
    for u in uniform:
        total = 0.0
        for row, probability in draw_probabilities(read, drawn).items():
            total += probability
            chosen = row
            if u < total:
                break
        drawn.append(chosen)
    return drawn


def bet_size(probability, outcomes):
    """Return 2 * Phi(z) - 1, which is erf(z / sqrt(2)), and 0 where that is negative."""
    if probability in (0.0, 1.0):
        return probability
    z = (probability - 1 / outcomes) / math.sqrt(probability * (1 - probability))
    return max(math.erf(z / math.sqrt(2)), 0.0)


def average_active(size, end):
    """Average the sizes of the bets that are open at each row."""
    averages = []
    for t in range(len(size)):
        active = [size[i] for i in range(t + 1) if end[i] > t and not math.isnan(size[i])]
        averages.append(sum(active) / len(active) if active else 0.0)
    return averages
