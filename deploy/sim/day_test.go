package sim

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	v1 "daybreak/proto/daybreak/v1"
)

var (
	daysFlag     = flag.Int("days", 4, "virtual days of TestDays; 84 is twelve weeks. The first is a Saturday")
	dayHostsFlag = flag.Int("dayhosts", 3, "hosts of TestDays")
	dayPoolsFlag = flag.Int("daypools", 3, "pools of TestDays")
	daySeatsFlag = flag.Int("dayseats", 13, "desktops that a host of TestDays has memory for, and has; fewer are larger ones")
)

// The office of TestDays, in UTC: half past eight to a quarter past five, Monday to Friday.
const (
	opening  = 8*time.Hour + 30*time.Minute
	closing  = 17*time.Hour + 15*time.Minute
	dayStep  = 5 * time.Second
	calmFrom = 45 * time.Minute // after a fault in which nothing is asked of readiness
	// slack is how late a start may be that waited for the one before it in its host's slot: a plan promises 99 of 100 of each start,
	// not of a row of them.
	slack = time.Minute
	// typhoon is a Wednesday on which hardly anybody comes, although the office opens.
	typhoon = "2000-01-26"
)

// TestDays lets offices open and close: people come in the morning and go, hosts and daybreakds fail, and each minute the
// invariants hold. When an office opens every desktop that its schedule wants is ready, and at night nothing runs for nobody.
func TestDays(t *testing.T) {
	days := *daysFlag
	if testing.Short() {
		t.Skip("takes half a minute")
	}
	build := func(s *sim) {
		// What idle hosts say would be most of what there is to simulate. What changes is told at once all the same.
		s.reports.period, s.reports.grace = 50*time.Second, 2*time.Minute
		s.buildOffices(*dayHostsFlag, *dayPoolsFlag, *daySeatsFlag)
	}
	inWorld(t, *seedFlag, build, func(s *sim) {
		d := &dayStory{sim: s, rng: rand.New(rand.NewPCG(*seedFlag, 9)), workers: map[*user]*worker{}}
		if !d.play(days) {
			s.report()
			return
		}
		t.Logf("seed %d: %d days, %d faults, %d of %d claims found a ready desktop at once, %d openings were looked at, %d of them after faults; "+
			"%d of %d desktops were ready as an office opened; %d were suspended, %d taken back; revision %d", s.seed, days, s.struck, d.hits, d.claims, d.openings, d.excused, d.inTime, d.due, s.truth.sleeps, s.history.reclaims, s.history.revision)
		d.makespans.check(t)
		if days > 2 && (d.claims == 0 || d.openings == 0) {
			t.Error("nobody came, or nothing opened")
		}
	})
}

// buildOffices makes pools with schedules of all kinds.
func (s *sim) buildOffices(hosts, pools, seats int) {
	s.create(&v1.Zone{Meta: &v1.Meta{Name: "lgwan"}, Spec: &v1.ZoneSpec{DisplayName: "lgwan"}})
	s.create(&v1.Image{Meta: &v1.Meta{Name: "debian"}})
	s.publish(sound)
	s.create(&v1.Calendar{Meta: &v1.Meta{Name: "office"}, Spec: &v1.CalendarSpec{TimeZone: "UTC",
		Hours:    []*v1.OfficeHours{{Days: []v1.Weekday{1, 2, 3, 4, 5}, Open: "08:30", Close: "17:15"}},
		Holidays: []*v1.CalendarDay{{Date: "2000-01-10"}, {Date: "2000-02-11"}, {Date: "2000-03-20"}},
		Openings: []*v1.CalendarOpening{{Date: "2000-01-16", Open: "08:30", Close: "17:15", Name: "election"}}}})
	s.cpus = max(hostCPUs, seats/3) // an agent lets four vCPUs share one: some are left for what comes from a host that died
	for i := range hosts {
		n := newNode(s, i, []string{"lgwan"})
		s.nodes = append(s.nodes, n)
		s.enrol(n)
	}
	schedules := []*v1.Schedule{
		{Open: "learned", Closed: "learned"},
		{},
		{Open: "60%", SpareBuffer: "10%", Spans: []*v1.TargetSpan{{From: "08:30", To: "10:00", Target: "80%"}, {From: "16:00", To: "24:00", Target: "10%"}}},
	}
	for i := range pools {
		p := poolPlan{name: fmt.Sprintf("office%d", i), zone: "lgwan", seats: hosts * seats / pools, memory: uint32(13 << 10 / seats)}
		s.pools = append(s.pools, p)
		s.zoneOf[p.name] = p.zone
		s.create(&v1.Pool{Meta: &v1.Meta{Name: p.name}, Spec: &v1.PoolSpec{Image: "debian", Zone: p.zone, Desktops: uint32(p.seats), Calendar: "office", Idle: whileOpen(i),
			Shape: &v1.Shape{MemoryMib: p.memory}, MinReady: uint32(i % 2), MaxUnavailable: uint32(max(1, p.seats/4)), Schedule: schedules[i%len(schedules)]}})
		for n := range p.seats * 9 / 10 {
			s.users = append(s.users, &user{sim: s, name: fmt.Sprintf("%s-user-%d", p.name, n), pool: p.name})
		}
	}
	s.powerUp()
}

