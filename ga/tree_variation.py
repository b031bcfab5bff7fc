"""Variation of genomes that begin with a tree: DEAP's tree operators for the tree, arrays for the rest.

The 12 controls keep their meaning. Of an offspring made with a partner, the trees exchange subtrees and the
further genes are blended; of one made with a difference vector the further genes move, and the tree crosses
over with half the ``crossover_rate``; all are mutated, a tree as if each node mutated with
``mutation_rate``. ``mutation_tail`` is the share of wide steps: a new, removed or inserted subtree, where a
small one replaces a node or nudges a constant by ``mutation_step`` of its range.

Further genes alone would make clones of one tree different genomes, and the first good tree would fill the
population with them. Therefore no more than a twentieth of a brood carries trees that say the same.
"""

import math
import random
from operator import attrgetter

import numpy as np
from deap import gp
from deap.base import Toolbox

from ga import operators
from ga import tree_kernels as kernels
from ga.controls import GAControls
from ga.progress import CROSSOVER, DIFFERENTIAL, MUTATION
from ga.trees import GRAFT, LEAVES, TreeSpace
from ga.variation import Variation

#: Share of the children of difference vectors whose trees cross over too, per crossover rate.
EXCHANGES = 0.5
#: Share of a brood that may carry trees which say the same.
CROWD = 0.05
#: How often a variation that changed nothing is tried again.
TRIES = 4


def toolbox(space: TreeSpace, variation: Variation | None = None) -> Toolbox:
    """Return the house's toolbox with ``breed`` and ``remutate`` for trees, and DEAP's operators on one tree.

    Those on one tree draw from Python's global generator, see :func:`ga.operators.python_random`, and keep
    its height and size within the space's limits (``gp.staticLimit``).
    """
    variation = Variation() if variation is None else variation
    box = operators.toolbox(variation)
    symbols = space.vocabulary.primitives
    box.register("graft", gp.genHalfAndHalf, min_=GRAFT[0], max_=GRAFT[1])
    box.register("cross_trees", cross_trees)
    box.register("renew_subtree", gp.mutUniform, expr=box.graft, pset=symbols)
    box.register("insert_node", gp.mutInsert, pset=symbols)
    box.register("shrink", gp.mutShrink)
    box.register("replace_node", gp.mutNodeReplacement, pset=symbols)
    box.register("redraw_constant", gp.mutEphemeral, mode="one")
    box.register("nudge_constant", nudge_constant, space=space)
    for name in ("cross_trees", "renew_subtree", "insert_node"):
        box.decorate(name, gp.staticLimit(len, space.max_nodes))
        box.decorate(name, gp.staticLimit(attrgetter("height"), space.max_height))
    box.register("breed", breed, space=space, variation=variation, box=box)
    box.register("remutate", remutate, space=space, variation=variation, box=box)
    return box


def cross_trees(one: gp.PrimitiveTree, other: gp.PrimitiveTree) -> tuple[gp.PrimitiveTree, gp.PrimitiveTree]:
    """Exchange two subtrees of the same type, mostly inner nodes; the roots stay.

    Trees of height 1 have no inner node to offer and exchange leaves.
    """
    if min(one.height, other.height) < 2:
        return gp.cxOnePoint(one, other)
    return gp.cxOnePointLeafBiased(one, other, termpb=LEAVES)


def nudge_constant(tree: gp.PrimitiveTree, step: float, space: TreeSpace) -> tuple[gp.PrimitiveTree]:
    """Move one constant of a tree by a Gaussian step, at least to the next level.

    Parameters
    ----------
    tree : deap.gp.PrimitiveTree
        Changed in place, as DEAP's operators do.
    step : float
        Standard deviation as a fraction of the range of constants.
    space : TreeSpace
    """
    symbols = space.vocabulary
    places = [i for i, node in enumerate(tree) if symbols.is_constant(node)]
    if places:
        place = random.choice(places)  # noqa: S311
        level = round(tree[place].value * kernels.STEPS)
        moved = level + round(random.gauss(0.0, step * (kernels.LEVELS - 1)))
        if moved == level:
            moved += random.choice((-1, 1))  # noqa: S311
        limit = kernels.ZERO_LEVEL
        moved = min(max(moved, -limit), limit)
        if moved == level:  # at the wall: the only way is back
            moved -= int(math.copysign(1, level))
        tree[place] = symbols.constant(moved)
    return (tree,)


