from __future__ import annotations

import ssl
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)

from brokerjobs import Settings, settings, tls
from brokerjobs.errors import ConfigurationError
from tests.certificates import Authority, Pair


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path / "ca")


@pytest.fixture
def pair(authority: Authority) -> Pair:
    return authority.sign("shop.example")


def chosen(**given: Any) -> Settings:
    return settings.load(url="amqps://host/", **{name: str(value) for name, value in given.items()})


def test_context_verifies_chain_and_name_with_nothing_older_than_tls_1_2(authority: Authority) -> None:
    for given in chosen(), chosen(tls_ca=authority.file), chosen(tls_ca=authority.file.parent):
        context = tls.context(given)

        assert context.verify_mode is ssl.CERT_REQUIRED
        assert context.check_hostname
        assert context.minimum_version is ssl.TLSVersion.TLSv1_2


def test_own_authority_stands_instead_of_the_systems(authority: Authority) -> None:
    (trusted,) = tls.context(chosen(tls_ca=authority.file)).get_ca_certs()

    assert "trustme" in str(trusted["subject"])


def test_files_are_read_again_so_that_a_renewed_one_is_taken(authority: Authority, tmp_path: Path) -> None:
    given = chosen(tls_ca=authority.file)
    before = tls.context(given).get_ca_certs()
    other = Authority(tmp_path / "other")
    authority.file.write_bytes(other.file.read_bytes())

    assert tls.context(given).get_ca_certs() != before


def test_key_may_lie_beside_the_certificate_or_in_the_same_file(pair: Pair, tmp_path: Path) -> None:
    both = tmp_path / "both.pem"
    both.write_text(pair.certificate.read_text() + pair.key.read_text())

    assert tls.context(chosen(tls_certificate=pair.certificate, tls_key=pair.key))
    assert tls.context(chosen(tls_certificate=both))


def test_encrypted_key_wants_its_password_and_asks_nobody(pair: Pair) -> None:
    key = load_pem_private_key(pair.key.read_bytes(), None)
    sealed = BestAvailableEncryption(b"open sesame")
    pair.key.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, sealed))
    files = {"tls_certificate": pair.certificate, "tls_key": pair.key}

    assert tls.context(chosen(**files, tls_key_password="open sesame"))
    with pytest.raises(ConfigurationError, match="is encrypted; set BROKERJOBS_TLS_KEY_PASSWORD"):
        tls.context(chosen(**files))
    with pytest.raises(ConfigurationError, match="or the password is wrong") as caught:
        tls.context(chosen(**files, tls_key_password="hunter2"))
    assert "hunter2" not in str(caught.value)


def test_files_that_do_not_hold_what_they_should_are_named(
    authority: Authority, pair: Pair, tmp_path: Path
) -> None:
    empty, another = tmp_path / "empty", authority.sign("another.example")
    empty.touch()
    for given, complaint in (
        ({"tls_ca": "/nowhere"}, "tls_ca: cannot read /nowhere: No such file"),
        ({"tls_ca": empty}, "tls_ca: .*/empty holds no certificate in PEM format"),
        ({"tls_ca": pair.key}, "tls_ca: .* holds no certificate in PEM format"),
        ({"tls_certificate": "/nowhere"}, "tls_certificate: cannot read /nowhere: No such file"),
        ({"tls_certificate": pair.certificate, "tls_key": "/nowhere"}, "tls_key: cannot read /nowhere"),
        ({"tls_certificate": pair.certificate}, "do not hold a certificate and its key in PEM format$"),
        ({"tls_certificate": empty, "tls_key": pair.key}, "do not hold a certificate and its key"),
        ({"tls_certificate": pair.certificate, "tls_key": another.key}, "is not that of the certificate in"),
    ):
        with pytest.raises(ConfigurationError, match=complaint):
            tls.context(chosen(**given))
