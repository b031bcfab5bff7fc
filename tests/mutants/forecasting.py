"""Bugs in what forecasts: labels and weights, training, quantiles, promotion, tuning, barriers."""

from tests.mutants.mutant import Mutant

BARRIERS = "tests/forecasters/test_barriers.py"
LABELS = "tests/market/test_labels.py"
META = "tests/market/test_meta_labels.py"
PROMOTION = "tests/forecasters/test_promotion.py"
QUANTILES = "tests/forecasters/test_quantiles.py"
SELECTION = "tests/forecasters/test_selection.py"
STUDIES = "tests/experiments/test_studies.py"
TRAINING = "tests/forecasters/test_forecast_training.py"
TUNING = "tests/forecasters/test_tuning.py"
WEIGHTS = "tests/market/test_sample_weights.py"

FORECASTING = (
    # Labels.
    Mutant(
        "label-entered-at-the-signal-close",
        "fill at signal close",
        "market/label_kernels.py",
        "entry = open_[t + 1] if t + 1 < n else math.nan",
        "entry = close[t] if t + 1 < n else math.nan",
        (f"{LABELS}::test_a_position_enters_at_the_next_open_and_leaves_at_the_barrier",),
    ),
    Mutant(
        "label-that-takes-the-target-first",
        "target before stop",
        "market/label_kernels.py",
        "elif down and (side[t] >= 0 or not up):",
        "elif down and (side[t] < 0 or not up):",
        (f"{LABELS}::test_the_stop_comes_first_when_one_bar_touches_both",),
    ),
    Mutant(
        "label-that-gaps-to-its-barrier",
        "stop before open on gap",
        "market/label_kernels.py",
        "outcome, price = -1, open_[s]",
        "outcome, price = -1, lower",
        (f"{LABELS}::test_a_gap_through_a_barrier_pays_the_open_whatever_the_bar_does_then",),
    ),
    Mutant(
        "bet-that-pays-before-its-costs",
        "B4",
        "market/meta_labels.py",
        "(known & (ret > cost))",
        "(known & (ret > 0.0))",
        (f"{META}::test_a_bet_must_earn_more_than_it_costs",),
    ),
    Mutant(
        "crowd-of-labels-that-teach-nobody",
        "L6",
        "market/sample_weights.py",
        "    share = 1.0 / np.maximum(_concurrency(labels, used), 1)\n    start = np.flatnonzero(used)\n"
        "    end = labels.end[start]\n    total = np.cumsum(share)",
        "    share = 1.0 / np.maximum(_concurrency(labels, labels.known), 1)\n"
        "    start = np.flatnonzero(used)\n    end = labels.end[start]\n    total = np.cumsum(share)",
        (
            f"{WEIGHTS}::test_only_the_rows_that_are_used_count",
            f"{WEIGHTS}::test_weights_of_training_rows_do_not_know_the_test",
        ),
    ),
    # Training.
    Mutant(
        "label-that-ends-with-the-first-validated-row",
        "purge off by one",
        "forecasters/training.py",
        "reaching = settled_at[train.start : stop] >= time[stop]",
        "reaching = settled_at[train.start : stop] > time[stop]",
        (f"{TRAINING}::test_no_label_to_fit_on_reaches_the_validation",),
    ),
    Mutant(
        "embargo-of-a-training-not-asked-for",
        "L6",
        "forecasters/training.py",
        "if through >= int(time[test.start]) or test.start - train_stop < embargo:",
        "if through >= int(time[test.start]):",
        (f"{TRAINING}::test_an_embargo_that_was_left_out_stops_the_training",),
    ),
    Mutant(
        "forecaster-scaled-by-rows-it-is-not-fitted-on",
        "scaler fit on all",
        "forecasters/training.py",
        "scaler, dropped = fit_scaler(past, fit)",
        "scaler, dropped = fit_scaler(ground.features[train.start : split.test.stop], slice(None))",
        (f"{TRAINING}::test_a_fold_learns_from_nothing_in_its_test",),
    ),
    Mutant(
        "forecaster-answers-what-it-was-trained-through",
        "refit one bar early",
        "forecasters/fitted.py",
        "if time.size and int(time[0]) <= self.trained_through:",
        "if time.size and int(time[0]) < self.trained_through:",
        (f"{TRAINING}::test_the_row_that_ended_a_training_is_refused_and_the_next_one_answered",),
    ),
    Mutant(
        "columns-chosen-on-all-rows",
        "L6",
        "forecasters/training.py",
        "selected(learn, config",
        "selected(examples_of(ground.features, labels, slice(train.start, split.test.stop), model.lookback, "
        "scaler, labels.known.astype(float), interval_ns=interval), config",
        (f"{SELECTION}::test_a_selection_does_not_change_when_the_test_does_nor_where_it_has_not_come_yet",),
    ),
    Mutant(
        "columns-chosen-on-the-validation-rows-too",
        "L6",
        "forecasters/training.py",
        "selected(learn, config",
        "selected(examples(slice(fit.start, validation.stop)), config",
        (f"{SELECTION}::test_the_validation_rows_do_not_choose_what_they_will_judge",),
    ),
    # Quantiles.
    Mutant(
        "quantiles-of-trees-that-cross",
        "B2",
        "forecasters/boosting.py",
        "return np.sort(quantiles, axis=1)",
        "return quantiles",
        (f"{QUANTILES}::test_trees_that_cross_are_put_in_order",),
    ),
    Mutant(
        "quantiles-that-fall-believed",
        "B2",
        "forecasters/quantiles.py",
        "if not np.isfinite(found).all() or (np.diff(found, axis=1) < 0.0).any():",
        "if not np.isfinite(found).all():",
        (f"{QUANTILES}::test_quantiles_that_fall_or_are_none_are_a_mistake_of_their_author",),
    ),
    Mutant(
        "pinball-loss-of-the-other-tail",
        "S7",
        "forecasters/quantiles.py",
        "np.maximum(level * above, (level - 1.0) * above)",
        "np.maximum((1.0 - level) * above, -level * above)",
        (f"{QUANTILES}::test_the_pinball_loss_is_that_of_scikit_learn_and_least_at_the_quantile",),
    ),
    # Searches, and what they may look at.
    Mutant(
        "sampler-seeded-once",
        "RNG not saved",
        "experiments/studies.py",
        "            study.sampler = self._sampler(number)\n",
        '            self._once = getattr(self, "_once", None) or self._sampler(0)\n'
        "            study.sampler = self._once\n",
        (f"{STUDIES}::test_a_study_that_was_killed_thrice_holds_the_trials_of_one_that_never_was",),
    ),
    Mutant(
        "tuning-that-sees-the-held-out-spans",
        "L6",
        "forecasters/tuning_run.py",
        "prepare(self.selection.bars[: self.first], config.dataset())",
        "prepare(self.selection.bars, config.dataset())",
        (f"{TUNING}::test_other_prices_in_the_held_out_spans_change_no_trial",),
    ),
    Mutant(
        "drawdown-of-a-trial-with-the-wrong-sign",
        "S7",
        "forecasters/tuning.py",
        "drawdown = -max_drawdown(returns) + 0.0",
        "drawdown = max_drawdown(returns) + 0.0",
        (f"{TUNING}::test_the_objective_is_f1_less_the_drawdown_that_is_not_tolerated",),
    ),
    Mutant(
        "barriers-that-see-a-day-after-the-cut",
        "L6",
        "forecasters/barrier_search.py",
        "return bars[: split.train.stop]",
        "return bars[: split.train.stop + 24]",
        (f"{BARRIERS}::test_training_rows_and_the_later_ones_share_no_bar",),
    ),
    Mutant(
        "probe-that-learns-from-open-labels",
        "L6",
        "forecasters/barrier_fitness.py",
        "return max(block.start - horizon, 0)",
        "return block.start",
        (f"{BARRIERS}::test_no_bet_of_the_probe_depends_on_later_bars",),
    ),
    Mutant(
        "guardrail-without-a-figure-kept",
        "NaN treated as False in a limit",
        "forecasters/promotion.py",
        "return math.nan if found is None else float(found)",
        "return 0.0 if found is None else float(found)",
        (f"{PROMOTION}::test_what_is_not_defined_passes_nothing",),
    ),
)
