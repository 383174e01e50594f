package sim

import (
	"fmt"
	"sync"
	"time"

	"daybreak/orchestrator/store"
	v1 "daybreak/proto/daybreak/v1"
)

// lifeKey names one life of a desktop.
type lifeKey struct {
	uid        string
	generation int64
}

func lifeOf(d *v1.Desktop) lifeKey {
	return lifeKey{d.GetMeta().GetUid(), d.GetIncarnation().GetGeneration()}
}

// history reads everything that was ever stored, revision by revision, and holds it against the invariants that the
// store alone can show. It decides nothing from what the product computes of it: states and claims are compared as they
// were written.
type history struct {
	problem func(invariant, format string, args ...any)

	mu       sync.Mutex
	revision int64
	desktops map[string]*v1.Desktop
	claims   map[string]*v1.Claim
	hosts    map[string]*v1.Host
	pools    map[string]*v1.Pool
	plans    map[string]*v1.Plan
	// published holds the digests of all versions that were ever ready.
	published map[string]bool
	// users of each life, and of each desktop that has a data disk.
	users     map[lifeKey]string
	dataUsers map[string]string
	highest   map[string]int64 // by uid
	ready     map[lifeKey]bool // lives that ever were READY

	rollouts        map[string]*v1.Rollout
	turnovers       map[string]*turnover
	states          map[uint32]v1.VersionState // of versions
	withdrawn       map[uint32]time.Time
	announced       map[lifeKey]time.Time     // since when a life's user has known of its restart
	excused         map[lifeKey]bool          // lives that were taken from under their users as the policy says
	dead            map[lifeKey]bool          // lives that failed
	failures        map[string]map[uint32]int // how many, by pool and version
	takenBack       map[string]string         // whom a desktop was taken back from for want of use, by uid
	moves, restarts int
	reclaims        int
	phases          map[v1.RolloutPhase]int // how often rollouts came to them
	slow            func() bool             // the control plane hears late of what is stored
	moment          time.Time               // of the last transaction
	within          int                     // how many there were in that moment
}

// mostAtOnce is how many transactions one moment may see: all desktops of the largest simulation change several times when
// many hosts come back.
const mostAtOnce = 20_000

func newHistory(problem func(invariant, format string, args ...any), slow func() bool) *history {
	return &history{
		problem: problem, desktops: map[string]*v1.Desktop{}, claims: map[string]*v1.Claim{}, hosts: map[string]*v1.Host{},
		pools: map[string]*v1.Pool{}, plans: map[string]*v1.Plan{}, published: map[string]bool{}, users: map[lifeKey]string{}, dataUsers: map[string]string{},
		highest: map[string]int64{}, ready: map[lifeKey]bool{},
		rollouts: map[string]*v1.Rollout{}, turnovers: map[string]*turnover{}, states: map[uint32]v1.VersionState{},
		takenBack: map[string]string{}, withdrawn: map[uint32]time.Time{}, announced: map[lifeKey]time.Time{}, excused: map[lifeKey]bool{},
		failures: map[string]map[uint32]int{}, dead: map[lifeKey]bool{}, phases: map[v1.RolloutPhase]int{}, slow: slow,
	}
}

// read takes in one transaction.
func (h *history) read(batch store.Batch) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if batch.Reset && h.revision > 0 {
		return fmt.Errorf("history has a hole after revision %d", h.revision)
	}
	h.revision = batch.Revision
	h.checkPace(batch)
	touched := map[string]bool{}
	for _, ref := range batch.Deleted {
		switch ref.Kind {
		case v1.Kind_KIND_DESKTOP:
			h.checkRemoval(h.desktops[ref.Name])
			delete(h.desktops, ref.Name)
			touched[ref.Name] = true
		case v1.Kind_KIND_CLAIM:
			touched[h.claims[ref.Name].GetDesktop()] = true
			delete(h.claims, ref.Name)
		case v1.Kind_KIND_HOST:
			h.removeHost(ref.Name)
		case v1.Kind_KIND_POOL:
			delete(h.pools, ref.Name)
		case v1.Kind_KIND_ROLLOUT:
			delete(h.rollouts, ref.Name)
		case v1.Kind_KIND_PLAN:
			delete(h.plans, ref.Name)
		}
	}
	for _, o := range batch.Changed {
		switch o := o.(type) {
		case *v1.Desktop:
			was := h.desktops[o.GetMeta().GetName()]
			h.checkDesktop(was, o)
			before := h.standing(was)
			h.desktops[o.GetMeta().GetName()] = o
			h.checkTurnover(was, before, o)
			h.noteAnnouncement(o)
			h.noteFailure(o)
			if was.GetIncarnation().GetGeneration() != o.GetIncarnation().GetGeneration() {
				h.checkAdmission(o)
			}
			if was.GetClaim().GetUser() != o.GetClaim().GetUser() {
				touched[o.GetMeta().GetName()] = true
			}
		case *v1.Claim:
			h.claims[o.GetMeta().GetName()] = o
			touched[o.GetDesktop()] = true
		case *v1.Host:
			h.hosts[o.GetMeta().GetName()] = o
		case *v1.Pool:
			h.pools[o.GetMeta().GetName()] = o
			t := h.turnover(o.GetMeta().GetName())
			t.pools = append(t.pools, past{time.Now(), o})
		case *v1.Plan:
			h.plans[o.GetMeta().GetName()] = o
		case *v1.Rollout:
			h.noteRollout(o)
		case *v1.Image:
			h.noteImage(o)
		}
	}
	for name := range touched {
		h.checkClaim(name)
	}
	return nil
}

