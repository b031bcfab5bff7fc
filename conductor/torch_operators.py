"""The operators of ``ga`` as tensors over many runs: no branch on a value, each run with its own controls.

Populations stand sorted, best first, so that a rank is a row. Each place of the population gets a child, also
those that keep their occupant: what is not wanted is masked, since all runs of a tensor do the same work.
``ga.breeding_kernels`` says what each operator does and why; here stands how, for those of ``ga.variation``
that :data:`BREEDS` names, and difference vectors with or without jitter and archive.
Numbers come from :class:`conductor.torch_draws.Draws`, so children are equal to those of ``ga`` in
distribution, not in bits.

Shapes: ``R`` runs, ``p`` individuals, ``d`` genes, ``a`` archived individuals; ``U`` different seeds.
"""

import math
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import torch
from torch import Tensor

from conductor.environment_kernels import MAX_TRIES
from conductor.torch_draws import PURPOSES, Draws, cauchy, normal
from ga.breeding_kernels import DECADES, JITTER, MAX_STEP, MAX_WEIGHT
from ga.controls import CONTROL_NAMES
from ga.progress import CROSSOVER, DIFFERENTIAL, IMMIGRANT, MUTATION
from ga.variation import Variation

#: What a variation may ask for, by the name of its setting; of the settings that are not named, anything.
BREEDS: Mapping[str, tuple[Any, ...]] = MappingProxyType(
    {"recombination": ("blend",), "mutation": ("multiscale", "gaussian_cauchy"), "rotation": (0.0,)}
)
#: What the pairs of numbers of a generation are for: of each run, of each row, of each gene.
SIZES, RESTARTS = 0, 1
PLACES, PARENTS, OPERATORS, MATES, WEIGHTS, RATES, PAIRS, ORDER = range(2, 10)
GENES, SHUFFLES, WIDTHS, MOVES = range(10, 14)
#: The first of the three pairs of each attempt to mutate again.
AGAIN = 14
_RATE, _STEP, _TAIL = (CONTROL_NAMES.index(f"mutation_{name}") for name in ("rate", "step", "tail"))
if AGAIN + 3 * MAX_TRIES > PURPOSES:
    raise TypeError("conductor.torch_draws has room for fewer purposes than a generation has")


class Plan(NamedTuple):
    """Who is bred in a generation, and from whom.

    Parameters
    ----------
    child : bool (R, p)
        Places that get an offspring: all but the elites, who stand first.
    bred : bool (R, p)
        Those of them whose offspring has parents; the last places are for newcomers.
    defended : bool (R, p)
        Places whose occupant is the parent and yields to no worse child.
    parent : int64 (R, p)
        Row of the parent; of a newcomer, its own place.
    restarted : int64 (R,)
        Newcomers of a restart.
    """

    child: Tensor
    bred: Tensor
    defended: Tensor
    parent: Tensor
    restarted: Tensor


class Children(NamedTuple):
    """Offspring of a generation; rows of ``Plan.child`` alone have a meaning.

    Parameters
    ----------
    genes : float (R, p, d)
    operator : int64 (R, p)
        Position in ``ga.progress.OPERATORS``.
    weight, rate : float (R, p)
        F and CR of the children of difference vectors.
    """

    genes: Tensor
    operator: Tensor
    weight: Tensor
    rate: Tensor


def column(controls: Tensor, name: str) -> Tensor:
    """Return one control of each run, (R, 1), of controls (R, 12) in natural units."""
    return controls[:, CONTROL_NAMES.index(name), None]


def folded(genes: Tensor) -> Tensor:
    """Return where genes come to rest when the walls at 0 and 1 mirror them as often as needed."""
    strays = (genes < 0.0) | (genes > 1.0)  # only they move: the formula would round the others
    return torch.where(strays, 1.0 - (1.0 - torch.remainder(genes, 2.0)).abs(), genes)


def index(uniform: Tensor, n: Tensor | int) -> Tensor:
    """Return the whole numbers from 0 to n - 1 that uniform numbers from [0, 1) fall on, int64."""
    last = n - 1
    whole = (uniform * n).long()
    return whole.clamp(max=last) if isinstance(last, int) else torch.minimum(whole, last)


def rounded(uniform: Tensor, value: Tensor) -> Tensor:
    """Return values rounded up or down at random, int64, so that their mean stays."""
    low = value.floor()
    return (low + (uniform < value - low)).long()


def winners(chance: Tensor, smallest: Tensor, tournament_size: Tensor, p: int) -> Tensor:
    """Return the ranks of the winners of tournaments, int64, by inversion from two uniform numbers each.

    Parameters
    ----------
    chance, smallest : float (R, m)
    tournament_size : float (R, 1)
        Contestants; each tournament rounds a fraction up or down at random.
    p : int
        Size of the population.
    """
    contestants = tournament_size.floor()
    contestants = contestants + (chance < tournament_size - contestants)
    return index(-torch.expm1(torch.log1p(-smallest) / contestants), p)


