"""What a request costs in the router: processor time of HAProxy a request, by how the replica is chosen.

    python benchmarks/router/throughput.py --seconds 5

One HAProxy is the router, rendered as for a pod; another answers at once in the place of four engines; wrk
sends. Processor time is what to look at: wrk and the engines share the machine's cores with the router.
The last line of the output is one JSON object. Needs haproxy and wrk.
"""

import argparse
import asyncio
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from flotilla_runtime.contract import RouterConfig, ServerState
from flotilla_runtime.router.__main__ import write_files
from flotilla_runtime.router.admin_socket import AdminSocket
from flotilla_runtime.router.files import RunFiles
from flotilla_runtime.router.pods import Replica
from flotilla_runtime.router.servers import Desired, plan

REPLICAS = 4
CONNECTIONS = 64
TURN = "word " * 100  # about 500 bytes
ENGINES_CONFIG = """
global
    nbthread 1
    maxconn 4000
defaults
    mode http
    timeout client 30s
frontend engines
    bind 127.0.1.0:{port}
{binds}
    http-request return status 200 content-type application/json string {{}}
"""


def body(turns: int) -> str:
    """A chat of so many turns with a system prompt of 500 bytes; every request is another conversation."""
    messages = [{"role": "system", "content": TURN}, {"role": "user", "content": "@NUMBER@"}]
    messages += [{"role": "assistant", "content": TURN}] * turns
    return json.dumps({"model": "m", "messages": messages})


SCENARIOS = {
    "no key, 4 KB": ("/v1/embeddings", {}, body(6)),
    "session header, 4 KB": ("/v1/chat/completions", {"X-Session-Id": "@NUMBER@"}, body(6)),
    "key in the body, 4 KB": ("/v1/chat/completions", {}, body(6)),
    "key in the body, 200 KB": ("/v1/chat/completions", {}, body(400)),
}


def wrk_script(path: str, headers: dict[str, str], text: str) -> str:
    """A wrk script that puts a new number into each request; long bodies are made once in a few variants."""
    lines = "".join(f'headers["{name}"] = fill("{value}", i)\n' for name, value in headers.items())
    return f"""
local body = [==[{text}]==]
local function fill(template, i) return (template:gsub("@NUMBER@", tostring(i))) end
local made, at = {{}}, 0
init = function()
  for i = 1, 500 do
    local headers = {{["Content-Type"] = "application/json"}}
    {lines}
    made[i] = wrk.format("POST", "{path}", headers, fill(body, i))
  end
end
request = function()
  at = at % 500 + 1
  return made[at]
end
"""


@contextmanager
def haproxy(config: Path) -> Iterator[int]:
    """Runs HAProxy without a master; gives its process id."""
    process = subprocess.Popen(["haproxy", "-db", "-f", str(config)], stdout=subprocess.DEVNULL)
    try:
        time.sleep(1)
        yield process.pid
    finally:
        process.terminate()
        process.wait()


def processor_seconds(process: int) -> float:
    """User and system time of one process."""
    fields = Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def add_replicas(config: RouterConfig) -> None:
    """What the agent would do."""
    replicas = tuple(
        Replica(name=f"r{number}", id=number, ip=f"127.0.1.{number}", state=ServerState.READY)
        for number in range(1, REPLICAS + 1)
    )
    socket = AdminSocket(RunFiles(config.run_directory))
    observed = await socket.observe(with_keys=False)
    refused = await socket.execute(plan(config, Desired(replicas=replicas), observed))
    assert not refused, refused


def measure(script: Path, router: int, url: str, seconds: int) -> dict[str, float]:
    """Requests a second and processor microseconds a request."""
    before = processor_seconds(router)
    command = ["wrk", "-t1", f"-c{CONNECTIONS}", f"-d{seconds}s", "-s", str(script), url]
    output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    spent = processor_seconds(router) - before
    requests = int(re.search(r"(\d+) requests in", output)[1])  # type: ignore[index]
    assert "Non-2xx" not in output, output
    return {"requests_per_second": requests / seconds, "microseconds_per_request": 1e6 * spent / requests}


def main() -> int:
    """Measures every scenario."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=int, default=5)
    parser.add_argument("--port", type=int, default=18400)
    options = parser.parse_args()
    results = {}
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        port, engine_port = options.port, options.port + 3
        config = RouterConfig(
            name="m",
            namespace="bench",
            models=("m",),
            engine_selector={"app": "m"},
            router_selector={"app": "r"},
            run_directory=name,
            port=port,
            metrics_port=port + 1,
            agent_port=port + 2,
            engine_port=engine_port,
            max_num_seqs=1000,
        )
        write_files(config, directory)
        binds = "\n".join(f"    bind 127.0.1.{number}:{engine_port}" for number in range(1, REPLICAS + 1))
        (directory / "engines.cfg").write_text(ENGINES_CONFIG.format(port=engine_port, binds=binds))
        with haproxy(directory / "engines.cfg"), haproxy(directory / "haproxy.cfg") as router:
            asyncio.run(add_replicas(config))
            for scenario, (path, headers, text) in SCENARIOS.items():
                script = directory / "wrk.lua"
                script.write_text(wrk_script(path, headers, text))
                url = f"http://127.0.0.1:{port}"
                results[scenario] = measure(script, router, url, options.seconds)
                print(scenario, {key: round(value) for key, value in results[scenario].items()})
    print(json.dumps(results))
    return 0


if __name__ == "__main__":
    sys.exit(main())
