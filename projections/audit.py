"""SQL of users, in a locked database of its own, in a process of its own.

    ask -> export what the agent may see as of S (Parquet, private directory) -> child: load, lock, run, answer

Rules:
* User SQL never meets the live tables. The child holds copies of the rows that are visible to the one who asks, and
  nothing else: no files, no network, no extensions, no settings, no environment.
* Exactly one SELECT is run, in a transaction that cannot write. Time, memory and size of the result are bounded; what
  takes too long is interrupted, and what cannot be interrupted is killed.
* Only tables whose names occur in the text are exported. Errors say what the database said, without paths.
"""

from __future__ import annotations

import os
import re
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from datetime import date, datetime, time
from decimal import Decimal
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import anyio
import msgspec

from bus.clock import EPOCH
from bus.errors import BusError, InvalidRequest, Refused
from projections.reader import Reader
from projections.store import SqlError, Store, private_database

MEMORY_MB = 512
SPARE_MB = 1024
"""Address space of the child beside the database's memory. Some functions take memory without asking for it."""
START_S = 10.0
"""So long the child may take to start and to load, beside the time of the query."""
END_S = 1.0
"""A query that does not heed an interrupt for so long is ended with its process."""
RESULT_BYTES = 16 << 20
FETCH_ROWS = 500
SAFE_INT = (1 << 53) - 1
"""Larger integers are sent as text: many readers of JSON would round them."""

_ZONED = "WITH TIME ZONE"
_WORD = re.compile(r"[a-z_][a-z0-9_]*")
_PATH = re.compile(r"(?<![\w.:/])(/[\w.@%+~-]+){2,}/?")
_ERRORS: Mapping[str, type[BusError]] = {cls.__name__: cls for cls in (InvalidRequest, Refused)}


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """What a query gave. `truncated`: there was more than the limit, or more than fits into an answer."""

    columns: list[str]
    rows: list[list[Any]]
    truncated: bool


class Failure(msgspec.Struct, frozen=True, kw_only=True):
    """Why the child did not run the query, or did not finish it."""

    kind: str
    code: str
    message: str


class Task(msgspec.Struct, frozen=True, kw_only=True):
    """What the child is to do. `tables` maps a name to a Parquet file."""

    sql: str
    tables: dict[str, str]
    limit: int
    timeout_s: float
    memory_mb: int


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """What the child has to say: one of the two."""

    result: Result | None = None
    failure: Failure | None = None


# --- the side of the daemon ---------------------------------------------------------------------------------------


async def ask(
    store: Store,
    sql: str,
    *,
    agent: str,
    seq: int,
    limit: int,
    timeout_s: float,
    directory: Path,
    memory_mb: int = MEMORY_MB,
) -> Result:
    """Run one SELECT over the tables as of `seq`, as `agent` may see them. `directory` exists and is private.

    Raises InvalidRequest for what is no such SELECT, Refused for what takes too long or too much memory.
    """
    words = set(_WORD.findall(sql.lower()))
    names = [name for name in store.schema.tables if name in words]
    with TemporaryDirectory(prefix="sql-", dir=directory) as scratch:
        files = {name: str(Path(scratch) / f"{name}.parquet") for name in names}

        def export(reader: Reader) -> None:
            for name, file in files.items():
                reader.export(name, Path(file))

        await store.read(seq, agent, EPOCH, export, timeout_s=timeout_s)
        task = Task(sql=sql, tables=files, limit=limit, timeout_s=timeout_s, memory_mb=memory_mb)
        answer = await _in_child(task, scratch)
    if answer.failure is not None:
        failure = answer.failure
        hint = f"The tables are: {', '.join(sorted(store.schema.tables))}" if failure.code == "unknown_name" else None
        raise _ERRORS[failure.kind](failure.message, code=failure.code, hint=hint)
    assert answer.result is not None
    return answer.result


async def _in_child(task: Task, scratch: str) -> Answer:
    # The child gets no environment: nothing of it can be read by SQL, and nothing of it changes what SQL does.
    env = {"PYTHONPATH": str(Path(__file__).parents[1]), "HOME": scratch}
    with anyio.move_on_after(task.timeout_s + START_S):
        done = await anyio.run_process(
            [sys.executable, "-m", "projections.audit"],
            input=msgspec.json.encode(task),
            check=False,
            cwd=scratch,
            env=env,
        )
        try:
            return msgspec.json.decode(done.stdout, type=Answer)
        except msgspec.MsgspecError:
            return _failed(
                Refused, "stopped", "the query broke the process it ran in: it takes too much memory or depth"
            )
    return _too_long(task)


def _failed(kind: type[BusError], code: str, message: str) -> Answer:
    return Answer(failure=Failure(kind=kind.__name__, code=code, message=message))


# --- the side of the child ----------------------------------------------------------------------------------------


def main() -> None:
    """Read a Task from standard input, write an Answer to standard output."""
    task = msgspec.json.decode(sys.stdin.buffer.read(), type=Task)
    _limit_process(task.memory_mb + SPARE_MB)
    try:
        answer = run(task)
    except MemoryError:
        answer = _too_much(task)
    _say(answer)


