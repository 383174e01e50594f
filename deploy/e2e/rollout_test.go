//go:build e2e

package e2e

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/encoding/protojson"

	v1 "daybreak/proto/daybreak/v1"
)

const (
	floor   = 4 // the pool's min_ready
	canary  = 2
	seats   = 12
	holders = 3
)

// moving is a pool that moves in three waves: 2, 6, all.
const moving = `
kind: pool
meta: {name: desk}
spec:
  image: micro
  zone: office
  desktops: 12
  maxUnavailable: 4
  minReady: 4
  shape: {vcpus: 1, memoryMib: 128, overlayReserveMib: 64, dataDiskGib: 1}
  readiness: {probe: ["/bin/test", "-s", "/run/daybreak/boot-nonce"], deadline: 100s}
  rollout: {waves: ["2", "50%"], monitor: 4s}
`

// TestRollout tells how a patched image reaches every desk and goes back. Its chapters build on each other.
func TestRollout(t *testing.T) {
	r := start(t, 2)
	image := r.golden(t, 1)
	r.apply(t, zones)
	r.cli(t, "image", "import", "micro", image, "--note", "first", "--publish")
	r.apply(t, moving)
	r.settled(t, "desk", seats, 8*time.Minute)
	s := &rolloutStory{rig: r, begin: r.desktops(t, "desk")}
	for _, chapter := range []struct {
		name string
		tell func(*testing.T)
	}{
		{"users leave their data", s.usersLeaveTheirData},
		{"patch with a real package", s.patch},
		{"waves reach all that nobody holds", s.waves},
		{"those in use move at logoff", s.logoff},
		{"back in one call, whatever dies on the way", s.back},
		{"a broken version halts at the canary", s.broken},
		{"what was rolled back stays back", s.staysBack},
		{"a user is told, puts it off, and keeps the desktop", s.reminded},
	} {
		if !t.Run(chapter.name, chapter.tell) {
			return // what follows would fail for the same reason
		}
	}
}

// rolloutStory is what the chapters know of each other.
type rolloutStory struct {
	*rig
	begin map[string]*v1.Desktop
	held  []string // names of the desktops that users hold
}

func (s *rolloutStory) usersLeaveTheirData(t *testing.T) {
	for name, d := range s.begin {
		s.guestRun(t, d.GetIncarnation().GetHost(), d.GetSpec().GetVmUuid(), "echo "+name+" >/data/owner; sync")
	}
	for i := range holders {
		s.cli(t, "claim", "desk", "--user", fmt.Sprintf("user%d", i), "--no-wait")
	}
	for name, d := range s.desktops(t, "desk") {
		if d.GetClaim() != nil {
			s.held = append(s.held, name)
		}
	}
	slices.Sort(s.held)
	if len(s.held) != holders {
		t.Fatalf("%d users hold %v", holders, s.held)
	}
}

// patch installs a package of the distribution's in the guest, and changes the version that the guest names.
func (s *rolloutStory) patch(t *testing.T) {
	dir := t.TempDir()
	if out, err := s.command(2*time.Minute, "sh", "-c", "cd "+dir+" && { apt-get -q download publicsuffix || { apt-get -q update && apt-get -q download publicsuffix; }; } && mv publicsuffix_*.deb publicsuffix.deb"); err != nil {
		t.Fatalf("download a package: %v\n%s", err, out)
	}
	script := s.script(t, "patch.sh", "dpkg -i /tmp/publicsuffix.deb\necho 2 >/etc/daybreak-image-version\necho the script was here\n")
	out := s.cli(t, "image", "patch", "micro", "--script", script, "--file", filepath.Join(dir, "publicsuffix.deb")+":/tmp/publicsuffix.deb",
		"--note", "publicsuffix", "--memory-mib", "192", "--vcpus", "1")
	if !strings.Contains(out, "the script was here") {
		t.Errorf("the script's output is not in %s", out)
	}
	v := s.version(t, 2)
	if v.GetState() != v1.VersionState_VERSION_STATE_READY || v.GetParent() != 1 || v.GetNote() != "publicsuffix" {
		t.Errorf("the patch made %v", v)
	}
	if v.GetStoredBytes() > 4<<20 {
		t.Errorf("a small package took %d bytes of the store", v.GetStoredBytes())
	}
	s.cli(t, "image", "check", "micro", "1") // what was imported has not said yet which packages it has
	if diff := s.cli(t, "image", "diff", "micro", "1", "2"); !strings.Contains(diff, "publicsuffix") {
		t.Errorf("the new package is not in %s", diff)
	}
	for _, vm := range s.qemus(t) {
		if !slices.ContainsFunc(slices.Collect(maps.Values(s.begin)), func(d *v1.Desktop) bool { return d.GetSpec().GetVmUuid() == vm.uuid }) {
			t.Errorf("a VM that is no desktop is left on %s: %s", vm.host, vm.uuid)
		}
	}
}

