#!/bin/sh
# Make the environment of a runtime, if it is not there yet or only half made.
#
#     ./make_environment.sh tf1 .venv-tf1   # TensorFlow 1.15, which runs on Python 3.7 only
#     ./make_environment.sh tf2 .venv-tf2   # TensorFlow 2, which runs on Python 3.10 to 3.13
#     ./make_environment.sh choose          # print the runtime that suits this machine, or none
#     ./make_environment.sh find tf2        # print the interpreter for a runtime, if there is one
#
# An interpreter is taken from, in this order: the variable PYTHON37 (tf1) or PYTHON3 (tf2), the
# path, pyenv, and uv. Of several for tf2 the newest is taken.
set -eu

TF2_MINORS="13 12 11 10"  # of Python 3, the newest first

say_and_exit() {
    echo "error: $1" >&2
    exit 2
}

# Whether an interpreter runs and fits: the program, a condition on v (major, minor), more modules.
# pyenv leaves programs on the path that only say which version to choose: so run it.
fits() {
    "$1" -c "import sys, ssl, platform, venv$3
v = sys.version_info[:2]
x86 = platform.machine().lower() in ('x86_64', 'amd64')
sys.exit(not ($2))" > /dev/null 2>&1
}

is_python37() { fits "$1" "v == (3, 7) and x86" ", ensurepip"; }

is_current() { fits "$1" "(3, 10) <= v <= (3, 13)" ", ensurepip"; }

# Debian and Ubuntu keep ensurepip in a package of its own.
lacks_ensurepip() {
    fits "$1" "(3, 10) <= v <= (3, 13)" "" && ! is_current "$1"
}

named() {  # the variable's name, its value, the test, what it has to be
    "$3" "$2" || say_and_exit "$1=$2: not a working $4 with venv and ensurepip; \
name another or leave $1 unset"
    echo "$2"
}

pyenv_versions() {
    root=${PYENV_ROOT:-$(pyenv root 2> /dev/null || echo "${HOME:-}/.pyenv")}
    for found in "$root/versions/$1"/bin/python3 "$root/versions/$1".*/bin/python3; do
        [ ! -x "$found" ] || echo "$found"
    done
}

find_python37() {
    if [ -n "${PYTHON37:-}" ]; then
        named PYTHON37 "$PYTHON37" is_python37 "Python 3.7"
        return
    fi
    { echo python3.7; pyenv_versions 3.7; } 2> /dev/null | while read -r candidate; do
        if is_python37 "$candidate"; then
            echo "$candidate"
            break
        fi
    done
}

current_candidates() {
    for minor in $TF2_MINORS; do
        echo "python3.$minor"
        pyenv_versions "3.$minor"
    done
    echo python3
    echo python
}

find_current() {
    if [ -n "${PYTHON3:-}" ]; then
        named PYTHON3 "$PYTHON3" is_current "Python 3.10 to 3.13"
        return
    fi
    current_candidates 2> /dev/null | while read -r candidate; do
        if is_current "$candidate"; then
            echo "$candidate"
            break
        fi
    done
}

# A current Python that only lacks Debian's package python3.X-venv.
find_incomplete() {
    current_candidates 2> /dev/null | while read -r candidate; do
        if lacks_ensurepip "$candidate"; then
            echo "$candidate"
            break
        fi
    done
}

# A Python that TensorFlow has no release for yet.
find_newer() {
    for candidate in python3.15 python3.14 python3 python; do
        if fits "$candidate" "v > (3, 13)" ""; then
            echo "$candidate"
            break
        fi
    done
}

has_uv() { command -v uv > /dev/null; }

choose() {
    if [ -n "${PYTHON37:-}" ]; then
        echo tf1
    elif [ -n "${PYTHON3:-}" ]; then
        echo tf2
    elif [ -n "$(find_python37)" ] || { has_uv && uv python find cpython@3.7 > /dev/null 2>&1; }
    then
        echo tf1
    elif [ -n "$(find_current)" ] || has_uv; then
        echo tf2
    else
        echo none
    fi
}

HOW_TO_GET_37="'pyenv install 3.7', or 'conda create --prefix py37 python=3.7' and then \
make PYTHON37=py37/bin/python"

