"""A server on the loopback that stands for those of external series, and waits that take no time."""

import pytest

from tests.market.web_stub import Waits, fresh_stub, serving


@pytest.fixture(scope="module")
def server():
    with serving() as running:
        yield running


@pytest.fixture
def stub(server):
    return fresh_stub(server)


@pytest.fixture
def waits():
    return Waits()
