package pool

import (
	"context"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"
	"golang.org/x/sync/errgroup"

	"daybreak/orchestrator/calendar"
	"daybreak/orchestrator/reconcile"
	"daybreak/orchestrator/store"
	v1 "daybreak/proto/daybreak/v1"
)

// conflictPause is how long a pool waits before it is looked at again when somebody else was quicker with one of its
// desktops. The change that won comes by the mirror and usually wakes the pool before.
const conflictPause = 100 * time.Millisecond

// Controller runs Decide for every pool that changed, and sweeps old events. One runs in the whole cluster.
type Controller struct {
	mirror  *store.Mirror
	entropy io.Reader
	log     zerolog.Logger
	metrics *metrics
	curves  curves
}

// New makes a controller. mirror has all kinds and runs beside it; entropy gives identities to new desktops
// (crypto/rand.Reader).
func New(mirror *store.Mirror, entropy io.Reader, log zerolog.Logger, reg prometheus.Registerer) *Controller {
	return &Controller{mirror: mirror, entropy: entropy, log: log, metrics: newMetrics(reg)}
}

// term is one time of leading.
type term struct {
	*Controller
	store *store.Store
	loop  *reconcile.Loop
	empty map[string]map[string]emptiness // by pool and desktop; of the loop's goroutine alone
	plans *reconcile.Loop
	plan  *planner
}

// Run works until ctx ends and returns nil then. st is opened for WriterPool and guarded by leadership.
func (c *Controller) Run(ctx context.Context, st *store.Store) error {
	t := &term{Controller: c, store: st, empty: map[string]map[string]emptiness{}}
	t.loop = reconcile.New("pool", c.log, t.reconcile)
	t.plan = &planner{term: t}
	t.plans = reconcile.New("plan", c.log, t.plan.reconcile)
	cancel := c.mirror.Subscribe(t.changed)
	defer cancel()
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return t.loop.Run(ctx) })
	group.Go(func() error { return t.plans.Run(ctx) })
	group.Go(func() error { return t.sweep(ctx) })
	return group.Wait()
}

// changed queues the pools that a change may concern.
func (t *term) changed(before, after *store.View, refs []store.Ref) {
	t.plan.changed(before, after, refs)
	existence := false         // of something that pools look at by its being there
	hosts := map[string]bool{} // on which desktops changed
	for _, ref := range refs {
		switch ref.Kind {
		case v1.Kind_KIND_POOL:
			t.loop.Add(ref.Name)
		case v1.Kind_KIND_DESKTOP:
			if pool := poolOf(before, after, ref.Name); pool != "" {
				t.loop.Add(pool)
			}
			if desktop, ok := store.Lookup[*v1.Desktop](after, ref.Name); ok {
				hosts[desktop.GetIncarnation().GetHost()] = true
			}
		case v1.Kind_KIND_CLAIM:
			if pool := queueChanged(before, after, ref.Name); pool != "" {
				t.loop.Add(pool)
			}
		case v1.Kind_KIND_PLAN:
			if plan, ok := store.Lookup[*v1.Plan](after, ref.Name); ok {
				t.loop.Add(plan.GetPool())
			}
		case v1.Kind_KIND_IMAGE, v1.Kind_KIND_ZONE, v1.Kind_KIND_CALENDAR:
			existence = true
		case v1.Kind_KIND_HOST:
			existence = existence || hostExists(before, ref.Name) != hostExists(after, ref.Name) ||
				takesDesktops(before, ref.Name) != takesDesktops(after, ref.Name)
		}
	}
	for host := range hosts {
		for _, pool := range sparesBeside(time.Now(), after, host) {
			t.loop.Add(pool)
		}
	}
	if existence {
		for _, pool := range store.All[*v1.Pool](after) {
			t.loop.Add(pool.GetMeta().GetName())
		}
	}
}

func poolOf(before, after *store.View, desktop string) string {
	if d, ok := store.Lookup[*v1.Desktop](after, desktop); ok {
		return d.GetSpec().GetPool()
	}
	if before == nil {
		return ""
	}
	d, _ := store.Lookup[*v1.Desktop](before, desktop)
	return d.GetSpec().GetPool()
}

// queueChanged names the pool whose queue a claim is or was in; "" when it never waited, which its desktop tells of.
func queueChanged(before, after *store.View, name string) string {
	for _, view := range []*store.View{before, after} {
		if view == nil {
			continue
		}
		if claim, ok := store.Lookup[*v1.Claim](view, name); ok && claim.GetDesktop() == "" {
			return claim.GetPool()
		}
	}
	return ""
}

