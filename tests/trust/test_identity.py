import hashlib
from datetime import datetime

import msgspec
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID
from hypothesis import given
from hypothesis import strategies as st

from clustersh.trust import keys
from clustersh.trust.authority import Authority
from clustersh.trust.errors import CertificateError, TrustError
from clustersh.trust.identity import Identity, Role, certificate_sha256, fingerprint

names = st.text(min_size=1, max_size=160).filter(str.isprintable)
ids = st.from_regex(r"[A-Za-z0-9._-]{1,64}", fullmatch=True)


@given(st.builds(Identity, st.sampled_from(Role), names, ids))
def test_the_uri_says_the_identity_and_nothing_else(identity: Identity) -> None:
    assert Identity.from_uri(identity.uri) == identity
    assert identity.uri.isascii()


@given(st.text() | st.from_regex(r"urn:clustersh:(agent|admin):[a%:.]{0,4}:[a%:.0-9]{0,6}", fullmatch=True))
def test_any_other_uri_is_refused_or_canonical(text: str) -> None:
    try:
        identity = Identity.from_uri(text)
    except CertificateError:
        return
    assert identity.uri == text


@pytest.mark.parametrize(
    "uri",
    [
        "urn:clustersh:root:1:x",
        "urn:clustersh:agent:1",
        "urn:clustersh:agent:1:x:y",
        "urn:clustersh:agent::x",
        "urn:clustersh:agent:1:",
        "urn:clustersh:agent:1:%78",
        "urn:clustersh:agent:1:%1b",
        "urn:clustersh:agent:1:%ff",
        "urn:clustersh:request:agent:x",
        "agent:1:x",
    ],
)
def test_a_wrong_uri_is_refused(uri: str) -> None:
    with pytest.raises(CertificateError):
        Identity.from_uri(uri)


@pytest.mark.parametrize(("name", "id_"), [("", "1"), ("a\nb", "1"), ("\x1b[2J", "1"), ("a" * 161, "1"), ("a", "a:b")])
def test_a_name_or_id_that_cannot_be_written_is_refused(name: str, id_: str) -> None:
    with pytest.raises(TrustError):
        Identity(Role.AGENT, name, id_)


def test_an_identity_survives_json() -> None:
    identity = Identity(Role.AGENT, "ws1", "7")
    assert msgspec.json.decode(msgspec.json.encode(identity), type=Identity) == identity


def self_signed(now: datetime, *uris: str) -> x509.Certificate:
    key = keys.generate()
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "urn:clustersh:admin:1:me")])
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now)
        .not_valid_after(now)
    )
    if uris:
        names = [x509.UniformResourceIdentifier(uri) for uri in uris]
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    return builder.sign(key, SHA256())


def test_a_certificate_must_name_exactly_one_identity(now: datetime) -> None:
    one, other = "urn:clustersh:agent:1:ws1", "urn:clustersh:admin:1:ws1"
    assert Identity.from_certificate(self_signed(now, one, "http://x/")) == Identity(Role.AGENT, "ws1", "1")
    for uris in ([], ["http://x/"], [one, other], [one, one]):
        with pytest.raises(CertificateError, match="must name one"):
            Identity.from_certificate(self_signed(now, *uris))


def test_the_fingerprint_is_the_keys_and_outlives_its_certificates(authority: Authority, now: datetime) -> None:
    key = keys.generate().public_key()
    first, second = (authority.issue(Identity(Role.AGENT, "ws1", "1"), key, now) for _ in range(2))
    assert fingerprint(first) == fingerprint(second) == fingerprint(key)
    assert fingerprint(keys.generate().public_key()) != fingerprint(key)
    assert certificate_sha256(first) == hashlib.sha256(first.public_bytes(Encoding.DER)).hexdigest()
    assert certificate_sha256(first) != certificate_sha256(second)
