import os
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from clustersh.trust import keys
from clustersh.trust.errors import MissingCredentialsError, TrustError

posix_only = pytest.mark.skipif(os.name != "posix", reason="file modes are POSIX")


def test_a_key_is_read_as_it_was_saved(tmp_path: Path) -> None:
    key = keys.generate()
    keys.save(tmp_path / "new" / "key.pem", key)
    assert keys.load(tmp_path / "new" / "key.pem").private_numbers() == key.private_numbers()


@posix_only
def test_a_saved_key_is_its_owners_alone_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        keys.save(tmp_path / "key.pem", keys.generate())
    finally:
        os.umask(before)
    assert (tmp_path / "key.pem").stat().st_mode & 0o777 == 0o600


@posix_only
@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o644])
def test_a_key_open_to_others_is_refused_with_the_chmod(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "key.pem"
    keys.save(path, keys.generate())
    path.chmod(mode)
    with pytest.raises(TrustError, match=f"chmod 600 {path}"):
        keys.load(path)


def write(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    path.chmod(0o600)
    return path


def test_damaged_large_missing_or_other_files_are_refused(tmp_path: Path) -> None:
    other = ec.generate_private_key(ec.SECP384R1())
    pem = other.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    with pytest.raises(TrustError, match="P-256"):
        keys.load(write(tmp_path / "p384.pem", pem))
    with pytest.raises(TrustError, match="damaged"):
        keys.load(write(tmp_path / "empty.pem", b""))
    with pytest.raises(TrustError, match="over 65536 bytes"):
        keys.load(write(tmp_path / "large.pem", b"x" * 70_000))
    with pytest.raises(TrustError, match="can't read"):
        keys.load(tmp_path)
    with pytest.raises(MissingCredentialsError, match=r"nothing\.pem"):
        keys.load(tmp_path / "nothing.pem")


def test_an_error_tells_no_secret(tmp_path: Path) -> None:
    path = write(tmp_path / "key.pem", b"-----BEGIN PRIVATE KEY-----\nSECRET\n-----END PRIVATE KEY-----\n")
    with pytest.raises(TrustError) as caught:
        keys.load(path)
    assert "SECRET" not in str(caught.value)