// checkPace: nobody goes round in circles. Time stands still in a bubble while anybody works, so that loops which undo each
// other's decisions would write for ever, and no other check would come to its turn.
func (h *history) checkPace(batch store.Batch) {
	if now := time.Now(); !now.Equal(h.moment) {
		h.moment, h.within = now, 0
	}
	h.within++
	if h.within > mostAtOnce {
		panic(fmt.Sprintf("%s: %d transactions within one moment; the last one wrote %v", clock(), h.within, batch.Changed))
	}
}

// removeHost forgets a host; what ran there is out of service.
func (h *history) removeHost(name string) {
	for _, d := range h.desktops {
		if d.GetIncarnation().GetHost() != name {
			continue
		}
		t := h.turnover(d.GetSpec().GetPool())
		switch h.standing(d) {
		case free:
			t.left, t.fell = append(t.left, time.Now()), append(t.fell, time.Now())
		case elsewhere:
			t.fell = append(t.fell, time.Now())
		}
	}
	delete(h.hosts, name)
}

// over says whether a life is proven to have ended, by what is stored.
func (h *history) over(d *v1.Desktop) bool {
	in := d.GetIncarnation()
	if in.GetHost() == "" || h.hosts[in.GetHost()] == nil {
		return true
	}
	s := d.GetStatus()
	return s.GetGeneration() == in.GetGeneration() && s.GetState() == v1.DesktopState_DESKTOP_STATE_DELETED
}

func (h *history) checkRemoval(d *v1.Desktop) {
	if d.GetClaim() != nil {
		h.problem("2", "desktop %s was removed while %s holds it", d.GetMeta().GetName(), d.GetClaim().GetUser())
	}
	if d != nil && !h.over(d) {
		h.problem("1", "desktop %s was removed while generation %d may run", d.GetMeta().GetName(), d.GetIncarnation().GetGeneration())
	}
}

// checkDesktop holds a desktop against what it was before.
func (h *history) checkDesktop(was, is *v1.Desktop) {
	name, in := is.GetMeta().GetName(), is.GetIncarnation()
	if was != nil && was.GetMeta().GetUid() == is.GetMeta().GetUid() {
		h.checkSuccession(was, is)
	}
	if in.GetGeneration() < h.highest[is.GetMeta().GetUid()] {
		h.problem("1", "desktop %s: generation went from %d to %d", name, h.highest[is.GetMeta().GetUid()], in.GetGeneration())
	}
	h.highest[is.GetMeta().GetUid()] = in.GetGeneration()
	if !h.published[in.GetDigest()] {
		h.problem("5", "desktop %s: generation %d is of a version that was never published", name, in.GetGeneration())
	}
	if pool := h.pools[is.GetSpec().GetPool()]; pool != nil && pool.GetSpec().GetZone() != is.GetSpec().GetZone() {
		h.problem("8", "desktop %s is in zone %s, its pool in %s", name, is.GetSpec().GetZone(), pool.GetSpec().GetZone())
	}
	if s := is.GetStatus(); s.GetGeneration() == in.GetGeneration() && s.GetState() == v1.DesktopState_DESKTOP_STATE_READY {
		h.ready[lifeOf(is)] = true
	}
	h.checkUser(is)
}

