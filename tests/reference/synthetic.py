"""Slow and obvious versions of the synthetic market's kernels, its moments, and one hand rule per regime."""

import math

import numpy as np
from scipy import integrate, stats

LOG_TWO = math.log(2.0)
BARS_PER_YEAR = 8760

# Span of the average, entry and exit in units of the regime's volatility, and with (1) or against (-1).
HAND_RULES = {"ranging": (96, 4.0, 0.0, -1), "trending": (72, 2.0, -1.0, 1), "volatile": (16, 2.5, 0.0, -1)}


class Regime:
    """Memory and law of one regime, straight from the config."""

    def __init__(self, law, start):
        self.law = law
        self.anchor = start
        self.cluster = 1.0

    def expectation(self, price, scale, direction):
        """Return mean and variance of the next log return."""
        law = self.law
        variance = (law.volatility * scale) ** 2 * self.cluster
        stretch = (price - self.anchor) / law.volatility
        taken = np.clip(abs(stretch) - law.threshold, 0, law.reach) * law.volatility
        mean = direction * law.trend * law.volatility * scale
        return mean - np.sign(stretch) * law.pull * taken - variance / 2, variance

    def learn(self, move, price, scale):
        law = self.law
        shock = min(abs(move) / (law.volatility * scale), 4.0) ** 2
        self.cluster = 1 - law.shock - law.memory + law.shock * shock + law.memory * self.cluster
        self.anchor += 2 / (law.anchor_bars + 1) * (price - self.anchor)


def walk(laws, scale, regime, direction, mixing, normal, above, below):
    """Return log high, log low and log close of each bar; the first bar starts at 0."""
    price, rows = 0.0, []
    regimes = [Regime(law, price) for law in laws]
    for t, r in enumerate(regime):
        mean, variance = regimes[r].expectation(price, scale[t], direction[t])
        steps = len(normal[t])
        v = variance * mixing[t] / steps
        path = np.concatenate([[0.0], np.cumsum(mean / steps + math.sqrt(v) * np.asarray(normal[t]))])
        a, b = path[:-1], path[1:]
        highest = np.max((a + b + np.sqrt((b - a) ** 2 + 2 * v * np.asarray(above[t]))) / 2)
        lowest = np.min((a + b - np.sqrt((b - a) ** 2 + 2 * v * np.asarray(below[t]))) / 2)
        rows.append((price + highest, price + lowest, price + path[-1]))
        price += path[-1]
        for one in regimes:
            one.learn(path[-1], price, scale[t])
    return np.array(rows)


def close_probabilities(config, law, open_, close):
    """Return filtered regime probabilities from closes, by Bayes' rule in plain numbers."""
    regimes = [Regime(one, math.log(config.price)) for one in config.regimes]
    belief, rows = law.stationary, []
    for t in range(len(close)):
        before, after = math.log(open_[t]), math.log(close[t])
        density = []
        for r, direction in zip(law.regime_of, law.direction_of, strict=True):
            mean, variance = regimes[r].expectation(before, law.scale[t], direction)
            dof = config.regimes[r].dof
            spread = math.sqrt(variance * (dof - 2) / dof)
            density.append(stats.t.pdf(after - before, dof, mean, spread))
        joint = (belief @ law.transition) * density
        belief = joint / joint.sum()
        rows.append([belief[law.regime_of == r].sum() for r in range(3)])
        for one in regimes:
            one.learn(after - before, after, law.scale[t])
    return np.array(rows)


def extremes_density(high, low, close, variance):
    """Return the density of (high, low, close) of Brownian motion: 61 mirror images, bent Gaussians."""

    def bend(x):
        return (x * x / variance - 1) / variance * stats.norm.pdf(x, scale=math.sqrt(variance))

    length = high - low
    k = np.arange(-30, 31)
    near, far = close - 2 * k * length, close - 2 * high - 2 * k * length
    return float(np.sum(4 * k**2 * bend(near) - 4 * k * (k + 1) * bend(far)))


