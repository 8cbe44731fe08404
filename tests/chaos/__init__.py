"""Both ends under random verdicts and random kills: what stands, and who can connect, at every sampled moment."""
