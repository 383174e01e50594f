package sim

import (
	"context"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"daybreak/hostagent"
	v1 "daybreak/proto/daybreak/v1"
)

// whileOpen is what becomes of desktops of a pool that nobody used for so long, by the pool's number; nil for nothing.
func whileOpen(pool int) *v1.IdlePolicy {
	actions := map[int]v1.IdleAction{1: v1.IdleAction_IDLE_ACTION_SUSPEND, 2: v1.IdleAction_IDLE_ACTION_RELEASE, 3: v1.IdleAction_IDLE_ACTION_SHUT_DOWN,
		4: v1.IdleAction_IDLE_ACTION_SUSPEND, 5: v1.IdleAction_IDLE_ACTION_RELEASE}
	action, ok := actions[pool%6]
	if !ok {
		return nil
	}
	return &v1.IdlePolicy{Open: &v1.IdleRule{After: durationpb.New(20 * time.Minute), Grace: durationpb.New(5 * time.Minute), Action: action}}
}

// lookToAct is how long a host may take from its look at the guest to what it does then.
const lookToAct = 15 * time.Second

// absence is when somebody who holds a desktop is away from it, and what its guest says of that.
type absence struct {
	from, to time.Time
	life     hostagent.Life // that was told last
	away     bool           // what its guest was told
	since    time.Time      // when that began
}

// beAbsent draws an absence for a worker of a pool with an idle policy: long and short ones, and such as end about when something is done to their desktop.
func (d *dayStory) beAbsent(w *worker) {
	w.absence.from = w.come.Add(time.Duration(5+d.rng.IntN(120)) * time.Minute)
	length := time.Duration(d.rng.IntN(90)) * time.Minute
	if d.rng.IntN(2) == 0 {
		length = 24*time.Minute + time.Duration(d.rng.IntN(240))*time.Second
	}
	w.absence.to = w.absence.from.Add(length)
}

// use lets the guest of a user's desktop say whether they are at it, and lets those who come back claim it when it does not run for them. It returns true when
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
	return !away && in.GetDesired() != v1.DesiredState_DESIRED_STATE_READY
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
	t.spares(n, life, "suspended")
	t.sleeps++
	t.stops[life] = true
}

// spares: nobody loses a desktop for want of use who is back at it, whatever has failed meanwhile. The caller holds mu.
func (t *truth) spares(n *node, life hostagent.Life, how string) {
	if since := t.present[life]; !since.IsZero() && time.Since(since) > lookToAct {
		t.sim.problem("9", "%s generation %d is %s on %s, and its user has been back for %v", life.Desktop, life.Generation, how, n.name, time.Since(since))
	}
}

// checkReclaim: a desktop's life is to end for want of use, of which its user must have been told in time.
func (h *history) checkReclaim(d *v1.Desktop) {
	reclaim := d.GetClaim().GetReclaim()
	if now := time.Now(); now.Before(reclaim.GetActAt().AsTime()) || reclaim.GetActAt().AsTime().Sub(reclaim.GetSince().AsTime()) < 5*time.Minute {
		h.problem("9", "%s is to end while %s holds it, who was told at %v that it would at %v", d.GetMeta().GetName(), d.GetClaim().GetUser(),
			reclaim.GetSince().AsTime(), reclaim.GetActAt().AsTime())
	}
	h.excused[lifeOf(d)] = true
}

// noteReclaim remembers from whom a desktop was taken back, until it is lent again.
func (h *history) noteReclaim(was, is *v1.Desktop) {
	uid, reclaim := is.GetMeta().GetUid(), was.GetClaim().GetReclaim()
	switch {
	case is.GetClaim() != nil:
		delete(h.takenBack, uid)
	case reclaim.GetActing() && reclaim.GetAction() == v1.IdleAction_IDLE_ACTION_RELEASE:
		h.takenBack[uid] = was.GetClaim().GetUser()
		h.reclaims++
	}
}

// endsIdle: a life is to end since nobody uses it.
func (h *history) endsIdle(key lifeKey, desktop string) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	d := h.desktops[desktop]
	return lifeOf(d) == key && d.GetIncarnation().GetUnlessUsedSince() != nil
}

// lapsed: the desktop that the user holds by what they know was taken back from them since. The caller holds mu.
func (u *user) lapsed() bool {
	h := u.sim.history
	h.mu.Lock()
	defer h.mu.Unlock()
	if u.told != toldHeld || h.takenBack[u.held.GetMeta().GetUid()] != u.name {
		return false
	}
	u.told, u.held = toldNothing, nil
	return true
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
