"""Landscapes of meta-training: the formulas against NumPy, the optimum, and what a seed decides."""

import re
from functools import partial

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import brentq

from conductor.landscapes import (
    EVEN_FAMILIES,
    FAMILIES,
    HALF_WIDTH,
    HEAD,
    HIGHEST_PEAK,
    LOPSIDED_MOST,
    LOPSIDED_SHARE,
    N_PEAKS,
    OCTAVES,
    Landscape,
    evaluate,
    landscape,
)

SEEDS = range(6)


def gain(x):
    return x * np.sin(np.sqrt(np.abs(x)))


def peaks(z, first, weights, further):
    d = z.shape[1]
    height, centre, sharpness = np.split(further, [N_PEAKS, N_PEAKS * (1 + d)])
    centre, sharpness = centre.reshape(d, N_PEAKS).T, sharpness.reshape(d, N_PEAKS).T
    square = (sharpness * (z[:, None, :] - centre) ** 2).sum(axis=2)
    return HIGHEST_PEAK * (1.0 - np.exp(height - square).max(axis=1))


def weierstrass(z, first, weights, further):
    octave = np.arange(OCTAVES)
    waves = 0.5**octave * (1.0 - np.cos(2.0 * np.pi * 3.0**octave * z[:, :, None]))
    return 10.0 * waves.sum(axis=(1, 2)) ** 3 / z.shape[1] ** 3 + 0.1 * (z**2).sum(axis=1)


def schwefel(z, first, weights, further):
    slope = lambda x: np.sin(np.sqrt(x)) + 0.5 * np.sqrt(x) * np.cos(np.sqrt(x))  # noqa: E731
    best = brentq(slope, 400.0, 440.0, xtol=1e-12)
    return (gain(best) - gain(best + weights * z)).mean(axis=1)


def ackley(z, first, weights, further):
    valley = 20.0 * np.exp(-0.2 * np.sqrt((z**2).mean(axis=1)))
    return 20.0 - valley + np.e - np.exp(np.cos(2.0 * np.pi * z).mean(axis=1))


def rosenbrock(z, first, weights, further):
    x = z + 1.0
    return (100.0 * (x[:, 1:] - x[:, :-1] ** 2) ** 2 + (1.0 - x[:, :-1]) ** 2).sum(axis=1)


def griewank(z, first, weights, further):
    waves = np.cos(z / np.sqrt(np.arange(1, z.shape[1] + 1))).prod(axis=1)
    return (z**2).sum(axis=1) / 4000.0 + 1.0 - waves


def rastrigin(z, first, weights, further):
    x = weights * z
    return (x**2 - first * np.cos(2.0 * np.pi * x) + first).sum(axis=1)


def levels(z, first, weights, further):
    return (weights * z**2 + first * (1.0 - np.cos(2.0 * np.pi * z))).sum(axis=1)


TWINS = {
    "sphere": lambda z, first, weights, further: (z**2).sum(axis=1),
    "ellipsoid": lambda z, first, weights, further: (weights * z**2).sum(axis=1),
    "discus": lambda z, first, weights, further: (weights * z**2).sum(axis=1),
    "powers": lambda z, first, weights, further: np.sqrt((np.abs(z) ** weights).sum(axis=1)),
    "rosenbrock": rosenbrock,
    "ridge": lambda z, first, weights, further: z[:, 0] ** 2 + first * np.sqrt((z[:, 1:] ** 2).sum(axis=1)),
    "rastrigin": rastrigin,
    "ackley": ackley,
    "griewank": griewank,
    "weierstrass": weierstrass,
    "schwefel": schwefel,
    "peaks": peaks,
    "steps": lambda z, first, weights, further: (np.floor(first * z + 0.5) ** 2 + 1e-4 * z**2).sum(axis=1),
    "levels": levels,
}


def twin(one: Landscape, genes):
    """The errors in NumPy, from the documented layout of the parameters."""
    d, rest = one.dimension, one.parameters[HEAD:]
    rotated, first, lopsided, width = one.parameters[:HEAD]
    optimum, weights, rest = rest[:d], rest[d : 2 * d], rest[2 * d :]
    rotation = np.eye(d)
    if rotated:
        rotation, rest = rest[: d * d].reshape(d, d), rest[d * d :]
    if one.family == "levels":
        count = np.maximum(rest, 1.0)
        middle = (np.minimum(np.floor(genes * count), count - 1.0) + 0.5) / count
        genes = np.where(rest > 0.0, middle, genes)
    z = (genes - optimum) * width @ rotation
    if lopsided:
        above, below = rest.reshape(2, d)
        z = z * np.where(z > 0.0, above, below)
    return TWINS[one.family](z, first, weights, rest)


def test_every_family_has_a_twin():
    assert set(TWINS) == set(FAMILIES)
    assert set(HALF_WIDTH) <= set(FAMILIES)
    assert len(FAMILIES) >= 12


@pytest.mark.parametrize("family", FAMILIES)
def test_compiled_errors_are_those_of_numpy(family):
    for seed in SEEDS:
        for d in (2, 7, 64):
            one, genes = landscape(family, d, seed), np.random.default_rng(seed).random((30, d))
            near = np.clip(one.optimum + 0.03 * (genes - 0.5), 0.0, 1.0)
            for rows in (genes, near):
                # The octaves of weierstrass come from a recurrence, which loses some digits with each.
                np.testing.assert_allclose(one(rows), twin(one, rows), rtol=1e-8, atol=1e-7)


