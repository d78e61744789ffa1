"""How the connection to MySQL or MariaDB is secured: what DB_SSL_CA and DB_SSL_MODE mean for either driver."""

from __future__ import annotations

from urllib.parse import urlsplit

from config.checks import LOOPBACK
from config.settings import Config


def tls_options(config: Config, driver: str) -> dict[str, str]:
    """What goes into the driver's URL. driver: as SQLAlchemy calls it."""
    if config.db_ssl_mode == "off":
        return {"ssl_disabled": "true"}
    if not config.db_ssl_ca:
        return {}  # encrypted if the server can, to whoever answers
    verifies_name = config.db_ssl_mode != "verify_ca"
    if driver == "mysql+pymysql":
        return {"ssl_ca": str(config.db_ssl_ca), "ssl_check_hostname": str(verifies_name).lower()}
    found = {"ssl_ca": str(config.db_ssl_ca), "ssl_verify_cert": "true"}
    return found | ({"ssl_verify_identity": "true"} if verifies_name else {})


def is_unverified(config: Config) -> bool:
    """True if production's data cross a network to a server that nobody has asked who it is."""
    address = config.database_url.get_secret_value() if config.database_url else ""
    host = config.db_host or (urlsplit(address).hostname if not address.startswith("sqlite") else None)
    crosses = host is not None and host not in LOOPBACK and "unix_socket=" not in address
    return config.production and crosses and not config.db_ssl_ca and config.db_ssl_mode == "auto"