// dayStory is the days that go by.
type dayStory struct {
	*sim
	rng     *rand.Rand
	workers map[*user]*worker
	lastHit time.Time // by a fault

	claims, hits, openings, excused int
	due, inTime                     int // desktops that openings wanted, and those that were ready to the second
	makespans                       makespan
}

// worker is what a user does today.
type worker struct {
	come, leave, next time.Time
	asked             bool
	absence           absence
}

func (d *dayStory) play(days int) bool {
	for day := range days {
		today := midnight.AddDate(0, 0, day)
		d.plan(today)
		for step := range int(24 * time.Hour / dayStep) {
			time.Sleep(dayStep)
			now := time.Now()
			d.mend(now)
			d.tick(now)
			d.trouble(now, now.Sub(today))
			d.work(now)
			if step%12 == 11 && (!d.check() || !d.checkDay(today, now)) {
				return false
			}
		}
		d.t.Logf("%s is over: %d of %d claims found a ready desktop at once, %d of %d desktops were ready as an office opened, %d faults",
			today.Format("Mon 2006-01-02"), d.hits, d.claims, d.inTime, d.due, d.struck)
	}
	return true
}

// open says whether the office opens on a date.
func (d *dayStory) open(today time.Time) bool {
	switch today.Format(time.DateOnly) {
	case "2000-01-10", "2000-02-11", "2000-03-20":
		return false
	case "2000-01-16":
		return true
	}
	return today.Weekday() != time.Saturday && today.Weekday() != time.Sunday
}

// plan draws who comes today: more on Mondays, and hardly anybody on the day of the typhoon.
func (d *dayStory) plan(today time.Time) {
	for _, u := range d.users {
		delete(d.workers, u)
		share := 0.8
		switch {
		case today.Format(time.DateOnly) == typhoon:
			share = 0.15
		case today.Weekday() == time.Monday:
			share = 0.9
		}
		if !d.open(today) || d.rng.Float64() > share {
			continue
		}
		come := d.arrival(today)
		leave := today.Add(closing + time.Duration(d.rng.IntN(3600)-1800)*time.Second)
		if d.rng.IntN(5) == 0 {
			leave = come.Add(time.Duration(20+d.rng.IntN(120)) * time.Minute)
		}
		d.workers[u] = &worker{come: come, leave: leave}
		if d.spec(u.pool).GetIdle() != nil {
			d.beAbsent(d.workers[u])
		}
	}
}

// arrival draws when somebody comes: four of ten logons lie in the middle sixth of the hour in which the office opens, three
// in the rest of that hour, and three in the hours after it.
func (d *dayStory) arrival(today time.Time) time.Time {
	const middle, sixth = 25 * 60, 10 * 60
	second := middle + d.rng.IntN(sixth)
	switch r := d.rng.Float64(); {
	case r > 0.7:
		second = 3600 + d.rng.IntN(5*3600)
	case r > 0.4:
		if second = d.rng.IntN(3600 - sixth); second >= middle {
			second += sixth
		}
	}
	return today.Add(opening + time.Duration(second)*time.Second)
}

// work lets everybody who is due claim or release.
func (d *dayStory) work(now time.Time) {
	for _, u := range d.users {
		w := d.workers[u]
		p := d.anyPlane()
		u.mu.Lock()
		u.lapsed()
		idle := !u.busy && w != nil && p != nil && !now.Before(w.next)
		here := w != nil && now.After(w.come) && now.Before(w.leave)
		switch {
		case !idle:
		case here && !w.asked && u.told == toldHeld && !w.absence.from.IsZero() && d.use(u, w, now):
			w.next = now.Add(10 * time.Second)
			u.busy = true
			d.group.Go(func() error { u.claim(p, false); return nil })
		case here && w.asked && u.told == toldHeld:
			w.asked = false
			d.claims++
			d.hits++
		case here && u.told != toldHeld:
			if w.asked { // the first try found nothing
				w.asked = false
				d.claims++
				w.come = now.Add(-time.Second)
				w.next = now.Add(25 * time.Second)
				u.busy = true
				d.group.Go(func() error { u.claim(p, false); return nil })
				break
			}
			w.asked = !w.next.After(w.come) // later tries are not counted
			w.next = now.Add(time.Second)
			u.busy = true
			d.group.Go(func() error { u.claim(p, false); return nil })
		case now.After(w.leave) && u.told != toldNothing:
			u.busy = true
			w.next = now.Add(10 * time.Second)
			d.group.Go(func() error { u.release(p); return nil })
		}
		u.mu.Unlock()
	}
}

