"""A TCP proxy in front of a server of the testbed, to break the connection to it while the server itself stays up."""

from __future__ import annotations

import asyncio
import socket
import ssl
import struct
import threading

from .process import free_ports


class TcpProxy:
    """Listens on a port of 127.0.0.1 and passes bytes to another one. It can

    `passing()`    pass everything, as it does at first
    `cut()`        reset all connections, and refuse new ones
    `blackhole()`  keep connections and take new ones, but pass not one byte, in neither direction

    The target may be set later: a broker has to be told the proxy's port before its own is known. With `tls` it speaks TLS
    before a server that does not."""

    def __init__(self, target: int | None = None, tls: ssl.SSLContext | None = None):
        [self.port] = free_ports(1)
        self.tls = tls
        self.target = target
        self.accepted = 0  # connections so far
        self.taken: list[int] = []  # bytes that came in, per connection in the order in which they were accepted
        self._connections: set[tuple[asyncio.StreamWriter, asyncio.StreamWriter]] = set()
        self._loop = asyncio.new_event_loop()
        self._listener: asyncio.Server | None = None
        self._flow = asyncio.Event()  # set: bytes may pass
        self._flow.set()
        self._thread = threading.Thread(target=self._loop.run_forever, name=f"proxy-{self.port}", daemon=True)
        self._thread.start()
        self.passing()

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    # --- what it does with the bytes
    def passing(self) -> "TcpProxy":
        return self._do(self._passing())

    def cut(self) -> "TcpProxy":
        return self._do(self._cut())

    def blackhole(self) -> "TcpProxy":
        return self._do(self._blackhole())

    @property
    def connections(self) -> int:
        """How many are open."""
        return len(self._connections)

    def close(self) -> None:
        if self._thread.is_alive():
            self.cut()
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(10)
            self._loop.close()

    def __enter__(self) -> "TcpProxy":
        return self

    def __exit__(self, *_) -> None:
        self.close()

    # --- inside the loop
    def _do(self, work) -> "TcpProxy":
        asyncio.run_coroutine_threadsafe(work, self._loop).result(10)
        return self

    async def _passing(self) -> None:
        self._flow.set()
        if self._listener is None:
            self._listener = await asyncio.start_server(self._serve, "127.0.0.1", self.port, ssl=self.tls)

    async def _blackhole(self) -> None:
        await self._passing()
        self._flow.clear()

    async def _cut(self) -> None:
        if self._listener is not None:
            self._listener.close()
            self._listener = None
        for pair in list(self._connections):
            for writer in pair:
                _reset(writer)
        self._flow.set()  # so that whoever waited finds its connection gone

    async def _serve(self, near_reader: asyncio.StreamReader, near: asyncio.StreamWriter) -> None:
        self.accepted += 1
        self.taken.append(0)
        place = len(self.taken) - 1
        try:
            await self._flow.wait()
            far_reader, far = await asyncio.open_connection("127.0.0.1", self.target)
        except OSError:
            _reset(near)
            return
        if near.is_closing():
            _reset(far)
            return
        pair = (near, far)
        self._connections.add(pair)
        try:
            await asyncio.gather(self._pump(near_reader, far, place), self._pump(far_reader, near))
        finally:
            self._connections.discard(pair)
            for writer in pair:
                writer.close()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, place: int | None = None) -> None:
        try:
            while data := await reader.read(1 << 18):
                if place is not None:
                    self.taken[place] += len(data)
                await self._flow.wait()
                writer.write(data)
                await writer.drain()
            writer.write_eof()
        except (OSError, RuntimeError):  # one side is gone, so the other has to go as well
            _reset(writer)


def _reset(writer: asyncio.StreamWriter) -> None:
    """Ends a connection the hard way: the other side gets a reset, not an end of file."""
    sock = writer.get_extra_info("socket")
    if sock is not None and sock.fileno() >= 0:
        try:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        except OSError:
            pass
    writer.transport.abort()
