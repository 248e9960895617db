#!/bin/busybox sh
# The first process of a machine: mounts what a host has, loads the modules, runs the rounds, powers off.
#
# ttyS0 is the kernel's console, ttyS1 has what the tests write to stdout, ttyS2 what they write to stderr: whatever the
# kernel has to say, it cannot get between two halves of a test's line. Lines of ours begin with @@.
export PATH=/bin:/usr/bin:/sbin:/usr/sbin
/bin/busybox --install -s /bin

mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
mount -t cgroup2 cgroup2 /sys/fs/cgroup
mount -t bpf bpf /sys/fs/bpf
# The root is in memory already; a checkout may be below /tmp, so nothing is mounted over it.
chmod 1777 /tmp
# tracefs is left unmounted, as it is on hosts where nobody has looked yet: firstfin has to cope.

for tty in /dev/ttyS1 /dev/ttyS2; do
    stty -F $tty raw -echo
done
say() {
    echo "@@ $*" >/dev/ttyS1
    echo "@@ $*" >/dev/ttyS2
}

while read -r module; do
    insmod "/modules/$module.ko"
done </modules/order
ip link set lo up

# Pipes, as under cargo: on a terminal the tests would colour and firstfin would draw its progress.
mkfifo /run/out /run/err

round() {
    say begin "$1"
    cat /run/out >/dev/ttyS1 &
    out=$!
    cat /run/err >/dev/ttyS2 &
    err=$!
    load=
    if [ "$3" = load ]; then
        # It keeps one CPU busy for as long as the round lasts, and never longer than a machine may run.
        timeout 3600 taskset 2 "$tests" burn &
        load=$!
    fi
    # The arguments are words.
    FIRSTFIN_SECOND_RUN=1 FIRSTFIN_MAX_RUNG=$2 "$tests" $4 >/run/out 2>/run/err </dev/null
    status=$?
    # A load that was over before the tests were has not been one: a status that the tests do not have.
    [ -z "$load" ] || kill $load || status=99
    # What a test has left running may keep the pipes open.
    for _ in 1 2 3 4 5 6 7 8 9 10; do
        kill -0 $out 2>/dev/null || kill -0 $err 2>/dev/null || break
        sleep 1
    done
    kill $out $err 2>/dev/null
    echo >/dev/ttyS1
    say end "$1" $status
}

read -r tests </rounds/program
read -r folder </rounds/folder
cd "$folder" || exit 1
say up "$(uname -r)"
number=0
while IFS='|' read -r rung load arguments; do
    round $number "$rung" "$load" "$arguments"
    number=$((number + 1))
done </rounds/list
say down
sync
poweroff -f
