"""Files of the vault, as they were: read, listed, with their versions, and how they changed."""

from __future__ import annotations

from difflib import SequenceMatcher
from itertools import takewhile

from bus.domain import vault
from bus.domain.vault_files import lines_of
from bus.domain.vault_paths import path_of
from bus.errors import InvalidRequest, NotFound
from projections.query import Reader, answers
from projections.views.versions import versions

PAIRS_COMPARED = 250_000
"""Where the lines that differ make more pairs than so many, all of them are shown as removed and added: comparing them
would take too long."""
CONTEXT = 3
"""So many lines around a change are shown."""
DIFF_BYTES = 900_000
NO_NEWLINE = "\\ No newline at end of file"

_Step = tuple[str, int, int, int, int]
"""As `difflib` has them: what is done, with lines from and to before, and from and to after."""


@answers(vault.Read)
def read(reader: Reader, request: vault.Read) -> vault.File:
    path = path_of(request.path)
    entry = reader.state(vault.VaultFile, request.namespace, path)
    if entry is None or entry.state.state != "present":
        raise missing(
            reader, request.namespace, path, "none" if entry is None else f"{entry.state.state} #{entry.since}"
        )
    file: vault.VaultFile = entry.state
    return vault.File(
        seq=reader.seq,
        time=reader.time_of(reader.seq),
        path=path,
        version=entry.since,
        size=file.size,
        content=file.content,
    )


def missing(reader: Reader, namespace: str, path: str, found: str) -> NotFound:
    return NotFound(
        "no such file",
        entity=f"file {path}",
        expected=f"a file of namespace {namespace} as of #{reader.seq}",
        found=found,
        hint="`bus vault list` shows them",
    )


@answers(vault.List, "files")
def list_files(reader: Reader, request: vault.List) -> vault.Files:
    where, params = f"state = 'present' and seq_from > {request.since or 0} and namespace = ?", [request.namespace]
    if request.directory is not None:
        where += " and starts_with(vault, ?)"
        params.append(f"{path_of(request.directory)}/")
    sql = f"""
        select vault, seq_from, size from {reader.at("vault")}
        where {where} order by seq_from limit {request.limit}"""
    found = [vault.FileRow(path=path, seq=seq, size=size) for path, seq, size in reader.rows(sql, params)]
    more = found[-1].seq if len(found) == request.limit else None
    return vault.Files(seq=reader.seq, time=reader.time_of(reader.seq), files=found, next=more)


@answers(vault.History, "versions")
def history(reader: Reader, request: vault.History) -> vault.Versions:
    path = path_of(request.path)
    kid = reader.kid("vault", request.namespace, path)
    if kid is None:
        raise missing(reader, request.namespace, path, "none")
    page = versions(reader, "vault", kid, ("state", "size"), request.since, request.before, request.limit)
    found = [
        vault.FileVersion(seq=seq, time=time, agent=agent, type=type_, state=values[0], size=values[1])
        for seq, time, agent, type_, values in page
    ]
    more = found[-1].seq if found else request.since
    return vault.Versions(seq=reader.seq, time=reader.time_of(reader.seq), versions=found, next=more)


# --- differences --------------------------------------------------------------------------------------------------


@answers(vault.Diff)
def diff(reader: Reader, request: vault.Diff) -> vault.Difference:
    path = path_of(request.path)
    kid = reader.kid("vault", request.namespace, path)
    if kid is None:
        raise missing(reader, request.namespace, path, "none")
    end = reader.seq if request.end is None else request.end
    start = _before(reader, kid, end) if request.start is None else request.start
    if not start <= end <= reader.seq:
        raise InvalidRequest(
            "a difference is between two moments that have come, the earlier one first",
            code="bad_range",
            entity=f"file {path}",
            expected=f"start <= end <= #{reader.seq}",
            found=f"start #{start}, end #{end}",
            hint="`bus vault history` shows the versions",
        )
    text = unified(path, (start, _content(reader, kid, start)), (end, _content(reader, kid, end)))
    if len(text.encode()) > DIFF_BYTES:
        raise InvalidRequest(
            "the difference is too large for one answer",
            code="too_large",
            entity=f"file {path}",
            expected=f"at most {DIFF_BYTES} bytes",
            found=f"{len(text.encode())} bytes",
            hint="Compare moments that lie closer together, or read both: bus vault read --as-of",
        )
    return vault.Difference(seq=reader.seq, time=reader.time_of(reader.seq), path=path, start=start, end=end, diff=text)


def _before(reader: Reader, kid: int, seq: int) -> int:
    """The moment before the last change up to `seq`."""
    sql = f"select max(seq_from) from {reader.history('vault')} where kid = {kid} and seq_from <= {seq}"
    ((last,),) = reader.rows(sql)
    return (last or 1) - 1


def _content(reader: Reader, kid: int, seq: int) -> str:
    """The text as of event `seq`: empty when there was no file."""
    sql = f"select content from {reader.history('vault')} where kid = {kid} and seq_from <= {seq} and {seq} < seq_to"
    rows = reader.rows(sql)
    return str(rows[0][0]) if rows else ""


def unified(path: str, old: tuple[int, str], new: tuple[int, str]) -> str:
    """The change from one (seq, text) to the other as a unified diff; nothing when the texts are the same."""
    if old[1] == new[1]:
        return ""
    before, after = _marked(old[1]), _marked(new[1])
    out = [f"--- {path} #{old[0]}", f"+++ {path} #{new[0]}"]
    for hunk in _hunks(before, after):
        first, last = hunk[0], hunk[-1]
        out.append(f"@@ -{_range(first[1], last[2])} +{_range(first[3], last[4])} @@")
        for tag, i, i_end, j, j_end in hunk:
            if tag == "equal":
                out += [f" {line}" for line in before[i:i_end]]
                continue
            out += [f"-{line}" for line in before[i:i_end]]
            out += [f"+{line}" for line in after[j:j_end]]
    return "\n".join(out) + "\n"


def _marked(text: str) -> list[str]:
    """The lines of a text; a last line that does not end is marked as one."""
    lines = lines_of(text)
    return lines if text.endswith("\n") or not lines else [*lines[:-1], f"{lines[-1]}\n{NO_NEWLINE}"]


def _hunks(before: list[str], after: list[str]) -> list[list[_Step]]:
    """The steps from one list of lines to the other, those close together in one group, with some lines around."""
    same = _common(before, after)
    rest = _common(before[same:][::-1], after[same:][::-1])
    start, around = max(0, same - CONTEXT), min(rest, CONTEXT)
    old = before[start : len(before) - rest + around]
    new = after[start : len(after) - rest + around]
    if len(old) * len(new) <= PAIRS_COMPARED:
        groups = list[list[_Step]](SequenceMatcher(None, old, new).get_grouped_opcodes(CONTEXT))
    else:
        groups = [_replaced(same - start, len(old), len(new), around)]
    return [[(tag, i + start, k + start, j + start, m + start) for tag, i, k, j, m in group] for group in groups]


def _replaced(head: int, old: int, new: int, tail: int) -> list[_Step]:
    """All of the lines between the first `head` and the last `tail` ones are others."""
    return [
        ("equal", 0, head, 0, head),
        ("replace", head, old - tail, head, new - tail),
        ("equal", old - tail, old, new - tail, new),
    ]


def _common(one: list[str], other: list[str]) -> int:
    """How many lines the two have in common at the beginning."""
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False)))


def _range(first: int, last: int) -> str:
    length = last - first
    return str(first + 1) if length == 1 else f"{first + 1 if length else first},{length}"
