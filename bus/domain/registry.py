"""Two small registries of a tenant: models that agents may run on, and personalities they may take.

Rules:
* Registering what is registered already changes nothing; other descriptions than before are an update.
* `source` says which version of the seed wrote an entry (`bus.domain.memory_seed`); an update takes it away.
* An entry that is deactivated stays listed, and is not to be used.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, ClassVar

from msgspec import Meta, Struct
from msgspec.structs import replace

from bus.errors import NotFound
from bus.events import Event, Fact
from bus.model import (
    Answer,
    Command,
    Context,
    Decision,
    Emit,
    Family,
    Operation,
    PageQuery,
    Reply,
    State,
    View,
)
from bus.subjects import TENANT

EntryName = Annotated[str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._:/-]{0,99}\Z", description="its name")]
Description = Annotated[str, Meta(max_length=20_000, description="what it is good for")]
Active = Annotated[bool | None, Meta(description="whether it is to be used")]
OnlyActive = Annotated[bool | None, Meta(description="only active, or only deactivated ones")]


class ModelRegistered(Fact, frozen=True, kw_only=True):
    """A model may be used from now on, or its description changed."""

    type: ClassVar[str] = "model.registered"
    provider: str = ""
    description: str = ""
    context_tokens: int | None = None
    source: str = ""
    """Where it comes from."""
    active: bool = True
    """Whether it is to be used."""


class Model(State, frozen=True, kw_only=True):
    """A registered model."""

    table: ClassVar[str] = "model"
    provider: str = ""
    description: str = ""
    context_tokens: int | None = None
    source: str = ""
    active: bool = True


class PersonalityRegistered(Fact, frozen=True, kw_only=True):
    """A personality may be taken from now on, or its description changed."""

    type: ClassVar[str] = "personality.registered"
    description: str = ""
    prompt: str = ""
    source: str = ""
    """Where it comes from."""
    active: bool = True
    """Whether it is to be taken."""


class Personality(State, frozen=True, kw_only=True):
    """A registered personality."""

    table: ClassVar[str] = "personality"
    description: str = ""
    prompt: str = ""
    source: str = ""
    active: bool = True


class RegisterModel(Command, frozen=True, kw_only=True):
    """Register a model, or change how it is described."""

    model: EntryName
    provider: Annotated[Annotated[str, Meta(max_length=200)] | None, Meta(description="who serves it")] = None
    description: Description | None = None
    context_tokens: Annotated[
        Annotated[int, Meta(ge=1)] | None, Meta(description="size of its context window in tokens")
    ] = None
    active: Active = None


class UpdateModel(RegisterModel, frozen=True, kw_only=True):
    """Change how a registered model is described."""


class ListModels(PageQuery, frozen=True, kw_only=True):
    """List the registered models."""

    active: OnlyActive = None


class RegisterPersonality(Command, frozen=True, kw_only=True):
    """Register a personality, or change how it is described."""

    personality: EntryName
    description: Description | None = None
    prompt: Annotated[
        Annotated[str, Meta(max_length=100_000)] | None, Meta(description="the instruction that makes it")
    ] = None
    active: Active = None


class UpdatePersonality(RegisterPersonality, frozen=True, kw_only=True):
    """Change how a registered personality is described."""


class ListPersonalities(PageQuery, frozen=True, kw_only=True):
    """List the registered personalities."""

    active: OnlyActive = None


class EntryReply(Reply, frozen=True, kw_only=True):
    name: str


class ModelRow(Struct, frozen=True, kw_only=True):
    model: str
    seq: int
    provider: str
    description: str
    context_tokens: int | None
    source: str
    active: bool


class Models(Answer, frozen=True, kw_only=True):
    models: list[ModelRow]
    next: int | None = None


class PersonalityRow(Struct, frozen=True, kw_only=True):
    personality: str
    seq: int
    description: str
    prompt: str
    source: str
    active: bool


class Personalities(Answer, frozen=True, kw_only=True):
    personalities: list[PersonalityRow]
    next: int | None = None


def evolve_model(model: Model | None, event: Event) -> Model | None:
    """The model after `event`."""
    fact = event.fact
    if not isinstance(fact, ModelRegistered):
        return model
    after = Model(**{name: getattr(fact, name) for name in Model.__struct_fields__})
    return model if after == model else after


def evolve_personality(personality: Personality | None, event: Event) -> Personality | None:
    """The personality after `event`."""
    fact = event.fact
    if not isinstance(fact, PersonalityRegistered):
        return personality
    after = Personality(**{name: getattr(fact, name) for name in Personality.__struct_fields__})
    return personality if after == personality else after


def _merged(view: View, state: type[State], name: str, given: dict[str, Any], must_exist: bool) -> State | Reply:
    """The entry with `given` over what is known, or the Reply that nothing changes."""
    entry = view.entry(state, TENANT, name)
    if entry is None:
        if must_exist:
            raise NotFound(
                f"no such {state.table}",
                entity=f"{state.table} {name}",
                expected=f"a registered {state.table}",
                found="none of that name",
                hint=f"Register it first: bus {state.table} register {name}",
            )
        return state(**given)
    merged: State = replace(entry.state, **given)
    return EntryReply(seq=entry.since, name=name) if merged == entry.state else replace(merged, source="")


def _decide_model(view: View, request: RegisterModel, ctx: Context) -> Decision:
    given = {
        k: v for k in ("provider", "description", "context_tokens", "active") if (v := getattr(request, k)) is not None
    }
    merged = _merged(view, Model, request.model, given, isinstance(request, UpdateModel))
    if not isinstance(merged, Model):
        assert isinstance(merged, Reply)
        return merged
    fact = ModelRegistered(**{name: getattr(merged, name) for name in Model.__struct_fields__})
    return [Emit(Model, request.model, fact, None, TENANT)]


def _decide_personality(view: View, request: RegisterPersonality, ctx: Context) -> Decision:
    given = {k: v for k in ("description", "prompt", "active") if (v := getattr(request, k)) is not None}
    merged = _merged(view, Personality, request.personality, given, isinstance(request, UpdatePersonality))
    if not isinstance(merged, Personality):
        assert isinstance(merged, Reply)
        return merged
    fact = PersonalityRegistered(**{name: getattr(merged, name) for name in Personality.__struct_fields__})
    return [Emit(Personality, request.personality, fact, None, TENANT)]


def _reply(view: View, request: Any, events: Sequence[Event]) -> EntryReply:
    return EntryReply(seq=events[-1].seq, name=events[-1].entity)


MODELS = Family(
    name="model",
    facts=(ModelRegistered,),
    state=Model,
    evolve=evolve_model,
    operations=(
        Operation("model.register", RegisterModel, EntryReply, _decide_model, _reply),
        Operation("model.update", UpdateModel, EntryReply, _decide_model, _reply),
        Operation("model.list", ListModels, Models),
    ),
)

PERSONALITIES = Family(
    name="personality",
    facts=(PersonalityRegistered,),
    state=Personality,
    evolve=evolve_personality,
    operations=(
        Operation("personality.register", RegisterPersonality, EntryReply, _decide_personality, _reply),
        Operation("personality.update", UpdatePersonality, EntryReply, _decide_personality, _reply),
        Operation("personality.list", ListPersonalities, Personalities),
    ),
)
