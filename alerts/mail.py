"""A channel: e-mail by SMTP, over TLS with the server's certificate verified."""

from __future__ import annotations

import logging
import smtplib
import ssl
from email.message import EmailMessage
from email.utils import format_datetime

from alerts.host import host_name
from alerts.notice import AlertNotice, NotSent
from config.settings import Config
from foundation.clock import Clock
from foundation.logs import event

log = logging.getLogger("alerts")

SECONDS = 10.0  # of silence, after which the server counts as gone
PRODUCT = "OpenRouter Proxy"


class Mail:
    """To all of ALERT_EMAIL_TO, in one message."""

    name = "email"

    def __init__(self, config: Config, clock: Clock) -> None:
        self.target = ", ".join(config.alert_email_to)
        self._config = config
        self._clock = clock

    def send(self, notice: AlertNotice) -> None:
        """Deliver a message: the server has taken it. Raises NotSent."""
        config = self._config
        try:
            with self._connect() as server:
                if config.smtp_user and config.smtp_password:
                    server.login(config.smtp_user, config.smtp_password.get_secret_value())
                refused = server.send_message(self._message(notice), config.alert_email_from, config.alert_email_to)
        except (smtplib.SMTPException, OSError, ValueError) as error:
            raise NotSent(_reason(error)) from None
        if refused:  # the others have it: to send it again would be one too many for them
            event(log, "alert_recipients_refused", logging.WARNING, count=len(refused))

    def _connect(self) -> smtplib.SMTP:
        host, port = self._config.smtp_host, self._config.smtp_port
        context, name = ssl.create_default_context(), host_name()
        if self._config.smtp_security == "tls":
            return smtplib.SMTP_SSL(host, port, name, timeout=SECONDS, context=context)
        server = smtplib.SMTP(host, port, name, timeout=SECONDS)
        try:
            server.starttls(context=context)
        except BaseException:
            server.close()
            raise
        return server

    def _message(self, notice: AlertNotice) -> EmailMessage:
        message = EmailMessage()
        message["Subject"] = f"[{PRODUCT}] {notice.headline}"
        message["From"] = self._config.alert_email_from
        message["To"] = self.target
        message["Date"] = format_datetime(self._clock.now())
        message["Message-ID"] = f"<{notice.id}@{self._config.alert_email_from.rpartition('@')[2]}>"
        message["Auto-Submitted"] = "auto-generated"
        lines = [notice.sentence, "", f"Began: {notice.began_at:%Y-%m-%d %H:%M:%S} UTC"]
        lines += [f"Over: {notice.ended_at:%Y-%m-%d %H:%M:%S} UTC"] if notice.ended_at else ["", notice.advice]
        message.set_content("\n".join([*lines, *(["", notice.link] if notice.link else [])]) + "\n")
        return message


def _reason(error: Exception) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"the mail server’s certificate is not trusted: {error.verify_message}"
    if isinstance(error, smtplib.SMTPAuthenticationError):
        return f"the mail server does not accept SMTP_USER and SMTP_PASSWORD ({error.smtp_code})"
    if isinstance(error, smtplib.SMTPRecipientsRefused):
        return "the mail server takes none of the addresses of ALERT_EMAIL_TO"
    if isinstance(error, smtplib.SMTPNotSupportedError):
        return "the mail server does not offer STARTTLS; many that do not want SMTP_SECURITY=tls"
    if isinstance(error, smtplib.SMTPResponseException):
        return f"the mail server answered {error.smtp_code}"
    return f"the mail server can’t be reached ({type(error).__name__})"
