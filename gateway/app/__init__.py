"""The builder: everything, once, at start. It knows every room; it decides nothing.

Nothing is imported here: an agent's host loads what an agent needs, and the service what its configuration names.
"""
