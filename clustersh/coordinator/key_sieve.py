"""Which idempotency keys were never used, told from memory: a Bloom filter."""

from __future__ import annotations

BITS = 1 << 25
"""4 MiB. Of new keys it takes one in 5000 for a used one beside a million of them, one in 100 beside three million."""
_EACH = 4


class KeySieve:
    """Tells of most new keys that they are new. It may take a new one for a used one, but never the other way round.

    Its size stays the same however many keys there are: beyond some ten million it only tells less.
    """

    def __init__(self, bits: int = BITS) -> None:
        self._bits = bytearray(bits // 8)
        self._mask = bits - 1

    def add(self, client_id: str, key: str) -> None:
        """Remember that the key is used."""
        for place in self._places(client_id, key):
            self._bits[place >> 3] |= 1 << (place & 7)

    def may_hold(self, client_id: str, key: str) -> bool:
        """Whether the key may be a used one; if not, it certainly is new."""
        return all(self._bits[place >> 3] & 1 << (place & 7) for place in self._places(client_id, key))

    def _places(self, client_id: str, key: str) -> list[int]:
        """Return the key's bits: from two halves of one hash, which nobody outside this process can foresee."""
        whole = hash((client_id, key))
        first, step = whole, whole >> 32 | 1
        return [(first + step * number) & self._mask for number in range(_EACH)]
