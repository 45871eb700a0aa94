"""``/metrics``, for Prometheus."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, HTTPException, Request, Response

from node.web.callers import Caller
from node.web.site import needs, parts_of
from node.web.users import Role

router = APIRouter(tags=["metrics"])


@router.get("/metrics")
def metrics(request: Request, _caller: Annotated[Caller, needs(Role.READ)]) -> Response:
    """Counters, histograms and gauges in Prometheus' text format; docs/metrics.md lists them."""
    counted = parts_of(request).metrics
    if counted is None:
        raise HTTPException(404, "nothing is counted here")
    text, content_type = counted.shown(request.headers.get("accept", ""))
    return Response(text, headers={"content-type": content_type})
