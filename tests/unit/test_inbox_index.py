"""What waits for an agent, from memory: as of any event, whatever has been taken in since, and however it came in."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bus.clock import EPOCH
from bus.domain.channel import ChannelEdited, ChannelJoined, ChannelLeft, ChannelOpened, ChannelPosted, Read
from bus.domain.dm import DmPosted
from bus.operation import FAMILIES
from projections.inbox_index import Heap, InboxIndex, Unread
from projections.inbox_rows import Inboxes
from projections.query import answerers
from projections.reader import Reader, Stopped
from projections.schema import OPEN, discover
from projections.store import Store
from projections.views.messages import place_of
from tests.unit.folding import Folding

DEV, OPS, DM = 11, 22, 33
LAST = 100


@pytest.fixture
def index() -> InboxIndex:
    """`ada` was in DEV from #10 until #20 and is in it again since #30, and in OPS since #1."""
    index = InboxIndex()
    index.join(1, "ada", OPS, 1, OPEN)
    index.join(10, "ada", DEV, 10, OPEN)
    index.leave(10, "ada", 20)
    index.join(10, "ada", DEV, 30, OPEN)
    for seq in (5, 15, 25, 35):
        index.say(seq, DEV, "bob")
    return index


def seqs_of(unread: Unread) -> list[int]:
    return list(unread.oldest(LAST))


def test_a_channel_brings_what_others_say_while_one_is_a_member(index: InboxIndex) -> None:
    index.say(36, DEV, "ada")
    index.say(37, OPS, "bob")
    unread = index.unread("ada", 0, LAST)
    assert unread.oldest(LAST) == {15: {"channel"}, 35: {"channel"}, 37: {"channel"}}
    assert unread.total == 3
    assert index.unread("bob", 0, LAST).total == 0


def test_a_page_of_a_channel_is_its_first_or_its_newest_messages(index: InboxIndex) -> None:
    assert index.messages(DEV, 0, LAST, 2, newest=True) == [25, 35]
    assert index.messages(DEV, 0, LAST, 2, newest=False) == [5, 15]
    assert index.messages(DEV, 5, 25, 10, newest=False) == index.messages(DEV, 5, 25, 10, newest=True) == [15, 25]
    assert index.messages(DEV, 5, 4, 10, newest=False) == index.messages(OPS, 0, LAST, 10, newest=True) == []


def test_what_came_later_makes_no_difference(index: InboxIndex) -> None:
    index.leave(10, "ada", 40)
    index.say(45, DEV, "bob")
    assert seqs_of(index.unread("ada", 0, 18)) == [15]
    assert seqs_of(index.unread("ada", 0, 34)) == [15]
    assert seqs_of(index.unread("ada", 0, 35)) == [15, 35]
    assert seqs_of(index.unread("ada", 15, LAST)) == [35]
    assert seqs_of(index.unread("ada", 35, LAST)) == []


def test_an_event_counts_once_whatever_it_is_addressed_for(index: InboxIndex) -> None:
    for reason in ("mention", "reply"):
        index.address(35, "ada", reason, DEV, "main")
        index.address(25, "ada", reason, DEV, "main")
    index.address(38, "ada", "notice", None, "main")
    index.address(38, "ada", "notice", None, "main")
    unread = index.unread("ada", 0, LAST)
    assert unread.total == 4
    why = {15: {"channel"}, 25: {"mention", "reply"}, 35: {"channel", "mention", "reply"}, 38: {"notice"}}
    assert unread.oldest(LAST) == why
    for limit in range(1, 5):
        assert unread.oldest(limit) == dict(list(why.items())[:limit])


def test_piles_count_events_and_reasons_by_place(index: InboxIndex) -> None:
    index.address(25, "ada", "mention", DEV, "main")
    index.address(35, "ada", "mention", DEV, "main")
    index.address(36, "ada", "dm", DM, "_")
    index.address(37, "ada", "notice", None, "main")
    index.address(38, "ada", "reminder", None, "main")
    index.address(39, "ada", "notice", None, "lab")
    piles = {
        pile.heap: (pile.count, pile.first, pile.last, pile.reasons) for pile in index.unread("ada", 0, 38).piles()
    }
    assert piles == {
        Heap("", DEV): (3, 15, 35, {"channel": 2, "mention": 2}),
        Heap("", DM): (1, 36, 36, {"dm": 1}),
        Heap("main", None): (2, 37, 38, {"notice": 1, "reminder": 1}),
    }


