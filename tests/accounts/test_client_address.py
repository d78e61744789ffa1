"""The client's address: the connection's, and X-Forwarded-For only from those who may say so."""

from __future__ import annotations

import ipaddress

from hypothesis import given
from hypothesis import strategies as st

from accounts.client_address import CACHED_ADDRESSES, FORWARDED_FOR, ClientAddresses
from tests.support.rows import each_row

PROXIES = ("10.0.0.0/8", "fd00::/8")
PROXY = "10.1.2.3"


def found(remote: str, forwarded: str | None = None, trusted: tuple[str, ...] = PROXIES) -> str:
    environ = {"REMOTE_ADDR": remote} | ({} if forwarded is None else {"HTTP_X_FORWARDED_FOR": forwarded})
    return ClientAddresses(trusted).of(environ)


@each_row(
    ("remote", "forwarded", "address"),
    [
        ("192.0.2.7", None, "192.0.2.7"),
        ("192.0.2.7", "198.51.100.1", "192.0.2.7"),  # a stranger says what it likes
        (PROXY, None, PROXY),
        (PROXY, "", PROXY),
        (PROXY, "198.51.100.1", "198.51.100.1"),
        (PROXY, " 198.51.100.1\t", "198.51.100.1"),
        (PROXY, "203.0.113.9, 198.51.100.1", "198.51.100.1"),  # the left one came from the client
        (PROXY, "203.0.113.9,198.51.100.1, 10.9.9.9", "198.51.100.1"),  # two proxies in a row
        (PROXY, "10.9.9.9, 10.8.8.8", "10.9.9.9"),  # a client within the trusted network
        (PROXY, "203.0.113.9, unknown", PROXY),
        (PROXY, "203.0.113.9, 198.51.100.1:4711", "198.51.100.1"),
        (PROXY, '"198.51.100.1:4711"', "198.51.100.1"),
        (PROXY, "198.51.100.1:4711, 10.9.9.9:80", "198.51.100.1"),  # through two proxies that write ports
        (PROXY, "203.0.113.9, 198.51.100.1:", PROXY),
        (PROXY, "203.0.113.9, 198.51.100.1:123456", PROXY),
        (PROXY, "203.0.113.9, 198.51.100.1:http", PROXY),
        (PROXY, '203.0.113.9, "198.51.100.1:4711', PROXY),
        (PROXY, "203.0.113.9, unknown, 10.9.9.9", "10.9.9.9"),
        (PROXY, "203.0.113.9,, 10.9.9.9", "10.9.9.9"),
        (PROXY, "203.0.113.9,", PROXY),
        (PROXY, "198.51.100.01", PROXY),
        (PROXY, "é", PROXY),
        (PROXY, "1" * 8000, PROXY),
        (PROXY, "[2001:db8::1]", "2001:db8::/64"),
        (PROXY, "[2001:db8::1]:443", "2001:db8::/64"),
        (PROXY, '"[2001:db8::1]:443"', "2001:db8::/64"),
        (PROXY, "[::ffff:198.51.100.1]:443", "198.51.100.1"),
        (PROXY, "[2001:db8::1", PROXY),
        (PROXY, "2001:db8::1]:443", PROXY),
        (PROXY, "2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        (PROXY, "::ffff:198.51.100.1", "198.51.100.1"),
        ("::ffff:10.1.2.3", "198.51.100.1", "198.51.100.1"),
        ("::ffff:192.0.2.7", "198.51.100.1", "192.0.2.7"),
        ("fd00::1", "2001:db8::1, fd12:3456::7", "2001:db8::/64"),
        ("2001:db8::7", "198.51.100.1", "2001:db8::/64"),
        ("", None, "unix"),
        ("", "198.51.100.1", "unix"),
    ],
)
def test_the_nearest_address_that_is_no_proxy_counts(remote, forwarded, address):
    assert found(remote, forwarded) == address


@each_row("forwarded", [None, "198.51.100.1", "127.0.0.1", "unix"])
@each_row("remote", ["192.0.2.7", "127.0.0.1", PROXY])
def test_by_default_nobody_is_believed(remote, forwarded):
    assert found(remote, forwarded, ()) == remote


def test_a_unix_socket_is_believed_if_it_is_named():
    assert found("", "203.0.113.9, 198.51.100.1", ("unix",)) == "198.51.100.1"
    assert found("", None, ("unix",)) == "unix"
    assert found("192.0.2.7", "198.51.100.1", ("unix",)) == "192.0.2.7"


def test_a_request_without_an_address_at_all_is_counted_too():
    assert ClientAddresses(()).of({}) == "unix"


@given(st.ip_addresses(v=6), st.integers(0, 2**64 - 1))
def test_a_network_of_64_bits_is_one_person_and_the_next_is_another(address, host):
    if address.ipv4_mapped:
        return
    network = int(address) >> 64
    neighbour = ipaddress.IPv6Address(network << 64 | host)
    if not neighbour.ipv4_mapped:
        assert found(str(address), trusted=()) == found(str(neighbour), trusted=())
    other = ipaddress.IPv6Address((network ^ 1) << 64 | host)
    assert found(str(address), trusted=()) != found(str(other), trusted=())


@given(
    st.lists(st.one_of(st.ip_addresses().map(str), st.sampled_from([PROXY, "fd00::1", "unknown", "", "10.0.0.1"]))),
    st.ip_addresses(v=4),
)
def test_nothing_that_a_client_writes_changes_the_address_that_its_proxy_wrote(made_up, client):
    if client in ipaddress.ip_network("10.0.0.0/8"):
        return
    forwarded = ", ".join([*made_up, str(client)])
    assert found(PROXY, forwarded) == str(client)
    assert found(str(client), forwarded) == str(client)


def test_what_is_remembered_is_bounded():
    addresses = ClientAddresses(())
    for number in range(CACHED_ADDRESSES + 500):
        addresses.of({"REMOTE_ADDR": str(ipaddress.IPv4Address(number))})
    assert addresses._look_up.cache_info().currsize == CACHED_ADDRESSES


def test_the_ports_of_one_address_fill_no_memory():
    addresses = ClientAddresses(PROXIES)
    for port in range(2000):
        environ = {"REMOTE_ADDR": PROXY, "HTTP_X_FORWARDED_FOR": f"198.51.100.1:{port}"}
        assert addresses.of(environ) == "198.51.100.1"
    assert addresses._look_up.cache_info().currsize == 2


def test_a_proxy_that_nobody_trusts_is_told_once(caplog):
    addresses = ClientAddresses(["10.0.0.0/8"])
    caplog.set_level("WARNING", "http")
    claim = {"HTTP_X_FORWARDED_FOR": "203.0.113.9"}
    assert addresses.of({"REMOTE_ADDR": "10.1.2.3"} | claim) == "203.0.113.9"
    assert addresses.of({"REMOTE_ADDR": "192.0.2.7"}) == "192.0.2.7"
    assert addresses.report() == {}
    for remote in ("192.0.2.7", "192.0.2.8", "192.0.2.7"):
        assert addresses.of({"REMOTE_ADDR": remote} | claim) == remote
    assert addresses.report() == {FORWARDED_FOR: {"health": "ok", "reason": "192.0.2.7"}}
    assert sum("forwarded_for_not_believed" in record.getMessage() for record in caplog.records) <= 1
