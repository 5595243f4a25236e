#!/bin/sh
# Runs the suite on every Python found, each in a virtual environment of its own; fails if any fails.
set -u
version_of() { "$1" -c 'import sys; print("%d.%d" % sys.version_info[:2])'; }
on() { # on PYTHON VENV
  { [ -x "$2/bin/python" ] || "$1" -m venv "$2"; } &&
    "$2/bin/python" -m pip --disable-pip-version-check -q install --upgrade pip &&
    "$2/bin/python" -m pip --disable-pip-version-check -q install -e ".[test,bench]" &&
    "$2/bin/python" -m pytest -n 3 --dist loadscope --no-loadscope-reorder
}
tested=$(version_of "${VENV:-.venv}/bin/python")
pythons=$(sh scripts/find-pythons.sh)
failed=$(
  echo "$pythons" | while IFS= read -r python; do
    version=$(version_of "$python")
    [ "$version" = "$tested" ] && continue # `make test` has just run on it
    echo "== Python $version" >&2
    on "$python" ".venv-$version" </dev/null >&2 || printf ' %s' "$version"
  done
)
[ -z "$failed" ] || { echo "failed on Python:$failed"; exit 1; }
