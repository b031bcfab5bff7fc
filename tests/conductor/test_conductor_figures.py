"""What is drawn is what was handed in; the pictures themselves are looked at by people."""

from io import BytesIO

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.collections import PolyCollection

from conductor import figures
from ga.controls import CONTROL_NAMES

US, THEM = "conductor", "tuned static"
NAMED = {"subject": US, "reference": THEM}
X = np.linspace(0.1, 1.0, 5)
LEVELS = {"random search": 3.0, THEM: 2.0, "bandit": 1.5, US: 1.0}
CURVES = {name: level - X for name, level in LEVELS.items()}
RNG = np.random.default_rng(0)
PLACES = RNG.uniform(0.2, 0.8, (6, 9, 12))


@pytest.fixture
def drawn(monkeypatch):
    """The figure that a function draws, before it is saved."""

    def draw(function, *data, **options):
        kept = []
        monkeypatch.setattr(figures, "_save", lambda figure, path: kept.append(figure))
        function(*data, None, "title", **options)
        (figure,) = kept
        return figure

    return draw


def lines(axes):
    return {
        line.get_label(): (np.asarray(line.get_xdata()), np.asarray(line.get_ydata()))
        for line in axes.get_lines()
    }


def texts(axes):
    return [text.get_text() for text in axes.texts]


# Groups that are alike.


def test_groups_that_are_alike_are_the_published_ones():
    # Demsar (2006), section 3.2.2: at 5 % nobody differs; at 10 % C4.5 is worse than two, and C4.5+cf
    # belongs to both groups.
    ranks = np.array([1.964, 2.000, 2.893, 3.143])
    assert figures.alike(ranks, 1.25) == [(0, 3)]
    assert figures.alike(ranks, 1.12) == [(0, 2), (2, 3)]
    assert figures.alike(ranks, 0.01) == []
    assert figures.alike(ranks, np.nan) == []


@given(st.lists(st.floats(1.0, 9.0), min_size=1, max_size=9), st.floats(0.0, 5.0))
def test_two_contestants_share_a_group_exactly_when_they_are_close(ranks, difference):
    ranks = np.sort(ranks)
    groups = figures.alike(ranks, difference)
    for i in range(len(ranks)):
        for j in range(i + 1, len(ranks)):
            joined = any(first <= i and j <= last for first, last in groups)
            assert joined == (ranks[j] - ranks[i] <= difference)


# A race.


def test_mean_ranks_are_written_at_their_places(drawn):
    ranks = {US: 1.2, THEM: 2.4, "random search": 3.9, "bandit": 2.5}
    (axes,) = drawn(figures.critical_difference, ranks, 1.55, note="24 functions", **NAMED).axes
    shown = " ".join(texts(axes))
    for name, rank in ranks.items():
        assert name in shown
        assert f"{rank:.2f}" in shown
        assert any(line.get_xdata()[0] == rank for line in axes.get_lines() if len(line.get_xdata()) == 3)
    assert "critical difference 1.55" in shown
    assert "24 functions" in shown
    bars = [line for line in axes.get_lines() if line.get_linewidth() == 3.0]
    reached = [(round(bar.get_xdata()[0], 1), round(bar.get_xdata()[1], 1)) for bar in bars]
    assert reached == [(1.2, 2.5), (2.4, 3.9)]
    assert "critical" not in " ".join(texts(drawn(figures.critical_difference, ranks, np.nan).axes[0]))


def test_intervals_are_colored_by_what_they_say(drawn):
    found = {"better": (-1.0, -1.5, -0.5), "undecided": (-1.0, -2.5, 0.5), "worse": (1.0, 0.5, 1.5)}
    (axes,) = drawn(figures.differences, found, **NAMED).axes
    bars = [line for line in axes.get_lines() if len(line.get_xdata()) == 2 and line.get_linewidth() >= 2.0]
    assert [tuple(bar.get_xdata()) for bar in bars] == [(-1.5, -0.5), (-2.5, 0.5), (0.5, 1.5)]
    assert [bar.get_color() for bar in bars] == [figures.SUBJECT, figures.SPREAD, figures.WORSE]


