#!/bin/sh
# Make a Python 3.7 environment in the folder given, if it is not there yet or only half made.
#
#     ./make_environment.sh .venv
#
# TensorFlow 1.15 runs on Python 3.7 and nothing newer. Tries, in this order: the interpreter that
# $PYTHON37 names, a python3.7 on the path, a 3.7 of pyenv's, and whatever uv finds (it no longer
# downloads one).
set -eu

venv=$1

is_python37() {
    # pyenv leaves a python3.7 on the path that does not run unless a 3.7 is chosen: so run it.
    "$1" -c 'import sys, ensurepip, ssl, venv; sys.exit(sys.version_info[:2] != (3, 7))' \
        > /dev/null 2>&1
}

fail() {
    echo "error: $1" >&2
    exit 2
}

find_python37() {
    if [ -n "${PYTHON37:-}" ]; then
        is_python37 "$PYTHON37" || fail "PYTHON37=$PYTHON37: not a working Python 3.7 with venv; \
name another or leave PYTHON37 unset"
        echo "$PYTHON37"
        return
    fi
    pyenv_root=${PYENV_ROOT:-$(pyenv root 2> /dev/null || echo "${HOME:-}/.pyenv")}
    for candidate in python3.7 "$pyenv_root"/versions/3.7*/bin/python3.7; do
        if is_python37 "$candidate"; then
            echo "$candidate"
            return
        fi
    done
}

if [ -L "$venv/bin/python" ] && ! [ -e "$venv/bin/python" ]; then
    fail "$venv: the interpreter that it was made with has gone; remove it"
elif ! [ -e "$venv/bin/python" ]; then
    python=$(find_python37) || exit 2
    if [ -n "$python" ]; then
        echo "making $venv with $("$python" --version) ($python)"
        "$python" -m venv "$venv"
    elif ! command -v uv > /dev/null || ! uv venv --python cpython@3.7 "$venv"; then
        fail "no Python 3.7 found, and TensorFlow 1.15 runs on nothing newer: get one with \
'pyenv install 3.7', or with 'conda create --prefix py37 python=3.7' and name it: \
make PYTHON37=py37/bin/python"
    fi
fi
is_python37 "$venv/bin/python" || fail "$venv: not a Python 3.7 environment; remove it, or \
choose another place with make VENV=folder"

# uv makes environments without pip, and so does Python's venv when it is ended in the middle.
"$venv/bin/python" -m pip --version > /dev/null 2>&1 || "$venv/bin/python" -m ensurepip --upgrade
