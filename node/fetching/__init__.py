"""Taking studies out of an archive, for a retrospective run: asked gently, taken once, gone on."""
