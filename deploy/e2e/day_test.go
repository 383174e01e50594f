//go:build e2e

package e2e

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/encoding/protojson"

	"daybreak/orchestrator/store"
	v1 "daybreak/proto/daybreak/v1"
)

// dayStory is one working day of a pool, told in a few minutes.
type dayStory struct {
	*rig
	zone *time.Location
	// opening and closing of the day.
	opens, closes time.Time
	// starts is when each cold desktop is to be started, as its host was told before the control plane died.
	starts map[string]time.Time
}

// morning is how long before the doors open the plan hears of it.
const morning = 6 * time.Minute

// TestDay warms a pool of 12 for an opening a few minutes ahead, while the control plane is dead; then users come, one more
// than there are desktops, one goes idle, and the doors close.
func TestDay(t *testing.T) {
	s := &dayStory{rig: start(t, 2)}
	image := s.golden(t, 1)
	s.apply(t, zones)
	s.cli(t, "image", "import", "micro", image, "--note", "first", "--publish")
	s.setHours(t, 12*time.Hour) // from the first boots it will be known how long the others take
	s.apply(t, dayPool(""))
	for _, chapter := range []struct {
		name string
		tell func(*testing.T)
	}{
		{"only the spares run at night", s.night},
		{"the plan is on the hosts ahead of time", s.planned},
		{"warm in time without a control plane", s.unattended},
		{"what was planned beside what was", s.compared},
		{"one user more than there are desktops", s.queue},
		{"an idle desktop gives its memory back", s.idle},
		{"the doors close", s.closing},
	} {
		if !t.Run(chapter.name, chapter.tell) {
			return // what follows would fail for the same reason
		}
	}
}

// seatMiB is the memory of one desktop.
const seatMiB = 128

// dayPool has two spares at all times, and all its desktops while the doors are open.
func dayPool(more string) string {
	return fmt.Sprintf(`
kind: pool
meta: {name: desk}
spec:
  image: micro
  zone: office
  desktops: %d
  calendar: doors
  minReady: 2
  maxUnavailable: 8
  schedule: {open: "100%%", closed: "0"}
  shape: {vcpus: 1, memoryMib: %d, overlayReserveMib: 64}
  readiness: {probe: ["/bin/test", "-s", "/run/daybreak/boot-nonce"], deadline: 150s}
%s`, seats, seatMiB, more)
}

// setHours opens the doors once, today, some time from now, until the end of the day.
func (s *dayStory) setHours(t *testing.T, in time.Duration) {
	t.Helper()
	opens := time.Now().Add(in).Truncate(time.Minute).Add(time.Minute)
	for _, name := range []string{"Asia/Tokyo", "UTC"} { // one of them is hours away from midnight
		zone, err := time.LoadLocation(name)
		if err != nil {
			t.Fatal(err)
		}
		if hour := opens.In(zone).Hour(); hour >= 1 && hour < 21 {
			s.zone = zone
			break
		}
	}
	s.opens = opens.In(s.zone)
	s.closes = s.opens.Add(2 * time.Hour)
	s.applyHours(t)
}

func (s *dayStory) applyHours(t *testing.T) {
	t.Helper()
	s.apply(t, fmt.Sprintf(`
kind: calendar
meta: {name: doors}
spec:
  timeZone: %s
  openings: [{date: "%s", open: "%s", close: "%s", name: today}]
`, s.zone, s.opens.Format(time.DateOnly), s.opens.Format("15:04"), s.closes.Format("15:04")))
}

// cold tells whether a desktop waits, prepared, without a QEMU of its own.
func cold(d *v1.Desktop) bool {
	return d.GetStatus().GetGeneration() == d.GetIncarnation().GetGeneration() &&
		d.GetStatus().GetState() == v1.DesktopState_DESKTOP_STATE_PREPARED
}

// night: two stand ready, ten are prepared, and only the two have a QEMU.
func (s *dayStory) night(t *testing.T) {
	s.eventually(t, 4*time.Minute, "2 ready, 10 cold", func() (bool, string) {
		found, err := s.tryDesktops("desk")
		if err != nil {
			return false, err.Error()
		}
		ready, prepared := 0, 0
		for _, d := range found {
			if isReady(d) {
				ready++
			}
			if cold(d) {
				prepared++
			}
		}
		return ready == 2 && prepared == seats-2, states(found)
	})
	if n := len(s.qemus(t)); n != 2 {
		t.Errorf("%d QEMUs run at night, want 2", n)
	}
	var pool v1.Pool
	s.get(t, "pool", "desk", &pool)
	if status := pool.GetStatus(); status.GetWanted() != 2 || status.GetCold() != seats-2 || status.GetWantedReason() == "" {
		t.Errorf("the pool says %v", status)
	}
}