def test_a_wrong_formula_is_seen():
    one, genes = landscape("ridge", 5, 0), np.random.default_rng(0).random((30, 5))
    wrong = np.empty(30)
    evaluate(FAMILIES.index("ellipsoid"), one.parameters, genes, wrong)
    assert not np.allclose(wrong, twin(one, genes), rtol=1e-3)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_error_is_0_at_the_optimum_and_positive_around_it(family):
    rng = np.random.default_rng(1)
    for seed in SEEDS:
        for d in (2, 10, 64):
            one = landscape(family, d, seed)
            assert ((one.optimum >= 0.0) & (one.optimum <= 1.0)).all()
            at = one(one.optimum[None])
            assert at.tobytes() == np.zeros(1).tobytes()
            away = np.clip(one.optimum + rng.choice([-0.2, 0.2], (50, d)), 0.0, 1.0)
            free = one.parameters[-d:] == 0.0 if family == "levels" else np.ones(d, dtype=bool)
            away = away[(np.abs(away - one.optimum)[:, free] > 0.1).any(axis=1)]  # not held by a wall
            assert len(away) > 5
            assert (one(away) > 0.0).all()
            assert (one(rng.random((200, d))) > 0.0).all()


@pytest.mark.parametrize("family", FAMILIES)
def test_instances_differ_and_a_seed_gives_the_same_bytes(family):
    genes = np.random.default_rng(2).random((20, 6))
    landscape.cache_clear()
    first = [landscape(family, 6, seed) for seed in SEEDS]
    landscape.cache_clear()
    again = [landscape(family, 6, seed) for seed in SEEDS]
    assert first[0] is not again[0]
    for one, other in zip(first, again, strict=True):
        assert one.parameters.tobytes() == other.parameters.tobytes()
        assert one(genes).tobytes() == other(genes).tobytes()
    assert len({one(genes).tobytes() for one in first}) == len(first)
    assert len({one.optimum.tobytes() for one in first}) == len(first)


def test_some_instances_are_rotated_and_some_have_their_optimum_at_a_wall():
    many = [landscape(family, 8, seed) for family in ("ellipsoid", "rastrigin") for seed in range(40)]
    rotated = np.mean([one.parameters[0] for one in many])
    at_wall = np.mean([((one.optimum == 0.0) | (one.optimum == 1.0)).any() for one in many])
    assert 0.4 < rotated < 0.8
    assert 0.1 < at_wall < 0.45


def test_a_third_of_the_instances_is_steeper_on_one_side_and_no_gene_on_both():
    many = [
        landscape(family, 8, seed) for family in FAMILIES if family not in EVEN_FAMILIES for seed in range(40)
    ]
    lopsided = [one for one in many if one.parameters[2] > 0.0]
    assert abs(len(lopsided) / len(many) - LOPSIDED_SHARE) < 0.08
    for one in lopsided:
        factors = one.parameters[-16:].reshape(2, 8)
        assert ((factors == 1.0).any(axis=0) & (factors >= 1.0).all(axis=0)).all()
        assert 1.0 < factors.max() <= LOPSIDED_MOST
    assert not any(landscape(family, 8, seed).parameters[2] for family in EVEN_FAMILIES for seed in range(20))


def test_the_same_step_to_either_side_of_a_lopsided_sphere_costs_as_its_factors_say():
    one = next(one for one in map(partial(landscape, "sphere", 4), range(99)) if one.parameters[2] > 0.0)
    above, below = one.parameters[-8:].reshape(2, 4)
    step = 1e-3 * np.eye(4)
    ratio = one(one.optimum + step) / one(one.optimum - step)
    np.testing.assert_allclose(ratio, (above / below) ** 2, rtol=1e-9)


@given(st.sampled_from(FAMILIES), st.integers(2, 64), st.integers(0, 2**53), st.integers(0, 2**32))
def test_a_genome_has_the_same_error_alone_and_in_a_batch(family, d, seed, draw):
    one, genes = landscape(family, d, seed), np.random.default_rng(draw).random((9, d))
    errors = one(genes)
    assert errors.shape == (9,)
    assert np.isfinite(errors).all()
    assert (errors >= 0.0).all()
    assert np.concatenate([one(row[None]) for row in genes]).tobytes() == errors.tobytes()
    assert one(one.optimum[None])[0] == 0.0


def test_levels_are_flat_and_steps_have_plateaus():
    one = landscape("levels", 10, 0)
    genes = np.tile(one.optimum, (2, 1))
    counts = one.parameters[-10:]
    assert (counts > 0.0).sum() == 5
    genes[1, counts > 0.0] += 0.2 / counts[counts > 0.0]  # still on the same level
    assert one(genes).tolist() == [0.0, 0.0]
    free = np.flatnonzero(counts == 0.0)[0]
    genes[1, free] += 0.01
    assert one(genes)[1] > 0.0
    stairs = landscape("steps", 3, 0)
    moved = np.clip(stairs.optimum + 1e-3 * np.eye(3), 0.0, 1.0)
    assert (stairs(moved) < 1e-4).all()  # the faint slope alone


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("cone", 5, 0), "landscape family is 'cone'; known: sphere, "),
        (("sphere", 1, 0), "sphere has dimension 1; it must be from 2 to 64"),
        (("sphere", 65, 0), "sphere has dimension 65; it must be from 2 to 64"),
        (("sphere", 5, -1), "seed of sphere is -1; it must not be negative"),
    ],
)
def test_a_landscape_that_does_not_exist_is_refused_in_one_sentence(arguments, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        landscape(*arguments)


def test_genes_of_another_dimension_are_refused():
    with pytest.raises(ValueError, match=r"genes have shape \(3, 4\); sphere needs \(p, 5\)"):
        landscape("sphere", 5, 0)(np.zeros((3, 4)))
