"""Slow and obvious versions of the EM of hidden Markov models, in logs, on textbook densities."""

import math

import numpy as np
from scipy.special import digamma, logsumexp
from scipy.stats import multivariate_normal, multivariate_t


def log_densities(rows, mean, covariance, degrees):
    """Of each row under each state, by scipy."""
    out = np.empty((len(rows), len(mean)))
    for j, nu in enumerate(degrees):
        if math.isinf(nu):
            out[:, j] = multivariate_normal.logpdf(rows, mean[j], covariance[j])
        else:
            out[:, j] = multivariate_t.logpdf(rows, mean[j], covariance[j], df=nu)
    return out


def smoothed(log_density, start, transition):
    """Log likelihood, state probabilities (n, k) and pair probabilities (n - 1, k, k) of one sequence."""
    n, k = log_density.shape
    with np.errstate(divide="ignore"):
        log_start, log_transition = np.log(start), np.log(transition)
    forward, backward = np.empty((n, k)), np.zeros((n, k))
    forward[0] = log_start + log_density[0]
    for t in range(1, n):
        forward[t] = logsumexp(forward[t - 1][:, None] + log_transition, axis=0) + log_density[t]
    for t in range(n - 2, -1, -1):
        backward[t] = logsumexp(log_transition + log_density[t + 1] + backward[t + 1], axis=1)
    total = logsumexp(forward[-1])
    pairs = forward[:-1, :, None] + log_transition + (log_density + backward)[1:, None, :]
    return total, np.exp(forward + backward - total), np.exp(pairs - total)


def step(rows, lengths, model, diagonal, transition_prior, covariance_prior=1e-2):
    """One EM iteration: log likelihood before it, and start, transition, mean, covariance, degrees after it.

    The degrees of freedom are found on a grid of a thousand.
    """
    k, f = model.mean.shape
    log_density = log_densities(rows, model.mean, model.covariance, model.degrees)
    likelihood, starts, counts, shares, first = 0.0, np.zeros(k), np.zeros((k, k)), [], 0
    for length in lengths:
        gain, share, pairs = smoothed(log_density[first : first + length], model.start, model.transition)
        likelihood += gain
        starts += share[0]
        counts += pairs.sum(axis=0)
        shares.append(share)
        first += length
    share = np.concatenate(shares)
    transition = transition_prior - 1 + counts
    mean, covariance, degrees = np.empty((k, f)), np.empty((k, f, f)), np.empty(k)
    for j in range(k):
        pull = np.ones(len(rows))
        degrees[j] = model.degrees[j]
        if math.isfinite(degrees[j]):
            away = rows - model.mean[j]
            distance = np.einsum("tf,fg,tg->t", away, np.linalg.inv(model.covariance[j]), away)
            pull = (degrees[j] + f) / (degrees[j] + distance)
        weight = share[:, j] * pull
        mean[j] = weight @ rows / weight.sum()
        away = rows - mean[j]
        scatter = np.einsum("t,tf,tg->fg", weight, away, away) + covariance_prior
        covariance[j] = scatter / share[:, j].sum()
        if diagonal:
            covariance[j] *= np.eye(f)
        if math.isfinite(degrees[j]):
            half = (model.degrees[j] + f) / 2
            known = (
                1 + share[:, j] @ (np.log(pull) - pull) / share[:, j].sum() + digamma(half) - math.log(half)
            )
            grid = np.geomspace(2.1, 200, 1000)
            degrees[j] = grid[np.argmin(np.abs(known + np.log(grid / 2) - digamma(grid / 2)))]
    starts /= starts.sum()
    return likelihood, starts, transition / transition.sum(axis=1, keepdims=True), mean, covariance, degrees


def followed(observations, model, loading, evidence, gain, fade, belief):
    """Log densities (n, k), levels and predictive log densities (n,), row by row in logs."""
    densities, levels, predictive, level = [], [], [], 0.0
    for x in observations:
        levels.append(level)
        predicted = np.log(belief @ model.transition)
        if np.isnan(x).any():
            densities.append(np.zeros(len(belief)))
            predictive.append(0.0)
            belief = np.exp(predicted)
            continue
        density = log_densities(
            np.array([x - level * loading, x]), model.mean, model.covariance, model.degrees
        )[0]
        densities.append(density)
        predictive.append(logsumexp(predicted + density))
        joint = predicted + evidence * density
        belief = np.exp(joint - logsumexp(joint))
        step = strength = 0.0
        for j, nu in enumerate(model.degrees):
            inverse = np.linalg.inv(model.covariance[j])
            away = x - level * loading - model.mean[j]
            pull = 1.0 if math.isinf(nu) else (nu + x.size) / (nu + away @ inverse @ away)
            step += belief[j] * pull * (loading @ inverse @ away)
            strength += belief[j] * (loading @ inverse @ loading)
        level = (1 - fade) * level + gain * step / strength
    return np.array(densities), np.array(levels), np.array(predictive)
