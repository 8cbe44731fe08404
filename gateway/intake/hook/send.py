"""``ragate-hook DEVICE ADDRESS REASON``: hand one hint to the gateway and be gone.

A drop-in for SEDIMENT's ``fwScript``, which runs it through a shell in the thread of a connection and waits for it
(v1.0.0, ``servers/firewall/Firewall.cpp``): so it imports next to nothing, waits for a second at most, and takes
its arguments as bytes that anybody may have chosen. Exit codes are in ``USAGE``. The gateway judges what it is
told; nothing said here raises a device.
"""

from __future__ import annotations

import sys
from _socket import AF_UNIX, SOCK_SEQPACKET, socket  # the module below ``socket``, which imports fifteen more

USAGE = """\
usage: ragate-hook DEVICE ADDRESS REASON

Hands a hint to the gateway: SEDIMENT said REASON of DEVICE, seen at ADDRESS. A failure makes the device suspect;
nothing raises it. Set fwScript to the path of this program. RAGATE_HOOK_SOCKET names the gateway's socket
(/run/ragate/hook.sock). Exit codes: 0 the gateway has it; 1 the gateway refuses this user; 2 no such arguments;
3 no gateway answers; 4 handed over, but not confirmed within a second.
"""

SOCKET = "/run/ragate/hook.sock"
VARIABLE = "RAGATE_HOOK_SOCKET"

#: Seconds for each step. The caller holds a device's connection meanwhile.
PATIENCE = 1.0
#: Bytes of each argument: SEDIMENT has one byte for the length of an id and of an address.
ARGUMENT_MOST = 255

TAKEN = b"taken"

EXIT_REFUSED, EXIT_USAGE, EXIT_NO_GATEWAY, EXIT_UNCONFIRMED = 1, 2, 3, 4


def main() -> None:
    """Run the script; ends the process with its exit code."""
    from os import environ  # noqa: PLC0415 - Python has loaded it to start at all

    arguments = [argument.encode("utf-8", "surrogateescape") for argument in sys.argv[1:]]
    code, said = hand_in(arguments, environ.get(VARIABLE) or SOCKET)
    if said:
        sys.stderr.write(said)
    sys.exit(code)


def hand_in(arguments: list[bytes], path: str) -> tuple[int, str]:
    """Hand the arguments in at the socket ``path``; returns the exit code and what to say on standard error."""
    if len(arguments) != 3 or any(not 1 <= len(each) <= ARGUMENT_MOST or b"\0" in each for each in arguments):
        return EXIT_USAGE, USAGE
    with_gateway = socket(AF_UNIX, SOCK_SEQPACKET)
    try:
        with_gateway.settimeout(PATIENCE)
        try:
            with_gateway.connect(path)
        except (OSError, ValueError) as error:
            return EXIT_NO_GATEWAY, f"ragate-hook: no gateway answers at {path}: {error}\n"
        try:
            answer = _exchange(with_gateway, b"\0".join(arguments))
        except OSError as error:
            return EXIT_UNCONFIRMED, f"ragate-hook: the gateway has it and does not confirm: {error}\n"
    finally:
        with_gateway.close()
    if answer == TAKEN:
        return 0, ""
    said = answer.decode("ascii", "replace") or "the gateway closed the connection"
    return EXIT_REFUSED, f"ragate-hook: {said}\n"


def _exchange(with_gateway: socket, hint: bytes) -> bytes:
    """Send the hint, return the answer. A gateway that turns us away closes first, and its word is still there."""
    try:  # noqa: SIM105 - contextlib would have to be imported
        with_gateway.send(hint)
    except (BrokenPipeError, ConnectionResetError):
        pass
    try:
        return with_gateway.recv(256)
    except ConnectionResetError:  # told once, of the hint that was not read; what was said stands behind it
        return with_gateway.recv(256)