def breed(
    rng: np.random.Generator,
    genes: np.ndarray,
    order: np.ndarray,
    parents: np.ndarray,
    controls: GAControls,
    *,
    space: TreeSpace,
    variation: Variation,
    box: Toolbox,
    archive: np.ndarray | None = None,
) -> operators.Bred:
    """Return one finished offspring per parent; see :func:`ga.operators.breed`, which varies what is no tree.

    A child by mutation alone changes in one place at least, and as often in its tree as the tree has places.
    The partner of a tree is a tournament winner of its own. A tree that was varied and still says the same
    as its parent's, or what too many of the brood say, is varied again before anything is paid for it; what
    remains after some tries is kept.

    Parameters
    ----------
    rng : numpy.random.Generator
    genes : float64 (p, d)
        Of the population.
    order : int64 (p,)
        Its rows from best to worst.
    parents : int64 (m,)
        Row of the parent of each offspring.
    controls : GAControls
    space : TreeSpace
    variation : Variation
        Which recombination and mutation of the genes behind the tree.
    box : deap.base.Toolbox
        Of :func:`toolbox`.
    archive : float64 (a, d), optional
        Replaced individuals, see :func:`ga.operators.breed`.
    """
    m, nodes = parents.size, space.max_nodes
    behind = np.ascontiguousarray(genes[:, nodes:])
    if archive is not None:
        archive = np.ascontiguousarray(archive[:, nodes:])
    further, operator, weight, rate = operators.breed(
        rng, behind, order, parents, controls, variation=variation, archive=archive
    )
    children = np.hstack([genes[parents, :nodes], further])
    programs = space.programs(children)
    sizes = (programs >= 0).sum(axis=1)
    in_tree = (operator == MUTATION) & (rng.random(m) < sizes / (sizes + behind.shape[1]))
    children[in_tree, nodes:] = behind[parents[in_tree]]
    changes = in_tree | (rng.random(m) < 1.0 - (1.0 - controls.mutation_rate) ** sizes)
    mates = (operator == CROSSOVER) | (operator == DIFFERENTIAL) & (
        rng.random(m) < EXCHANGES * controls.crossover_rate
    )
    partners = genes[box.select(rng, order, m, controls.tournament_size)]
    varied = mates | changes
    before = space.semantics(genes[parents])
    rows = np.flatnonzero(varied | _crowded(before, int(CROWD * m)))
    for attempt in range(TRIES):
        trees, others = space.trees(genes[parents[rows]]), space.trees(partners[rows])
        with operators.python_random(rng):
            for i, row in enumerate(rows.tolist()):
                if mates[row]:
                    trees[i], _ = box.cross_trees(trees[i], others[i])
                if changes[row] or not mates[row] or attempt:
                    trees[i] = mutated(trees[i], controls.mutation_tail, controls.mutation_step, box)
        children[rows, :nodes] = space.plant(trees)
        varied[rows] = True
        said = space.semantics(children)
        rows = np.flatnonzero(varied & (said == before).all(axis=1) | _crowded(said, int(CROWD * m)))
        if rows.size == 0:
            break
    return operators.Bred(children, operator, weight, rate)


def _crowded(said: np.ndarray, most: int) -> np.ndarray:
    # Whether at least so many rows before it say the same, bool (m,).
    _, which = np.unique(said, axis=0, return_inverse=True)
    order = np.argsort(which, kind="stable")
    sorted_ = which[order]
    starts = np.searchsorted(sorted_, sorted_, side="left")
    crowded = np.empty(len(said), dtype=bool)
    crowded[order] = np.arange(len(said)) - starts >= max(1, most)
    return crowded


def remutate(
    rng: np.random.Generator,
    genes: np.ndarray,
    controls: GAControls,
    attempt: int,
    *,
    space: TreeSpace,
    variation: Variation,
    box: Toolbox,
) -> np.ndarray:
    """Return mutants (m, d) of genomes that repeat known ones: each tree changes, more with each attempt.

    The genes behind it move too (:func:`ga.operators.remutate`): a tree may change and still say the same.
    """
    nodes = space.max_nodes
    mutants = np.array(genes, dtype=np.float64)
    mutants[:, nodes:] = operators.remutate(rng, mutants[:, nodes:], controls, attempt, variation=variation)
    tail = max(controls.mutation_tail, attempt / operators.MAX_TRIES)
    trees = space.trees(mutants)
    with operators.python_random(rng):
        trees = [mutated(tree, tail, controls.mutation_step, box) for tree in trees]
    mutants[:, :nodes] = space.plant(trees)
    return mutants


def mutated(tree: gp.PrimitiveTree, tail: float, step: float, box: Toolbox) -> gp.PrimitiveTree:
    """Return a tree with one mutation, by Python's global generator.

    Parameters
    ----------
    tree : deap.gp.PrimitiveTree
        May be changed in place.
    tail : float
        Probability of a wide step.
    step : float
        Of constants, as a fraction of their range.
    box : deap.base.Toolbox
        Of :func:`toolbox`.
    """
    before = gp.PrimitiveTree(tree)
    for _ in range(TRIES):
        if random.random() < tail:  # noqa: S311
            name = random.choice(("renew_subtree", "insert_node", "shrink", "redraw_constant"))  # noqa: S311
            (tree,) = getattr(box, name)(tree)
        elif random.random() < 0.5:  # noqa: S311
            (tree,) = box.nudge_constant(tree, step)
        else:
            (tree,) = box.replace_node(tree)
        if tree != before:
            return tree
    (tree,) = box.renew_subtree(tree)  # a single node, or nothing that the small steps could change
    return tree
