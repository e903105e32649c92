"""A registry: a dict of named specs."""

from __future__ import annotations

from typing import Protocol, TypeVar

from core.errors import unknown


class Named(Protocol):
    """Anything with a name."""

    @property
    def name(self) -> str:
        """Returns the name."""


Spec = TypeVar("Spec", bound=Named)


class Registry(dict[str, Spec]):
    """Specs by name, in order of registration.

    Args:
        kind: what the specs describe, such as ``"runtime"``; used in error messages.
    """

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind

    def register(self, spec: Spec) -> Spec:
        """Adds ``spec`` under its name and returns it."""
        assert spec.name not in self, f"{self.kind} {spec.name} is registered twice"
        self[spec.name] = spec
        return spec

    def find(self, name: str) -> Spec:
        """Returns the spec called ``name``.

        Raises:
            UserError: unknown name; the message lists the closest names.
        """
        if name not in self:
            raise unknown(self.kind, name, self)
        return self[name]
