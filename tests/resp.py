"""Where one RESP reply ends and the next begins (https://redis.io/docs/latest/develop/reference/protocol-spec/)."""

from __future__ import annotations

AGGREGATES = {b"*": 1, b"~": 1, b">": 1, b"%": 2}  # frames that follow, per unit of the count
BULKS = (b"$", b"=", b"!")


class FrameSplitter:
    """Cuts a stream of RESP2 or RESP3 bytes into whole frames; an unfinished one waits for its rest."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> list[bytes]:
        """The frames that `data` completes, in order, each with all its bytes."""
        self._rest += data
        frames, start = [], 0
        while (end := frame_end(self._rest, start)) is not None:
            frames.append(self._rest[start:end])
            start = end
        self._rest = self._rest[start:]
        return frames


def frame_end(data: bytes, start: int) -> int | None:
    """The index just after the frame that begins at `start`; None while it is not all there."""
    line_end = data.find(b"\r\n", start)
    if line_end < 0:
        return None
    kind, text, end = data[start : start + 1], data[start + 1 : line_end], line_end + 2
    if kind in BULKS:
        end += int(text) + 2 if int(text) >= 0 else 0
        return end if end <= len(data) else None
    return _aggregate_end(data, end, int(text) * AGGREGATES[kind]) if kind in AGGREGATES else end


def _aggregate_end(data: bytes, end: int, parts: int) -> int | None:
    for _ in range(parts):
        next_end = frame_end(data, end)
        if next_end is None:
            return None
        end = next_end
    return end
