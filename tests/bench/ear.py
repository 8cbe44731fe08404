"""What listening to KubeArmor costs: ``python -m tests.bench.ear [SECONDS]``.

A child process serves the streams and says the same alert as fast as it is read. Once without budgets, for the cost
of one alert; once with the service's own, for what it takes then and what everybody else on the loop feels of it.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import sys
import time
from collections.abc import AsyncIterator
from typing import Any

import grpc
import grpc.aio
import uvloop

from gateway.enforce.kubearmor import connect
from gateway.kubearmor.pb import events_pb2
from gateway.watch.kubearmor import MESSAGE_BYTES, Ear, EarSettings
from tests.netns import KernelClock
from tests.ports import free_port

TICK = 0.001
WHOLE = 10**9


def alert(number: int) -> bytes:
    ends = {"SourceIP": f"10.77.{number >> 8 & 255}.{number & 255}", "SourcePort": "60730"}
    ends |= {"DestinationIP": "10.77.3.2", "DestinationPort": "2323", "Protocol": "TCP"}
    return events_pb2.Alert(
        HostName="edge",
        PolicyName="60-network-honey-01234567",
        Severity="8",
        Type="MatchedNetworkPolicy",
        Operation="NetworkFirewall",
        Resource="INGRESS",
        Data=" ".join(f"{key}={value}" for key, value in ends.items()),
        Action="Block",
        Result="Permission denied",
        Enforcer="NetworkPolicyEnforcer",
        EventData=ends,
    ).SerializeToString()


async def serve(port: int) -> None:
    alerts = [alert(number) for number in range(4_096)]

    async def watch(_request: bytes, _context: object) -> AsyncIterator[bytes]:
        while True:
            for each in alerts:
                yield each

    server = grpc.aio.server()
    handler: Any = grpc.unary_stream_rpc_method_handler(watch)
    server.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler("feeder.LogService", {"WatchAlerts": handler}),)
    )
    server.add_insecure_port(f"127.0.0.1:{port}")
    await server.start()
    await server.wait_for_termination()


def child(port: int) -> None:
    os.nice(5)
    asyncio.run(serve(port))


async def measure(port: int, settings: EarSettings, seconds: float) -> str:
    heard = 0

    def hear(_alert: object, _at: object) -> None:
        nonlocal heard
        heard += 1

    ear = Ear(settings, KernelClock(), lambda: connect(f"127.0.0.1:{port}", None, MESSAGE_BYTES), hear)
    task = asyncio.create_task(ear.run())
    async with asyncio.timeout(60):
        while not heard:
            await asyncio.sleep(0.01)
    late: list[float] = []
    before, used, began = ear.tally.heard["alerts"], time.process_time(), time.perf_counter()
    while (now := time.perf_counter()) - began < seconds:
        await asyncio.sleep(TICK)
        late.append(time.perf_counter() - now - TICK)
    spent, took = time.process_time() - used, time.perf_counter() - began
    number = ear.tally.heard["alerts"] - before
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    late.sort()
    p50, p99 = (late[int(len(late) * share)] * 1_000 for share in (0.5, 0.99))
    each = spent / max(number, 1) * 1e6
    return (
        f"{number / took:7.0f} alerts/s, {each:4.0f} us of CPU each ({spent / took:.0%} of one CPU),"
        f" loop late by p50 {p50:.2f} ms, p99 {p99:.2f} ms"
    )


async def idle(seconds: float) -> float:
    used, began = time.process_time(), time.perf_counter()
    while time.perf_counter() - began < seconds:
        await asyncio.sleep(TICK)
    return (time.process_time() - used) / (time.perf_counter() - began)


def main() -> None:
    """Print one line for each way."""
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 10.0
    port = free_port()
    process = multiprocessing.get_context("spawn").Process(target=child, args=(port,), daemon=True)
    process.start()
    try:
        print(f"the ticks alone:     {uvloop.run(idle(seconds)):.0%} of one CPU")
        unbounded = EarSettings(streams=("alerts",), most=WHOLE, per_source=WHOLE)
        print("without budgets:    ", uvloop.run(measure(port, unbounded, seconds)))
        print("with the service's: ", uvloop.run(measure(port, EarSettings(streams=("alerts",)), seconds)))
    finally:
        process.terminate()
        process.join()


if __name__ == "__main__":
    main()
