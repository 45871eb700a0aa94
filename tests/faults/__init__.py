"""Faults: processes killed, peers that misbehave, and whether what was promised still holds."""
