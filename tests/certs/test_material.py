"""Material that is reloaded: new connections see the renewed files, open ones stay, bad files change nothing."""

from __future__ import annotations

import asyncio
import os
import ssl
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest

from gateway.certs import Folder, IdentityRefused, MaterialFiles, Role, TlsMaterial
from gateway.core.errors import ConfigError

PATIENCE = 60.0


class Place:
    """A folder with an authority, a gateway's and an agent's certificates, and what is served from it."""

    def __init__(self, path: Path) -> None:
        self.folder = Folder(path / "certs")
        self.folder.init("pier", time.time())
        self.folder.issue(Role.GATEWAY, "gw", ["127.0.0.1"], time.time())
        self.folder.issue(Role.AGENT, "app", [], time.time())
        self.said: list[str] = []

    def files(self, role: Role, name: str) -> MaterialFiles:
        folder = self.folder
        return MaterialFiles(
            folder.authority, folder.certificate(role, name), folder.key(role, name), folder.revocations
        )

    def served(self) -> TlsMaterial:
        material = TlsMaterial(self.files(Role.GATEWAY, "gw"), Role.GATEWAY)
        material.set_say(lambda _subject, sentence: self.said.append(sentence))
        return material

    def client(self, name: str | None = "app") -> ssl.SSLContext:
        context = ssl.create_default_context(cafile=self.folder.authority)
        if name is not None:
            folder = self.folder
            context.load_cert_chain(folder.certificate(Role.AGENT, name), folder.key(Role.AGENT, name))
        return context


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


@asynccontextmanager
async def serving(material: TlsMaterial) -> AsyncIterator[int]:
    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while line := await reader.readline():
                writer.write(line)
        except ConnectionError:
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(echo, "127.0.0.1", 0, ssl=material.server_context())
    asyncio.get_running_loop().set_exception_handler(lambda _loop, _context: None)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        while OPEN:
            writer = OPEN.pop()
            writer.close()
            with suppress(ssl.SSLError, OSError):
                await writer.wait_closed()
        server.close()


OPEN: list[asyncio.StreamWriter] = []


class Talk:
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    async def echoes(self) -> bool:
        self.writer.write(b"still there?\n")
        async with asyncio.timeout(PATIENCE):
            return await self.reader.readline() == b"still there?\n"

    @property
    def serial(self) -> int:
        return int(self.writer.get_extra_info("peercert")["serialNumber"], 16)


async def talk(port: int, context: ssl.SSLContext) -> Talk:
    async with asyncio.timeout(PATIENCE):
        reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
    OPEN.append(writer)
    return Talk(reader, writer)


async def refused(port: int, context: ssl.SSLContext) -> bool:
    """With TLS 1.3 a client learns of its refusal with the first answer that it waits for."""
    try:
        return not await (await talk(port, context)).echoes()
    except (ssl.SSLError, ConnectionError):
        return True


async def test_a_renewal_reaches_new_connections_and_drops_none(place: Place) -> None:
    material = place.served()
    async with serving(material) as port:
        before = await talk(port, place.client())
        assert before.serial == material.current.identity.serial
        assert not material.poll()
        place.folder.renew(time.time(), everything=True)
        assert material.poll()
        after = await talk(port, place.client())
        assert after.serial == material.current.identity.serial != before.serial
        assert await before.echoes(), "what was open stays open"
        assert await after.echoes()
        assert any("newer files were taken" in sentence for sentence in place.said)


async def test_without_a_certificate_or_with_a_revoked_one_nobody_comes_in(place: Place) -> None:
    material = place.served()
    async with serving(material) as port:
        assert await (await talk(port, place.client())).echoes()
        assert await refused(port, place.client(None))
        place.folder.revoke(Role.AGENT, "app", time.time())
        assert material.poll()
        assert await refused(port, place.client())
        with pytest.raises(IdentityRefused, match="is revoked"):
            material.identify(place.folder.certificate(Role.AGENT, "app").read_bytes())
        place.folder.issue(Role.AGENT, "app2", [], time.time())
        assert await (await talk(port, place.client("app2"))).echoes()


async def test_another_sites_certificate_does_not_come_in(place: Place, tmp_path: Path) -> None:
    strangers = Place(tmp_path / "elsewhere")
    context = strangers.client()
    context.load_verify_locations(place.folder.authority)
    async with serving(place.served()) as port:
        assert await refused(port, context)


def test_files_that_do_not_fit_together_are_not_taken(place: Place) -> None:
    material = place.served()
    good = material.current
    files = place.files(Role.GATEWAY, "gw")
    whole = files.certificate.read_bytes()
    for bad in (whole[: len(whole) // 2], place.folder.certificate(Role.AGENT, "app").read_bytes()):
        place.said.clear()
        files.certificate.write_bytes(bad)
        for _ in range(3):
            assert not material.poll()
            assert material.current is good
        assert len(place.said) == 1, "said once, and not while files may still be on their way"
        assert material.wrong
    place.folder.renew(time.time(), everything=True)
    assert material.poll()
    assert not material.wrong


def test_a_certificate_near_its_end_is_said_once_a_day(place: Place) -> None:
    now = time.time()
    clock = [now]
    said: list[str] = []
    material = TlsMaterial(
        place.files(Role.AGENT, "app"), say=lambda _subject, what: said.append(what), now=lambda: clock[0]
    )
    material.poll()
    assert said == []
    clock[0] = now + 89 * 86_400
    for _ in range(3):
        material.poll()
    assert len(said) == 1
    assert "expires in 1.0 days" in said[0]
    clock[0] += 2 * 86_400
    material.poll()
    assert "has expired" in said[1]
    assert material.current.identity.name == "app", "it still serves: whoever is shown it judges"


def test_files_that_cannot_be_used_are_named(place: Place) -> None:
    files = place.files(Role.AGENT, "app")
    with pytest.raises(ConfigError, match="of agent app; one with role gateway is needed"):
        TlsMaterial(files, Role.GATEWAY)
    with pytest.raises(ConfigError, match="is not the key of"):
        TlsMaterial(files._replace(key=place.folder.key(Role.GATEWAY, "gw")))
    with pytest.raises(ConfigError, match=r"ca\.key: no revocation list"):
        TlsMaterial(files._replace(revoked=place.folder.path / "ca.key"))
    with pytest.raises(ConfigError, match="cannot be read"):
        TlsMaterial(files._replace(key=place.folder.path / "none"))
    os.chmod(files.key, 0o644)
    with pytest.raises(ConfigError, match="others may read"):
        TlsMaterial(files)
