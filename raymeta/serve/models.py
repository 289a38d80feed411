"""Which models answer for whom: loaded artifacts by tenant and variant, with the shop's changes.

A set of models is replaced whole, between two requests; one that is in use by a request answers it
to the end. Leaves what a model does to `recommender`.
"""

import asyncio
import functools
import time
from collections.abc import Mapping
from concurrent.futures import Executor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from raymeta.config.serving import ModelTable, ServingConfig, folders_of
from raymeta.data.schema import EVENT_TYPES
from raymeta.errors import ArtifactError, ConfigError, DataError
from raymeta.observability import metrics
from raymeta.observability.metrics import Meter
from raymeta.serve.overlay import new_items_key, overlay
from raymeta.serve.recommender import Recommender
from raymeta.serve.traffic import assign
from raymeta.serve.user_events.base import EventStore, ItemChange

if TYPE_CHECKING:
    from raymeta.artifact import Artifact


@dataclass(frozen=True)
class Maker:
    """Makes recommenders of artifacts; what they share is here.

    Attributes:
        executor: one thread, for the tensor work of the process.
        max_batch: users in one batched `adapt` at most.
        generator: draws for exploration, in the executor's thread.
        meter: counts what the process does.
    """

    executor: Executor
    max_batch: int
    generator: np.random.Generator = field(default_factory=np.random.default_rng)
    meter: Meter = field(default_factory=Meter)

    def recommender(
        self,
        artifact: "Artifact",
        changes: Mapping[str, ItemChange],
        *,
        version: int,
        extended: Recommender | None = None,
    ) -> Recommender:
        """A recommender of an artifact with a shop's changes.

        Args:
            artifact: as it was trained.
            changes: the shop's, by item id.
            version: of the catalogue that they make.
            extended: of the same artifact and the same new items, whose encoding is taken over.
        """
        made, items = overlay(
            artifact if extended is None else extended.artifact, changes, version=version
        )
        return Recommender(
            made,
            items,
            executor=self.executor,
            max_batch=self.max_batch,
            generator=self.generator,
            meter=self.meter,
        )


@dataclass(frozen=True)
class Variant:
    """One model of a tenant, and those that stand beside it for other scenarios.

    Attributes:
        trained: the artifact as it was trained.
        recommender: it at work, with the shop's changes.
        new_items: names the shop's new items that `recommender` has.
        beside: scenario -> the model that answers there in its place.
    """

    trained: "Artifact"
    recommender: Recommender
    new_items: str
    beside: "Mapping[str, Variant]" = field(default_factory=dict)

    def named_models(self) -> "dict[str, Variant]":
        """All its models; the main one has the name "", another its scenario's."""
        return {"": self, **self.beside}

    def scenarios(self) -> tuple[str, ...]:
        """What it answers in."""
        return tuple(dict.fromkeys([*scenarios_of(self.trained), *self.beside]))


def scenarios_of(artifact: "Artifact") -> tuple[str, ...]:
    """What an artifact was trained for; one of an earlier release, to recommend."""
    return tuple(artifact.manifest.get("scenarios", ("recommend",)))


@dataclass(frozen=True)
class TenantModels:
    """One shop's models by variant, and who answers a request that names none.

    Attributes:
        default_variant: answers where there is no user, and where `traffic` is empty.
        traffic: variant -> its share of the users.
        salt: of the hash that deals users to variants.
    """

    variants: dict[str, Variant]
    default_variant: str
    traffic: Mapping[str, float] = field(default_factory=dict)
    salt: str = "traffic"

    @functools.cached_property
    def event_types(self) -> frozenset[str]:
        """What an event may be: the log outlives a model that does not use a common type yet."""
        return frozenset(EVENT_TYPES).union(
            *(model.trained.event_types for model in self.all_models())
        )

    def all_models(self) -> "list[Variant]":
        """Every model of every variant."""
        return [
            model for variant in self.variants.values() for model in variant.named_models().values()
        ]

    def versions(self) -> dict[str, str]:
        """The versions of all models; one beside a variant's main one is `variant/scenario`."""
        return {
            f"{name}/{scenario}" if scenario else name: model.trained.model_version
            for name, variant in self.variants.items()
            for scenario, model in variant.named_models().items()
        }

    def variant(
        self, name: str | None, user_id: str | None = None, *, scenario: str = "recommend"
    ) -> tuple[str, Recommender]:
        """The variant of that name, or the one that the user was dealt, or the default.

        Args:
            scenario: which of the variant's models; its main one where none is for that alone.

        Raises:
            DataError: there is none of that name.
        """
        if name is None:
            name = self.default_variant
            if user_id is not None:
                name = assign(user_id, self.traffic, default=name, salt=self.salt)
        if name not in self.variants:
            known = ", ".join(sorted(self.variants))
            raise DataError(f"There is no variant {name!r}.", remedy=f"Use one of: {known}.")
        variant = self.variants[name]
        return name, variant.beside.get(scenario, variant).recommender

    def shares(self) -> dict[str, float]:
        """Variant -> its share of the users who name none, together 1; those with a share."""
        traffic = self.traffic or {self.default_variant: 1.0}
        whole = sum(traffic.values())
        return {name: share / whole for name, share in traffic.items() if share > 0}

    @property
    def default(self) -> Variant:
        return self.variants[self.default_variant]

    @property
    def catalogue_version(self) -> int:
        return self.default.recommender.catalogue_version


