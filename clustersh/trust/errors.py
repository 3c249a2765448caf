"""What can be wrong with keys, certificates and pairings. Every message may be shown to a user."""

from __future__ import annotations


class TrustError(Exception):
    """A key, certificate or pairing can't be used; the message says why and what to do."""


class MissingCredentialsError(TrustError):
    """There is no key or certificate yet: this program was never enrolled or logged in."""


class ExposedKeyError(TrustError):
    """Other users may read a private key; the message says how to close it."""


class CertificateError(TrustError):
    """A certificate doesn't say who its holder is, or isn't usable now."""


class PairingError(TrustError):
    """A pairing request, nonce or commitment isn't what the pairing demands."""
