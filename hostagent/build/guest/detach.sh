# usage: detach ROOT DIR
# Runs in the appliance: takes away what attach brought, ends what still runs in the chroot, trims the disk and unmounts it.
root=$1 dir=$2
if [ -f "$root/usr/sbin/policy-rc.d" ] && [ ! -L "$root/usr/sbin/policy-rc.d" ] && [ ! -L "$root/usr" ] && [ ! -L "$root/usr/sbin" ] &&
  grep -q '^# daybreak-build$' "$root/usr/sbin/policy-rc.d"; then
  rm -f "$root/usr/sbin/policy-rc.d"
fi
rm -rf "${root:?}$dir"
for process in /proc/[0-9]*; do
  case $(readlink "$process/root") in "$root" | "$root"/*) kill -9 "${process##*/}" || : ;; esac
done
for mount in dev/pts dev proc sys run; do
  tries=0
  while grep -q " $root/$mount " /proc/mounts && ! umount "$root/$mount" 2>/dev/null && [ $tries -lt 50 ]; do
    sleep 0.1
    tries=$((tries + 1))
  done
done
sync
fstrim "$root" || echo "the disk was not trimmed"
# What cannot be unmounted is not whole.
umount "$root"
sync