def planned(draws: Draws, generation: int, controls: Tensor, stagnation: Tensor, guard: int, p: int) -> Plan:
    """Return who is bred from whom in a generation.

    Parameters
    ----------
    draws : Draws
    generation : int
    controls : float (R, 12)
        In natural units.
    stagnation : int64 (R,)
        Generations since the best rose or a restart was made, whichever is less.
    guard : int
        From how many of them on ``restart_fraction`` acts.
    p : int
        Size of the population.
    """
    first, second = (draws.own(one) for one in draws.uniform(generation, SIZES, 1))
    third = draws.own(draws.uniform(generation, RESTARTS, 1)[0])
    elites = rounded(first, column(controls, "elite_fraction") * p).clamp(min=1, max=p - 1)
    size = p - elites
    immigrants = rounded(second, column(controls, "immigrant_fraction") * size)
    restarted = rounded(third, column(controls, "restart_fraction") * size)
    restarted = torch.where(stagnation[:, None] >= guard, restarted, 0)
    fresh = torch.minimum(size, torch.maximum(immigrants, restarted))

    chance, coin = (draws.own(one) for one in draws.uniform(generation, PLACES, p))
    smallest = draws.own(draws.uniform(generation, PARENTS, p)[0])
    rank = torch.arange(p, device=controls.device).expand(len(controls), p)
    child, bred = rank >= elites, (rank >= elites) & (rank < p - fresh)
    defended = bred & (coin < column(controls, "crowding_rate"))
    winner = winners(chance, smallest, column(controls, "tournament_size"), p)
    return Plan(child, bred, defended, torch.where(bred & ~defended, winner, rank), restarted[:, 0])


def bred(
    draws: Draws,
    generation: int,
    pool: Tensor,
    archived: Tensor,
    plan: Plan,
    controls: Tensor,
    variation: Variation,
) -> Children:
    """Return the children of a generation, recombined and mutated, and newcomers where the plan has them.

    Parameters
    ----------
    draws : Draws
    generation : int
    pool : float (R, p + a, d)
        The population, best first, then the archive.
    archived : int64 (R,)
        How many of the archive hold somebody.
    plan : Plan
    controls : float (R, 12)
        In natural units.
    variation : Variation
        One of :data:`BREEDS`.
    """
    p, d = plan.parent.shape[1], pool.shape[2]

    def own(purpose: int, *shape: int) -> tuple[Tensor, Tensor]:
        return tuple(draws.own(one) for one in draws.uniform(generation, purpose, *shape))

    (differs, crosses), (chance, smallest) = own(OPERATORS, p), own(MATES, p)
    forced, first = own(WEIGHTS, p)
    differential = differs < column(controls, "differential_rate")
    mate = winners(chance, smallest, column(controls, "tournament_size"), p)
    met = (crosses < column(controls, "crossover_rate")) & (mate != plan.parent) & ~differential
    operator = torch.where(differential, DIFFERENTIAL, torch.where(met, CROSSOVER, MUTATION))
    operator = torch.where(plan.bred, operator, IMMIGRANT)

    weight, rate = _weights(draws, generation, first, controls, p, variation.jitter)
    one, other = own(PAIRS, p)
    members = p + archived[:, None]
    one = index(one, p)
    other = (one + 1 + index(other, members - 1)) % members  # never the same
    parents, mates = _rows(pool, plan.parent), _rows(pool, mate)
    # A number per gene: the share of a blend, or whether the gene takes the difference vector.
    share, mutates = own(GENES, p, d)
    certain = torch.arange(d, device=pool.device) == index(forced, d)[..., None]
    step = weight[..., None] * (mates - parents + (_rows(pool, one) - _rows(pool, other)))
    step = step * ((share < rate[..., None]) | certain)
    spread = column(controls, "crossover_spread")[..., None]
    blend = (share * (1.0 + 2.0 * spread) - spread) * (mates - parents)
    is_step, is_blend = differential[..., None], met[..., None]
    children = folded(parents + torch.where(is_step, step, torch.where(is_blend, blend, 0.0)))

    alone = (operator == MUTATION)[..., None] & certain
    mutates = (mutates < column(controls, "mutation_rate")[..., None]) | alone
    pairs = (draws.uniform(generation, purpose, p, d) for purpose in (WIDTHS, MOVES))
    # Their logarithms once per seed, not once per run.
    moves = (draws.own(one) for one in _moves(*pairs, variation.mutation))
    moves = _unit_moves(moves, column(controls, "mutation_tail")[..., None])
    moves = column(controls, "mutation_step")[..., None] * moves
    children = torch.where(mutates, _landed(children + moves, variation.mutation), children)
    # Newcomers stand last. How many the run with most of them has is asked of the device: the hypercube of
    # all places, of which most generations need one or two, would cost more than everything else here.
    fresh = plan.child & ~plan.bred
    most = int(fresh.sum(1).max())
    if most:
        newcomers = latin_hypercube(draws, generation, fresh.sum(1), most, d).flip(1)
        children[:, p - most :] = torch.where(fresh[:, p - most :, None], newcomers, children[:, p - most :])
    return Children(children, operator, weight, rate)


