"""The routes of DICOMweb, joined."""

from __future__ import annotations

from fastapi import APIRouter

from node.web.dicomweb import stow, wado

router = APIRouter()
for part in (stow, wado):
    router.include_router(part.router)
