"""Statistics of luck in plain Python, as close to the papers as possible."""

import itertools
import math
from statistics import NormalDist

PHI = NormalDist().cdf
QUANTILE = NormalDist().inv_cdf


def moments(returns):
    """Sharpe per bar (ddof 1), skewness, full kurtosis, lag-1 autocorrelation."""
    n = len(returns)
    mean = math.fsum(returns) / n
    central = [math.fsum((r - mean) ** k for r in returns) / n for k in (2, 3, 4)]
    sharpe = mean / math.sqrt(central[0] * n / (n - 1))
    lagged = math.fsum((a - mean) * (b - mean) for a, b in itertools.pairwise(returns)) / n
    return sharpe, central[1] / central[0] ** 1.5, central[2] / central[0] ** 2, lagged / central[0]


def probabilistic_sharpe(sharpe, n, skewness, kurtosis, benchmark):
    error = math.sqrt((1 - skewness * sharpe + (kurtosis - 1) / 4 * sharpe**2) / (n - 1))
    return PHI((sharpe - benchmark) / error)


def expected_max_sharpe(n_trials, variance):
    gamma = 0.5772156649015329
    return math.sqrt(variance) * (
        (1 - gamma) * QUANTILE(1 - 1 / n_trials) + gamma * QUANTILE(1 - 1 / (n_trials * math.e))
    )


def average_correlation_trials(columns):
    m = len(columns)
    pairs = [correlation(a, b) for a, b in itertools.combinations(columns, 2)]
    rho = min(max(math.fsum(pairs) / len(pairs), 0.0), 1.0)
    return rho + (1 - rho) * m


def spectrum_trials(columns):
    """The sum of squared eigenvalues of a symmetric matrix is the sum of its squared entries."""
    m = len(columns)
    return m**2 / math.fsum(correlation(a, b) ** 2 for a in columns for b in columns)


def correlation(a, b):
    ma, mb = math.fsum(a) / len(a), math.fsum(b) / len(b)
    ab = math.fsum((x - ma) * (y - mb) for x, y in zip(a, b, strict=True))
    aa = math.fsum((x - ma) ** 2 for x in a)
    bb = math.fsum((y - mb) ** 2 for y in b)
    return ab / math.sqrt(aa * bb)


def sharpe(returns):
    if len(set(returns)) == 1:
        return 0.0
    mean = math.fsum(returns) / len(returns)
    return round(mean / math.sqrt(math.fsum((r - mean) ** 2 for r in returns) / (len(returns) - 1)), 12)


def cscv(columns, n_blocks):
    """Return the relative rank of the winner out of sample, its Sharpe in and out, for every split."""
    n = len(columns[0])
    sizes = [n // n_blocks + (b < n % n_blocks) for b in range(n_blocks)]
    starts = [sum(sizes[:b]) for b in range(n_blocks)]
    blocks = [range(start, start + size) for start, size in zip(starts, sizes, strict=True)]
    found = []
    for chosen in itertools.combinations(range(n_blocks), n_blocks // 2):
        inside = [row for b in chosen for row in blocks[b]]
        outside = [row for b in range(n_blocks) if b not in chosen for row in blocks[b]]
        train = [sharpe([column[row] for row in inside]) for column in columns]
        test = [sharpe([column[row] for row in outside]) for column in columns]
        winner = train.index(max(train))
        below = sum(other < test[winner] for other in test)
        equal = sum(other == test[winner] for other in test)
        found.append(((below + (equal + 1) / 2) / (len(columns) + 1), train[winner], test[winner]))
    return found
