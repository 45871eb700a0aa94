"""What is kept: tables, migrations, queries and the file store.

This package knows nothing of the network, of TensorFlow or of the node.
"""
