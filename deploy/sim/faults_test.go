package sim

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	"google.golang.org/protobuf/proto"

	"daybreak/hostagent"
	"daybreak/orchestrator/store"
	v1 "daybreak/proto/daybreak/v1"
)

// fault is one thing that can go wrong, or that people do. It returns what was done, and what makes it good again after
// a while.
type fault struct {
	weight int
	strike func(*sim) (what string, heal func(), after time.Duration)
}

func (s *sim) seconds(from, to int) time.Duration {
	return time.Duration(from+s.rng.IntN(to-from+1)) * time.Second
}

func (s *sim) anyNode() *node { return s.nodes[s.rng.IntN(len(s.nodes))] }

// faults is everything that happens to the system.
func faults() []fault {
	return []fault{
		{10, agentCrash}, {1, journalIsLost}, {2, agentsUpgrade}, {5, planeCrash}, {4, leaderMoves}, {10, linkFails}, {1, manyLinksFail},
		{4, powerFails}, {12, domainsDie}, {5, hypervisorHangs}, {5, hypervisorIsFlaky}, {4, bootsAreBad}, {3, storeOfHostIsFull}, {3, guestsStandStill},
		{5, listsAreEmpty}, {5, storeIsInTrouble}, {4, poolIsResized}, {3, hostIsUnschedulable}, {4, versionIsPublished}, {3, brokenVersionIsPublished},
		{1, versionIsWithdrawn}, {2, rolloutIsPaused}, {1, poolIsTakenBack}, {2, hostIsReplaced},
	}
}

func agentCrash(s *sim) (string, func(), time.Duration) {
	n := s.anyNode()
	n.crash()
	return "agent of " + n.name + " crashes", n.start, s.seconds(0, 90)
}

// journalIsLost makes an agent forget everything, the generations it has seen included.
func journalIsLost(s *sim) (string, func(), time.Duration) {
	n := s.anyNode()
	n.crash()
	n.forgot = true
	if err := os.Remove(n.path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		s.t.Fatal(err)
	}
	return "agent of " + n.name + " crashes and its journal is lost", n.start, s.seconds(0, 30)
}

// agentsUpgrade restarts a tenth of all agents within moments.
func agentsUpgrade(s *sim) (string, func(), time.Duration) {
	first := s.rng.IntN(len(s.nodes))
	for i := range len(s.nodes) / 10 {
		n := s.nodes[(first+i)%len(s.nodes)]
		n.crash()
		n.start()
	}
	return fmt.Sprintf("%d agents restart", len(s.nodes)/10), nil, 0
}

func planeCrash(s *sim) (string, func(), time.Duration) {
	slot := s.rng.IntN(len(s.planes))
	s.planes[slot].crash()
	return fmt.Sprintf("daybreakd %d crashes", slot), func() { s.boot(slot) }, s.seconds(1, 60)
}

// leaderMoves elects another leader while the old one still believes in itself.
func leaderMoves(s *sim) (string, func(), time.Duration) {
	old := s.leader()
	for _, p := range s.planes {
		if p != old && p.up {
			p.resign()
			p.lead(s.elect())
			if old == nil {
				return p.name + " leads", nil, 0
			}
			return old.name + " is deposed and does not know it", old.resign, s.seconds(0, 10)
		}
	}
	return "", nil, 0
}

func linkFails(s *sim) (string, func(), time.Duration) {
	n := s.anyNode()
	mode := []network{networkCut, networkReset, networkStalled}[s.rng.IntN(3)]
	n.link.set(mode)
	return fmt.Sprintf("link of %s fails (%d)", n.name, mode), func() { n.link.set(networkUp) }, s.seconds(2, 180)
}

func manyLinksFail(s *sim) (string, func(), time.Duration) {
	var cut []*node
	for _, n := range s.nodes {
		if s.rng.IntN(10) < 4 {
			n.link.set(networkCut)
			cut = append(cut, n)
		}
	}
	return fmt.Sprintf("%d links are cut", len(cut)), func() {
		for _, n := range cut {
			n.link.set(networkUp)
		}
	}, s.seconds(30, 180)
}

func powerFails(s *sim) (string, func(), time.Duration) {
	n := s.anyNode()
	if !n.on {
		return "", nil, 0
	}
	n.powerLoss()
	return n.name + " loses power", n.powerOn, s.seconds(30, 300)
}

