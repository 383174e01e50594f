package warmup_test

import (
	"fmt"
	"testing"
	"time"

	"daybreak/orchestrator/warmup"
)

// 2,000 desktops on 60 hosts.
func BenchmarkPlan(b *testing.B) {
	in := site(60, 8, 34, 2000)
	now := at("06:00:00")
	for b.Loop() {
		warmup.Plan(now, in)
	}
}

// 20 pools of 100 desktops on 60 hosts, whose day was planned before.
func BenchmarkPlanAgain(b *testing.B) {
	in := site(60, 8, 34, 0)
	all := in.Pools[0]
	in.Pools = nil
	for n := range 20 {
		p := all
		p.Name, p.Seats = fmt.Sprint("pool", n), nil
		for i, s := range all.Seats[n*100 : n*100+100] {
			s.Number = uint32(i + 1)
			s.Host = in.Hosts[(n*7+i)%60].Name
			p.Seats = append(p.Seats, s)
		}
		p.Targets = []warmup.Target{{From: open.Add(-24 * time.Hour)}}
		for i := range 24 { // as if learned
			p.Targets = append(p.Targets, warmup.Target{From: open.Add(time.Duration(i*5) * time.Minute), Running: min(100, 60+i*2)})
		}
		p.Targets = append(p.Targets, warmup.Target{From: open.Add(9 * time.Hour)})
		in.Pools = append(in.Pools, p)
	}
	now := at("06:00:00")
	follow(in, warmup.Plan(now, in), now)
	for b.Loop() {
		warmup.Plan(now, in)
	}
}
