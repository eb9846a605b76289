#!/bin/sh
# A machine with systemd as its process 1, for as long as one script runs on it: machine.sh DIRECTORY BINARY
#
# DIRECTORY/driver.sh runs there as root, with DIRECTORY at /machine and BINARY at /usr/bin/oribi; what it
# says goes into DIRECTORY/told. All else is this machine's file system, whose changes stay in memory and go
# with the machine. Needs root, overlayfs and cgroup v2: without, it ends with 77.
set -eu

if [ "${1:-}" != --inside ]; then
    directory=$(realpath "$1")
    binary=$(realpath "$2")
    groups=$(awk '$3 == "cgroup2" { print $2; exit }' /proc/mounts)
    [ "$(id -u)" = 0 ] && [ -n "$groups" ] && [ -x /lib/systemd/systemd ] || exit 77
    unshare --mount true 2>/dev/null || exit 77
    group="$groups/oribi-test-$$"
    mkdir "$group" 2>/dev/null || exit 77
    status=0
    # The shell moves, and what it becomes.
    sh -c 'echo $$ >"$1/cgroup.procs" && shift && exec "$@"' - "$group" \
        unshare --mount --pid --fork --kill-child --uts --ipc --net --cgroup --mount-proc \
        sh "$0" --inside "$directory" "$binary" || status=$?
    find "$group" -depth -type d -exec rmdir {} + 2>/dev/null || true
    exit "$status"
fi

directory=$2
binary=$3
# Nothing of what is mounted from here on is seen elsewhere.
mount --make-rprivate /
ip link set lo up
hostname machine
mkdir -p "$directory/memory"
mount -t tmpfs tmpfs "$directory/memory"
cd "$directory/memory"
mkdir upper work root
mount -t overlay -o lowerdir=/,upperdir=upper,workdir=work overlay root 2>/dev/null || exit 77
cd root
mount -t proc proc proc
mount -t sysfs -o ro sysfs sys
mount -t tmpfs tmpfs sys/fs/cgroup
mount -t cgroup2 none sys/fs/cgroup
# Of the devices those alone that do nothing.
mount -t tmpfs -o mode=755 tmpfs dev
for device in null zero full random urandom tty; do
    touch "dev/$device"
    mount --bind "/dev/$device" "dev/$device"
done
mkdir dev/shm dev/pts
mount -t tmpfs -o mode=1777 tmpfs dev/shm
mount -t devpts -o newinstance,ptmxmode=666 devpts dev/pts
ln -s pts/ptmx dev/ptmx
ln -s /proc/self/fd dev/fd
for own in run tmp var/tmp; do
    mount -t tmpfs -o mode=1777 tmpfs "$own"
done
chmod 755 run
mkdir -p machine usr/bin
mount --bind "$directory" machine
touch usr/bin/oribi
mount --bind "$binary" usr/bin/oribi
mkdir old
pivot_root . old
cd /
umount -l /old
# What follows is done to the machine alone.
# Only what is asked for is started: no service of this machine's, no mounts, no changes of the kernel.
rm -rf /lib/systemd/system/*.target.wants /etc/systemd/system/*.wants /lib/systemd/system-generators
: >/etc/fstab
mkdir -p /run/systemd/system /run/lock
cat >/run/systemd/system/machine.target <<'UNIT'
[Unit]
DefaultDependencies=no
Wants=driver.service
UNIT
cat >/run/systemd/system/driver.service <<'UNIT'
[Unit]
DefaultDependencies=no
SuccessAction=exit-force
FailureAction=exit-force
[Service]
Type=oneshot
ExecStart=/bin/sh /machine/driver.sh
StandardOutput=file:/machine/told
StandardError=file:/machine/errors
UNIT
mount --bind /proc/sys /proc/sys
mount -o remount,bind,ro /proc/sys
# Credentials are mounted by a process that has mounts of its own, and passed on.
mount --make-rshared /
exec env -i container=other PATH=/usr/sbin:/usr/bin:/sbin:/bin LANG=C.UTF-8 \
    /lib/systemd/systemd --system --unit=machine.target --log-target=console --log-level=notice \
    --show-status=false
