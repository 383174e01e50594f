package warmup

import (
	"cmp"
	"fmt"
	"slices"
	"time"
)

// output turns the work sheet into the plan.
func (p *planner) output() Output {
	var out Output
	for _, o := range p.pools {
		out.Pools = append(out.Pools, PoolPlan{
			Name: o.Name, Starts: p.starts(o), Shortfalls: o.shortfalls(p.now), Targets: o.targets, Ready: o.curve(), Hosts: o.uses(),
		})
	}
	return out
}

func (p *planner) starts(o *pool) []Start {
	var starts []Start
	for _, j := range o.jobs {
		at := j.told(p.now)
		starts = append(starts, Start{
			Seat: j.seat.Number, Host: j.host.Name, At: at, Deadline: j.deadline, Fixed: j.fixed,
			Expected: at.Add(j.Mean), Sure: at.Add(j.Quantile), First: j.first,
		})
	}
	slices.SortFunc(starts, func(a, b Start) int { return cmp.Or(a.At.Compare(b.At), cmp.Compare(a.Seat, b.Seat)) })
	return starts
}

// told is the time of a start as hosts are told it: a whole second, unless that is over.
func (j *job) told(now time.Time) time.Time {
	at := j.at.Truncate(time.Second)
	if at.Before(now) && !j.fixed {
		return j.at
	}
	return at
}

// curve is the count of ready desktops over time.
func (o *pool) curve() []Point {
	changes := slices.Clone(o.ready)
	for _, j := range o.jobs {
		if !j.fixed {
			changes = append(changes, change{j.at.Add(j.Mean), 1})
		}
	}
	slices.SortFunc(changes, func(a, b change) int { return a.at.Compare(b.at) })
	var points []Point
	count := 0
	for _, c := range changes {
		count += c.by
		if n := len(points); n > 0 && points[n-1].At.Equal(c.at) {
			points[n-1].Count = count
			continue
		}
		points = append(points, Point{c.at, count})
	}
	return points
}

func (o *pool) uses() []HostUse {
	var uses []HostUse
	for h, e := range o.used {
		uses = append(uses, HostUse{Name: h.Name, Boots: h.boots, Estimate: e})
	}
	slices.SortFunc(uses, func(a, b HostUse) int { return cmp.Compare(a.Name, b.Name) })
	return uses
}

// shortfalls tells of every wish what is late, and of every deadline what never comes.
func (o *pool) shortfalls(now time.Time) []Shortfall {
	var all []Shortfall
	for _, w := range o.wishes {
		var late []*job
		for _, j := range w.jobs {
			if j.told(now).After(j.last()) {
				late = append(late, j)
			}
		}
		if len(late) > 0 {
			all = append(all, lateness(w, late, now))
		}
	}
	all = append(all, o.lacking()...)
	slices.SortStableFunc(all, func(a, b Shortfall) int {
		return cmp.Or(a.Deadline.Compare(b.Deadline), a.Ready.Compare(b.Ready), cmp.Compare(a.Reason, b.Reason))
	})
	return join(all)
}

// lacking tells of every deadline how many are missing then and never come, those that were missing before and still are among them.
func (o *pool) lacking() (all []Shortfall) {
	never := slices.DeleteFunc(slices.Clone(o.wishes), func(w *wish) bool { return w.missing == 0 })
	told := map[time.Time]bool{}
	for _, each := range o.wishes {
		s, most := Shortfall{Deadline: each.From}, 0
		if told[s.Deadline.UTC()] {
			continue
		}
		told[s.Deadline.UTC()] = true
		for _, w := range never {
			if w.From.After(s.Deadline) || w.dropped && !w.until.After(s.Deadline) {
				continue
			}
			s.Desktops += w.missing
			if w.missing > most {
				most, s.Reason = w.missing, w.why
			}
		}
		if s.Desktops > 0 {
			all = append(all, s)
		}
	}
	return all
}

// join adds up what is missing at the same deadline for the same reason.
func join(all []Shortfall) []Shortfall {
	var joined []Shortfall
	for _, s := range all {
		if n := len(joined); n > 0 && joined[n-1].Deadline.Equal(s.Deadline) && joined[n-1].Ready.Equal(s.Ready) && joined[n-1].Reason == s.Reason {
			joined[n-1].Desktops += s.Desktops
			continue
		}
		joined = append(joined, s)
	}
	return joined
}

// lateness puts jobs that miss their deadline into a shortfall.
func lateness(w *wish, late []*job, now time.Time) Shortfall {
	s := Shortfall{Deadline: w.From, Desktops: len(late)}
	last := late[0]
	for _, j := range late {
		if sure := j.told(now).Add(j.Quantile); sure.After(s.Ready) {
			s.Ready, last = sure, j
		}
	}
	s.Reason = whyLate(w, last, now)
	return s
}

// whyLate says why the last start of a wish is late, with numbers.
func whyLate(w *wish, last *job, now time.Time) string {
	hosts, boots := map[*host]bool{}, 0
	for _, j := range w.jobs {
		if !hosts[j.host] {
			hosts[j.host] = true
			boots += j.host.boots
		}
	}
	takes := fmt.Sprintf("a start takes %s (99 of 100 at most %s)", short(last.Mean), short(last.Quantile))
	where := fmt.Sprintf("%s on %s, %d at once", count(len(w.jobs), "desktop"), count(len(hosts), "host"), boots)
	clock := func(t time.Time) string { return t.In(w.From.Location()).Format("15:04:05 MST") }
	left := w.From.Sub(now)
	if left <= 0 {
		return fmt.Sprintf("the deadline was over when this was planned: %s; %s", where, takes)
	}
	if sure := w.Since.Add(last.Quantile); !w.Since.IsZero() && sure.After(w.From) {
		return fmt.Sprintf("%d are wanted then only since %s, %s before: %s; %s", w.Running, clock(w.Since), short(w.From.Sub(w.Since)), where, takes)
	}
	if last.earliest.After(now) && last.earliest.After(last.last()) {
		return fmt.Sprintf("nothing can start on %s before %s, when the image is there and the desktop is prepared; %s", last.host.Name, clock(last.earliest), takes)
	}
	if last.host.returns {
		if room := last.host.roomWithout(now, last); room.After(last.last()) {
			return fmt.Sprintf("%s has no room before %s, when other desktops have ended there; %s", last.host.Name, clock(room), takes)
		}
	}
	return fmt.Sprintf("%s are left for %s; %s", short(left), where, takes)
}

func count(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

// short is a length of time for people.
func short(d time.Duration) string {
	if d < 10*time.Second {
		return d.Round(100 * time.Millisecond).String()
	}
	return d.Round(time.Second).String()
}
