"""The law. Pure: values in, values out; told the time.

What lives here: the value types, the lifecycle table, bindings, the policy decision, the plan. What must not:
I/O, the event loop, logging, the environment, randomness, clocks, or mutation of an argument.
"""
