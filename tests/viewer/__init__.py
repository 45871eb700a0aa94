"""A real viewer for the tests: OHIF, served on loopback and driven in headless Chromium."""
