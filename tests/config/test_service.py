"""Settings of server, database and network: what is accepted, and what the complaint says."""

from __future__ import annotations

import pytest

from config import sources
from config.settings import Config
from tests.support.settings import PRODUCTION, fault


def test_development_listens_on_the_loopback_production_on_all_addresses():
    assert sources.load(PRODUCTION).listen_host == "0.0.0.0"
    assert sources.load(PRODUCTION | {"HOST": "10.0.0.7"}).listen_host == "10.0.0.7"
    assert Config().listen_host == "127.0.0.1"


@pytest.mark.parametrize(
    "url",
    ["gateway.example.net", "https://x/path", "https://a@x", "https://x?y", "https://x#", "https://x y", "ftp://x"],
)
def test_the_own_address_is_one_without_a_path(url):
    assert "PUBLIC_URL: must be " in fault(PUBLIC_URL=url)


@pytest.mark.parametrize("value", ["10.0.0.1/8", "10.0.0.0/33", "proxy.example.com", "10.0.0.0/8;fd00::/8", "UNIX"])
def test_what_is_no_network_is_refused_with_what_is_accepted(value):
    assert (
        fault(TRUSTED_PROXIES=f"10.0.0.0/8, {value}")
        == "TRUSTED_PROXIES: must hold networks like 10.0.0.0/8, addresses, or `unix`"
    )


def test_trusted_proxies_are_networks_addresses_and_the_unix_socket():
    settings = sources.load({"TRUSTED_PROXIES": "10.0.0.0/8,fd00::/8 192.0.2.7, unix"})
    assert settings.trusted_proxies == ("10.0.0.0/8", "fd00::/8", "192.0.2.7", "unix")
    assert Config().trusted_proxies == ()


def test_the_port_of_redis_is_a_number_and_the_complaint_does_not_quote_the_password():
    complaint = fault(REDIS_URL="redis://:kZ4#pw9!@cache:63x/0")
    assert "REDIS_URL: is not a URL" in complaint
    assert "pw9" not in complaint
