"""A booking desk in the cluster: it writes each booking down, and answers none until it is told to.

So tasks that book are in the middle of a call for as long as a test wants, and the test sees which effects
happened, and how often.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import httpx2

from tests.support.applied import Site
from tests.support.servers import server

NAME = "desk"
SERVER = """
import http.server, json, threading
booked, answers = [], threading.Event()
class Desk(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        booked.append(self.path)
        answers.wait()
        self.told()
    def do_PUT(self):
        answers.set()
        self.told()
    def do_GET(self):
        self.told()
    def told(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(json.dumps(booked).encode())
http.server.ThreadingHTTPServer(("", 8080), Desk).serve_forever()
"""
# The tool `book` of examples/agents/travel.py, at the desk.
TOOL = """
import urllib.request
import travel

def book(city: str, nights: int, idempotency_key: str) -> dict[str, object]:
    '''Books a room.'''
    urllib.request.urlopen(f"http://desk:8080/{idempotency_key}", b"").close()
    return travel.book(city, nights, idempotency_key)
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Desk:
    """The running desk."""

    client: httpx2.Client

    def booked(self) -> Sequence[str]:
        """The keys of the bookings so far, one for each time that it was booked."""
        keys: list[str] = self.client.get("/").raise_for_status().json()
        return keys

    def answer(self) -> None:
        """Answer what waits, and from now on at once."""
        self.client.put("/").raise_for_status()


@contextmanager
def desk(site: Site, image: str) -> Iterator[Desk]:
    """The desk as a service of the test's namespace; `image` has Python."""
    with server(site, image, NAME, SERVER) as client:
        yield Desk(client=client)
