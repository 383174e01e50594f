package warmup

import (
	"cmp"
	"slices"
	"time"
)

// planner is the work sheet of one plan. It goes through the moments at which some pool's target changes, in their order:
// what is too many is cooled then, what is missing was started before.
type planner struct {
	now        time.Time
	until      time.Time
	keep, near time.Duration
	model      *Model
	keeping    bool // starts that the plan before had stay where they are, if they can
	pools      []*pool
	hosts      []*host
	byName     map[string]*host
	known      map[Boot]Estimate // what the model said, since many hosts and pools are alike
}

// pool is a pool in the making of the plan.
type pool struct {
	*Pool
	targets   []Target // from now on
	cold      map[*host][]*seat
	homeless  []*seat // cold, without a host
	planned   []*seat // cold, with a start in the plan before that has its place, latest first
	hosts     []*host // where those may go
	warm      []*seat // run, and may be cooled
	running   int
	wishes    []*wish // in order of deadlines
	open      int     // what wishes still miss
	jobs      []*job
	estimates map[estimateKey]Estimate
	ready     []change // of the count of ready desktops
	used      map[*host]Estimate
}

type estimateKey struct {
	host   *host
	digest string
}

// change of a count.
type change struct {
	at time.Time
	by int
}

// seat is a desktop in the making of the plan.
type seat struct {
	Seat
	host     *host
	had      time.Time // its start time in the plan before
	earliest time.Time // it can start then
	cooled   bool      // it ran before
	job      *job      // the newest
	slot     *slot     // where its start in the plan before has its place
}

// wish is desktops that should be ready at a deadline.
type wish struct {
	Target
	want    int
	missing int
	dropped bool      // nobody wants what is missing any more
	until   time.Time // then it was dropped
	jobs    []*job
	why     string // why some are missing
}

// job is one start.
type job struct {
	Estimate
	pool     *pool
	seat     *seat
	host     *host
	wish     *wish
	deadline time.Time
	at       time.Time
	earliest time.Time // without regard to boots and memory
	fixed    bool
	first    bool // the seat is cold now
}

// last is the latest time at which the job may start, if nothing before it is in its way.
func (j *job) last() time.Time { return j.deadline.Add(-j.Quantile) }

// best is when it should start: what is before it may take longer.
func (j *job) best() time.Time {
	return j.last().Add(-j.host.margin(j.host.due[j.deadline.UTC()], j.Deviation))
}

// meet gives the job another deadline.
func (j *job) meet(w *wish) {
	j.host.due[j.deadline.UTC()]--
	j.wish, j.deadline = w, w.From
	j.host.due[j.deadline.UTC()]++
}

func newPlanner(now time.Time, in Input, keeping bool, known map[Boot]Estimate) *planner {
	p := &planner{
		now: now, until: in.Until, keep: cmp.Or(in.Keep, DefaultKeep), near: cmp.Or(in.Near, DefaultNear), model: in.Model,
		keeping: keeping, byName: map[string]*host{}, known: known,
	}
	for _, h := range in.Hosts {
		p.hosts = append(p.hosts, &host{
			Host: h, boots: min(max(1, h.Boots), maxBoots), memory: h.MemoryMiB, vcpus: h.VCPUs, begun: map[time.Time]int{}, due: map[time.Time]int{},
		})
	}
	slices.SortFunc(p.hosts, func(a, b *host) int { return cmp.Compare(a.Name, b.Name) })
	for _, h := range p.hosts {
		p.byName[h.Name] = h
	}
	for i := range in.Pools {
		p.pools = append(p.pools, p.enter(&in.Pools[i]))
	}
	if keeping {
		p.reserve()
	}
	return p
}

// settlings is how often starts are timed anew; each time may let swap find something.
const settlings = 3

func (p *planner) plan() {
	for _, at := range p.moments() {
		p.turn(at)
		p.assign()
	}
	if p.keeping {
		for _, h := range p.hosts {
			h.closeUp()
		}
		for _, o := range p.pools {
			o.swap()
		}
		return
	}
	for range settlings {
		for _, h := range p.hosts {
			h.settle(p.now)
		}
		for _, o := range p.pools {
			o.swap()
		}
	}
	for _, h := range p.hosts { // for the deadlines that starts have now
		h.settle(p.now)
		h.closeUp()
	}
	for _, h := range p.hosts {
		h.match()
	}
	for _, o := range p.pools {
		o.match()
	}
}

// enter reads a pool.
func (p *planner) enter(in *Pool) *pool {
	o := &pool{
		Pool: in, targets: p.from(in.Targets), cold: map[*host][]*seat{}, estimates: map[estimateKey]Estimate{}, used: map[*host]Estimate{},
	}
	for _, h := range p.hosts {
		if in.Hosts == nil || slices.Contains(in.Hosts, h.Name) {
			o.hosts = append(o.hosts, h)
		}
	}
	seats := slices.Clone(in.Seats)
	// Those that are on their way take their places in the order in which they began.
	slices.SortStableFunc(seats, func(a, b Seat) int {
		return cmp.Or(a.StartAt.Compare(b.StartAt), cmp.Compare(a.Number, b.Number))
	})
	for _, each := range seats {
		s := &seat{Seat: each, host: p.byName[each.Host], had: each.StartAt, earliest: p.now}
		switch {
		case s.host == nil && each.Host != "": // not a host that anything starts on
		case each.Phase == Cold && !p.isNear(each):
			o.chill(s)
		default:
			p.enterRunning(o, s)
		}
	}
	for _, seats := range o.cold {
		slices.SortFunc(seats, inTurn)
	}
	slices.SortFunc(o.homeless, inTurn)
	slices.SortFunc(o.warm, func(a, b *seat) int { return cmp.Compare(a.Number, b.Number) })
	return o
}

