# The nodes of a lab, for deploy/lab; sourced, never run. A node is a folder $lab/NODE and, while it is up, the namespaces held
# by its first process (lab.d/init, which describes the folder's files). Needs: lab, cache, checkout, here, say, die.

zones=(office lgwan)

hosts_here() { find "$lab" -mindepth 1 -maxdepth 1 -type d -name 'h[0-9]*' -printf '%f\n' 2>/dev/null | sort -V; }

# known NODE [SERVICE]: refuses names that this lab does not have.
known() {
  [[ -e $lab/.daybreak-lab ]] || die "no lab in $lab: deploy/lab up"
  [[ $1 == control || $1 =~ ^h[0-9]+$ ]] && [[ -d $lab/$1 ]] || die "no node '$1' in this lab; it has: control $(hosts_here | tr '\n' ' ')"
  (($# < 2)) || [[ $2 == init || -e $lab/$1/services/$2 ]] || die "no service '$2' on $1; it has: $(services_of "$1" | tr '\n' ' ')"
}

services_of() { find "$lab/$1/services" -type f -perm -u+x -printf '%f\n' | sort -r; }

# pid_of NODE SERVICE: prints its pid if that very process lives. The start time tells it from a later process with its number;
# one that is on its way out (zombie, exiting, or with SIGKILL pending) does not live.
pid_of() {
  local pid born stat key value
  read -r pid born 2>/dev/null <"$lab/$1/pids/$2" || return 1
  stat=$(cat "/proc/$pid/stat" 2>/dev/null) || return 1
  read -r -a stat <<<"${stat##*) }"
  [[ ${stat[19]} == "$born" && ${stat[0]} != [ZX] ]] && ((!(stat[6] & 0x4))) || return 1
  while read -r key value; do
    [[ $key != S*Pnd: ]] || ((!(0x$value & 0x100))) || return 1
  done 2>/dev/null <"/proc/$pid/status" || return 1
  printf '%s\n' "$pid"
}

# last_gone NODE: waits until the node's former first process has taken everything of its namespaces with it.
last_gone() {
  local pid born stat tries
  read -r pid born 2>/dev/null <"$lab/$1/pids/init" || return 0
  for tries in {1..300}; do
    stat=$(cat "/proc/$pid/stat" 2>/dev/null) || return 0
    read -r -a stat <<<"${stat##*) }"
    [[ ${stat[19]} == "$born" && ${stat[0]} != [ZX] ]] || return 0
    sleep 0.1
  done
  die "$1 (pid $pid) does not end: something in it hangs in the kernel"
}

alive() { pid_of "$1" init >/dev/null; }

inside() { # inside NODE COMMAND...
  local node=$1
  shift
  nsenter -t "$(pid_of "$node" init)" -m -n -p -u -i -r -w -- env -u LIBVIRT_DEFAULT_URI HOME=/root "$@"
}

service_state() {
  if pid_of "$1" "$2" >/dev/null; then echo up; elif [[ -e $lab/$1/hold/$2 ]]; then echo held; else echo DOWN; fi
}

count_qemu() { inside "$1" sh -c 'grep -lasx "qemu-system-.*" /proc/[0-9]*/comm | wc -l'; }

wake() { printf 'look\n' 1<>"$lab/$1/wake"; }

# locked: one lab command at a time changes which nodes run.
locked() {
  exec 9>"$lab/lock"
  flock -w 120 9 || die "another deploy/lab has been working here for two minutes; try again"
}

release() { # release NODE SERVICE
  rm -f "$lab/$1/hold/$2"
  if alive "$1"; then wake "$1"; fi
}

hold() { # hold NODE SERVICE: keeps it down, and ends it if it runs
  local pid tries
  touch "$lab/$1/hold/$2"
  pid=$(pid_of "$1" "$2") || return 0
  kill -TERM "$pid" 2>/dev/null || return 0
  for tries in {1..100}; do
    pid_of "$1" "$2" >/dev/null || return 0
    ((tries != 80)) || kill -KILL "$pid" 2>/dev/null || true
    sleep 0.1
  done
  die "$2 of $1 (pid $pid) does not end"
}

# renew NODE: restarts the services whose program was built anew since they started. Desktops do not notice.
renew() {
  local service pid
  for service in $(services_of "$1"); do
    pid=$(pid_of "$1" "$service") && [[ $(readlink "/proc/$pid/exe") == *' (deleted)' ]] || continue
    say "$service of $1 has a new program, restarting it"
    hold "$1" "$service"
    release "$1" "$service"
  done
}

# write_service NODE NAME COMMAND...
write_service() {
  local file=$lab/$1/services/$2
  shift 2
  { printf '#!/bin/sh\nexec'; printf ' %q' "$@"; printf '\n'; } >"$file.new"
  chmod 755 "$file.new"
  mv -f "$file.new" "$file"
}

# stable_uuid TEXT: the same text in the same lab gives the same UUID, another lab another one.
stable_uuid() {
  local sum
  sum=$(printf '%s %s' "$lab" "$1" | sha256sum)
  printf '%s-%s-4%s-8%s-%s\n' "${sum:0:8}" "${sum:8:4}" "${sum:12:3}" "${sum:15:3}" "${sum:18:12}"
}

prepare_node() {
  mkdir -p "$lab/$1"/{services,hold,pids,log}
  stable_uuid "machine $1" | tr -d - >"$lab/$1/machine-id"
}

prepare_control() { # prepare_control BARE
  prepare_node control
  if [[ -n $1 ]]; then rm -f "$lab/control/services/daybreakd"; return; fi
  write_service control daybreakd "$checkout/bin/daybreakd" --data-dir "$lab/control/data" \
    --listen "unix://$lab/control/daybreakd.sock" --listen 10.77.0.1:7443 --agent-listen 10.77.0.1:7444 \
    --metrics-listen 127.0.0.1:7445 --admin-endpoint "unix://$lab/control/daybreakd.sock" --log-format json
}

prepare_host() { # prepare_host NODE NUMBER BARE EMULATE
  local node=$1 dir=$lab/$1 zone args=(--allow-unconfined) # its libvirtd confines nothing: no AppArmor or SELinux in a container
  prepare_node "$node"
  mkdir -p "$dir"/{run,lib,cache,etc}
  # QEMU's unprivileged user must be able to pass through to its disks, and no more.
  mkdir -p "$dir/agent" && chmod 711 "$dir/agent"
  printf '10.77.0.%d/24\n' $((10 + $2)) >"$dir/address"
  if [[ -n $4 ]]; then touch "$dir/emulate"; else rm -f "$dir/emulate"; fi
  if [[ -d $cache/libvirt && ! -e $dir/cache/qemu ]]; then cp -a "$cache/libvirt/." "$dir/cache/" || true; fi
  write_libvirt_config "$node"
  write_service "$node" libvirtd libvirtd -p /run/libvirt/libvirtd.pid
  if [[ -n $3 ]]; then rm -f "$dir/services/agent"; return; fi
  for zone in "${zones[@]}"; do args+=(--zone "$zone=br-$zone"); done
  if [[ -n $4 ]]; then args+=(--allow-emulation); fi
  [[ -s $dir/token ]] || touch "$dir/hold/agent"
  write_service "$node" agent "$checkout/bin/daybreak-agent" run --server 10.77.0.1:7444 --name "$node" --peer-listen "10.77.0.$((10 + $2)):7447" \
    --token-file "$dir/token" --data-dir /var/lib/daybreak-agent "${args[@]}" --libvirt-uri qemu:///system \
    --metrics-listen 127.0.0.1:7446 --log-format json
}

write_libvirt_config() {
  local dir=$lab/$1
  cat >"$dir/etc/libvirtd.conf" <<CONF
host_uuid = "$(stable_uuid "host $1")"
unix_sock_dir = "/run/libvirt"
unix_sock_ro_perms = "0700"
unix_sock_rw_perms = "0700"
auth_unix_ro = "none"
auth_unix_rw = "none"
log_outputs = "3:file:/var/log/libvirt/libvirtd.log"
CONF
  # No cgroups: the hosts' libvirtds would meet in the one tree of this kernel. No ownership changes: disks belong to the agent.
  cat >"$dir/etc/qemu.conf" <<CONF
user = "libvirt-qemu"
group = "$(id -gn libvirt-qemu)"
dynamic_ownership = 0
remember_owner = 0
security_driver = "none"
namespaces = [ ]
cgroup_controllers = [ ]
stdio_handler = "file"
vnc_listen = "127.0.0.1"
CONF
}

# keep_examination: libvirtd checks itself whether what was found out about QEMU still holds, so the next new host starts with
# what this one found.
keep_examination() {
  local found new
  found=$(find "$lab"/h*/cache -path '*/capabilities/*.xml' -print -quit 2>/dev/null)
  [[ -n $found ]] || return 0
  ! cmp -s "$found" "$cache/libvirt/qemu/capabilities/${found##*/}" || return 0
  mkdir -p "$cache"
  new=$(mktemp -d "$cache/libvirt.XXXXXX")
  mkdir "$new/qemu" && cp -a "$(dirname "$found")" "$new/qemu/"
  rm -rf "$cache/libvirt"
  mv -T "$new" "$cache/libvirt" 2>/dev/null || rm -rf "$new" # another lab was quicker
}

# end_examined_qemu NODE: the QEMUs that libvirtd only examines; no desktop is among them.
end_examined_qemu() { inside "$1" pkill -KILL -f '^/[^ ]*qemu-system-[^ ]* .*-machine none' || true; }

# power_on NODE: starts its first process and waits until that has made the node's inside, then connects the network.
power_on() {
  local node=$1 dir=$lab/$1 tries other zone_args=()
  last_gone "$node"
  rm -f "$dir"/pids/*
  rm -f "$dir/wake" && mkfifo "$dir/wake"
  if [[ $node != control ]]; then
    rm -rf "${dir:?}/run" && mkdir "$dir/run" # a host's /run does not outlive its power
    zone_args=("${zones[@]}")
  fi
  (
    # The node must hold nothing of its starter: no pipe, no lock, no terminal, no folder.
    for fd in /proc/self/fd/*; do
      fd=${fd##*/}
      ((fd <= 2)) || eval "exec $fd>&-"
    done
    cd /
    exec setsid env -i PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LANG=C.UTF-8 \
      unshare --mount --propagation private --net --pid --uts --ipc --fork -- \
      "$here/lab.d/init" "$node" "$dir" "${zone_args[@]}" >>"$dir/log/init.log" 2>&1 </dev/null
  ) &
  disown
  for tries in {1..100}; do
    alive "$node" && break
    sleep 0.05
  done
  alive "$node" || die "$node does not start: $(tail -n 3 "$dir/log/init.log")"
  if [[ $node == control ]]; then
    for other in $(hosts_here); do
      if alive "$other"; then connect "$other"; fi
    done
  else
    if alive control; then connect "$node"; fi
  fi
  wake "$node"
}

