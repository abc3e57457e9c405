"""What directives and reminders put into inboxes: to whom, for what reason, in which words."""

from __future__ import annotations

from collections.abc import Iterator

from bus.domain import directive, reminder
from bus.domain.task_claims import stamp
from bus.events import Event

Notice = tuple[str, str, str]
"""(agent, reason, text)."""
NOTICED = (
    reminder.ReminderFired,
    directive.DirectiveGiven,
    directive.DirectiveAcknowledged,
    directive.DirectiveCompleted,
    directive.DirectiveDeclined,
    directive.DirectiveCancelled,
    directive.DirectiveFellDue,
)
"""The facts that `notices` has words for."""


def notices(event: Event) -> Iterator[Notice]:
    """A notice for everybody to whom `event` is addressed."""
    fact, name, key = event.fact, event.agent, event.entity
    match fact:
        case reminder.ReminderFired():
            yield fact.to, "reminder", fact.text
        case directive.DirectiveGiven():
            for to in fact.to:
                yield to, "directive", f"directive {key}{_terms(fact)}: {fact.text}"
        case directive.DirectiveAcknowledged():
            yield fact.giver, "notice", f"{name} has taken on directive {key}"
        case directive.DirectiveCompleted():
            yield fact.giver, "notice", f"{name} has completed directive {key}: {fact.result}"
        case directive.DirectiveDeclined():
            yield fact.giver, "notice", f"{name} declines directive {key}: {fact.reason}"
        case directive.DirectiveCancelled():
            for to in fact.to:
                yield to, "notice", f"{name} cancelled directive {key}: {fact.reason}"
        case directive.DirectiveFellDue():
            for to in (fact.giver, *fact.to):
                yield to, "notice", f"directive {key} is overdue: it was to be done by {stamp(fact.due)}"


def _terms(fact: directive.DirectiveGiven) -> str:
    """To which role, how urgent and until when, where any of it was said."""
    terms = [f"for any {fact.role}"] if fact.role is not None else []
    terms += [f"priority {fact.priority}"] if fact.priority else []
    terms += [f"due {stamp(fact.due)}"] if fact.due is not None else []
    return f" ({', '.join(terms)})" if terms else ""
