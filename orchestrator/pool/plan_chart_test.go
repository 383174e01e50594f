package pool

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"daybreak/orchestrator/store"
	"daybreak/orchestrator/warmup"
	v1 "daybreak/proto/daybreak/v1"
)

// charted is what the chart of the pool's plan says of a moment: wanted, planned, ready.
func (h *house) charted(date string, at time.Time) string {
	h.t.Helper()
	plan, ok := store.Lookup[*v1.Plan](h.mirror.View(), PlanName("sales", date))
	if !ok {
		h.t.Fatalf("no plan for %s", date)
	}
	points := warmup.Points(plan, time.Now())
	p := points[0]
	for _, each := range points {
		if !each.GetAt().AsTime().After(at) {
			p = each
		}
	}
	return fmt.Sprint(p.GetWanted(), p.GetPlanned(), p.GetReady())
}

func onDay(hour, minute, second int) time.Time {
	return time.Date(2000, 1, 2, hour, minute, second, 0, time.UTC)
}

// Who came before the doors opened, and whose desktop was started for them, has one of those that are wanted, planned and ready.
func TestChartCountsHeldDesktops(t *testing.T) {
	for name, mode := range map[string]v1.ClaimMode{"floating": v1.ClaimMode_CLAIM_MODE_FLOATING, "dedicated": v1.ClaimMode_CLAIM_MODE_DEDICATED} {
		t.Run(name, func(t *testing.T) {
			story(t, func(h *house) {
				h.open(20, 2, &v1.Schedule{SpareBuffer: "0"})
				h.edit(func(p *v1.Pool) { p.Spec.Claims = &v1.ClaimPolicy{Mode: mode} })
				h.at(9, 0, 0)
				h.at(6, 0, 0)
				if err := h.claimer.Wait(h.t.Context(), "sales", "hanako", "", func(*v1.WaitResponse) error { return nil }); err != nil {
					t.Fatal(err)
				}
				h.at(9, 0, 0)
				for _, row := range []struct {
					at   time.Time
					want string
				}{{onDay(5, 0, 0), "0 0 0"}, {onDay(6, 30, 0), "1 1 1"}, {onDay(8, 30, 0), "2 2 2"}, {onDay(8, 45, 0), "2 2 2"}} {
					if got := h.charted("2000-01-02", row.at); got != row.want {
						t.Errorf("at %v: wanted, planned and ready are %s, want %s", row.at, got, row.want)
					}
				}
				plan, _ := store.Lookup[*v1.Plan](h.mirror.View(), "sales-2000-01-02")
				if got := warmup.Summary(plan, time.Now(), nil); !strings.Contains(got, " made it: the 1 desktop that was to start") {
					t.Errorf("summary %q", got)
				}
			})
		})
	}
}

// An opening that is moved while its desktops start, or when it has begun, counts each desktop once, and is wanted when it is open by what was
// in force.
func TestChartOfAMovedOpening(t *testing.T) {
	hours := func(open, end string) []*v1.CalendarOpening {
		return []*v1.CalendarOpening{{Date: "2000-01-02", Open: open, Close: end}}
	}
	for _, moved := range []time.Time{onDay(3, 40, 30), onDay(3, 42, 0), onDay(3, 47, 0)} {
		t.Run(moved.Format("15:04:05"), func(t *testing.T) {
			story(t, func(h *house) {
				h.open(20, 4, &v1.Schedule{SpareBuffer: "0"})
				move := func(open, end string) {
					_, err := store.Modify(h.t.Context(), h.api, "office", func(c *v1.Calendar) error { c.Spec.Openings = hours(open, end); return nil })
					if err != nil {
						t.Fatal(err)
					}
				}
				h.at(9, 0, 0)
				move("03:41", "03:48")
				h.at(moved.Hour(), moved.Minute(), moved.Second())
				move("04:02", "04:19")
				h.at(3, 59, 0)
				plan, _ := store.Lookup[*v1.Plan](h.mirror.View(), "sales-2000-01-02")
				for _, s := range plan.GetStarts() {
					if s.GetReady() != nil && s.GetReady().AsTime().Before(s.GetStartAt().AsTime()) {
						t.Errorf("noted as ready before it started: %v", s)
					}
				}
				h.at(4, 30, 0)
				for _, p := range warmup.Points(must(h, "sales-2000-01-02"), time.Now()) {
					if p.GetPlanned() > 4 || p.GetReady() > 4 {
						t.Errorf("of 4 seats: %v", p)
					}
				}
				for at, want := range map[time.Time]string{onDay(3, 50, 0): "0", onDay(4, 1, 50): "0", onDay(4, 2, 0): "4", onDay(4, 10, 0): "4", onDay(4, 19, 0): "0"} {
					if got := h.charted("2000-01-02", at)[:1]; got != want {
						t.Errorf("wanted at %v: %s, not %s", at, got, want)
					}
				}
				if got := h.charted("2000-01-02", onDay(4, 2, 0)); got != "4 4 4" {
					t.Errorf("as it opens: %s", got)
				}
			})
		})
	}
}

func must(h *house, name string) *v1.Plan {
	plan, ok := store.Lookup[*v1.Plan](h.mirror.View(), name)
	if !ok || !slices.IsSortedFunc(plan.GetTargets(), func(a, b *v1.PlanTarget) int { return a.GetFrom().AsTime().Compare(b.GetFrom().AsTime()) }) {
		h.t.Fatalf("plan %v", plan)
	}
	return plan
}
