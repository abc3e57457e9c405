"""What a model is shown of a session: tiers of blocks in a fixed order, each within its budget of tokens.

    system      the system turns                                 always
    summary     the summary of the turns that it stands for      strategies `summary` and `summary_buffer`
    search      what bears on the question, the best first       when there is one; `vector`: turns of this session only
    recent      the newest turns, without a gap                  as many as the strategy shows

Rules:
* What comes first in the list above is given its tokens first; a search may have a quarter of the whole (or what is
  asked for), and the newest turns have the rest. Nothing is cut: what does not fit is left out and counted.
* What is shown as one of the newest turns is not shown again as found.
* System turns and the summary stay the same from one turn to the next: the last block of each carries `cache_control`.
* A search finds what a recall would find, and nothing that the asker may not see.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import msgspec
import numpy as np

from bus.domain import recall
from bus.domain import session_requests as ask
from bus.domain.session import SUMMARISING, SessionAdded
from bus.domain.tokens import tokens
from bus.errors import InvalidRequest
from projections.conversation import Turn, newest
from projections.query import Meant, Reader, answers, any_of
from projections.views.recall import answered, ranking
from projections.views.sessions import COLUMNS, find, turn

CACHED = {"type": "ephemeral"}
SEARCH_SHARE = 4
"""A search has at most this part of the whole budget, unless it is asked for more."""
LOOKED_AT = 5_000
"""So many of the newest turns are looked at; no strategy shows more."""

_added = msgspec.json.Decoder(SessionAdded).decode


@answers(ask.BuildContext, "blocks")
def context(reader: Reader, request: ask.BuildContext) -> ask.ModelContext:
    return built(reader, request, Meant())


def built(reader: Reader, request: ask.BuildContext, meant: Meant) -> ask.ModelContext:
    """The context, with what an embedder made of the question."""
    return _Builder(reader, request, meant).answer()


class _Builder:
    """One context in the making. `left` is what is left of its budget."""

    def __init__(self, reader: Reader, request: ask.BuildContext, meant: Meant) -> None:
        self.reader = reader
        self.meant = meant
        self.request = request
        self.known = find(reader, request.namespace, request.session)
        self.state = self.known.state
        self.strategy = request.strategy or self.state.strategy
        self.left = request.budget_tokens
        self.left_out: list[ask.LeftOut] = []
        self._check_embedding()

    def answer(self) -> ask.ModelContext:
        request = self.request
        system, summary = self._system(), self._summary()
        recent = self._recent()
        search = self._search({seq for block in (*system, *recent) for seq in block.seqs})
        blocks = [*_cached(system), *_cached(summary), *search, *recent]
        return ask.ModelContext(
            seq=self.reader.seq,
            time=self.reader.time_of(self.reader.seq),
            session=request.session,
            strategy=self.strategy,
            tokens=sum(block.tokens for block in blocks),
            budget_tokens=request.budget_tokens,
            blocks=blocks,
            left_out=self.left_out,
        )

    def _check_embedding(self) -> None:
        given, dimension = self.request.embedding, self.state.dimension
        if given is not None and dimension not in (0, len(given)):
            raise InvalidRequest(
                "the embedding has another dimension",
                code="bad_dimension",
                entity=f"session {self.state.name}",
                expected=f"{dimension} numbers, as those of its turns have",
                found=str(len(given)),
                hint="All embeddings of a session come from one model",
            )

    # --- the tiers ---------------------------------------------------------------------------------------------

    def _system(self) -> list[ask.Block]:
        where = f"role = 'system' and seq > {self.state.cleared}"
        within, blocks = self._cap(self.request.system_tokens), list[ask.Block]()
        for one in self._turns(where):
            if one.tokens <= within:
                within -= one.tokens
                blocks.append(_said("system", one))
            else:
                self._leave_out(
                    "system", 1, one.tokens, f"it does not fit into the {within} tokens that are left for it"
                )
        return self._took(blocks)

    def _summary(self) -> list[ask.Block]:
        text, made = self.state.summary, self.state.summarised
        if self.strategy not in SUMMARISING or made is None:
            return []
        size, within = tokens(text), self._cap(self.request.summary_tokens)
        if size > within:
            self._leave_out("summary", 1, size, f"it does not fit into the {within} tokens that are left for it")
            return []
        return self._took([ask.Block(tier="summary", role="system", content=text, tokens=size, seqs=[made])])

    def _recent(self) -> list[ask.Block]:
        state = self.state
        begins = state.begins if self.strategy in SUMMARISING else state.cleared
        where = f"{self.known.turns} and role <> 'system' and seq > {begins}"
        table = self.reader.at("session_turn")
        (count, total), *_ = self.reader.rows(
            f"select count(*), coalesce(sum(tokens), 0)::bigint from {table} where {where}", self.known.params
        )
        sql = f"select seq, role, tokens from {table} where {where} order by seq desc limit {LOOKED_AT}"
        turns = [Turn(*row) for row in reversed(self.reader.rows(sql, self.known.params))]
        most = {"window": state.recent_turns, "vector": state.recent_turns, "summary": 1}.get(self.strategy, LOOKED_AT)
        within = self._recent_room(turns)
        kept = newest(turns, most, within, least=0)
        if len(kept) < count:
            is_full = len(kept) == len(newest(turns, most, least=0))
            why = f"the strategy shows the newest {most}" if is_full else f"more than {within} tokens"
            self._leave_out("recent", count - len(kept), total - sum(one.tokens for one in kept), why)
        said = self._turns(f"seq in {any_of(one.seq for one in kept)}") if kept else []
        return self._took([_said("recent", one) for one in said])

    def _recent_room(self, turns: Sequence[Turn]) -> int:
        """How many tokens the newest turns may have: what a search may need is spared, but never for the last turn."""
        searches = self.request.query is not None or self.request.embedding is not None
        spared = self._search_cap() if searches else 0
        last = turns[-1].tokens if turns else 0
        within = min(self._cap(self.request.recent_tokens), max(self.left - spared, min(last, self.left)))
        return min(within, max(self.state.recent_tokens, last)) if self.strategy == "summary_buffer" else within

    def _search(self, shown: set[int]) -> list[ask.Block]:
        within, blocks = min(self._search_cap(), self.left), list[ask.Block]()
        many = tokens_ = 0
        for block in self._found(shown):
            if block.tokens <= within:
                within -= block.tokens
                blocks.append(block)
            else:
                many, tokens_ = many + 1, tokens_ + block.tokens
        if many:
            self._leave_out("search", many, tokens_, f"more than the {within} tokens that are left for it")
        return self._took(blocks)

    # --- searching ---------------------------------------------------------------------------------------------

    def _found(self, shown: set[int]) -> Iterator[ask.Block]:
        """What bears on the question and is not shown already, the best first."""
        request, of_session = self.request, self.strategy == "vector"
        k = self.state.nearest if of_session else request.k
        if request.embedding is not None:
            yield from self._nearest(request.embedding, shown, k)
        elif request.query is None:
            if of_session:
                self._leave_out("search", 0, 0, "there is no question to look for")
        elif of_session:
            yield from self._worded(request.query, shown, k)
        else:
            yield from self._recalled(request.query, shown)

    def _recalled(self, query: str, shown: set[int]) -> Iterator[ask.Block]:
        request = self.request
        k = min(1000, request.k + len(shown))
        asked = recall.Recall(namespace=request.namespace, query=query, k=k, kinds=request.kinds)
        try:
            hits = answered(self.reader, asked, self.meant).hits
        except InvalidRequest as error:
            self._leave_out("search", 0, 0, error.problem.message)
            return
        for hit in [hit for hit in hits if hit.seq not in shown][: request.k]:
            text = f"#{hit.seq} {hit.kind} by {hit.agent}: {hit.text}"
            yield ask.Block(
                tier="search", role="system", content=text, tokens=tokens(text), seqs=[hit.seq], agent=hit.agent
            )

    def _worded(self, query: str, shown: set[int], k: int) -> Iterator[ask.Block]:
        """Turns of this session, by recall's ranking."""
        place, seqs = (self.known.namespace, self.known.key), list[int]()
        asked = recall.Recall(namespace=self.known.namespace, query=query, kinds=("turn",))
        try:
            ranked = ranking(self.reader, asked, self.meant)
        except InvalidRequest as error:
            self._leave_out("search", 0, 0, error.problem.message)
            return
        for part in ranked.best(("turn",), 4 * k):
            mine = (one.ident for one in part if (one.namespace, one.entity) == place)
            seqs = list(dict.fromkeys([*seqs, *(seq for seq in mine if seq not in shown)]))
            if len(seqs) >= k:
                break
        yield from self._ranked(seqs[:k])

    def _nearest(self, numbers: Sequence[float], shown: set[int], k: int) -> Iterator[ask.Block]:
        """Turns of this session, by how near their embeddings are."""
        sql = f"""
            select t.seq, e.data
            from {self.reader.at("session_turn")} t join {self.reader.at("event")} e on e.seq = t.seq
            where t.place = {self.known.place} and t.namespace = ? and t.session = ?
            and t.dimension = {len(numbers)} and t.seq > {self.state.cleared} order by t.seq"""
        rows = [row for row in self.reader.rows(sql, self.known.params) if row[0] not in shown]
        if not rows:
            return
        matrix = np.array([_added(data).embedding for _, data in rows], np.float64)
        lengths = np.linalg.norm(matrix, axis=1) * np.linalg.norm(numbers)
        # One by one, so that what stands beside a turn makes no difference to its score.
        scores = np.einsum("ij,j->i", matrix, np.array(numbers, np.float64)) / np.where(lengths == 0, 1.0, lengths)
        order = np.lexsort((-np.arange(len(rows)), -scores))
        yield from self._ranked([rows[i][0] for i in order[:k]])

    def _ranked(self, seqs: Sequence[int]) -> Iterator[ask.Block]:
        """These turns, in this order."""
        read = {one.seq: one for one in self._turns(f"seq in {any_of(seqs)}")} if seqs else {}
        for seq in seqs:
            if seq in read:
                yield _said("search", read[seq])

    # --- what they have in common ------------------------------------------------------------------------------

    def _turns(self, where: str) -> list[ask.Turn]:
        sql = f"select {COLUMNS} from {self.reader.at('session_turn')} where {self.known.turns} and {where}"
        return [turn(row, self.state.compacted) for row in sorted(self.reader.rows(sql, self.known.params))]

    def _cap(self, wanted: int | None) -> int:
        return self.left if wanted is None else min(wanted, self.left)

    def _search_cap(self) -> int:
        wanted = self.request.search_tokens
        return self.request.budget_tokens // SEARCH_SHARE if wanted is None else wanted

    def _took(self, blocks: list[ask.Block]) -> list[ask.Block]:
        self.left -= sum(block.tokens for block in blocks)
        return blocks

    def _leave_out(self, tier: ask.Tier, items: int, tokens_: int, why: str) -> None:
        self.left_out.append(ask.LeftOut(tier=tier, items=items, tokens=tokens_, why=why))


def _said(tier: ask.Tier, one: ask.Turn) -> ask.Block:
    return ask.Block(
        tier=tier,
        role=one.role,
        content=one.content,
        tokens=one.tokens,
        seqs=[one.seq],
        agent=one.agent,
        metadata=one.metadata,
    )


def _cached(blocks: list[ask.Block]) -> list[ask.Block]:
    """The blocks of a tier that stays the same, the last of them marked."""
    return [*blocks[:-1], *(msgspec.structs.replace(block, cache_control=CACHED) for block in blocks[-1:])]
