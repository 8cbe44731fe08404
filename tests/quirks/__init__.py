"""Each row of the table of quirks, tried: a driver that ignores the quirk must fail the row's own tests.

What lives here: the edits that make it ignorant (``daemon``, ``documents``), the rows they belong to (``table``),
and the run. What must not: tests of the driver itself.
"""
