"""The HTTP door: status, the operator's buttons, and who may use them."""
