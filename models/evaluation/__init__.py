"""How good a pack is: figures with confidence intervals over patients, and its own report."""
