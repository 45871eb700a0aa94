"""De-identified copies of what the node keeps, for research; docs/export.md says what they hold."""