// checkUser: nobody gets what another used.
func (h *history) checkUser(is *v1.Desktop) {
	name, in := is.GetMeta().GetName(), is.GetIncarnation()
	user := is.GetClaim().GetUser()
	if user == "" {
		return
	}
	if before, ok := h.users[lifeOf(is)]; ok && before != user {
		h.problem("3", "desktop %s: generation %d was used by %s and then given to %s", name, in.GetGeneration(), before, user)
	}
	h.users[lifeOf(is)] = user
	if in.GetShape().GetDataDiskGib() == 0 {
		return
	}
	if before, ok := h.dataUsers[is.GetMeta().GetUid()]; ok && before != user {
		h.problem("3", "desktop %s with the data of %s was given to %s", name, before, user)
	}
	h.dataUsers[is.GetMeta().GetUid()] = user
}

// checkSuccession: one life follows another only when that is over, within a life states only move forward, and what
// identifies a desktop stays.
func (h *history) checkSuccession(was, is *v1.Desktop) {
	name := is.GetMeta().GetName()
	if was.GetSpec().GetVmUuid() != is.GetSpec().GetVmUuid() || was.GetSpec().GetMac() != is.GetSpec().GetMac() {
		h.problem("1", "desktop %s changed its identity", name)
	}
	old, new := was.GetIncarnation(), is.GetIncarnation()
	if old.GetGeneration() != new.GetGeneration() {
		if !h.over(was) {
			h.problem("1", "desktop %s: generation %d began while %d may run on %s", name, new.GetGeneration(), old.GetGeneration(), old.GetHost())
		}
		if was.GetClaim() != nil && h.hosts[old.GetHost()] != nil && !h.excused[lifeOf(was)] {
			h.problem("4", "desktop %s: generation %d of %s ended while claimed", name, old.GetGeneration(), was.GetClaim().GetUser())
		}
		return
	}
	if old.GetHost() != "" && old.GetHost() != new.GetHost() {
		h.problem("1", "desktop %s: generation %d moved from %s to %q", name, new.GetGeneration(), old.GetHost(), new.GetHost())
	}
	a, b := was.GetStatus(), is.GetStatus()
	woke := a.GetState() == v1.DesktopState_DESKTOP_STATE_SUSPENDED && b.GetState() == v1.DesktopState_DESKTOP_STATE_READY
	if a.GetGeneration() == b.GetGeneration() && !woke && age(b.GetState()) < age(a.GetState()) && a.GetState() != v1.DesktopState_DESKTOP_STATE_LOST {
		h.problem("state", "desktop %s: generation %d went from %v to %v", name, b.GetGeneration(), a.GetState(), b.GetState())
	}
}

// age says how late in a life a state comes; LOST may come at any time.
func age(s v1.DesktopState) int {
	switch s {
	case v1.DesktopState_DESKTOP_STATE_LOST:
		return 100
	case v1.DesktopState_DESKTOP_STATE_DELETED:
		return 50
	case v1.DesktopState_DESKTOP_STATE_FAILED:
		return 40
	}
	return int(s)
}

// checkClaim: both sides of a claim say the same, and a user holds one desktop of a pool.
func (h *history) checkClaim(name string) {
	d := h.desktops[name]
	user, pool := d.GetClaim().GetUser(), d.GetSpec().GetPool()
	sides := 0
	for _, c := range h.claims {
		if c.GetDesktop() == name {
			sides++
			if c.GetUser() != user || c.GetPool() != pool {
				h.problem("2", "claim %s says that %s holds %s, the desktop says %q", c.GetMeta().GetName(), c.GetUser(), name, user)
			}
		} else if user != "" && c.GetUser() == user && c.GetPool() == pool {
			h.problem("2", "%s holds %s and %s", user, name, c.GetDesktop())
		}
	}
	if user != "" && sides != 1 {
		h.problem("2", "desktop %s is held by %s, and %d claims say so", name, user, sides)
	}
}

// claimed says who works on the life now; "" when nobody does, or when it is restarted as its user was told.
func (h *history) claimed(key lifeKey, desktop string) string {
	h.mu.Lock()
	defer h.mu.Unlock()
	if d := h.desktops[desktop]; d != nil && lifeOf(d) == key && !h.excused[key] {
		return d.GetClaim().GetUser()
	}
	return ""
}

func (h *history) wasReady(key lifeKey) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.ready[key]
}

// desktop returns the newest of a desktop.
func (h *history) desktop(name string) *v1.Desktop {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.desktops[name]
}
