"""Mutation testing of the law: each small change to it must make one of its own tests fail.

What lives here: the changes (``operators``), the list of those that change nothing (``listed``), and the run. What
must not: tests of the law itself.
"""
