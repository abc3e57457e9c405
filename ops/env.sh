# Sourced by ops/demo and ops/test: gives $PYTHON, an environment of this checkout with everything installed.
# It needs Python 3.11 or newer with pip, and nothing else; the environment is made once and again when pyproject changes.

set -euo pipefail
ROOT="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"

find_python() {
  local candidate
  for candidate in "${SYNBUS_PYTHON:-}" python3 python3.13 python3.12 python3.11 python; do
    if [ -n "$candidate" ] && command -v "$candidate" >/dev/null 2>&1 &&
      "$candidate" -c 'import sys; raise SystemExit(sys.version_info < (3, 11))' 2>/dev/null; then
      command -v "$candidate"
      return
    fi
  done
  echo "Synbus needs Python 3.11 or newer; none was found on PATH (set SYNBUS_PYTHON to name one)." >&2
  return 1
}

# make_venv DIR: an environment without asking for virtualenv or the ensurepip module, which some systems leave out.
make_venv() {
  local base="$1" dir="$2"
  if ! "$base" -m venv "$dir" >/dev/null 2>&1; then
    rm -rf "$dir"
    "$base" -m venv --without-pip "$dir"
    "$base" -m pip --python "$dir/bin/python" install --quiet pip
  fi
}

# install PYTHON REQUIREMENT...: into the environment of that Python. With its own
# installation uv takes a third of pip's time, and a tenth for the next environment. Where it cannot be had or cannot find
# a package (pip may have been told of an index that uv does not know), pip does it.
install() {
  local python="$1" uv="$ROOT/.venv/bin/uv"
  local pip=(-m pip install --quiet --disable-pip-version-check --no-input)
  shift
  [ -x "$uv" ] || "$ROOT/.venv/bin/python" "${pip[@]}" "uv>=0.13,<1" >/dev/null 2>&1 || true
  UV_SYSTEM_CERTS=1 "$uv" pip install --quiet --python "$python" "$@" >/dev/null 2>&1 || "$python" "${pip[@]}" "$@" >&2
}

# ensure_env EXTRAS: $PYTHON of .venv with this checkout installed in place, with those extras.
ensure_env() {
  local extras="$1" base stamp want
  base="$(find_python)"
  stamp="$ROOT/.venv/.installed"
  want="$extras $("$base" -c 'import sys; print(sys.version)' | tr -d '\n') $(cksum <"$ROOT/pyproject.toml")"
  PYTHON="$ROOT/.venv/bin/python"
  # An environment with more in it than asked for will do.
  case "$(cat "$stamp" 2>/dev/null)" in
    "$want" | "[dev]$want") return ;;
  esac
  echo "Setting up .venv (once) ..." >&2
  rm -rf "$ROOT/.venv"
  make_venv "$base" "$ROOT/.venv"
  install "$PYTHON" -e "$ROOT$extras"
  echo "$want" >"$stamp"
}
