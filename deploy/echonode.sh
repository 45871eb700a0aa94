#!/bin/sh
# echonode as the service user, so that no file of the node ever belongs to someone else.
set -eu
: "${ECHONODE_CONFIG:=/etc/echonode/echonode.toml}"
export ECHONODE_CONFIG
export MPLCONFIGDIR=/var/cache/echonode
program=/opt/echonode/current/bin/echonode
if [ "$(id -un)" = echonode ]; then
    exec "$program" "$@"
elif [ "$(id -u)" = 0 ]; then
    exec runuser -u echonode -- "$program" "$@"
fi
exec sudo -u echonode --preserve-env=ECHONODE_CONFIG,MPLCONFIGDIR -- "$program" "$@"