func (s *rolloutStory) script(t *testing.T, name, text string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(file, []byte("#!/bin/sh\nset -e\n"+text), 0o700); err != nil {
		t.Fatal(err)
	}
	return file
}

func (s *rolloutStory) version(t *testing.T, number uint32) *v1.ImageVersion {
	t.Helper()
	var image v1.Image
	s.get(t, "image", "micro", &image)
	for _, v := range image.GetStatus().GetVersions() {
		if v.GetNumber() == number {
			return v
		}
	}
	t.Fatalf("image micro has no version %d: %v", number, image.GetStatus())
	return nil
}

// look checks what must hold at every moment of a rollout, and returns the desktops by the version of their present life and
// the pool's newest rollout, nil when it has none. An error says that the control plane did not answer.
func (s *rolloutStory) look(t *testing.T) (map[uint32]int, map[string]*v1.Desktop, *v1.Rollout, error) {
	t.Helper()
	found, err := s.tryDesktops("desk")
	if err != nil {
		return nil, nil, nil, err
	}
	versions, free := map[uint32]int{}, 0
	for _, d := range found {
		versions[d.GetIncarnation().GetVersion()]++
		if isReady(d) && d.GetClaim() == nil {
			free++
		}
	}
	if free < floor {
		t.Fatalf("%d desktops are ready and free, the pool's floor is %d: %s", free, floor, states(found))
	}
	out, err := s.try("get", "rollouts", "-o", "json")
	if err != nil {
		return nil, nil, nil, fmt.Errorf("get rollouts: %w: %s", err, out)
	}
	var newest *v1.Rollout
	for _, item := range items(out) {
		one := &v1.Rollout{}
		if err := protojson.Unmarshal(item, one); err != nil {
			t.Fatal(err)
		}
		if newest == nil || one.GetStatus().GetStarted().AsTime().After(newest.GetStatus().GetStarted().AsTime()) {
			newest = one
		}
	}
	return versions, found, newest, nil
}

// watchWaves waits until done says so, and makes sure that no wave began before the one before it had proved itself.
func (s *rolloutStory) watchWaves(t *testing.T, limit time.Duration, to uint32, done func(*v1.Rollout, map[string]*v1.Desktop) bool) {
	t.Helper()
	most := uint32(0)
	s.eventually(t, limit, fmt.Sprintf("the rollout to version %d", to), func() (bool, string) {
		versions, found, ro, err := s.look(t)
		if err != nil {
			return false, err.Error()
		}
		if ro.GetSpec().GetToVersion() != to {
			return false, fmt.Sprintf("the newest rollout is %v", ro)
		}
		admitted := ro.GetStatus().GetAdmitted()
		if admitted < most && ro.GetStatus().GetPhase() == v1.RolloutPhase_ROLLOUT_PHASE_RUNNING {
			t.Fatalf("%d desktops are admitted after %d were: %v", admitted, most, ro)
		}
		if most = max(most, admitted); versions[to] > int(most) && most < seats {
			t.Fatalf("%d desktops run version %d, at most %d were admitted: %v", versions[to], to, most, ro)
		}
		return done(ro, found), fmt.Sprintf("%v by version; %v", versions, ro.GetStatus())
	})
}

