"""Guesses: lists and patterns count for little, chance for much, whatever the length."""

from __future__ import annotations

import secrets

import pytest

from foundation.guesses import guesses_log10


@pytest.mark.parametrize("text", ["", "password", "P@ssw0rd1234", "qwertyuiop", "2026-12-02", "a" * 1000])
def test_what_everybody_tries_withstands_few(text):
    assert guesses_log10(text) < 8


def test_chance_withstands_all_and_length_takes_no_time():
    assert all(guesses_log10(secrets.token_urlsafe(24)) > 20 for _ in range(20))
    assert guesses_log10(secrets.token_hex(50_000)) > 20


def test_what_is_known_of_somebody_is_tried_first():
    name = "xylographer-quokka"
    assert guesses_log10(name, [name]) < 2 < guesses_log10(name)
