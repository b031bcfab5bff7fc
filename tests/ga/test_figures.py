"""What is drawn is what the log says; the pictures themselves are looked at by people."""

import math
from io import BytesIO

import numpy as np
import pytest
from matplotlib.collections import LineCollection, PolyCollection

from ga import figures
from ga.controls import CONTROL_NAMES, CONTROL_RANGES
from ga.progress import OPERATORS, STATISTIC_NAMES

G = 12


def row(generation, island=None, **changes):
    made = generation > 0
    found = {
        "generation": generation,
        "best": 1.0 + 0.1 * generation + (island or 0),
        "median": 0.5 + 0.1 * generation,
        "diversity": 0.3 / (1 + generation),
        **dict.fromkeys(STATISTIC_NAMES, 0.25),
        **{
            name: bounds.low + 0.5 * (bounds.high - bounds.low) if made else math.nan
            for name, bounds in CONTROL_RANGES.items()
        },
    }
    return found | ({} if island is None else {"island": island}) | changes


ROWS = [row(g) for g in range(G)]
ISLANDS = [row(g, island) for g in range(G) for island in (0, 1)]


@pytest.fixture
def drawn(monkeypatch):
    """The figure that a function draws, before it is saved."""

    def draw(function, *arguments):
        kept = []
        monkeypatch.setattr(figures, "_save", lambda figure, path: kept.append(figure))
        function(*arguments, None, "title")
        (figure,) = kept
        return figure

    return draw


def lines(axes):
    return {line.get_label(): (line.get_xdata(), line.get_ydata()) for line in axes.get_lines()}


def test_best_median_and_diversity_are_drawn_generation_by_generation(drawn):
    fitness, diversity = drawn(figures.fitness_curve, ROWS).axes
    for label in ("best", "median"):
        x, y = lines(fitness)[label]
        assert x.tolist() == list(range(G))
        assert y.tolist() == [one[label] for one in ROWS]
    (line,) = diversity.get_lines()
    assert line.get_ydata().tolist() == [one["diversity"] for one in ROWS]


def test_of_islands_each_is_drawn_and_the_best_of_all(drawn):
    fitness, _ = drawn(figures.fitness_curve, ISLANDS).axes
    found = lines(fitness)
    assert len(fitness.get_lines()) == 5
    assert found["best of each island"][1].tolist() == [one["best"] for one in ISLANDS[::2]]
    assert found["best of all"][1].tolist() == [one["best"] for one in ISLANDS[1::2]]


def test_a_search_without_a_valid_genome_is_drawn(drawn):
    bad = [row(g, best=-math.inf, median=-math.inf) for g in range(3)]
    fitness, _ = drawn(figures.fitness_curve, bad).axes
    assert np.isnan(lines(fitness)["best"][1]).all()


def test_the_fitness_axis_holds_every_best_and_most_medians(drawn):
    rows = [row(0, median=-1e6), *(row(g) for g in range(1, G))]
    low, high = drawn(figures.fitness_curve, rows).axes[0].get_ylim()
    assert low < min(one["best"] for one in rows)
    assert high > max(one["best"] for one in rows)
    assert low > -1e5


def test_operators_are_drawn_with_their_success_and_their_use(drawn):
    rows = [row(g, mutation_success=g / 20, duplicate_share=g / 50) for g in range(G)]
    success, use, repeats = drawn(figures.operators_and_repeats, rows).axes
    found = lines(success)
    assert set(OPERATORS) <= set(found)
    raw = [line.get_ydata() for line in success.get_lines()]
    assert any(list(y) == [g / 20 for g in range(1, G)] for y in raw)
    assert found["mutation"][1][-1] == pytest.approx(np.mean([g / 20 for g in range(G - 5, G)]))
    assert lines(repeats)["repeated, mutated again"][1].tolist() == [g / 50 for g in range(1, G)]
    assert len(use.collections) == len(OPERATORS)


def test_use_is_what_the_controls_ask_for_unless_it_was_counted():
    def mean(**columns):
        return lambda name: np.array([columns.get(name, np.nan)])

    asked = mean(differential_rate=0.4, crossover_rate=0.5, immigrant_fraction=0.1)
    shares = np.array(figures._use(asked)).ravel()
    assert shares == pytest.approx([0.9 * 0.6 * 0.5, 0.9 * 0.6 * 0.5, 0.9 * 0.4, 0.1])
    assert shares.sum() == pytest.approx(1.0)
    trials = dict(zip((f"{name}_trials" for name in OPERATORS), (1.0, 2.0, 5.0, 0.0), strict=True))
    counted = np.array(figures._use(mean(**trials, differential_rate=0.4))).ravel()
    assert counted == pytest.approx([0.125, 0.25, 0.625, 0.0])


