"""The file `.env`: values as a shell and docker compose have them, and no line that is passed over in silence."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from flask.cli import load_dotenv

from config import env_file, sources
from tests.support.gateway import environment, run

ENVIRON = {"HOST_NAME": "here", "EMPTY": "", "PORT": "7002"}


def read(tmp_path: Path, text: str, environ: dict[str, str] | None = None) -> tuple[dict[str, str], list[str]]:
    path = tmp_path / "env"
    path.write_bytes(text.encode())
    given = ENVIRON if environ is None else environ
    values, faults = env_file.read(path, given)
    assert all(fault.startswith(f"{path}, line ") for fault in faults)
    own = {name: value for name, value in values.items() if given.get(name) != value}
    return own, [fault.removeprefix(f"{path}, line ") for fault in faults]


@pytest.mark.parametrize(
    ("line", "value"),
    [
        ("A=b", "b"),
        ("A = b c ", "b c"),
        ("export A=b", "b"),
        ("A=b\r", "b"),
        ("A=b # comment", "b"),
        ("A=b#no-comment", "b#no-comment"),
        ("A='b # c' # it's said", "b # c"),
        ('A="b # c" # "d"', "b # c"),
        ("A=", ""),
        ("A", ""),
        ("A=''", ""),
        ("A= # comment", ""),
        # single quotes: as it is
        ("A='pa${x}w0rd'", "pa${x}w0rd"),
        ("A='$HOST_NAME ${HOST_NAME} $(id) `id`'", "$HOST_NAME ${HOST_NAME} $(id) `id`"),
        (r"A='a\nb\\c\d'", r"a\nb\\c\d"),
        (r"A='it\'s'", "it's"),
        ("A='two\nlines'", "two\nlines"),
        ("A='say \"b\"'", 'say "b"'),
        # double quotes: with escapes and variables
        ('A="a${HOST_NAME}b"', "ahereb"),
        (r'A="pa\${x}w0rd"', "pa${x}w0rd"),
        (r'A="a\nb\t\"c\"\\n"', 'a\nb\t"c"\\n'),
        (r'A="\d"', r"\d"),
        ('A="two\nlines"', "two\nlines"),
        # none: with variables
        ("A=a${HOST_NAME}b", "ahereb"),
        (r"A=C:\new\table", r"C:\new\table"),
        ("A=it's", "it's"),
        # variables
        ("A=${EMPTY}", ""),
        ("A=${EMPTY:-b}", "b"),
        ("A=${NOBODY:-}", ""),
        ("A=${NOBODY:-b c}", "b c"),
        ("B=c\nA=${B}d", "cd"),
        ("PORT=7001\nA=${PORT}", "7002"),  # the environment wins
        # without a brace it is a character
        ("A=pa$x-w0rd$", "pa$x-w0rd$"),
        ('A="$HOST_NAME"', "$HOST_NAME"),
    ],
)
def test_values_are_as_in_a_shell_and_in_compose(tmp_path, line, value):
    values, faults = read(tmp_path, f"# first\n\n{line}\n\nLAST=1")
    assert faults == []
    assert (values["A"], values["LAST"]) == (value, "1")


def test_the_mark_that_windows_puts_at_the_begin_is_no_part_of_a_name(tmp_path):
    assert read(tmp_path, "\ufeffA=b\r\nB='c'\r\n") == ({"A": "b", "B": "c"}, [])


@pytest.mark.parametrize(
    "line",
    [
        'A="b',
        "A='b",
        "A='it's'",
        'A="b" c',
        "A: b",
        "A:b",
        "A b",
        "A B=c",
        "'A=b",
        "=b",
        "é=b",
        "<<<<<<< HEAD",
        "rm -r",
    ],
)
def test_a_line_that_cannot_be_read_is_told_with_its_number(tmp_path, line):
    values, faults = read(tmp_path, f"FIRST=1\n\n# comment\n{line}\nLAST=1\n")
    assert faults == ["4: can't be read; write NAME=value, or NAME='value'"]
    assert values == {"FIRST": "1", "LAST": "1"}


@pytest.mark.parametrize("value", ["${NOBODY}", '"${NOBODY}"', "pa${NOBODY}w0rd", "${LATER}", "\\${NOBODY}"])
def test_a_variable_that_nobody_has_set_is_no_empty_text(tmp_path, value):
    _, [fault] = read(tmp_path, f"A={value}\nLATER=1")
    name = "LATER" if "LATER" in value else "NOBODY"
    assert fault == f"1: {name} has no value for `${{{name}}}`; in single quotes that is left as it is"


@pytest.mark.parametrize("value", ["${", "a${b", '"${b"', "${}", "${1}", "${b-c}", "${b:?c}", "${b:+c}", "${a b}"])
def test_a_brace_that_means_something_else_elsewhere_is_refused(tmp_path, value):
    _, [fault] = read(tmp_path, f"\nA={value}")
    assert fault == "2: what follows `${` can't be read; in single quotes it is left as it is"


def test_each_bad_line_is_told_and_none_of_what_stands_there(tmp_path):
    _, faults = read(tmp_path, 'A="hunter2\nB=1\nC: hunter2\nD=${hunter2:+x}\n')
    assert [fault.partition(":")[0] for fault in faults] == ["1", "3", "4"]
    assert "hunter2" not in str(faults)


def test_what_flask_has_read_before_counts_as_read_here(tmp_path, monkeypatch):
    """`flask --app app ...` puts the file into the environment by itself, with what is in single quotes replaced."""
    path = tmp_path / "env"
    path.write_text("DB_HOST=h\nDB_PASSWORD='pa${x}w0rd'\nAPP_TITLE=file\nPORT=7001\nDB_USER=${PORT}\n")
    for name in ("DB_HOST", "DB_PASSWORD", "PORT", "DB_USER"):
        monkeypatch.setenv(name, "")  # so that what is set below is taken back
        monkeypatch.delenv(name)
    monkeypatch.setenv("APP_TITLE", "environment")
    monkeypatch.setenv("ENV_FILE", str(path))
    monkeypatch.setenv("DATA_DIR", str(tmp_path / "data"))
    assert load_dotenv(path, load_defaults=False)
    config = sources.load()
    assert config.db_password
    assert config.db_password.get_secret_value() == "pa${x}w0rd"
    assert (config.db_host, config.app_title, config.port, config.db_user) == ("h", "environment", 7001, "7001")


@pytest.mark.parametrize("program", [["app.py"], ["key_rotation.py", "--once"]])
def test_no_program_starts_with_a_default_in_the_place_of_a_line(tmp_path, program):
    (tmp_path / "env").write_text('PORT=7001\nDB_PASSWORD="hunter2\nDB_HOST: db\n')
    refused = run(*program, ENV_FILE=tmp_path / "env", DATA_DIR=tmp_path / "data")
    assert refused.returncode == 1
    for number in (2, 3):
        assert f"ENV_FILE: {tmp_path}/env, line {number}: can't be read" in refused.stderr
    assert "hunter2" not in refused.stderr
    assert "Traceback" not in refused.stderr
    assert not (tmp_path / "data").exists()


def test_the_quotes_of_a_shell_mean_the_same_here(tmp_path):
    text = 'A=\'pa${x}w0rd # $y\'\nB="two words"\nC="a${A}b"\nD=plain\nE=\'a\'  # it\'s\nF="\\${x} \\"q\\" \\\\"\n'
    values, faults = read(tmp_path, text, {})
    script = f". {tmp_path}/env; for name in A B C D E F; do eval printf '%s\\\\0' \\\"\\$$name\\\"; done"
    printed = subprocess.run(["sh", "-c", script], env=environment(), capture_output=True, text=True, check=True)
    assert faults == []
    assert list(values.values()) == printed.stdout.split("\0")[:-1]
