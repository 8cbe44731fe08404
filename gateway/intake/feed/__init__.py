"""The verifier's two unsigned services: its GUI feed, as hints, and its API, asked as seldom as can be.

What lives here: ``subscriber`` keeps one connection to a feed and submits what it says; ``api`` carries one
question a connection. What must not: believing either, or deciding when to ask.
"""

from gateway.intake.feed.api import VerifierApi
from gateway.intake.feed.subscriber import FeedSettings, FeedSubscriber

__all__ = ["FeedSettings", "FeedSubscriber", "VerifierApi"]
