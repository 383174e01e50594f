package demand_test

import (
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"daybreak/orchestrator/demand"
	v1 "daybreak/proto/daybreak/v1"
)

func TestCheck(t *testing.T) {
	now := at(t, "2026-11-24T08:00:00+09:00")
	in := func(d time.Duration) *timestamppb.Timestamp { return timestamppb.New(now.Add(d)) }
	pool := func(s *v1.Schedule) *v1.PoolSpec { return &v1.PoolSpec{Desktops: 20, Calendar: "office", Schedule: s} }
	extra := func(from, until time.Duration, target uint32) *v1.Schedule {
		return &v1.Schedule{Extra: []*v1.ExtraTarget{{From: in(from), Until: in(until), Target: target}}}
	}
	evening := extra(time.Hour, 2*time.Hour, 5)
	weekday := func(day v1.Weekday, text string) []*v1.TargetSpan { return on(day, spans(text)) }
	for name, row := range map[string]struct {
		spec, before *v1.PoolSpec
		field        string // of the mistake; "" for none
		word         string
	}{
		"no schedule":                      {spec: &v1.PoolSpec{}},
		"an empty one":                     {spec: pool(&v1.Schedule{})},
		"all that there is":                {spec: pool(&v1.Schedule{Open: "20", Closed: "0%", SpareBuffer: "learned", Spans: spans("00:00-08:00 1, 08:00-09:00 100%, 16:00-24:00 learned"), WaitCost: 9, IdleCost: 2})},
		"open above the seats":             {spec: pool(&v1.Schedule{Open: "21"}), field: "spec.schedule.open", word: "more than spec.desktops, 20"},
		"closed above the seats":           {spec: pool(&v1.Schedule{Closed: "9999"}), field: "spec.schedule.closed", word: "more than spec.desktops, 20"},
		"buffer above the seats":           {spec: pool(&v1.Schedule{SpareBuffer: "21"}), field: "spec.schedule.spareBuffer", word: "more than spec.desktops, 20"},
		"span above the seats":             {spec: pool(&v1.Schedule{Spans: spans("08:00-09:00 20, 10:00-11:00 21")}), field: "spec.schedule.spans[1].target", word: "21 is more than"},
		"extra above the seats":            {spec: pool(extra(0, time.Hour, 21)), field: "spec.schedule.extra[0].target", word: "21 is more than"},
		"a target that is none":            {spec: pool(&v1.Schedule{Open: "most"}), field: "spec.schedule.open", word: "no target"},
		"a share of more than all":         {spec: pool(&v1.Schedule{Open: "101%"}), field: "spec.schedule.open", word: "no target"},
		"a negative target":                {spec: pool(&v1.Schedule{Open: "-1"}), field: "spec.schedule.open", word: "no target"},
		"a span backwards":                 {spec: pool(&v1.Schedule{Spans: spans("22:00-05:00 3")}), field: "spec.schedule.spans[0].to", word: "a span over midnight is two"},
		"a span of no length":              {spec: pool(&v1.Schedule{Spans: spans("08:00-08:00 3")}), field: "spec.schedule.spans[0].to", word: "not after from, 08:00"},
		"a span at no time":                {spec: pool(&v1.Schedule{Spans: spans("24:00-24:00 3")}), field: "spec.schedule.spans[0].from", word: "no time of the day"},
		"a span with a strange end":        {spec: pool(&v1.Schedule{Spans: spans("08:00-25:00 3")}), field: "spec.schedule.spans[0].to", word: "not after"},
		"spans that overlap":               {spec: pool(&v1.Schedule{Spans: spans("08:00-09:00 3, 12:00-13:00 3, 08:59-10:00 4")}), field: "spec.schedule.spans[2]", word: "overlaps spans[0], 08:00 to 09:00, on Monday"},
		"a span within another":            {spec: pool(&v1.Schedule{Spans: spans("09:00-09:30 3, 08:00-10:00 4")}), field: "spec.schedule.spans[1]", word: "overlaps spans[0]"},
		"spans that touch":                 {spec: pool(&v1.Schedule{Spans: spans("08:00-09:00 3, 09:00-10:00 4")})},
		"spans on different days":          {spec: pool(&v1.Schedule{Spans: append(weekday(2, "08:00-09:00 3"), weekday(3, "08:00-09:00 4")...)})},
		"every day is also Sunday":         {spec: pool(&v1.Schedule{Spans: append(weekday(7, "08:00-09:00 3"), spans("08:30-09:00 4")...)}), field: "spec.schedule.spans[1]", word: "on Sunday"},
		"costs of what is learned":         {spec: pool(&v1.Schedule{WaitCost: 9})},
		"costs of nothing":                 {spec: pool(&v1.Schedule{SpareBuffer: "2", WaitCost: 9}), field: "spec.schedule.waitCost", word: "no effect"},
		"costs of nothing, idle":           {spec: pool(&v1.Schedule{Open: "50%", SpareBuffer: "0", IdleCost: 2}), field: "spec.schedule.idleCost", word: "no effect"},
		"extra":                            {spec: pool(evening)},
		"extra that has begun":             {spec: pool(extra(-time.Hour, time.Hour, 5))},
		"extra backwards":                  {spec: pool(extra(2*time.Hour, time.Hour, 5)), field: "spec.schedule.extra[0].until", word: "not after from"},
		"extra that is over":               {spec: pool(extra(-2*time.Hour, -time.Hour, 5)), field: "spec.schedule.extra[0].until", word: "in the past; it is now 2026-11-23T23:00:00Z"},
		"extra that is over by now":        {spec: pool(extra(-2*time.Hour, -time.Hour, 5)), before: pool(extra(-2*time.Hour, -time.Hour, 5))},
		"extra that is over and was moved": {spec: pool(extra(-3*time.Hour, -time.Hour, 5)), before: pool(extra(-2*time.Hour, -time.Hour, 5)), field: "spec.schedule.extra[0].until", word: "in the past"},
	} {
		got := demand.Check(row.spec, row.before, now)
		switch {
		case row.field == "" && len(got) > 0:
			t.Errorf("%s: %v", name, got)
		case row.field != "" && (len(got) != 1 || got[0].Field != row.field || !strings.Contains(got[0].Reason, row.word)):
			t.Errorf("%s: %v, want one mistake in %s with %q", name, got, row.field, row.word)
		}
	}
}
