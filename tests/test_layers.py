"""The layers: who may import whom, which packages stay behind one file, and what no file may do.

cli -> projections -> bus        never up; inside a folder the shell imports the pure core, never back
"""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
LAYERS = ("bus", "projections", "cli")
NAMES = sorted(str(path.relative_to(ROOT)) for layer in LAYERS for path in (ROOT / layer).rglob("*.py"))
LINES = 400
FUNCTION_LINES = 70
ONLY: dict[str, set[str]] = {
    "nats": {"bus/transport.py"},
    "duckdb": {"projections/store.py"},
    "usearch": {"projections/vectors.py"},
    "httpx": {"projections/openai.py"},
}
"""What is imported in one file only, or not yet at all."""
ENVIRONMENT = {"bus/config.py"}
"""Where the environment is read."""
WAITS = {
    "bus/clock.py": "carries the server's time forward",
    "bus/files.py": "waits for a lock of another process, without an event loop",
    "bus/lifecycle.py": "waits for the supervisor to start or to end, without an event loop",
    "bus/server.py": "waits for nats-server to listen, without an event loop",
    "cli/supervisor.py": "watches processes, without an event loop",
}
"""Where the monotonic clock is read and why; nobody but the clock knows the time of day."""
CHANCE = {"bus/clock.py": "ids", "bus/auth.py": "keys", "bus/home.py": "the id of a home"}
"""Where random numbers are drawn, and what for."""
NAMELESS = {"utils", "util", "helpers", "common", "misc", "base"}
"""Names of files that say nothing of what is in them."""
TASKS = {"cli/daemon.py", "cli/projector.py", "cli/serving.py", "cli/worker.py", "projections/worker.py"}
"""Where task groups are opened."""
PURE = (
    *("bus/authority.py", "bus/clock.py", "bus/domain/", "bus/durations.py", "bus/errors.py", "bus/events.py"),
    *("bus/model.py", "bus/orders.py", "bus/protocol.py", "bus/requests.py", "bus/subjects.py", "bus/world.py"),
    *(
        "projections/batch.py",
        "projections/lexical.py",
        "projections/columns.py",
        "projections/conversation.py",
        "projections/extract.py",
        "projections/inbox_index.py",
        "projections/lexical_index.py",
        "projections/postings.py",
        "projections/passages.py",
        "projections/query.py",
    ),
    *("projections/recall.py", "projections/schema.py", "projections/views/"),
)
"""The core: it neither waits nor asks the machine anything, and knows nothing of what does."""
WORLDLY = {"anyio", "asyncio", "os", "pathlib", "random", "secrets", "signal", "socket", "subprocess", "tempfile"}
WORLDLY |= {"threading", "time", "uuid"}
CLOCK = {"bus/clock.py": {"secrets", "time", "os", "uuid"}}


@cache
def tree(name: str) -> ast.Module:
    return ast.parse((ROOT / name).read_text())


def imports(name: str, *, for_types: bool = False) -> Iterator[str]:
    """The modules that a file imports, whole names; without those it imports for its annotations only."""
    skipped: set[ast.AST] = set()
    for node in ast.walk(tree(name)):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING" and not for_types:
            skipped |= {inner for child in node.body for inner in ast.walk(child)}
        if node in skipped:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name}: imports are absolute"
            yield node.module or ""
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def is_pure(name: str) -> bool:
    return name.startswith(PURE)


def file_of(module: str) -> str | None:
    path = module.replace(".", "/")
    return next((name for name in (f"{path}.py", f"{path}/__init__.py") if name in NAMES), None)


@pytest.mark.parametrize("name", NAMES)
def test_nothing_imports_upwards(name: str) -> None:
    allowed = LAYERS[: LAYERS.index(name.partition("/")[0]) + 1]
    for module in imports(name, for_types=True):
        root = module.partition(".")[0]
        assert root not in LAYERS or root in allowed, f"{name} imports {module}"
        assert root not in ("tests", "ops"), f"{name} imports {module}"


