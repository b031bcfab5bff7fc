"""Bugs in what a conductor learns, is judged by, and goes on from."""

from tests.mutants.mutant import Mutant

PILOTING = "tests/conductor/test_piloting.py"
WINDOWS = "tests/conductor/test_windows.py"
STRATEGIES = "tests/conductor/test_strategies.py"
MODEL = "tests/conductor/test_model.py"
REPORT = "tests/conductor/test_race_report.py"
DANN = "tests/conductor/test_dann.py"
STEERING = "tests/conductor/test_steering.py"

CONDUCTING = (
    Mutant(
        "conductor-used-on-bars-it-learned-from",
        "L6",
        "conductor/piloting.py",
        "        if until > opened:\n",
        "        if until > opened and not until:\n",
        (f"{PILOTING}::test_a_conductor_that_has_seen_later_bars_is_refused",),
    ),
    Mutant(
        "detector-of-windows-fitted-on-all-rows",
        "L6",
        "conductor/markets.py",
        "features[pipeline.warmup : first]",
        "features[pipeline.warmup :]",
        (
            f"{WINDOWS}::test_windows_hold_no_row_that_detector_and_scaler_learned_from",
            f"{WINDOWS}::test_nothing_of_a_task_changes_when_bars_after_its_window_change",
        ),
    ),
    Mutant(
        "next-window-beyond-the-asked-time",
        "L6",
        "conductor/windows.py",
        "        if following.stop > market.rows_between(None, self._end).stop:\n",
        "        if following.stop > len(market.bars):\n",
        (f"{WINDOWS}::test_the_next_window_follows_and_ends_with_the_asked_time",),
    ),
    Mutant(
        "regret-with-the-wrong-sign",
        "B2",
        "conductor/windows.py",
        "lambda genes: -known.regret(fitness(genes))",
        "lambda genes: known.regret(fitness(genes))",
        (f"{WINDOWS}::test_regret_is_one_where_a_random_search_ends_and_zero_at_the_best_known",),
    ),
    Mutant(
        "adam-forgotten-by-a-resumed-training",
        "F1",
        "conductor/strategies.py",
        '        self._first, self._second = np.array(state["first"]), np.array(state["second"])\n',
        "",
        (f"{STRATEGIES}::test_a_resumed_fine_tuning_ends_with_the_same_bits",),
    ),
    Mutant(
        "weights-of-a-conductor-not-compared",
        "F3",
        "conductor/model.py",
        '        if hashlib.sha256(content).hexdigest() != document["weights_sha256"]:\n',
        '        if not document["weights_sha256"]:\n',
        (f"{MODEL}::test_a_damaged_conductor_is_refused_in_one_sentence",),
    ),
    Mutant(
        "verdict-from-the-middle-of-the-interval",
        "S3",
        "conductor/race_comparison.py",
        "BETTER if estimate.high < 0.0 else WORSE if estimate.low > 0.0 else UNDECIDED",
        "BETTER if estimate.value < 0.0 else WORSE if estimate.value > 0.0 else UNDECIDED",
        (f"{REPORT}::test_an_interval_that_holds_zero_is_undecided_however_good_its_middle",),
    ),
    Mutant(
        "domain-loss-scaled-by-lambda-too",
        "B2",
        "conductor/variants/dann.py",
        "Reversal.apply(features, self._strength * reversal_at(progress))",
        "Reversal.apply(features, (self._strength * reversal_at(progress)) ** 2)",
        (f"{DANN}::test_the_discriminator_learns_at_full_strength_and_only_the_reversed_gradient_is_scaled",),
    ),
    Mutant(
        "residual-that-moves-controls-at-once",
        "B2",
        "conductor/steering.py",
        "before + self.rate * (target - before)",
        "target",
        (f"{STEERING}::test_controls_stay_in_their_ranges_and_move_by_no_more_than_the_rate",),
    ),
)
