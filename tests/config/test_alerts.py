"""Settings of alerts: what is accepted, and what the complaint says."""

from __future__ import annotations

from config import sources
from tests.support.alarms import SECRET
from tests.support.rows import each_row
from tests.support.settings import fault, faults

WEBHOOK = {"ALERT_WEBHOOK_URL": "https://hooks.gateway.test/x?key=a", "ALERT_WEBHOOK_SECRET": SECRET}
MAIL = {"ALERT_EMAIL_TO": "a@b.test, c@d.test", "ALERT_EMAIL_FROM": "e@f.test", "SMTP_HOST": "mail.test"}


def test_both_channels_may_be_set(tmp_path):
    config = sources.load(WEBHOOK | MAIL | {"DATA_DIR": str(tmp_path)})
    assert config.alert_email_to == ("a@b.test", "c@d.test")
    assert {SECRET, WEBHOOK["ALERT_WEBHOOK_URL"]} <= set(config.secret_values())


@each_row(
    ("settings", "words"),
    [
        (WEBHOOK | {"ALERT_WEBHOOK_URL": "hooks.test"}, "ALERT_WEBHOOK_URL: must be a URL"),
        (WEBHOOK | {"ALERT_WEBHOOK_URL": "https://user:pw@hooks.test/"}, "ALERT_WEBHOOK_URL: must be a URL"),
        (WEBHOOK | {"ALERT_WEBHOOK_URL": "http://hooks.test/"}, "ALERT_WEBHOOK_URL: must begin with https://"),
        (WEBHOOK | {"ALERT_WEBHOOK_SECRET": "secret"}, "ALERT_WEBHOOK_SECRET: must be whsec_"),
        (WEBHOOK | {"ALERT_WEBHOOK_SECRET": "whsec_" + "A" * 44}, "ALERT_WEBHOOK_SECRET: must be whsec_"),
        ({"ALERT_WEBHOOK_URL": WEBHOOK["ALERT_WEBHOOK_URL"]}, "ALERT_WEBHOOK_SECRET: goes with ALERT_WEBHOOK_URL"),
        ({"ALERT_WEBHOOK_SECRET": SECRET}, "ALERT_WEBHOOK_SECRET: goes with ALERT_WEBHOOK_URL"),
        (MAIL | {"ALERT_EMAIL_TO": "ops"}, "ALERT_EMAIL_TO: must be an address"),
        (MAIL | {"ALERT_EMAIL_FROM": "a@b.test\nBcc: c@d.test"}, "ALERT_EMAIL_FROM: must be an address"),
        (MAIL | {"SMTP_HOST": ""}, "SMTP_HOST: is missing"),
        (MAIL | {"ALERT_EMAIL_FROM": ""}, "ALERT_EMAIL_FROM: is missing"),
        (MAIL | {"SMTP_USER": "me"}, "SMTP_PASSWORD: goes with SMTP_USER"),
        (MAIL | {"SMTP_SECURITY": "none"}, "SMTP_SECURITY: "),
        ({"ALERT_CREDIT_USD": "-1"}, "ALERT_CREDIT_USD: "),
    ],
)
def test_what_would_never_arrive_is_refused(settings, words):
    assert fault(**settings).startswith(words)


def test_http_is_for_private_addresses():
    assert faults(**WEBHOOK | {"ALERT_WEBHOOK_URL": "http://10.0.0.7/", "ALLOW_PRIVATE_UPSTREAMS": "true"}) == []
