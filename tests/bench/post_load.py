"""Senders of posted verdicts: ``python -m tests.bench.post_load SPEC``; SPEC and the result, on stdout, are JSON.

Every device goes through PASS, PASS, FAIL, PASS again and again, a second or more between two verdicts of one, so
that half of them flip it. A document is signed when it is sent (its time must be fresh); what that costs is the
client's.
"""

from __future__ import annotations

import asyncio
import base64
import gc
import json
import secrets
import ssl
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import grpc
import grpc.aio
import msgspec
import uvloop
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from gateway.intake.rpc.pb import verdicts_pb2 as pb

CYCLE = ("passed", "passed", "failed", "passed")
METHOD = "/ragate.v1.Verdicts/Submit"


@dataclass
class Load:
    """What to send and what came of it. ``rate``: verdicts a second; 0: as fast as answers come."""

    folder: Path
    door: str
    place: str
    devices: int
    verdicts: int
    batch: int
    lanes: int  # connections, or streams
    window: int  # documents under way on each lane
    rate: float = 0.0
    turn: int = 0  # the first of the devices' cycles
    latencies: list[float] = field(default_factory=list)
    taken: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    run: str = field(default_factory=lambda: secrets.token_hex(4))  # what every nonce of this load begins with

    def documents(self) -> Iterator[Callable[[], bytes]]:
        """Makers of the documents, in order."""
        for first in range(0, self.verdicts, self.batch):
            numbers = range(first, min(first + self.batch, self.verdicts))
            yield lambda numbers=numbers: self._document(numbers)  # type: ignore[misc]

    def _document(self, numbers: range) -> bytes:
        # Put together as text: the sender shares a core with the service, so what it takes the service has not.
        now = int(time.time())
        times = f'"issued_at":{now},"expires_at":{now + 900},"nonce":"{self.run}'
        verdicts = []
        for number in numbers:
            turn, device = divmod(number, self.devices)
            result = CYCLE[(device + self.turn + turn) % len(CYCLE)]
            verdicts.append(f'{{"device":"d{device:06d}","result":"{result}",{times}{number:08x}"}}')
        return f'{{"source":"rp","verdicts":[{",".join(verdicts)}]}}'.encode()

    def note(self, began: float, taken: int, refused: list[str]) -> None:
        """Count one answer: how many verdicts were taken, and the failed step of each that was not."""
        self.latencies.append((time.monotonic() - began) * 1_000)
        self.taken += taken
        self.refused.update(refused)


class _Result(msgspec.Struct):
    accepted: bool
    step: str = ""


class _Answer(msgspec.Struct):
    results: list[_Result] = []
    step: str = ""


_answers = msgspec.json.Decoder(_Answer)


def _counted(results: Sequence[Any]) -> tuple[int, list[str]]:
    refused = [each.step for each in results if not each.accepted]
    return len(results) - len(refused), refused


Send = Callable[[bytes], Awaitable[tuple[int, list[str]]]]


async def drive(load: Load, lanes: list[Send]) -> None:
    """Send everything: paced from one clock whatever became of what went before, or each lane at its own pace."""
    documents = load.documents()
    start = time.monotonic() + 0.05
    number = 0

    async def worker(send: Send) -> None:
        nonlocal number
        for make in documents:
            due = start + number * load.batch / load.rate if load.rate else 0.0
            number += 1
            if due > time.monotonic():
                await asyncio.sleep(due - time.monotonic())
            began = max(due, 0.0) or time.monotonic()
            load.note(began, *await send(make()))

    async with asyncio.TaskGroup() as tasks:
        for send in lanes:
            for _ in range(load.window):
                tasks.create_task(worker(send))


async def over_rest(load: Load, key: Ed25519PrivateKey) -> None:
    """HTTPS, connections kept alive, one request at a time on each."""
    context = ssl.create_default_context(cafile=str(load.folder / "site-ca.pem"))
    context.load_cert_chain(load.folder / "rp.pem", load.folder / "rp.key")
    url = f"https://{load.place}/v1/verdicts"
    connector = aiohttp.TCPConnector(limit=load.lanes * load.window, ssl=context)
    async with aiohttp.ClientSession(connector=connector) as session:

        async def send(body: bytes) -> tuple[int, list[str]]:
            headers = {
                "Content-Type": "application/json",
                "Ragate-Key": "k1",
                "Ragate-Signature": base64.b64encode(key.sign(body)).decode(),
            }
            async with session.post(url, data=body, headers=headers) as answer:
                said = _answers.decode(await answer.read())
            return _counted(said.results) if said.results else (0, [f"{answer.status} {said.step}"])

        await drive(load, [send] * load.lanes)


async def over_rpc(load: Load, key: Ed25519PrivateKey) -> None:
    """gRPC: each lane is one stream; answers come in order."""
    folder = load.folder
    credentials = grpc.ssl_channel_credentials(
        (folder / "site-ca.pem").read_bytes(), (folder / "rp.key").read_bytes(), (folder / "rp.pem").read_bytes()
    )
    async with grpc.aio.secure_channel(load.place, credentials) as channel:
        lanes: list[Send] = []
        readers, calls = [], []
        for _ in range(load.lanes):
            call: Any = channel.stream_stream(
                METHOD,
                request_serializer=pb.Submission.SerializeToString,
                response_deserializer=pb.Answer.FromString,
            )()
            waiting: asyncio.Queue[asyncio.Future[pb.Answer]] = asyncio.Queue()
            writing = asyncio.Lock()

            async def send(
                body: bytes, call: Any = call, waiting: Any = waiting, writing: asyncio.Lock = writing
            ) -> tuple[int, list[str]]:
                future: asyncio.Future[pb.Answer] = asyncio.get_running_loop().create_future()
                async with writing:
                    waiting.put_nowait(future)
                    await call.write(pb.Submission(document=body, key_id="k1", signature=key.sign(body)))
                answer = await future
                if not answer.HasField("taken"):
                    return 0, [answer.problem.step]
                return _counted(answer.taken.results)

            async def read(call: Any = call, waiting: Any = waiting) -> None:
                while True:
                    answer = await call.read()
                    if answer is grpc.aio.EOF:
                        return
                    (await waiting.get()).set_result(answer)

            lanes.append(send)
            calls.append(call)
            readers.append(asyncio.create_task(read()))
        await drive(load, lanes)
        for call in calls:
            await call.done_writing()
        await asyncio.gather(*readers)


def main() -> None:
    """Run one load."""
    spec = json.loads(sys.argv[1])
    load = Load(**{**spec, "folder": Path(spec["folder"])})
    key = load_pem_private_key((load.folder / "rp-signing.key").read_bytes(), None)
    assert isinstance(key, Ed25519PrivateKey)
    # A pause of the sender would be told as the service's: of some 100 ms, where all that was imported is walked.
    gc.disable()
    began, cpu = time.monotonic(), time.process_time()
    uvloop.run((over_rest if load.door == "rest" else over_rpc)(load, key))
    took = time.monotonic() - began
    ordered = sorted(load.latencies)

    def percentile(share: float) -> float:
        return ordered[min(len(ordered) - 1, int(len(ordered) * share))]

    print(
        json.dumps(
            {
                "seconds": took,
                "taken": load.taken,
                "refused": dict(load.refused),
                "per_second": load.taken / took,
                "p50_ms": percentile(0.5),
                "p99_ms": percentile(0.99),
                "max_ms": ordered[-1],
                "client_us": (time.process_time() - cpu) / max(1, load.verdicts) * 1e6,
            }
        )
    )


if __name__ == "__main__":
    main()
