"""Bugs in what validates: the leak detector, the ensemble's members and blenders, its folds, the evidence."""

from tests.mutants.mutant import Mutant

BLENDERS = "tests/ensemble/test_blenders.py"
COMBINATORIAL = "tests/market/test_combinatorial.py"
CPCV = "tests/ensemble/test_cpcv.py"
EVIDENCE = "tests/ensemble/test_evidence.py"
FOLDS = "tests/ensemble/test_folds.py"
GLUING = "tests/ensemble/test_gluing.py"
IDLE = "tests/ensemble/test_idle_account.py"
LEAKS = "tests/leaks/test_leak_detector.py"
ONLINE = "tests/ensemble/test_online.py"
PERMUTATION = "tests/ensemble/test_permutation.py"
SIZING = "tests/ensemble/test_sizing.py"
SOURCES = "tests/ensemble/test_sources.py"
SPLITS = "tests/market/test_splits.py"
STACKING = "tests/ensemble/test_stacking.py"
STRATEGY = "tests/ensemble/test_strategy.py"
WEIGHTING = "tests/ensemble/test_weighting.py"
WINDOWS = "tests/ensemble/test_windows.py"

VALIDATING = (
    # The leak detector.
    Mutant(
        "stamp-as-old-as-the-embargo-believed",
        "L6",
        "market/leaks.py",
        "- last <= embargo",
        "- last < embargo",
        (f"{LEAKS}::test_the_embargo_lies_between_what_taught_and_what_is_answered",),
    ),
    Mutant(
        "answer-at-the-cut-not-compared",
        "L1",
        "market/leaks.py",
        "stop = cut + 1 + delay",
        "stop = cut + delay",
        (
            f"{LEAKS}::test_a_planted_leak_is_found[shift(-1)]",
            f"{LEAKS}::test_what_acts_inside_its_row_must_be_known_before_it_and_the_rest_need_not",
        ),
    ),
    Mutant(
        "series-cut-off-when-it-happened",
        "L5",
        "market/poisons.py",
        "np.searchsorted(series.available_at, moment,",
        "np.searchsorted(series.event_time, moment,",
        (f"{LEAKS}::test_inputs_are_cut_when_their_values_became_known",),
    ),
    Mutant(
        "series-altered-after-it-happened",
        "L2",
        "market/poisons.py",
        "np.searchsorted(given.available_at, moment,",
        "np.searchsorted(given.event_time, moment,",
        (f"{LEAKS}::test_a_value_that_has_happened_and_is_not_published_is_altered_with_the_future",),
    ),
    # Members.
    Mutant(
        "forecaster-answers-the-row-it-was-trained-through",
        "L6",
        "ensemble/sources.py",
        'np.searchsorted(features.time, fitted.trained_through, side="right")',
        'np.searchsorted(features.time, fitted.trained_through, side="left")',
        (f"{SOURCES}::test_rows_that_taught_it_have_no_answer",),
    ),
    Mutant(
        "window-kept-a-row-short",
        "L4",
        "ensemble/sources.py",
        "lookback - 1, 1)) :]",
        "lookback - 2, 1)) :]",
        (f"{SOURCES}::test_one_row_at_a_time_changes_no_bit[lstm_4h]",),
    ),
    Mutant(
        "answer-held-a-bar-less",
        "B2",
        "ensemble/sources.py",
        "for lag in range(1, hold):",
        "for lag in range(1, hold - 1):",
        (f"{SOURCES}::test_an_answer_stands_for_as_many_bars_as_its_horizon_has",),
    ),
    Mutant(
        "held-answers-forgotten-between-chunks",
        "L4",
        "ensemble/sources.py",
        "self._said = said[said.size - self.hold + 1 :]",
        "self._said = np.full(self.hold - 1, np.nan)",
        (f"{SOURCES}::test_held_answers_are_the_same_wherever_the_rows_are_cut",),
    ),
    # The strategy.
    Mutant(
        "position-of-the-last-row-that-taught-kept",
        "refit one bar early",
        "ensemble/strategy.py",
        "np.where(bars.time > self.fitted_until, blended, np.nan)",
        "np.where(bars.time >= self.fitted_until, blended, np.nan)",
        (f"{STRATEGY}::test_no_position_of_rows_that_taught_is_kept_into_the_first_that_is_traded",),
    ),
    Mutant(
        "source-heard-on-rows-that-taught-it",
        "L6",
        "ensemble/strategy.py",
        "values[:, j] = np.where(bars.time > source.fitted_until, signal, np.nan)",
        "values[:, j] = signal",
        (f"{STRATEGY}::test_no_row_that_taught_a_part_is_answered",),
    ),
    Mutant(
        "detector-that-may-have-seen-more",
        "L6",
        "ensemble/strategy.py",
        'seen = {"the detector": self.detector.fitted_until, "the blender": self.blender.fitted_until}',
        'seen = {"the blender": self.blender.fitted_until}',
        (f"{STRATEGY}::test_a_part_that_has_seen_more_is_refused",),
    ),
    # Sizes.
    Mutant(
        "volatility-of-the-next-bar",
        "L1",
        "ensemble/kernels.py",
        "moved = math.log(closes[t] / memory[CLOSE])",
        "moved = math.log(closes[min(t + 1, closes.size - 1)] / memory[CLOSE])",
        (f"{SIZING}::test_later_bars_change_nothing_before_them",),
    ),
    Mutant(
        "kelly-paid-before-the-decision-is-over",
        "fill at signal close",
        "ensemble/kernels.py",
        "paid = memory[GATED_2] * (opens[t] / memory[OPEN] - 1.0)",
        "paid = memory[GATED_1] * (opens[t] / memory[OPEN] - 1.0)",
        (f"{SIZING}::test_kelly_learns_from_decisions_that_are_over_and_no_others",),
    ),
    Mutant(
        "every-change-traded-within-the-band-too",
        "B4",
        "ensemble/kernels.py",
        "elif not held * wanted > 0.0 or abs(wanted - held) > settings[BAND]:",
        "else:",
        (f"{SIZING}::test_small_changes_do_not_trade_and_going_flat_or_over_to_the_other_side_does",),
    ),
    # Blenders.
    Mutant(
        "own-returns-paid-a-row-early",
        "L1",
        "ensemble/online.py",
        "decided, before = signals[1 : n + 1], opinions(signals[:n])",
        "decided, before = signals[2 : n + 2], opinions(signals[1 : n + 1])",
        (f"{ONLINE}::test_own_returns_are_net_returns_two_rows_later",),
    ),
    Mutant(
        "rows-of-the-fit-learned-from-again",
        "L6",
        "ensemble/online.py",
        "        if after is not None:\n            net[bars.time <= after] = np.nan\n",
        "",
        (f"{ONLINE}::test_online_goes_on_where_its_fit_ended",),
    ),
    Mutant(
        "blend-credited-with-the-weights-of-a-later-round",
        "B2",
        "ensemble/online.py",
        "own += weights[0, i] * gained[t, i]",
        "own += weights[1, i] * gained[t, i]",
        (f"{ONLINE}::test_weights_of_hedge_are_those_of_a_plain_loop",),
    ),
    Mutant(
        "members-weighed-before-their-costs",
        "B4",
        "ensemble/blenders.py",
        "return (gross - cost * turnover)[",
        "return gross[",
        (
            f"{BLENDERS}::test_net_returns_pay_the_next_open_and_the_turnover",
            f"{WEIGHTING}::test_validated_weighs_after_costs",
        ),
    ),
    Mutant(
        "held-out-block-learned-from-at-its-edges",
        "purge off by one",
        "ensemble/weighting.py",
        "others[max(block.start - GAP_ROWS, 0) : block.stop + GAP_ROWS] = False",
        "others[block] = False",
        (f"{WEIGHTING}::test_no_decision_that_reaches_into_a_held_out_block_is_learned_from",),
    ),
    Mutant(
        "returns-in-volatilities-of-the-bars-they-are-made-of",
        "L1",
        "ensemble/weighting.py",
        "squares = np.nan_to_num(known_return(rows.bars)) ** 2",
        "squares = np.nan_to_num(earned(rows.bars)) ** 2",
        (f"{WEIGHTING}::test_returns_are_measured_in_the_volatility_known_at_the_close",),
    ),
    Mutant(
        "meta-learner-that-may-bet-against-a-member",
        "S3",
        "ensemble/stacking.py",
        " bounds=[(0.0, None)] * (s * k),\n",
        "\n",
        (
            f"{STACKING}::test_coefficients_are_those_that_another_solver_finds",
            f"{STACKING}::test_nobody_counts_against_the_own_signal[logistic]",
        ),
    ),
    Mutant(
        "stack-taught-by-the-open-before-the-decision",
        "fill at signal close",
        "ensemble/stacking.py",
        "opens[horizon + 1 :] / opens[1:-horizon] - 1.0",
        "opens[horizon:-1] / opens[: -horizon - 1] - 1.0",
        (f"{STACKING}::test_what_lies_ahead_is_bought_at_the_next_open",),
    ),
    # Folds.
    Mutant(
        "folds-without-an-embargo",
        "L6",
        "ensemble/settings.py",
        '"embargo": self.embargo_bars',
        '"embargo": 0',
        (
            f"{FOLDS}::test_every_fold_learns_chooses_and_answers_in_this_order",
            f"{WINDOWS}::test_two_years_of_hours_are_cut_into_70_15_15",
        ),
    ),
    Mutant(
        "forecasters-trained-beside-the-windows-of-the-folds",
        "L6",
        "ensemble/settings.py",
        '"first_bars": validation',
        '"first_bars": test',
        (f"{WINDOWS}::test_every_judged_row_is_answered_by_a_model_of_the_past_and_a_test_by_one",),
    ),
    Mutant(
        "detector-fitted-on-the-validation-rows-too",
        "L6",
        "ensemble/folds.py",
        ".fit(core[split.train])",
        ".fit(core[split.train.start : split.validation.stop])",
        (f"{FOLDS}::test_no_part_of_a_strategy_was_fitted_on_rows_of_a_later_part",),
    ),
    Mutant(
        "blender-fitted-on-the-rows-that-taught-its-members",
        "L6",
        "ensemble/folds.py",
        "        rows = ground.split.validation\n        members = ",
        "        rows = slice(ground.split.train.stop - len(heard), ground.split.train.stop)\n"
        "        heard = SignalTable(ground.bars.time[rows], heard.values, heard.names)\n        members = ",
        (f"{FOLDS}::test_no_part_of_a_strategy_was_fitted_on_rows_of_a_later_part",),
    ),
    Mutant(
        "scale-of-a-forecaster-from-its-test-rows",
        "L6",
        "ensemble/folds.py",
        "one.answers[split.validation])",
        "one.answers[split.test])",
        (f"{FOLDS}::test_bars_in_the_test_of_a_fold_change_nothing_that_was_fitted",),
    ),
    Mutant(
        "scale-of-a-specialist-from-its-test-rows",
        "L6",
        "ensemble/folds.py",
        "SpecialistSource.scale_of(said[ground.split.train])",
        "SpecialistSource.scale_of(said[ground.split.test])",
        (f"{FOLDS}::test_bars_in_the_test_of_a_fold_change_nothing_that_was_fitted",),
    ),
    Mutant(
        "model-of-a-row-looked-up-a-span-early",
        "refit one bar early",
        "ensemble/forecasts.py",
        "if rows.start <= row < rows.stop:",
        "if rows.start <= row <= rows.stop:",
        (f"{FOLDS}::test_every_answer_of_a_forecaster_is_stamped_earlier_than_its_row",),
    ),
    # Luck.
    Mutant(
        "gaps-that-keep-their-order",
        "B7",
        "ensemble/permutation.py",
        "np.log(opens[1:] / closes[:-1])[rng.permutation(len(values) - 1)]",
        "np.log(opens[1:] / closes[:-1])",
        (f"{PERMUTATION}::test_a_shuffle_that_forgets_the_gaps_or_draws_with_replacement_is_seen",),
    ),
    Mutant(
        "p-without-the-observed-order",
        "B7",
        "ensemble/permutation.py",
        "(sum(one >= self.observed for one in self.found) + 1) / (len(self.found) + 1)",
        "sum(one >= self.observed for one in self.found) / len(self.found)",
        (f"{PERMUTATION}::test_an_edge_in_the_order_of_bars_is_found_and_the_shuffled_bars_have_none",),
    ),
    Mutant(
        "smaller-number-of-trials-counted",
        "N from population size",
        "ensemble/evidence.py",
        "max(trials.n_unique, trials.n_effective, 1.0)",
        "max(trials.n_effective, 1.0)",
        (f"{EVIDENCE}::test_the_larger_of_the_unique_and_the_effective_number_counts",),
    ),
    Mutant(
        "earlier-champions-of-the-test-rows-forgotten",
        "S6",
        "ensemble/evidence.py",
        "champions = looks.others + 1",
        "champions = 1",
        (f"{EVIDENCE}::test_the_skill_of_a_strategy_is_that_of_its_track_record",),
    ),
    # Combinatorial cross-validation.
    Mutant(
        "detector-remembers-tested-groups",
        "L5",
        "ensemble/cpcv.py",
        "probabilities = transform(detector, known)",
        "probabilities = glued.cut(transform(detector, self.core))",
        (f"{CPCV}::test_bars_of_the_tested_groups_change_nothing_that_is_learned",),
    ),
    Mutant(
        "rows-that-taught-are-traded",
        "L5",
        "ensemble/cpcv.py",
        "allowed = np.where(taught, np.nan, blended)",
        "allowed = blended",
        (f"{CPCV}::test_nobody_speaks_on_rows_that_taught_and_nothing_is_held_there",),
    ),
    Mutant(
        "seam-that-jumps",
        "L5",
        "ensemble/gluing.py",
        "made[:, prices] = made[:, prices] / first * before",
        "made[:, prices] = made[:, prices]",
        (f"{GLUING}::test_no_return_appears_at_a_seam_and_none_is_lost_within_a_run",),
    ),
    Mutant(
        "embargo-behind-tested-groups-alone",
        "L5",
        "market/combinatorial.py",
        "widened = slice(max(0, span.start - embargo), span.stop)",
        "widened = slice(span.start, span.stop)",
        (f"{COMBINATORIAL}::test_no_training_row_is_within_the_embargo_of_a_tested_group",),
    ),
    # The verdict.
    Mutant(
        "idleness-praised",
        "S7",
        "ensemble/criteria.py",
        "if _idle(strategy.metrics) and line.figure not in WITHOUT_TRADES:",
        "if False:",
        (f"{IDLE}::test_a_figure_that_idleness_would_meet_is_undefined_without_a_trade[max_drawdown]",),
    ),
    Mutant(
        "label-reaches-into-the-embargo",
        "L6",
        "market/splits.py",
        "reaching = known[start:last] >= time[last]",
        "reaching = known[start:last] >= time[boundary]",
        (f"{SPLITS}::test_walk_forward_folds_are_ordered_contiguous_and_honest",),
    ),
)
