"""What all routes share: one error shape, the headers of every answer, and no input that breaks anything."""

from __future__ import annotations

import gzip
import json
import socket
from collections.abc import Iterator

import pytest
import requests
import sqlalchemy as sa
from hypothesis import given
from hypothesis import strategies as st

import tables
from config.settings import Config
from db import Database, database_url
from tests.support.gateway import JSON, Gateway, check_headers, new_derived_key, read_all, refusal_of

POSTS = ["/register", "/login", "/api/auth/refresh", "/api/auth/logout"]
POSTS += [f"/admin/pool/{change}" for change in ("enable", "disable", "rotate")]
PAGES = {"/register", "/login"}  # where GET shows a page
GETS = ["/api/auth/kdf", "/api/health", "/admin/pool"]
FIELDS = ["username", "derived_key", "refresh_token"]


@pytest.fixture(scope="module")
def http() -> Iterator[requests.Session]:
    with requests.Session() as session:
        yield session


def rows(gateway: Gateway) -> dict[str, int]:
    """How many rows each table of the gateway's database has, but for those that are written in the background."""
    db = Database(database_url(Config(data_dir=gateway.settings["DATA_DIR"])))
    with db.reading() as tx:
        count = sa.select(sa.func.count())
        found = {
            name: tx.scalar(count.select_from(table))
            for name, table in tables.metadata.tables.items()
            if name not in {"refusal_sums", "alert_rounds"}
        }
    db.close()
    return found


@pytest.fixture
def writes_nothing(gateway: Gateway) -> Iterator[None]:
    before = rows(gateway)
    yield
    assert rows(gateway) == before


@pytest.mark.parametrize("path", ["/register", "/login", "/api/auth/refresh"])
def test_a_field_given_twice_is_refused(gateway, writes_nothing, path):
    """One reader would take the first, and another the last."""
    body = b'{"username":"twice","derived_key":"%b","user\\u006eame":"other"}' % new_derived_key().encode()
    answer = requests.post(gateway.url + path, data=body, headers=JSON, timeout=30)
    assert "'username' twice" in refusal_of(answer)


# ── the shape


def test_every_answer_has_its_own_id_and_is_neither_sniffed_nor_kept(gateway):
    account = {"username": "headers", "derived_key": new_derived_key()}
    answers = [gateway.get(path) for path in [*GETS, "/nowhere", "/login"]]
    answers += [gateway.post(path, account) for path in [*POSTS, "/register", "/v1/chat/completions"]]
    answers += [requests.options(gateway.url + "/login", timeout=30), requests.head(gateway.url + "/", timeout=10)]
    for answer in answers:
        check_headers(answer)
    assert len({answer.headers["X-Request-Id"] for answer in answers}) == len(answers)


@pytest.mark.parametrize(
    "path", ["/nowhere", "/login/", "/api", "/api/auth", "/admin", "/static/x", "/%ff%00", "/.env"]
)
def test_a_path_that_leads_nowhere_is_a_404(gateway, path):
    answer = gateway.get(path)
    assert answer.status_code == 404
    assert refusal_of(answer).startswith("There is nothing at this path")


@pytest.mark.parametrize("path", POSTS)
@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "PATCH", "TRACE", "BREW"])
def test_another_method_is_a_405_that_names_the_right_one(gateway, http, path, method):
    answer = http.request(method, gateway.url + path, timeout=30)
    taken = "GET, HEAD, OPTIONS, POST" if path in PAGES else "OPTIONS, POST"
    if method in taken:
        assert (answer.status_code, answer.headers["Content-Type"]) == (200, "text/html; charset=utf-8")
        return
    assert answer.status_code == 405
    assert refusal_of(answer) == f"This path takes {taken} only"
    assert answer.headers["Allow"] == taken


@pytest.mark.parametrize("path", GETS)
def test_what_is_only_read_cannot_be_posted_to(gateway, path):
    answer = gateway.post(path, {})
    assert answer.status_code == 405
    assert answer.headers["Allow"] == "GET, HEAD, OPTIONS"
    refusal_of(answer)


@pytest.mark.parametrize("path", GETS)
def test_a_head_is_a_get_without_its_body(gateway, path):
    answer = requests.head(gateway.url + path, timeout=30)
    assert answer.status_code == gateway.get(path).status_code
    assert answer.content == b""


# ── bodies


@pytest.mark.parametrize("path", POSTS[:3])
@pytest.mark.parametrize(
    "kind", ["text/plain", "application/x-www-form-urlencoded", "application/jsonp", "", "é", "json"]
)
def test_a_body_that_is_not_said_to_be_json_is_a_415(gateway, writes_nothing, path, kind):
    answer = gateway.post(path, data=b"{}", headers={"Content-Type": kind.encode("latin-1")})
    assert answer.status_code == 415
    assert "Content-Type: application/json" in refusal_of(answer)


def test_a_body_without_any_type_is_a_415(gateway):
    answer = gateway.post("/login", data=b"{}")
    assert answer.status_code == 415
    refusal_of(answer)


@pytest.mark.parametrize("kind", ["application/json", "APPLICATION/JSON", "application/json; charset=utf-8"])
def test_json_may_be_announced_in_any_usual_way(gateway, kind):
    answer = gateway.post("/login", data=b"{}", headers={"Content-Type": kind})
    assert "username" in refusal_of(answer)


