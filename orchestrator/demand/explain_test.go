package demand_test

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"daybreak/orchestrator/calendar"
	"daybreak/orchestrator/demand"
	v1 "daybreak/proto/daybreak/v1"
)

func TestExplain(t *testing.T) {
	tokyo := office(t, "Asia/Tokyo", "08:30-17:15", japan)
	friday := calendar.Date{Year: 2026, Month: 11, Day: 20}
	history := past(tokyo, friday, 40, func(day calendar.Day, bin int) int { return noon(day, bin, 6+day.Date.Day%3) })
	young := &v1.History{Days: history.Days[38:]}
	learned := &v1.PoolSpec{Desktops: 20, Schedule: &v1.Schedule{Open: "learned"}}
	when := at(t, "2026-11-24T08:33:00+09:00")
	for _, row := range []struct {
		name string
		pool demand.Pool
		want []string
	}{
		{"no schedule", demand.Pool{Spec: &v1.PoolSpec{Desktops: 20}}, nil},
		{"no calendar", demand.Pool{Spec: learned}, []string{
			"its schedule asks for 20 of 20 desktops: all desktops, since the calendar that the schedule follows cannot be read"}},
		{"as written", demand.Pool{Spec: &v1.PoolSpec{Desktops: 20, Schedule: &v1.Schedule{SpareBuffer: "2"}}, Calendar: tokyo}, []string{
			"its schedule asks for 20 of 20 desktops: opening hours, 100%", "and for 2 beside those in use: spareBuffer, 2"}},
		{"two days", demand.Pool{Spec: learned, Calendar: tokyo, History: young}, []string{
			"its schedule asks for 8 of 20 desktops: opening hours, the most on 2 working days so far: 8 of 20",
			"in use at 08:30: 8 on 2026-11-20, 7 on 2026-11-19; until 14 days were watched the most of all counts",
			"and for 7 beside those in use: spares, the most on 2 working days so far: 7 arrive within 2m0s",
			"arrived within 2m0s from 08:30 on: 7 on 2026-11-20, 6 on 2026-11-19; until 14 days were watched the most of all counts"}},
		{"forty", demand.Pool{Spec: learned, Calendar: tokyo, History: history}, []string{
			"its schedule asks for 9 of 20 desktops: opening hours, learned from 11 Tuesdays and days after closed ones: 9 of 20",
			"in use at 08:30: 8 on 2026-11-17, 7 on 2026-11-16, 7 on 2026-11-10, 6 on 2026-11-09, 7 on 2026-11-04, 8 on 2026-11-02, 6 on 2026-10-27, " +
				"8 on 2026-10-26, 8 on 2026-10-20, 7 on 2026-10-19, and 1 more; no more than 8 in 99% of cases, and 1 more since 11 days are too few to show the rest",
			"and for 8 beside those in use: spares, learned from 11 Tuesdays and days after closed ones: 8 arrive within 2m0s",
			"arrived within 2m0s from 08:30 on: 7 on 2026-11-17, 6 on 2026-11-16, 6 on 2026-11-10, 5 on 2026-11-09, 6 on 2026-11-04, 7 on 2026-11-02, 5 on 2026-10-27, " +
				"7 on 2026-10-26, 7 on 2026-10-20, 6 on 2026-10-19, and 1 more; no more than 7 in 99% of cases, and 1 more since 11 days are too few to show the rest"}},
	} {
		t.Run(row.name, func(t *testing.T) {
			row.pool.TimeToReady = 2 * time.Minute
			if diff := cmp.Diff(row.want, demand.Explain(row.pool, when)); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

// Why is the target's reason, and says who holds what and which spares there are when those ask for more.
func TestWhy(t *testing.T) {
	s := demand.Step{Target: 2, Buffer: 1, Reason: "opening hours, 2", BufferReason: "minReady"}
	for _, row := range []struct {
		held, kept, seats int
		want              string
	}{
		{1, 0, 4, "opening hours, 2"},
		{2, 0, 2, "opening hours, 2"},
		{2, 0, 4, "opening hours, 2; 2 held or waited for, and 1 spare (minReady)"},
		{1, 1, 4, "opening hours, 2; 1 held or waited for, 1 kept for one user each, and 1 spare (minReady)"},
	} {
		if got := s.Why(row.held, row.kept, row.seats); got != row.want {
			t.Errorf("%v: got %q", row, got)
		}
	}
}
