"""Join tokens: a secret that lets a machine in, carried to it by a person and never sent over the network.

A token is ``<id>-<secret>``. The secret follows from the coordinator's own key and the id, so the coordinator keeps
no list of secrets. Both ends prove that they know it by an HMAC over the pairing's transcript (`transcript_hash`): it
is good for that one conversation, with that key and that CA, and tells whoever reads it nothing.
"""

from __future__ import annotations

import hashlib
import hmac
import re

import msgspec

TOKEN_VARIABLE = "CLUSTERSH_TOKEN"  # noqa: S105 - the name of the variable that a machine finds its token in
TOKEN_ID_BYTES = 6
_SECRET_BYTES = 20
"""160 bits: nobody searches for it, although the proof and all that it covers may be read on the way."""
_TOKEN = re.compile(rf"([0-9a-f]{{{2 * TOKEN_ID_BYTES}}})-([0-9a-f]{{{2 * _SECRET_BYTES}}})")

_SECRET_LABEL = b"clustersh join token 1: secret\0"
# Two labels: an impostor can't answer with the proof that it was just sent.
_ASKING_LABEL = b"clustersh join token 1: machine\0"
_ANSWERING_LABEL = b"clustersh join token 1: coordinator\0"


class JoinToken(msgspec.Struct, frozen=True):
    """A token; its *id* may be shown and recorded, its *secret* never."""

    id: str
    secret: bytes

    @property
    def text(self) -> str:
        """The token as a person carries it."""
        return f"{self.id}-{self.secret.hex()}"

    def proof(self, transcript: bytes) -> bytes:
        """Return what shows the coordinator, in the conversation of *transcript*, that the machine has the token."""
        return self._mac(_ASKING_LABEL, transcript)

    def answer(self, transcript: bytes) -> bytes:
        """Return what shows the machine that the coordinator is the one that made the token."""
        return self._mac(_ANSWERING_LABEL, transcript)

    def _mac(self, label: bytes, transcript: bytes) -> bytes:
        return hmac.digest(self.secret, label + transcript, hashlib.sha256)

    def __repr__(self) -> str:
        return f"JoinToken({self.id!r})"


def make_token(key: bytes, id_: str) -> JoinToken:
    """Return the token *id_* of the coordinator whose token key is *key*; the same again whenever it is asked."""
    secret = hmac.digest(key, _SECRET_LABEL + id_.encode(), hashlib.sha256)[:_SECRET_BYTES]
    return JoinToken(id_, secret)


def read_token(text: str) -> JoinToken:
    """Return the token that a person gave. Raises ValueError, whose message repeats nothing of it."""
    found = _TOKEN.fullmatch(text.strip().lower())
    if found is None:
        raise ValueError(
            f"that is no join token: {2 * TOKEN_ID_BYTES} hex digits, '-', and {2 * _SECRET_BYTES} hex digits"
        )
    return JoinToken(found[1], bytes.fromhex(found[2]))
