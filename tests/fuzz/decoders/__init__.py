"""Every decoder of bytes from outside, as a fuzzer sees it: what takes any bytes, genuine ones, and what must hold.

The fast suite feeds each what is genuine and whatever was once found (``tests/fuzz/kept/NAME/``), and ``make fuzz``
everything else. A target's name is that of its room, a dot, and its own.
"""
