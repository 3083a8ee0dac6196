"""TLS, for both AMQP clients and the management API: one context for all, and no switch that weakens it."""

from __future__ import annotations

import re
import ssl
from collections.abc import Iterable
from pathlib import Path

from brokerjobs.errors import ConfigurationError
from brokerjobs.settings import Settings

# OpenSSL's numbers (x509_vfy.h) for what can be wrong with a certificate.
_NOT_YET_VALID, _EXPIRED = 9, 10
_OTHER_NAME = (62, 64)
_UNKNOWN_AUTHORITY = (2, 18, 19, 20, 21)

# OpenSSL's reasons for a failed handshake.
_NO_TLS = ("WRONG_VERSION_NUMBER", "HTTP_REQUEST", "RECORD_LAYER_FAILURE", "PACKET_LENGTH_TOO_LONG")
_TOO_OLD = ("UNSUPPORTED_PROTOCOL", "TLSV1_ALERT_PROTOCOL_VERSION", "NO_PROTOCOLS_AVAILABLE")
_NO_CERTIFICATE = ("TLSV13_ALERT_CERTIFICATE_REQUIRED", "SSLV3_ALERT_HANDSHAKE_FAILURE")
_ABOUT_CERTIFICATE = ("CERTIFICATE", "UNKNOWN_CA")


def context(settings: Settings) -> ssl.SSLContext:
    """TLS 1.2 or later, with the server's chain and host name verified.

    Files are read at each call, so that a renewed certificate is taken at the next connect.

    Raises:
        ConfigurationError: a file cannot be read, or does not hold what its setting says.
    """
    made = _trusting(settings.tls_ca)
    made.minimum_version = ssl.TLSVersion.TLSv1_2
    if settings.tls_certificate is not None:
        _present(made, settings, settings.tls_certificate)
    return made


def _trusting(authorities: str | None) -> ssl.SSLContext:
    """A context that trusts these authorities and no others; the system's for None."""
    if authorities is None:
        return ssl.create_default_context()
    if Path(authorities).is_dir():
        return ssl.create_default_context(capath=authorities)
    _check_readable("tls_ca", authorities)
    try:
        return ssl.create_default_context(cafile=authorities)
    except ssl.SSLError:
        raise ConfigurationError(f"tls_ca: {authorities} holds no certificate in PEM format") from None


def _present(made: ssl.SSLContext, settings: Settings, certificate: str) -> None:
    """Let the context show the client's certificate to a server that asks for one."""
    key = settings.tls_key or certificate
    _check_readable("tls_certificate", certificate)
    _check_readable("tls_key", key)

    def password() -> str:  # only called for an encrypted key; without this OpenSSL would ask on the terminal
        if settings.tls_key_password is None:
            raise ConfigurationError(
                f"tls_key: {key} is encrypted; set BROKERJOBS_TLS_KEY_PASSWORD, or "
                "BROKERJOBS_TLS_KEY_PASSWORD_FILE to a file that holds the password"
            )
        return settings.tls_key_password.get_secret_value()

    try:
        made.load_cert_chain(certificate, key, password)
    except ssl.SSLError as error:
        why = f"{certificate} and {key} do not hold a certificate and its key in PEM format"
        if error.reason == "KEY_VALUES_MISMATCH":
            why = f"the key in {key} is not that of the certificate in {certificate}"
        elif settings.tls_key_password is not None:
            why += ", or the password is wrong"
        raise ConfigurationError(f"tls_certificate, tls_key: {why}") from None


def _check_readable(setting: str, path: str) -> None:
    try:
        with Path(path).open("rb"):
            pass
    except OSError as error:
        raise ConfigurationError(f"{setting}: cannot read {path}: {error.strerror}") from None


def refusal(causes: Iterable[BaseException], settings: Settings) -> ConfigurationError | None:
    """Why a handshake failed for good, in our words; None where TLS is not the reason, or another try may help.

    Args:
        causes: the error of a failed connect, and the errors behind it.
        settings: where it went.
    """
    where = f"RabbitMQ at {settings.address}"
    for cause in causes:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return ConfigurationError(_distrust(cause, where))
        if words := _broken(_reason(cause), where, settings):
            return ConfigurationError(words)
    return None


def hung_up(settings: Settings) -> str:
    """What it may mean that the peer closes the connection without a word."""
    if not settings.uses_tls:
        return "it closed the connection at once; does it expect TLS? then write amqps://"
    if settings.tls_certificate is None:
        return "it closed the connection at once; does it want a client certificate? then set tls_certificate"
    return "it closed the connection at once; is it RabbitMQ's port for TLS, and does it take the client certificate?"


def _reason(cause: BaseException) -> str:
    """OpenSSL's word for it; pika passes it on as text only."""
    if isinstance(cause, ssl.SSLError) and cause.reason:
        return cause.reason
    found = re.search(r"\[SSL: (\w+)\]", str(cause))
    return found[1] if found else ""


def _distrust(error: ssl.SSLCertVerificationError, where: str) -> str:
    said = error.verify_message
    match error.verify_code:
        case code if code in _OTHER_NAME:
            return f"the certificate of {where} is for another host: {said}; write the name that is in it"
        case code if code in _UNKNOWN_AUTHORITY:
            return (
                f"the certificate of {where} is signed by no authority that is trusted here ({said}); if you run "
                "the authority, set tls_ca to its certificate"
            )
        case _ if error.verify_code == _EXPIRED:
            return f"the certificate of {where} has expired; renew it there"
        case _ if error.verify_code == _NOT_YET_VALID:
            return f"the certificate of {where} is not valid yet; are both clocks right?"
    return f"the certificate of {where} cannot be trusted: {said}"


def _broken(reason: str, where: str, settings: Settings) -> str:
    if reason in _NO_TLS:
        return f"what answers for {where} does not speak TLS; is this the port of amqp://?"
    if reason in _TOO_OLD:
        return f"{where} offers no TLS 1.2 or later, which is the least that brokerjobs takes"
    if reason in _NO_CERTIFICATE and settings.tls_certificate is None:
        return f"{where} wants a client certificate: set tls_certificate and tls_key"
    if "ALERT" in reason and any(word in reason for word in _ABOUT_CERTIFICATE):
        return f"{where} refuses the client certificate ({reason.lower().replace('_', ' ')})"
    return ""
