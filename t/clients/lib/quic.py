# Copyright (C) the ngx_http_llm_stream_module authors
# SPDX-License-Identifier: BSD-2-Clause

"""
A client of HTTP/3 for lib/quic.mjs: orders and answers are lines of JSON.

    {"id": 1, "url": "https://...", "headers": {...}, "body": "..."}
        a request, over a connection of its own
    {"id": 1, "leave": "stop"}
        its client leaves: "stop" takes no more of the answer (STOP_SENDING),
        "reset" takes back the request too (RESET_STREAM), "close" closes the
        connection

    {"id": 1, "ready": true}                 it is sent
    {"id": 1, "status": 200, "headers": {}}
    {"id": 1, "data": "..."}                 bytes as characters
    {"id": 1, "end": "fin"}                  or "reset", "closed", "left"
"""

import asyncio
import json
import ssl
import sys
from urllib.parse import urlsplit

from aioquic.asyncio.client import connect
from aioquic.asyncio.protocol import QuicConnectionProtocol
from aioquic.h3.connection import H3_ALPN, ErrorCode, H3Connection
from aioquic.h3.events import DataReceived, HeadersReceived
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.events import ConnectionTerminated, StreamReset

# a connection that stays behind a stream that was left: it must not be what
# tells nginx so
STAY_S = 5


class Exchange(QuicConnectionProtocol):

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.http = H3Connection(self._quic)
        self.stream = None
        self.over = asyncio.Event()

    def ask(self, order):
        url = urlsplit(order["url"])
        path = url.path + ("?" + url.query if url.query else "")

        self.id = order["id"]
        self.stream = self._quic.get_next_available_stream_id()
        self.http.send_headers(self.stream, [
            (b":method", b"POST"), (b":scheme", b"https"),
            (b":authority", url.netloc.encode()), (b":path", path.encode()),
            *((name.encode(), value.encode())
              for name, value in order["headers"].items())])
        self.http.send_data(self.stream, order["body"].encode(), True)
        self.transmit()
        self.say(ready=True)

    def leave(self, how):
        if self.over.is_set():
            return

        if how == "close":
            self._quic.close()
        else:
            self._quic.stop_stream(self.stream, ErrorCode.H3_REQUEST_CANCELLED)

        if how == "reset":
            self._quic.reset_stream(self.stream,
                                    ErrorCode.H3_REQUEST_CANCELLED)

        self.transmit()
        self.end("left")

    def quic_event_received(self, event):
        if isinstance(event, ConnectionTerminated):
            self.end("closed")

        elif isinstance(event, StreamReset) and event.stream_id == self.stream:
            self.end("reset")

        else:
            for part in self.http.handle_event(event):
                self.part_received(part)

    def part_received(self, part):
        if isinstance(part, HeadersReceived):
            headers = {name.decode(): value.decode("latin1")
                       for name, value in part.headers}
            self.say(status=int(headers[":status"]), headers=headers)

        elif isinstance(part, DataReceived) and part.data:
            self.say(data=part.data.decode("latin1"))

        if getattr(part, "stream_ended", False):
            self.end("fin")

    def end(self, how):
        if not self.over.is_set():
            self.say(end=how)
            self.over.set()

    def say(self, **what):
        if self.stream is not None and not self.over.is_set():
            print(json.dumps({"id": self.id, **what}), flush=True)


async def run(order, exchanges):
    url = urlsplit(order["url"])
    configuration = QuicConfiguration(is_client=True, alpn_protocols=H3_ALPN,
                                      verify_mode=ssl.CERT_NONE)

    try:
        async with connect(url.hostname, url.port,
                           configuration=configuration,
                           create_protocol=Exchange) as exchange:
            exchanges[order["id"]] = exchange
            exchange.ask(order)
            await exchange.over.wait()

            if "left" in order:
                await asyncio.sleep(STAY_S)

    except (ConnectionError, OSError) as error:
        print(json.dumps({"id": order["id"], "end": str(error) or "closed"}),
              flush=True)

    finally:
        exchanges.pop(order["id"], None)


async def main():
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader(limit=64 * 1024 * 1024)
    orders = {}
    exchanges = {}
    tasks = set()

    await loop.connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)

    while line := await reader.readline():
        order = json.loads(line)

        if "leave" in order:
            orders[order["id"]]["left"] = True

            if order["id"] in exchanges:
                exchanges[order["id"]].leave(order["leave"])

            continue

        orders[order["id"]] = order
        task = asyncio.create_task(run(order, exchanges))
        tasks.add(task)
        task.add_done_callback(tasks.discard)


asyncio.run(main())
