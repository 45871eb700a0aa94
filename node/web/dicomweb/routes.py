"""The routes of DICOMweb, joined."""

from __future__ import annotations

from fastapi import APIRouter

from node.web.dicomweb import qido, stow, wado

router = APIRouter()
for part in (stow, qido, wado):
    router.include_router(part.router)