// trouble breaks something every few hours, and lets somebody lead when nobody does.
func (d *dayStory) trouble(now time.Time, clock time.Duration) {
	if d.leader() == nil && d.rng.IntN(3) == 0 {
		d.takeOver()
	}
	calm := clock > opening-calmFrom-15*time.Minute && clock < opening && now.YearDay()%2 == 0
	if calm || d.rng.Float64() > dayStep.Hours()/3 {
		return
	}
	faults := []func(*sim) (string, func(), time.Duration){agentCrash, planeCrash, leaderMoves, linkFails, powerFails, domainsDie, storeOfHostIsFull}
	what, undo, after := faults[d.rng.IntN(len(faults))](d.sim)
	if what == "" {
		return
	}
	d.struck++
	d.did(what)
	d.lastHit = now
	if undo != nil {
		d.heals = append(d.heals, heal{now.Add(after), what, undo})
		d.lastHit = now.Add(after)
	}
}

// counts of a pool as stored.
type counts struct{ ready, running, held, wanted int }

func (d *dayStory) count(pool string) (c counts) {
	h := d.history
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, each := range h.desktops {
		if each.GetSpec().GetPool() != pool {
			continue
		}
		in, status := each.GetIncarnation(), each.GetStatus()
		if status.GetGeneration() == in.GetGeneration() && status.GetState() == v1.DesktopState_DESKTOP_STATE_READY {
			c.ready++
		}
		if each.GetClaim() != nil {
			c.held++
		}
	}
	c.wanted = int(h.pools[pool].GetStatus().GetWanted())
	return c
}

// checkDay holds the minute against what the schedules promise, unless something has just been broken.
func (d *dayStory) checkDay(today, now time.Time) bool {
	clock := now.Sub(today)
	running := map[string]int{}
	for _, n := range d.nodes {
		for _, life := range n.host.Running() {
			running[poolOf(life.Desktop)]++
		}
	}
	excused := now.Sub(d.lastHit) < calmFrom
	opens := d.open(today) && clock >= opening+slack && clock < opening+slack+time.Minute
	if d.open(today) && clock >= opening && clock < opening+time.Minute {
		d.noteOpening(now)
	}
	if opens {
		d.openings++
	}
	if excused {
		if opens {
			d.excused++
		}
		return true
	}
	if opens && now.Sub(midnight) > settled*24*time.Hour {
		d.makespans.add(d.history.makespanOf(today.Add(opening)))
	}
	for _, p := range d.pools {
		c, spec := d.count(p.name), d.spec(p.name)
		if opens {
			d.checkOpening(p, c, spec, now)
		}
		// Half an hour is how long what is not wanted any more is kept.
		night := clock < opening-time.Hour || clock > closing+2*time.Hour || !d.open(today)
		late := spec.GetSchedule().GetSpans() != nil && d.open(today) && clock > closing
		if most := c.held + int(spec.GetMinReady()) + learnedSlack(spec); night && !late && clock > time.Hour && running[p.name] > most {
			d.problem("night", "%d desktops of pool %s run while it is closed, %d are held, min_ready is %d", running[p.name], p.name, c.held, spec.GetMinReady())
		}
		if running[p.name] > p.seats {
			d.problem("night", "%d desktops of pool %s run, it has %d seats", running[p.name], p.name, p.seats)
		}
	}
	return len(d.broken()) == 0
}

// learnedSlack: somebody who stayed late may be learned.
func learnedSlack(spec *v1.PoolSpec) int {
	if spec.GetSchedule().GetClosed() == "learned" {
		return 3
	}
	return 0
}

func (d *dayStory) spec(pool string) *v1.PoolSpec {
	d.history.mu.Lock()
	defer d.history.mu.Unlock()
	return d.history.pools[pool].GetSpec()
}

// wantedAt is how many desktops of a pool should be ready as the office opens.
func wantedAt(p poolPlan, c counts, spec *v1.PoolSpec) int {
	switch s := spec.GetSchedule(); {
	case s.GetOpen() == "":
		return p.seats
	case len(s.GetSpans()) > 0:
		return max(c.wanted, (p.seats*80+99)/100)
	}
	return c.wanted
}

// noteOpening counts the desktops that are ready to the second.
func (d *dayStory) noteOpening(now time.Time) {
	if now.Sub(d.lastHit) < calmFrom {
		return
	}
	for _, p := range d.pools {
		c := d.count(p.name)
		want := wantedAt(p, c, d.spec(p.name))
		d.due += want
		d.inTime += min(want, c.ready)
	}
}

// checkOpening: what the schedule wants is ready when the office has opened: 99 of 100, but one may always be late.
func (d *dayStory) checkOpening(p poolPlan, c counts, spec *v1.PoolSpec, now time.Time) {
	want := wantedAt(p, c, spec)
	if missing := want - c.ready; missing > max(1, want/100) {
		d.problem("opening", "%v: %d desktops of pool %s are ready as the office opens, %d should be (%d held): %s", now.Format(time.DateTime), c.ready, p.name, want, c.held,
			d.message(p.name))
	}
}

func (d *dayStory) message(pool string) string {
	d.history.mu.Lock()
	defer d.history.mu.Unlock()
	s := d.history.pools[pool].GetStatus()
	return fmt.Sprintf("%s; %s", s.GetWantedReason(), s.GetMessage())
}
