"""A few bars, traded by the kernel and by its plain twin: what is computed by hand binds both alike."""

import pytest

from backtest import kernels
from tests.reference.account import twin
from tests.reference.cases import case_of, run


@pytest.fixture(params=["kernel", "twin"])
def trade(request):
    """Trade a few bars."""

    def traded(bars, targets, **options):
        case = case_of(bars, targets, **options)
        return twin(case) if request.param == "twin" else run(case, kernels.simulate_targets)

    return traded
