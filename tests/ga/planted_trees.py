"""A small space of trees, trees written by hand, and what makes a tree valid: shared by tests of trees."""

import ast

import numpy as np
from deap import gp

from ga import tree_kernels as kernels
from ga.trees import Number, TreeSpace, vocabulary

SIGNALS = ("a", "b", "c", "d", "e")
FURTHER = (("threshold", 0.1, 2.0, "log"), ("hold", 4.0, 48.0, "integer"))
SPACE = TreeSpace.of(SIGNALS, FURTHER)
NODES = SPACE.max_nodes
SYMBOLS = vocabulary(SIGNALS).primitives


def tree_of(text: str) -> gp.PrimitiveTree:
    """Return the tree that DEAP would print as this text."""

    def nodes(part: ast.expr) -> list:
        if isinstance(part, ast.Call):
            return [SYMBOLS.mapping[part.func.id], *(node for one in part.args for node in nodes(one))]
        if isinstance(part, ast.Name):
            return [SYMBOLS.mapping[part.id]]
        return [SPACE.vocabulary.constant(round(ast.literal_eval(part) * kernels.STEPS))]

    return gp.PrimitiveTree(nodes(ast.parse(text, mode="eval").body))


def genome_of(text: str, further=(0.5, 0.5)) -> np.ndarray:
    return np.concatenate([SPACE.plant([tree_of(text)])[0], further])


def check_tree(tree: gp.PrimitiveTree, space: TreeSpace = SPACE) -> None:
    """Check completeness, types, height and size of a tree, by DEAP's description of its nodes."""
    due = [(Number, 0)]
    for node in tree:
        wanted, depth = due.pop()
        assert node.ret is wanted, f"{node.name} where a {wanted.__name__} is due"
        assert depth <= space.max_height, "too high"
        due.extend((kind, depth + 1) for kind in reversed(getattr(node, "args", ())))
    assert not due, "incomplete"
    assert len(tree) <= space.max_nodes, "too large"
    assert tree.height <= space.max_height


def answers(genes: np.ndarray, rows: np.ndarray, space: TreeSpace = SPACE) -> np.ndarray:
    """Return what trees say at each row, float64 (n, p)."""
    out = np.full((len(rows), len(genes)), np.nan)
    kernels.run_programs(space.programs(genes), rows, np.arange(len(rows)), len(space.signals), out)
    return out
