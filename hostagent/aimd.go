package hostagent

import (
	"time"
)

// How many VMs boot at once is found out by trying: one more for each round in which as many got ready as may boot at once, as
// long as they get ready at least as fast as before and nothing is scarce; half as many when more did harm (AIMD, as TCP
// does). Boots under way are never touched. Where the kernel tells of no pressure, the ready rate alone decides: then whether less
// would do as well is tried now and then, since nothing says that the host is overfull.
const (
	// minBoots is the floor: with less nothing would ever get ready.
	minBoots = 1
	// memoryThrash: when something waits for memory for a tenth of the time, the host is evicting what it will need again, and
	// every further boot makes all others slower. This alone halves at once.
	memoryThrash = 10
	// cpuBusy and ioBusy: from there on a further boot would mostly wait, and wins nothing. CPUs and disks do the same work in
	// any order, so being busy is no reason to let fewer boot; to go on growing is pointless, and to be far above what there
	// are CPUs for is worth a try with half.
	cpuBusy = 80
	ioBusy  = 60
	// asGood: a ready rate of at least this share of the best one known is as good as it: a further boot may be tried. Boots
	// differ, and the rate of a round is the rate of a few.
	asGood = 0.97
	// worse: a ready rate below this share of the best one, which was with fewer boots at once, says that more did harm; and one that was
	// with more says that fewer waste the host.
	worse = 0.85
	// calm is how long pressure, which is an average of 10 s, goes on telling of what was before the last change.
	calm = 15 * time.Second
	// stale is how long a rate is worth comparing with, and harm is held against a limit: who else works on the host changes.
	stale = 5 * time.Minute
)

// bearing is how a host bears its load: the share of the last 10 s in which something waited, percent.
type bearing struct {
	// known is false on kernels that do not tell.
	known           bool
	cpu, memory, io float64
}

// control is the limit on boots at once, and what it was learnt from. Its methods change nothing and return what it becomes.
type control struct {
	limit, most, cpus int
	// best is the best ready rate known, per second, with how many at once it was, and when; 0 when none is known.
	best      float64
	bestLimit int
	bestAt    time.Time
	// tooMany is the limit that did harm, at that time; 0 when none did. It is not come to again before that is stale.
	tooMany   int
	tooManyAt time.Time
	// began is when the present round did, in which so many got ready; zero while fewer boot than may, or more.
	began time.Time
	got   int
	// changed is when as many booted as the limit was last changed to. Until settled, being busy is no reason to try with
	// less: that was done.
	changed, settled time.Time
}

// newControl begins with as many boots at once as there are CPUs to run them: fewer are a waste on most hosts.
func newControl(most, cpus int) control {
	return control{limit: min(most, max(2, cpus)), most: most, cpus: cpus}
}

// boots takes in how many boot now, and whether more would. A round lasts only while as many boot as may: else the host, and not
// the limit, says how fast they get ready.
func (c control) boots(now time.Time, inFlight int, wanted bool) control {
	switch {
	case inFlight > c.limit: // those of a larger limit go on
		c.began, c.got, c.changed = time.Time{}, 0, now
	case !wanted:
		c.began, c.got = time.Time{}, 0
	case c.began.IsZero():
		c.began, c.got = now, 0
	}
	return c
}

// press takes in how the host bears it: for lack of memory the limit is halved at once, and does not come near again for a while.
func (c control) press(now time.Time, b bearing) control {
	if b.known && b.memory >= memoryThrash && now.Sub(c.changed) >= calm {
		c.tooMany, c.tooManyAt, c.best = c.limit, now, 0
		return c.to(now, c.limit/2)
	}
	return c
}

// ready takes in that a boot came to its end. When the round is over it decides.
func (c control) ready(now time.Time, b bearing) control {
	if c.began.IsZero() {
		return c
	}
	if !b.known {
		b = bearing{}
	}
	c.got++
	took := now.Sub(c.began)
	if c.got < max(c.limit, 2) || took <= 0 {
		return c
	}
	rate := float64(c.got) / took.Seconds()
	c.began, c.got = now, 0
	if c.best == 0 || now.Sub(c.bestAt) > stale || rate > c.best {
		c.best, c.bestLimit, c.bestAt = rate, c.limit, now
	}
	tryLess := (c.overfull(b) || !b.known && c.limit > 2) && now.After(c.settled)
	switch {
	case c.bestLimit < c.limit && rate < worse*c.best:
		c.tooMany, c.tooManyAt = c.limit, now
		return c.to(now, max(c.bestLimit, c.limit/2))
	case c.bestLimit > c.limit && rate < worse*c.best:
		c.settled = now.Add(stale)
		return c.to(now, c.bestLimit)
	case tryLess:
		return c.to(now, c.limit/2)
	case c.busy(b), b.memory >= memoryThrash, rate < asGood*c.best:
		return c
	case c.tooMany > 0 && c.limit+1 >= c.tooMany && now.Sub(c.tooManyAt) < stale:
		return c
	}
	return c.to(now, c.limit+1)
}

// busy says that a further boot would only wait. As long as fewer boot than there are CPUs that is not known: others may be what
// is busy, and a host must not be left with one boot at a time for what its neighbours do.
func (c control) busy(b bearing) bool {
	return b.cpu >= cpuBusy && c.limit >= max(2, c.cpus) || b.io >= ioBusy && c.limit >= 2
}

// overfull says that what is busy may be so for nothing: with more boots than CPUs, or more than two on one disk.
func (c control) overfull(b bearing) bool {
	return b.cpu >= cpuBusy && c.limit > c.cpus || b.io >= ioBusy && c.limit > 2
}

// to changes the limit, within its bounds.
func (c control) to(now time.Time, limit int) control {
	limit = max(minBoots, min(limit, c.most))
	if limit != c.limit {
		c.limit, c.changed = limit, now
		c.began, c.got = time.Time{}, 0
	}
	return c
}
