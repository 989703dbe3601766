"""A pod that goes on calling services of its namespace, and tells which calls were not answered as wanted."""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

from demo import claims
from tests.support.applied import Site

NAME = "caller"
PAUSE_SECONDS = 0.1
# A connection for each call, so that every call meets whichever pods the service has by then.
SCRIPT = """
import json, sys, time, urllib.error, urllib.request
calls = json.loads(sys.argv[1])
counts = [0] * len(calls)
while True:
    for number, call in enumerate(calls):
        body = None if call["body"] is None else json.dumps(call["body"]).encode()
        request = urllib.request.Request(call["url"], body, call["headers"])
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                seen = answer.status
        except urllib.error.HTTPError as error:
            seen = error.code
        except OSError as error:
            seen = repr(error)
        if seen == call["status"]:
            counts[number] += 1
        else:
            print("BROKEN", call["url"], seen, flush=True)
    print("ANSWERED", json.dumps(counts), flush=True)
    time.sleep(float(sys.argv[2]))
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One call, and the status that answers it; a POST where there is a body."""

    url: str
    status: int
    headers: Mapping[str, str]
    body: Mapping[str, Any] | None = None


class Caller:
    """The running pod."""

    def __init__(self, site: Site) -> None:
        self._site = site

    def answered(self) -> list[int]:
        """How often each call was answered as it should; empty before the first round."""
        counts = [line for line in self._lines() if line.startswith("ANSWERED ")]
        found: list[int] = json.loads(counts[-1].removeprefix("ANSWERED ")) if counts else []
        return found

    def broken(self) -> list[str]:
        """The calls that were answered otherwise, or not at all."""
        return [line for line in self._lines() if line.startswith("BROKEN ")]

    def _lines(self) -> Sequence[str]:
        return self._site.objects.log(NAME).splitlines()


@contextmanager
def calling(site: Site, image: str, calls: Sequence[Call]) -> Iterator[Caller]:
    """The pod, once every call has been answered; `image` has Python. The pod goes with the block."""
    arguments = ["-c", SCRIPT, json.dumps([asdict(call) for call in calls]), str(PAUSE_SECONDS)]
    container = {
        "name": NAME,
        "image": image,
        "command": ["python3", *arguments],
        "securityContext": {**claims.RESTRICTED, "runAsUser": 65532},
    }
    spec = {
        "automountServiceAccountToken": False,
        "terminationGracePeriodSeconds": 0,
        "containers": [container],
    }
    site.apply({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": NAME}, "spec": spec})
    caller = Caller(site)
    try:
        site.until(lambda: _runs(site) and min(caller.answered(), default=0) > 0, "Pod", NAME, "calls")
        yield caller
    finally:
        site.remove("Pod", NAME)


def _runs(site: Site) -> bool:
    return bool(site.objects.get("Pod", NAME)["status"].get("phase") == "Running")
