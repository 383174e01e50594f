package main

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

// peer is the plain script and what it needs to know of the host.
type peer struct {
	lab         *lab
	script      string
	concurrency int
	kvm         bool
}

// prepare imports the image, lets Daybreak run the desktops once so that the base lies on the host, and takes the peer's
// virtual hardware from a desktop that runs.
func prepare(ctx context.Context, l *lab, desktops int) (*peer, error) {
	golden := filepath.Join(l.dir, "micro.raw")
	if _, err := l.do(ctx, "deploy/golden/micro", golden, "--version", "1"); err != nil {
		return nil, err
	}
	if _, err := l.daybreak(ctx, "image", "import", "micro", golden, "--publish"); err != nil {
		return nil, err
	}
	if _, err := runWarm(ctx, l, desktops); err != nil {
		return nil, err
	}
	xml, err := l.do(ctx, "deploy/lab", "shell", "h1", "sh", "-c", "virsh -q dumpxml --inactive $(virsh -q list --name | head -n 1)")
	if err != nil {
		return nil, err
	}
	if err := l.gone(ctx); err != nil {
		return nil, err
	}
	p := &peer{lab: l}
	if err := p.readHost(ctx); err != nil {
		return nil, err
	}
	return p, p.write(xml)
}

func (p *peer) readHost(ctx context.Context) error {
	out, err := p.lab.daybreak(ctx, "get", "host", "h1", "-o", "json")
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
	p.concurrency, p.kvm = host.Status.Capacity.MaxBoots, host.Status.Capacity.Kvm
	if p.concurrency == 0 {
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
func (p *peer) write(xml string) error {
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
	dir := filepath.Join(p.lab.dir, "h1", "agent", "peer")
	if err := os.MkdirAll(dir, 0o777); err != nil {
		return fmt.Errorf("make the peer's directory: %w", err)
	}
	if err := os.Chmod(dir, 0o777); err != nil { // QEMU is another user
		return fmt.Errorf("open the peer's directory: %w", err)
	}
	if err := os.WriteFile(filepath.Join(dir, "domain.xml"), []byte(xml), 0o600); err != nil {
		return fmt.Errorf("write the peer's domain: %w", err)
	}
	p.script = filepath.Join(dir, "clones")
	text := strings.ReplaceAll(plainScript, "@BASE@", base)
	if err := os.WriteFile(p.script, []byte(text), 0o700); err != nil {
		return fmt.Errorf("write the peer: %w", err)
	}
	return nil
}

// plainScript is what an admin would write: clone, create, ask the guest agent until the probe passes.
const plainScript = `#!/bin/bash
# usage: clones DESKTOPS CONCURRENCY
set -euo pipefail
export dir=/var/lib/daybreak-agent/peer base=@BASE@
one() {
  qemu-img create -q -f qcow2 -F raw -b "$base" "$dir/$1.qcow2"
  chown libvirt-qemu "$dir/$1.qcow2"
  sed "s#@DIR@#$dir#g; s#@N@#$1#g" "$dir/domain.xml" >"$dir/$1.xml"
  virsh -q create "$dir/$1.xml"
  until virsh -q qemu-agent-command --timeout 2 "peer-$1" '{"execute":"guest-ping"}' >/dev/null 2>&1; do sleep 0.25; done
  until
    pid=$(virsh -q qemu-agent-command --timeout 10 "peer-$1" '{"execute":"guest-exec","arguments":{"path":"/bin/test","arg":["-s","/run/daybreak/boot-nonce"]}}')
    pid=${pid##*:} pid=${pid%%\}*}
    virsh -q qemu-agent-command --timeout 10 "peer-$1" '{"execute":"guest-exec-status","arguments":{"pid":'"$pid"'}}' | grep -q '"exitcode":0'
  do sleep 0.25; done
}
export -f one
seq -f %02.0f 10 $((9 + $1)) | xargs -P "$2" -I{} bash -euo pipefail -c 'one {}'
`

// run measures the script, and takes its clones away afterwards.
func (p *peer) run(ctx context.Context, desktops int) (sample, error) {
	inside := "/var/lib/daybreak-agent/peer/clones"
	s, err := timed(func() error {
		_, err := p.lab.do(ctx, "deploy/lab", "shell", "h1", inside, strconv.Itoa(desktops), strconv.Itoa(p.concurrency))
		return err
	})
	if err != nil {
		return s, err
	}
	_, err = p.lab.do(ctx, "deploy/lab", "shell", "h1", "sh", "-c",
		"for d in $(virsh -q list --name); do virsh -q destroy $d; done; rm -f /var/lib/daybreak-agent/peer/*.qcow2")
	return s, err
}

// runOurs measures Daybreak, and takes the desktops away afterwards.
func runOurs(ctx context.Context, l *lab, desktops int) (sample, error) {
	s, err := runWarm(ctx, l, desktops)
	if err != nil {
		return s, err
	}
	return s, l.gone(ctx)
}

func runWarm(ctx context.Context, l *lab, desktops int) (sample, error) {
	return timed(func() error {
		if err := l.apply(ctx, desktops); err != nil {
			return err
		}
		_, err := l.daybreak(ctx, "wait", "pool", "bench", "--for", "ready", "--timeout", "10m")
		return err
	})
}

// timed runs something and counts wall time and the machine's busy CPU time.
func timed(what func() error) (sample, error) {
	began, busy := time.Now(), busySeconds()
	err := what()
	return sample{wall: time.Since(began).Seconds(), cpu: busySeconds() - busy}, err
}

// busySeconds is the time that the machine's CPUs worked: user, nice, system, irq, softirq.
func busySeconds() float64 {
	text, err := os.ReadFile("/proc/stat")
	if err != nil {
		return 0
	}
	line, _, _ := strings.Cut(string(text), "\n")
	fields := strings.Fields(line)
	var ticks float64
	for _, i := range []int{1, 2, 3, 6, 7} {
		if i < len(fields) {
			n, _ := strconv.ParseFloat(fields[i], 64)
			ticks += n
		}
	}
	return ticks / 100
}
