package pool

import (
	"strings"
	"testing"
	"time"

	"daybreak/orchestrator/store"
	"daybreak/orchestrator/warmup"
	v1 "daybreak/proto/daybreak/v1"
)

// Who asks for desktops too late for them to start is told just that, from then on until all is over, and not that hosts lack something.
func TestWantedTooLate(t *testing.T) {
	story(t, func(h *house) {
		h.open(20, 10, &v1.Schedule{Open: "4", SpareBuffer: "0"})
		h.at(9, 0, 0)
		h.at(8, 29, 30) // of the second day
		h.edit(func(p *v1.Pool) { p.Spec.Schedule.Open = "10" })
		const why = "10 are wanted then only since 08:29:30 UTC, 30s before: 6 desktops on 1 host, 4 at once; a start takes 1m29s (99 of 100 at most 1m51s)"
		time.Sleep(6 * time.Second)
		h.explains("sales", "2000-01-02: ", why)
		h.explains("sales", "it waits cold on host h1 and starts at 2000-01-02 08:30:58 UTC, is to be ready at 08:30:00 UTC: 10 are wanted then",
			"start on 1 host, the first is to be ready at 08:30:00 UTC")
		h.at(8, 29, 55) // they are on their way
		h.explains("sales", "2000-01-02: ", "will not be ready at 08:30 UTC but at 08:3", why)
		h.at(8, 32, 0)
		if got := h.words(ReasonMissed); len(got) != 1 || !strings.Contains(got[0], why) {
			t.Errorf("told %q", got)
		}
		plan, _ := store.Lookup[*v1.Plan](h.mirror.View(), "sales-2000-01-02")
		if got := warmup.Summary(plan, time.Now(), nil); !strings.Contains(got, why) {
			t.Errorf("summary %q", got)
		}
		for _, target := range plan.GetTargets() { // what is wanted since long has its time
			if target.GetRunning() == 0 && target.GetSince().AsTime().After(time.Now().Add(-20*time.Hour)) {
				t.Errorf("target %v", target)
			}
		}
	})
}

// A pool that is made a minute before the doors open is wanted since then.
func TestPoolMadeTooLate(t *testing.T) {
	story(t, func(h *house) {
		h.at(8, 29, 0)
		h.open(20, 4, &v1.Schedule{SpareBuffer: "0"})
		time.Sleep(10 * time.Second)
		h.explains("sales", "4 desktops will not be ready at 08:30 UTC but at 08:34:0", ": 4 are wanted then only since 08:29:0", "s before: 4 desktops on 1 host")
	})
}

// A start says when it is to be ready, or since when it is wanted, and never that it was to be ready when that was not planned.
func TestToBeReady(t *testing.T) {
	now := time.Date(2000, 1, 3, 4, 8, 2, 0, time.UTC)
	for _, row := range []struct {
		start, deadline time.Duration
		want            string
	}{
		{time.Minute, 22 * time.Minute, "to be ready at 04:30 UTC"},
		{time.Minute, time.Minute, "to be ready at 04:09 UTC"},
		{time.Minute, 30 * time.Second, "is to be ready at 04:08:32 UTC"},
		{8 * time.Second, 0, "wanted since 04:08:02 UTC"},
		{8 * time.Second, -time.Hour, "wanted since 03:08:02 UTC"},
	} {
		if got := toBeReady(now, now.Add(row.start), now.Add(row.deadline), time.UTC); got != row.want {
			t.Errorf("%v: got %q", row, got)
		}
	}
}
