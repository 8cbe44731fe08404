"""The builder: everything, once, at start. It knows every room; it decides nothing."""

from gateway.app.agent import agent_baseline_text, agent_state, agent_uninstall, plan_file, run_agent
from gateway.app.baseline import baseline_text, uninstall
from gateway.app.serve import serve
from gateway.app.site import run_site

__all__ = [
    "agent_baseline_text",
    "agent_state",
    "agent_uninstall",
    "baseline_text",
    "plan_file",
    "run_agent",
    "run_site",
    "serve",
    "uninstall",
]
