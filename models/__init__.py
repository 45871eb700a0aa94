"""What the pictures mean: a DICOM clip in, findings and explanations out.

This package knows nothing of the network, the database or the node.
"""
