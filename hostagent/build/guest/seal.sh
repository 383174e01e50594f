# Takes from a system what only one machine may have, and what its building left. Runs in the system itself, or in a chroot on
# its disk. What is not there is no fault.

# Who would write it anew at the shutdown.
if [ -d /run/systemd/system ]; then
  journalctl --relinquish-var >/dev/null 2>&1 || :
  for unit in syslog.socket rsyslog.service systemd-random-seed.service; do
    systemctl stop "$unit" >/dev/null 2>&1 || :
  done
fi

# Identity. An empty machine-id is filled at the first boot; dbus has its own file only where it is no link.
if [ -e /etc/machine-id ]; then : >/etc/machine-id; fi
if [ -f /var/lib/dbus/machine-id ] && [ ! -L /var/lib/dbus/machine-id ]; then rm -f /var/lib/dbus/machine-id; fi
rm -f /etc/ssh/ssh_host_*_key /etc/ssh/ssh_host_*_key.pub
rm -f /var/lib/systemd/random-seed /var/lib/systemd/credential.secret /var/lib/urandom/random-seed /var/lib/misc/random-seed /var/lib/random-seed

# Leases of DHCP clients.
rm -f /var/lib/dhcp/*.lease /var/lib/dhcp/*.leases /var/lib/dhclient/* /var/lib/dhcpcd/*.lease /var/lib/dhcpcd5/* /var/lib/NetworkManager/*.lease \
  /var/lib/NetworkManager/timestamps /var/lib/NetworkManager/secret_key /var/lib/NetworkManager/seen-bssids

# Logs: those that are turned away go, the others are emptied, so that owners and modes stay.
if [ -d /var/log ]; then
  rm -rf /var/log/journal/*
  find /var/log -xdev -type f \( -name '*.gz' -o -name '*.xz' -o -name '*.zst' -o -name '*.[0-9]' -o -name '*.old' \) -exec rm -f {} \;
  find /var/log -xdev -type f -exec sh -c 'for file; do if [ -s "$file" ]; then : >"$file"; fi; done' sh {} +
fi

# Temporary files; what is mounted in there stays.
for dir in /tmp /var/tmp; do
  if [ -d "$dir" ] && [ ! -L "$dir" ]; then find "$dir" -xdev -mindepth 1 -depth -exec rm -rf {} + 2>/dev/null || :; fi
done

# Histories of shells.
for home in /root /home/*; do
  rm -f "$home"/.bash_history "$home"/.ash_history "$home"/.sh_history "$home"/.zsh_history "$home"/.python_history "$home"/.lesshst
done
sync
