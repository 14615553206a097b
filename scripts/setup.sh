#!/usr/bin/env bash
# Makes .venv with everything the package, its tests and its documentation need.
#
# PyPI has Sherpa as source only, so pip compiles it (one to two minutes on two cores); what the compiler
# needs is installed when we are root on a Debian-like machine, and else named before anything starts.
#
# Environment: PYTHON = the interpreter to use (3.11 or newer); VENV = the folder to make.
set -euo pipefail
cd "$(dirname "$0")/.."
venv="${VENV:-.venv}"

fail() {
    echo "setup: $*" >&2
    exit 1
}

is_recent() { "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; }

find_python() {
    for candidate in ${PYTHON:-python3 python3.13 python3.12 python3.11}; do
        if is_recent "$candidate"; then
            echo "$candidate"
            return
        fi
    done
    fail "no Python 3.11 or newer found; install one or name it: make PYTHON=/path/to/python3.12"
}

# Debian packages that are missing, one a line.
missing_packages() {
    local python="$1"
    command -v bison >/dev/null || echo bison
    command -v flex >/dev/null || echo flex
    command -v g++ >/dev/null || echo g++
    command -v pkg-config >/dev/null || echo pkg-config
    pkg-config --exists fftw3 2>/dev/null || echo libfftw3-dev
    "$python" -c 'import ensurepip' >/dev/null 2>&1 || echo python3-venv
    "$python" -c 'import os, sys, sysconfig
sys.exit(not os.path.exists(os.path.join(sysconfig.get_path("include"), "Python.h")))' || echo python3-dev
}

install_packages() {
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
        echo "setup: installing Debian packages: $*"
        apt-get update -qq
        DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@" >/dev/null
    else
        fail "compiling Sherpa needs Debian packages that are missing; type: sudo apt-get install $*"
    fi
}

has_sherpa() { "$venv/bin/python" -c 'import sherpa' >/dev/null 2>&1; }

if ! has_sherpa; then
    python="$(find_python)"
    mapfile -t packages < <(missing_packages "$python")
    if [ "${#packages[@]}" -gt 0 ]; then
        install_packages "${packages[@]}"
    fi
    # An unfinished folder of an earlier try is completed, not thrown away.
    [ -x "$venv/bin/pip" ] || "$python" -m venv "$venv" || fail "$python could not make $venv"
    echo "setup: installing into $venv; Sherpa is compiled from source, which takes some minutes"
fi

# XSPEC's models come as a compiled wheel for these machines only; elsewhere the tests of them skip.
extras="test,docs"
case "$(uname -sm)" in "Linux x86_64") extras="xspec,$extras" ;; esac

PIP_DISABLE_PIP_VERSION_CHECK=1 "$venv/bin/python" -m pip install -qq \
    --constraint constraints.txt --editable ".[$extras]"
"$venv/bin/python" -c 'import deepspec, deepspec_cli' || fail "the package does not import from $venv"
touch "$venv/.installed"
echo "setup: done"