func domainsDie(s *sim) (string, func(), time.Duration) {
	what := "VMs die:"
	for range 1 + s.rng.IntN(4) {
		what += " " + s.anyNode().kill(s.rng.IntN(100))
	}
	return what, nil, 0
}

func hypervisorHangs(s *sim) (string, func(), time.Duration) {
	n := s.anyNode()
	n.setMood(func(m *mood) { m.hung = true })
	return "hypervisor of " + n.name + " hangs", func() { n.setMood(func(m *mood) { m.hung = false }) }, s.seconds(5, 180)
}

func hypervisorIsFlaky(s *sim) (string, func(), time.Duration) {
	n := s.anyNode()
	share := 0.05 + s.rng.Float64()/3
	n.setMood(func(m *mood) { m.flaky = share })
	return "calls fail on " + n.name, func() { n.setMood(func(m *mood) { m.flaky = 0 }) }, s.seconds(30, 300)
}

func bootsAreBad(s *sim) (string, func(), time.Duration) {
	n := s.anyNode()
	slow := s.rng.IntN(2) == 0
	n.setMood(func(m *mood) { m.slow, m.never = slow, 0.3 })
	return "boots are bad on " + n.name, func() { n.setMood(func(m *mood) { m.slow, m.never = false, 0 }) }, s.seconds(60, 600)
}

func storeOfHostIsFull(s *sim) (string, func(), time.Duration) {
	n := s.anyNode()
	n.host.SetFull(true)
	return "store of " + n.name + " is full", func() { n.host.SetFull(false) }, s.seconds(30, 600)
}

// guestsStandStill is what a full store does to VMs that write.
func guestsStandStill(s *sim) (string, func(), time.Duration) {
	n := s.anyNode()
	lives := n.host.Running()
	set := func(state hostagent.DomainState) {
		for _, life := range lives {
			n.host.SetState(life, state)
		}
	}
	set(hostagent.DomainPausedIO)
	return fmt.Sprintf("%d VMs of %s stand still", len(lives), n.name), func() { set(hostagent.DomainRunning) }, s.seconds(20, 300)
}

func listsAreEmpty(s *sim) (string, func(), time.Duration) {
	n := s.anyNode()
	n.host.EmptyLists(1)
	return n.name + " lists no VMs once", nil, 0
}

func storeIsInTrouble(s *sim) (string, func(), time.Duration) {
	bad := []trouble{
		{stale: 0.4}, {unknown: 0.2}, {down: true}, {lag: time.Duration(200+s.rng.IntN(3000)) * time.Millisecond}, {stale: 0.2, unknown: 0.1},
	}[s.rng.IntN(5)]
	s.backend.set(func(t *trouble) { *t = bad })
	return fmt.Sprintf("store: %+v", bad), func() { s.backend.set(func(t *trouble) { *t = trouble{} }) }, s.seconds(5, 45)
}

// asAdmin changes an object as people do, until it is done.
func asAdmin[T store.Object](s *sim, name string, change func(T)) {
	_, err := store.Modify(s.ctx, store.Open(s.backend.Memory, store.WriterAPI), name, func(o T) error {
		change(o)
		return nil
	})
	if err != nil {
		s.t.Fatalf("change %s: %v", name, err)
	}
}

func poolIsResized(s *sim) (string, func(), time.Duration) {
	p := s.pools[s.rng.IntN(len(s.pools))]
	if p.dataGiB > 0 {
		return "", nil, 0
	}
	size := uint32(max(1, p.seats-s.rng.IntN(max(1, p.seats/4))))
	resize := func(to uint32) { asAdmin(s, p.name, func(o *v1.Pool) { o.Spec.Desktops = to }) }
	resize(size)
	return fmt.Sprintf("pool %s gets %d seats", p.name, size), func() { resize(uint32(p.seats)) }, s.seconds(30, 900)
}

func hostIsUnschedulable(s *sim) (string, func(), time.Duration) {
	n := s.anyNode()
	set := func(to bool) {
		if s.history.hostExists(n.name) {
			asAdmin(s, n.name, func(h *v1.Host) { h.Spec = &v1.HostSpec{Unschedulable: to} })
		}
	}
	set(true)
	return n.name + " is unschedulable", func() { set(false) }, s.seconds(60, 900)
}

func versionIsPublished(s *sim) (string, func(), time.Duration) {
	if s.tooSoon() {
		return "", nil, 0
	}
	s.publish(sound)
	return fmt.Sprintf("version %d is published", s.versions), nil, 0
}

