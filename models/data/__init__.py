"""Data sets: clips with what is known of them, for training and for judging."""
