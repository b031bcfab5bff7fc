"""All planted bugs, and the list of the guarantees that they must cover.

Every guarantee test has a negative control; this is the one of the whole suite. The list is the minimum of
planted bugs that the guarantees of the project name, each in their words. A bug beyond the list names the
guarantee it would break instead.
"""

from tests.mutants.conducting import CONDUCTING
from tests.mutants.forecasting import FORECASTING
from tests.mutants.judging import JUDGING
from tests.mutants.learning import LEARNING
from tests.mutants.mutant import Mutant
from tests.mutants.searching import SEARCHES
from tests.mutants.trading import TRADING
from tests.mutants.validating import VALIDATING

PLANTED: tuple[Mutant, ...] = (
    *TRADING, *JUDGING, *LEARNING, *SEARCHES, *CONDUCTING, *FORECASTING, *VALIDATING,
)  # fmt: skip

LISTED = (
    "fill at signal close",
    "stop before open on gap",
    "target before stop",
    "exit fee missing",
    "entry fee twice",
    "fee on notional without leverage",
    "slippage wrong sign on shorts",
    "funding sign",
    "funding at open bar",
    "funding missed at boundary",
    "liquidation ignored",
    "liquidation on close only",
    "lot floor → round",
    "min notional ignored",
    "short P&L sign",
    "reversal without closing fee",
    "equity marks at open",
    "drawdown from running cash",
    "Sharpe ddof 0",
    "252 for crypto",
    "CAGR by periods",
    "DSR excess kurtosis",
    "DSR annual SR",
    "N from population size",
    "PBO ties",
    "PBO IS/OOS swapped",
    "purge off by one",
    "embargo on wrong side",
    "scaler fit on all",
    "HMM smoothed",
    "refit one bar early",
    "warm-up shorter than memory",
    "RNG not saved",
    "generation repeated",
    "worker-dependent seed",
    "checkpoint written in place",
    "NaN treated as False in a limit",
    "limit checked after send",
    "duplicate client id accepted",
    "kill flag lost on restart",
)

#: What has no code to plant the bug in yet, and why. Whoever writes that code moves the line.
NOT_YET = {
    "limit checked after send": "live trading sends no orders yet",
    "duplicate client id accepted": "live trading sends no orders yet",
    "kill flag lost on restart": "live trading has no kill switch yet",
}
