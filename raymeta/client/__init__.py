"""The service's HTTP interface from Python: `Client`, `AsyncClient`, and what they take and give.

Imports neither torch nor ray. Leaves what a service does to `raymeta.serve`.
"""

from raymeta.client.clients import AsyncClient as AsyncClient
from raymeta.client.clients import Client as Client
from raymeta.client.retries import Retries as Retries
from raymeta.serve.schemas.events import Event as Event
from raymeta.serve.schemas.items import NamedItem as NamedItem
from raymeta.serve.schemas.recommend import Pin as Pin
from raymeta.serve.schemas.recommend import Range as Range

__all__ = ["AsyncClient", "Client", "Event", "NamedItem", "Pin", "Range", "Retries"]
