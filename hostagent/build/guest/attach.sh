# usage: attach ROOT DIR
# Runs in the appliance: finds the disk that is to be worked on by its serial, mounts the file system on it that holds a system
# on ROOT, and what programs in a chroot need below it. DIR is our folder in there.
root=$1 dir=$2
disk=
tries=0
while [ -z "$disk" ] && [ $tries -lt 100 ]; do
  for block in /sys/block/*; do
    [ "$(cat "$block/serial" 2>/dev/null)" = daybreak-target ] && disk=${block##*/}
  done
  [ -n "$disk" ] || sleep 0.1
  tries=$((tries + 1))
done
[ -n "$disk" ] || { echo "the appliance does not see the disk"; exit 1; }
mkdir -p "$root"
found=
for device in /dev/"$disk" /dev/"$disk"[0-9]*; do
  [ -b "$device" ] || continue
  for type in ext4 xfs btrfs; do
    mount -t "$type" -o noatime "$device" "$root" 2>/dev/null || continue
    # A link is looked at and not followed: it would lead into the appliance.
    if [ -L "$root/etc/os-release" ] || [ -e "$root/etc/os-release" ] || [ -e "$root/etc/passwd" ]; then found=$device; fi
    [ -n "$found" ] || umount "$root"
    break
  done
  [ -z "$found" ] || break
done
[ -n "$found" ] || { echo "no partition of the disk holds a Linux system that the appliance can mount (ext4, or what else its kernel knows)"; exit 1; }
# Links to elsewhere where folders should be would let the binds below hit the appliance itself.
for folder in dev proc sys run; do
  [ ! -L "$root/$folder" ] || { echo "/$folder of the disk is a link"; exit 1; }
  mkdir -p "$root/$folder"
done
mount -o bind /dev "$root/dev"
mount -t proc proc "$root/proc"
mount -t sysfs sys "$root/sys"
mount -t tmpfs run "$root/run"
[ ! -d /dev/pts ] || mount -o bind /dev/pts "$root/dev/pts"
rm -rf "${root:?}$dir"
# Services are not started in a chroot: Debian's packages ask for leave.
if [ -d "$root/usr/sbin" ] && [ ! -L "$root/usr" ] && [ ! -L "$root/usr/sbin" ] && [ ! -e "$root/usr/sbin/policy-rc.d" ]; then
  printf '#!/bin/sh\nexit 101\n# daybreak-build\n' >"$root/usr/sbin/policy-rc.d"
  chmod 755 "$root/usr/sbin/policy-rc.d"
fi
