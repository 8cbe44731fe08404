"""``ragate run``: the gateway and a surrogate site on this machine, and the story told with them.

What lives here: choosing the ground, starting and ending everything in order, the exit code. What must not: the
story's steps.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import socket
import sys
import time
from collections.abc import Coroutine
from contextlib import AsyncExitStack, ExitStack, suppress
from typing import TextIO

from gateway.simulate.child import NO_NAMESPACE
from gateway.simulate.ground import Ground, loopback_ground, namespace_ground
from gateway.simulate.namespaces import NamespacesUnavailableError
from gateway.simulate.screen import Screen
from gateway.simulate.service import Api, Service, ServiceError
from gateway.simulate.site import Site
from gateway.simulate.sockets import Peer, listener, own_namespace
from gateway.simulate.story import StepFailedError, Story

CONSOLE_PORT = 8080
"""First choice for the console; the next free port is taken when it is in use."""

CONSOLE_TRIES = 100
_BACKLOG = 128

EXIT_FAILED = 1
EXIT_INTERRUPTED = 128 + signal.SIGINT


def run(once: bool, *, out: TextIO = sys.stdout) -> int:
    """Run site and gateway; tell the story on ``out``; then keep running until interrupted, unless ``once``.

    As root the calling thread moves into a mount namespace of its own, for good: meant to be all that its
    process does. Returns the exit code: 0 the story happened, 1 a step did not (or the gateway ended), 130
    interrupted before the end of the story.
    """
    screen = Screen(out, time.monotonic())
    try:
        with ExitStack() as stack:
            console = stack.enter_context(_console_listener())
            ground = _ground(stack)
            return asyncio.run(_main(ground, console, screen, once=once))
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    except (OSError, NamespacesUnavailableError) as error:
        screen.failed("the surrogate site is set up", str(error))
        return EXIT_FAILED


def _console_listener() -> socket.socket:
    """Listen for the console, in the namespace of whoever looks at it. Raises ``OSError``."""
    ports = range(CONSOLE_PORT, CONSOLE_PORT + CONSOLE_TRIES)
    for port in ports:
        with suppress(OSError):
            return listener(own_namespace, Peer("127.0.0.1", port), _BACKLOG)
    msg = f"no free port for the console between {ports[0]} and {ports[-1]}"
    raise OSError(msg)


def _ground(stack: ExitStack) -> Ground:
    if os.geteuid() != 0:
        return stack.enter_context(loopback_ground("not root: no namespaces, a relay is the path gate"))
    try:
        return stack.enter_context(namespace_ground())
    except NamespacesUnavailableError as error:
        return stack.enter_context(loopback_ground(f"no namespaces here ({error}): a relay is the path gate"))


async def _main(ground: Ground, console: socket.socket, screen: Screen, *, once: bool) -> int:
    _cancel_on_signals()
    told = asyncio.Event()
    try:
        return await _report(_play(ground, console, screen, told, once=once), screen)
    except asyncio.CancelledError:
        screen.say("" if told.is_set() else "\ninterrupted")
        return 0 if told.is_set() else EXIT_INTERRUPTED


async def _report(play: Coroutine[None, None, None], screen: Screen) -> int:
    """Await ``play`` and show what went wrong, if anything did."""
    try:
        await play
    except* (StepFailedError, ServiceError) as failed:
        wrong = failed.exceptions
    else:
        return 0
    for error in wrong:
        if isinstance(error, StepFailedError):
            screen.failed(error.step, error.instead)
        else:
            screen.failed("the gateway runs", str(error))
    return EXIT_FAILED


def _cancel_on_signals() -> None:
    """End the calling task on Ctrl-C or SIGTERM. A second signal changes nothing: ending is bounded."""
    task = asyncio.current_task()
    assert task is not None
    asked = False

    def end() -> None:
        nonlocal asked
        if not asked:
            asked = True
            task.cancel()

    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, end)


async def _play(ground: Ground, console: socket.socket, screen: Screen, told: asyncio.Event, *, once: bool) -> None:
    async with AsyncExitStack() as parts:
        site = Site.build(ground, Peer(*console.getsockname()))
        _introduce(ground, screen)
        await site.open_appserver()
        parts.push_async_callback(site.appserver.close)
        api = await parts.enter_async_context(Api(site.console))
        service = await Service.start(site.config, console.fileno(), ground.namespace)
        parts.push_async_callback(service.stop)
        console.close()  # with the gateway dead, a look at the console must fail rather than wait
        await service.ready(api)
        screen.note(f"gateway ready, process {service.pid}")
        screen.say()
        screen.titles()
        story = Story(site, api, screen)
        async with asyncio.TaskGroup() as group:
            running = [group.create_task(device.run(), name=device.id) for device in site.devices.values()]
            running.append(group.create_task(story.keep_attesting(), name="re-attestation"))
            running.append(group.create_task(_fail_when_ended(service), name="gateway process"))
            await story.tell()
            told.set()
            if not once:
                _show_ways_in(site, service, api, screen)
                await asyncio.Event().wait()
            for task in running:
                task.cancel()


async def _fail_when_ended(service: Service) -> None:
    raise await service.ended()


def _introduce(ground: Ground, screen: Screen) -> None:
    where = "network namespaces" if ground.gate == "nft" else "loopback addresses"
    gate = "nftables" if ground.gate == "nft" else "a userspace relay"
    screen.say(f"ragate: {len(ground.devices)} surrogate devices on {where}, path gate: {gate}")
    for remark in ground.remarks:
        screen.note(remark)


def _show_ways_in(site: Site, service: Service, api: Api, screen: Screen) -> None:
    screen.say()
    screen.say("The site keeps running; Ctrl-C ends it and leaves nothing behind.")
    # The private mount namespace can be looked into only through a process that lives in it.
    inside = f"/proc/{service.pid}/root" if site.ground.namespace != NO_NAMESPACE else ""
    ragate = "ragate" if shutil.which("ragate") else f"{os.path.relpath(sys.executable)} -m gateway"
    screen.say(f"  operator  {ragate} devices list --config {inside}{site.config}")
    for name, path in (("devices", "/devices"), ("metrics", "/metrics"), ("health", "/readyz")):
        screen.say(f"  {name:9} {api.base}{path}")
