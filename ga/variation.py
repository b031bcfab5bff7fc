"""How offspring vary: which recombination and which mutation a run uses.

These are settings of a run and stay put while it lasts; how strongly each of them acts is what the 12
controls say, generation by generation.
"""

from typing import Literal

import pydantic

from configs.load import Config

#: Codes of the recombinations in ``ga.breeding_kernels``, by position; MIXED draws one of the others.
RECOMBINATIONS = ("blend", "sbx", "uniform", "mixed")
#: Codes of the mutations in ``ga.breeding_kernels``, by position.
MUTATIONS = ("gaussian_cauchy", "polynomial", "multiscale")


class Variation(Config):
    """Which operators stand behind the 12 controls.

    Each control keeps its meaning whatever the operator. ``crossover_spread`` is the alpha of ``blend``;
    the distribution index of ``sbx`` is chosen so that children lie as far beyond their parents on average
    as with that alpha; with ``uniform`` it is the share of genes taken from the partner. ``mutation_step``
    is the standard deviation of a step, Gaussian or ``polynomial``, and the largest of the widths of
    ``multiscale``, which are spread evenly over two and a half decades; ``mutation_tail`` is the share of
    Cauchy steps beside any of them. Cauchy steps and difference vectors that cross a wall are folded back;
    steps of ``multiscale`` stop at it, since the best threshold of a rule is often none at all.
    """

    recombination: Literal["blend", "sbx", "uniform", "mixed"] = pydantic.Field(
        "blend",
        description="How two parents are recombined: blend (BLX-alpha), sbx (simulated binary), uniform "
        "(whole genes of either), or mixed (one of the three drawn for each child).",
    )
    mutation: Literal["gaussian_cauchy", "polynomial", "multiscale"] = pydantic.Field(
        "multiscale",
        description="Shape of the steps: Gaussian; polynomial, never beyond a wall; or multiscale, each of "
        "a width of its own, down to a three-hundredth of the step, and stopped by the walls.",
    )
    jitter: bool = pydantic.Field(
        True,
        description="Whether every child of a difference vector draws its own weight and crossover rate "
        "around the controls, as success-history policies need it.",
    )
    archive: bool = pydantic.Field(
        True,
        description="Whether difference vectors may also start from individuals that better ones replaced.",
    )
    rotation: float = pydantic.Field(
        0.0,
        ge=0.0,
        le=1.0,
        description="Times the crossover rate: share of the children of difference vectors that cross over "
        "along the directions in which the population is spread instead of along the genes.",
    )
