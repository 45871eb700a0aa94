"""What goes wrong with a DICOMweb request, in a word to its caller."""

from __future__ import annotations

from fastapi import HTTPException


def not_acceptable(what: str) -> HTTPException:
    """406: the caller takes nothing that can be given."""
    return HTTPException(406, what)


def bad_request(what: str) -> HTTPException:
    """400: the request is not one."""
    return HTTPException(400, what)


def unknown(what: str, why: str = "") -> HTTPException:
    """404: it is not kept here."""
    return HTTPException(404, f"no such {what} is kept here" + (f": {why}" if why else ""))
