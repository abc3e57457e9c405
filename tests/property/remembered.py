"""What the events say about memories, and what the queries about them and recall have to be answered. Part of
`tests.property.told` and `tests.property.oracle`, with their rules; words and passages are made by the product."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from typing import Any, NamedTuple

from bus.clock import from_ns
from bus.domain import memory_requests as memory
from bus.domain import recall, task_requests
from bus.domain.recall import Hit
from bus.errors import InvalidRequest, NotFound
from bus.events import Event, Unknown
from bus.subjects import TENANT
from projections.lexical import words
from projections.passages import passages
from tests.property.vectors import cosine

Place = tuple[str, str]
ORDER = ("operating_pattern", "routing_rule", "voice_rule", "discipline_rule", "convention", "do_not", "fact")


class Remembered:
    """What the events taken so far say."""

    def __init__(self) -> None:
        self.entries: dict[Place, dict[str, Any]] = {}

    def memory(self, event: Event, verb: str, body: Any) -> None:
        place = (event.namespace, event.entity)
        if verb == "written":
            blank = {"subject": "", "category": "fact", "priority": 0, "salience": 0.5, "confidence": 1.0, "tags": []}
            blank |= {"metadata": {}, "valid_from": None, "valid_to": None, "source": "", "refs": []}
            blank |= {"trust_tier": None, "supersedes": None, "superseded_by": None, "state": "active"}
            blank |= {
                "embedding": None,
                "pinned": False,
                "links": set(),
                "against": {},
                "author": event.agent,
                "written": event.seq,
            }
            self.entries[place] = blank | body
        known = self.entries[place]
        known["seq"] = event.seq
        before = _wording(known)
        if verb == "appended" or (verb == "revised" and ("content" in body or "embedding" in body)):
            known["embedding"] = body.get("embedding")
        if verb == "appended":
            known["content"] += "\n" + body["text"]
        elif verb == "revised":
            known |= {name: value for name, value in body.items() if name not in ("reason", "embedding")}
        elif verb == "superseded":
            known |= {"state": "superseded", "superseded_by": body["by"]}
        elif verb in ("retracted", "restored"):
            known["state"] = "retracted" if verb == "retracted" else "active"
        elif verb in ("pinned", "unpinned"):
            known["pinned"] = verb == "pinned"
        elif verb == "linked":
            known["links"].add(body["other"])
        elif verb == "unlinked":
            known["links"].remove(body["other"])
        elif verb == "contradicted":
            known["against"][body["other"]] = event.seq
        elif verb == "resolved":
            del known["against"][body["other"]]
        if verb in ("written", "restored") or _wording(known) != before:
            known["worded"] = event.seq


def _wording(known: Mapping[str, Any]) -> Any:
    """What an entry is found by."""
    return known["content"], sorted(set(known["tags"])), known["valid_from"]


def may_read(me: str, key: str) -> bool:
    """Whether the entry of that key may be read."""
    return "+" not in key or key.startswith(f"{me}+")


def _name(key: str) -> str:
    return key.split("+")[-1]


def _here(told: Any, me: str, namespace: str) -> Iterator[tuple[Place, dict[str, Any]]]:
    for place, known in told.remembered.entries.items():
        if place[0] in (namespace, TENANT) and may_read(me, place[1]):
            yield place, known


def _row(told: Any, me: str, asked: str, place: Place) -> memory.MemoryRow:
    known = told.remembered.entries[place]
    name, against = _name(place[1]), set()
    here = {_name(key): other for (_, key), other in _here(told, me, asked)}
    for one, other in here.items():
        against |= {two for two in other["against"] if one == name} | {one for two in other["against"] if two == name}
    same = ("seq", "written", "author", "scope", "state", "category", "content", "subject", "priority", "salience")
    same += ("confidence", "metadata", "source", "trust_tier", "pinned", "supersedes", "superseded_by")
    return memory.MemoryRow(
        memory=name,
        namespace=place[0],
        tags=sorted(set(known["tags"])),
        refs=sorted(set(known["refs"])),
        links=sorted(known["links"]),
        contradicts=sorted(two for two in against if two in here and here[two]["state"] == "active"),
        valid_from=_instant(known["valid_from"]),
        valid_to=_instant(known["valid_to"]),
        **{field: known[field] for field in same},
    )


def _instant(text: str | None) -> datetime | None:
    return datetime.fromisoformat(text) if text else None


def _rows(told: Any, me: str, namespace: str) -> list[memory.MemoryRow]:
    return [_row(told, me, namespace, place) for place, _ in _here(told, me, namespace)]


def _true(row: Any, moment: datetime | None) -> bool:
    if moment is None:
        return True
    return (row.valid_from is None or row.valid_from <= moment) and (row.valid_to is None or moment < row.valid_to)


def _memory(told: Any, me: str, request: memory.Show, head: Any, now: datetime) -> Any:
    places = {_name(key): (namespace, key) for (namespace, key), _ in _here(told, me, request.namespace)}
    if request.memory not in places:
        return NotFound
    place = places[request.memory]
    history = [
        task_requests.Happening(seq=e.seq, time=from_ns(e.time_ns), type=e.type, agent=e.agent, data=json.loads(e.data))
        for e in told.events
        if (e.namespace, e.entity) == place and e.family == "memory" and not isinstance(e.fact, Unknown)
    ]
    return memory.MemoryDetail(memory=_row(told, me, request.namespace, place), history=history, **head)


def _memories(told: Any, me: str, request: memory.List, head: Any, now: datetime) -> memory.Memories:
    rows = [
        row
        for row in _rows(told, me, request.namespace)
        if request.state in ("any", row.state)
        and request.category in (None, row.category)
        and request.subject in (None, row.subject)
        and request.scope in (None, row.scope)
        and request.author in (None, row.author)
        and request.tag in (None, *row.tags)
        and request.pinned in (None, row.pinned)
        and _true(row, request.valid_at)
        and row.written > (request.since or 0)
    ]
    page = sorted(rows, key=lambda row: row.written)[: request.limit]
    return memory.Memories(memories=page, next=page[-1].written if len(page) == request.limit else None, **head)


def _search(told: Any, me: str, request: memory.Search, head: Any, now: datetime) -> memory.Memories:
    sought = request.text.lower().split()
    rows = [
        row
        for row in _rows(told, me, request.namespace)
        if row.state == "active"
        and row.written < (request.before or 1 << 60)
        and all(word in row.content.lower() or word in row.subject.lower() for word in sought)
    ]
    rows.sort(key=lambda row: -row.written)
    return memory.Memories(memories=rows[: request.limit], **head)


def _assemble(told: Any, me: str, request: memory.Assemble, head: Any, now: datetime) -> memory.Memories:
    wanted = request.categories or ORDER[:-1]
    rows = [
        row
        for row in _rows(told, me, request.namespace)
        if row.state == "active" and row.category in wanted and _true(row, request.valid_at or head["time"])
    ]
    rows.sort(key=lambda row: (ORDER.index(row.category), -row.priority, -row.seq))
    return memory.Memories(memories=rows[: request.limit], **head)


# --- recall -------------------------------------------------------------------------------------------------------


class _Text(NamedTuple):
    """Something that could be recalled: by what it is found, and where it stands. `words` None: not any more."""

    kind: str
    first: int
    author: str
    thread: tuple[Any, ...]
    words: list[str] | None
    hit: dict[str, Any]
    embedding: list[float] | None = None


def _texts(told: Any, me: str, request: recall.Recall) -> Iterator[_Text]:
    here = (request.namespace, TENANT)
    for seq, known in told.messages.items():
        event = known["event"]
        if event.namespace in here and told.readable(me, event):
            others = [name for name in event.entity.split("+") if name != me] or [me]
            hit = {"seq": seq, "namespace": event.namespace, "agent": event.agent, "text": known["said"]}
            hit |= {"time": from_ns(event.time_ns)}
            hit |= {"channel": event.entity} if event.family == "channel" else {"dm": others[0]}
            thread = (event.family, event.namespace, event.entity)
            yield _Text("message", seq, event.agent, thread, words(f"{event.agent} {known['said']}"), hit)
    for event, body in told.duties.entries:
        if event.namespace in here:
            lines = [body["focus"], *body["done"], *body["decisions"], *body["next_steps"]]
            hit = {"seq": event.seq, "namespace": event.namespace, "agent": event.agent}
            hit |= {"time": from_ns(event.time_ns), "text": "\n".join(line for line in lines if line)}
            thread = ("journal", event.namespace, event.agent)
            yield _Text("journal", event.seq, event.agent, thread, words("\n".join((event.agent, *lines))), hit)
    yield from _of_tasks(told, here)
    yield from _of_files(told, here)
    for place, session in told.talked.sessions.items():
        if place[0] == request.namespace and may_read(me, place[1]):
            for event, body in session["turns"]:
                author = event.agent if body["role"] == "assistant" else body["role"]
                hit = {"seq": event.seq, "namespace": event.namespace, "agent": author, "text": body["content"]}
                hit |= {"time": from_ns(event.time_ns), "session": session["name"]}
                said = words(f"{author} {body['content']}") if event.seq > session["cleared"] else None
                yield _Text("turn", event.seq, author, ("turn", *place), said, hit)
    for place, known in _here(told, me, request.namespace):
        row = _row(told, me, request.namespace, place)
        text = " ".join((row.author, row.subject, row.content, *row.tags))
        same = ("namespace", "memory", "subject", "category", "scope", "tags", "metadata", "valid_from")
        same += ("valid_to", "trust_tier", "pinned", "contradicts")
        hit = {name: getattr(row, name) for name in same} | {"agent": row.author, "text": row.content}
        hit |= {"seq": known["worded"], "time": told.time(known["worded"])}
        group = (place[0], me if "+" in place[1] else "")
        thread = ("memory", group, row.subject) if row.subject else ("memory", row.written)
        said = words(text) if known["state"] == "active" else None
        yield _Text("memory", row.written, row.author, thread, said, hit, known["embedding"])


def _of_tasks(told: Any, here: Place) -> Iterator[_Text]:
    """What tasks are, and what was told of them."""
    tasks: dict[Place, dict[str, Any]] = {}
    for event in told.events:
        if event.family != "task" or event.namespace not in here or isinstance(event.fact, Unknown):
            continue
        body, place, verb = json.loads(event.data), (event.namespace, event.entity), event.type.partition(".")[2]
        if verb == "opened":
            tasks[place] = {"body": "", "first": event, "worded": event} | body
        known = tasks[place]
        if verb == "amended" and any(body.get(name, known[name]) != known[name] for name in ("title", "body")):
            known |= body | {"worded": event}
        said = {"completed": "result", "offered": "notes", "handed_off": "notes"}.get(verb, "reason")
        shown = {"completed": "done", "handed_off": "handed off"}.get(verb, verb)
        if body.get(said, "").strip():
            yield _of_task(event, event, event.agent, f"{known['title']}\n{shown}: {body[said]}")
    for known in tasks.values():
        text = f"{known['title']}\n{known['body']}" if known["body"] else known["title"]
        yield _of_task(known["first"], known["worded"], known["first"].agent, text)


def _of_task(first: Event, worded: Event, author: str, text: str) -> _Text:
    hit = {"seq": worded.seq, "namespace": first.namespace, "agent": author, "text": text, "task": first.entity}
    hit |= {"time": from_ns(worded.time_ns)}
    thread = ("task", first.namespace, first.entity)
    return _Text("task", first.seq, author, thread, words(f"{author} {text}"), hit)


def _of_files(told: Any, here: Place) -> Iterator[_Text]:
    """The passages of files as they are."""
    for (namespace, path), versions in told.stored.files.items():
        event, content = versions[-1]
        if namespace not in here or content is None:
            continue
        for passage in passages(path, content):
            hit = {"seq": event.seq, "namespace": namespace, "agent": event.agent, "text": passage.text}
            hit |= {"path": path, "line": passage.line, "time": from_ns(event.time_ns)}
            text = f"{event.agent} {path} {passage.under} {passage.text}"
            thread = ("document", namespace, path)
            yield _Text("document", event.seq, event.agent, thread, words(text), hit)


def _own(texts: list[_Text], terms: list[str]) -> list[float]:
    """BM25 of each text."""
    there = [text for text in texts if text.words is not None]
    scores = [0.0] * len(texts)
    mean = sum(len(text.words or ()) for text in there) / len(there) if there else 1.0
    for term in terms:
        having = sum(term in (text.words or ()) for text in there)
        if not having:
            continue
        rarity = math.log(1 + (len(there) - having + 0.5) / (having + 0.5))
        for place, text in enumerate(texts):
            count = (text.words or []).count(term)
            if count:
                length = len(text.words or ())
                scores[place] += rarity * count * (1.2 + 1) / (count + 1.2 * (1 - 0.75 + 0.75 * length / mean))
    return scores


def _recall(told: Any, me: str, request: recall.Recall, head: Any, now: datetime) -> Any:
    terms = list(dict.fromkeys(words(request.query)))
    found, there, cosines = ranked(told, me, request, terms)
    if not terms and not cosines:
        return InvalidRequest
    hits = _chosen(request, found, request.valid_at or head["time"])
    return recall.Hits(hits=hits, words=terms, texts=there, legs=_legs(request, terms, cosines), **head)


def ranked(told: Any, me: str, request: recall.Recall, terms: list[str]) -> tuple[list[Hit], int, Mapping[int, float]]:
    """Everything that has to do with these words or is near, the best first; among how many texts it was looked for;
    and how near the vectors are."""
    texts = sorted(_texts(told, me, request), key=lambda text: text.first)
    cosines = _cosines(request, texts)
    own = _own(texts, terms)
    threads: dict[Any, list[int]] = {}
    for place, text in enumerate(texts):
        threads.setdefault(text.thread, []).append(place)
    asked = set(request.query.casefold().split())
    named = {text.author for text in texts if text.words is not None and text.author in asked} - {"system"}
    around = []
    for place, text in enumerate(texts):
        thread = threads[text.thread]
        at = thread.index(place)
        one, two, three, four = (
            own[thread[at + step]] if 0 <= at + step < len(thread) else 0.0 for step in (-1, 1, -2, 2)
        )
        near = own[place] + one + two
        around.append((near, near + three + four))
    found = []
    by_words = [2.0 * own[place] + 0.5 * near + 1.0 * wide for place, (near, wide) in enumerate(around)]
    scale = max((score for score, text in zip(by_words, texts, strict=True) if text.words is not None), default=0.0)
    for place, text in enumerate(texts):
        author = 1.5 if named == {text.author} else 1.0
        meaning = 0.4 * (scale or 1.0) * _scaled(cosines, place)
        score = (by_words[place] + meaning) * author
        fits = text.words is not None and text.kind in (request.kinds or (text.kind,))
        if fits and (score > 0 or place in cosines):
            near, wide = around[place]
            why = recall.Why(own=own[place], near=near, wide=wide, meaning=meaning, author=author)
            found.append(Hit(kind=text.kind, score=score, why=why, **text.hit))
    found.sort(key=lambda hit: (-hit.score, -_first(texts, hit)))
    return found, sum(text.words is not None for text in texts), cosines


def _cosines(request: recall.Recall, texts: list[_Text]) -> dict[int, float]:
    """By place: how near the vectors are that memories came with, if the question came with one."""
    asked = request.embedding
    if asked is None or "memory" not in (request.kinds or ("memory",)):
        return {}
    return {
        place: round(cosine(text.embedding, asked), 6)
        for place, text in enumerate(texts)
        if text.words is not None and text.embedding and len(text.embedding) == len(asked)
    }


def _scaled(cosines: Mapping[int, float], place: int) -> float:
    if place not in cosines:
        return 0.0
    least, most = min(cosines.values()), max(cosines.values())
    return (cosines[place] - least) / (most - least) if most > least else 1.0


def _legs(request: recall.Recall, terms: list[str], cosines: Mapping[int, float]) -> dict[str, str]:
    legs = {"words": recall.ANSWERED if terms else "the question has no word to look for"}
    if request.embedding is not None:
        none = f"no memory that you can see came with a vector of {len(request.embedding)} numbers"
        legs["dense"] = recall.ANSWERED if cosines else none
    return legs


def _first(texts: list[_Text], hit: Hit) -> int:
    return next(text.first for text in texts if text.kind == hit.kind and text.hit["seq"] == hit.seq)


def _chosen(request: recall.Recall, found: list[Hit], moment: datetime | None) -> list[Hit]:
    said, hits = set[str](), list[Hit]()
    for hit in found:
        text = " ".join(hit.text.casefold().split())
        is_memory = hit.kind == "memory"
        fits = (request.subject is None or (is_memory and hit.subject == request.subject)) and (
            request.scope is None or (is_memory and hit.scope == request.scope)
        )
        fits = fits and (not request.where or (is_memory and request.where.items() <= hit.metadata.items()))
        if fits and (not is_memory or _true(hit, moment)) and text not in said:
            said.add(text)
            hits.append(hit)
    return hits[: request.k]


ANSWERS: Mapping[type, Callable[[Any, str, Any, Any, datetime], Any]] = {
    memory.Show: _memory,
    memory.List: _memories,
    memory.Search: _search,
    memory.Assemble: _assemble,
    recall.Recall: _recall,
}
