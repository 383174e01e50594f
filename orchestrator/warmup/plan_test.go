package warmup_test

import (
	"testing"
	"time"

	"daybreak/orchestrator/warmup"
)

func TestOnDate(t *testing.T) {
	in := site(2, 4, 10, 20)
	in.Pools[0].Targets = append(in.Pools[0].Targets,
		warmup.Target{From: open.Add(9 * time.Hour), Running: 2, Reason: "closed"}, warmup.Target{From: open.Add(23 * time.Hour), Running: 9})
	out := warmup.Plan(at("06:00:00"), in)
	today := out.Pools[0].OnDate("2026-11-24", open.Location(), at("06:00:00"))
	if len(today.GetStarts()) != 20 || len(today.GetHosts()) != 2 || len(today.GetTargets()) != 3 {
		t.Error(today)
	}
	tomorrow := out.Pools[0].OnDate("2026-11-25", open.Location(), at("06:00:00"))
	if len(tomorrow.GetStarts()) != 7 || len(tomorrow.GetTargets()) != 2 || tomorrow.GetTargets()[0].GetRunning() != 2 {
		t.Error(tomorrow)
	}
	if today.GetStanding() != 0 || tomorrow.GetStanding() != 2 || !tomorrow.GetTargets()[0].GetFrom().AsTime().Equal(at("00:00:00").AddDate(0, 0, 1)) {
		t.Errorf("standing: today %d, tomorrow %d from %v", today.GetStanding(), tomorrow.GetStanding(), tomorrow.GetTargets()[0])
	}
}

// What is wanted only from now on is woken at once: the plan is not short for it.
func TestWokenAtOnce(t *testing.T) {
	in := site(1, 4, 10, 5)
	now := in.Pools[0].Targets[len(in.Pools[0].Targets)-1].From.Add(10 * time.Second)
	plan := warmup.Plan(now, in).Pools[0]
	today := plan.OnDate("2026-11-24", open.Location(), now)
	if len(plan.Shortfalls) == 0 || len(today.GetStarts()) != 5 || len(today.GetShortfalls()) != 0 {
		t.Error(plan.Shortfalls, today)
	}
	for _, s := range today.GetStarts() {
		if !warmup.AtOnce(s) {
			t.Error(s)
		}
	}
}
