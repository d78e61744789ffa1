"""Stepping up over HTTP: what is dangerous is refused in an old session, and done once its owner has proved who they are."""

from __future__ import annotations

import secrets
from datetime import timedelta

import pyotp
import pytest

from accounts.step_up import Act
from accounts.users import NO_KEY
from foundation.clock import Clock
from tables import user_sessions, users
from tests.support.authenticator import Authenticator
from tests.support.gateway import ADMIN_TOKEN, new_derived_key, shown, user_id_of, wait_for

PATH, FACTOR = "/api/auth/step-up", "/api/auth/second-factor"
NOT_FRESH = (403, "fresh_session_needed")
ORIGIN = "https://gateway.test"
UPSTREAM = {"name": "other", "base_url": "https://1.1.1.1/v1", "is_active": False, "api_key": "sk-of-the-upstream"}


@pytest.fixture(scope="module")
def gateway_settings():
    return {"PUBLIC_URL": ORIGIN, "LOGIN_RATE_LIMIT_ACCOUNT_PER_MINUTE": 12}


def kind_of(answer):
    return answer.status_code, answer.json().get("error", {}).get("type", "")


class Person:
    """Somebody with a session that began twenty minutes ago, and with a role."""

    def __init__(self, gateway, database, role="user"):
        self.gateway, self.database = gateway, database
        self.account = gateway.new_account()
        self.token = shown(gateway.post("/login", self.account))["token"]
        self.id = user_id_of(self.token)
        if role != "user":
            shown(gateway.ask("PATCH", f"/admin/users/{self.id}", {"role": role}, ADMIN_TOKEN))
            wait_for(lambda: gateway.get("/admin/users", self.token).status_code == 200)
        self.grow_old()

    def grow_old(self):
        values = {"created_at": Clock().now() - timedelta(minutes=20), "proved_at": None}
        mine = user_sessions.update().where(user_sessions.c.user_id == self.id)
        self.database.transact(lambda tx: tx.execute(mine.values(values)))

    def ask(self, method, path, body=None):
        return self.gateway.ask(method, path, body, self.token)

    def step_up(self, **body):
        return self.ask("POST", PATH, body)


@pytest.fixture
def ann(administered, database):
    return Person(administered, database)


def new_team(gateway):
    """Where operators find it."""
    made = gateway.ask("POST", "/admin/teams", {"name": secrets.token_hex(4)}, ADMIN_TOKEN)
    return f"/admin/teams/{shown(made, 201)['id']}"


def acts_of_operators(gateway, other):
    """Each act by its name, and how it is asked for."""
    made = f"/admin/users/{other}"
    name = f"name-{secrets.token_hex(4)}"  # digits alone are no upstream's name
    return {
        Act.CHANGE_ROLE: ("PATCH", made, {"role": "auditor"}),
        "CHANGE_ROLE by invitation": ("POST", "/admin/invitations", {"role": "admin"}),
        Act.MAKE_OPERATOR_TOKEN: ("POST", "/admin/tokens", {"name": name, "scope": "read", "days": 1}),
        Act.LIFT_QUOTA: ("PUT", f"/admin/quotas/user/{other}", {}),
        "LIFT_QUOTA by reset": ("DELETE", f"/admin/quotas/user/{other}", None),
        Act.SET_UPSTREAM_KEY: ("POST", "/admin/upstreams", UPSTREAM | {"name": name}),
        Act.REMOVE_OTHERS_FACTORS: ("DELETE", f"{made}/second-factor", None),
        Act.MAKE_RESET_LINK: ("POST", f"{made}/reset-link", None),
        Act.DELETE_TEAM: ("DELETE", new_team(gateway), None),
        Act.DELETE_OTHERS_ACCOUNT: ("DELETE", made, None),
    }


def test_what_operators_do_that_gives_power_away_takes_a_fresh_session(administered, database, ann):
    admin = Person(administered, database, "admin")
    pyotp_of(administered, ann)
    before = state_of(database, ann.id)
    acts = acts_of_operators(administered, ann.id)
    for act, asked in acts.items():
        assert kind_of(admin.ask(*asked)) == NOT_FRESH, act
    assert state_of(database, ann.id) == before
    # What is not in the table goes on in an old session: labels, ends of sessions, limits that hold.
    shown(admin.ask("PATCH", f"/admin/users/{ann.id}", {"label": "laptop", "role": "user"}))
    shown(admin.ask("PUT", f"/admin/quotas/user/{ann.id}", {"limit_usd": 5}))
    shown(admin.step_up(derived_key=admin.account["derived_key"]))
    for act, asked in acts.items():
        assert admin.ask(*asked).status_code in {200, 201}, act