func (s *rolloutStory) waves(t *testing.T) {
	before := generationsOf(s.desktops(t, "desk"))
	s.cli(t, "image", "publish", "micro", "2")
	seen := map[uint32]bool{}
	s.watchWaves(t, 12*time.Minute, 2, func(ro *v1.Rollout, found map[string]*v1.Desktop) bool {
		seen[ro.GetStatus().GetWave()] = true
		moved := 0
		for _, d := range found {
			if d.GetIncarnation().GetVersion() == 2 && isReady(d) {
				moved++
			}
		}
		return moved == seats-holders
	})
	if !seen[1] || !seen[2] || !seen[3] {
		t.Errorf("waves that were seen: %v, want 1, 2 and 3", seen)
	}
	for _, name := range s.held {
		if now := s.desktops(t, "desk")[name]; now.GetIncarnation().GetGeneration() != before[name] {
			t.Errorf("%s was taken from its user: %v", name, now.GetIncarnation())
		}
	}
	s.everyGuest(t, func(name string) string {
		if slices.Contains(s.held, name) {
			return "1"
		}
		return "2"
	})
	// One of the hosts made the version, so the other one had it from there and not from the control plane.
	given := 0.0
	for _, host := range []string{"h1", "h2"} {
		given += s.metric(t, host, "daybreak_agent_given_to_peers_bytes_total")
	}
	if given == 0 {
		t.Error("no host gave another anything of the version")
	}
	s.eventually(t, time.Minute, "the status names those in use", func() (bool, string) {
		status := s.cli(t, "rollout", "status", "desk")
		return strings.Contains(status, "in use"), status
	})
}

// metric reads one number of an agent's.
func (s *rolloutStory) metric(t *testing.T, host, name string) float64 {
	t.Helper()
	for line := range strings.Lines(s.lab(t, "shell", host, "/bin/bash", "-c", "exec 3<>/dev/tcp/127.0.0.1/7446 && printf 'GET /metrics HTTP/1.0\r\n\r\n' >&3 && cat <&3")) {
		if value, ok := strings.CutPrefix(strings.TrimSpace(line), name+" "); ok {
			number, err := strconv.ParseFloat(value, 64)
			if err != nil {
				t.Fatal(err)
			}
			return number
		}
	}
	t.Fatalf("the agent of %s has no metric %s", host, name)
	return 0
}

// everyGuest asks every guest which version it runs and whether it has the package of version 2, and compares identities and
// data with the begin.
func (s *rolloutStory) everyGuest(t *testing.T, want func(name string) string) {
	t.Helper()
	for name, d := range s.desktops(t, "desk") {
		was := s.begin[name]
		if d.GetSpec().GetVmUuid() != was.GetSpec().GetVmUuid() || d.GetSpec().GetMac() != was.GetSpec().GetMac() {
			t.Errorf("%s is another: %v, was %v", name, d.GetSpec(), was.GetSpec())
		}
		said := s.guestRun(t, d.GetIncarnation().GetHost(), d.GetSpec().GetVmUuid(),
			"cat /run/daybreak/image-version /data/owner /sys/class/net/eth0/address; test -e /usr/share/publicsuffix/public_suffix_list.dat && echo publicsuffix || echo none")
		packages := "none"
		if want(name) == "2" {
			packages = "publicsuffix"
		}
		if expected := strings.Join([]string{want(name), name, d.GetSpec().GetMac(), packages}, "\n"); said != expected {
			t.Errorf("%s says %q, want %q", name, said, expected)
		}
	}
}

func (s *rolloutStory) logoff(t *testing.T) {
	for i := range holders {
		s.cli(t, "release", "desk", "--user", fmt.Sprintf("user%d", i))
	}
	s.watchWaves(t, 6*time.Minute, 2, func(ro *v1.Rollout, _ map[string]*v1.Desktop) bool {
		return ro.GetStatus().GetPhase() == v1.RolloutPhase_ROLLOUT_PHASE_DONE
	})
	s.settled(t, "desk", seats, time.Minute)
	s.everyGuest(t, func(string) string { return "2" })
}