def _say(answer: Answer) -> None:
    sys.stdout.buffer.write(msgspec.json.encode(answer))
    sys.stdout.buffer.flush()


def _limit_process(memory_mb: int) -> None:
    try:
        import resource
    except ImportError:  # not every system has it; the limits of the database hold everywhere
        return
    size = memory_mb << 20
    resource.setrlimit(resource.RLIMIT_AS, (size, size))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def run(task: Task) -> Answer:
    """Load the tables, lock the database, run the query."""
    database = private_database(task.memory_mb)
    try:
        for name, file in task.tables.items():
            quoted = file.replace("'", "''")
            database.execute(f"create table \"{name}\" as from read_parquet('{quoted}')").fetchall()
        for setting in ("TimeZone = 'UTC'", "enable_external_access = false", "lock_configuration = true"):
            database.execute(f"set {setting}").fetchall()
        return _select(database, task)
    except SqlError as error:
        return _sql_error(error, task)
    finally:
        database.close()


def _select(database: Any, task: Task) -> Answer:
    statements = database.extract_statements(task.sql)
    kinds = [_kind(statement) for statement in statements]
    if kinds != ["SELECT"]:
        found = ", ".join(kinds) or "nothing"
        return _failed(InvalidRequest, "not_select", f"expected exactly one SELECT statement, found {found}")
    done = threading.Event()
    timer = threading.Thread(target=_watch, args=(database, task, done), daemon=True)
    # A SELECT may hold a DELETE in its WITH clause: it would only change the copy, but it shall not look as if it did.
    database.execute("begin transaction read only").fetchall()
    timer.start()
    try:
        cursor = database.execute(statements[0])
        columns = [column[0] for column in cursor.description]
        if any(_ZONED in str(column[1]) for column in cursor.description):
            cursor = database.execute(_without_zones(statements[0].query, cursor.description))
        rows: list[list[Any]] = []
        size = 0
        for row in _fetched(cursor):
            line = [plain(value) for value in row]
            size += len(msgspec.json.encode(line))
            if len(rows) == task.limit or size > RESULT_BYTES:
                return Answer(result=Result(columns=columns, rows=rows, truncated=True))
            rows.append(line)
        return Answer(result=Result(columns=columns, rows=rows, truncated=False))
    finally:
        done.set()
        timer.join()


def _without_zones(sql: str, description: Sequence[Any]) -> str:
    """The same query with instants that carry a zone as text: the client library cannot fetch them by itself."""
    inner = sql.strip().rstrip(";")
    columns = []
    for number, column in enumerate(description):
        name, kind = f"c{number}", str(column[1])
        if kind == f"TIMESTAMP {_ZONED}":
            columns.append(f"strftime({name}, '%Y-%m-%dT%H:%M:%S.%f+00:00')")
        else:
            columns.append(f"{name}::varchar" if _ZONED in kind else name)
    names = ", ".join(f"c{number}" for number in range(len(description)))
    return f"select {', '.join(columns)} from (\n{inner}\n) as t({names})"


def _kind(statement: Any) -> str:
    try:
        return str(statement.type.name)
    except ValueError:  # a kind of statement that the client library has no name for
        return "another statement"


def _watch(database: Any, task: Task, done: threading.Event) -> None:
    """Interrupt the query when its time is up, and end the process when that does not help."""
    if done.wait(task.timeout_s):
        return
    for _ in range(int(END_S / 0.05)):
        database.interrupt()
        if done.wait(0.05):
            return
    _say(_too_long(task))
    os._exit(0)


def _too_long(task: Task) -> Answer:
    return _failed(Refused, "timeout", f"the query took longer than {task.timeout_s:g} s and was stopped")


def _too_much(task: Task) -> Answer:
    return _failed(Refused, "memory", f"the query, or the tables it names, need more than {task.memory_mb} MB")


def _fetched(cursor: Any) -> Iterator[Sequence[Any]]:
    while rows := cursor.fetchmany(FETCH_ROWS):
        yield from rows


def _sql_error(error: Exception, task: Task) -> Answer:
    kind = type(error).__name__.removesuffix("Exception")
    if kind == "Interrupt":
        return _too_long(task)
    if kind == "OutOfMemory":
        return _too_much(task)
    text = _PATH.sub(lambda found: found[0] if found[0] in task.sql else "(a path)", str(error)).strip()
    if kind in ("Permission", "Transaction"):
        return _failed(Refused, "forbidden", text)
    return _failed(InvalidRequest, "unknown_name" if kind == "Catalog" else "sql", text)


def plain(value: Any) -> Any:
    """`value` as JSON can say it: instants in ISO 8601, decimals and huge integers as text, bytes in hex."""
    if value is None or isinstance(value, bool | str):
        return value
    if isinstance(value, int):
        return value if -SAFE_INT <= value <= SAFE_INT else str(value)
    if isinstance(value, float):
        return value if value - value == 0 else str(value)
    if isinstance(value, datetime | date | time):
        return value.isoformat()
    if isinstance(value, bytes | bytearray | memoryview):
        return bytes(value).hex()
    if isinstance(value, Mapping):
        return {str(plain(key)): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(item) for item in value]
    return format(value, "f") if isinstance(value, Decimal) else str(value)


if __name__ == "__main__":
    main()