@pytest.mark.parametrize("name", NAMES)
def test_packages_stay_behind_their_file(name: str) -> None:
    for module in imports(name, for_types=True):
        root = module.partition(".")[0]
        assert name in ONLY.get(root, {name}), f"{name} imports {module}"


@pytest.mark.parametrize("name", [name for name in NAMES if is_pure(name)])
def test_the_core_is_pure(name: str) -> None:
    for module in imports(name):
        assert module.partition(".")[0] not in WORLDLY - CLOCK.get(name, set()), f"{name} imports {module}"
        ours = None if module in LAYERS else file_of(module)
        assert ours is None or is_pure(ours), f"{name} imports {module}"
    assert not [node for node in ast.walk(tree(name)) if isinstance(node, ast.AsyncFunctionDef | ast.Await)]


@pytest.mark.parametrize("name", NAMES)
def test_tasks_are_started_where_they_are_ended(name: str) -> None:
    for node in ast.walk(tree(name)):
        if isinstance(node, ast.Attribute):
            assert node.attr not in ("create_task", "ensure_future"), f"{name}:{node.lineno}"
            assert node.attr != "create_task_group" or name in TASKS, f"{name}:{node.lineno}"


@pytest.mark.parametrize("name", NAMES)
def test_a_file_is_short_and_says_what_it_is(name: str) -> None:
    text = (ROOT / name).read_text()
    assert ast.get_docstring(tree(name)), name
    assert text.count("\n") <= LINES, f"{name} has {text.count(chr(10))} lines"


@pytest.mark.parametrize("name", NAMES)
def test_a_function_is_short_and_a_file_has_a_name(name: str) -> None:
    for node in ast.walk(tree(name)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            lines = (node.end_lineno or node.lineno) - node.lineno + 1
            assert lines <= FUNCTION_LINES, f"{name}: {node.name} has {lines} lines"
    assert Path(name).stem not in NAMELESS


def said(name: str) -> Iterator[str]:
    """Every dotted name a file uses, e.g. `time.monotonic`, with names it imported written in full."""
    full: dict[str, str] = {}
    for node in ast.walk(tree(name)):
        if isinstance(node, ast.Import):
            full |= {alias.asname or alias.name: alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            full |= {alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names}
    for node in ast.walk(tree(name)):
        if isinstance(node, ast.Attribute | ast.Name):
            first, dot, rest = ast.unparse(node).partition(".")
            if first in full:
                yield full[first] + dot + rest


@pytest.mark.parametrize("name", NAMES)
def test_the_machine_is_asked_in_few_places(name: str) -> None:
    for use in said(name):
        if use.startswith(("os.environ", "os.getenv", "os.putenv")):
            assert name in ENVIRONMENT, f"{name} uses {use}"
        if use in ("time.monotonic", "time.monotonic_ns", "time.sleep", "time.perf_counter"):
            assert name in WAITS, f"{name} uses {use}"
        if use in ("time.time", "time.time_ns") or use.startswith(
            ("datetime.datetime.now", "datetime.datetime.utcnow")
        ):
            assert name == "bus/clock.py", f"{name} uses {use}"
        if use.startswith(("random.", "secrets.", "uuid.uuid", "os.urandom", "nacl.utils.random")):
            assert name in CHANCE, f"{name} uses {use}"


@pytest.mark.parametrize("module", ["bus.client", "cli.main"])
def test_clients_are_lean(module: str) -> None:
    heavy = {
        "duckdb",
        "usearch",
        "numpy",
        "structlog",
        "httpx",
        "projections.store",
        "nats.js",
        "typer",
        "rich",
        "anyio",
        "importlib.metadata",
    }
    script = f"import sys, {module}; print(*sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


def test_a_daemon_imports_nothing_of_models_unless_a_setting_names_one() -> None:
    models = {f"projections.{name}" for name in ("recalling", "embed", "rerank", "dense", "openai")}
    models |= {"model2vec", "fastembed", "sentence_transformers", "httpx"}
    script = f"import sys, cli.daemon; print(*sorted({models} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
