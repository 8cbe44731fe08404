"""The clockwork: the loop, injected clock, ports and the logger.

What lives here: the ports (protocols that doors, hands, memory and windows are built against), admission of
envelopes, the single writer of device state, deadlines, reconciliation. What must not: transports, drivers,
files, the environment, and deciding trust itself (that is core's and the sources').
"""
