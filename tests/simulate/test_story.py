"""The story can fail: each promise that it claims to check is broken once, and it says which and what it saw."""

from __future__ import annotations

import asyncio
import io
import time
from contextlib import suppress

import pytest

from gateway.simulate import story as story_module
from gateway.simulate.ground import loopback_ground
from gateway.simulate.screen import Screen
from gateway.simulate.site import Site
from gateway.simulate.sockets import Peer
from gateway.simulate.story import StepFailedError, Story
from tests.simulate.miniature import Flaw, Miniature

BROKEN = {
    Flaw.OPEN_FROM_START: "before the first attestation nothing gets through",
    Flaw.ADMITS_NOBODY: "data of cam-1 reaches the app server",
    Flaw.SAYS_IT_CUTS_BUT_DOES_NOT: "the live flows of cam-1 stop",
    Flaw.KEEPS_LIVE_CONNECTIONS: "the live flows of cam-1 stop",
    Flaw.IGNORES_FAILURES: "cam-1 becomes distrusted on FAILED_ATTEST, verified",
    Flaw.ONE_PASS_IS_ENOUGH: "cam-1 becomes distrusted on PASS, verified",
    Flaw.NEVER_LETS_BACK_IN: "cam-1 becomes trusted on PASS, verified",
    Flaw.NEVER_LAPSES: "sensor-2 lapses at its deadline",
    Flaw.LAPSES_IN_WORDS_ONLY: "the live flow of sensor-2 stops",
    Flaw.LAPSES_EARLY: "data of sensor-2 flows until its deadline",
    Flaw.CUTS_EVERYBODY: "the other devices are never interrupted",
}


async def tell(flaw: Flaw) -> tuple[str, str]:
    """Tell the story against a gateway with that flaw; the step that failed (empty: none) and what was shown."""
    out = io.StringIO()
    with loopback_ground("a test") as ground:
        site = Site.build(ground, Peer("127.0.0.1", 1))
        async with site.appserver, Miniature(site, flaw) as api:
            await site.open_appserver()
            screen = Screen(out, time.monotonic())
            story = Story(site, api, screen)
            for device in site.devices.values():
                device.period = 0.05  # several sites share this process
            running = [asyncio.create_task(device.run()) for device in site.devices.values()]
            running.append(asyncio.create_task(story.keep_attesting()))
            try:
                await story.tell()
                failed = ""
            except StepFailedError as error:
                failed = error.step
            finally:
                for task in running:
                    task.cancel()
                for task in running:
                    with suppress(asyncio.CancelledError):
                        await task
    return failed, out.getvalue()


@pytest.mark.long
async def test_a_sound_gateway_passes_and_every_broken_promise_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    # Six sites at once in one process are a busy machine, which may also be a slow one.
    monkeypatch.setattr(story_module, "STEP_SECONDS", 8.0)
    flaws = list(Flaw)
    told: dict[Flaw, tuple[str, str]] = {}
    for some in (flaws[:6], flaws[6:]):
        told.update(zip(some, await asyncio.gather(*map(tell, some)), strict=True))
    assert {flaw: step for flaw, (step, _) in told.items() if step} == BROKEN
    shown = told[Flaw.NONE][1].splitlines()
    assert [line.split()[2:5] for line in shown] == [
        ["all", "unknown", "-"],
        *([name, "trusted", "PASS"] for name in ("cam-1", "cam-2", "meter-1", "sensor-1", "sensor-2")),
        ["cam-1", "distrusted", "FAILED_ATTEST"],
        ["cam-1", "distrusted", "PASS"],
        ["cam-1", "trusted", "PASS"],
        ["sensor-2", "lapsed", "deadline"],
    ]
