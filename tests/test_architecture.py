"""The layout as a test: what may import what, how big a file may grow, where its tests are."""

import ast
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

# Top imports bottom, never the other way. Modules on one line may import those that stand further to the left.
LAYERS = [
    "errors clock logs setting_checks config config_sources money quota_terms json_text answer_usage crypto key_derivation password_policy model_list openrouter_errors safe_address outbound upstream_http identity_provider identity_providers named_models call_body model_api responses_api messages_api model_apis event_stream remote_keys management_api client_address window_counters terminal server_end user_agents",
    "tables db background",
    "revisions sealed_secrets hashed_secrets oauth_states user_sessions users identities pool_keys gateway_processes quotas client_keys api_tokens favourite_models usage_checks audit_log refused_log_ins upstreams",
    "key_health key_choice account_api connected_accounts personal_keys dedicated_keys api_key_manager key_probe pool_overview",
    "usage_rollups usage_ledger usage_journal usage_stats usage_log usage_export log_retention",
    "auth single_sign_on personal_key_sync outage_credit leased_quota quota_slices reencrypt rate_limits usage_meter proxy_request model_prices destinations answer_relay upstream_try retry openrouter_proxy",
    "usage_drain generation_records cost_lookup start_up",
    "services rotation_lease rotation_plan rotation_steps usage_check",
    "key_rotation proxy_wsgi page_words routes",
    "openapi_sample openapi_calls openapi api_docs",
    "command_line",
    "audit_cli encryption_key_cli key_cli personal_key_cli pool_cli quota_cli upstream_cli check_cli usage_cli user_cli cli app granian_server",
]
ORDER = [name for line in LAYERS for name in line.split()]
DOORS = {  # packages that only these modules may know
    "flask": {"app", "cli", "command_line", "check_cli", "pool_cli", "openapi", "api_docs", "routes"},
    "werkzeug": {"routes"},
    "cryptography": {"crypto"},
    "argon2": {"crypto"},
    "jwt": {"auth"},
    "alembic": {"db"},
    "mysql": {"db"},
    "pymysql": {"db"},
    "sqlite3": {"db"},
    "httptools": {"upstream_http"},
    "requests": {"management_api", "identity_providers"},
    "authlib": {"identity_providers"},
    "joserfc": {"identity_providers"},
    "limits": {"window_counters"},
    "redis": {"window_counters"},
    "dotenv": {"config_sources"},
    "pydantic": {"setting_checks", "config", "config_sources", "openapi", "routes"},
    "rich": {"encryption_key_cli", "usage_cli", "key_rotation", "terminal"},
    "click": {
        "command_line",
        "audit_cli",
        "check_cli",
        "encryption_key_cli",
        "key_cli",
        "personal_key_cli",
        "pool_cli",
        "quota_cli",
        "upstream_cli",
        "usage_cli",
        "user_cli",
    },
    # Finding out whether a client has gone, and whether a port is free, are not connections.
    "socket": {"outbound", "upstream_http", "proxy_wsgi", "app"},
    "ssl": {"upstream_http"},
    "select": {"upstream_http"},
}
# SQLAlchemy's expressions are written beside their meaning, in the nouns; engines and types stay in db.
SQL = {
    "tables",
    "db",
    "revisions",
    "sealed_secrets",
    "users",
    "identities",
    "oauth_states",
    "connected_accounts",
    "user_sessions",
    "pool_keys",
    "personal_keys",
    "gateway_processes",
    "quotas",
    "usage_checks",
    "audit_log",
    "upstreams",
    "hashed_secrets",
    "client_keys",
    "api_tokens",
    "favourite_models",
    "rotation_lease",
    "reencrypt",
    "usage_rollups",
    "usage_ledger",
    "usage_stats",
    "usage_log",
    "log_retention",
}
MAX_LINES, MAX_FUNCTION_LINES = 450, 60
SOURCES = sorted([*ROOT.glob("*.py"), *ROOT.glob("routes/*.py")])
SOURCES = [path for path in SOURCES if path.name != "gunicorn.conf.py"]
OTHERS = sorted([*ROOT.glob("sandbox/*.py"), *ROOT.glob("bench/*.py"), *ROOT.glob("clients/python/*.py")])


def module_of(path):
    return "routes" if path.parent.name == "routes" else path.stem


def imports_of(path):
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            found.add(node.module.split(".")[0])
    return found


def each(paths):
    return pytest.mark.parametrize("path", paths, ids=[str(path.relative_to(ROOT)) for path in paths])


def test_every_module_has_a_place():
    assert set(ORDER) == {module_of(path) for path in SOURCES}


@each(SOURCES)
def test_imports_point_down(path):
    me = ORDER.index(module_of(path))
    ours = imports_of(path) & set(ORDER) - {module_of(path)}
    assert [name for name in ours if ORDER.index(name) > me] == []


@each(SOURCES)
def test_packages_stay_behind_their_doors(path):
    imported = imports_of(path)
    assert [package for package, doors in DOORS.items() if package in imported and module_of(path) not in doors] == []
    assert "sqlalchemy" not in imported or module_of(path) in SQL


@each(SOURCES)
def test_the_product_does_not_know_its_tools(path):
    assert imports_of(path) & {"sandbox", "tests", "bench", "clients"} == set()


@each(SOURCES)
def test_nobody_imports_app(path):
    assert "app" not in imports_of(path)


@each(SOURCES + OTHERS)
def test_says_what_it_is_for(path):
    docstring = ast.get_docstring(ast.parse(path.read_text()))
    assert docstring, "the first line of a file says what the file is for"
    assert docstring.splitlines()[0].endswith((".", ":", ",")) or len(docstring.splitlines()) > 1


@each(SOURCES + OTHERS)
def test_stays_small(path):
    assert len(path.read_text().splitlines()) <= MAX_LINES
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = node.end_lineno - node.lineno + 1
            assert length <= MAX_FUNCTION_LINES, f"{node.name} has {length} lines"


@each(SOURCES)
def test_does_no_work_when_imported(path):
    """Definitions, constants and `if __name__` only: no connection, no thread, no environment at import time."""
    for node in ast.parse(path.read_text()).body:
        assert not isinstance(node, ast.For | ast.While | ast.With | ast.Try), f"line {node.lineno}"
        if isinstance(node, ast.Expr):
            assert isinstance(node.value, ast.Constant), f"line {node.lineno}"


@each(SOURCES)
def test_public_functions_and_classes_are_documented(path):
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.FunctionDef) and not node.name.startswith("_"):
            assert ast.get_docstring(node), node.name
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_") and path.name != "errors.py":
            assert ast.get_docstring(node), node.name


@each(SOURCES)
def test_has_a_test_file(path):
    folder = "tests/routes" if path.parent.name == "routes" else "tests"
    folder = "tests/pages" if path.stem.endswith("_pages") else folder
    if path.stem != "__init__":
        assert (ROOT / folder / f"test_{path.name}").exists()


@each([path for path in ROOT.glob("sandbox/*.py") if path.stem != "__init__"])
def test_the_stand_in_has_test_files_too(path):
    assert (ROOT / "tests/sandbox" / f"test_{path.name}").exists()


def test_no_module_hides_a_library():
    names = {path.stem for path in ROOT.glob("*.py")}
    assert names & set(sys.stdlib_module_names) == set()
    assert names & {"jwt", "limits", "schema", "requests", "redis", "click", "tokens"} == set()


def test_no_name_says_nothing():
    empty = {"utils", "helpers", "common", "misc", "base", "core", "util", "manager"}
    assert {path.stem for path in SOURCES + OTHERS} & empty == set()
