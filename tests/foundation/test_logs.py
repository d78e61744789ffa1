"""The log: one line an event, JSON or readable, with the request's id, and no secret in it whatever is logged."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import re
import threading
from collections.abc import Callable, Iterator

import argon2
import jwt
import pytest
from cryptography.fernet import Fernet
from hypothesis import given
from hypothesis import strategies as st

from foundation import logs
from foundation.logs import REDACTED, event, redact
from tests.support.rows import each_row

Lines = Callable[[], list[str]]


@pytest.fixture
def restored() -> Iterator[None]:
    """Logging as it was before, afterwards: set_up() is meant for once in a process."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    levels = {name: logging.getLogger(name).level for name in ("urllib3", "alembic", "werkzeug")}
    switches = {name: getattr(logging, name) for name in SWITCHES}
    known = set(logs._known_values)
    pattern, marks = logs._secret, logs._marks
    token = logs.request_id.set("")  # other tests may have left theirs in this thread
    yield
    logs.request_id.reset(token)
    root.handlers[:], root.level = handlers, level
    root.setLevel(level)
    for name, one in levels.items():
        logging.getLogger(name).setLevel(one)
    for name, switch in switches.items():
        setattr(logging, name, switch)
    logs._known_values.clear()
    logs._known_values.update(known)
    logs._secret, logs._marks = pattern, marks


SWITCHES = ("_srcfile", "logThreads", "logProcesses", "logMultiprocessing")
log = logging.getLogger("tests")


def lines_of(as_json: bool) -> Lines:
    """Set logging up, and return what gives the lines since then."""
    with contextlib.redirect_stderr(io.StringIO()) as written:
        logs.set_up("INFO", as_json=as_json, secrets=["known canary one"])
    return lambda: written.getvalue().split("\n")[:-1]


@pytest.fixture
def json_lines(restored: None) -> Lines:
    return lines_of(as_json=True)


@pytest.fixture
def readable_lines(restored: None) -> Lines:
    return lines_of(as_json=False)


# ── the lines


def test_a_json_line_holds_time_level_logger_event_and_fields(json_lines):
    event(log, "key_minted", key="gw/1", usable=3, cost=0.25, none=None)
    (line,) = json_lines()
    parsed = json.loads(line)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", parsed.pop("at"))
    assert parsed == {
        "level": "INFO",
        "logger": "tests",
        "event": "key_minted",
        "key": "gw/1",
        "usable": 3,
        "cost": 0.25,
        "none": None,
    }


def test_a_readable_line_holds_the_same_in_one_glance(readable_lines):
    event(log, "key_minted", key="gw/1", usable=3, none=None)
    (line,) = readable_lines()
    assert re.fullmatch(r"\d\d:\d\d:\d\d\.\d{3}Z INFO    key_minted key=gw/1 usable=3", line)


def test_a_line_carries_the_id_of_the_request_that_it_belongs_to(json_lines):
    token = logs.request_id.set("0123abcd")
    try:
        event(log, "during")
        event(log, "about_another", request_id="ffff")
    finally:
        logs.request_id.reset(token)
    event(log, "after")
    during, about_another, after = map(json.loads, json_lines())
    assert during["request_id"] == "0123abcd"
    assert about_another["request_id"] == "ffff"
    assert "request_id" not in after


def test_an_exception_stays_within_its_json_line(json_lines):
    try:
        raise ValueError("first\nsecond sk-or-v1-0123456789abcdef")
    except ValueError:
        log.exception("unexpected_error")
    (line,) = json_lines()
    parsed = json.loads(line)
    assert parsed["exception"].startswith("Traceback")
    assert parsed["exception"].endswith(f"ValueError: first\nsecond {REDACTED}")


def test_an_exception_follows_its_readable_line(readable_lines):
    try:
        raise ValueError("Bearer abcdefgh12345")
    except ValueError:
        log.exception("unexpected_error")
    lines = readable_lines()
    assert lines[0].endswith("ERROR   unexpected_error")
    assert lines[-1] == f"ValueError: Bearer {REDACTED}"


def test_what_libraries_log_has_the_same_form(json_lines):
    logging.getLogger("urllib3.connectionpool").warning("Retrying %s", "https://user:geheim@host/")
    (line,) = json_lines()
    assert json.loads(line)["event"] == f"Retrying https://{REDACTED}@host/"


def test_events_below_the_level_are_not_logged(json_lines):
    event(log, "detail", logging.DEBUG)
    logging.getLogger("urllib3").info("Starting new connection")
    assert json_lines() == []


AWKWARD = [
    "line\nbreak",
    'quote " and \\ backslash',
    "\udc80 half of a pair",
    "\u2028",
    "\x00",
    2**70,
    float("nan"),
    float("inf"),
    b"\xff",
    {1: {"a": ("\udfff", -(2**64))}},
    {("a", 1): 1},
    {"Bearer abcdefgh12345": 1},
    object(),
    ValueError("x"),
    [[[[]]]],
    {1, 2},
]


