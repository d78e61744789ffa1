"""The files of pages: those of the folder and no others, compressed, under addresses that change with them."""

from __future__ import annotations

import gzip
import hashlib

import pytest
from flask import Flask

from web import http
from web.pages.static_files import FOLDER, asset, files, routes

app = Flask("files", static_folder=None)
http.register(app)
app.register_blueprint(routes)


def test_every_file_is_there_as_it_is_and_compressed():
    assert "pages.css" in files()
    assert "vendor/vendor.json" not in files()
    for name, one in files().items():
        assert one.content == (FOLDER / name).read_bytes()
        assert gzip.decompress(one.compressed) == one.content
        assert asset(name) == f"/static/{name}?{hashlib.sha256(one.content).hexdigest()[:16]}"


def test_who_takes_no_gzip_gets_the_file_itself():
    client = app.test_client()
    plain = client.get("/static/pages.css", headers={"Accept-Encoding": "identity"})
    packed = client.get("/static/pages.css", headers={"Accept-Encoding": "gzip, br"})
    assert plain.data == gzip.decompress(packed.data) == files()["pages.css"].content
    assert packed.headers["Content-Encoding"] == "gzip"
    assert "Content-Encoding" not in plain.headers
    assert plain.headers["ETag"] != packed.headers["ETag"]
    assert {answer.headers["Vary"] for answer in (plain, packed)} == {"Accept-Encoding"}
    assert plain.headers["Content-Type"].startswith("text/css")


@pytest.mark.parametrize(("query", "is_kept"), [("right", True), ("", False), ("0123456789abcdef", False)])
def test_only_the_address_with_the_right_hash_is_kept_for_long(query, is_kept):
    found = files()["pages.js"]
    answer = app.test_client().get(f"/static/pages.js?{query.replace('right', found.hash)}")
    assert ("immutable" in answer.headers["Cache-Control"]) == is_kept
    assert answer.headers["Content-Type"].startswith("text/javascript")


def test_a_name_that_is_none_raises():
    with pytest.raises(KeyError):
        asset("../app.py")
