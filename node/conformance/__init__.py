"""The tables of the DICOM conformance statement, made from the code so that they cannot go stale.

``python -m node.conformance`` writes them anew between the marks of `docs/conformance.md`;
``--check`` only says which differ. The prose between the tables is written by hand.
"""

from node.conformance.document import DocumentError, renewed
from node.conformance.tables import TABLES

__all__ = ["TABLES", "DocumentError", "renewed"]
