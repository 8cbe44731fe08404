"""The eyes: observations of the host and of other systems become numbers and events.

What must not live here: raising trust, applying anything.
"""
