# Prints the packages, "name version" a line. Busybox has an rpm and a dpkg of its own, so files are looked at before programs.
if command -v dpkg-query >/dev/null 2>&1; then
  dpkg-query -W -f '${db:Status-Status} ${binary:Package} ${Version}\n' | sed -n 's/^installed //p'
elif [ -e /var/lib/dpkg/status ]; then
  awk '
    function tell() { if (name != "" && state == "installed") print name, version; name = state = version = "" }
    /^Package: / { name = $2 }
    /^Status: / { state = $4 }
    /^Version: / { version = $2 }
    /^$/ { tell() }
    END { tell() }
  ' /var/lib/dpkg/status | sort
elif [ -e /var/lib/rpm ] || [ -e /usr/lib/sysimage/rpm ]; then
  rpm -qa --qf '%{NAME} %{VERSION}-%{RELEASE}\n' | sort
elif [ -e /var/lib/pacman ]; then
  pacman -Q
fi