func hostExists(view *store.View, name string) bool {
	if view == nil {
		return false
	}
	_, ok := store.Lookup[*v1.Host](view, name)
	return ok
}

// takesDesktops tells whether new desktops may come to a host.
func takesDesktops(view *store.View, name string) bool {
	if view == nil {
		return false
	}
	host, ok := store.Lookup[*v1.Host](view, name)
	return ok && !host.GetSpec().GetUnschedulable()
}

// reconcile brings one pool one round nearer to what is wanted. Its own changes queue it again.
func (t *term) reconcile(ctx context.Context, name string) (time.Duration, error) {
	served, err := t.serve(ctx, name)
	if err != nil {
		return 0, err
	}
	idle, err := t.idle(ctx, name)
	if err != nil {
		return 0, err
	}
	served = sooner(served, idle)
	view := t.mirror.View()
	pool, ok := store.Lookup[*v1.Pool](view, name)
	if !ok {
		t.metrics.forget(name)
		t.curves.forget(name)
		return served, nil
	}
	now := time.Now()
	snapshot, err := t.snapshot(view, pool, now)
	if err != nil {
		return 0, err
	}
	actions := Decide(now, snapshot)
	t.metrics.count(name, actions.Status)
	revision, quicker, err := t.commit(ctx, now, pool, actions)
	if err != nil {
		return 0, fmt.Errorf("commit changes of pool %s: %w", name, err)
	}
	if _, err := t.mirror.Wait(ctx, revision); err != nil {
		return 0, err
	}
	if quicker {
		return conflictPause, nil
	}
	return sooner(served, actions.Again), nil
}

// sooner returns the shorter of two waits, of which 0 means for ever.
func sooner(a, b time.Duration) time.Duration {
	if a == 0 || b > 0 && b < a {
		return b
	}
	return a
}

// snapshot collects what Decide looks at.
func (c *Controller) snapshot(view *store.View, pool *v1.Pool, now time.Time) (Snapshot, error) {
	s := snapshotOf(view, pool, now, &c.curves)
	missing := min(int(pool.GetSpec().GetDesktops())-len(s.Desktops), maxChanges)
	if missing <= 0 {
		return s, nil
	}
	macs := map[string]bool{}
	for _, desktop := range store.All[*v1.Desktop](view) {
		macs[desktop.GetSpec().GetMac()] = true
	}
	var err error
	s.Identities, err = identities(c.entropy, missing, macs)
	return s, err
}

// snapshotOf is snapshot without identities: enough to explain, not to create.
func snapshotOf(view *store.View, pool *v1.Pool, now time.Time, known *curves) Snapshot {
	s := Snapshot{Revision: view.Revision, Pool: pool, Desktops: view.DesktopsOfPool(pool.GetMeta().GetName()), Hosts: map[string]bool{}, Down: map[string]bool{}}
	s.Image, _ = store.Lookup[*v1.Image](view, pool.GetSpec().GetImage())
	_, s.ZoneExists = store.Lookup[*v1.Zone](view, pool.GetSpec().GetZone())
	s.Queue = queueOf(view, pool.GetMeta().GetName())
	s.Clock = clockOf(view, pool)
	s.IdleRule, _ = ruleNow(now, view, pool)
	for _, host := range store.All[*v1.Host](view) {
		s.Hosts[host.GetMeta().GetName()] = true
		if host.GetStatus().GetPhase() == v1.HostPhase_HOST_PHASE_DOWN {
			s.Down[host.GetMeta().GetName()] = true
		}
	}
	s.Events = attemptsAbout(view, nil, store.RefOf(pool))
	for _, desktop := range s.Desktops {
		s.Events = attemptsAbout(view, s.Events, store.RefOf(desktop))
	}
	slices.SortFunc(s.Events, store.ByName)
	s.addDay(view, now, known)
	return s
}

// attemptsAbout appends the events about an object that tell what came of an attempt (see attemptLabel).
func attemptsAbout(view *store.View, events []*v1.Event, subject store.Ref) []*v1.Event {
	before := len(events)
	for _, event := range view.EventsAbout(subject) {
		if recorded(event, len(events) > before) {
			events = append(events, event)
		}
	}
	return events
}

// clockOf returns the time zone of the people who use a pool.
func clockOf(view *store.View, pool *v1.Pool) *time.Location {
	followed, _ := store.Lookup[*v1.Calendar](view, pool.GetSpec().GetCalendar())
	return calendar.ClockOf(pool, followed)
}
