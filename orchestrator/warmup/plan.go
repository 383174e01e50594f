package warmup

import (
	"slices"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"daybreak/orchestrator/store"
	v1 "daybreak/proto/daybreak/v1"
)

// Bounds of the Plan message.
const (
	maxTargets      = 600
	maxHosts        = 1024
	maxStarts       = 5000
	maxShortfalls   = 64
	maxTargetReason = 256
	maxShortReason  = 512
)

// AtOnce: the start was planned when its deadline was over, as for users whom nobody expected. It has nothing to miss.
func AtOnce(s *v1.PlannedStart) bool {
	return !s.GetStartAt().AsTime().Before(s.GetDeadline().AsTime())
}

// OnDate is the part of the plan whose deadlines are on a civil date of zone ("2026-11-24"), as a Plan without meta.
func (p PoolPlan) OnDate(date string, zone *time.Location, made time.Time) *v1.Plan {
	on := func(t time.Time) bool { return t.In(zone).Format(time.DateOnly) == date }
	begin := made
	if midnight, err := time.ParseInLocation(time.DateOnly, date, zone); err == nil {
		begin = later(made, midnight)
	}
	plan := &v1.Plan{Pool: p.Name, Date: date, TimeZone: zone.String(), Made: timestamppb.New(made)}
	for i, t := range p.Targets {
		lasts := i+1 == len(p.Targets) || p.Targets[i+1].From.In(zone).Format(time.DateOnly) >= date
		if day := t.From.In(zone).Format(time.DateOnly); day > date || day < date && !lasts || len(plan.Targets) == maxTargets {
			continue
		}
		target := &v1.PlanTarget{From: timestamppb.New(later(t.From, begin)), Running: uint32(max(0, t.Running)), Reason: store.Cut(t.Reason, maxTargetReason)}
		if !t.Since.IsZero() {
			target.Since = timestamppb.New(t.Since)
		}
		plan.Targets = append(plan.Targets, target)
	}
	places := map[string]uint32{}
	for _, s := range p.Starts {
		if !on(s.Deadline) || len(plan.Starts) == maxStarts {
			continue
		}
		place, ok := places[s.Host]
		if !ok {
			if len(plan.Hosts) == maxHosts {
				continue
			}
			place = uint32(len(plan.Hosts))
			places[s.Host] = place
			plan.Hosts = append(plan.Hosts, p.host(s.Host))
		}
		plan.Starts = append(plan.Starts, &v1.PlannedStart{
			Seat: s.Seat, Host: place, StartAt: timestamppb.New(s.At), Deadline: timestamppb.New(s.Deadline),
		})
	}
	for _, s := range p.Shortfalls {
		// What was wanted only when this was planned is woken at once; nobody could have planned for it.
		atOnce := !s.Ready.IsZero() && !s.Deadline.After(made)
		if on(s.Deadline) && !atOnce {
			plan.Shortfalls = append(plan.Shortfalls, shortfall(s))
		}
	}
	plan.Shortfalls = fewer(plan.Shortfalls)
	if len(plan.Targets) > 0 {
		plan.Standing = proto.Uint32(uint32(p.standing(plan.Targets[0].GetFrom().AsTime(), on)))
	}
	return plan
}

// standing is how many are ready as a day begins, without those that start for a deadline on it.
func (p PoolPlan) standing(begin time.Time, on func(time.Time) bool) (n int) {
	for _, point := range p.Ready {
		if !point.At.After(begin) {
			n = point.Count
		}
	}
	for _, s := range p.Starts {
		if on(s.Deadline) && !s.Expected.After(begin) {
			n--
		}
	}
	return min(maxStarts, max(0, n))
}

func (p PoolPlan) host(name string) *v1.PlanHost {
	i := slices.IndexFunc(p.Hosts, func(h HostUse) bool { return h.Name == name })
	if i < 0 {
		return &v1.PlanHost{Name: name}
	}
	h := p.Hosts[i]
	return &v1.PlanHost{
		Name: name, Boots: uint32(h.Boots), Mean: durationpb.New(h.Mean), Quantile: durationpb.New(h.Quantile), Samples: uint32(h.Samples),
	}
}

func shortfall(s Shortfall) *v1.Shortfall {
	short := &v1.Shortfall{Deadline: timestamppb.New(s.Deadline), Desktops: uint32(s.Desktops), Reason: store.Cut(s.Reason, maxShortReason)}
	if !s.Ready.IsZero() {
		short.Ready = timestamppb.New(s.Ready)
	}
	return short
}

// fewer puts the shortfalls that a Plan has no room for into its last one.
func fewer(all []*v1.Shortfall) []*v1.Shortfall {
	if len(all) <= maxShortfalls {
		return all
	}
	last := all[maxShortfalls-1]
	for _, more := range all[maxShortfalls:] {
		last.Desktops = max(last.Desktops, more.Desktops)
		switch {
		case more.Ready == nil || last.Ready == nil:
			last.Ready = nil
		case more.Ready.AsTime().After(last.Ready.AsTime()):
			last.Ready = more.Ready
		}
	}
	last.Reason = store.Cut("this and later ones: "+last.Reason, maxShortReason)
	return all[:maxShortfalls]
}
