"""`python -m engine_double --config FILE --port N`; takes vLLM's arguments too: one pod spec starts both."""

import asyncio
import os
import signal
import sys

from aiohttp import web

from engine_double.configuration import Configuration, parse
from engine_double.recording import UNRECORDED, Recorder
from engine_double.server import Server

KEY_VARIABLE = "VLLM_API_KEY"  # vLLM's own name
SHUTDOWN_SECONDS = 5.0


async def serve(
    configuration: Configuration, host: str | None, port: int, recorder: Recorder = UNRECORDED
) -> None:
    """Listen until SIGTERM, after the delay that the faults ask for."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for signal_number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(signal_number, stop.set)
    try:
        async with asyncio.timeout(configuration.faults.start_delay_seconds):
            await stop.wait()
            return
    except TimeoutError:
        pass
    runner = web.AppRunner(
        Server(configuration, key=os.environ.get(KEY_VARIABLE), recorder=recorder).application(),
        access_log=None,
        handler_cancellation=True,
        shutdown_timeout=SHUTDOWN_SECONDS,
    )
    await runner.setup()
    # asyncio would take "::" for IPv6 alone; vLLM answers both families there.
    await web.TCPSite(runner, None if host == "::" else host, port, backlog=4096).start()
    print(f"engine double: {configuration.model} on port {port}", flush=True)
    await stop.wait()
    await runner.cleanup()


def main() -> None:
    """Read the arguments and serve."""
    configuration, options, ignored = parse(sys.argv[1:])
    if ignored:
        print(f"engine double: arguments without meaning here: {' '.join(ignored)}", flush=True)
    asyncio.run(serve(configuration, options.host, options.port))


if __name__ == "__main__":
    main()
