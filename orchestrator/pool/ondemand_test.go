package pool

import (
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"daybreak/orchestrator/store"
	v1 "daybreak/proto/daybreak/v1"
)

// At night nothing runs and nothing is wanted: one user who waits has one desktop woken, and gets that one.
func TestWaitBootsOneOfAColdPool(t *testing.T) {
	story(t, func(h *house) {
		h.open(20, 5, office())
		h.at(1, 0, 0)
		if ready, cold := h.count(); ready != 0 || cold != 5 || h.pool().GetStatus().GetWanted() != 0 {
			h.t.Fatalf("at night %d are ready and %d cold: %v", ready, cold, h.pool().GetStatus())
		}
		var last *v1.WaitResponse
		err := h.claimer.Wait(h.t.Context(), "sales", "taro", "", func(word *v1.WaitResponse) error {
			last = word
			return nil
		})
		if err != nil || store.State(last.GetDesktop()) != v1.DesktopState_DESKTOP_STATE_READY || last.GetDesktop().GetClaim().GetUser() != "taro" {
			h.t.Fatalf("%v, %v", last, err)
		}
		if now := time.Now().UTC(); now.Hour() != 1 || now.Minute() > 2 {
			h.t.Errorf("ready at %v, want within the time of a boot", now)
		}
		synctest.Wait()
		begun := 0
		for _, d := range h.mirror.View().DesktopsOfPool("sales") {
			if _, ever := store.Reached(d, v1.DesktopState_DESKTOP_STATE_STARTING); ever {
				begun++
			}
		}
		if ready, cold := h.count(); begun != 1 || ready != 1 || cold != 4 {
			h.t.Errorf("for one user %d were started, %d run, %d wait cold", begun, ready, cold)
		}
	})
}

// What is wanted at a later time, and why, tells of those who hold a desktop now and of the spares beside them, as it does once that time has come.
func TestForecastTellsOfHoldersAndSpares(t *testing.T) {
	story(t, func(h *house) {
		h.open(20, 5, &v1.Schedule{Open: "0", SpareBuffer: "1"})
		h.at(1, 0, 0)
		if err := h.claimer.Wait(h.t.Context(), "sales", "taro", "", func(*v1.WaitResponse) error { return nil }); err != nil {
			t.Fatal(err)
		}
		h.at(2, 0, 0)
		const why = "opening hours, 0; 1 held or waited for, and 1 spare (spareBuffer, 1)"
		h.explains("sales", "to be ready at 08:30 UTC: 2 are wanted then ("+why+")")
		plan, _ := store.Lookup[*v1.Plan](h.mirror.View(), "sales-2000-01-01")
		opens := func(target *v1.PlanTarget) bool {
			return target.GetFrom().AsTime().Hour() == 8 && target.GetRunning() == 2 && target.GetReason() == why
		}
		if !slices.ContainsFunc(plan.GetTargets(), opens) {
			t.Errorf("the plan's targets: %v", plan.GetTargets())
		}
		h.at(8, 31, 0)
		h.explains("sales", "wanted 2 of 5 now: "+why)
	})
}
