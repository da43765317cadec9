#!/usr/bin/env bash
# The first process of a host made of namespaces: gives it a name and folders of its own, then reaps orphans for ever.
# Arguments: its name; the folder that holds its files; the folder that all hosts share; then what must stay visible of
# the folders that it gets anew.
set -euo pipefail
name=$1 folder=$2 shared=$3
shift 3

hostname "$name"
ip link set lo up
mkdir -p "$folder"/{root,tmp}
for kept in "$@"; do
    case $kept in
        /root/* | /tmp/*)
            mkdir -p "$folder$kept"
            mount --bind "$kept" "$folder$kept"
            ;;
    esac
done
mount --bind "$folder/hosts" /etc/hosts
mount --bind "$folder/ssh" /etc/ssh
mount --bind "$folder/profile.d" /etc/profile.d
mount -t tmpfs tmpfs /mnt
mkdir /mnt/shared
mount --bind "$shared" /mnt/shared
mount --rbind "$folder/root" /root
mount -t tmpfs tmpfs /run
mkdir /run/sshd
mount -t tmpfs -o size=1g tmpfs /dev/shm
chmod 1777 "$folder/tmp"
mount --rbind "$folder/tmp" /tmp # the last: the folder itself may lie there

cd /
echo ready
while :; do
    sleep infinity &
    wait
done
