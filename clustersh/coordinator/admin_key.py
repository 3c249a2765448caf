"""The admin's key and certificate: made at the first start, for the coordinator's own user."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from cryptography.x509 import load_der_x509_certificate
from twisted.logger import Logger

from ..home import private_folder
from ..trust.authority import Authority
from ..trust.credentials import Credentials
from ..trust.errors import ExposedKeyError, TrustError
from ..trust.identity import Identity, Role, fingerprint
from ..trust.keys import generate
from ..wire.problems import ProblemError
from .registry import Registry


async def let_admin_in(folder: Path, registry: Registry, authority: Authority) -> None:
    """See that the admin's certificate in *folder*/admin is trusted, and no other one; make it where there is none.

    Raises ExposedKeyError where others may read its key.
    """
    folder = private_folder(folder / "admin")
    try:
        held = Credentials.load(folder, datetime.now(UTC))
        mark = fingerprint(held.certificate)
        registry.check(Identity.from_certificate(held.certificate), mark)
    except ExposedKeyError:
        raise
    except (TrustError, ProblemError):
        Logger().info("making a certificate for the admin")
        key = generate()
        mark = fingerprint(key.public_key())
        name = f"admin-{mark[:8]}"
        certificate = await registry.register(Role.ADMIN, name, key.public_key(), mark, "", "first start")
        Credentials(key, load_der_x509_certificate(certificate), authority.certificate).save(folder)
    await registry.revoke_other_admins(mark)
