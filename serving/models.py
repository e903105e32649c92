"""The models that this process has loaded: which one answers, and how they come and go."""

from __future__ import annotations

import asyncio
import dataclasses
import functools

from starlette.requests import Request

from artifact.answering import can_abstain
from artifact.opening import check_runtime, open_artifact
from core.errors import UserError
from serving.batcher import Threads
from serving.listing import Entry, Listing, Trial, incomparable
from serving.memory import give_back, resident_bytes
from serving.metrics import MODEL_BYTES
from serving.naming import told, unknown_model
from serving.predictor import Predictor
from serving.repository import answers_of, entry_of, first_listing
from serving.served import Served
from serving.settings import PREFIX, Settings
from serving.slots import Slots
from serving.state import STARTING, State
from serving.trials import Canary, Shadow

_IDLE_S = 0.02  # between two looks whether a model that left still has requests

Key = tuple[str, str]  # name and version


@functools.cache
def the_models() -> Models:
    """Returns this process's models: those of the shared list, else of the environment; not open.

    Raises:
        UserError: an invalid setting, or no artifact that may be served.
    """
    settings = Settings.from_environment()
    state = State.from_environment()
    if state is None:
        return Models(settings, first_listing(settings))
    state.report(STARTING, {})  # before it reads: whoever changes the list later waits for it
    return Models(settings, state.read(), resuming=state.has_started)


