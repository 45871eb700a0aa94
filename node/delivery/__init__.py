"""The way out: the outbox and the ways to a destination."""
