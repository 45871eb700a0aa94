"""Years of archive, taken in day by day behind all else: gently, gone on with after any kill."""