def test_a_secret_that_lasts_takes_a_fresh_session_for_its_owner_and_for_operators(administered, database, ann):
    admin, bob = Person(administered, database, "admin"), administered.new_user()
    keys, tokens = "/api/api-keys", "/api/tokens"
    long, year = in_days(367), in_days(366)
    short = shown(ann.ask("POST", keys, {"name": "short", "expires_at": year}), 201)
    one = f"{keys}/{short['id']}"
    lasting = [
        (ann, "POST", keys, {"name": "x"}),
        (ann, "POST", keys, {"name": "x", "expires_at": None}),
        (ann, "POST", keys, {"name": "x", "expires_at": long}),
        (ann, "POST", tokens, {"name": "x"}),
        (ann, "POST", tokens, {"name": "x", "expires_at": long}),
        (ann, "PATCH", one, {"expires_at": None}),
        (ann, "PATCH", one, {"expires_at": long, "name": "long"}),
        (admin, "POST", "/admin/keys", {"name": "x"}),
        (admin, "POST", "/admin/keys", {"name": "x", "user_id": ann.id}),
        (admin, "PATCH", f"/admin/keys/{short['id']}", {"expires_at": None}),
    ]
    for who, *asked in lasting:
        assert kind_of(who.ask(*asked)) == NOT_FRESH, asked
    assert shown(ann.ask("GET", one)) == {name: short[name] for name in short if name != "key"}
    assert [shown(ann.ask("GET", path))["total"] for path in (keys, tokens)] == [1, 0]
    # What ends within a year is made and changed as ever, and somebody else's session is as fresh as it was.
    shown(ann.ask("POST", tokens, {"name": "x", "expires_at": year}), 201)
    shown(ann.ask("PATCH", one, {"name": "other", "rpm": 5, "expires_at": in_days(7)}))
    shown(administered.post(keys, {"name": "x"}, bob), 201)
    for who in (ann, admin):
        shown(who.step_up(derived_key=who.account["derived_key"]))
    for who, *asked in lasting:
        assert who.ask(*asked).status_code in {200, 201}, asked
    # A key that lasts already can be changed, and can be made to end.
    ann.grow_old()
    shown(ann.ask("PATCH", one, {"expires_at": long, "rpm": 7}))
    shown(ann.ask("PATCH", one, {"expires_at": year}))
    assert kind_of(ann.ask("PATCH", one, {"expires_at": None})) == NOT_FRESH
    shown(administered.ask("PATCH", f"/admin/keys/{short['id']}", {"expires_at": None}, ADMIN_TOKEN))


def in_days(days):
    """So long from now, and an hour less."""
    return (Clock().now() + timedelta(days=days, hours=-1)).isoformat()


def test_a_token_and_admin_token_need_no_session(administered, database, ann):
    token = shown(
        administered.post(
            "/admin/tokens", {"name": secrets.token_hex(4), "scope": "everything", "days": 1}, ADMIN_TOKEN
        ),
        201,
    )["token"]
    for bearer in (token, ADMIN_TOKEN):
        shown(administered.ask("PUT", f"/admin/quotas/user/{ann.id}", {}, bearer))
        shown(administered.post(f"/admin/users/{ann.id}/reset-link", token=bearer), 201)


def test_the_key_proves_it_in_this_session_alone_and_a_wrong_one_is_told_to_its_owner(administered, database, ann):
    bob = Person(administered, database)
    thief = shown(administered.post("/login", ann.account))["token"]
    ann.grow_old()
    right, wrong = {"derived_key": ann.account["derived_key"]}, {"derived_key": bob.account["derived_key"]}
    refused = ann.ask("DELETE", "/api/auth/me")
    assert kind_of(refused) == NOT_FRESH
    assert f"POST {PATH}" in refused.json()["message"]
    assert ann.step_up(**wrong).status_code == 401
    assert ann.step_up(second_factor="000000").status_code == ann.step_up().status_code == 400
    assert kind_of(ann.ask("POST", "/api/auth/recovery-codes")) == NOT_FRESH
    shown(ann.step_up(**right))
    shown(ann.ask("POST", "/api/auth/recovery-codes"), 201)
    assert kind_of(administered.post("/api/auth/recovery-codes", token=thief)) == NOT_FRESH
    assert kind_of(bob.ask("POST", "/api/auth/recovery-codes")) == NOT_FRESH
    events = "/api/auth/events"
    wait_for(
        lambda: {"stepped_up", "step_up_refused"} <= {one["action"] for one in ann.ask("GET", events).json()["items"]}
    )


