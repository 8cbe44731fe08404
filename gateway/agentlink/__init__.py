"""Both ends of the link between the gateway and its agents.

The gateway's end offers each attached agent as a path gate; the agent's end does on its host what it is told, with
the path gate that it was given. What must not live here: devices, standings, verdicts, nftables, KubeArmor.
"""
