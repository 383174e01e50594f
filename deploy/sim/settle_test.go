package sim

import (
	"fmt"
	"testing"
	"time"

	v1 "daybreak/proto/daybreak/v1"
)

// settle makes everything good, sends the users home, and waits until all pools are whole: invariant 10.
func (s *sim) settle() bool {
	began := time.Now()
	s.mend(began.Add(24 * time.Hour))
	for time.Since(began) < settleLimit {
		for range 5 {
			time.Sleep(time.Second)
			s.tick(time.Now())
		}
		s.attend()
		if s.leader() == nil {
			s.takeOver()
		}
		for _, u := range s.users {
			u.step(true)
		}
		if time.Since(began)%time.Minute < 5*time.Second && !s.check() {
			return false
		}
		if s.missing() == "" {
			s.did(fmt.Sprintf("whole again after %v", time.Since(began)))
			s.checkExposure()
			return s.check()
		}
	}
	s.problem("10", "not whole %v after the last fault: %s", settleLimit, s.missing())
	return false
}

// missing says what is not as it should be when all is well.
func (s *sim) missing() string {
	h := s.history
	h.mu.Lock()
	defer h.mu.Unlock()
	count := map[string]int{}
	for name, d := range h.desktops {
		count[d.GetSpec().GetPool()]++
		status, in := d.GetStatus(), d.GetIncarnation()
		if d.GetClaim() != nil {
			return fmt.Sprintf("%s is claimed by %s", name, d.GetClaim().GetUser())
		}
		if status.GetGeneration() != in.GetGeneration() || status.GetState() != v1.DesktopState_DESKTOP_STATE_READY {
			return fmt.Sprintf("%s (generation %d, wanted %v on %q) is %v of %d: %s %s", name, in.GetGeneration(), in.GetDesired(), in.GetHost(),
				status.GetState(), status.GetGeneration(), status.GetMessage(), in.GetUnplacedReason())
		}
	}
	for _, p := range s.pools {
		if count[p.name] != p.seats {
			return fmt.Sprintf("pool %s has %d desktops of %d: %s", p.name, count[p.name], p.seats, h.pools[p.name].GetStatus().GetMessage())
		}
	}
	for _, p := range s.pools {
		if off := h.offRelease(p.name); off != "" {
			return off
		}
	}
	for _, n := range s.nodes {
		host := h.hosts[n.name].GetStatus()
		if host.GetPhase() != v1.HostPhase_HOST_PHASE_UP {
			return fmt.Sprintf("%s is %v: %s", n.name, host.GetPhase(), host.GetMessage())
		}
		for _, o := range host.GetOrphans() {
			// What a host still has of a desktop that was removed while the host was deleted is for people to decide.
			if d := h.desktops[o.GetDesktop()]; o.GetRunning() || d.GetMeta().GetUid() == o.GetUid() {
				return fmt.Sprintf("%s has an orphan of %s, generation %d", n.name, o.GetDesktop(), o.GetGeneration())
			}
		}
		for _, life := range n.host.Running() {
			d := h.desktops[life.Desktop]
			if d == nil || lifeOf(d) != keyOf(life) || d.GetIncarnation().GetHost() != n.name {
				return fmt.Sprintf("%s generation %d runs on %s and should not", life.Desktop, life.Generation, n.name)
			}
			count[d.GetSpec().GetPool()]--
		}
	}
	for _, p := range s.pools {
		if count[p.name] != 0 {
			return fmt.Sprintf("pool %s: %d desktops are READY by the store, and have no VM", p.name, count[p.name])
		}
	}
	return ""
}

// TestSimulation runs one seed, without flags in less than a minute.
func TestSimulation(t *testing.T) {
	seed, hours := *seedFlag, *hoursFlag
	if seed == 0 {
		seed = uint64(time.Now().UnixNano() % 1e9)
	}
	if hours == 0 {
		hours = 0.5
	}
	if testing.Short() {
		hours = 0.1
	}
	t.Logf("seed %d: again with go test ./deploy/sim -run TestSimulation -seed %d -hours %v -hosts %d", seed, seed, hours, *hostsFlag)
	inSim(t, seed, *hostsFlag, func(s *sim) { s.story(time.Duration(hours * float64(time.Hour))) })
}

// TestKnownSeeds runs those that once found something, on fewer hosts, so that faults meet more often.
func TestKnownSeeds(t *testing.T) {
	if testing.Short() {
		t.Skip("takes half a minute")
	}
	for _, seed := range []uint64{
		202, // a host that was off and deleted came back and started from memory what ran elsewhere
		306, // a restarted agent gave out boot slots that boots under way had
	} {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			inSim(t, seed, 20, func(s *sim) { s.story(40 * time.Minute) })
		})
	}
}

// story comes up, goes through faults, and is whole again.
func (s *sim) story(d time.Duration) {
	if !s.settle() || !s.run(d) || !s.settle() {
		s.report()
		return
	}
	s.t.Logf("seed %d: %d faults, %d claims, revision %d, %s; %s", s.seed, s.struck, s.claimed.Load(), s.history.revision,
		s.trace[len(s.trace)-1], s.history.told())
}