def test_so_does_the_password_where_the_server_derives_the_key(administered, database):
    known = {"email": f"{secrets.token_hex(8)}@example.com", "password": "Tr4in-to-Nowhere"}
    shown(administered.post("/api/auth/register", known | {"password_confirm": known["password"]}), 201)
    token = shown(administered.post("/api/auth/login", known))["token"]
    made_old = user_sessions.update().where(user_sessions.c.user_id == user_id_of(token))
    database.transact(lambda tx: tx.execute(made_old.values(created_at=Clock().now() - timedelta(hours=1))))
    for wrong in ({"password": "Tr4in-to-Somewhere"}, {"email": f"x{known['email']}"}):
        assert administered.post(f"{PATH}-password", known | wrong, token).status_code == 401
    assert kind_of(administered.post("/api/auth/recovery-codes", token=token)) == NOT_FRESH
    shown(administered.post(f"{PATH}-password", known, token))
    shown(administered.post("/api/auth/recovery-codes", token=token), 201)


def test_with_a_second_factor_the_key_is_not_enough(administered, database, ann):
    app = pyotp_of(administered, ann)
    assert ann.step_up(derived_key=ann.account["derived_key"]).status_code == 400
    assert ann.step_up(second_factor="000000").status_code == 401
    assert kind_of(ann.ask("DELETE", FACTOR)) == NOT_FRESH
    shown(ann.step_up(second_factor=app.at(Clock().timestamp() + 30)))  # the next one: each is good once
    shown(ann.ask("DELETE", FACTOR))


def test_a_passkey_proves_it_and_somebody_elses_does_not(administered, database, ann):
    bob = Person(administered, database)
    devices = []
    for one in (ann, bob):
        shown(one.step_up(derived_key=one.account["derived_key"]))
        device = Authenticator(ORIGIN)
        made = device.make(shown(one.ask("POST", "/api/auth/passkeys/challenge")))
        shown(one.ask("POST", "/api/auth/passkeys", {"name": "phone", "credential": made}), 201)
        one.grow_old()
        devices.append(device)
    for device, status in ((devices[1], 401), (devices[0], 200)):
        challenge = administered.post("/api/auth/passkeys/log-in/challenge")
        signed, cookies = device.sign(shown(challenge)), challenge.headers["Set-Cookie"].partition(";")[0]
        answer = administered.post(PATH, {"second_factor": signed}, ann.token, headers={"Cookie": cookies})
        assert answer.status_code == status
    shown(ann.ask("POST", "/api/auth/recovery-codes"), 201)


def test_who_came_in_through_a_provider_alone_logs_in_again(ann, database):
    without = users.update().where(users.c.id == ann.id).values(key_hash=NO_KEY)
    database.transact(lambda tx: tx.execute(without))
    assert "log in again" in ann.ask("DELETE", "/api/auth/me").json()["message"]
    assert ann.step_up(derived_key=new_derived_key()).status_code == 400


def test_guesses_are_as_few_as_at_the_log_in(administered, database, ann):
    bob = Person(administered, database)
    statuses = [ann.step_up(derived_key=new_derived_key()).status_code for _ in range(15)]
    assert set(statuses) == {401, 429}
    shown(bob.step_up(derived_key=bob.account["derived_key"]))


def pyotp_of(gateway, person):
    """The app of somebody who has just set one up, and whose session is old again."""
    shown(person.step_up(derived_key=person.account["derived_key"]))
    app = pyotp.TOTP(shown(person.ask("POST", FACTOR), 201)["secret"])
    shown(person.ask("POST", f"{FACTOR}/confirm", {"code": app.at(Clock().timestamp())}))
    person.grow_old()
    return app


def state_of(database, user_id):
    with database.reading() as tx:
        return tuple(tx.execute(users.select().where(users.c.id == user_id)).one())
