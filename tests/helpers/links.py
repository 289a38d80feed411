"""A TCP link to a server that is slow, or breaks at a chosen moment of a call."""

import asyncio
import contextlib
import random
import threading
from collections.abc import Iterator
from typing import Literal

Moment = Literal["before", "after", "in flight"]


class Link:
    """Forwards connections to a server on this machine; `port` is where it listens.

    Attributes:
        delay_s: every answer is held back for so long.
        breaks: when a call breaks, if it does: `before` the server has it, `after` the server has
            answered but before the answer arrives, or `in flight`, while the server works on it.
            Whoever called sees a lost connection, and cannot tell which it was.
        share: of the calls that break.
        num_broken: calls that broke.
    """

    def __init__(self, server_port: int, *, seed: int = 0) -> None:
        self._server_port = server_port
        self._random = random.Random(seed)
        self.port = 0
        self.delay_s = 0.0
        self.breaks: Moment | None = None
        self.share = 0.0
        self.num_broken = 0

    @contextlib.contextmanager
    def running(self) -> Iterator["Link"]:
        """Listens for the length of the block, in a thread of its own."""
        started = threading.Event()
        loop = asyncio.new_event_loop()
        stop = loop.create_future()

        async def listen() -> None:
            async with await asyncio.start_server(self._connection, "127.0.0.1", 0) as server:
                self.port = server.sockets[0].getsockname()[1]
                started.set()
                await stop

        thread = threading.Thread(target=lambda: loop.run_until_complete(listen()))
        thread.start()
        started.wait()
        try:
            yield self
        finally:
            loop.call_soon_threadsafe(stop.set_result, None)
            thread.join()

    async def _connection(
        self, client: asyncio.StreamReader, to_client: asyncio.StreamWriter
    ) -> None:
        try:
            server, to_server = await asyncio.open_connection("127.0.0.1", self._server_port)
        except OSError:  # the server is down
            to_client.transport.abort()
            return
        ends = (to_client, to_server)
        await asyncio.wait(
            [
                asyncio.ensure_future(self._requests(client, ends)),
                asyncio.ensure_future(self._answers(server, ends)),
            ],
            return_when=asyncio.ALL_COMPLETED,
        )

    async def _requests(
        self, client: asyncio.StreamReader, ends: tuple[asyncio.StreamWriter, asyncio.StreamWriter]
    ) -> None:
        to_client, to_server = ends
        with contextlib.suppress(OSError):
            while data := await client.read(1 << 16):
                breaks = self._breaks("before", "in flight")
                if breaks != "before":
                    to_server.write(data)
                    await to_server.drain()
                if breaks is not None:
                    if breaks == "in flight":
                        await asyncio.sleep(0.01)  # the server has it and goes on by itself
                    to_client.transport.abort()
                    break
        to_server.close()

    async def _answers(
        self, server: asyncio.StreamReader, ends: tuple[asyncio.StreamWriter, asyncio.StreamWriter]
    ) -> None:
        to_client, _ = ends
        with contextlib.suppress(OSError):
            while data := await server.read(1 << 16):
                if self.delay_s:
                    await asyncio.sleep(self.delay_s)
                if self._breaks("after") is not None:
                    to_client.transport.abort()
                    break
                to_client.write(data)
                await to_client.drain()
        to_client.close()

    def _breaks(self, *moments: Moment) -> Moment | None:
        if self.breaks not in moments or self._random.random() >= self.share:
            return None
        self.num_broken += 1
        return self.breaks
