"""The WebSocket backend of bench/proxy.py: answers each frame of the bench's own size with its payload.

    python -m bench.proxy_echo        prints its port, serves until it is terminated

It knows that size and no other, so that next to nothing of a measured round trip is its own.
"""

import asyncio
import base64
import hashlib
import re

PAYLOAD_BYTES = 64
# RFC 6455: final binary frame; a client's is masked, with a key of zeroes the payload stays readable.
FRAME = b"\x82" + bytes([0x80 | PAYLOAD_BYTES]) + bytes(4) + b"e" * PAYLOAD_BYTES
REPLY = b"\x82" + bytes([PAYLOAD_BYTES]) + b"e" * PAYLOAD_BYTES
_ACCEPT_SALT = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_KEY = re.compile(rb"\r\nsec-websocket-key: *([^\r]+)", re.IGNORECASE)
_HEAD_BYTES_MAX = 16_384


class Echo(asyncio.Protocol):
    """One connection: the handshake, then frames."""

    def __init__(self) -> None:
        self._came = b""
        self._upgraded = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the way back."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """Answer what is complete."""
        self._came += data
        if self._upgraded:
            frames, rest = divmod(len(self._came), len(FRAME))
            self._came = self._came[len(self._came) - rest :]
            self._transport.write(REPLY * frames)
        elif b"\r\n\r\n" in self._came:
            self._upgrade()
        elif len(self._came) > _HEAD_BYTES_MAX:
            self._transport.abort()

    def _upgrade(self) -> None:
        key = _KEY.search(self._came)
        if key is None:
            self._transport.abort()
            return
        accept = base64.b64encode(hashlib.sha1(key[1] + _ACCEPT_SALT, usedforsecurity=False).digest())
        self._came, self._upgraded = b"", True
        self._transport.write(
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Accept: " + accept + b"\r\n\r\n"
        )


async def _serve() -> None:
    server = await asyncio.get_running_loop().create_server(Echo, "127.0.0.1", 0, backlog=2048)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(_serve())