def test_a_channel_has_so_many_messages_as_of_an_event(index: InboxIndex) -> None:
    assert [index.said(DEV, upto) for upto in (4, 5, 34, 35, LAST)] == [(0, None), (1, 5), (3, 25), (4, 35), (4, 35)]
    assert index.said(OPS, LAST) == (0, None)


def test_touches_are_known_by_their_messages(index: InboxIndex) -> None:
    for seq, message, place in ((40, 25, DEV), (41, 15, DEV), (42, 25, DEV), (43, 37, OPS), (44, 25, OPS)):
        index.touch(seq, message, place)
    assert index.touches(DEV, [25], LAST) == [40, 42]
    assert index.touches(DEV, [15, 25, 35], LAST) == [40, 41, 42]
    assert index.touches(DEV, [25, 15], 41) == [40, 41]
    assert index.touches(DEV, [15], 40) == index.touches(DEV, [35], LAST) == index.touches(DEV, [], LAST) == []
    assert index.touches(OPS, [37], LAST) == [43]
    assert index.touches(DM, [25], LAST) == []


# --- from the tables ----------------------------------------------------------------------------------------------


@pytest.fixture
async def folding(tmp_path: Path) -> Any:
    async with Store.opened(tmp_path, FAMILIES, discover()) as store:
        yield Folding(store)


async def found(folding: Folding, agent: str = "ada") -> list[tuple[int, set[str]]]:
    """What waits for an agent, as an index says that is kept up, and, which must be the same, one that is made anew."""

    def read(reader: Reader) -> list[tuple[int, set[str]]]:
        with reader.inboxes() as kept, Inboxes().upto(reader.seq, reader.chunks) as made:
            for place in (place_of("channel", "default", "dev"), place_of("dm", "_", "ada+bob")):
                assert [kept.touches(place, [seq], reader.seq) for seq in range(1, reader.seq)] == [
                    made.touches(place, [seq], reader.seq) for seq in range(1, reader.seq)
                ]
            waits = kept.unread(agent, 0, reader.seq).oldest(LAST)
            assert waits == made.unread(agent, 0, reader.seq).oldest(LAST)
        return list(waits.items())

    return await folding.store.read(folding.store.position, agent, EPOCH, read)


async def test_what_is_written_is_taken_in_as_the_tables_have_it(folding: Folding) -> None:
    folding.happens("channel", "dev", ChannelOpened(topic=""))
    folding.happens("channel", "dev", ChannelJoined())
    early = folding.happens("channel", "dev", ChannelPosted(text="early"), "bob")
    folding.write()
    assert await found(folding) == [(early, {"channel"})]
    edit = folding.happens("channel", "dev", ChannelEdited(message=early, text="earlier"), "bob")
    folding.happens("channel", "dev", ChannelLeft())
    missed = folding.happens("channel", "dev", ChannelPosted(text="unheard", mentions=("cyd",)), "bob")
    folding.happens("channel", "dev", ChannelJoined())
    late = folding.happens("channel", "dev", ChannelPosted(text="late", mentions=("ada",)), "bob")
    said = folding.happens("dm", "ada+bob", DmPosted(text="psst", to="ada"), "bob")
    folding.write()
    assert await found(folding) == [(early, {"channel"}), (late, {"channel", "mention"}), (said, {"dm"})]
    assert await found(folding, "cyd") == [(missed, {"mention"})]
    folding.happens("channel", "dev", ChannelLeft())
    folding.happens("channel", "dev", ChannelPosted(text="gone"), "bob")
    folding.write()
    assert len(await found(folding)) == 3
    with folding.store.indexes.inboxes.upto(edit, folding.store.chunks) as index:
        assert index.touches(place_of("channel", "default", "dev"), [early], edit) == [edit]


