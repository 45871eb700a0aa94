"""DICOMweb (PS3.18): objects come in by STOW-RS, are found by QIDO-RS and given by WADO-RS."""

from fastapi import APIRouter

from node.web.dicomweb import stow

router = APIRouter()
router.include_router(stow.router)
