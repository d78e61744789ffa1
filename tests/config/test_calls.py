"""Settings of OpenRouter, its keys and calls: what is accepted, and what the complaint says."""

from __future__ import annotations

import pytest

from config import sources
from tests.support.rows import each_row
from tests.support.settings import OPENROUTER_KEY, fault, faults

NOT_PLAIN = (
    "openrouter.ai ftp://a https:// https://u:p@a https://a?x=1 https://a#x https://[a https://é https://a:99999"
)


@each_row(
    "url", [*NOT_PLAIN.split(), "https://a:b", "https://a b", "https://a/\nX-Evil:1", "https://a/\tb", "https://a/\x7f"]
)
@each_row("name", ["APP_HOSTNAME", "OPENROUTER_API_URL"])
def test_what_is_not_a_plain_url_is_refused(name, url):
    assert fault(**{name: url}).startswith(f"{name}: must be a URL")


@pytest.mark.parametrize("title", ["My\nApp", "Café", "a\x7fb", "x" * 201])
def test_a_title_that_cannot_travel_in_a_header_is_refused(title):
    assert fault(APP_TITLE=title).startswith("APP_TITLE: ")


@pytest.mark.parametrize(("text", "value"), [("none", None), (" NONE ", None), ("2.5", 2.5), ("10", 10.0)])
def test_the_limit_of_a_key_may_be_none(tmp_path, text, value):
    assert sources.load({"KEY_LIMIT_USD": text, "DATA_DIR": str(tmp_path)}).key_limit_usd == value


@pytest.mark.parametrize("text", ["0", "-1", "nan", "inf", "1e999", "ten"])
def test_a_limit_that_is_no_amount_is_refused(text):
    assert fault(KEY_LIMIT_USD=text).startswith("KEY_LIMIT_USD: ")


@pytest.mark.parametrize("text", ["{0},{1}", " {0} ,, {1}, ", "{0}\n{1}\n", "{0} {1}"])
def test_openrouter_keys_are_separated_by_commas_or_white_space(tmp_path, text):
    keys = [OPENROUTER_KEY, OPENROUTER_KEY[:-8]]
    loaded = sources.load({"OPENROUTER_API_KEYS": text.format(*keys), "DATA_DIR": str(tmp_path)})
    assert [key.get_secret_value() for key in loaded.openrouter_api_keys] == keys


@pytest.mark.parametrize(
    ("name", "good", "bad"),
    [
        ("DEDICATED_KEYS", "on", "yes"),
        ("DEDICATED_KEY_LIMIT_USD", "0.01", "0"),
        ("DEDICATED_KEY_LIMIT_USD", "0.5", "none"),
        ("DEDICATED_KEY_LIMIT_RESET", "none", "hourly"),
        ("DEDICATED_KEY_LIFETIME_DAYS", "1", "0.5"),
    ],
)
def test_users_own_keys_have_a_limit_and_a_life(name, good, bad):
    assert faults(**{name: good}) == []
    assert fault(**{name: bad}).startswith(name)


@each_row(
    "url",
    [
        "https://proxy:3128",
        "socks5://proxy:3128",
        "proxy:3128",
        "http://proxy",
        "http://:3128",
        "http://proxy:3128/path",
        "http://proxy:x",
        "http://app:kZ4#pw9!@proxy:3128",
        "http://app:kZ4 pw9!@proxy:3128",
    ],
)
def test_an_outbound_proxy_is_a_plain_http_url_with_a_port_and_the_complaint_does_not_quote_it(url):
    complaint = fault(OUTBOUND_PROXY=url)
    assert "OUTBOUND_PROXY: must be http://host:port" in complaint
    assert "pw9" not in complaint


@pytest.mark.parametrize("url", ["http://proxy:3128", "http://app:kZ4%40pw9!@10.0.0.7:3128/", "http://[fd00::7]:80"])
def test_an_outbound_proxy_may_have_a_user_and_a_password(url):
    assert faults(OUTBOUND_PROXY=url) == []


@pytest.mark.parametrize("text", ["kZ4-pw9!", "{}", '["kZ4-pw9!"]', '[{"api_key": "kZ4-pw9!"}', "[" * 100_000, "7"])
def test_upstreams_are_a_list_of_objects_and_the_complaint_does_not_quote_them(text):
    complaint = fault(UPSTREAMS=text)
    assert "UPSTREAMS: must be a JSON list of objects" in complaint
    assert "pw9" not in complaint
