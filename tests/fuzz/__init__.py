"""Broken objects, made from real ones, through the intake and through reading."""
