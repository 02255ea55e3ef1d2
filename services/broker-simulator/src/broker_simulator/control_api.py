"""The control endpoint (`/control`): scripts the broker and shows what it received. Interactive pages: `/control/docs`.

It asks for no keys, changes nothing but this simulator, and refuses unknown fields.
"""

from fastapi import FastAPI

from .edge import Outages
from .exchange import Exchange


def control_app(exchange: Exchange, outages: Outages) -> FastAPI:
    return FastAPI(title="broker-simulator control", description=__doc__, root_path="")
