"""The folds of a walk-forward joined to one account, beside everything it is compared with."""

from collections.abc import Sequence

import numpy as np

from ensemble.baselines import Trading, baselines, best_forecaster
from ensemble.fold_result import FoldResult
from ensemble.folds import roster_of
from ensemble.settings import ValidateConfig
from ensemble.signals import Blend
from ensemble.validation import Validated
from market.bars import Bars


def joined(
    config: ValidateConfig, bars: Bars, results: Sequence[FoldResult]
) -> tuple[Validated, tuple[float, ...]]:
    """Return the test rows of all folds as one account beside everything it is compared with.

    Returns
    -------
    Validated
    tuple of float
        Annual Sharpe ratios of all random routings.
    """
    roster = roster_of(config)
    rows = slice(results[0].record.test.start, results[-1].record.test.stop)
    blend = Blend.concat([result.blend for result in results])
    trading = Trading(bars, rows, config.sizing, config.costs, config.limits, config.venue, blend.label)
    result = trading.exposure(blend.exposure)
    members = {member.name: trading.signal(blend.signals.column(member.name)) for member in roster}
    rivals = {
        name: trading.exposure(np.concatenate([one.rivals[name] for one in results]))
        for name in results[0].rivals
        if all(name in one.rivals for one in results)  # one that a fold could not fit has no whole account
    }
    found, draws = baselines(trading, results, roster, result)
    found |= best_forecaster(members, roster)
    validated = Validated(
        bars, rows, result, blend, tuple(one.record for one in results), members, rivals, found, roster,
        config.blender.name, config.costs, config.limits, config.venue,
    )  # fmt: skip
    return validated, draws
