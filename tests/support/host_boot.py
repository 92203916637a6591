# Copyright (c) 2026 memops.agent_memory contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How the first process of a NamespaceHost (ssh_hosts.py) makes it a host: its root is this machine's files below, a
tmpfs for what it changes, and /srv to keep. USERS and LOGIN stand for its users and for who connects."""
BOOT = r"""
set -eu
home=$1 name=$2 address=$3 opt=$5
echo up
read -r connected
mount -t tmpfs -o mode=755 memops "$home/root"
mkdir "$home/root/upper" "$home/root/work" "$home/root/top"
mount -t overlay overlay -o "lowerdir=/,upperdir=$home/root/upper,workdir=$home/root/work" "$home/root/top"
cd "$home/root/top"
mkdir -p srv run tmp dev proc sys
mount --bind "$home/srv" srv
[ -z "$opt" ] || mount --bind "$opt" opt
mount -t proc proc proc
mount -t sysfs -o ro sysfs sys
mount -t tmpfs -o mode=755 tmpfs dev
for device in null zero full random urandom tty; do touch dev/$device; mount --bind /dev/$device dev/$device; done
ln -s /proc/self/fd dev/fd; ln -s fd/0 dev/stdin; ln -s fd/1 dev/stdout; ln -s fd/2 dev/stderr
mkdir dev/pts dev/shm .before
mount -t devpts -o newinstance,ptmxmode=0666,mode=620 devpts dev/pts
ln -s pts/ptmx dev/ptmx
mount -t tmpfs -o mode=1777 tmpfs dev/shm
mount -t tmpfs -o mode=755 tmpfs run
mount -t tmpfs -o mode=1777 tmpfs tmp
ip link set lo up
ip addr add "$address/24" dev eth0
ip link set eth0 up
hostname "$name"
pivot_root . .before
umount -l /.before
cd /
mkdir -p /run/sshd /etc/sudoers.d
for user in USERS; do
    echo "${user%%:*}:x:${user##*:}:${user##*:}::/srv/home/${user%%:*}:/bin/sh" >>/etc/passwd
    echo "${user%%:*}:x:${user##*:}:" >>/etc/group
    echo "${user%%:*}:*:19000:0:99999:7:::" >>/etc/shadow
    mkdir -p -m 700 "/srv/home/${user%%:*}"
    chown "${user##*:}:${user##*:}" "/srv/home/${user%%:*}"
done
echo "$address $name" >>/etc/hosts
echo "LOGIN ALL=(ALL) NOPASSWD: ALL" >/etc/sudoers.d/lab
sed -i 's/^root:!/root:*/' /etc/shadow
exec "$4" -D -e -f /srv/sshd/config
"""