@pytest.mark.parametrize("encoding", ["gzip", "br", "identity, gzip", "x"])
def test_a_compressed_body_is_a_415(gateway, writes_nothing, encoding):
    body = gzip.compress(json.dumps({"username": "x", "derived_key": new_derived_key()}).encode())
    answer = gateway.post("/register", data=body, headers=JSON | {"Content-Encoding": encoding})
    assert answer.status_code == 415
    assert "uncompressed" in refusal_of(answer)


def chunks(size: int) -> Iterator[bytes]:
    while size > 0:
        yield b" " * min(size, 8192)
        size -= 8192


@pytest.mark.parametrize("path", POSTS)
@pytest.mark.parametrize("chunked", [False, True], ids=["length", "chunked"])
def test_a_body_that_is_too_large_is_a_413(gateway, writes_nothing, path, chunked):
    answer = gateway.post(path, data=chunks(65_537) if chunked else b" " * 65_537, headers=JSON)
    assert answer.status_code == 413
    assert refusal_of(answer) == "The body may have at most 65536 bytes"


@pytest.mark.parametrize("chunked", [False, True], ids=["length", "chunked"])
def test_the_largest_body_is_accepted(gateway, chunked):
    answer = gateway.post("/login", data=chunks(65_536) if chunked else b" " * 65_536, headers=JSON)
    assert "not valid JSON" in refusal_of(answer)


MALFORMED = {
    "empty": b"",
    "cut": b'{"username":',
    "two": b"{} {}",
    "not UTF-8": b'{"username":"\xff"}',
    "UTF-16": '{"username":"x"}'.encode("utf-16"),
    "byte-order mark": b"\xef\xbb\xbf{}",
    "deep list": b"[" * 30_000,
    "deep object": b'{"a":' * 10_000 + b"1" + b"}" * 10_000,
    "not a number": b'{"username":NaN}',
    "half a pair": b'{"username":"\\ud800"}',
    "single quotes": b"{'username':'x'}",
    "comment": b"{} // x",
    "NUL": b"\0",
}


@pytest.mark.parametrize("path", POSTS[:3])
@pytest.mark.parametrize("body", MALFORMED.values(), ids=MALFORMED)
def test_a_body_that_is_not_json_is_a_400(gateway, writes_nothing, path, body):
    answer = gateway.post(path, data=body, headers=JSON)
    assert answer.status_code == 400
    assert refusal_of(answer) == "The body is not valid JSON (UTF-8, not too deeply nested)"


@pytest.mark.parametrize("body", [[], "text", 7, True, None, [{"username": "x"}], 1e308])
@pytest.mark.parametrize("path", POSTS[:3])
def test_json_that_is_no_object_is_a_400(gateway, writes_nothing, path, body):
    answer = gateway.post(path, data=json.dumps(body), headers=JSON)
    assert answer.status_code == 400
    assert refusal_of(answer) == "The body must be a JSON object"


@pytest.mark.parametrize(
    "head",
    [
        b"Content-Length: 10",
        b"Content-Length: -1",
        b"Content-Length: x",
        b"Content-Length: 99999999999999999999",
        b"Content-Length: 2\r\nContent-Length: 3",
        b"Transfer-Encoding: chunked\r\nContent-Length: 2",
        b"Transfer-Encoding: x",
    ],
)
def test_a_body_of_another_length_than_announced_is_refused(gateway, writes_nothing, head):
    with socket.create_connection(("127.0.0.1", gateway.port), timeout=30) as connection:
        connection.sendall(b"POST /login HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n%s\r\n\r\n{}" % head)
        connection.shutdown(socket.SHUT_WR)
        answer = read_all(connection)
    assert not answer or answer.split()[1][:1] == b"4" or answer.split()[1] == b"501"
    assert gateway.get("/api/health").status_code == 200


# ── anything at all

any_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(codec="utf-8"), max_size=80),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=8,
)
any_object = st.dictionaries(st.sampled_from([*FIELDS, "is_admin", "id", ""]), any_json)


@pytest.mark.parametrize("path", POSTS)
@given(body=any_json | any_object)
def test_no_json_whatever_is_more_than_a_refusal(gateway, http, path, body):
    refusal_of(http.post(gateway.url + path, data=json.dumps(body), headers=JSON, timeout=30))


@pytest.mark.parametrize("path", POSTS)
@given(body=st.binary(max_size=200) | st.text().map(lambda text: text.encode(errors="replace")))
def test_no_bytes_whatever_are_more_than_a_refusal(gateway, http, path, body):
    refusal_of(http.post(gateway.url + path, data=body, headers=JSON, timeout=30))


@given(st.text(st.characters(codec="latin-1", exclude_characters="\r\n\0", exclude_categories=["Cc"]), max_size=200))
def test_no_authorization_whatever_is_more_than_a_refusal(gateway, http, text):
    for value in (text, f"Bearer {text}"):
        answer = http.post(
            gateway.url + "/api/auth/logout", headers={"Authorization": value.strip().encode("latin-1")}, timeout=10
        )
        assert answer.status_code == 401
        refusal_of(answer)


def test_after_all_that_nothing_has_been_taken_for_a_fault_of_ours(gateway):
    assert "unexpected_error" not in gateway.log()
    assert "Traceback" not in gateway.log()
