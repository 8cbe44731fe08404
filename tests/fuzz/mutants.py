"""Bytes that are nearly right: what a hostile or broken peer makes of something genuine."""

from __future__ import annotations

from hypothesis import strategies as st


@st.composite
def mutants(draw: st.DrawFn, genuine: bytes, most: int = 6) -> bytes:
    """``genuine`` with a few places overwritten, cut out, doubled or filled with something else."""
    data = bytearray(genuine)
    for _ in range(draw(st.integers(0, most))):
        at = draw(st.integers(0, len(data)))
        end = draw(st.integers(at, min(at + 16, len(data))))
        kind = draw(st.sampled_from(("bytes", "bit", "double", "number")))
        if kind == "bytes":
            data[at:end] = draw(st.binary(max_size=16))
        elif kind == "bit" and at < len(data):
            data[at] ^= 1 << draw(st.integers(0, 7))
        elif kind == "double":
            data[at:at] = data[at:end]
        elif kind == "number":
            width = draw(st.sampled_from((1, 2, 4)))
            number = draw(
                st.sampled_from((0, 1, 0x7F, 0x80, 0xFF, 0x100, 0x7FFF, 0xFFFF, 0x7FFF_FFFF, 0xFFFF_FFFF))
            )
            data[at : at + width] = (number % (1 << 8 * width)).to_bytes(width, "big")
    return bytes(data)


def honest(frame: bytes) -> bytes:
    """``frame`` with a total size that is true, so that what is inside it is looked at."""
    return (len(frame) & 0xFFFF).to_bytes(2, "big") + frame[2:] if len(frame) >= 2 else frame
