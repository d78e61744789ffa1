"""Which URLs and addresses an upstream may have: a table of what people have tried elsewhere."""

from __future__ import annotations

from ipaddress import IPv4Address, ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.rows import each_row
from upstream.safe_address import UnsafeAddress, check_address, check_url, is_public

GOOD = {
    "https://api.openai.com/v1": ("https://api.openai.com/v1", "api.openai.com", 443),
    "https://api.openai.com/v1/": ("https://api.openai.com/v1", "api.openai.com", 443),
    "HTTPS://API.OpenAI.com:443/v1": ("https://api.openai.com/v1", "api.openai.com", 443),
    "https://models.example:8443": ("https://models.example:8443", "models.example", 8443),
    "https://8.8.8.8/v1": ("https://8.8.8.8/v1", "8.8.8.8", 443),
    "https://[2606:4700:4700::1111]/v1": ("https://[2606:4700:4700::1111]/v1", "2606:4700:4700::1111", 443),
    "https://[::ffff:8.8.8.8]:8443/v1": ("https://[::ffff:8.8.8.8]:8443/v1", "::ffff:8.8.8.8", 8443),
    "https://xn--bcher-kva.example/v1/x_y~z.1": (
        "https://xn--bcher-kva.example/v1/x_y~z.1",
        "xn--bcher-kva.example",
        443,
    ),
}
BAD = [
    # not https
    "http://api.openai.com/v1",
    "ftp://api.openai.com/v1",
    "file:///etc/passwd",
    "gopher://api.openai.com/",
    "//api.openai.com/v1",
    "api.openai.com/v1",
    "",
    # inner addresses, in every spelling
    "https://127.0.0.1/v1",
    "https://127.1/v1",
    "https://2130706433/v1",
    "https://0x7f000001/v1",
    "https://0x7f.0.0.1/v1",
    "https://0177.0.0.1/v1",
    "https://017700000001/v1",
    "https://127.0.0.1./v1",
    "https://0.0.0.0/v1",
    "https://0/v1",
    "https://10.1.2.3/v1",
    "https://172.16.0.1/v1",
    "https://192.168.1.1/v1",
    "https://100.64.1.1/v1",
    "https://169.254.169.254/latest/meta-data",
    "https://168.63.129.16/v1",
    "https://100.100.100.200/v1",
    "https://224.0.0.1/v1",
    "https://255.255.255.255/v1",
    "https://[::1]/v1",
    "https://[::]/v1",
    "https://[::ffff:127.0.0.1]/v1",
    "https://[::ffff:a9fe:a9fe]/v1",
    "https://[::127.0.0.1]/v1",
    "https://[64:ff9b::a9fe:a9fe]/v1",
    "https://[64:ff9b:1::1]/v1",
    "https://[2002:7f00:1::]/v1",
    "https://[2001:0:53aa:64c::1]/v1",
    "https://[fe80::1]/v1",
    "https://[fe80::1%25eth0]/v1",
    "https://[fd00:ec2::254]/v1",
    "https://[ff02::1]/v1",
    # another host than the one that is seen
    "https://api.openai.com@127.0.0.1/v1",
    "https://api.openai.com:secret@evil.example/v1",
    "https://@evil.example/v1",
    "https://api.openai.com\\@127.0.0.1/v1",
    "https://api.openai.com#@127.0.0.1/v1",
    "https://api.openai.com?@127.0.0.1/v1",
    "https:///v1",
    "https://:443/v1",
    "https://[]/v1",
    "https://[127.0.0.1]/v1",
    "https://[v1.fe80::a]/v1",
    "https://host..example/v1",
    "https://-host.example/v1",
    "https://h\u00f6st.example/v1",
    "https://\u2460.example/v1",
    "https://host.example\r\nX: y/v1",
    "https://ho\tst.example/v1",
    # ports
    "https://host.example:0/v1",
    "https://host.example:/v1",
    "https://host.example:65536/v1",
    "https://host.example:-1/v1",
    "https://host.example:4_43/v1",
    # paths that lead elsewhere
    "https://host.example/v1/../admin",
    "https://host.example/%2e%2e/admin",
    "https://host.example//evil.example/v1",
    "https://host.example/v1;x",
    "https://host.example/v1?key=1",
    "https://host.example/v1#x",
    "https://host.example/" + "v" * 1000,
]


@each_row("url", GOOD)
def test_public_https_urls_pass_in_their_plain_form(url):
    assert check_url(url, allow_private=False) == GOOD[url]


@each_row("url", BAD)
def test_every_other_url_is_refused_with_what_is_accepted(url):
    with pytest.raises(UnsafeAddress, match=r"^it must|^its "):
        check_url(url, allow_private=False)


@pytest.mark.parametrize("url", ["http://127.0.0.1:11434/v1", "http://llama.internal/v1", "https://[fd12::7]/v1"])
def test_the_environment_can_let_private_and_http_upstreams_in(url):
    assert check_url(url, allow_private=True)[0] == url
    with pytest.raises(UnsafeAddress):
        check_url(url, allow_private=False)


@each_row(
    "url",
    [
        "http://169.254.169.254/v1",
        "http://[::ffff:169.254.169.254]/v1",
        "http://[fd00:ec2::254]/v1",
        "http://100.100.100.200/v1",
        "http://168.63.129.16/v1",
        "http://0.0.0.0/v1",
        "http://[::]/v1",
        "http://224.0.0.1/v1",
        "http://127.1/v1",
        "http://user@10.0.0.1/v1",
    ],
)
def test_but_never_where_clouds_hand_out_credentials_nor_odd_spellings(url):
    with pytest.raises(UnsafeAddress):
        check_url(url, allow_private=True)


@given(st.ip_addresses(v=4))
def test_ipv4_within_ipv6_counts_as_what_it_leads_to(address):
    number = int(address)
    for begin in ("::ffff:0:0", "64:ff9b::"):
        assert is_public(str(ip_address(int(ip_address(begin)) | number))) == is_public(str(address))
    assert is_public(str(ip_address((0x2002 << 112) | number << 80))) == is_public(str(address))


@given(st.ip_addresses())
def test_no_address_is_public_that_python_calls_private_or_local(address):
    if is_public(str(address)):
        unwrapped = getattr(address, "ipv4_mapped", None) or address
        is_translated = not isinstance(unwrapped, IPv4Address) and str(address).startswith("64:ff9b::")
        assert is_translated or not (unwrapped.is_private or unwrapped.is_loopback or unwrapped.is_link_local)
        check_address(str(address), allow_private=False)
