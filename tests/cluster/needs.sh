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
for need in ip:iproute2 unshare:util-linux sshd:openssh-server ssh:openssh-client rsync:rsync tmux:tmux git:git \
    pkill:procps; do
    command -v "${need%%:*}" > /dev/null || missing+=("${need#*:}")
done
command -v initdb > /dev/null || compgen -G '/usr/lib/postgresql/*/bin/initdb' > /dev/null || missing+=(postgresql)
[ "${#missing[@]}" -gt 0 ] || exit 0

echo "installing ${missing[*]} ..."
patient=(-qq -o Acquire::Retries=3 -o Acquire::http::Timeout=30 -o DPkg::Lock::Timeout=300)
# lists of one source that does not answer are no reason to stop: the packages may come from another
apt-get "${patient[@]}" update || echo "warning: not all of apt's lists are up to date" >&2
if ! DEBIAN_FRONTEND=noninteractive apt-get "${patient[@]}" install -y --no-install-recommends "${missing[@]}" \
    > /dev/null; then
    echo "error: the cluster tests need Debian's packages ${missing[*]}, which could not be installed (see above);" \
        "install them, or run make test alone" >&2
    exit 1
fi
