package demand_test

import (
	"testing"
	"time"

	"daybreak/orchestrator/calendar"
	"daybreak/orchestrator/demand"
	v1 "daybreak/proto/daybreak/v1"
)

// past is a history of so many days up to a date, by the recorder itself: on each date count says how many are held in a bin, from
// 07:00 to 21:00. What comes on top of the bin before are arrivals.
func past(cal *calendar.Resolved, last calendar.Date, n int, count func(day calendar.Day, bin int) int) *v1.History {
	h := &v1.History{}
	for day := range cal.Days(last.Add(1-n), last) {
		for bin := 84; bin < 252; bin++ {
			now := time.Date(day.Date.Year, day.Date.Month, day.Date.Day, bin/12, bin%12*5, 30, 0, cal.Zone())
			began := make([]time.Time, count(day, bin))
			for i := range began {
				began[i] = now.Add(-48 * time.Hour)
				if bin > 0 && i >= count(day, bin-1) {
					began[i] = now.Add(-10 * time.Second)
				}
			}
			h.Days, _ = demand.Record(h.Days, cal, now, began)
		}
	}
	return h
}

// noon has so many in use from 08:30 to 17:15 and one from 08:00 on, if it is open at all.
func noon(day calendar.Day, bin, n int) int {
	switch {
	case len(day.Openings) == 0 || bin < 96 || bin >= 207:
		return 0
	case bin < 102:
		return 1
	}
	return n
}

func TestLearned(t *testing.T) {
	tokyo := office(t, "Asia/Tokyo", "08:30-17:15", japan, election)
	date := func(text string) calendar.Date {
		d, err := calendar.ParseDate(text)
		if err != nil {
			t.Fatal(err)
		}
		return d
	}
	steady := func(day calendar.Day, bin int) int { return noon(day, bin, int(day.Date.Weekday())+3) }
	typhoon := func(day calendar.Day, bin int) int {
		if day.Date == date("2026-11-17") {
			return 0
		}
		return steady(day, bin)
	}
	busy := func(day calendar.Day, bin int) int {
		if len(day.Openings) == 0 {
			return 2
		}
		if day.Special {
			return noon(day, bin, 15)
		}
		return steady(day, bin)
	}
	for _, row := range []struct {
		name    string
		history *v1.History
		change  func(*v1.PoolSpec)
		at      string
		target  int
		reason  string
	}{
		{"nothing yet, open", nil, nil, "2026-11-25T09:00:00+09:00", 20, "opening hours, 100%, since there is nothing to learn from yet"},
		{"nothing yet, closed", nil, nil, "2026-11-25T07:00:00+09:00", 0, "closed, 0, since there is nothing to learn from yet"},
		{"one day", past(tokyo, date("2026-11-18"), 1, steady), nil, "2026-11-19T09:00:00+09:00", 6, "opening hours, the most on one of the working days so far: 6 of 20"},
		{"one day says nothing of closed ones", past(tokyo, date("2026-11-20"), 1, steady), nil, "2026-11-21T09:00:00+09:00", 0, "closed, 0, since there is nothing to learn from yet"},
		{"a week", past(tokyo, date("2026-11-20"), 5, steady), nil, "2026-11-24T09:00:00+09:00", 8, "opening hours, the most on 5 working days so far: 8 of 20"},
		{"before it opens", past(tokyo, date("2026-11-20"), 5, steady), nil, "2026-11-24T08:05:00+09:00", 1, "closed, the most on 5 working days so far: 1 of 20"},
		{"two Wednesdays are few", past(tokyo, date("2026-11-22"), 14, steady), nil, "2026-11-25T09:00:00+09:00", 10, "opening hours, learned from 10 working days: 10 of 20"},
		{"ten weeks", past(tokyo, date("2026-11-22"), 70, typhoon), nil, "2026-11-25T09:00:00+09:00", 6, "opening hours, learned from 9 Wednesdays: 6 of 20"},
		{"after a holiday", past(tokyo, date("2026-11-23"), 70, typhoon), nil, "2026-11-24T09:00:00+09:00", 7, "opening hours, learned from 17 Tuesdays and days after closed ones: 7 of 20"},
		{"a holiday", past(tokyo, date("2026-11-22"), 70, busy), nil, "2026-11-23T09:00:00+09:00", 2, "closed for Labor Thanksgiving Day, learned from 25 closed days: 2 of 20"},
		{"the first election", past(tokyo, date("2026-11-22"), 70, busy), nil, "2026-11-29T09:00:00+09:00", 20, "open for the election, 100%, since there is nothing to learn from yet"},
		{"the day after an election", past(tokyo, date("2026-11-29"), 70, busy), nil, "2026-11-30T09:00:00+09:00", 4, "opening hours, learned from 7 Mondays: 4 of 20"},
		{"min_ready holds", past(tokyo, date("2026-11-22"), 70, steady), func(s *v1.PoolSpec) { s.MinReady = 9 }, "2026-11-25T09:00:00+09:00", 9,
			"opening hours, learned from 9 Wednesdays: 6 of 20, but minReady is 9"},
		{"no more than the seats", past(tokyo, date("2026-11-22"), 70, steady), func(s *v1.PoolSpec) { s.Desktops = 4 }, "2026-11-25T09:00:00+09:00", 4,
			"opening hours, learned from 9 Wednesdays: 6 of 4, but there are 4 seats"},
	} {
		t.Run(row.name, func(t *testing.T) {
			spec := &v1.PoolSpec{Desktops: 20, Schedule: &v1.Schedule{Open: "learned", Closed: "learned"}}
			if row.change != nil {
				row.change(spec)
			}
			when := at(t, row.at)
			got := demand.Curve(demand.Pool{Spec: spec, Calendar: tokyo, History: row.history}, when, when.Add(time.Minute))[0]
			if got.Target != row.target || got.Reason != row.reason {
				t.Errorf("%d %s\nwant %d %s", got.Target, got.Reason, row.target, row.reason)
			}
		})
	}
}