def test_an_operator_that_was_not_used_shows_no_success(drawn):
    rows = [row(g, differential_rate=0.0) for g in range(G)]
    success, *_ = drawn(figures.operators_and_repeats, rows).axes
    assert np.isnan(lines(success)["differential"][1]).all()
    assert np.isfinite(lines(success)["crossover"][1]).all()


def panel_curves(figure):
    (axes,) = figure.axes
    return next(c for c in axes.collections if isinstance(c, LineCollection)).get_segments()


def test_every_control_is_drawn_in_its_range(drawn):
    rows = [
        row(g, **{name: bounds.low if g < 6 else bounds.high for name, bounds in CONTROL_RANGES.items()})
        for g in range(G)
    ]
    figure = drawn(figures.control_values, rows)
    curves = panel_curves(figure)
    assert len(curves) == len(CONTROL_NAMES)
    for curve in curves:
        places = curve[:, 1] - curve[0, 1]
        assert places == pytest.approx([0.0] * 5 + [1.0] * 6, abs=1e-9)
        assert np.ptp(curve[:, 0]) == pytest.approx(1.0)
    texts = [text.get_text() for text in figure.axes[0].texts]
    assert {name.replace("_", " ") for name in CONTROL_NAMES} <= set(texts)
    assert "0.004 to 1, log" in texts
    assert "title, generations 1 to 11" in texts


def test_a_logarithmic_control_is_drawn_on_its_scale(drawn):
    middle = math.sqrt(0.004)  # between 0.004 and 1
    figure = drawn(figures.control_values, [row(g, mutation_rate=middle) for g in range(G)])
    assert panel_curves(figure)[0][:, 1] % 1.0 == pytest.approx(0.5)


def test_islands_have_a_curve_each_in_every_panel(drawn):
    assert len(panel_curves(drawn(figures.control_values, ISLANDS))) == 2 * len(CONTROL_NAMES)


def test_genes_are_drawn_by_median_and_bands(drawn):
    names = [f"gene_{j}" for j in range(5)]
    quantiles = np.sort(np.random.default_rng(0).random((G, 7, 5)), axis=1)
    quantiles[3] = np.nan
    figure = drawn(figures.gene_distribution, quantiles, names, np.zeros(5), np.ones(5))
    curves = panel_curves(figure)
    known = np.delete(np.arange(G), 3)
    assert len(curves) == 5
    for j, curve in enumerate(curves):
        assert curve[:, 0] - curve[0, 0] == pytest.approx(known / (G - 1))
        assert curve[:, 1] == pytest.approx(quantiles[known, 3, j])
    areas = [c for c in figure.axes[0].collections if isinstance(c, PolyCollection)][1].get_paths()
    assert len(areas) == 15
    assert areas[0].vertices[: known.size, 1] == pytest.approx(quantiles[known, 0, 0])


def test_of_very_many_genes_and_generations_the_picture_stays_small(drawn):
    d = figures.MOST_PANELS + 5
    quantiles = np.sort(np.random.default_rng(0).random((3000, 7, d)), axis=1)
    figure = drawn(figures.gene_distribution, quantiles, [f"g{j}" for j in range(d)], np.zeros(d), np.ones(d))
    curves = panel_curves(figure)
    assert len(curves) == figures.MOST_PANELS
    assert {len(curve) for curve in curves} == {figures.POINTS}
    assert curves[0][-1, 1] == quantiles[-1, 3, 0]  # the latest generation is among them
    assert any("the first 60 of 65 genes" in text.get_text() for text in figure.axes[0].texts)


@pytest.mark.parametrize("rows", [ROWS[:1], ROWS[:2], ROWS, ISLANDS])
def test_every_picture_is_a_png_and_the_same_one_each_time(rows, tmp_path):
    quantiles = np.sort(np.random.default_rng(0).random((len(rows), 7, 3)), axis=1)
    for function, arguments in (
        (figures.fitness_curve, (rows,)),
        (figures.operators_and_repeats, (rows,)),
        (figures.control_values, (rows,)),
        (figures.gene_distribution, (quantiles, ["a", "b", "c"], np.zeros(3), np.ones(3))),
    ):
        files = [BytesIO(), BytesIO()]
        for file in files:
            function(*arguments, file, "title")
        assert files[0].getvalue().startswith(b"\x89PNG")
        assert files[0].getvalue() == files[1].getvalue()
    figures.fitness_curve(rows, tmp_path / "fitness.svg", "title")
    assert b"<svg" in (tmp_path / "fitness.svg").read_bytes()