def latin_hypercube(draws: Draws, generation: int, size: Tensor, most: int, d: int) -> Tensor:
    """Return stratified newcomers, float (R, most, d); those from ``size`` (R,) on have no meaning.

    Each gene visits each of ``size`` equal strata of its range exactly once.
    """
    keys, places = (draws.own(one) for one in draws.uniform(generation, SHUFFLES, most, d))
    spare = torch.arange(most, device=size.device)[:, None] >= size[:, None, None]
    strata = keys.masked_fill(spare, 2.0).argsort(1)  # a permutation of 0 to size - 1 stands first
    return (strata + places) / size.clamp(min=1)[:, None, None]


def remutated(
    draws: Draws,
    generation: int,
    genes: Tensor,
    runs: Tensor,
    rows: Tensor,
    controls: Tensor,
    attempt: int,
    mutation: str,
) -> Tensor:
    """Return mutants (n, d) of genomes that repeat a known one, at least one gene of each moved.

    Parameters
    ----------
    draws : Draws
    generation : int
    genes : float (n, d)
    runs, rows : int64 (n,)
        Where they stand.
    controls : float (R, 12)
        In natural units.
    attempt : int
        From 0 on; with each the steps are longer and more genes take one, as in ``ga.operators.remutate``.
    mutation : str
        As in ``ga.variation.Variation``, one of :data:`BREEDS`.
    """
    d, controls = genes.shape[1], controls[runs]

    def at(pair: int) -> tuple[Tensor, Tensor]:
        return draws.uniform_at(generation, AGAIN + 3 * attempt + pair, runs, rows, d)

    mutates, forced = at(0)
    rate = controls[:, _RATE, None].clamp(min=attempt / MAX_TRIES)
    step = (controls[:, _STEP, None] * 4.0**attempt).clamp(max=0.5)
    certain = torch.arange(d, device=genes.device) == index(forced[:, :1], d)
    moves = step * _unit_moves(_moves(at(1), at(2), mutation), controls[:, _TAIL, None])
    return torch.where((mutates < rate) | certain, _landed(genes + moves, mutation), genes)


def shuffled_ranks(draws: Draws, generation: int, fitness: Tensor) -> Tensor:
    """Return the rows of populations from best to worst, int64 (R, p); equals stand in random order."""
    chance = draws.own(draws.uniform(generation, ORDER, fitness.shape[1])[0].argsort(1))
    best_first = fitness.gather(1, chance).argsort(dim=1, descending=True, stable=True)
    return chance.gather(1, best_first)


def _weights(
    draws: Draws, generation: int, uniform: Tensor, controls: Tensor, p: int, jitter: bool
) -> tuple[Tensor, Tensor]:
    # F and CR of every place, float (R, p).
    weight, rate = column(controls, "differential_weight"), column(controls, "crossover_rate")
    if not jitter:
        return weight.expand(-1, p), rate.expand(-1, p)
    # A Cauchy number drawn again until F is positive is one from the part of its distribution above 0.
    below = 0.5 - torch.atan(weight / JITTER) / math.pi
    numbers = torch.finfo(weight.dtype)
    place = (below + (1.0 - below) * uniform).clamp(max=1.0 - numbers.eps)
    drawn = (weight + JITTER * cauchy(place)).clamp(numbers.tiny, MAX_WEIGHT)
    noise = draws.own(normal(*draws.uniform(generation, RATES, p)))
    return drawn, (rate + JITTER * noise).clamp(0.0, 1.0)


def _moves(
    widths: tuple[Tensor, Tensor], pair: tuple[Tensor, Tensor], mutation: str
) -> tuple[Tensor, Tensor, Tensor]:
    # Coin, normal and Cauchy number of each gene; with multiscale both have a width of their own, spread
    # evenly over decades below 1.
    place, coin = widths
    gaussian, heavy = normal(*pair), cauchy(pair[1]).clamp_(-MAX_STEP, MAX_STEP)
    if mutation == "gaussian_cauchy":
        return coin, gaussian, heavy
    width = torch.pow(10.0, -DECADES * place)
    return coin, width * gaussian, width * heavy


def _landed(genes: Tensor, mutation: str) -> Tensor:
    # Mutants that crossed a wall: Gaussian and Cauchy steps are folded back, those of multiscale stop there.
    return folded(genes) if mutation == "gaussian_cauchy" else genes.clamp_(0.0, 1.0)


def _unit_moves(moves: Iterable[Tensor], tail: Tensor) -> Tensor:
    # Mutations for a step of 1; one of the two shapes is used, so they may share their numbers.
    coin, gaussian, heavy = moves
    return torch.where(coin < tail, heavy, gaussian)


def _rows(pool: Tensor, rows: Tensor) -> Tensor:
    return pool.gather(1, rows[..., None].expand(-1, -1, pool.shape[2]))
