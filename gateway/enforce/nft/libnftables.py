"""Running nft text: through libnftables, or the ``nft`` program where the library is missing.

For the static part only; elements go through netlink. Acts in the network namespace of the calling thread.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
import threading
from collections.abc import Callable

from gateway.core.errors import BackendError

LIBRARY = "libnftables.so.1"
#: Characters of nft's own error text that an error carries.
MAX_ERROR_TEXT = 600
#: Seconds that the ``nft`` program may take.
PROGRAM_SECONDS = 30.0

_SEARCH_PATH = os.pathsep.join((os.environ.get("PATH", ""), "/usr/sbin", "/sbin"))
_RETRY_TEXTS = ("Resource temporarily unavailable", "Device or resource busy", "Interrupted system call")
# the library keeps parser state outside its contexts
_library_lock = threading.Lock()


def _load() -> ctypes.CDLL | None:
    try:
        library = ctypes.CDLL(LIBRARY)
    except OSError:
        return None
    library.nft_ctx_new.argtypes = [ctypes.c_uint32]
    library.nft_ctx_new.restype = ctypes.c_void_p
    library.nft_ctx_free.argtypes = [ctypes.c_void_p]
    library.nft_ctx_free.restype = None
    for function in (library.nft_ctx_buffer_output, library.nft_ctx_buffer_error):
        function.argtypes = [ctypes.c_void_p]
        function.restype = ctypes.c_int
    for function in (library.nft_ctx_get_output_buffer, library.nft_ctx_get_error_buffer):
        function.argtypes = [ctypes.c_void_p]
        function.restype = ctypes.c_char_p
    library.nft_run_cmd_from_buffer.argtypes = [ctypes.c_void_p, ctypes.c_char_p]
    library.nft_run_cmd_from_buffer.restype = ctypes.c_int
    return library


def _failed(text: str) -> BackendError:
    text = text.strip()[:MAX_ERROR_TEXT] or "refused without a word"
    return BackendError("nft", text, transient=any(retry in text for retry in _RETRY_TEXTS))


def _run_library(library: ctypes.CDLL, text: str) -> str:
    with _library_lock:
        context = library.nft_ctx_new(0)
        if not context:
            raise BackendError("nft", "libnftables gave no context", transient=True)
        try:
            library.nft_ctx_buffer_output(context)
            library.nft_ctx_buffer_error(context)
            refused = library.nft_run_cmd_from_buffer(context, text.encode("ascii"))
            output: bytes = library.nft_ctx_get_output_buffer(context) or b""
            error: bytes = library.nft_ctx_get_error_buffer(context) or b""
        finally:
            library.nft_ctx_free(context)
    if refused:
        raise _failed(error.decode("utf-8", "replace"))
    return output.decode("utf-8", "replace")


def _run_program(text: str) -> str:
    program = shutil.which("nft", path=_SEARCH_PATH)
    if program is None:
        what = f"neither {LIBRARY} nor the nft program is here: install the package nftables"
        raise BackendError("nft", what, transient=False)
    try:
        done = subprocess.run(  # noqa: S603 - a fixed program; text goes through standard input
            [program, "-f", "-"], input=text, capture_output=True, text=True, timeout=PROGRAM_SECONDS, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise BackendError("nft", f"{program}: {error}"[:MAX_ERROR_TEXT], transient=True) from error
    if done.returncode:
        raise _failed(done.stderr)
    return done.stdout


def _choose() -> Callable[[str], str]:
    library = _load()
    if library is None:
        return _run_program
    return lambda text: _run_library(library, text)


_runner: Callable[[str], str] | None = None


def run_commands(text: str) -> str:
    """Run nft commands as one transaction and return what they print.

    Raises ``BackendError`` with a bounded excerpt of nft's own words; nothing was changed then.
    """
    global _runner  # noqa: PLW0603 - the library is loaded once, at first use
    if _runner is None:
        _runner = _choose()
    return _runner(text)