# connect NODE: a cable from the host to the control node's bridge. It ends with either node.
connect() {
  local node=$1 control host
  control=$(pid_of control init)
  host=$(pid_of "$node" init)
  nsenter -t "$host" -n ip link show eth0 >/dev/null 2>&1 && return
  nsenter -t "$control" -n ip link add "$node" type veth peer name eth0 netns "$host"
  nsenter -t "$control" -n ip link set "$node" master lab0 up
  nsenter -t "$host" -n ip address add "$(cat "$lab/$node/address")" dev eth0
  nsenter -t "$host" -n ip link set eth0 up
}

# power_off NODE...: asks all, waits, and cuts what is left.
power_off() {
  local node tries left
  for node in "$@"; do kill -TERM "$(pid_of "$node" init)" 2>/dev/null || true; done
  for tries in {1..150}; do
    left=()
    for node in "$@"; do
      if alive "$node"; then left+=("$node"); fi
    done
    if ((${#left[@]} == 0)); then
      for node in "$@"; do last_gone "$node"; done
      return
    fi
    if ((tries == 100)); then
      for node in "${left[@]}"; do kill -KILL "$(pid_of "$node" init)" 2>/dev/null || true; done
    fi
    sleep 0.1
  done
  die "does not end: ${left[*]}"
}
