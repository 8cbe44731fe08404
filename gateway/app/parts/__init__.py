"""Making the parts from the configuration: which class serves which port, with which settings.

What lives here: one module for each kind of part. What must not: starting, running or stopping them.
"""