// from leaves out what was before.
func (p *planner) from(targets []Target) []Target {
	first := 0
	for i, t := range targets {
		if !t.From.After(p.now) {
			first = i
		}
	}
	var kept []Target
	for _, t := range targets[min(first, len(targets)):] {
		if t.From.Before(p.until) || len(kept) == 0 {
			kept = append(kept, t)
		}
	}
	return kept
}

// isNear: the start was told to the host, and may be happening.
func (p *planner) isNear(s Seat) bool {
	return s.Host != "" && !s.StartAt.IsZero() && !s.StartAt.After(p.now.Add(p.near))
}

// inTurn is the order in which cold seats get the places that a plan has, latest first: so that each gets again what it had.
func inTurn(a, b *seat) int {
	return cmp.Or(b.StartAt.Compare(a.StartAt), cmp.Compare(a.Number, b.Number))
}

func (o *pool) chill(s *seat) {
	if s.host == nil {
		o.homeless = append(o.homeless, s)
		return
	}
	o.cold[s.host] = append(o.cold[s.host], s)
}

// enterRunning counts a seat that runs, or is about to.
func (p *planner) enterRunning(o *pool, s *seat) {
	o.running++
	if !s.Claimed {
		o.warm = append(o.warm, s)
	}
	if s.host == nil { // told to run, and not placed yet
		o.ready = append(o.ready, change{p.now.Add(p.estimate(o, nil, s.Digest).Mean), 1})
		return
	}
	s.host.memory -= o.MemoryMiB
	s.host.vcpus -= o.VCPUs
	if s.Phase != Cold && s.For.After(p.now) {
		s.host.begin(s.For)
	}
	if s.Phase == Ready {
		o.ready = append(o.ready, change{p.now, 1})
		return
	}
	e := p.estimate(o, s.host, s.Digest)
	began := s.StartAt
	if began.IsZero() {
		began = p.now
	}
	until := later(p.now, began.Add(e.Mean))
	s.host.occupy(until.Truncate(time.Second)) // as start times are
	o.ready = append(o.ready, change{until, 1})
	if s.Phase == Cold {
		j := &job{Estimate: e, pool: o, seat: s, host: s.host, at: s.StartAt, earliest: s.StartAt, fixed: true, first: true}
		j.deadline = o.deadlineOf(j)
		s.host.begin(j.deadline)
		o.jobs = append(o.jobs, j)
		o.used[s.host] = e
		s.job = j
	}
}

// deadlineOf is what a fixed start was planned for; when nobody knows, the first time at which the target rises that it can meet, or else that of
// its readiness.
func (o *pool) deadlineOf(j *job) time.Time {
	if !j.seat.For.IsZero() {
		return j.seat.For
	}
	for i := 1; i < len(o.targets); i++ {
		if o.targets[i].Running > o.targets[i-1].Running && !o.targets[i].From.Before(j.at) {
			return o.targets[i].From
		}
	}
	return j.at.Add(j.Quantile)
}

// estimate says how long a start of the pool on the host takes; nil stands for any.
func (p *planner) estimate(o *pool, h *host, digest string) Estimate {
	if digest == "" {
		digest = o.Digest
	}
	key := estimateKey{h, digest}
	if e, ok := o.estimates[key]; ok {
		return e
	}
	boot := Boot{Image: o.Image, Digest: digest, Readiness: o.Readiness, AtOnce: 1}
	if h != nil {
		boot.Class, boot.AtOnce = h.Class, h.boots
	}
	e, asked := p.known[boot]
	if !asked {
		e = p.model.Estimate(boot)
		p.known[boot] = e
	}
	if h != nil && h.ReadRate > 0 && e.ReadBytes > 0 {
		// All boots of a wave read through the one store.
		seconds := min(float64(e.ReadBytes)*float64(h.boots)/float64(h.ReadRate), cmp.Or(max(0, o.Readiness), defaultReadiness).Seconds())
		reading := time.Duration(seconds * float64(time.Second))
		e.Mean, e.Quantile = max(e.Mean, reading), max(e.Quantile, reading)
	}
	o.estimates[key] = e
	return e
}

// moments are now and all times at which a target changes, in order.
func (p *planner) moments() []time.Time {
	all := []time.Time{p.now}
	for _, o := range p.pools {
		for _, t := range o.targets {
			if t.From.After(p.now) {
				all = append(all, t.From)
			}
		}
	}
	slices.SortFunc(all, time.Time.Compare)
	return slices.CompactFunc(all, time.Time.Equal)
}
