"""The windows: metrics, API, operator socket. They fold over facts and never write state."""
