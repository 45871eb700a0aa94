"""Where a network looked: maps over the frames for its outputs, and the pictures that show them."""
