"""The hands: render, observe, apply, verify; one package per way of enforcing, blind to each other.

What must not live here: devices, verdicts, another backend, deciding.
"""
