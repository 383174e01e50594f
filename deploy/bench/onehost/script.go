package onehost

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// Script is what an admin would write without Daybreak: `qemu-img create -b`, `virsh create`, and asking the guest agent until
// the same test passes that Daybreak makes, with the virtual hardware that Daybreak gives.
type Script struct {
	lab *Lab
	// Concurrency is how many boots Daybreak's agent would run at once on this host at most; KVM whether they need no emulation.
	Concurrency int
	KVM         bool
}

// scriptDir is where the script and its clones lie, as the host sees it.
const scriptDir = "/var/lib/daybreak-agent/peer"

// Compare starts a lab, lets Daybreak run the desktops once in it, so that the base lies on the host and it has seen them get
// ready, writes the script, and takes the lab away when what it calls is done.
func Compare(ctx context.Context, desktops int, do func(*Lab, *Script) error) (err error) {
	lab, err := start(ctx)
	if err != nil {
		return err
	}
	defer func() {
		if downErr := lab.down(); err == nil {
			err = downErr
		}
	}()
	if err := lab.Ready(ctx, desktops); err != nil {
		return err
	}
	script, err := newScript(ctx, lab)
	if err != nil {
		return err
	}
	return do(lab, script)
}

// newScript writes the script. It needs one desktop that runs, whose virtual hardware it takes, and leaves the pool empty.
func newScript(ctx context.Context, l *Lab) (*Script, error) {
	xml, err := l.Inside(ctx, "sh", "-c", "virsh -q dumpxml --inactive $(virsh -q list --name | head -n 1)")
	if err != nil {
		return nil, err
	}
	if err := l.Empty(ctx); err != nil {
		return nil, err
	}
	s := &Script{lab: l}
	if err := s.readHost(ctx); err != nil {
		return nil, err
	}
	return s, s.write(xml)
}

func (s *Script) readHost(ctx context.Context) error {
	out, err := s.lab.Daybreak(ctx, "get", "host", "h1", "-o", "json")
	if err != nil {
		return err
	}
	var host struct {
		Status struct {
			Capacity struct {
				MaxBoots int
				Kvm      bool
			}
		}
	}
	if err := json.Unmarshal([]byte(out), &host); err != nil {
		return fmt.Errorf("read host: %w", err)
	}
	s.Concurrency, s.KVM = host.Status.Capacity.MaxBoots, host.Status.Capacity.Kvm
	if s.Concurrency == 0 {
		return fmt.Errorf("read host: no limit on boots in %s", out)
	}
	return nil
}

var (
	overlayPath = regexp.MustCompile(`/[^'"<>]*/overlays/[^'"<>]*\.qcow2`)
	basePath    = regexp.MustCompile(`/[^'"<>]*/bases/[^'"<>]*\.raw`)
	vncPath     = regexp.MustCompile(`/[^'"<>]*/vnc/[^'"<>]*`)
	guestUUID   = regexp.MustCompile(`<uuid>([^<]*)</uuid>`)
	guestName   = regexp.MustCompile(`<name>([^<]*)</name>`)
	guestMAC    = regexp.MustCompile(`<mac address='[^']*'/>`)
	runtimeBits = regexp.MustCompile(`(?s)<metadata>.*?</metadata>|<target dev='vnet[0-9]*'/>|<source mode='bind' path='[^']*'/>`)
)

// write makes the template of a domain and the script from it.
func (s *Script) write(xml string) error {
	base := basePath.FindString(xml)
	if base == "" || overlayPath.FindString(xml) == "" {
		return fmt.Errorf("read the desktop's domain: no base or overlay in %s", xml)
	}
	xml = runtimeBits.ReplaceAllString(xml, "")
	xml = overlayPath.ReplaceAllString(xml, "@DIR@/@N@.qcow2")
	xml = vncPath.ReplaceAllString(xml, "@DIR@/@N@.vnc")
	xml = guestName.ReplaceAllString(xml, "<name>peer-@N@</name>")
	xml = guestUUID.ReplaceAllString(xml, "<uuid>00000000-0000-4000-8000-0000000000@N@</uuid>")
	xml = guestMAC.ReplaceAllString(xml, "<mac address='52:54:00:00:00:@N@'/>")
	dir := filepath.Join(s.lab.dir, "h1", "agent", "peer")
	if err := os.MkdirAll(dir, 0o777); err != nil {
		return fmt.Errorf("make the script's directory: %w", err)
	}
	if err := os.Chmod(dir, 0o777); err != nil { // QEMU is another user
		return fmt.Errorf("open the script's directory: %w", err)
	}
	if err := os.WriteFile(filepath.Join(dir, "domain.xml"), []byte(xml), 0o600); err != nil {
		return fmt.Errorf("write the script's domain: %w", err)
	}
	text := strings.NewReplacer("@BASE@", base, "@HOME@", scriptDir).Replace(plainScript)
	if err := os.WriteFile(filepath.Join(dir, "clones"), []byte(text), 0o700); err != nil {
		return fmt.Errorf("write the script: %w", err)
	}
	return nil
}

// plainScript prints, for each clone, when it was ready.
const plainScript = `#!/bin/bash
# usage: clones DESKTOPS CONCURRENCY
set -euo pipefail
export dir=@HOME@ base=@BASE@
one() {
  qemu-img create -q -f qcow2 -F raw -b "$base" "$dir/$1.qcow2"
  chown libvirt-qemu "$dir/$1.qcow2"
  sed "s#@DIR@#$dir#g; s#@N@#$1#g" "$dir/domain.xml" >"$dir/$1.xml"
  virsh -q create "$dir/$1.xml" >/dev/null
  until virsh -q qemu-agent-command --timeout 2 "peer-$1" '{"execute":"guest-ping"}' >/dev/null 2>&1; do sleep 0.25; done
  until
    pid=$(virsh -q qemu-agent-command --timeout 10 "peer-$1" '{"execute":"guest-exec","arguments":{"path":"/bin/test","arg":["-s","/run/daybreak/boot-nonce"]}}')
    pid=${pid##*:} pid=${pid%%\}*}
    virsh -q qemu-agent-command --timeout 10 "peer-$1" '{"execute":"guest-exec-status","arguments":{"pid":'"$pid"'}}' | grep -q '"exitcode":0'
  do sleep 0.25; done
  date +%s.%N
}
export -f one
seq -f %02.0f 10 $((9 + $1)) | xargs -P "$2" -I{} bash -euo pipefail -c 'one {}'
`

// Run makes desktops ready, so many at once, and returns when each was.
func (s *Script) Run(ctx context.Context, desktops, atOnce int) ([]time.Time, error) {
	out, err := s.lab.Inside(ctx, scriptDir+"/clones", strconv.Itoa(desktops), strconv.Itoa(atOnce))
	if err != nil {
		return nil, err
	}
	var ready []time.Time
	for _, word := range strings.Fields(out) {
		seconds, err := strconv.ParseFloat(word, 64)
		if err != nil {
			return nil, fmt.Errorf("read when a clone was ready: %w", err)
		}
		ready = append(ready, time.UnixMilli(int64(seconds*1000)))
	}
	if len(ready) != desktops {
		return nil, fmt.Errorf("the script made %d desktops ready, want %d: %s", len(ready), desktops, out)
	}
	return ready, nil
}

// Clear takes the script's clones away.
func (s *Script) Clear(ctx context.Context) error {
	_, err := s.lab.Inside(ctx, "sh", "-c", "for d in $(virsh -q list --name); do virsh -q destroy $d; done; rm -f "+scriptDir+"/*.qcow2")
	return err
}
