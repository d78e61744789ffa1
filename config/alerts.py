"""Settings of alerts: where operators are told what is wrong, and from when on credit is low."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, Field, SecretStr

from config import checks
from config.kinds import split


class AlertSettings(BaseModel):
    """Alerts."""

    alert_webhook_url: Annotated[SecretStr | None, AfterValidator(checks.webhook_url)] = Field(
        None, description="URL to which alerts are posted as signed JSON; without it, none are"
    )
    alert_webhook_secret: Annotated[SecretStr | None, AfterValidator(checks.webhook_secret)] = Field(
        None, description="signs them: `whsec_` and 24 to 64 random bytes in base64"
    )
    alert_email_to: Annotated[
        tuple[str, ...], BeforeValidator(split), AfterValidator(checks.mail_addresses), Field(max_length=20)
    ] = Field((), description="addresses to which alerts are sent by e-mail, separated by commas; none for no e-mail")
    alert_email_from: Annotated[str, AfterValidator(checks.mail_address)] = Field(
        "", description="the address that these e-mails come from"
    )
    smtp_host: str = Field("", max_length=255, description="mail server that takes them")
    smtp_port: int = Field(587, ge=1, le=65535, description="port of SMTP_HOST")
    smtp_security: Literal["starttls", "tls"] = Field(
        "starttls", description="how TLS begins; tls: at once, as on port 465. Its certificate is verified"
    )
    smtp_user: str = Field("", max_length=255, description="user at SMTP_HOST; none if it wants none")
    smtp_password: SecretStr | None = Field(None, description="password of SMTP_USER")
    alert_credit_usd: float = Field(
        5,
        ge=0,
        le=1e6,
        allow_inf_nan=False,
        description="credit at OpenRouter below which there is an alert; 0 for no alert",
    )
