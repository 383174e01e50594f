package rollout

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/rs/zerolog"
	"google.golang.org/protobuf/proto"

	"daybreak/orchestrator/calendar"
	"daybreak/orchestrator/reconcile"
	"daybreak/orchestrator/store"
	v1 "daybreak/proto/daybreak/v1"
)

// conflictPause is how long a pool waits before it is looked at again when somebody else was quicker. The change that won
// comes by the mirror and usually wakes the pool before.
const conflictPause = 100 * time.Millisecond

// Controller runs Decide for every pool that changed. One runs in the whole cluster.
type Controller struct {
	mirror *store.Mirror
	log    zerolog.Logger
}

// NewController makes a controller. mirror has all kinds and runs beside it.
func NewController(mirror *store.Mirror, log zerolog.Logger) *Controller {
	return &Controller{mirror: mirror, log: log}
}

// Run works until ctx ends and returns nil then. st is opened for WriterRollout and guarded by leadership.
func (c *Controller) Run(ctx context.Context, st *store.Store) error {
	loop := reconcile.New("rollout", c.log, func(ctx context.Context, pool string) (time.Duration, error) {
		return c.reconcile(ctx, st, pool)
	})
	cancel := c.mirror.Subscribe(func(before, after *store.View, changed []store.Ref) {
		loop.Add(poolsOf(before, after, changed)...)
	})
	defer cancel()
	return loop.Run(ctx)
}

// poolsOf names the pools that a change may concern.
func poolsOf(before, after *store.View, changed []store.Ref) []string {
	var pools []string
	all := false
	for _, ref := range changed {
		switch ref.Kind {
		case v1.Kind_KIND_POOL:
			pools = append(pools, ref.Name)
		case v1.Kind_KIND_DESKTOP:
			d := either[*v1.Desktop](before, after, ref.Name)
			pools = append(pools, d.GetSpec().GetPool())
		case v1.Kind_KIND_ROLLOUT:
			r := either[*v1.Rollout](before, after, ref.Name)
			pools = append(pools, r.GetSpec().GetPool())
		case v1.Kind_KIND_EVENT:
			if event, ok := store.Lookup[*v1.Event](after, ref.Name); ok && tellsFailure(event) {
				d, _ := store.Lookup[*v1.Desktop](after, event.GetSubject())
				pools = append(pools, d.GetSpec().GetPool())
			}
		case v1.Kind_KIND_IMAGE, v1.Kind_KIND_CALENDAR:
			all = true
		case v1.Kind_KIND_HOST:
			all = all || hostDiffers(before, after, ref.Name)
		}
	}
	if all {
		for _, pool := range store.All[*v1.Pool](after) {
			pools = append(pools, pool.GetMeta().GetName())
		}
	}
	return slices.DeleteFunc(pools, func(name string) bool { return name == "" })
}

// either finds an object as it is, or as it was before it went.
func either[T store.Object](before, after *store.View, name string) T {
	found, ok := store.Lookup[T](after, name)
	if !ok && before != nil {
		found, _ = store.Lookup[T](before, name)
	}
	return found
}

// hostDiffers: something of a host that rollouts look at is another. Its usage changes all the time.
func hostDiffers(before, after *store.View, name string) bool {
	if before == nil {
		return true
	}
	was, old := store.Lookup[*v1.Host](before, name)
	is, now := store.Lookup[*v1.Host](after, name)
	a, b := was.GetStatus(), is.GetStatus()
	return old != now || was.GetSpec().GetUnschedulable() != is.GetSpec().GetUnschedulable() ||
		a.GetPhase() != b.GetPhase() || !slices.Equal(a.GetZones(), b.GetZones()) || !slices.Equal(a.GetImages(), b.GetImages())
}

// tellsFailure: the event tells that a life of a desktop failed.
func tellsFailure(event *v1.Event) bool {
	if event.GetSubjectKind() != store.KindName(v1.Kind_KIND_DESKTOP) || !event.GetWarning() {
		return false
	}
	return event.GetReason() == "DesktopFailed" || event.GetReason() == "DesktopReplaced"
}

// reconcile takes one pool one step further. Its own changes queue it again.
func (c *Controller) reconcile(ctx context.Context, st *store.Store, name string) (time.Duration, error) {
	view := c.mirror.View()
	pool, ok := store.Lookup[*v1.Pool](view, name)
	if !ok {
		return 0, c.forget(ctx, st, view, name)
	}
	now := time.Now()
	snapshot := snapshotOf(view, pool)
	actions := Decide(now, snapshot)
	revision, err := commit(ctx, st, now, pool, snapshot.Image, actions)
	if errors.Is(err, store.ErrConflict) || errors.Is(err, store.ErrExists) {
		return conflictPause, nil
	}
	if err != nil {
		return 0, fmt.Errorf("commit rollout of pool %s: %w", name, err)
	}
	for _, note := range actions.Notes {
		c.log.Info().Str("pool", name).Str("rollout", note.Rollout).Str("reason", note.Reason).Str("event", note.Message).Msg("a rollout went on")
	}
	if _, err := c.mirror.Wait(ctx, revision); err != nil {
		return 0, err
	}
	return actions.Again, nil
}

