"""What every tenant begins with: rules for working together, a few models and a few personalities.

Rules:
* It is written by `system` when a daemon leads and finds it missing. Each part has a fixed name, so writing it again
  changes nothing, and a newer version revises what is still as an older one wrote it.
* What somebody else has changed, or taken away, stays as they left it, whatever the version.
* It belongs to the tenant, not to a namespace, and everything in it names its version as its source.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from bus.domain.memory import Memory, MemoryRevised, MemoryWritten
from bus.domain.registry import Model, ModelRegistered, Personality, PersonalityRegistered
from bus.events import Event
from bus.model import Command, Context, Decision, Emit, Reply, View
from bus.subjects import SYSTEM, TENANT

FAMILY_OF_SOURCES = "synbus:default-"
"""How the sources of all versions begin."""


class Rule(NamedTuple):
    """A rule with the name it has in every tenant."""

    name: str
    category: str
    priority: int
    content: str


class Starter(NamedTuple):
    """A registry's entry: its name, and what is said of it (a model's provider, a personality's prompt)."""

    name: str
    detail: str
    description: str


class Version(NamedTuple):
    """One version of what tenants begin with."""

    source: str
    rules: tuple[Rule, ...]
    models: tuple[Starter, ...]
    personalities: tuple[Starter, ...]


DEFAULT = Version(
    source=f"{FAMILY_OF_SOURCES}v1",
    rules=(
        Rule(
            "seed-wake-first",
            "operating_pattern",
            9,
            "Begin with the wake card: finish what you hold and answer what waits before you take on something new.",
        ),
        Rule(
            "seed-claim-before-work",
            "operating_pattern",
            9,
            "Claim a task before you work on it, and do nothing on a task whose claim you have lost.",
        ),
        Rule(
            "seed-reserve-files",
            "operating_pattern",
            7,
            "Reserve the files you are about to change, as few as will do, and give them back when you are done.",
        ),
        Rule(
            "seed-declare-intent",
            "operating_pattern",
            6,
            "Before a change that others may be planning too, say what you are about to do and read who says the same.",
        ),
        Rule(
            "seed-recall-before-asking",
            "operating_pattern",
            6,
            "Look for an answer in what the team remembers before you ask for it or work it out again.",
        ),
        Rule(
            "seed-journal-at-the-end",
            "operating_pattern",
            5,
            "Before you stop, write down where you stand, what was decided and what comes next.",
        ),
        Rule(
            "seed-route-by-skill",
            "routing_rule",
            5,
            "Give a task to whoever has the skills and the context for it; ask in a channel when nobody is obvious.",
        ),
        Rule(
            "seed-plain-voice",
            "voice_rule",
            4,
            "Write short, plain messages: what happened, what you need, and by when.",
        ),
        Rule(
            "seed-evidence",
            "discipline_rule",
            8,
            "Say that something works only after you have seen it work, and name what you ran.",
        ),
        Rule(
            "seed-say-when-stuck",
            "discipline_rule",
            7,
            "When you are stuck or were wrong, say so at once; hand the task over or release it rather than sit on it.",
        ),
        Rule(
            "seed-name-events",
            "convention",
            4,
            "Refer to messages, decisions and claims by their number, such as #1042, so that others can look them up.",
        ),
        Rule(
            "seed-one-memory-one-fact",
            "convention",
            4,
            "Remember one fact at a time, with its subject; supersede what is no longer true instead of adding to it.",
        ),
        Rule(
            "seed-no-secrets",
            "do_not",
            9,
            "Do not write passwords, keys or tokens into messages, tasks or memories: what is written stays readable.",
        ),
        Rule(
            "seed-no-foreign-work",
            "do_not",
            9,
            "Do not change or undo what another agent holds; ask its holder, or wait until it is released.",
        ),
        Rule(
            "seed-no-silent-decisions",
            "do_not",
            7,
            "Do not reverse a decision of the team without saying so where it was made, and why.",
        ),
    ),
    models=(
        Starter("anthropic/claude-opus", "anthropic", "Difficult reasoning, long tasks, and reviews that matter."),
        Starter("anthropic/claude-sonnet", "anthropic", "Everyday programming and work with tools."),
        Starter("anthropic/claude-haiku", "anthropic", "Quick, inexpensive steps: sorting, summaries, look-ups."),
        Starter("openai/gpt", "openai", "General reasoning and programming."),
        Starter("openai/gpt-mini", "openai", "Quick, inexpensive steps."),
        Starter("openai/codex", "openai", "Programming in a repository."),
        Starter("google/gemini-pro", "google", "Very long documents and mixed media."),
        Starter("google/gemini-flash", "google", "Quick, inexpensive steps with long inputs."),
        Starter("local/default", "local", "Whatever runs on this machine: for what must not leave it."),
    ),
    personalities=(
        Starter(
            "builder",
            "You build. Take one task at a time, make the smallest change that does it, and test it.",
            "Writes code and tests",
        ),
        Starter(
            "reviewer",
            "You review. Look for what is wrong or missing, show it with an example, and say what would be right.",
            "Finds faults before users do",
        ),
        Starter(
            "debugger",
            "You look for causes. Reproduce first, change one thing at a time, and write down what you ruled out.",
            "Finds out why something fails",
        ),
        Starter(
            "researcher",
            "You find things out. Say where each statement comes from and how sure you are of it.",
            "Gathers and compares what is known",
        ),
        Starter(
            "planner",
            "You plan. Cut work into tasks that one agent can finish, with what each needs, and keep it in order.",
            "Divides work and keeps it moving",
        ),
        Starter(
            "scribe",
            "You write for readers who were not there. Be short, exact and complete, in that order of difficulty.",
            "Keeps documents and memories in order",
        ),
    ),
)


