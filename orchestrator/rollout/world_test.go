package rollout_test

import (
	"fmt"
	"slices"
	"strconv"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"daybreak/orchestrator/calendar"
	"daybreak/orchestrator/rollout"
	"daybreak/orchestrator/store"
	v1 "daybreak/proto/daybreak/v1"
)

const hour = time.Hour

const (
	pending  = v1.DesktopState_DESKTOP_STATE_PENDING
	prepared = v1.DesktopState_DESKTOP_STATE_PREPARED
	starting = v1.DesktopState_DESKTOP_STATE_STARTING
	ready    = v1.DesktopState_DESKTOP_STATE_READY
	deleted  = v1.DesktopState_DESKTOP_STATE_DELETED
	failed   = v1.DesktopState_DESKTOP_STATE_FAILED
	lost     = v1.DesktopState_DESKTOP_STATE_LOST

	wantReady   = v1.DesiredState_DESIRED_STATE_READY
	wantDeleted = v1.DesiredState_DESIRED_STATE_DELETED
)

// health is what becomes of the lives of a version.
type health int

const (
	healthy health = iota
	neverReady
	diesSoon // once ready
)

// world is one pool with all around it: a small model of the pool's loop, which keeps the contract of Pool.release, of hosts
// and of users. The rollout's side is the real Decide.
type world struct {
	now      time.Time
	revision int64
	pool     *v1.Pool
	image    *v1.Image
	rollouts []*v1.Rollout
	desktops []*v1.Desktop
	hosts    []*v1.Host
	events   []*v1.Event // that tell of failures
	notes    []rollout.Note
	window   *calendar.Window
	again    time.Duration
	touched  int  // counts what changed
	real     bool // the pool's loop is the real one
	night    bool // the schedule wants none to run
	made     int  // identities

	health  map[uint32]health
	resumed bool     // somebody asked just now that it goes on
	wrong   []string // broken promises
}

func newWorld(seats int, policy *v1.RolloutPolicy) *world {
	w := &world{
		now: time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC), revision: 10, image: image("debian", 1, v1.VersionState_VERSION_STATE_READY),
		pool: pool("sales", "debian", 0, "lgwan", uint32(seats)), health: map[uint32]health{},
	}
	w.pool.Spec.Rollout = policy
	for i := range 3 {
		w.hosts = append(w.hosts, &v1.Host{
			Meta:   &v1.Meta{Name: fmt.Sprintf("kvm%d", i+1)},
			Status: &v1.HostStatus{Phase: v1.HostPhase_HOST_PHASE_UP, Zones: []string{"lgwan"}, Images: []string{digest("debian-1")}},
		})
	}
	w.settle(5 * time.Minute)
	return w
}

func (w *world) broken(format string, args ...any) {
	w.wrong = append(w.wrong, w.now.Format(time.TimeOnly)+" "+fmt.Sprintf(format, args...))
}

// publish makes a new version current and returns its number.
func (w *world) publish(h health) uint32 {
	number := uint32(len(w.image.GetStatus().GetVersions()) + 1)
	w.image.Status.Versions = append(w.image.Status.Versions, &v1.ImageVersion{
		Number: number, Digest: digest(fmt.Sprintf("debian-%d", number)), State: v1.VersionState_VERSION_STATE_READY,
	})
	w.image.Status.Current = number
	w.health[number] = h
	return number
}

// withdraw bars a version; when it is current, the newest older one that may be run is.
func (w *world) withdraw(number uint32) {
	s := w.image.GetStatus()
	s.Versions[number-1].State = v1.VersionState_VERSION_STATE_WITHDRAWN
	for s.GetCurrent() > 0 && s.GetVersions()[s.GetCurrent()-1].GetState() != v1.VersionState_VERSION_STATE_READY {
		s.Current--
	}
}

// fetch gives every host that is up what it shall hold.
func (w *world) fetch() {
	for _, host := range w.hosts {
		list, _ := rollout.Wanted(host, []*v1.Pool{w.pool}, func(string) *v1.Image { return w.image })
		host.WantedImages = list
		if host.GetStatus().GetPhase() != v1.HostPhase_HOST_PHASE_UP {
			continue
		}
		for _, want := range list {
			if !slices.Contains(host.Status.Images, want.GetDigest()) {
				host.Status.Images = append(host.Status.Images, want.GetDigest())
			}
		}
	}
}

// settle lets time pass: in small steps while anything happens, then to when the loop wants to look again.
func (w *world) settle(length time.Duration) {
	idle := 0
	for end := w.now.Add(length); w.now.Before(end); {
		revision := w.touched
		w.round()
		step := 20 * time.Second
		if idle++; w.touched != revision {
			idle = 0
		}
		if idle > 2 {
			step = 30 * time.Minute
			if w.again > 0 {
				step = min(max(w.again, 20*time.Second), step)
			}
		}
		w.now = w.now.Add(min(step, end.Sub(w.now)))
	}
}

// round lets everybody act once.
func (w *world) round() {
	w.events = w.events[max(0, len(w.events)-300):]
	w.fetch()
	w.decide()
	if w.real {
		w.realRound()
	} else {
		w.poolRound()
	}
	w.hostRound()
}

func (w *world) snapshot() rollout.Snapshot {
	return rollout.Snapshot{
		Revision: w.revision, Pool: w.pool, Image: w.image, Rollouts: w.rollouts, Desktops: w.desktops, Hosts: w.hosts,
		Failed: w.failures(), Window: w.window,
	}
}