async def test_a_message_is_changed_in_its_own_conversation_only(folding: Folding) -> None:
    for name in ("dev", "ops"):
        folding.happens("channel", name, ChannelOpened(topic=""))
    said = folding.happens("channel", "dev", ChannelPosted(text="said"), "bob")
    before = folding.happens("channel", "ops", ChannelEdited(message=said, text="by an administrator"), "bob")
    edit = folding.happens("channel", "dev", ChannelEdited(message=said, text="meant"), "bob")
    after = folding.happens("channel", "ops", ChannelEdited(message=said, text="and again"), "bob")
    folding.write()

    def read(reader: Reader) -> list[tuple[str, int | None]]:
        found = answerers()[Read].handle(reader, Read(channel="dev"))
        return [(row.text, row.edited) for row in found.messages]

    assert await folding.store.read(before, "ada", EPOCH, read) == [("said", None)]
    for seq in (edit, after):
        assert await folding.store.read(seq, "ada", EPOCH, read) == [("meant", edit)]


def test_what_not_everybody_may_see_is_in_no_channel() -> None:
    place = place_of("channel", "main", "dev")
    rows = {
        "message": [(2, place, "bob", "|bob|cyd|"), (3, place, "bob", None)],
        "channel_members": [(1, 1, OPEN, "main", "dev", "ada")],
    }

    def chunks(sql: str) -> Iterator[list[Any]]:
        words = sql.split()
        yield [] if "item," in words else rows.get(words[words.index("from") + 1], [])

    with Inboxes().upto(3, chunks) as index:
        assert seqs_of(index.unread("ada", 0, 3)) == [3]


async def test_nothing_is_read_back_that_was_just_written(folding: Folding) -> None:
    folding.happens("channel", "dev", ChannelOpened(topic=""))
    folding.write()
    inboxes = folding.store.indexes.inboxes
    assert inboxes.position == 0, "nobody has asked yet"
    await found(folding)
    for _ in range(2):
        folding.happens("channel", "dev", ChannelPosted(text="news"), "bob")
        folding.write()
        assert inboxes.position == folding.store.position


async def test_what_does_not_continue_the_index_is_read_when_somebody_asks(folding: Folding) -> None:
    folding.happens("channel", "dev", ChannelOpened(topic=""))
    folding.happens("channel", "dev", ChannelJoined())
    folding.happens("channel", "dev", ChannelPosted(text="news"), "bob")
    folding.write()
    inboxes = folding.store.indexes.inboxes
    assert inboxes.step(2, folding.store.chunks)
    folding.happens("channel", "dev", ChannelLeft())
    folding.happens("channel", "dev", ChannelPosted(text="unheard"), "bob")
    folding.write()
    assert inboxes.position == 2
    assert await found(folding) == [(3, {"channel"})]


async def test_a_slice_after_another_ends_what_began_in_one_before(
    folding: Folding, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Inboxes, "slice", 2)
    facts = (ChannelOpened(topic=""), ChannelJoined(), ChannelLeft(), ChannelJoined(), ChannelLeft(), ChannelJoined())
    for fact in facts:
        folding.happens("channel", "dev", fact)
        folding.happens("channel", "dev", ChannelPosted(text="news"), "bob")
    folding.write()
    folding.store.indexes.step(folding.store.position, folding.store.chunks)
    assert folding.store.indexes.inboxes.position == folding.store.position, "nobody has to wait for it later"
    assert [seq for seq, _ in await found(folding)] == [4, 8, 12]


def test_a_reading_that_is_stopped_leaves_nothing_half_done() -> None:
    inboxes = Inboxes()
    rows = {"message": [(1, DEV, "bob", None)], "addressed": [(1, "ada", "mention", DEV, "main")]}

    def chunks(sql: str) -> Iterator[list[Any]]:
        words = sql.split()
        name = words[words.index("from") + 1]
        if name not in rows and stops:
            raise Stopped
        yield rows.get(name, [])

    stops = True
    with pytest.raises(Stopped):
        inboxes.step(1, chunks)
    stops = False
    with inboxes.upto(1, chunks) as index:
        assert index.unread("ada", 0, 1).oldest(LAST) == {1: {"mention"}}
        assert index.unread("ada", 0, 1).total == 1
