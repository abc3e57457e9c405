"""What the memory tool views: a file with line numbers, or a directory two levels deep (see
`bus.domain.vault_memories`)."""

from __future__ import annotations

from collections import Counter

from bus.domain import vault_memories as tool
from bus.domain.vault import VaultFile
from bus.domain.vault_files import lines_of
from bus.errors import InvalidRequest
from projections.query import Reader, answers

LEVELS = 2
LEFT_OUT = "node_modules"
VIEW_BYTES = 900_000
_UNITS = "BKMG"


@answers(tool.Show)
def view(reader: Reader, request: tool.Show) -> tool.Viewed:
    place = tool.place_of(request.path)
    entry = reader.state(VaultFile, request.namespace, place)
    if entry is not None and entry.state.state == "present":
        text = _file(request, entry.state.content)
    else:
        text = _directory(reader, request, place)
    if len(text.encode()) > VIEW_BYTES:
        raise InvalidRequest(
            "this is too much to view at once",
            code="too_large",
            entity=request.path,
            expected=f"at most {VIEW_BYTES} bytes",
            found=f"{len(text.encode())} bytes",
            hint="View a part of it: view_range, or a directory in it",
        )
    return tool.Viewed(seq=reader.seq, time=reader.time_of(reader.seq), text=text)


def _file(request: tool.Show, content: str) -> str:
    lines, first = lines_of(content), 1
    if request.view_range is not None:
        first, last = request.view_range
        last = len(lines) if last == -1 else last
        if not 1 <= first <= max(1, len(lines)) or last < first:
            raise InvalidRequest(
                f"Error: Invalid `view_range` parameter: {list(request.view_range)}. "
                f"It should be within the range of lines of the file: [1, {len(lines)}]",
                code="bad_range",
                entity=request.path,
                expected=f"two lines from 1 to {len(lines)}, the earlier one first",
                found=str(list(request.view_range)),
                hint="-1 as the last line is the end of the file",
            )
        lines = lines[first - 1 : last]
    return f"Here's the content of {request.path} with line numbers:\n{tool.numbered(lines, first)}"


def _directory(reader: Reader, request: tool.Show, place: str) -> str:
    sql = f"""
        select vault, size from {reader.at("vault")}
        where namespace = ? and state = 'present' and starts_with(vault, ?)"""
    found = reader.rows(sql, [request.namespace, f"{place}/"])
    if not found and place != tool.place_of(tool.ROOT):
        message = f"The path {request.path} does not exist. Please provide a valid path."
        raise tool.not_there(request.path, message, "nothing")
    path = request.path.rstrip("/")
    sizes = Counter({"": 0})
    for name, size in found:
        names = name[len(place) + 1 :].split("/")
        if any(part.startswith(".") or part == LEFT_OUT for part in names):
            continue
        sizes[""] += size
        for level in range(1, min(len(names), LEVELS) + 1):
            is_file = level == len(names)
            sizes["/" + "/".join(names[:level]) + ("" if is_file else "/")] += size
    listed = "\n".join(f"{human(sizes[name])}\t{path}{name}" for name in sorted(sizes))
    return (
        f"Here're the files and directories up to {LEVELS} levels deep in {request.path}, excluding hidden items and "
        f"{LEFT_OUT}:\n{listed}"
    )


def human(size: float) -> str:
    """Bytes as the tool shows them: `512B`, `5.5K`, `1.2M`."""
    unit = 0
    while size >= 1024 and unit < len(_UNITS) - 1:
        size, unit = size / 1024, unit + 1
    text = f"{size:.1f}".removesuffix(".0")
    return f"{text}{_UNITS[unit]}"