// tooSoon: most versions come when the one before had time to get everywhere.
func (s *sim) tooSoon() bool {
	return time.Since(s.publishedAt) < 18*time.Minute && s.rng.IntN(20) > 0
}

// brokenVersionIsPublished brings a version that does not serve; what becomes of it is the product's and the admin's to see.
func brokenVersionIsPublished(s *sim) (string, func(), time.Duration) {
	if s.tooSoon() {
		return "", nil, 0
	}
	f := neverReady + flaw(s.rng.IntN(int(flaws-neverReady)))
	s.publish(f)
	return fmt.Sprintf("version %d is published, which is %v", s.versions, f), nil, 0
}

// versionIsWithdrawn takes the newest version back, whatever it is.
func versionIsWithdrawn(s *sim) (string, func(), time.Duration) {
	newest := s.versions
	if newest < 3 || s.history.state(newest) != v1.VersionState_VERSION_STATE_READY || s.history.soundVersions(s.flawOf) < 2 {
		return "", nil, 0
	}
	s.withdraw(newest)
	return fmt.Sprintf("version %d is withdrawn", newest), nil, 0
}

func rolloutIsPaused(s *sim) (string, func(), time.Duration) {
	pool := s.pools[s.rng.IntN(len(s.pools))].name
	if _, err := s.steward().Pause(s.ctx, time.Now(), pool, "admin"); err != nil {
		return "", nil, 0 // nothing goes on there
	}
	return "rollout of pool " + pool + " is paused", func() {
		// A halted one is for attend to look at.
		r := s.history.activeRollout(pool)
		if r.GetSpec().GetPaused() && r.GetStatus().GetPhase() != v1.RolloutPhase_ROLLOUT_PHASE_HALTED {
			_, _ = s.steward().Resume(s.ctx, time.Now(), pool, "admin") // refused when another came between
		}
	}, s.seconds(30, 600)
}

// poolIsTakenBack: somebody does not like what a pool got, or gets.
func poolIsTakenBack(s *sim) (string, func(), time.Duration) {
	pool := s.pools[s.rng.IntN(len(s.pools))].name
	if _, err := s.steward().RollBack(s.ctx, time.Now(), pool, "admin", "users ask for it"); err != nil {
		return "", nil, 0
	}
	return "pool " + pool + " is taken back", nil, 0
}

// hostIsReplaced takes a host's power, lets an admin attest that it is off and delete it, and brings it back much later
// with all that was on its disk.
func hostIsReplaced(s *sim) (string, func(), time.Duration) {
	n := s.anyNode()
	if !n.on || s.history.holdsData(n.name) {
		return "", nil, 0
	}
	n.powerLoss()
	h, err := store.Get[*v1.Host](s.ctx, store.Open(s.backend.Memory, store.WriterAPI), n.name)
	if err != nil {
		s.t.Fatal(err)
	}
	for deleted := false; !deleted; {
		_, err := s.backend.Memory.Commit(s.ctx, store.Guard{}, []store.Op{store.Delete(h)})
		if deleted = err == nil; !deleted {
			if h, err = store.Get[*v1.Host](s.ctx, store.Open(s.backend.Memory, store.WriterAPI), n.name); err != nil {
				s.t.Fatal(err)
			}
		}
	}
	return n.name + " is off for good and deleted", func() {
		s.enrol(n)
		n.powerOn()
	}, s.seconds(300, 900)
}

func (h *history) hostExists(name string) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.hosts[name] != nil
}

// holdsData says whether a desktop's data lies on a host, or may.
func (h *history) holdsData(host string) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, d := range h.desktops {
		if d.GetSpec().GetDataHost() == host || d.GetIncarnation().GetHost() == host && d.GetIncarnation().GetShape().GetDataDiskGib() > 0 {
			return true
		}
	}
	return false
}

// enrol makes a host known.
func (s *sim) enrol(n *node) {
	s.create(&v1.Host{Meta: &v1.Meta{Name: n.name}, Spec: &v1.HostSpec{}})
}

// create writes an object as its owner would.
func (s *sim) create(o store.Object) {
	if _, err := s.backend.Memory.Commit(s.ctx, store.Guard{}, []store.Op{store.Create(proto.CloneOf(o))}); err != nil {
		s.t.Fatal(err)
	}
}
