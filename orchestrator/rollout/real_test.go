package rollout_test

import (
	"fmt"
	"slices"
	"testing"

	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	"daybreak/orchestrator/demand"
	pools "daybreak/orchestrator/pool"
	"daybreak/orchestrator/store"
	v1 "daybreak/proto/daybreak/v1"
)

// realRound is poolRound with the real pool's Decide instead of the model's.
func (w *world) realRound() {
	hosts := map[string]bool{}
	for _, h := range w.hosts {
		hosts[h.GetMeta().GetName()] = true
	}
	s := pools.Snapshot{
		Revision: w.revision, Pool: w.pool, Image: w.image, ZoneExists: true, Desktops: w.desktops, Hosts: hosts, Events: w.events,
	}
	if w.night {
		s.Curve = []demand.Step{{From: w.now, Reason: "closed, 0"}}
	}
	for range int(w.pool.GetSpec().GetDesktops()) - len(w.desktops) {
		w.made++
		s.Identities = append(s.Identities, pools.Identity{
			UID: fmt.Sprintf("00000000-0000-4000-8000-%012d", w.made), VMUUID: fmt.Sprintf("00000000-0000-4000-9000-%012d", w.made),
			MAC: fmt.Sprintf("52:54:00:00:%02x:%02x", w.made/256%256, w.made%256),
		})
	}
	a := pools.Decide(w.now, s)
	moves := w.movesOf(a)
	for _, change := range slices.Concat(a.Create, a.Amend, a.Retire, a.Renew, a.Wake, a.Cool) {
		w.put(change)
	}
	for _, change := range a.Remove {
		w.desktops = slices.DeleteFunc(w.desktops, func(d *v1.Desktop) bool { return d.GetMeta().GetName() == change.Desktop.GetMeta().GetName() })
	}
	for _, held := range a.HeldBack {
		event := store.NewEvent(w.now, w.pool, pools.ReasonHeldBack, held.Text, true)
		if held.Desktop != nil {
			event = store.NewEvent(w.now, held.Desktop, pools.ReasonSeatHeldBack, held.Text, true)
		}
		event.Meta.Labels = map[string]string{"attempt": held.Attempt}
		w.events = append(w.events, event)
	}
	if len(a.Create)+len(a.Amend)+len(a.Retire)+len(a.Renew)+len(a.Remove)+len(a.Wake)+len(a.Cool) > 0 {
		w.touched++
		w.revision++
	}
	if free := w.free(); moves > 0 && free < int(w.pool.GetSpec().GetMinReady()) {
		w.broken("%d ready and free desktops are taken, and %d are left; min_ready is %d", moves, free, w.pool.GetSpec().GetMinReady())
	}
	if out := w.out(); moves > 0 && out > w.limit() {
		w.broken("%d ready and free desktops are taken, and %d are out of service; the limit is %d", moves, out, w.limit())
	}
}

// movesOf counts the desktops that a user could have and that are taken out of service.
func (w *world) movesOf(a pools.Actions) int {
	n := 0
	for _, change := range a.Retire {
		for _, d := range w.desktops {
			if d.GetMeta().GetName() == change.Desktop.GetMeta().GetName() && isFree(d) && d.GetMeta().GetDeletion() == nil && !w.surplus(d) {
				n++
			}
		}
	}
	return n
}

// surplus: the desktop may be going because there are too many.
func (w *world) surplus(*v1.Desktop) bool {
	return len(w.desktops) > int(w.pool.GetSpec().GetDesktops())
}

func (w *world) put(change pools.Change) {
	d := proto.CloneOf(change.Desktop)
	at := slices.IndexFunc(w.desktops, func(old *v1.Desktop) bool { return old.GetMeta().GetName() == d.GetMeta().GetName() })
	if at < 0 {
		w.desktops = append(w.desktops, d)
	} else {
		w.desktops[at] = d
	}
	if change.Reason == "" {
		return
	}
	event := store.NewEvent(w.now, d, change.Reason, change.Message, change.Warning)
	if change.Attempt != "" {
		event.Meta.Labels["attempt"] = change.Attempt
	}
	w.events = append(w.events, event)
}

// What the model's pool keeps, the real one keeps, too.
func TestEveryHistoryWithTheRealPool(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) { everyHistory(t, true) })
}

func TestRolloutWithTheRealPool(t *testing.T) {
	w := newWorld(12, quick("1", "50%"))
	w.real = true
	w.claim(0)
	w.publish(healthy)
	w.settle(2 * hour)
	w.expect(t, "in use", map[uint32]int{1: 1, 2: 11})
	w.release(0)
	w.settle(hour)
	w.check(t, 2, phaseDone)
	w.publish(neverReady)
	w.settle(hour)
	w.checkPhase(t, phaseHalted)
	w.expect(t, "halted", map[uint32]int{2: 12, 3: 0})
	w.ask("roll back")
	w.settle(hour)
	w.check(t, 2, phaseDone)
}