@pytest.mark.parametrize("value", AWKWARD, ids=lambda value: ascii(value)[:20])
def test_every_value_makes_one_line_of_valid_json(json_lines, value):
    event(log, "awkward", value=value, list=[value], secret="sk-or-v1-0123456789abcdef")
    event(log, "awkward", value=value)
    lines = json_lines()
    assert [json.loads(line, parse_constant=pytest.fail)["event"] for line in lines] == ["awkward", "awkward"]
    assert json.loads(lines[0])["secret"] == REDACTED
    assert "abcdefgh12345" not in "".join(lines)


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)


@given(st.dictionaries(st.text(st.characters(codec="utf-8")), values, max_size=4))
def test_any_fields_make_one_line_of_valid_json(restored, fields):
    record = logging.LogRecord("tests", logging.INFO, "", 0, "an_event", None, None)
    record.fields = {f"field_{name}": value for name, value in fields.items()}
    line = logs._Formatter(as_json=True).format(record)
    assert "\n" not in line
    assert json.loads(line)["event"] == "an_event"


# ── what looks like a secret


SECRETS = {
    "OpenRouter key": "sk-or-v1-" + "0123456789abcdef" * 4,
    "client key": "sk-auto-Zm9vYmFyYmF6cXV4",
    "API token": "or_api_Zm9vYmFyYmF6cXV4",
    "operator token": "or_op_Zm9vYmFyYmF6cXV4",
    "JSON web token": jwt.encode({"sub": "7"}, "k" * 32, "HS256"),
    "Argon2 hash": argon2.PasswordHasher(1, 8, 1).hash("x"),
    "Fernet ciphertext": Fernet(Fernet.generate_key()).encrypt(b"x").decode(),
}


@each_row("secret", SECRETS.values(), ids=SECRETS)
@each_row("around", ["{}", "a {} b", 'key="{}"', "[{}]", "\n{}\n", '{{"k":"{}"}}', "{} {}"])
def test_each_kind_of_secret_is_redacted_wherever_it_stands(secret, around):
    assert redact(around.format(secret, secret)) == around.format(REDACTED, REDACTED)


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER", "bEaReR"])
def test_a_bearer_is_redacted_in_any_case(scheme):
    assert redact(f"Authorization: {scheme} QWxhZGRpbjpvcGVu==") == f"Authorization: {scheme} {REDACTED}"


@pytest.mark.parametrize("user", ["root", "", "a.b-c"])
def test_user_and_password_in_a_url_are_redacted(user):
    assert redact(f"mysql+pymysql://{user}:s%2Fcret@db:3306/x") == f"mysql+pymysql://{REDACTED}@db:3306/x"


@pytest.mark.parametrize("text", ["https://openrouter.ai:443/api/v1", "a bearer of news", "sk-or-", "eyJ", "gAAAA", ""])
def test_harmless_text_stays_as_it_is(text):
    assert redact(text) == text


@each_row("pattern", logs.SECRET_PATTERNS)
def test_whatever_matches_a_pattern_is_found_by_the_quick_look(pattern):
    # A look-behind has no text of its own: give it what it looks for.
    written_out = re.sub(r"\(\?<=([^)]*)\)", r"\1", pattern)
    written_out = re.sub(r"\(\?=([^)]*)\)", r"\1", written_out)

    @given(st.from_regex(written_out), st.text(max_size=5))
    def check(text, more):
        if re.search(pattern, text):
            assert logs._may_hold_secret(text + more)
            assert redact(text) != text

    check()


@given(st.text(), st.sampled_from(sorted(SECRETS.values())), st.text())
def test_no_text_around_a_secret_brings_it_out(before, secret, after):
    assert secret not in redact(f"{before} {secret} {after}")


# ── known values


def test_a_known_value_is_redacted_wherever_it_stands(json_lines):
    event(log, "known canary one", path="/known canary one/x", deep={"a": ["known canary one"]}, n=1)
    log.error("says %s", "known canary one")
    assert "canary" not in "".join(json_lines())


@pytest.mark.parametrize(
    "secret", ['quo"te-and-\\slash', "tab\tand\nline", "umläut-pässword", "nabcdefgh", "****canary"]
)
def test_a_known_value_is_redacted_though_json_writes_it_differently(json_lines, secret):
    logs.hide_values([secret])
    event(log, "an_event", value=f"before {secret} after", untouched="\nabcdefgh")
    (line,) = json_lines()
    assert json.loads(line)["value"] == f"before {REDACTED} after"
    assert json.loads(line)["untouched"] == "\nabcdefgh"


def test_a_known_value_that_begins_another_leaves_no_rest_of_it(json_lines):
    logs.hide_values(["canary-long", "canary-long-and-longer"])
    assert redact("canary-long-and-longer canary-long") == f"{REDACTED} {REDACTED}"


def test_values_too_short_to_be_secrets_are_not_hidden(json_lines):
    logs.hide_values(["root", ""])
    assert redact("the root of it") == "the root of it"


def test_readable_lines_are_redacted_too(readable_lines):
    event(log, "an_event", value="known canary one", key=SECRETS["OpenRouter key"])
    assert readable_lines()[0].endswith(f"an_event value={REDACTED} key={REDACTED}")


# ── writing


def test_lines_of_many_threads_are_all_written_whole(restored):
    lines = lines_of(as_json=True)
    threads = [threading.Thread(target=lambda: [event(log, "busy", number=n) for n in range(200)]) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [json.loads(line)["event"] for line in lines()] == ["busy"] * 4000
