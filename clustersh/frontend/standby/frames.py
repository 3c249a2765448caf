"""What travels between a launcher and its standby: small frames over a Unix socket of one user's own.

No more than the interpreter itself is imported: the launcher's start is what every command pays.
"""

# The launcher's.
HELLO, CALL, ACK, FAILED, STDIN, STDIN_FAILED, SIGNAL, SIZE, ASK, STOP = range(1, 11)
# The standby's.
READY, OUT, ERR, READ, TOLD, EXIT, STATE = range(65, 72)

PIECE = 64 << 10
"""Bytes of a stream that one frame carries."""
WINDOW = 4 * PIECE
"""Bytes that a launcher may have been sent and not yet written."""
LARGEST = 8 << 20
"""Bytes of any frame: a call has its arguments in it, and the kernel's own limit for those is below."""
_HEADER = 5


def frame(kind: int, payload: bytes | memoryview = b"") -> bytes:
    """Return *payload* as it travels."""
    return b"".join((bytes((kind,)), len(payload).to_bytes(4, "big"), payload))


def number(kind: int, *values: int) -> bytes:
    """Return a frame of *values*, each at most 32 bits."""
    return frame(kind, b"".join(value.to_bytes(4, "big") for value in values))


def numbers(payload: bytes) -> list[int]:
    """Return what `number` was given."""
    return [int.from_bytes(payload[at : at + 4], "big") for at in range(0, len(payload) - 3, 4)]


def pack(fields: list[bytes]) -> bytes:
    """Return *fields* as one payload."""
    return b"".join(part for field in fields for part in (len(field).to_bytes(4, "big"), field))


def unpack(payload: bytes) -> list[bytes]:
    """Return the fields of *payload*. Raises ValueError where it is cut off."""
    fields, at = [], 0
    while at < len(payload):
        size = int.from_bytes(payload[at : at + 4], "big")
        field = payload[at + 4 : at + 4 + size]
        if len(payload) < at + 4 or len(field) < size:
            raise ValueError("a field is cut off")
        fields.append(field)
        at += 4 + size
    return fields


class Frames:
    """Takes bytes as they come, and gives whole frames."""

    def __init__(self) -> None:
        self._rest = bytearray()

    def feed(self, data: bytes) -> list[tuple[int, bytes]]:
        """Return the (kind, payload) that *data* makes whole. Raises ValueError for what is too large."""
        rest, found, at = self._rest, [], 0
        rest += data
        while len(rest) - at >= _HEADER:
            size = int.from_bytes(rest[at + 1 : at + _HEADER], "big")
            if size > LARGEST:
                raise ValueError(f"a frame of {size} bytes")
            if len(rest) - at - _HEADER < size:
                break
            found.append((rest[at], bytes(rest[at + _HEADER : at + _HEADER + size])))
            at += _HEADER + size
        del rest[:at]
        return found