def test_every_contestant_has_its_curve_and_its_style(drawn):
    (axes,) = drawn(figures.target_ecdf, {name: (X, c) for name, c in CURVES.items()}, **NAMED).axes
    found = lines(axes)
    assert set(found) == set(LEVELS)
    for name, (x, y) in found.items():
        assert np.array_equal(x, X)
        assert np.array_equal(y, CURVES[name])
    styles = {line.get_label(): (line.get_color(), line.get_linestyle()) for line in axes.get_lines()}
    assert len(set(styles.values())) == len(LEVELS)
    assert styles[US][0] == figures.SUBJECT
    assert styles[THEM][0] == figures.REFERENCE


def test_two_dozen_contestants_are_told_apart():
    many = [f"contestant {i}" for i in range(24)]
    styles = [(one["color"], one["ls"]) for _, one in figures._styles(dict.fromkeys(many), "", "")]
    assert len(set(styles)) == 24


def test_differences_from_the_reference_stand_below_the_curves(drawn):
    against = {
        name: (curve - CURVES[THEM], curve - CURVES[THEM] - 0.1, curve - CURVES[THEM] + 0.1)
        for name, curve in CURVES.items()
        if name != THEM
    }
    above, below = drawn(figures.best_so_far, X, CURVES, against=against, **NAMED).axes
    assert np.array_equal(lines(above)[US][1], CURVES[US])
    assert any(np.allclose(line.get_ydata(), -1.0) for line in below.get_lines())
    (band,) = [one for one in below.collections if isinstance(one, PolyCollection)]  # of the subject alone
    heights = band.get_paths()[0].vertices[:, 1]
    assert (heights.min(), heights.max()) == pytest.approx((-1.1, -0.9))
    assert len(drawn(figures.best_so_far, X, CURVES, **NAMED).axes) == 1


def test_the_profile_is_drawn_as_it_is(drawn):
    (axes,) = drawn(figures.performance_profile, X, CURVES, **NAMED).axes
    assert np.array_equal(lines(axes)["bandit"][1], CURVES["bandit"])


def test_clusters_are_sorted_and_counted(drawn):
    gains = {"f1": (0.5, 0.2, 0.8), "f2": (-1.0, -1.2, -0.8), "f3": (-0.1, -0.4, 0.2), "f4": (0.0, 0.0, 0.0)}
    (axes,) = drawn(figures.cluster_bars, gains).axes
    assert [label.get_text() for label in axes.get_xticklabels()] == ["f2", "f3", "f4", "f1"]
    assert [bar.get_height() for bar in axes.patches] == [-1.0, -0.1, 0.0, 0.5]
    assert "2 better, 1 worse of 4" in axes.get_title(loc="left")


# A conductor at work.


def test_each_control_has_its_mean_its_band_and_the_line_it_starts_from(drawn):
    start = np.linspace(0.1, 0.9, 12)
    axes = drawn(figures.control_trajectories, PLACES, reference=start).axes
    assert [one.get_title(loc="left") for one in axes] == [name.replace("_", " ") for name in CONTROL_NAMES]
    for j, one in enumerate(axes):
        dashed, mean = one.get_lines()
        assert dashed.get_ydata()[0] == start[j]
        assert np.allclose(mean.get_ydata(), PLACES[:, :, j].mean(axis=0))
        assert mean.get_xdata().tolist() == list(range(1, 10))
        heights = one.collections[0].get_paths()[0].vertices[:, 1]
        assert heights.max() == pytest.approx(np.quantile(PLACES[:, :, j], 0.9, axis=0).max())


def test_runs_that_ended_early_do_not_count_any_more(drawn):
    places = PLACES.copy()
    places[:3, 5:] = np.nan
    places[:, 8:] = np.nan
    (mean,) = drawn(figures.control_trajectories, places).axes[0].get_lines()
    assert mean.get_ydata()[6] == pytest.approx(places[3:, 6, 0].mean())
    assert len(mean.get_ydata()) == 8


