package pool

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"daybreak/orchestrator/store"
	v1 "daybreak/proto/daybreak/v1"
)

// suspend lets a desktop of the pool sleep for its user, who holds it or has it for ever.
func (h *house) suspend(name string, held bool) {
	h.t.Helper()
	put := func(writer store.Writer, change func(d *v1.Desktop)) {
		if _, err := store.Modify(h.t.Context(), store.Open(h.memory, writer), name, func(d *v1.Desktop) error { change(d); return nil }); err != nil {
			h.t.Fatal(err)
		}
	}
	put(store.WriterPool, func(d *v1.Desktop) {
		d.Incarnation.Desired, d.Incarnation.UsedBy = v1.DesiredState_DESIRED_STATE_SUSPENDED, "hanako"
		if held {
			d.Claim = &v1.DesktopClaim{User: "hanako", Since: timestamppb.Now()}
		} else {
			d.Spec.Owner = "hanako"
		}
	})
	put(store.WriterDispatch, func(d *v1.Desktop) { d.Status.State = v1.DesktopState_DESKTOP_STATE_SUSPENDED })
}

// A desktop that sleeps for its user is there for them: nothing is short, and nobody is alarmed. The others are warm in time.
func TestNothingIsShortForSleepers(t *testing.T) {
	for name, mode := range map[string]v1.ClaimMode{"held": v1.ClaimMode_CLAIM_MODE_FLOATING, "bound": v1.ClaimMode_CLAIM_MODE_DEDICATED} {
		t.Run(name, func(t *testing.T) {
			story(t, func(h *house) {
				h.open(20, 4, &v1.Schedule{Open: "100%", SpareBuffer: "0"})
				h.edit(func(p *v1.Pool) { p.Spec.Claims = &v1.ClaimPolicy{Mode: mode} })
				h.at(16, 0, 0)
				floating := mode == v1.ClaimMode_CLAIM_MODE_FLOATING
				if !floating {
					h.at(18, 0, 0) // while it is open, it would be woken
				}
				h.suspend("sales-2", floating)
				if floating {
					time.Sleep(time.Minute)
					synctest.Wait()
					if s := h.pool().GetStatus(); s.GetMessage() != "" || s.GetReady() != 3 {
						t.Errorf("with one asleep: %v", s)
					}
					h.explains("sales", "pool sales is as it should be: 3 of 4 desktops ready, 0 cold, 1 sleeps until its user is back")
				}
				h.at(4, 0, 0)
				plan, ok := store.Lookup[*v1.Plan](h.mirror.View(), "sales-2000-01-02")
				if !ok || len(plan.GetStarts()) != 3 || len(plan.GetShortfalls()) != 0 {
					t.Errorf("the plan: %v", plan)
				}
				const why = "opening hours, 100%, less 1 that sleeps until its user is back"
				if targets := plan.GetTargets(); len(targets) < 2 || targets[1].GetRunning() != 3 || targets[1].GetReason() != why {
					t.Errorf("the plan's targets: %v", targets)
				}
				h.at(8, 35, 0)
				if s := h.pool().GetStatus(); s.GetMessage() != "" || s.GetReady() < 3 || s.GetWanted() != 4 {
					t.Errorf("when it is open: %v", s)
				}
				if got := strings.Join(h.words(ReasonPlanned), "\n"); strings.Contains(got, "not be ready") {
					t.Errorf("told %q", got)
				}
			})
		})
	}
}

// Who sleeps stands in for what is missing only as far as it is there: desktops that failed, and what could start and has no room, are told, and so
// are spares that are missing beside desktops that others hold.
func TestSleepersHideNoShortage(t *testing.T) {
	for _, row := range []struct {
		target, spare           string
		held, startable, asleep int
		running                 int
	}{
		{"100%", "0", 0, 3, 1, 3}, {"100%", "0", 0, 2, 1, 3}, {"3", "0", 0, 2, 1, 2}, {"2", "0", 0, 3, 1, 2}, {"2", "0", 0, 4, 0, 2}, {"1", "0", 0, 0, 4, 0},
		{"1", "1", 1, 1, 2, 2}, {"1", "3", 1, 2, 2, 2}, {"3", "1", 1, 1, 1, 2}, {"3", "0", 1, 1, 2, 1},
	} {
		w := newWorld(4)
		withSchedule("UTC", &v1.Schedule{Open: row.target, SpareBuffer: row.spare}, 0)(w)
		w.now = w.now.Add(time.Hour)
		d := newDecision(w.now, w.snapshot())
		d.weigh(nil)
		d.held = row.held
		if got := d.planTargets(row.startable, row.asleep)[0]; got.Running != row.running {
			t.Errorf("%v: %d of them are planned for: %s", row, got.Running, got.Reason)
		}
	}
}

// A spare that is on the way is told of, however many sleep for their users.
func TestSleepersAreNoSpares(t *testing.T) {
	w := settled(t, 4, func(*world) {})
	for _, name := range w.names()[:3] {
		w.claim(name, "user of "+name)
	}
	for _, name := range w.names()[:2] {
		w.change(name, func(d *v1.Desktop) { d.Incarnation.Desired = v1.DesiredState_DESIRED_STATE_SUSPENDED })
		w.report(name, v1.DesktopState_DESKTOP_STATE_SUSPENDED, "")
	}
	w.report("sales-4", v1.DesktopState_DESKTOP_STATE_STARTING, "")
	withSchedule("UTC", &v1.Schedule{Open: "1", SpareBuffer: "1"}, 0)(w)
	w.now = w.now.Add(time.Hour)
	const want = "1 of 2 are ready, 1 on the way, 2 sleep until their users are back"
	if got := w.round().Status.GetMessage(); got != want {
		t.Errorf("%q, want %q", got, want)
	}
}
