// Package warmup plans which desktops start when, so that all are ready by their deadline and as few as possible are early.
//
// Here: Plan, which is pure and plans all pools together, since they share hosts; the model of how long desktops take to get
// ready (Learn, HostClass); what a plan looks like over time (Points); the bound that no plan can beat (Bound). Not here:
// how many desktops are wanted (demand), which host a desktop is on (placement), and writing anything: pool's loop turns
// what it knows into an Input, and the plan into start times. api shows plans with it.
//
// How it plans: a host with room for c boots at once works in waves. The last wave before a deadline D begins at D less the
// time within which 99 of 100 are ready, although they may have to wait for those before them; and each wave before it one mean time
// earlier. So full waves are planned to take as long as Bound says, and what makes sure of the deadline comes after the last of them. Every desktop
// gets, of all hosts that hold one of its pool, the latest such place that is free; when places in time, memory or desktops run out, pools
// get equal shares of what they want, and what is missing is told as a Shortfall. Places are counted from deadlines, not
// from now: the same facts a minute later give the same starts.
package warmup

import (
	"time"
)

// Defaults of an Input.
const (
	// DefaultKeep is how long before a desktop would be wanted again it is not cooled.
	DefaultKeep = 30 * time.Minute
	// DefaultNear is how near a start that was set before must be to stay whatever is planned: it is on its way to the host.
	DefaultNear = time.Minute
	// settle is how long a cooled desktop's memory takes to come back, and renew until its next life is prepared.
	settle = time.Minute
	renew  = 2 * time.Minute
)

// Input is all that Plan looks at. Nothing in it is changed.
type Input struct {
	// Until is the first instant whose targets are not looked at.
	Until time.Time
	// Pools with a schedule, by name. Others' desktops are part of what hosts have promised.
	Pools []Pool
	// Hosts that desktops can start on now: up and with their agent heard.
	Hosts []Host
	// Model of how long starts take; nil knows nothing.
	Model *Model
	// Keep and Near as DefaultKeep and DefaultNear; 0 means those.
	Keep, Near time.Duration
}

// Pool is one pool.
type Pool struct {
	Name string
	// Image, and the digest of the version that its next lives run.
	Image, Digest string
	// Readiness is the time after which a start that is not ready has failed. 0 means 5 minutes.
	Readiness time.Duration
	// What one desktop takes of its host.
	MemoryMiB, VCPUs int64
	// Targets in order of time: how many should run from then on, claimed ones included. The first began at now or before it.
	Targets []Target
	// Seats that run, or that can be started. What failed, is lost, suspended or on a host that is not in Input.Hosts is not
	// among them.
	Seats []Seat
	// Lost is how many more seats the pool has, which cannot be used, and LostWhy says what they are: "failed". Not those that nobody
	// misses, since they are there for their users: Targets are without them.
	Lost    int
	LostWhy string
	// Hosts are the names of those on which seats without a host may be placed; nil means all.
	Hosts []string
}

// Target is how many desktops should run from a time on.
type Target struct {
	From    time.Time
	Running int
	Reason  string
	// Since is when so many were wanted first, as far as is known; zero when nobody knows.
	Since time.Time
}

// Phase is what a seat is.
type Phase int

const (
	// Cold: it does not run. It may have a start time that was set before.
	Cold Phase = iota
	// Starting: it was told to start, its start time has come, and it is not ready.
	Starting
	// Ready: its guest answered.
	Ready
)

// Seat is one desktop of a pool.
type Seat struct {
	// Number: the desktop's name is the pool's and this.
	Number uint32
	// Host that it is on; empty while it has none.
	Host  string
	Phase Phase
	// Claimed seats are never cooled.
	Claimed bool
	// StartAt is the start time that it has; zero when none.
	StartAt time.Time
	// For is the deadline that a plan started it for, or is about to: before then it is not cooled. Zero when none did.
	For time.Time
	// Digest of the version that its present life runs, when that is not the pool's.
	Digest string
}

// Host is one host.
type Host struct {
	Name string
	// Class as HostClass says it.
	Class string
	// Boots at once. Less than 1 means 1.
	Boots int
	// MemoryMiB and VCPUs are what the host has for the seats of all Input.Pools together: what it has in all less its reserve, builds and
	// the desktops of other pools. Plan takes away what seats that are not cold take.
	MemoryMiB, VCPUs int64
	// Images says from when on the host has a version, by digest, as far as it is not there already.
	Images map[string]time.Time
	// Closed says why nothing can start on it, in words that follow its name, "has 0 MiB free"; empty when something can.
	Closed string
	// ReadRate of its store, bytes/s; 0 when not known.
	ReadRate uint64
}

// Output is the plan.
type Output struct {
	// Pools in the order of Input.Pools.
	Pools []PoolPlan
}

// PoolPlan is the plan of one pool.
type PoolPlan struct {
	Name string
	// Starts, earliest first. Each cold seat is started at most once between two times at which it is cooled. Seats that run now may be
	// among them: they will be cooled before, and then get that start time.
	Starts []Start
	// Shortfalls in order of deadlines. What gets ready late is told at its deadline; what is missing for good at each deadline at which it
	// is, so that they are not to be added up: see MostShort.
	Shortfalls []Shortfall
	// Targets that were planned for, and how many are ready from each time on.
	Targets []Target
	Ready   []Point
	// Hosts of the starts, by name.
	Hosts []HostUse
}

// Start is one desktop that starts.
type Start struct {
	Seat uint32
	// Host that it is on, or that the plan expects it to be placed on.
	Host string
	// At is a whole second, unless now is later than the one before it.
	At, Deadline time.Time
	// Expected is when it will be ready on the average, Sure when 99 of 100 are that need not wait for another one.
	Expected, Sure time.Time
	// Fixed: the start was set before and is too near to be changed.
	Fixed bool
	// First: the seat is cold now, and this is what it waits for: the time to write. Later starts of it are forecasts.
	First bool
}

// Late says by how much the start misses its deadline; 0 when it does not.
func (s Start) Late() time.Duration { return max(0, s.Sure.Sub(s.Deadline)) }

// Shortfall is desktops that will not be ready in time.
type Shortfall struct {
	Deadline time.Time
	Desktops int
	// Ready is when the last of them will be; zero when never.
	Ready  time.Time
	Reason string
}

// Point is a count from a time on.
type Point struct {
	At    time.Time
	Count int
}

// HostUse is what the plan assumed of a host.
type HostUse struct {
	Name  string
	Boots int
	Estimate
}

// Plan plans all pools. It is pure: equal arguments give equal plans. A plan that was made before, of which the seats have their
// start times, is kept and only completed as long as a new one would be little better.
func Plan(now time.Time, in Input) Output {
	known := map[Boot]Estimate{}
	p := newPlanner(now, in, false, known)
	p.plan()
	if kept := newPlanner(now, in, true, known); kept.hasPlanned() {
		kept.plan()
		if kept.cost().near(p.cost()) {
			p = kept
		}
	}
	return p.output()
}