def decide_seed(view: View, request: Command, ctx: Context) -> Decision:
    events = [*_rules(view, DEFAULT), *_models(view, DEFAULT), *_personalities(view, DEFAULT)]
    if events:
        return events
    known = view.entry(Memory, TENANT, DEFAULT.rules[0].name)
    assert known is not None
    return Reply(seq=known.since)


def _rules(view: View, version: Version) -> list[Emit]:
    events = []
    for rule in version.rules:
        known = view.get(Memory, TENANT, rule.name)
        if known is None:
            written = MemoryWritten(
                content=rule.content,
                scope="shared",
                category=rule.category,
                priority=rule.priority,
                source=version.source,
            )
            events.append(Emit(Memory, rule.name, written, SYSTEM, TENANT))
        elif known.state == "active" and known.editor == SYSTEM and _is_older(known.source, version):
            revised = MemoryRevised(
                content=rule.content, category=rule.category, priority=rule.priority, source=version.source
            )
            events.append(Emit(Memory, rule.name, revised, SYSTEM, TENANT))
    return events


def _models(view: View, version: Version) -> list[Emit]:
    events = []
    for model in version.models:
        known = view.get(Model, TENANT, model.name)
        if known is None or (known.active and _is_older(known.source, version)):
            fact = ModelRegistered(provider=model.detail, description=model.description, source=version.source)
            events.append(Emit(Model, model.name, fact, SYSTEM, TENANT))
    return events


def _personalities(view: View, version: Version) -> list[Emit]:
    events = []
    for personality in version.personalities:
        known = view.get(Personality, TENANT, personality.name)
        if known is None or (known.active and _is_older(known.source, version)):
            fact = PersonalityRegistered(
                prompt=personality.detail, description=personality.description, source=version.source
            )
            events.append(Emit(Personality, personality.name, fact, SYSTEM, TENANT))
    return events


def _is_older(source: str, version: Version) -> bool:
    """Whether this is the source of what another version wrote."""
    return source.startswith(FAMILY_OF_SOURCES) and source != version.source


def seed_reply(view: View, request: Command, events: Sequence[Event]) -> Reply:
    return Reply(seq=events[-1].seq)
