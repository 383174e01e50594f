//go:build e2e

package libvirt_test

import (
	"os"
	"strings"
	"testing"
	"time"

	v1 "daybreak/proto/daybreak/v1"
)

// look prints what is to be known of a version that was not booted. systemd itself writes a little at the shutdown.
const look = `cat /usr/share/greeting/text
for file in /etc/ssh/ssh_host_rsa_key /var/lib/dhcp/eth0.leases /var/lib/systemd/random-seed /root/.ash_history /var/log/old.1 /var/tmp/left; do
  [ ! -e $file ] || echo "left: $file"
done
[ ! -s /var/log/messages ] || echo left: messages
ls -d /var/log/journal/* 2>/dev/null | sed 's/^/left: /'
echo "machine-id $(cat /etc/machine-id)"
id -un
`

// Builds of a real distribution with systemd: DAYBREAK_DESKTOP names an image of deploy/golden/desktop. It takes minutes
// where guests are emulated.
func TestBuildsOfDesktop(t *testing.T) {
	path := os.Getenv("DAYBREAK_DESKTOP")
	if path == "" {
		t.Skip("DAYBREAK_DESKTOP names no image")
	}
	r, host := newRigOf(t, 6<<30)
	r.Patience = 10 * time.Minute
	desktop := readImage(t, path)
	b := newBuilds(t, r, host, r.Image, desktop)
	b.memory = 512
	b.order(v1.BuildKind_BUILD_KIND_PATCH, desktop.Digest(), func(o *v1.BuildOrder) {
		b.bring(o)
		o.Script = []byte("#!/bin/bash\nset -e\ncat /etc/machine-id\nsystemctl restart qemu-guest-agent\nsleep 5\ndpkg -i /root/pkg/greeting.deb\nrm -r /root/pkg\n" + soil)
	})
	told := b.run(t)
	if told.Outcome.GetError() != "" || told.Manifest == nil || !strings.Contains(told.Outcome.GetPackages(), "\ngreeting 1.2-3\n") ||
		!strings.Contains(told.Outcome.GetPackages(), "\nsystemd ") {
		t.Fatalf("outcome %v", told.Outcome)
	}
	// The new version is looked at without being booted, so that it shows what was published.
	b.order(v1.BuildKind_BUILD_KIND_PATCH, told.Manifest.Digest().String(), func(o *v1.BuildOrder) {
		o.Offline, o.Appliance, o.Script = true, "micro", []byte(look)
	})
	looked := b.run(t)
	if looked.Outcome.GetError() != "" || looked.Output != "good morning\nmachine-id \nroot\n" {
		t.Errorf("outcome %v, in the new version:\n%s", looked.Outcome, looked.Output)
	}
	b.order(v1.BuildKind_BUILD_KIND_CHECK, looked.Manifest.Digest().String(), nil)
	if check := b.run(t).Outcome; check.GetError() != "" || !strings.Contains(check.GetCheck(), "Debian") {
		t.Errorf("check: %v", check)
	}
}
