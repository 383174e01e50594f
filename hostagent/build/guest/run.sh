root=$1 output=$2
shift 2
exec >"$output" 2>&1 </dev/null
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LANG=C.UTF-8 DEBIAN_FRONTEND=noninteractive
cd /
if [ -n "$root" ]; then exec chroot "$root" "$@"; fi
exec "$@"
