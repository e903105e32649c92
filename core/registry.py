"""A table of things known by name."""

from __future__ import annotations

from typing import Protocol, TypeVar

from core.errors import unknown


class Named(Protocol):
    """Anything with a name."""

    @property
    def name(self) -> str:
        """Returns what it is asked for by."""


Spec = TypeVar("Spec", bound=Named)


class Registry(dict[str, Spec]):
    """Specs by their names, in the order of their registration.

    Args:
        kind: what they are, for error messages: ``"runtime"``.
    """

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind

    def register(self, spec: Spec) -> Spec:
        """Adds ``spec`` under its name, and returns it."""
        assert spec.name not in self, f"{self.kind} {spec.name} is registered twice"
        self[spec.name] = spec
        return spec

    def find(self, name: str) -> Spec:
        """Returns the spec of that name.

        Raises:
            UserError: there is none; the message has the closest names.
        """
        if name not in self:
            raise unknown(self.kind, name, self)
        return self[name]