def bar_log_density(high, low, close, mean, variance, dof):
    """Return the log density of (high, low, close), the variance integrated out by adaptive quadrature."""
    mixing = stats.invgamma(dof / 2, scale=(dof / 2 - 1) * variance)

    def integrand(log_v):
        v = math.exp(log_v)
        girsanov = math.exp((mean * close - mean * mean / 2) / v)
        return extremes_density(high, low, close, v) * girsanov * mixing.pdf(v) * v

    # Where the images cancel (variance far above the squared range) there is no density left.
    top = math.log((high - low) ** 2) + 1.8
    total, _ = integrate.quad(integrand, top - 7.5, top, epsabs=0, epsrel=1e-9, limit=400)
    return math.log(total)


def autocorrelation(x, lag):
    a, b = x[lag:], x[:-lag]
    both = np.isfinite(a) & np.isfinite(b)
    return np.corrcoef(a[both], b[both])[0, 1]


def moments(open_, high, low, close, volume, follows):
    """Return the statistics by which hourly markets are compared.

    ``follows`` says whether a bar follows the one before it without a gap in time.
    """
    r = np.concatenate([[np.nan], np.diff(np.log(close))])
    r[~follows] = np.nan
    some = r[np.isfinite(r)]
    size = np.abs(some) / some.std()
    traded = (volume > 0) & (high > low)
    log_range = np.where(traded, np.log(high / low, where=traded, out=np.ones_like(high)), np.nan)
    log_log_range, log_volume = np.full(len(r), np.nan), np.full(len(r), np.nan)
    log_log_range[traded] = np.log(log_range[traded])
    log_volume[traded] = np.log(volume[traded])
    parkinson = math.sqrt(np.nanmean(np.log(high / low) ** 2) / (4 * LOG_TWO))
    return {
        "std": some.std(),
        "excess kurtosis": stats.kurtosis(some),
        "median |r| / std": np.quantile(size, 0.5),
        "q95 |r| / std": np.quantile(size, 0.95),
        "q99 |r| / std": np.quantile(size, 0.99),
        "q99.9 |r| / std": np.quantile(size, 0.999),
        "share |r| < 1 bp": np.mean(np.abs(some) < 1e-4),
        "acf r 1": autocorrelation(r, 1),
        "acf |r| 1": autocorrelation(np.abs(r), 1),
        "acf |r| 24": autocorrelation(np.abs(r), 24),
        "acf |r| 168": autocorrelation(np.abs(r), 168),
        "acf log range 1": autocorrelation(log_log_range, 1),
        "acf log range 24": autocorrelation(log_log_range, 24),
        "Parkinson / close std": parkinson / some.std(),
        "std log volume": np.nanstd(log_volume),
        "skew log volume": stats.skew(log_volume[traded]),
        "acf log volume 1": autocorrelation(log_volume, 1),
        "acf log volume 24": autocorrelation(log_volume, 24),
        "corr log volume, log range": np.corrcoef(log_volume[traded], log_log_range[traded])[0, 1],
    }


def bar_moments(bars):
    follows = np.concatenate([[False], np.diff(bars.time) == bars.interval_ns])
    return moments(*bars.values[:, :5].T, follows)


def hand_rule(market, name, fee_bps):
    """Return net simple returns per bar of one regime's hand rule, given the true regime; flat elsewhere.

    Decided at a close, filled at the next open, fee paid on each change of exposure.
    """
    span, enter, leave, sign = HAND_RULES[name]
    wanted = list(HAND_RULES).index(name)
    unit = market.config.regimes[wanted].volatility
    open_, close = market.bars.column("open"), market.bars.column("close")
    average, exposure, net = math.log(open_[0]), 0, []
    for t in range(len(close)):
        target = 0
        if t > 0 and market.regime[t - 1] == wanted:
            stretch = sign * (math.log(close[t - 1]) - average) / unit
            if exposure != 0 and exposure * stretch >= leave:
                target = exposure
            elif exposure == 0 and abs(stretch) > enter:
                target = int(np.sign(stretch))
        net.append(target * (close[t] / open_[t] - 1) - abs(target - exposure) * fee_bps / 1e4)
        exposure = target
        average += 2 / (span + 1) * (math.log(close[t]) - average)
    return np.array(net)


def annual_sharpe(returns):
    return returns.mean() / returns.std() * math.sqrt(BARS_PER_YEAR)


def balanced_accuracy(regime, probabilities):
    best = probabilities.argmax(axis=1)
    return np.mean([np.mean(best[regime == r] == r) for r in range(3)])
