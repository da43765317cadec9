#!/usr/bin/env bash
# Installs Debian's packages that the cluster tests need, where they are missing; as root.
set -euo pipefail
PATH=$PATH:/usr/sbin:/sbin

if [ "$(id -u)" -ne 0 ]; then
    echo "error: the cluster tests make hosts of namespaces, which takes root; run them as root" >&2
    exit 1
fi
if ! unshare --net --pid --mount --uts --ipc --fork true 2> /dev/null; then
    exit # the tests skip, and say why: nothing need be installed for that
fi
missing=()
for need in ip:iproute2 unshare:util-linux sshd:openssh-server ssh:openssh-client rsync:rsync tmux:tmux git:git; do
    command -v "${need%%:*}" > /dev/null || missing+=("${need#*:}")
done
command -v initdb > /dev/null || compgen -G '/usr/lib/postgresql/*/bin/initdb' > /dev/null || missing+=(postgresql)
if [ "${#missing[@]}" -gt 0 ]; then
    echo "installing ${missing[*]} ..."
    apt-get -qq update
    DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends "${missing[@]}" > /dev/null
fi
