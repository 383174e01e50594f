package main

import (
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"daybreak/orchestrator/demand"
	"daybreak/orchestrator/warmup"
	v1 "daybreak/proto/daybreak/v1"
)

// What people write who let it learn, who know their day, and who want no surprises.
func learnedSchedule() *v1.Schedule { return &v1.Schedule{Open: "learned", Closed: "learned"} }

func spansSchedule() *v1.Schedule {
	return &v1.Schedule{Open: "75%", Spans: []*v1.TargetSpan{
		{From: "08:15", To: "08:50", Target: "45%"}, {From: "08:50", To: "12:00", Target: "90%"}, {From: "16:30", To: "17:15", Target: "50%"},
	}, SpareBuffer: "10%"}
}

func openSchedule() *v1.Schedule { return &v1.Schedule{SpareBuffer: "0"} }

// Our control plane plans again every half hour, two hours ahead. It has its own timetable in the product; what matters is that a plan is
// older than what has happened since.
const (
	planEvery = 30 * minute
	planAhead = 2 * hour
	keepFor   = 30 * minute
	class     = "a host"
)

// ours is the product: the curve of demand, the plan of warmup, and the pool's rule.
type ours struct {
	world    *world
	schedule *v1.Schedule
	curves   map[*pool][]demand.Step
	model    *warmup.Model
}

func newOurs(w *world, s *v1.Schedule) *ours {
	return &ours{world: w, schedule: s, curves: map[*pool][]demand.Step{}}
}

func (o *ours) limit() int { return 0 }

// digest of the one version that a pool's desktops run.
func digest(p *pool) string {
	return strings.Repeat("0", 64-len(p.house.name)) + p.house.name
}

func (o *ours) prepare(e *engine, now second) {
	if now%day == 0 {
		o.learn(e)
		for _, p := range e.pools {
			o.curves[p] = o.curve(p, now)
		}
	}
	if now%planEvery == 0 {
		o.plan(e, now)
	}
}

// learn reads the times that starts took.
func (o *ours) learn(e *engine) {
	var histories []*v1.History
	for _, p := range e.pools {
		h := &v1.History{}
		for i, took := range p.boots {
			h.Boots = append(h.Boots, &v1.BootSample{Digest: digest(p), HostClass: class, AtOnce: bootsAtOnce,
				Took: durationpb.New(time.Duration(took) * time.Second), Ready: timestamppb.New(o.world.start.Add(time.Duration(i) * time.Second))})
		}
		histories = append(histories, h)
	}
	o.model = warmup.Learn(histories, func(d string) string { return d })
}

func (o *ours) estimate(p *pool) warmup.Estimate {
	return o.model.Estimate(warmup.Boot{Image: digest(p), Digest: digest(p), Class: class, AtOnce: bootsAtOnce, Readiness: 10 * time.Minute})
}

// curve is what the pool asks for on the day that begins, by what was seen until yesterday.
func (o *ours) curve(p *pool, now second) []demand.Step {
	from := o.world.at(now)
	past := &v1.History{Days: p.house.days[max(0, now/day-70) : now/day]}
	return demand.Curve(demand.Pool{
		Spec:     &v1.PoolSpec{Desktops: uint32(len(p.seats)), Schedule: o.schedule},
		Calendar: o.world.calendar, History: past, TimeToReady: o.estimate(p).Quantile,
	}, from, o.world.at(now+day+planAhead))
}

// plan gives cold seats their start times.
func (o *ours) plan(e *engine, now second) {
	in := warmup.Input{Until: o.world.at(now + planAhead), Model: o.model}
	rises := false
	for _, p := range e.pools {
		in.Pools = append(in.Pools, o.enter(p, now))
		rises = rises || demand.Peak(o.curves[p], o.world.at(now), in.Until).Target > p.warm()
	}
	if !rises {
		return
	}
	for i := range e.hosts {
		in.Hosts = append(in.Hosts, warmup.Host{Name: hostName(i), Class: class, Boots: bootsAtOnce, MemoryMiB: 1 << 40, VCPUs: 1 << 40})
	}
	out := warmup.Plan(o.world.at(now), in)
	for i, plan := range out.Pools {
		p := e.pools[i]
		for _, s := range p.seats {
			s.startAt = 0
		}
		for _, start := range plan.Starts {
			if s := p.seats[start.Seat-1]; start.First && s.state == cold {
				s.startAt = max(now, o.world.since(start.At))
				e.enter(event{at: s.startAt, kind: planned, pool: p, seat: s, life: s.life})
			}
		}
	}
}

func hostName(i int) string { return "host-" + string(rune('a'+i/26)) + string(rune('a'+i%26)) }

// enter is a pool as warmup sees it.
func (o *ours) enter(p *pool, now second) warmup.Pool {
	w := warmup.Pool{Name: p.house.name, Image: digest(p), Digest: digest(p), Readiness: 10 * time.Minute, MemoryMiB: 1, VCPUs: 1}
	for _, s := range p.seats {
		each := warmup.Seat{Number: uint32(s.number) + 1, Host: hostName(s.hostNumber), Claimed: s.state == held}
		switch s.state {
		case waiting, booting:
			each.Phase, each.StartAt = warmup.Starting, o.world.at(s.begun)
		case ready, held:
			each.Phase = warmup.Ready
		case cold:
			if s.startAt > 0 {
				each.StartAt = o.world.at(s.startAt)
			}
		}
		w.Seats = append(w.Seats, each)
	}
	at, until := o.world.at(now), o.world.at(now+planAhead)
	w.Targets = append(w.Targets, warmup.Target{From: at, Running: demand.At(o.curves[p], at).Wanted(p.inUse(), len(p.seats))})
	for _, s := range o.curves[p] {
		if s.From.After(at) && s.From.Before(until) {
			w.Targets = append(w.Targets, warmup.Target{From: s.From, Running: s.Wanted(p.inUse(), len(p.seats))})
		}
	}
	return w
}

// react is the pool's rule: too few are woken, and what is wanted neither now nor within half an hour is cooled.
func (o *ours) react(p *pool, now second, _ bool) {
	at := o.world.at(now)
	step := demand.At(o.curves[p], at)
	wanted := step.Wanted(p.inUse(), len(p.seats))
	if warm := p.warm(); warm < wanted {
		p.wake(wanted - warm)
	} else if keep := max(wanted, demand.Peak(o.curves[p], at, o.world.at(now+keepFor)).Target); warm > keep {
		p.cool(warm - keep)
	}
}