// back takes the rollout back, and kills a part of everything on the way.
func (s *rolloutStory) back(t *testing.T) {
	s.cli(t, "image", "rollback", "desk", "--reason", "try the way back")
	killed := false
	s.eventually(t, 10*time.Minute, "the way back", func() (bool, string) {
		versions, found, ro, err := s.look(t)
		if err != nil {
			return false, err.Error()
		}
		if !killed && versions[1] >= 2 {
			killed = true
			for node, process := range map[string]string{"control": "daybreakd", "h1": "agent", "h2": "libvirtd"} {
				s.kill(t, node, process)
			}
		}
		return versions[1] == seats && ro.GetSpec().GetRollback() && ro.GetStatus().GetPhase() == v1.RolloutPhase_ROLLOUT_PHASE_DONE,
			fmt.Sprintf("%v by version, %v; %s", versions, ro.GetStatus(), states(found))
	})
	s.settled(t, "desk", seats, time.Minute)
	s.everyGuest(t, func(string) string { return "1" })
	if out, err := s.try("image", "rollback", "desk"); err == nil {
		t.Errorf("a rollback was rolled back: %s", out)
	}
}

// broken publishes a version that boots, answers, and fails the pool's probe.
func (s *rolloutStory) broken(t *testing.T) {
	script := s.script(t, "break.sh", "sed -i '/boot-nonce/d' /sbin/init\necho 3 >/etc/daybreak-image-version\n")
	s.cli(t, "claim", "desk", "--user", "worker", "--no-wait")
	before := s.pids(t)
	s.cli(t, "image", "patch", "micro", "--version", "1", "--script", script, "--note", "broken", "--memory-mib", "192", "--vcpus", "1", "--publish")
	s.watchWaves(t, 8*time.Minute, 3, func(ro *v1.Rollout, found map[string]*v1.Desktop) bool {
		on := 0
		for _, d := range found {
			if d.GetIncarnation().GetVersion() == 3 {
				on++
			}
		}
		if on > canary {
			t.Fatalf("%d desktops run the broken version, the canary is %d", on, canary)
		}
		return ro.GetStatus().GetPhase() == v1.RolloutPhase_ROLLOUT_PHASE_HALTED
	})
	if status := s.cli(t, "rollout", "status", "desk"); !strings.Contains(status, "probe") {
		t.Errorf("the status does not say what failed:\n%s", status)
	}
	s.settled(t, "desk", seats, 6*time.Minute)
	s.everyGuest(t, func(string) string { return "1" })
	same := 0
	for uuid, pid := range s.pids(t) {
		if before[uuid] == pid {
			same++
		}
	}
	if same < seats-canary {
		t.Errorf("only %d of %d desktops were left alone", same, seats)
	}
	s.cli(t, "image", "rollback", "desk")
	s.eventually(t, 2*time.Minute, "the broken rollout is taken back", func() (bool, string) {
		_, _, ro, err := s.look(t)
		if err != nil {
			return false, err.Error()
		}
		return ro.GetSpec().GetRollback() && ro.GetStatus().GetPhase() == v1.RolloutPhase_ROLLOUT_PHASE_DONE, ro.String()
	})
}

func (s *rolloutStory) staysBack(t *testing.T) {
	var pool v1.Pool
	s.get(t, "pool", "desk", &pool)
	if release := pool.GetRelease(); release.GetVersion() != 1 || release.GetNext() != 0 || release.GetRefused() != 3 {
		t.Errorf("after the rollback the pool's release is %v", release)
	}
	events := s.cli(t, "get", "events")
	for _, reason := range []string{"RolloutStarted", "WaveStarted", "WaveHealthy", "RolloutDone", "RolloutHalted", "RolloutRolledBack"} {
		if !strings.Contains(events, reason) {
			t.Errorf("no event %s tells of the night", reason)
		}
	}
}
