package warmup

import (
	"cmp"
	"slices"
	"time"
)

// swap lets the starts that are ready first meet the first deadlines, on whatever host they are: one that has to begin early, because its
// host is busy later, may spare another a deadline.
func (o *pool) swap() {
	var jobs []*job
	var wishes []*wish
	for _, j := range o.jobs {
		if !j.fixed && !j.seat.cooled { // who is cooled in between meets deadlines on both sides of it
			jobs, wishes = append(jobs, j), append(wishes, j.wish)
		}
	}
	for _, w := range o.wishes {
		w.jobs = nil
	}
	slices.SortStableFunc(jobs, func(a, b *job) int {
		return cmp.Or(a.at.Add(a.Quantile).Compare(b.at.Add(b.Quantile)), a.deadline.Compare(b.deadline))
	})
	slices.SortStableFunc(wishes, func(a, b *wish) int { return a.From.Compare(b.From) })
	for i, j := range jobs {
		j.meet(wishes[i])
	}
	for _, j := range o.jobs {
		if j.wish != nil {
			j.wish.jobs = append(j.wish.jobs, j)
		}
	}
}

// match gives each seat that waits for a start the one that it had in the plan before, if that is still among them: which seat
// gets which of a host's starts makes no difference otherwise.
func (o *pool) match() {
	type group struct {
		host   *host // nil for seats that have none
		digest string
	}
	groups := map[group][]*job{}
	for _, j := range o.jobs {
		if j.fixed || !j.first {
			continue
		}
		g := group{digest: j.seat.Digest}
		if j.seat.Host != "" {
			g.host = j.host
		}
		groups[g] = append(groups[g], j)
	}
	for _, jobs := range groups {
		reunite(jobs)
	}
}

// reunite deals the seats of jobs out among them anew.
func reunite(jobs []*job) {
	slices.SortFunc(jobs, func(a, b *job) int {
		return cmp.Or(a.at.Compare(b.at), cmp.Compare(a.host.Name, b.host.Name), a.deadline.Compare(b.deadline), cmp.Compare(a.seat.Number, b.seat.Number))
	})
	had := map[time.Time][]*seat{}
	var seats []*seat
	for _, j := range jobs {
		seats = append(seats, j.seat)
	}
	slices.SortFunc(seats, func(a, b *seat) int {
		return cmp.Or(a.had.Compare(b.had), cmp.Compare(a.Number, b.Number))
	})
	for _, s := range seats {
		had[s.had.UTC()] = append(had[s.had.UTC()], s)
	}
	kept := map[*seat]bool{}
	var rest []*job
	for _, j := range jobs {
		at := j.at.Truncate(time.Second).UTC()
		if same := had[at]; len(same) > 0 {
			j.seat = same[0]
			kept[same[0]] = true
			had[at] = same[1:]
			continue
		}
		rest = append(rest, j)
	}
	seats = slices.DeleteFunc(seats, func(s *seat) bool { return kept[s] })
	for i, j := range rest {
		j.seat = seats[i]
	}
}

// match lets starts of different pools that could stand in for each other keep the times that they had.
func (h *host) match() {
	type kind struct {
		deadline, earliest time.Time
		mean, quantile     time.Duration
		memory, vcpus      int64
	}
	kinds := map[kind][]*job{}
	// Where nothing comes back, a start that has room has it at any time.
	returns := slices.ContainsFunc(h.promises, func(p promise) bool { return p.memory > 0 || p.vcpus > 0 })
	for _, s := range h.slots {
		for _, j := range s.jobs {
			if j.first {
				k := kind{deadline: j.deadline.UTC(), earliest: j.earliest.UTC(), mean: j.Mean, quantile: j.Quantile}
				if returns {
					k.memory, k.vcpus = j.pool.MemoryMiB, j.pool.VCPUs
				}
				kinds[k] = append(kinds[k], j)
			}
		}
	}
	for _, jobs := range kinds {
		if slices.ContainsFunc(jobs, func(j *job) bool { return j.pool != jobs[0].pool }) {
			retime(jobs)
		}
	}
}

// retime deals the times of jobs out among them anew.
func retime(jobs []*job) {
	slices.SortFunc(jobs, func(a, b *job) int {
		return cmp.Or(a.seat.had.Compare(b.seat.had), cmp.Compare(a.pool.Name, b.pool.Name), cmp.Compare(a.seat.Number, b.seat.Number))
	})
	var times []time.Time
	for _, j := range jobs {
		times = append(times, j.at)
	}
	slices.SortFunc(times, time.Time.Compare)
	var rest []*job
	for _, j := range jobs {
		i := slices.IndexFunc(times, func(at time.Time) bool { return at.Truncate(time.Second).Equal(j.seat.had) })
		if i < 0 {
			rest = append(rest, j)
			continue
		}
		j.at = times[i]
		times = slices.Delete(times, i, i+1)
	}
	for i, j := range rest {
		j.at = times[i]
	}
}