class Models:
    """All models of a process, with one pool of threads. A context manager, open inside the block.

    :meth:`follow` changes it, in the event loop that handles the requests. A request that has begun
    keeps the model that it began with; a model that left is closed after the last of them.

    Args:
        settings: those of the service.
        listing: the models to load.
        predictor: that of the default, if there is one already.
        resuming: whether the service has answered before, in a process that this one replaces.

    Attributes:
        settings: those of the service.
        listing: the models that answer here; before :meth:`open`, the default alone.
        default: the model of the paths that name none.
        canary: the model that answers a share of them; None without.
        shadow: the model that is asked, too; None without.
        failed: why models of the list did not come, by ``name:version``.

    Raises:
        UserError: the default is no artifact, or no server here runs it.
    """

    def __init__(
        self,
        settings: Settings,
        listing: Listing,
        predictor: Predictor | None = None,
        *,
        resuming: bool = False,
    ) -> None:
        self.settings = settings
        self.failed: dict[str, str] = {}
        self._slots = Slots(settings.queue_size + settings.threads)
        self._threads: Threads | None = None
        self._leaving: set[asyncio.Task[None]] = set()
        self._wanted = listing
        self._lenient = resuming or listing.revision > 0
        self.canary: Canary | None = None
        self.shadow: Shadow | None = None
        entry = listing.keys[listing.default, listing.current[listing.default]]
        self.default = Served(entry, predictor or self._predictor(entry), self._slots.share())
        self._served = {entry.key: self.default}
        self.listing = dataclasses.replace(
            listing, entries=(entry,), current={entry.name: entry.version}
        )

    @classmethod
    def alone(cls, predictor: Predictor) -> Models:
        """Returns ``predictor`` as the only model."""
        entry = entry_of(predictor.artifact.path, predictor.settings)
        return cls(predictor.settings, Listing.of((entry,), entry.name), predictor)

    # Opening and closing --------------------------------------------------------------------------

    @property
    def ready(self) -> bool:
        """Returns whether the default is warmed up."""
        return self.default.predictor.ready

    def load(self) -> None:
        """Loads the default, which may be done while other things are imported.

        Raises:
            UserError: this machine cannot run it, or it fails its golden batch.
        """
        self.default.predictor.load()

    def open(self) -> None:
        """Loads all models and warms them up.

        Once the service has started or the list was changed, a model besides the default may be
        broken: it does not come. What was opened before an error is closed.

        Raises:
            UserError: as :meth:`load`, of any of them, or they take too much memory together.
        """
        try:
            self._open_all()
        except BaseException:
            self.close()
            raise

    def _open_all(self) -> None:
        default = self.default
        if not default.predictor.ready:
            default.bytes = self._open(default.predictor, default.entry)
        listing = self._wanted
        for entry in listing.entries:
            if entry.key in self._served or entry.reference in self.failed:
                continue
            try:
                predictor, size = self._load(entry)
            except UserError as error:
                if not self._lenient:
                    raise
                self.failed[entry.reference] = told(error, self.settings, [entry])
            else:
                self._served[entry.key] = Served(entry, predictor, self._slots.share(), size)
        self._settle(listing, self._served)

    def close(self) -> None:
        """Waits until all accepted uploads are answered; none may be submitted afterwards."""
        for served in self._served.values():
            if served.predictor.ready:
                served.predictor.close()
        if self._threads is not None:
            self._threads.close()
            self._threads = None

    async def left(self) -> None:
        """Waits until all models that left are closed, and the shadow has nothing to compare."""
        if self.shadow is not None:
            await self.shadow.done()
        await asyncio.gather(*self._leaving)

    def __enter__(self) -> Models:
        """Returns itself, open."""
        self.open()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # Finding --------------------------------------------------------------------------------------

    @property
    def all(self) -> list[Served]:
        """Returns the loaded models."""
        return list(self._served.values())

    @property
    def bytes(self) -> int:
        """Returns the memory of all loaded models."""
        return sum(served.bytes for served in self._served.values())

    @property
    def most_labels(self) -> int:
        """Returns the number of labels of the model that has most."""
        return max(len(served.predictor.artifact.labels) for served in self._served.values())

    def is_current(self, served: Served) -> bool:
        """Returns whether it answers for its name."""
        return self.listing.current.get(served.entry.name) == served.entry.version

    def pick(self, request: Request) -> Served:
        """Returns the model that answers ``request``, which names none."""
        canary = self.canary
        if canary is not None and canary.answers(request):
            return canary.served
        return self.default

    def find(self, name: str, version: str | None = None) -> Served:
        """Returns a model by its name, and its version or the one that answers.

        Raises:
            Refusal: there is none.
        """
        current = self.listing.current.get(name)
        served = None if current is None else self._served.get((name, version or current))
        if served is None:
            raise unknown_model(self.listing, name, version)
        return served

    # Coming and going -----------------------------------------------------------------------------

    async def follow(self, listing: Listing) -> dict[str, str]:
        """Loads and drops models until they are those of ``listing``.

        A model that cannot be loaded does not come; what it was to replace stays.

        Returns:
            Why models did not come, by ``name:version``; empty if all did.
        """
        self.failed = {}
        before = self._served
        loaded: dict[Key, Served] = {}
        for entry in listing.entries:
            known = before.get(entry.key)
            if known is not None and known.entry == entry:
                loaded[entry.key] = known
                continue
            try:
                predictor, size = await asyncio.to_thread(self._load, entry)
            except UserError as error:
                self.failed[entry.reference] = told(error, self.settings, [entry])
                if known is not None:
                    loaded[entry.key] = known
            else:
                loaded[entry.key] = Served(entry, predictor, self._slots.share(), size)
        self._settle(listing, loaded)
        staying = set(map(id, self._served.values()))
        for served in before.values():
            if id(served) not in staying:
                task = asyncio.create_task(self._leave(served))
                self._leaving.add(task)
                task.add_done_callback(self._leaving.discard)
        return self.failed

    def _settle(self, listing: Listing, loaded: dict[Key, Served]) -> None:
        """Lets ``loaded`` answer, each name by the version that is wanted, or that answered."""
        current: dict[str, str] = {}
        for name, version in listing.current.items():
            if (name, version) not in loaded:  # it did not come: what answered stays
                version = self.listing.current.get(name, version)
                if (name, version) in self._served:
                    loaded[name, version] = self._served[name, version]
            if (name, version) in loaded:
                current[name] = version
        default = listing.default
        if default not in current:
            default = self.listing.default
            current[default] = self.default.entry.version
            loaded[self.default.entry.key] = self.default
        self._served = loaded
        self.default = loaded[default, current[default]]
        canary = self._tried("canary", listing.canary)
        shadow = self._tried("shadow", listing.shadow)
        self.canary = canary and Canary(*canary)
        self.shadow = shadow and Shadow(*shadow)
        self.listing = dataclasses.replace(
            listing,
            entries=tuple(served.entry for served in loaded.values()),
            current=current,
            default=default,
        )

    def _tried(self, kind: str, trial: Trial | None) -> tuple[Served, float] | None:
        """Returns the model on trial and its share; None if there is none that answers alike.

        The list says that it does. But a default that did not come, or that a worker found in
        another state when it started anew, is not the one that the list was checked with.
        """
        served = None if trial is None else self._served.get(trial.key)
        if trial is None or served is None:
            return None
        tried, default = served.predictor.artifact, self.default.predictor.artifact
        if (tried.task, tried.labels) != (default.task, default.labels):
            error = incomparable(kind, served.entry, self.default.entry)
            self.failed[served.entry.reference] = str(error)
            return None
        return served, trial.share

    async def _leave(self, served: Served) -> None:
        while not served.is_idle:
            await asyncio.sleep(_IDLE_S)
        await asyncio.to_thread(served.predictor.close)
        await asyncio.to_thread(give_back)
        self._slots.drop(served.slots)
        successor = self._served.get(served.entry.key)
        MODEL_BYTES.labels(*served.entry.key).set(0 if successor is None else successor.bytes)

    def _load(self, entry: Entry) -> tuple[Predictor, int]:
        """Returns a model besides the default, open, and the bytes that it takes.

        Raises:
            UserError: it cannot be loaded, or is not what was listed: its labels are others.
        """
        predictor = self._predictor(entry)
        if answers_of(predictor.artifact) != entry.answers:
            raise UserError(
                f"{entry.artifact}: its labels or its task are others than when it was listed; "
                "load it again, or put back what was there"
            )
        return predictor, self._open(predictor, entry)

    def _open(self, predictor: Predictor, entry: Entry) -> int:
        """Loads and warms up, and returns the bytes that it takes, within the limit of all."""
        others = self.bytes
        on_disk = predictor.artifact.size  # once: the folder may be gone after it is loaded
        self._check_room(entry, others + on_disk)
        if self._threads is None:
            self._threads = Threads(self.settings.threads)
        before = resident_bytes()
        predictor.open(self._threads)
        size = max(on_disk, resident_bytes() - before)
        try:
            self._check_room(entry, others + size)
        except UserError:
            predictor.close()
            raise
        MODEL_BYTES.labels(*entry.key).set(size)
        return size

    def _check_room(self, entry: Entry, wanted: int) -> None:
        most = self.settings.model_memory_mb << 20
        if wanted > most:
            raise UserError(
                f"{entry.reference} takes the models of this process to {wanted / 2**20:.0f} MiB: "
                f"at most {most >> 20} are allowed (unload one, or set {PREFIX}MODEL_MEMORY_MB)"
            )

    def _predictor(self, entry: Entry) -> Predictor:
        settings = dataclasses.replace(
            self.settings,
            artifact=entry.artifact,
            runtime=entry.runtime,
            call_threads=entry.call_threads,
        )
        artifact = open_artifact(entry.artifact, allow_unverified=settings.allow_unverified)
        check_runtime(entry.runtime, artifact)
        abstain = settings.abstain and can_abstain(artifact)
        return Predictor(dataclasses.replace(settings, abstain=abstain), artifact, entry.key)