// failures are the events that the loop reads.
func (w *world) failures() (list []*v1.Event) {
	for _, e := range w.events {
		if e.GetWarning() && e.GetSubjectKind() == "desktop" {
			list = append(list, e)
		}
	}
	return list
}

// decide lets the rollout loop work until it has nothing more to do now.
func (w *world) decide() {
	for range 20 {
		a := rollout.Decide(w.now, w.snapshot())
		w.again = a.Again
		if !w.apply(a) {
			return
		}
	}
	w.broken("the loop does not come to rest: %v", w.active())
}

// apply does what was decided, and tells whether that was anything.
func (w *world) apply(a rollout.Actions) bool {
	w.revision++
	before := proto.CloneOf(w.pool.GetRelease())
	if a.Release != nil || len(a.Create)+len(a.Update)+len(a.Remove) > 0 {
		w.touched++
	}
	if a.Release != nil {
		w.pool.Release = a.Release
	}
	w.rollouts = append(w.rollouts, a.Create...)
	for _, changed := range a.Update {
		at := slices.IndexFunc(w.rollouts, func(r *v1.Rollout) bool { return r.GetMeta().GetName() == changed.GetMeta().GetName() })
		w.rollouts[at] = changed
	}
	for _, gone := range a.Remove {
		w.rollouts = slices.DeleteFunc(w.rollouts, func(r *v1.Rollout) bool { return r.GetMeta().GetName() == gone.GetMeta().GetName() })
	}
	w.notes = append(w.notes, a.Notes...)
	w.checkRelease(before, a)
	return a.Release != nil || len(a.Create)+len(a.Update)+len(a.Remove) > 0
}

func (w *world) active() *v1.Rollout {
	for _, r := range w.rollouts {
		if r.GetStatus().GetEnded() == nil {
			return r
		}
	}
	return nil
}

func (w *world) newest() *v1.Rollout {
	if len(w.rollouts) == 0 {
		return nil
	}
	return w.rollouts[len(w.rollouts)-1]
}

func state(d *v1.Desktop) v1.DesktopState {
	if s := d.GetStatus(); s.GetGeneration() == d.GetIncarnation().GetGeneration() {
		return s.GetState()
	}
	return pending
}

func (w *world) setState(d *v1.Desktop, s v1.DesktopState, message string) {
	inc := d.GetIncarnation()
	if d.GetStatus().GetGeneration() != inc.GetGeneration() {
		d.Status = &v1.DesktopStatus{Generation: inc.GetGeneration()}
	}
	w.touched++
	d.Status.State, d.Status.Message = s, message
	d.Status.Times = append(d.Status.Times, &v1.StateTime{State: s, At: timestamppb.New(w.now)})
	if s == failed {
		event := store.NewEvent(w.now, d, "DesktopFailed", message, true)
		w.events = append(w.events, event)
	}
}

func (w *world) host(name string) *v1.Host {
	for _, h := range w.hosts {
		if h.GetMeta().GetName() == name {
			return h
		}
	}
	return nil
}

// hostRound lets every life that is on a host that is up go one state on.
func (w *world) hostRound() {
	for i, d := range w.desktops {
		inc := d.GetIncarnation()
		if inc.GetHost() == "" {
			inc.Host = w.place(i)
			if inc.Host == "" {
				continue
			}
		}
		if w.host(inc.GetHost()).GetStatus().GetPhase() != v1.HostPhase_HOST_PHASE_UP {
			if state(d) != lost {
				w.setState(d, lost, "its host is not heard from")
			}
			continue
		}
		bad := w.health[inc.GetVersion()]
		switch s := state(d); {
		case inc.GetDesired() == wantDeleted:
			if s != deleted {
				w.setState(d, deleted, "")
			}
		case inc.GetDesired() == v1.DesiredState_DESIRED_STATE_PREPARED && (s == pending || s == prepared):
			if s == pending {
				w.setState(d, prepared, "")
			}
		case s == pending, s == lost, s == prepared:
			w.setState(d, starting, "")
		case s == starting && bad == neverReady:
			w.setState(d, failed, "the guest did not answer")
		case s == starting:
			w.setState(d, ready, "")
		case s == ready && bad == diesSoon:
			w.setState(d, failed, "the VM died")
		}
	}
}

// place finds a host that is up; empty when none is.
func (w *world) place(seed int) string {
	for i := range w.hosts {
		h := w.hosts[(seed+i)%len(w.hosts)]
		if h.GetStatus().GetPhase() == v1.HostPhase_HOST_PHASE_UP {
			return h.GetMeta().GetName()
		}
	}
	return ""
}

func (w *world) claim(i int) {
	d := w.desktops[i%len(w.desktops)]
	if state(d) == ready && d.GetClaim() == nil && d.GetIncarnation().GetUsedBy() == "" && d.GetIncarnation().GetDesired() == wantReady {
		d.Claim = &v1.DesktopClaim{User: "user" + strconv.Itoa(i)}
		d.Incarnation.UsedBy = d.Claim.User
	}
}

func (w *world) release(i int) {
	w.desktops[i%len(w.desktops)].Claim = nil
}

func (w *world) setHost(i int, phase v1.HostPhase) {
	w.hosts[i%len(w.hosts)].Status.Phase = phase
}
