import hashlib

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.hashes import SHA256, SHA512
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given
from hypothesis import strategies as st

from clustersh.trust import keys
from clustersh.trust.errors import PairingError, TrustError
from clustersh.trust.identity import Role, fingerprint
from clustersh.trust.pairing import (
    PairingCode,
    commitment,
    make_request,
    new_nonce,
    opens,
    read_request,
    transcript_hash,
)

KEY = keys.generate()
REQUEST = make_request(KEY, "joshua@mba", Role.FRONTEND)

roles = st.sampled_from(Role)
nonces = st.binary(min_size=32, max_size=32)
transcripts = st.tuples(roles, st.binary(max_size=40), st.binary(max_size=40), nonces, nonces)


def request_with(
    *uris: str, key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey = KEY, hash_: SHA256 | SHA512 | None = None
) -> bytes:
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    if uris:
        names = [x509.UniformResourceIdentifier(uri) for uri in uris]
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    return builder.sign(key, hash_ or SHA256()).public_bytes(Encoding.DER)


@pytest.mark.parametrize("name", ["joshua@mba", "ws1", "a" * 129, "Jörg's iMac: büro"])
def test_a_request_says_its_key_name_and_role(name: str) -> None:
    request = read_request(make_request(KEY, name, Role.AGENT))
    assert (request.name, request.role) == (name, Role.AGENT)
    assert fingerprint(request.public_key) == fingerprint(KEY.public_key())


def test_a_changed_byte_is_noticed() -> None:
    for position in range(0, len(REQUEST), 7):  # its length isn't always the same: a signature's isn't
        changed = bytearray(REQUEST)
        changed[position] ^= 1
        with pytest.raises(PairingError):
            read_request(bytes(changed))


def test_another_key_in_the_request_is_noticed() -> None:
    # The man in the middle puts his key, of the same form, in place of the caller's.
    own, his = (
        key.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint) for key in (KEY, keys.generate())
    )
    assert own in REQUEST
    with pytest.raises(PairingError, match="signed by its own key"):
        read_request(REQUEST.replace(own, his))


@given(st.binary(max_size=600))
def test_noise_is_refused(noise: bytes) -> None:
    with pytest.raises(PairingError):
        read_request(noise)


@given(st.integers(0, len(REQUEST) - 1), st.binary(max_size=12), st.integers(0, 12))
def test_a_spliced_request_is_refused_or_says_the_same_key(at: int, piece: bytes, cut: int) -> None:
    try:
        request = read_request(REQUEST[:at] + piece + REQUEST[at + cut :])
    except PairingError:
        return
    assert fingerprint(request.public_key) == fingerprint(KEY.public_key())
    assert request.name == "joshua@mba"


def test_other_requests_are_refused() -> None:
    good = "urn:clustersh:request:agent:ws1"
    assert read_request(request_with(good)).name == "ws1"
    for der, words in [
        (REQUEST + b"\0", "can't be read"),
        (REQUEST + bytes(8192), "8192 are allowed"),
        (request_with(good, key=ec.generate_private_key(ec.SECP384R1())), "P-256"),
        (request_with(good, key=rsa.generate_private_key(65537, 2048)), "P-256"),
        (request_with(good, hash_=SHA512()), "signed"),
        (request_with(), "one name and role"),
        (request_with(good, good), "one name and role"),
        (request_with("urn:clustersh:agent:1:ws1"), "one name and role"),
        (request_with("urn:clustersh:request:root:ws1"), "one name and role"),
        (request_with("urn:clustersh:request:agent:%1b%5b2J"), "one name and role"),
        (request_with("urn:clustersh:request:agent:"), "one name and role"),
        (request_with("urn:clustersh:request:admin:ws1"), "role admin"),
        (request_with("urn:clustersh:request:server:ws1"), "role server"),
    ]:
        with pytest.raises(PairingError, match=words):
            read_request(der)


@pytest.mark.parametrize("role", [Role.ADMIN, Role.SERVER])
def test_a_privileged_role_is_not_asked_for(role: Role) -> None:
    with pytest.raises(PairingError, match="can't be asked for"):
        make_request(KEY, "me", role)


def test_a_bad_name_is_not_asked_for() -> None:
    with pytest.raises(TrustError, match="can't be a name"):
        make_request(KEY, "a\tb", Role.AGENT)


def test_a_commitment_opens_by_its_own_nonce_only() -> None:
    nonce = new_nonce()
    assert len(nonce) == 32 and nonce != new_nonce()
    assert opens(commitment(nonce), nonce)
    assert not opens(commitment(nonce), new_nonce())
    assert not opens(commitment(nonce)[:16], nonce)
    short = nonce[:31]
    assert not opens(hashlib.sha256(short).digest(), short)
    with pytest.raises(PairingError, match="32 bytes, not 31"):
        commitment(short)


@given(transcripts, transcripts)
def test_two_transcripts_hash_alike_only_if_they_are_alike(
    one: tuple[Role, bytes, bytes, bytes, bytes], other: tuple[Role, bytes, bytes, bytes, bytes]
) -> None:
    assert (transcript_hash(*one) == transcript_hash(*other)) == (one == other)


@given(transcripts, st.data())
def test_any_changed_input_changes_the_hash(
    fields: tuple[Role, bytes, bytes, bytes, bytes], data: st.DataObject
) -> None:
    role, request, ca, client, server = fields
    before = transcript_hash(*fields)
    other = data.draw(nonces.filter(lambda nonce: nonce not in (client, server)))
    changed_role = data.draw(roles.filter(lambda drawn: drawn is not role))
    assert before not in {
        transcript_hash(changed_role, request, ca, client, server),
        transcript_hash(role, request + b"\0", ca, client, server),
        transcript_hash(role, request, ca + b"\0", client, server),
        transcript_hash(role, request, ca, other, server),
        transcript_hash(role, request, ca, client, other),
    }


@given(st.binary(max_size=60), st.integers(0, 60), st.integers(0, 60), nonces)
def test_no_byte_passes_from_the_request_to_the_ca(joined: bytes, one: int, other: int, nonce: bytes) -> None:
    cuts = [(joined[:at], joined[at:]) for at in (one, other)]
    hashes = [transcript_hash(Role.AGENT, request, ca, nonce, nonce) for request, ca in cuts]
    assert (hashes[0] == hashes[1]) == (cuts[0] == cuts[1])


def test_swapped_nonces_change_the_hash() -> None:
    one, other = bytes(32), bytes([1]) * 32
    assert transcript_hash(Role.AGENT, b"r", b"c", one, other) != transcript_hash(Role.AGENT, b"r", b"c", other, one)


@pytest.mark.parametrize("length", [0, 31, 33])
def test_a_nonce_of_another_length_is_refused(length: int) -> None:
    for nonces_ in ((bytes(length), bytes(32)), (bytes(32), bytes(length))):
        with pytest.raises(PairingError, match=f"not {length}"):
            transcript_hash(Role.AGENT, b"r", b"c", *nonces_)


def test_the_code_is_known_for_a_known_transcript() -> None:
    # Written out by hand, so that both ends stay able to pair across versions.
    fields = [b"clustersh pairing 1", b"agent", b"request", b"ca", bytes(32), bytes([1]) * 32]
    expected = hashlib.sha256(b"".join(len(f).to_bytes(8, "big") + f for f in fields)).hexdigest()
    code = PairingCode.of(transcript_hash(Role.AGENT, b"request", b"ca", bytes(32), bytes([1]) * 32))
    assert code == PairingCode(expected[:8], expected[8:12])
