#!/usr/bin/env bash
# The first process of a host made of namespaces: gives it a name and folders of its own, then reaps orphans for ever.
# Arguments: its name; the folder that holds its files; the folder that all hosts share; then folders that it must see
# where they are, also below those that it gets anew.
set -euo pipefail
name=$1 folder=$2 shared=$3
shift 3
anew=(/root /mnt /run /tmp)

hostname "$name"
ip link set lo up
mount -t tmpfs tmpfs "$folder/mnt"
mkdir "$folder/mnt/shared"
mount --bind "$shared" "$folder/mnt/shared"
mount -t tmpfs tmpfs "$folder/run"
mkdir "$folder/run/sshd"
for kept in "$@"; do
    for own in "${anew[@]}"; do
        if [[ $kept == "$own"/* ]]; then
            mkdir -p "$folder$kept"
            mount --rbind "$kept" "$folder$kept"
        fi
    done
done
mount --bind "$folder/hosts" /etc/hosts
mount --bind "$folder/shadow" /etc/shadow
mount --bind "$folder/ssh" /etc/ssh
mount --bind "$folder/profile.d" /etc/profile.d
mount -t tmpfs -o size=1g tmpfs /dev/shm
chmod 1777 "$folder/tmp"
last=
for own in "${anew[@]}"; do
    if [[ $folder == "$own"/* ]]; then
        last=$own # it hides the folder itself
    else
        mount --rbind "$folder$own" "$own"
    fi
done
[ -z "$last" ] || mount --rbind "$folder$last" "$last"
for kept in "$@"; do
    [ -n "$(ls -A "$kept")" ] || { echo "$kept cannot be seen" >&2 && exit 1; }
done

cd /
echo ready
while :; do
    sleep infinity &
    wait
done
