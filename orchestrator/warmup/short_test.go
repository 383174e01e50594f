package warmup_test

import (
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"
	"pgregory.net/rapid"

	"daybreak/orchestrator/warmup"
	v1 "daybreak/proto/daybreak/v1"
)

// The same desktops are missing at several deadlines of a day. They are told at each of them, and a day is as short as at its worst deadline.
func TestShortAtOnce(t *testing.T) {
	in := site(1, 4, 40, 0)
	in.Hosts[0].MemoryMiB = 14 * 1024
	in.Pools[0].Targets = []warmup.Target{
		{From: at("00:00:00"), Running: 2}, {From: at("08:00:00"), Running: 36}, {From: at("10:00:00"), Running: 40},
		{From: at("12:00:00"), Running: 20}, {From: at("13:00:00"), Running: 40}, {From: at("17:15:00"), Running: 2},
	}
	plan := warmup.Plan(at("06:00:00"), in).Pools[0].OnDate("2026-11-24", open.Location(), at("06:00:00"))
	plan.TimeZone = "Asia/Tokyo"
	short := map[string]uint32{}
	for _, s := range plan.GetShortfalls() {
		short[s.GetDeadline().AsTime().In(open.Location()).Format("15:04")] += s.GetDesktops()
	}
	if len(short) != 3 || short["08:00"] != 22 || short["10:00"] != 26 || short["13:00"] != 26 {
		t.Errorf("short: %v", short)
	}
	if most, when := warmup.MostShort(plan, time.Time{}); most != 26 || !when.Equal(at("10:00:00")) {
		t.Errorf("%d are short at once, at %v", most, when)
	}
	if most, when := warmup.MostShort(plan, at("10:00:00")); most != 26 || !when.Equal(at("13:00:00")) {
		t.Errorf("later %d are short at once, at %v", most, when)
	}
	const future, past = "will be short: 26 desktops will not be ready by 10:00, nor later: the hosts of ", " 26 desktops could not be planned: the hosts of "
	if got := warmup.Summary(plan, at("06:00:00"), nil); !strings.Contains(got, future) || strings.Contains(got, "In all") {
		t.Errorf("summary %q", got)
	}
	if got := warmup.Summary(plan, at("23:00:00"), nil); !strings.Contains(got, past) {
		t.Errorf("summary %q", got)
	}
}

// What is ready late is short at all deadlines until then, beside what never is.
func TestShortUntilReady(t *testing.T) {
	short := func(clock string, n uint32, ready string) *v1.Shortfall {
		s := &v1.Shortfall{Deadline: timestamppb.New(at(clock)), Desktops: n, Reason: "it is so"}
		if ready != "" {
			s.Ready = timestamppb.New(at(ready))
		}
		return s
	}
	plan := &v1.Plan{Pool: "counter", Date: "2026-11-24", TimeZone: "Asia/Tokyo", Shortfalls: []*v1.Shortfall{
		short("08:30:00", 5, "08:40:00"), short("08:35:00", 3, "08:45:00"), short("08:35:00", 1, ""), short("08:40:00", 4, ""),
	}}
	if most, when := warmup.MostShort(plan, time.Time{}); most != 9 || !when.Equal(at("08:35:00")) {
		t.Errorf("%d are short at once, at %v", most, when)
	}
	const want = "3 desktops will not be ready by 08:35, the last of them at 08:45, 10m0s later: it is so. In all 9 are short then."
	if got := warmup.Summary(plan, at("06:00:00"), nil); !strings.HasSuffix(got, want) {
		t.Errorf("summary %q", got)
	}
	if most, _ := warmup.MostShort(&v1.Plan{}, time.Time{}); most != 0 {
		t.Errorf("a plan of nothing is short of %d", most)
	}
}

// No deadline lacks more desktops for good than are wanted then, whatever targets do before it.
func TestShortIsNoMoreThanWanted(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		now := at("06:00:00")
		in := anyInput(t, now, false)
		for n, p := range warmup.Plan(now, in).Pools {
			never := map[time.Time]int{}
			for _, s := range p.Shortfalls {
				if s.Ready.IsZero() {
					never[s.Deadline] += s.Desktops
				}
			}
			for _, target := range in.Pools[n].Targets {
				if never[target.From] > target.Running {
					t.Fatalf("at %v %d of %d are missing", target.From, never[target.From], target.Running)
				}
			}
		}
	})
}
