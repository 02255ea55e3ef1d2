"""How the APIs of the alternatives are served: one process of uvicorn on uvloop and httptools, no access log."""

from __future__ import annotations

import os

import uvicorn
from fastapi import FastAPI


def serve(app: FastAPI) -> None:
    """Serve on 127.0.0.1 and the port in PORT until SIGTERM."""
    uvicorn.run(
        app,
        host="127.0.0.1",
        port=int(os.environ["PORT"]),
        loop="uvloop",
        http="httptools",
        access_log=False,
        log_level="warning",
    )
