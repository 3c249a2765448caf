import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID

from clustersh.trust import keys
from clustersh.trust.authority import Authority, server_credentials
from clustersh.trust.credentials import Credentials
from clustersh.trust.errors import CertificateError, MissingCredentialsError, TrustError
from clustersh.trust.identity import Identity, Role, fingerprint

DAY = timedelta(days=1)


def usages(certificate: x509.Certificate) -> list[x509.ObjectIdentifier]:
    return list(certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value)


def dns_names(certificate: x509.Certificate) -> list[str]:
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return names.get_values_for_type(x509.DNSName)


@pytest.mark.parametrize("role", [Role.FRONTEND, Role.AGENT, Role.ADMIN])
def test_a_client_certificate_says_who_and_is_good_for_clients_only(
    authority: Authority, now: datetime, role: Role
) -> None:
    identity = Identity(role, "joshua@mba", "01")
    certificate = authority.issue(identity, keys.generate().public_key(), now)
    assert Identity.from_certificate(certificate) == identity
    assert usages(certificate) == [ExtendedKeyUsageOID.CLIENT_AUTH]
    assert dns_names(certificate) == []
    basic = certificate.extensions.get_extension_for_class(x509.BasicConstraints)
    assert basic.critical and not basic.value.ca
    assert authority.issued(certificate)


def test_a_certificate_starts_a_day_back_and_lasts_ten_years(authority: Authority, now: datetime) -> None:
    certificate = authority.issue(Identity(Role.AGENT, "ws1", "1"), keys.generate().public_key(), now)
    assert abs(certificate.not_valid_before_utc - (now - DAY)) < timedelta(seconds=2)
    assert abs(certificate.not_valid_after_utc - (now + 3650 * DAY)) < timedelta(seconds=2)


def test_a_certificate_never_outlives_the_ca(authority: Authority) -> None:
    end = authority.certificate.not_valid_after_utc
    identity = Identity(Role.AGENT, "ws1", "1")
    certificate = authority.issue(identity, keys.generate().public_key(), end - 10 * DAY)
    assert certificate.not_valid_after_utc == end


def test_the_server_certificate_is_good_for_the_server_only(authority: Authority, now: datetime) -> None:
    certificate = authority.issue_server(keys.generate().public_key(), now)
    assert usages(certificate) == [ExtendedKeyUsageOID.SERVER_AUTH]
    assert dns_names(certificate) == ["coordinator.clustersh.internal"]
    with pytest.raises(CertificateError, match="0 clustersh identities"):
        Identity.from_certificate(certificate)


def test_the_ca_signs_leaves_and_nothing_else(authority: Authority) -> None:
    extensions = authority.certificate.extensions
    basic = extensions.get_extension_for_class(x509.BasicConstraints)
    usage = extensions.get_extension_for_class(x509.KeyUsage)
    assert basic.critical and basic.value == x509.BasicConstraints(ca=True, path_length=0)
    assert usage.critical and usage.value.key_cert_sign and not usage.value.digital_signature


def test_only_p256_keys_are_certified(authority: Authority, now: datetime) -> None:
    with pytest.raises(TrustError, match="P-256"):
        authority.issue(Identity(Role.AGENT, "ws1", "1"), ec.generate_private_key(ec.SECP384R1()).public_key(), now)


def test_a_clock_in_the_past_is_named(tmp_path: Path, authority: Authority) -> None:
    epoch = datetime(1970, 1, 1, tzinfo=UTC)
    with pytest.raises(TrustError, match="clock says 1970-01-01"):
        Authority.create(tmp_path / "new", epoch)
    with pytest.raises(CertificateError, match="clock says 1970-01-01"):
        authority.issue(Identity(Role.AGENT, "ws1", "1"), keys.generate().public_key(), epoch)


def test_an_authority_is_loaded_as_created_and_never_created_twice(tmp_path: Path, now: datetime) -> None:
    created = Authority.open(tmp_path, now)
    assert Authority.open(tmp_path, now).certificate_pem == created.certificate_pem
    assert Authority.load(tmp_path).issued(created.issue_server(keys.generate().public_key(), now))
    with pytest.raises(TrustError, match="already"):
        Authority.create(tmp_path, now)
    with pytest.raises(MissingCredentialsError):
        Authority.load(tmp_path / "elsewhere")
    if os.name == "posix":
        assert {path.stat().st_mode & 0o777 for path in tmp_path.iterdir()} == {0o600}


def test_a_lost_ca_certificate_is_made_again_and_fits_what_was_issued(tmp_path: Path, now: datetime) -> None:
    leaf = Authority.open(tmp_path, now).issue_server(keys.generate().public_key(), now)
    (tmp_path / "ca.pem").unlink()
    assert Authority.open(tmp_path, now).issued(leaf)


def test_a_lost_ca_key_is_never_replaced(tmp_path: Path, now: datetime) -> None:
    Authority.open(tmp_path, now)
    (tmp_path / "ca-key.pem").unlink()
    with pytest.raises(TrustError, match="backup"):
        Authority.open(tmp_path, now)
    keys.save(tmp_path / "ca-key.pem", keys.generate())
    with pytest.raises(TrustError, match="another key"):
        Authority.open(tmp_path, now)


def test_another_ca_of_the_same_name_did_not_issue_it(tmp_path: Path, authority: Authority, now: datetime) -> None:
    other = Authority.create(tmp_path / "other", now)
    assert not other.issued(authority.issue_server(keys.generate().public_key(), now))


class TestServerCredentials:
    def test_they_stay_while_they_are_good(self, tmp_path: Path, authority: Authority, now: datetime) -> None:
        first = server_credentials(tmp_path, authority, now)
        again = server_credentials(tmp_path, authority, now + 300 * DAY)
        assert again.certificate == first.certificate
        assert fingerprint(first.key.public_key()) == fingerprint(first.certificate)

    @pytest.mark.parametrize("days", [3650 - 29, 3650 + 5, -30])
    def test_the_key_stays_when_the_date_asks_for_a_new_certificate(
        self, tmp_path: Path, authority: Authority, now: datetime, days: int
    ) -> None:
        first = server_credentials(tmp_path, authority, now)
        self.check_renewed(first, server_credentials(tmp_path, authority, now + days * DAY))

    def test_the_key_stays_under_another_ca(self, tmp_path: Path, authority: Authority, now: datetime) -> None:
        first = server_credentials(tmp_path, authority, now)
        other = Authority.create(tmp_path / "other", now)
        renewed = server_credentials(tmp_path, other, now)
        self.check_renewed(first, renewed)
        assert other.issued(renewed.certificate)

    def test_a_damaged_certificate_is_made_again(self, tmp_path: Path, authority: Authority, now: datetime) -> None:
        first = server_credentials(tmp_path, authority, now)
        (tmp_path / "server.pem").write_text("damaged")
        self.check_renewed(first, server_credentials(tmp_path, authority, now))

    def test_a_damaged_key_is_an_error(self, tmp_path: Path, authority: Authority, now: datetime) -> None:
        server_credentials(tmp_path, authority, now)
        (tmp_path / "server-key.pem").write_text("damaged")
        with pytest.raises(TrustError, match="damaged"):
            server_credentials(tmp_path, authority, now)

    def check_renewed(self, first: Credentials, second: Credentials) -> None:
        assert second.certificate != first.certificate
        assert fingerprint(second.certificate) == fingerprint(first.certificate)