// planned: the doors shall open soon. Every cold desktop has its time, and the plan says that it will do.
func (s *dayStory) planned(t *testing.T) {
	s.setHours(t, morning)
	s.eventually(t, 2*time.Minute, "every cold desktop has a time", func() (bool, string) {
		found, err := s.tryDesktops("desk")
		if err != nil {
			return false, err.Error()
		}
		s.starts = map[string]time.Time{}
		for name, d := range found {
			if at := d.GetIncarnation().GetStartAt(); at != nil && cold(d) && at.AsTime().Before(s.opens) {
				s.starts[name] = at.AsTime()
			}
		}
		return len(s.starts) == seats-2, fmt.Sprintf("%d have: %s", len(s.starts), states(found))
	})
	if now := time.Now(); !s.first().After(now) {
		t.Errorf("the first start is at %v, and it is %v", s.first(), now)
	}
	t.Log(s.cli(t, "plan", "desk", "--date", s.opens.Format(time.DateOnly)))
	plan := s.plan(t)
	if len(plan.GetPlan().GetShortfalls()) != 0 || len(plan.GetPlan().GetStarts()) != len(s.starts) {
		t.Errorf("the plan: %v", plan)
	}
}

// first is when the first desktop is to start.
func (s *dayStory) first() time.Time {
	return slices.MinFunc(slices.Collect(maps.Values(s.starts)), time.Time.Compare)
}

func (s *dayStory) plan(t *testing.T) *v1.PlanResponse {
	t.Helper()
	plan := &v1.PlanResponse{}
	out := s.cli(t, "plan", "desk", "--date", s.opens.Format(time.DateOnly), "-o", "json")
	if err := protojson.Unmarshal([]byte(out), plan); err != nil {
		t.Fatalf("read %s: %v", out, err)
	}
	return plan
}

