#!/usr/bin/env bash
# Make .venv with the locked packages, each file checked by its hash; with --dev also the tools for
# checks and tests, with --peers the Debian programs and the viewer that the tests try echonode
# against; with --sources packages are built where there is no wheel. Safe to run again: what is there
# is left alone.
set -euo pipefail
cd "$(dirname "$0")/.."

export DEBIAN_FRONTEND=noninteractive PIP_NO_INPUT=1 PIP_DISABLE_PIP_VERSION_CHECK=1
venv=.venv
dev=""
peers=""
binary="--only-binary=:all:"
for option in "$@"; do
    case "$option" in
    --dev) dev="-dev" ;;
    --peers) peers=yes ;;
    --sources) binary="--prefer-binary" ;;
    *)
        printf 'setup: unknown option %s; known are --dev, --peers, --sources\n' "$option" >&2
        exit 2
        ;;
    esac
done

say() { printf 'setup: %s\n' "$*" >&2; }

# as_root COMMAND...: run as root, where that goes without a password.
as_root() {
    if [ "$(id -u)" = 0 ]; then
        "$@"
    elif command -v sudo >/dev/null && sudo -n true 2>/dev/null; then
        sudo -n --preserve-env=DEBIAN_FRONTEND "$@"
    else
        return 1
    fi
}

apt_ready=""
# apt_install PACKAGE...: install Debian packages; fails where that cannot be done.
apt_install() {
    command -v apt-get >/dev/null || return 1
    local options=(-qq -o DPkg::Lock::Timeout=120 -o Acquire::Retries=2 -o Acquire::http::Timeout=30)
    if [ -z "$apt_ready" ]; then
        as_root apt-get "${options[@]}" update >/dev/null || return 1
        apt_ready=yes
    fi
    as_root apt-get "${options[@]}" install -y --no-install-recommends "$@" >/dev/null </dev/null
}

# find_python: print an interpreter of 3.11 or newer.
find_python() {
    local candidate
    for candidate in "${PYTHON:-}" python3 python3.12 python3.11 python3.13; do
        [ -n "$candidate" ] || continue
        if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            command -v "$candidate"
            return
        fi
    done
    return 1
}

make_venv() {
    [ -x "$venv/bin/pip" ] && "$venv/bin/python" -c '' 2>/dev/null && return
    local python
    if ! python=$(find_python); then
        say "no Python 3.11 or newer; installing Debian's python3"
        apt_install python3 python3-venv || true
        python=$(find_python) || {
            say "install Python 3.11 or newer with its venv module, then try again"
            exit 1
        }
    fi
    rm -rf "$venv"
    if ! "$python" -c 'import venv, ensurepip' 2>/dev/null; then
        say "installing Debian's python3-venv"
        apt_install python3-venv || {
            say "Python has no venv module: as root run 'apt-get install python3-venv', then try again"
            exit 1
        }
    fi
    say "making $venv with $("$python" --version)"
    "$python" -m venv "$venv"
}

install_packages() {
    local lock=requirements.lock
    [ -z "$dev" ] || lock=requirements-dev.lock
    local stamp="$venv/installed$dev"
    local wanted
    wanted=$(cat setup.cfg pyproject.toml "$lock" | sha256sum)
    [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$wanted" ] && return
    say "installing the locked packages (about 2 GB on disk, minutes the first time)"
    # Wheels alone: a source is checked by its hash, too, but what builds it is not.
    # Compiled afterwards, by all cores: pip does it with one.
    "$venv/bin/pip" install --quiet --require-hashes --no-compile "$binary" --requirement "$lock" || {
        say "not installed; where this system has no wheel of a package, --sources builds it"
        exit 1
    }
    "$venv/bin/python" -m compileall -q -j 0 "$venv/lib" >/dev/null || true # some are for other Pythons
    # echonode itself, built with the locked setuptools, which warns of every editable package.
    PYTHONWARNINGS=ignore "$venv/bin/pip" install --quiet --no-deps --no-build-isolation --editable .
    printf '%s\n' "$wanted" >"$stamp"
}

# have PROGRAM: also where a user's PATH does not look.
have() { PATH="$PATH:/usr/sbin:/usr/local/sbin" command -v "$1" >/dev/null; }

install_peers() {
    local missing=()
    have storescu || missing+=(dcmtk)
    have dciodvfy || missing+=(dicom3tools)
    have Orthanc || missing+=(orthanc)
    [ -e /usr/share/orthanc/plugins/libOrthancDicomWeb.so ] || missing+=(orthanc-dicomweb)
    have DicomSRValidator || missing+=(pixelmed-apps)
    ls /usr/lib/postgresql/*/bin/postgres >/dev/null 2>&1 || missing+=(postgresql)
    have chromium || missing+=(chromium)
    have chromedriver || missing+=(chromium-driver)
    have openssl || missing+=(openssl)
    have shellcheck || missing+=(shellcheck)
    have systemd-analyze || missing+=(systemd)
    [ "${#missing[@]}" = 0 ] && return
    say "installing real peers for the tests: ${missing[*]}"
    # Debian's orthanc starts a service on installation; this keeps it from doing so.
    local policy=/usr/sbin/policy-rc.d made=""
    if [ ! -e "$policy" ] && printf '#!/bin/sh\nexit 101\n' | as_root tee "$policy" >/dev/null; then
        as_root chmod 755 "$policy"
        made=yes
    fi
    local package
    for package in "${missing[@]}"; do
        apt_install "$package" ||
            say "cannot install Debian's $package: tests that need it are skipped"
    done
    [ -z "$made" ] || as_root rm -f "$policy"
}

install_viewer() {
    "$venv/bin/python" deploy/ohif.py || say "tests that need the viewer are skipped"
}

make_venv
if [ -n "$peers" ]; then
    trap wait EXIT # apt is not left at work where the packages fail
    install_peers &
fi
install_packages
if [ -n "$peers" ]; then
    wait
    install_viewer
fi
