"""What the API says of itself is so: requests made from its own description, right and wrong ones.

Every answer must be one that is described: no 5xx, no undescribed status, header or body, nothing
invalid taken, no method that is not there. A request that is right by the description may still be
refused for what it names (an unknown tenant, say), so that check is left out.
"""

import hashlib
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import schemathesis
from fastapi import FastAPI
from hypothesis import Phase, given, settings
from schemathesis import GenerationMode
from schemathesis.specs.openapi import checks

from raymeta.config.serving import CompatConfig, LimitsConfig, RetentionConfig
from raymeta.serve.access import KeyConfig, Keys, Scope
from raymeta.serve.compat.products import PUBLIC_PATHS as COMPAT_PUBLIC_PATHS
from raymeta.serve.ingress import create_app
from raymeta.serve.models import Maker, TenantModels, first_variant
from raymeta.serve.routes.operations import PUBLIC_PATHS
from raymeta.serve.service import Service
from raymeta.serve.user_events.base import Retention
from raymeta.serve.user_events.memory import MemoryEventStore
from tests.unit.serve.conftest import SmallArtifact

EXAMPLES = int(os.environ.get("RAYMETA_API_EXAMPLES", "20"))
EVERY_PRODUCT = CompatConfig(products=("gorse", "metarank", "personalize"))
SAY_NOTHING = PUBLIC_PATHS | COMPAT_PUBLIC_PATHS
"""Paths that take nothing, so that there is no wrong request to them."""
KEY = {"Authorization": "Bearer everything"}

pytestmark = [
    pytest.mark.slow,
    # its own use of the libraries it drives
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]


@pytest.fixture(scope="module")
def application() -> Iterator[FastAPI]:
    sha256 = hashlib.sha256(b"everything").hexdigest()
    with ThreadPoolExecutor(1) as executor:
        maker = Maker(executor, max_batch=16, generator=np.random.default_rng(0))
        service = Service(
            MemoryEventStore(retention=Retention(events=100)),
            maker,
            keys=Keys([KeyConfig(name="k", sha256=sha256, scopes=tuple(Scope))]),
            limits=LimitsConfig(),
            retention=RetentionConfig(),
            state_cache_bytes=1 << 20,
        )
        variant = first_variant(SmallArtifact(), maker)  # type: ignore[arg-type]
        service.use({"default": TenantModels({"default": variant}, "default")})
        yield create_app(service, compat=EVERY_PRODUCT)


@pytest.mark.parametrize("mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE])
def test_every_answer_is_as_described(application: FastAPI, mode: GenerationMode) -> None:
    schema = schemathesis.openapi.from_asgi("/openapi.json", application)
    operations = [found.ok() for found in schema.get_all_operations()]
    assert len(operations) == 22 + 34  # ours, and those in the shapes of other products
    tried = 0
    for operation in operations:

        @settings(max_examples=EXAMPLES, phases=[Phase.generate])
        @given(case=operation.as_strategy(generation_mode=mode))
        def check(case: schemathesis.Case) -> None:
            nonlocal tried
            tried += 1
            response = case.call(headers=KEY)
            left_out = [checks.positive_data_acceptance]
            if response.status_code == 413:  # refused before it is read, right or wrong
                left_out.append(checks.negative_data_rejection)
            case.validate_response(response, excluded_checks=left_out, headers=KEY)

        if mode is GenerationMode.POSITIVE or operation.path not in SAY_NOTHING:
            check()
    assert tried > 5 * len(operations)