def test_groups_of_runs_are_told_apart(drawn):
    figure = drawn(figures.control_trajectories, {"ranging": PLACES[:3], "trending": PLACES[3:]})
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["ranging", "trending"]
    assert len(figure.axes[0].get_lines()) == 2


def test_training_is_drawn_with_its_lowest_validation_marked(drawn):
    rows = [
        {"generation": g, "mean": -0.01 * g, "validation": v, "step": 0.9**g}
        for g, v in enumerate([0.0, None, -0.2, float("nan"), -0.1])
    ]
    main, below = drawn(figures.training_curves, rows, others={"step": "step size"}).axes
    found = lines(main)
    assert found["mean of the candidates, training tasks"][1].tolist() == [row["mean"] for row in rows]
    x, y = found["validation tasks"]  # gaps are bridged
    assert (x.tolist(), y.tolist()) == ([0, 2, 4], [0.0, -0.2, -0.1])
    assert texts(main) == ["lowest: -0.200"]
    assert len(below.get_lines()[0].get_xdata()) == 5


def test_losses_can_be_drawn_without_a_baseline(drawn):
    rows = [{"epoch": e, "train": 1.0 / (e + 1), "held_out": 1.1 / (e + 1)} for e in range(4)]
    (axes,) = drawn(
        figures.training_curves, rows, x="epoch", baseline=None, lowest="held_out", label="loss"
    ).axes
    assert axes.get_xlabel() == "epoch"
    assert set(lines(axes)) >= {"training rows", "held-out rows"}
    assert texts(axes) == ["lowest: +0.275"]


# What a conductor reads.


def test_the_largest_importances_are_drawn_and_the_rest_is_counted(drawn):
    values = {f"feature_{i}": float(i) for i in range(30)}
    (axes,) = drawn(figures.importances, values, most=5).axes
    assert [label.get_text() for label in axes.get_yticklabels()] == [
        f"feature {i}" for i in range(29, 24, -1)
    ]
    assert [bar.get_width() for bar in axes.patches] == [29.0, 28.0, 27.0, 26.0, 25.0]
    assert "the first 5 of 30" in axes.get_title(loc="left")
    (axes,) = drawn(figures.importances, {"a": (1.0, 0.5, 1.5)}).axes
    assert any(list(line.get_xdata()) == [0.5, 1.5] for line in axes.get_lines())


@pytest.mark.parametrize("shape", [(8, 8), (3, 8, 8), (6, 4, 8)])
def test_attention_is_drawn_map_by_map_and_nothing_where_nothing_was_read(drawn, shape):
    weights = RNG.dirichlet(np.ones(shape[-1]), shape[:-1])
    weights[..., 0, :] = np.nan
    figure = drawn(figures.attention_map, weights)
    maps = weights.reshape(-1, *shape[-2:])
    images = [axes.images[0].get_array() for axes in figure.axes if axes.images]
    assert len(images) == len(maps)
    for image, one in zip(images, maps, strict=True):
        assert np.array_equal(image.filled(np.nan), one, equal_nan=True)


def test_probes_stand_beside_guessing(drawn):
    probes = {
        "raw inputs": {"logistic": (0.9, 0.85, 0.95), "k-NN": (0.8, 0.7, 0.9)},
        "extractor": {"logistic": (0.34, 0.3, 0.4)},
    }
    (axes,) = drawn(figures.probe_accuracies, probes, 1 / 3, chance_band=(0.28, 0.39)).axes
    heights = [bar.get_height() for bar in axes.patches if bar.get_width() < 1.0]
    assert sorted(heights) == [0.34, 0.8, 0.9]
    assert lines(axes)["guessing"][1][0] == 1 / 3


def test_pictures_are_png_files_wherever_they_go(tmp_path):
    file = BytesIO()
    figures.cluster_bars({"f1": (0.1, 0.0, 0.2)}, file, "title")
    assert file.getvalue().startswith(b"\x89PNG")
    figures.cluster_bars({"f1": (0.1, 0.0, 0.2)}, tmp_path / "bars.png", "title")
    assert (tmp_path / "bars.png").read_bytes().startswith(b"\x89PNG")