// forget removes what is left of the rollouts of a pool that is gone.
func (c *Controller) forget(ctx context.Context, st *store.Store, view *store.View, pool string) error {
	var ops []store.Op
	for _, r := range store.All[*v1.Rollout](view) {
		if r.GetSpec().GetPool() == pool {
			ops = append(ops, store.Delete(r))
		}
	}
	_, _, err := st.CommitEach(ctx, ops)
	return err
}

// snapshotOf collects what Decide looks at.
func snapshotOf(view *store.View, pool *v1.Pool) Snapshot {
	name := pool.GetMeta().GetName()
	s := Snapshot{Revision: view.Revision, Pool: pool, Desktops: view.DesktopsOfPool(name), Hosts: store.All[*v1.Host](view)}
	s.Image, _ = store.Lookup[*v1.Image](view, pool.GetSpec().GetImage())
	for _, r := range store.All[*v1.Rollout](view) {
		if r.GetSpec().GetPool() == name {
			s.Rollouts = append(s.Rollouts, r)
		}
	}
	s.Window, s.NoWindow = windowOf(view, pool)
	followed, _ := store.Lookup[*v1.Calendar](view, pool.GetSpec().GetCalendar())
	s.Clock = calendar.ClockOf(pool, followed)
	if pool.GetRelease().GetRollout() == "" {
		return s
	}
	for _, desktop := range s.Desktops {
		for _, event := range view.EventsAbout(store.RefOf(desktop)) {
			if tellsFailure(event) {
				s.Failed = append(s.Failed, event)
			}
		}
	}
	slices.SortFunc(s.Failed, store.ByName)
	return s
}

// windowOf is the window of a pool's rollouts; nil when they may run always. why says why it cannot be told.
func windowOf(view *store.View, pool *v1.Pool) (w *calendar.Window, why string) {
	spec := pool.GetSpec().GetRollout().GetWindow()
	if spec == nil {
		return nil, ""
	}
	var resolved *calendar.Resolved
	if name := pool.GetSpec().GetCalendar(); name != "" {
		lookup := func(name string) (*v1.Calendar, error) {
			if found, ok := store.Lookup[*v1.Calendar](view, name); ok {
				return found, nil
			}
			return nil, calendar.ErrNoParent
		}
		found, err := lookup(name)
		if err != nil {
			return nil, fmt.Sprintf("calendar %q does not exist", name)
		}
		if resolved, err = calendar.Resolve(found, lookup); err != nil {
			return nil, fmt.Sprintf("calendar %q cannot be read: %v", name, err)
		}
	}
	w, err := calendar.NewWindow(spec, resolved)
	if err != nil {
		return nil, err.Error()
	}
	return w, ""
}

// commit writes what was decided in one transaction: the release, the rollouts and the events that tell of it. It holds
// only if none of what it changes was changed meanwhile.
func commit(ctx context.Context, st *store.Store, now time.Time, pool *v1.Pool, image *v1.Image, a Actions) (int64, error) {
	var ops []store.Op
	if a.Release != nil {
		changed := proto.CloneOf(pool)
		changed.Release = a.Release
		ops = append(ops, store.Update(changed))
		if image != nil && begins(pool.GetRelease(), a.Release) {
			ops = append(ops, store.Update(image)) // see Intake.Retire in orchestrator/catalog
		}
	}
	for _, r := range a.Create {
		if a.Release == nil {
			return 0, fmt.Errorf("rollout %s would begin without a release: %w", r.GetMeta().GetName(), store.ErrInvalid)
		}
		ops = append(ops, store.Create(r))
	}
	for _, r := range a.Update {
		ops = append(ops, store.Update(r))
	}
	for _, r := range a.Remove {
		ops = append(ops, store.Delete(r))
	}
	for i, note := range a.Notes {
		// Events are sorted by their names, which begin with the time: what happened at once keeps its order.
		event := store.NewEvent(now.Add(time.Duration(i)), pool, note.Reason, note.Message, note.Warning)
		event.Meta.Labels = map[string]string{LabelRollout: note.Rollout}
		ops = append(ops, store.Create(event))
	}
	return st.Commit(ctx, ops...)
}

// begins: a release names a version that the one before it did not.
func begins(before, after *v1.Release) bool {
	for _, number := range []uint32{after.GetVersion(), after.GetNext(), after.GetPrevious()} {
		known := []uint32{0, before.GetVersion(), before.GetNext(), before.GetPrevious()}
		if before.GetImage() != after.GetImage() {
			known = known[:1]
		}
		if !slices.Contains(known, number) {
			return true
		}
	}
	return false
}
