#!/usr/bin/env bash
# Install echonode on this Debian machine as a service, or bring it up to this version. Safe to run
# again: what is there is left alone, settings and data always.
#
#   deploy/install.sh                 install or upgrade
#   deploy/install.sh --uninstall     remove program and service; settings, data and user stay
#   --wheels DIR                      take packages from DIR and ask no package index
#   --root DIR                        lay everything under DIR, as a packager would: no user, no service
#   --no-packages                     with --root: leave out Python's packages
set -euo pipefail
umask 022

source=$(cd "$(dirname "$0")/.." && pwd)
root=""
wheels=""
packages=yes
action=install

say() { printf 'install: %s\n' "$*" >&2; }
fail() {
    say "$*"
    exit 1
}
usage() {
    say "$1; known are --uninstall, --wheels DIR, --root DIR, --no-packages"
    exit 2
}

while [ "$#" -gt 0 ]; do
    case "$1" in
    --uninstall) action=uninstall ;;
    --no-packages) packages="" ;;
    --wheels | --root)
        [ "$#" -ge 2 ] || usage "$1 needs a folder"
        [ -d "$2" ] || usage "$2 is no folder"
        folder=$(cd "$2" && pwd)
        if [ "$1" = --root ]; then root=$folder; else wheels=$folder; fi
        shift
        ;;
    *) usage "unknown option $1" ;;
    esac
    shift
done
[ -n "$packages" ] || [ -n "$root" ] || usage "--no-packages is for --root"
[ -n "$root" ] || [ "$(id -u)" = 0 ] || fail "run it as root: sudo deploy/install.sh"

home=$root/opt/echonode
etc=$root/etc/echonode
state=$root/var/lib/echonode
units=$root/usr/lib/systemd/system
sysusers=$root/usr/lib/sysusers.d/echonode.conf
tmpfiles=$root/usr/lib/tmpfiles.d/echonode.conf
program=$root/usr/local/bin/echonode
manual=$root/usr/local/share/man/man1/echonode.1

# live: whether this changes the running system, and systemd runs it.
live() { [ -z "$root" ] && [ -d /run/systemd/system ]; }

# put MODE FROM TO: a file of ours, where it is not there already as it should be.
put() {
    cmp -s "$2" "$3" && [ "$(stat -c %a "$3")" = "${1#0}" ] && return
    install -D -m "$1" "$2" "$3"
}

# release_name: of this very content, so that two versions never share a folder.
release_name() {
    local version content
    version=$(sed -n 's/^version = //p' "$source/setup.cfg")
    content=$(cd "$source" && find models node storage docs setup.cfg pyproject.toml requirements.lock \
        -type f -not -path '*/__pycache__/*' -print0 | LC_ALL=C sort -z | xargs -0 sha256sum | sha256sum)
    printf '%s-%s\n' "$version" "${content:0:12}"
}

# find_python: print an interpreter of 3.11 or newer that can make environments.
find_python() {
    local candidate
    for candidate in "${PYTHON:-}" /usr/bin/python3 python3; do
        [ -n "$candidate" ] || continue
        if "$candidate" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            command -v "$candidate"
            return
        fi
    done
    return 1
}

debian_packages() {
    find_python >/dev/null && return
    command -v apt-get >/dev/null || fail "install Python 3.11 or newer with its venv module"
    say "installing Debian's python3-venv"
    export DEBIAN_FRONTEND=noninteractive
    apt-get -qq -o DPkg::Lock::Timeout=120 update >/dev/null
    apt-get -qq -o DPkg::Lock::Timeout=120 install -y --no-install-recommends python3 python3-venv \
        >/dev/null </dev/null
    find_python >/dev/null || fail "this Debian's Python is older than 3.11: install Debian 12 or newer"
}

# make_release FOLDER: the environment with the locked packages and this version, beside the others.
make_release() {
    local folder=$1 build options=(--quiet --no-input --disable-pip-version-check)
    [ -z "$wheels" ] || options+=(--no-index --find-links "$wheels")
    say "making $folder (about 2 GB, minutes)"
    rm -rf "$folder"
    mkdir -p "$folder"
    if [ -n "$packages" ]; then
        "$(find_python)" -m venv "$folder"
        "$folder/bin/pip" install "${options[@]}" --require-hashes --only-binary=:all: --no-compile \
            --requirement "$source/requirements.lock"
        build=$(mktemp -d)
        cp -R "$source"/{models,node,storage,setup.cfg,pyproject.toml,README.md,LICENSE} "$build"
        "$folder/bin/pip" install "${options[@]}" --no-deps --no-build-isolation "$build"
        rm -rf "$build"
        "$folder/bin/python" -m compileall -q -j 0 "$folder/lib" >/dev/null || true # some are for other Pythons
    fi
    mkdir -p "$folder/share"
    cp -R "$source/docs" "$source/LICENSE" "$folder/share/"
    touch "$folder/whole"
}