// unattended: the control plane dies before the first start and comes back after the doors are open.
func (s *dayStory) unattended(t *testing.T) {
	first := s.first()
	hold := filepath.Join(s.dir, "control", "hold", "daybreakd")
	if err := os.WriteFile(hold, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	s.kill(t, "control", "daybreakd")
	if !time.Now().Before(first) {
		t.Fatalf("the first start, at %v, came before the control plane was dead: the machine is too slow for this story", first)
	}
	if n := len(s.qemus(t)); n != 2 {
		t.Errorf("%d QEMUs run before the first start, want 2", n)
	}
	s.eventually(t, time.Until(s.opens)+time.Minute, "the doors open", func() (bool, string) {
		return !time.Now().Before(s.opens), "not yet"
	})
	if n := len(s.qemus(t)); n != seats {
		t.Errorf("%d QEMUs run when the doors open, want %d", n, seats)
	}
	if out, err := s.try("get", "pools"); err == nil {
		t.Errorf("the control plane was to be dead until the doors open, and it answers: %s", out)
	}
	if err := os.Remove(hold); err != nil {
		t.Fatal(err)
	}
	s.lab(t, "start", "control", "daybreakd")
	found := s.settled(t, "desk", seats, 2*time.Minute)
	for name, d := range found {
		ready, known := store.Reached(d, v1.DesktopState_DESKTOP_STATE_READY)
		starting, _ := store.Reached(d, v1.DesktopState_DESKTOP_STATE_STARTING)
		if !known {
			t.Errorf("%s does not say when it was ready", name)
		}
		if ready.After(s.opens) {
			t.Errorf("%s was ready at %v, %v too late", name, ready, ready.Sub(s.opens))
		}
		if at, planned := s.starts[name]; planned && starting.Before(at) {
			t.Errorf("%s was started at %v, before its time %v", name, starting, at)
		}
		t.Logf("%s on %s: started %v, ready %v before the doors opened", name, d.GetIncarnation().GetHost(),
			s.opens.Sub(starting).Round(time.Second), s.opens.Sub(ready).Round(time.Second))
	}
}

// compared: the plan has, beside each start, when the desktop was ready.
func (s *dayStory) compared(t *testing.T) {
	s.eventually(t, 2*time.Minute, "the plan knows what became of it", func() (bool, string) {
		known := 0
		plan := s.plan(t)
		for _, start := range plan.GetPlan().GetStarts() {
			if start.GetReady() != nil && !start.GetReady().AsTime().After(s.opens) {
				known++
			}
		}
		return known == len(s.starts) && !plan.GetDryRun(), fmt.Sprintf("%d of %d: %v", known, len(s.starts), plan)
	})
	t.Log(s.cli(t, "plan", "desk", "--date", s.opens.Format(time.DateOnly)))
	if events := s.cli(t, "get", "events"); strings.Contains(events, "WarmUpMissed") {
		t.Errorf("a miss was told:\n%s", events)
	}
}

func user(n int) string { return fmt.Sprintf("user-%d", n) }

// queue: everybody gets a desktop at once; the one who is too many waits and gets the first that comes free, made anew.
func (s *dayStory) queue(t *testing.T) {
	for n := 1; n <= seats; n++ {
		s.cli(t, "claim", "desk", "--user", user(n), "--no-wait")
	}
	if out, err := s.try("claim", "desk", "--user", "late", "--no-wait"); err == nil {
		t.Fatalf("a thirteenth user got a desktop: %s", out)
	}
	type answer struct {
		out string
		err error
	}
	answered := make(chan answer, 1)
	go func() {
		out, err := s.try("claim", "desk", "--user", "late", "-o", "json")
		answered <- answer{out, err}
	}()
	s.eventually(t, time.Minute, "somebody waits", func() (bool, string) {
		var pool v1.Pool
		out, err := s.try("get", "pool", "desk", "-o", "json")
		if err == nil {
			err = protojson.Unmarshal([]byte(out), &pool)
		}
		return err == nil && pool.GetStatus().GetQueued() == 1, fmt.Sprint(out, err)
	})
	before := s.desktops(t, "desk")
	s.cli(t, "release", "desk", "--user", user(1))
	s.eventually(t, 4*time.Minute, "the wait is over", func() (bool, string) {
		select {
		case got := <-answered:
			if got.err != nil {
				t.Fatalf("claim: %v\n%s", got.err, got.out)
			}
			return true, ""
		default:
			found, err := s.tryDesktops("desk")
			return false, fmt.Sprint(states(found), err)
		}
	})
	name, now := s.heldBy(t, "late")
	if !isReady(now) || now.GetIncarnation().GetGeneration() <= before[name].GetIncarnation().GetGeneration() {
		t.Errorf("late got %s in state %s, generation %d after %d", name, now.GetStatus().GetState(), now.GetIncarnation().GetGeneration(),
			before[name].GetIncarnation().GetGeneration())
	}
}

func (s *dayStory) heldBy(t *testing.T, user string) (string, *v1.Desktop) {
	t.Helper()
	for name, d := range s.desktops(t, "desk") {
		if d.GetClaim().GetUser() == user {
			return name, d
		}
	}
	t.Fatalf("%s holds no desktop", user)
	return "", nil
}

// idle: nobody is logged in on one desktop; it is suspended, its QEMU is gone, and the claim wakes it where it was.
func (s *dayStory) idle(t *testing.T) {
	var others []string
	for n := 2; n <= seats; n++ {
		others = append(others, user(n))
	}
	keep, err := json.Marshal(others)
	if err != nil {
		t.Fatal(err)
	}
	name, before := s.heldBy(t, "late")
	host, uuid := before.GetIncarnation().GetHost(), before.GetSpec().GetVmUuid()
	nonce := s.guestRun(t, host, uuid, "cat /run/daybreak/boot-nonce; echo written >/run/only-in-memory")
	qemus := len(s.qemus(t))
	full := uint64(seatMiB * onHost(s.desktops(t, "desk"), host))
	s.promised(t, time.Minute, host, full)
	s.apply(t, dayPool(fmt.Sprintf("  idle: {keepUsers: %s, open: {after: 60s, grace: 5s, action: suspend}}\n", keep)))
	s.eventually(t, 5*time.Minute, name+" is suspended", func() (bool, string) {
		found, err := s.tryDesktops("desk")
		return err == nil && found[name].GetStatus().GetState() == v1.DesktopState_DESKTOP_STATE_SUSPENDED,
			fmt.Sprint(found[name].GetClaim(), found[name].GetStatus(), err)
	})
	if n := len(s.qemus(t)); n != qemus-1 {
		t.Errorf("%d QEMUs run, %d before", n, qemus)
	}
	s.promised(t, 15*time.Second, host, full-seatMiB) // sooner than use that only grows is written
	t.Log(s.cli(t, "explain", name))
	s.cli(t, "claim", "desk", "--user", "late")
	_, now := s.heldBy(t, "late")
	if !isReady(now) || now.GetIncarnation().GetGeneration() != before.GetIncarnation().GetGeneration() {
		t.Errorf("late came back to %v, %v", now.GetIncarnation(), now.GetStatus())
	}
	if again := s.guestRun(t, host, uuid, "cat /run/daybreak/boot-nonce"); again != strings.TrimSpace(nonce) {
		t.Errorf("the guest booted anew: %q, before %q", again, nonce)
	}
	if memory := s.guestRun(t, host, uuid, "cat /run/only-in-memory"); memory != "written" {
		t.Errorf("the guest lost its memory: %q", memory)
	}
}

// closing: what nobody holds cools down but for the spares, and what users hold stays.
func (s *dayStory) closing(t *testing.T) {
	s.apply(t, dayPool(""))
	for n := 5; n <= seats; n++ {
		s.cli(t, "release", "desk", "--user", user(n))
	}
	s.closes = time.Now().In(s.zone).Truncate(time.Minute) // a minute that is past, or begins now
	s.applyHours(t)
	const held, spares = 4, 2 // user-2 to user-4, and late
	s.eventually(t, 4*time.Minute, "only held desktops and spares run", func() (bool, string) {
		found, err := s.tryDesktops("desk")
		if err != nil {
			return false, err.Error()
		}
		claimed, ready, prepared := 0, 0, 0
		for _, d := range found {
			switch {
			case d.GetClaim() != nil && isReady(d):
				claimed++
			case isReady(d):
				ready++
			case cold(d):
				prepared++
			}
		}
		return claimed == held && ready == spares && prepared == seats-held-spares && len(s.qemus(t)) == held+spares, states(found)
	})
	t.Log(s.cli(t, "explain", "desk"))
}
