package sim

import (
	"context"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"daybreak/hostagent"
	v1 "daybreak/proto/daybreak/v1"
)

// whileOpen is when desktops of some pools are suspended: nobody used them for so long.
func whileOpen() *v1.IdlePolicy {
	return &v1.IdlePolicy{Open: &v1.IdleRule{
		After: durationpb.New(20 * time.Minute), Grace: durationpb.New(5 * time.Minute), Action: v1.IdleAction_IDLE_ACTION_SUSPEND,
	}}
}

// lookToAct is how long what follows a look at the guest may take: its word travels to the store, the order back to the host.
const lookToAct = 30 * time.Second

// absence is when somebody who holds a desktop is away from it, and what its guest says of that.
type absence struct {
	from, to time.Time
	life     hostagent.Life // that was told last
	away     bool           // what its guest was told
	since    time.Time      // when that began
}

// beAbsent draws an absence for a worker of a pool that suspends: long and short ones, and such as end about when their desktop is suspended.
func (d *dayStory) beAbsent(w *worker) {
	w.absence.from = w.come.Add(time.Duration(5+d.rng.IntN(120)) * time.Minute)
	length := time.Duration(d.rng.IntN(90)) * time.Minute
	if d.rng.IntN(2) == 0 {
		length = 24*time.Minute + time.Duration(d.rng.IntN(240))*time.Second
	}
	w.absence.to = w.absence.from.Add(length)
}

// use lets the guest of a user's desktop say whether they are at it, and lets those who come back claim it when it sleeps. It returns true when
// the user is to call. The caller holds the user's lock.
func (d *dayStory) use(u *user, w *worker, now time.Time) (calls bool) {
	desktop := d.history.desktop(u.held.GetMeta().GetName())
	in := desktop.GetIncarnation()
	life := hostagent.Life{Desktop: desktop.GetMeta().GetName(), UID: desktop.GetMeta().GetUid(), Generation: in.GetGeneration()}
	away := now.After(w.absence.from) && now.Before(w.absence.to)
	d.truth.mu.Lock()
	if life != w.absence.life || away != w.absence.away {
		w.absence.life, w.absence.away, w.absence.since = life, away, now
		d.truth.present[life] = time.Time{}
		if !away {
			d.truth.present[life] = now
		}
	}
	d.truth.mu.Unlock()
	for _, n := range d.nodes {
		if n.name == in.GetHost() && w.absence.since.Equal(now) {
			n.host.SetSession(life, hostagent.Session{UsersKnown: true, Users: 1, InputKnown: away})
		}
	}
	return !away && in.GetDesired() == v1.DesiredState_DESIRED_STATE_SUSPENDED
}

// Suspend implements hostagent.Hypervisor.
func (w *witness) Suspend(ctx context.Context, life hostagent.Life, file string) error {
	w.node.sim.truth.slept(w.node, life)
	return w.Host.Suspend(ctx, life, file)
}

// slept looks at an order to suspend a VM.
func (t *truth) slept(n *node, life hostagent.Life) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if since := t.present[life]; !since.IsZero() && time.Since(since) > lookToAct && time.Since(t.troubled) > calmFrom {
		t.sim.problem("9", "%s generation %d is suspended on %s, and its user has been back for %v", life.Desktop, life.Generation, n.name, time.Since(since))
	}
	t.sleeps++
	t.stops[life] = true
}

// Wake implements hostagent.Hypervisor.
func (w *witness) Wake(ctx context.Context, life hostagent.Life) error {
	t := w.node.sim.truth
	t.mu.Lock()
	delete(t.stops, life)
	t.watched[life] = true
	t.mu.Unlock()
	return w.Host.Wake(ctx, life)
}