users_and_folders() {
    if [ -n "$root" ]; then
        # Owners are set where the users are: by systemd-tmpfiles on the machine itself.
        install -d -m 0750 "$etc"
        install -d -m 0700 "$etc/secrets" "$state"
    elif command -v systemd-sysusers >/dev/null && command -v systemd-tmpfiles >/dev/null; then
        systemd-sysusers "$sysusers"
        systemd-tmpfiles --create "$tmpfiles"
    else
        id echonode >/dev/null 2>&1 ||
            useradd --system --user-group --home-dir /var/lib/echonode --no-create-home \
                --shell /usr/sbin/nologin echonode
        install -d -m 0750 -o root -g echonode "$etc"
        install -d -m 0700 -o root -g root "$etc/secrets"
        install -d -m 0700 -o echonode -g echonode "$state" /var/cache/echonode \
            /var/backups/echonode
    fi
}

settings() {
    [ -e "$etc/echonode.toml" ] && return
    install -m 0640 "$source/deploy/echonode.toml" "$etc/echonode.toml"
    [ -n "$root" ] || chgrp echonode "$etc/echonode.toml"
}

# switch_to NAME: from one moment to the next; the release before this one stays for a way back.
switch_to() {
    local before old
    before=$(readlink "$home/current" 2>/dev/null || true)
    if [ "$before" != "releases/$1" ]; then
        [ -z "$before" ] || ln -sfn "$before" "$home/previous"
        ln -sfn "releases/$1" "$home/current.new"
        mv -T "$home/current.new" "$home/current"
    fi
    for old in "$home"/releases/*; do
        [ "releases/${old##*/}" = "$(readlink "$home/current")" ] && continue
        [ "releases/${old##*/}" = "$(readlink "$home/previous" 2>/dev/null || true)" ] && continue
        rm -rf "$old"
    done
}

install_all() {
    local name release
    [ -z "$packages" ] || [ -n "$root" ] || debian_packages
    release=$(release_name)
    [ -e "$home/releases/$release/whole" ] || make_release "$home/releases/$release"
    for name in echonode{,-backup,-scheduler,-worker}.service echonode-backup.timer; do
        put 0644 "$source/deploy/systemd/$name" "$units/$name"
    done
    put 0644 "$source/deploy/systemd/echonode.sysusers" "$sysusers"
    put 0644 "$source/deploy/systemd/echonode.tmpfiles" "$tmpfiles"
    put 0755 "$source/deploy/echonode.sh" "$program"
    put 0644 "$source/deploy/man/echonode.1" "$manual"
    users_and_folders
    settings
    if [ -z "$root" ]; then
        # Settings that this version does not understand stop here, and the running one runs on.
        runuser -u echonode -- env ECHONODE_CONFIG="$etc/echonode.toml" \
            "$home/releases/$release/bin/echonode" config check ||
            fail "version $release is not switched to: mend the settings, then try again"
    fi
    switch_to "$release"
    if live; then
        systemctl daemon-reload
        # What a cluster has in common is its version: see docs/compute.md.
        systemctl try-restart echonode-scheduler echonode-worker
        if systemctl is-active --quiet echonode; then
            say "restarting the node with version $release"
            systemctl restart echonode
        else
            say "installed: edit /etc/echonode/echonode.toml, then systemctl enable --now echonode"
        fi
    else
        say "installed version $release"
    fi
}

uninstall_all() {
    if live && [ -e "$units/echonode.service" ]; then
        systemctl disable --now echonode{,-scheduler,-worker}.service echonode-backup.timer || true
    fi
    rm -f "$units"/echonode{,-backup,-scheduler,-worker}.service "$units"/echonode-backup.timer "$sysusers" "$tmpfiles" "$program" "$manual"
    rm -rf "$home"
    if live; then systemctl daemon-reload; fi
    say "removed; kept are ${etc#"$root"}, ${state#"$root"}, backups and the user echonode"
}

case "$action" in
install) install_all ;;
uninstall) uninstall_all ;;
esac
