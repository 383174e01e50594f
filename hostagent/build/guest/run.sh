root=$1 output=$2
shift 2
exec >"$output" 2>&1 </dev/null
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LANG=C.UTF-8 DEBIAN_FRONTEND=noninteractive
cd /
if [ -n "$root" ]; then set -- chroot "$root" "$@"; fi
set -- /bin/sh -c 'file=$1; shift; "$@"; status=$?; echo $status >"$file"; exit $status' sh "$output.status" "$@"
# An upgrade may start the guest agent anew: with a scope of its own the script does not end with it.
if [ -d /run/systemd/system ] && systemd-run --scope --quiet --collect true >/dev/null 2>&1; then
  exec systemd-run --scope --quiet --collect -- "$@"
fi
exec "$@"