say_none_found() {
    incomplete=$(find_incomplete)
    if [ "$1" != tf1 ] && [ -n "$incomplete" ]; then
        package=$("$incomplete" -c 'import sys; print("python%d.%d-venv" % sys.version_info[:2])')
        say_and_exit "$incomplete can't make environments (it has no ensurepip): install it with \
'apt-get install $package' on Debian or Ubuntu, then run make again"
    fi
    newer=$(find_newer)
    if [ "$1" != tf1 ] && [ -n "$newer" ]; then
        say_and_exit "found $("$newer" --version), which TensorFlow has no release for yet: \
classifying needs none ($newer -m pip install .), but training needs Python 3.10 to 3.13: install \
one, or name it: make PYTHON3=/path/to/python3"
    fi
    case $1 in
        tf1) say_and_exit "no Python 3.7 for x86-64 found, and TensorFlow 1.15 runs on nothing \
else: get one with $HOW_TO_GET_37; or take TensorFlow 2: make RUNTIME=tf2" ;;
        tf2) say_and_exit "no Python 3.10 to 3.13 found, which TensorFlow 2 needs: install one \
(python3 and python3-venv on Debian and Ubuntu), or name it: make PYTHON3=/path/to/python3" ;;
        *) say_and_exit "no Python found that runs TensorFlow: install Python 3.10 to 3.13 for \
TensorFlow 2 (python3 and python3-venv on Debian and Ubuntu), or a Python 3.7 for TensorFlow 1.15 \
($HOW_TO_GET_37)" ;;
    esac
}

# One line: what is made, with which interpreter, and why.
announce() {  # runtime, folder, interpreter
    reason="as asked for"
    if [ "${CHOSEN:-}" = automatically ]; then
        reason="since there is no Python 3.7, which TensorFlow 1.15 needs"
        [ "$1" = tf2 ] || reason="since there is a Python 3.7 (for TensorFlow 2: make RUNTIME=tf2)"
        current=$([ "$1" = tf2 ] || find_current)
        [ -z "$current" ] || reason="since there is a Python 3.7; it gets no security fixes any \
more, $("$current" --version) is here too: make RUNTIME=tf2 takes that and TensorFlow 2"
    fi
    title="TensorFlow 1.15"
    [ "$1" = tf1 ] || title="TensorFlow 2"
    echo "making $2: $title on $3, $reason"
}

make_venv() {  # runtime, folder
    if [ "$1" = tf1 ]; then
        python=$(find_python37) || exit 2
        wanted=cpython@3.7
    else
        python=$(find_current) || exit 2
        wanted=cpython@3.13
    fi
    if [ -n "$python" ]; then
        announce "$1" "$2" "$("$python" --version) ($(command -v "$python"))"
        "$python" -m venv "$2"
    elif has_uv && uv venv --python "$wanted" "$2"; then
        announce "$1" "$2" "$("$2/bin/python" --version) (found by uv)"
    else
        say_none_found "$1"
    fi
}

case $1 in
    choose) choose; exit ;;
    none) say_none_found none ;;
    find) if [ "$2" = tf1 ]; then find_python37; else find_current; fi; exit ;;
esac
runtime=$1
venv=$2
case $runtime in
    tf1) test=is_python37 wanted="Python 3.7" ;;
    tf2) test=is_current wanted="Python 3.10 to 3.13" ;;
    *) say_and_exit "RUNTIME=$runtime: there are tf1 (TensorFlow 1.15) and tf2 (TensorFlow 2)" ;;
esac
if [ -L "$venv/bin/python" ] && ! [ -e "$venv/bin/python" ]; then
    say_and_exit "$venv: the interpreter that it was made with has gone; remove it"
elif ! [ -e "$venv/bin/python" ]; then
    make_venv "$runtime" "$venv"
fi
"$test" "$venv/bin/python" || say_and_exit "$venv: not an environment of $wanted; remove it, or \
choose another place with make VENV=folder"

# uv makes environments without pip, and so does Python's venv when it is ended in the middle.
"$venv/bin/python" -m pip --version > /dev/null 2>&1 || "$venv/bin/python" -m ensurepip --upgrade
