"""Settings of accounts: who may sign up, how people log in, how often they may try."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, Field, SecretStr

from config import checks
from config.kinds import Limit, split, split_at_commas


class AccountSettings(BaseModel):
    """Accounts and log-ins."""

    kdf_domain: str | None = Field(
        None,
        min_length=1,
        max_length=200,
        description="part of every client's key salt; by default the database's own",
    )
    registration: Literal["auto", "closed", "invite", "approval", "open"] = Field(
        "auto",
        description="who may sign up: nobody, whoever has an invitation, whom an operator lets in, or anybody; "
        "auto: invite in production, open in development",
    )
    allow_open_without_quota: bool = Field(
        False, description="whether production may start with REGISTRATION=open and QUOTA_USD=none: strangers spend all"
    )
    operator_second_factor: Literal["optional", "required"] = Field(
        "optional", description="whether whoever works as operator or auditor has to have a second factor"
    )
    jwt_expiration_hours: float = Field(24, gt=0, le=24 * 30, description="life of an access token")
    refresh_token_days: float = Field(7, gt=0, le=365, description="life of a refresh token")
    login_rate_limit_per_minute: Limit = Field(
        5,
        description="log-ins a minute from one address; as many registrations, refreshes, key checks; 0 for any number",
    )
    login_rate_limit_account_per_minute: Limit = Field(
        10, description="log-ins a minute to one account, from anywhere; 0 for any number"
    )
    check_username_rate_limit_per_minute: Limit = Field(
        10, description="questions a minute from one address whether a username is taken; 0 for any number"
    )
    admin_rate_limit_per_minute: Limit = Field(
        120, description="requests a minute to /admin and /operator from one address; 0 for any number"
    )
    page_rate_limit_per_minute: Limit = Field(
        30, description="a stranger's pages a minute, by address; 0 for any number"
    )
    api_token_rate_limit_per_hour: Limit = Field(100, description="requests an hour of one API token; 0 for any number")
    max_client_keys_per_user: int = Field(50, ge=1, le=10_000, description="client keys that a user may have at once")
    max_api_keys_per_user: int = Field(
        10, ge=1, le=1000, description="OpenRouter keys of their own that a user may have watched at once"
    )
    sync_interval_minutes: int = Field(
        60, ge=1, le=24 * 60, description="how often such a key's usage is fetched from OpenRouter"
    )
    github_url: str = Field("https://github.com", max_length=255, description="where people log in to GitHub")
    github_api_url: str = Field("https://api.github.com", description="GitHub's API")
    github_client_id: str = Field(
        "", max_length=255, description="of an OAuth app at GitHub; lets people log in with it"
    )
    github_client_secret: SecretStr | None = Field(None, description="secret of that app")
    github_allowed_organizations: Annotated[
        tuple[str, ...], BeforeValidator(split), AfterValidator(checks.organizations), Field(max_length=10)
    ] = Field((), description="organisations at GitHub whose members may log in, separated by commas; none for anybody")
    linuxdo_url: str = Field("https://connect.linux.do", max_length=255, description="where people log in to Linux.do")
    linuxdo_client_id: str = Field("", max_length=255, description="of an application at Linux.do")
    linuxdo_client_secret: SecretStr | None = Field(None, description="secret of that application")
    linuxdo_min_trust_level: int = Field(
        0, ge=0, le=4, description="lowest trust level at Linux.do with which people may log in"
    )
    oidc_name: str = Field(
        "oidc", pattern=r"^[a-z0-9-]{1,24}$", description="short name of the OpenID Connect provider, part of its paths"
    )
    oidc_issuer: str = Field(
        "",
        max_length=255,
        description="its issuer URL exactly as it writes it, where its discovery document is",
    )
    oidc_client_id: str = Field("", max_length=255, description="of a client at that provider")
    oidc_client_secret: SecretStr | None = Field(None, description="secret of that client")
    oidc_scopes: Annotated[tuple[str, ...], BeforeValidator(split)] = Field(
        (), description="what it is asked for besides `openid profile`, if it takes more to say groups"
    )
    oidc_allowed_domains: Annotated[tuple[str, ...], BeforeValidator(split), AfterValidator(checks.domains)] = Field(
        (), description="domains of verified e-mail addresses that are let in, separated by commas; none for all"
    )
    oidc_groups_claim: str = Field("groups", min_length=1, max_length=100, description="where an ID token has groups")
    oidc_allowed_groups: Annotated[tuple[str, ...], BeforeValidator(split_at_commas)] = Field(
        (), description="groups of which one lets in, separated by commas; none for everybody"
    )