def load_models(
    table: ModelTable, *, config: ServingConfig, maker: Maker
) -> dict[str, TenantModels]:
    """Loads and checks every artifact of a table, all or none.

    Raises:
        ArtifactError: a folder is not a whole artifact.
        ConfigError: a model adapts to more events than the store retains, or was not trained for
            the scenario that it is named for.
    """
    models: dict[str, TenantModels] = {}
    for tenant, entry in table.tenants.items():
        variants: dict[str, Variant] = {}
        for name, given in entry.variants.items():
            loaded = [
                first_variant(_load(path, scenario, config), maker)
                for scenario, path in folders_of(given).items()
            ]
            beside = dict(zip(list(folders_of(given))[1:], loaded[1:], strict=True))
            variants[name] = replace(loaded[0], beside=beside)
        models[tenant] = TenantModels(variants, entry.default_variant, entry.traffic, entry.salt)
    return models


def _load(path: str, scenario: str, config: ServingConfig) -> "Artifact":
    """A checked artifact; `scenario` is what it is named for, "" for nothing in particular."""
    from raymeta.artifact import load_artifact

    artifact = load_artifact(Path(path).expanduser())
    if artifact.view.max_events > config.retention.events:
        raise ConfigError(
            f"Artifact {path} adapts to the last {artifact.view.max_events} events; "
            f"retention.events is {config.retention.events}.",
            remedy=f"Set retention.events to {artifact.view.max_events} or more.",
        )
    if scenario and scenario not in scenarios_of(artifact):
        raise ConfigError(
            f"Artifact {path} is named for the scenario {scenario!r}; it was trained for "
            f"{', '.join(scenarios_of(artifact))}.",
            remedy="Name it for that, or give an artifact that was trained for the scenario.",
        )
    return artifact


def first_variant(artifact: "Artifact", maker: Maker) -> Variant:
    """An artifact at work as it was trained."""
    return Variant(
        artifact, maker.recommender(artifact, {}, version=0), new_items_key(artifact, {})
    )


class Models:
    """The models that answer, and their catalogues kept up with the store.

    Args:
        store: where the shop's changes to items are.
        maker: makes recommenders.
    """

    def __init__(self, store: EventStore, maker: Maker) -> None:
        self._store = store
        self._maker = maker
        self._models: dict[str, TenantModels] = {}
        self._changes: dict[str, dict[str, ItemChange]] = {}
        self._refreshing = asyncio.Lock()

    def use(self, models: dict[str, TenantModels]) -> None:
        """Answers with `models` from the next request on."""
        self._models = models
        self._tell_which()

    def _tell_which(self) -> None:
        """What does not answer any more is told by a 0."""
        meter = self._maker.meter
        for labels, _ in list(meter.series(metrics.MODEL_INFO)):
            meter.set(metrics.MODEL_INFO, *labels, value=0)
        for tenant, models in self._models.items():
            for name, variant in models.variants.items():
                version = variant.trained.model_version
                meter.set(metrics.MODEL_INFO, tenant, name, version, value=1)
        meter.set(metrics.MODEL_LOADED, value=time.time())

    @property
    def all(self) -> Mapping[str, TenantModels]:
        """By tenant.

        Raises:
            ArtifactError: none are loaded.
        """
        if not self._models:
            raise ArtifactError("No model is loaded.", remedy="Deploy one, then ask again.")
        return self._models

    def tenant(self, name: str) -> TenantModels:
        """A tenant's models.

        Raises:
            ArtifactError: none are loaded.
            DataError: there is no such tenant.
        """
        models = self.all
        if name not in models:
            raise DataError(f"There is no tenant {name!r}.", remedy="Ask for one that is served.")
        return models[name]

    def changes(self, tenant: str) -> Mapping[str, ItemChange]:
        """The shop's changes to items that are known here, by item id."""
        return self._changes.get(tenant, {})

    async def refresh(self, tenant: str, *, catalogue: int) -> TenantModels:
        """The tenant's models with its catalogue at version `catalogue` or above.

        Requests that need it at the same time wait for one rebuild.

        Raises:
            StoreError: the changes cannot be read.
        """
        async with self._refreshing:
            models = self.tenant(tenant)
            if models.catalogue_version >= catalogue:
                return models
            started = time.perf_counter()
            known = self._changes.get(tenant, {})
            after = max((change.version for change in known.values()), default=0)
            fresh = await self._store.item_changes(tenant, after=after)
            changes = {**known, **{change.item_id: change for change in fresh}}
            version = max((change.version for change in changes.values()), default=0)
            rebuilt = await asyncio.to_thread(self._rebuild, models, changes, version)
            self._changes[tenant] = changes
            took = time.perf_counter() - started
            self._maker.meter.observe(metrics.CATALOGUE_REFRESHES, took, tenant)
            if self._models.get(tenant) is models:  # else new artifacts came; they refresh anew
                self._models = {**self._models, tenant: rebuilt}
            return rebuilt

    def _rebuild(
        self, models: TenantModels, changes: Mapping[str, ItemChange], version: int
    ) -> TenantModels:
        def rebuilt(model: Variant) -> Variant:
            new_items = new_items_key(model.trained, changes)
            same = model.recommender if new_items == model.new_items else None
            recommender = self._maker.recommender(
                model.trained, changes, version=version, extended=same
            )
            beside = {scenario: rebuilt(other) for scenario, other in model.beside.items()}
            return Variant(model.trained, recommender, new_items, beside)

        variants = {name: rebuilt(variant) for name, variant in models.variants.items()}
        return replace(models, variants=variants)
