"""The builder: everything, once, at start. It knows every room; it decides nothing."""

from gateway.app.agent import run_agent
from gateway.app.baseline import baseline_text, uninstall
from gateway.app.serve import serve
from gateway.app.site import run_site

__all__ = ["baseline_text", "run_agent", "run_site", "serve", "uninstall"]
