// Package pool keeps each pool at its count of desktops: it makes seats, gives them a new life when the last one failed
// or was used, takes away what is too much, and lends desktops to users (Claimer).
//
// Here: Decide, which is pure, and the loop that commits what it decides; claims; the plain-words explanation of a
// desktop or a pool; the sweeper of old events. Not here: which host (placement), what hosts report (dispatch), which
// version a pool moves to (rollout). orchestrator starts the loop; api calls Claimer and Explain.
package pool

import (
	"cmp"
	"slices"
	"time"

	"daybreak/orchestrator/demand"
	"daybreak/orchestrator/room"
	"daybreak/orchestrator/store"
	v1 "daybreak/proto/daybreak/v1"
)

// Reasons of the events that the pool loop records. That a desktop failed is dispatch's to say.
const (
	ReasonCreated  = "DesktopsCreated"
	ReasonReplaced = "DesktopReplaced" // a failed life ends for a new one
	ReasonRenewed  = "DesktopRenewed"  // a new life begins
	ReasonDeleted  = "DesktopDeleted"
	ReasonHeldBack = "PoolHeldBack"
	// ReasonSeatHeldBack: one desktop failed too often, and its next life waits.
	ReasonSeatHeldBack = "DesktopHeldBack"
	ReasonMoved        = "DesktopMoved" // a healthy life ends for one with another version
	// What the schedule does; the first two are about the pool, and tell of all desktops of a round.
	ReasonWarmed        = "DesktopsWoken"
	ReasonCooled        = "DesktopsCooled"
	ReasonMadeElsewhere = "DesktopMadeElsewhere" // a cold life ends for one on a host with room
	// What a rollout says to the users of desktops.
	ReasonRestartAnnounced = "RestartAnnounced"
	ReasonRestartDeferred  = "RestartDeferred"
	ReasonRestartWithdrawn = "RestartWithdrawn"
	// What becomes of desktops that are held and not used.
	ReasonIdleWarned    = "IdleWarned"
	ReasonIdleWithdrawn = "IdleWithdrawn"
	ReasonSuspended     = "DesktopSuspended"
	ReasonShutDown      = "DesktopShutDown"
	ReasonReclaiming    = "DesktopReclaiming" // its life is to end, and with it the user's claim
	ReasonReclaimed     = "ClaimReclaimed"
	ReasonWoken         = "DesktopWoken"
)

// maxChanges bounds one round, so that one large pool does not keep the others waiting; the next round goes on.
const maxChanges = 64

// Snapshot is all that Decide looks at.
type Snapshot struct {
	// Revision of the store that the rest was true at. New generations are taken from it.
	Revision int64
	Pool     *v1.Pool
	// Image is the one the pool names; nil when there is none.
	Image *v1.Image
	// ZoneExists tells whether the pool's zone is there.
	ZoneExists bool
	// Desktops of the pool, all of them.
	Desktops []*v1.Desktop
	// Queue is who waits for a desktop of the pool, who waits longest first.
	Queue []*v1.Claim
	// Hosts that exist, whatever their state.
	Hosts map[string]bool
	// Down are those of them that are not heard from.
	Down map[string]bool
	// Events about the pool and its desktops, oldest first.
	Events []*v1.Event
	// Identities for desktops to be created; no more are created than there are.
	Identities []Identity
	// Curve is what the schedule asks for from now on, for two days at least; empty for a pool without a schedule.
	Curve []demand.Step
	// Plans of the pool's warm-ups that are near.
	Plans []*v1.Plan
	// Rooms says what hosts have free, sorted by name, the same accounts however often it is asked: Decide books what it
	// promises in them. It is asked only when hosts matter, since it looks at all desktops. Nobody knows when it is nil or
	// says nothing: then no host is full.
	Rooms func() []*room.Host
	// IdleRule is what the pool's policy says of idle desktops in the present phase of its calendar; nil: nothing.
	IdleRule *v1.IdleRule
	// Yields are the desktops, of this pool or others, that make room for users who came back.
	Yields []yield
	// Clock is the time zone in which users are told times; nil means UTC.
	Clock *time.Location
}

// Identity is what tells a new desktop from every other.
type Identity struct {
	UID, VMUUID, MAC string
}

// Change is one object to be written, with the event that goes with it. Desktop is a changed copy at the revision that
// the decision was made on.
type Change struct {
	Desktop *v1.Desktop
	// Reason and Message of the event; no event when Reason is empty.
	Reason, Message string
	Warning         bool
	// Attempt is the event's label attemptLabel, if any: what the life tried that failed, or, of a life that is renewed,
	// that got ready.
	Attempt string
}

// Actions is what is to be done now. Every desktop is in at most one list.
type Actions struct {
	Create []Change // seats that are missing
	Amend  []Change // seats whose data disk was made: the host is fixed now; claims whose user is told something
	Retire []Change // lives that shall end
	Renew  []Change // lives that follow ones that ended
	Remove []Change // seats that go
	Wake   []Change // cold lives that shall run now
	Cool   []Change // lives that run beyond what is wanted, and end for cold ones, or are suspended
	// RemovePool: the pool was to go and nothing of it is left.
	RemovePool bool
	// Status is what the pool's status should be.
	Status *v1.PoolStatus
	// HeldBack are the holds that begin now: an event about the pool, or the desktop, for each.
	HeldBack []HeldBack
	// Again is when to look again even if nothing changes; 0 means never.
	Again time.Duration
}

// HeldBack is a hold that begins: Attempt names what is not tried for a while, Text says so to people.
type HeldBack struct {
	// Desktop whose next life waits; nil: those of the whole pool.
	Desktop       *v1.Desktop
	Attempt, Text string
}

// decision is the work sheet of one round: the desktops in buckets, and what is allowed.
type decision struct {
	Snapshot
	now    time.Time
	base   *target // what lives run that are not admitted to next
	next   *target // what is being rolled out; nil when nothing is
	onNext int     // desktops whose present life runs next, what this round decided counted in

	removing []*v1.Desktop // to go by an explicit request
	amend    []*v1.Desktop // a data disk was made and the seat does not say where yet
	over     []*v1.Desktop // life ended, seat stays
	retiring []*v1.Desktop // on the way to the end of a life
	failed   []*v1.Desktop // failed or stopped by itself, and nobody ever held it, or not while it was ready
	lost     []*v1.Desktop // host not heard from
	used     []*v1.Desktop // a user left it
	rest     []*v1.Desktop // pending up to ready, cold, suspended, kept for one user, and all claimed ones

	ofSeat map[string][]*v1.Event // events of each desktop that tell what came of its lives, oldest first

	surplus map[string]bool // beyond the count, and to go for good

	stopped map[string]bool // of rest: told to end, to run or to wait in this round
	ending  int             // told to end in this round to be made anew, and not of the next version

	balance
	readySpares int // ready desktops that anybody could have

	actions Actions
}

// Decide says what to do about one pool now. It is pure: equal arguments give equal actions.
func Decide(now time.Time, s Snapshot) Actions {
	d := newDecision(now, s)
	d.amendSeats()
	d.removeSeats()
	turns := map[string]bool{}
	if s.Pool.GetMeta().GetDeletion() == nil {
		surplus := d.removeSurplus()
		d.weigh(surplus)
		d.wake(surplus)
		d.makeRoom(surplus)
		d.makeMissing(surplus)
		budget := d.mend(surplus, d.budget())
		turns = d.move(surplus, budget)
		d.moveBack(surplus)
		d.cool(surplus)
		d.spread(surplus)
	} else {
		d.actions.RemovePool = len(s.Desktops) == 0
	}
	d.withdrawRestarts(turns)
	d.actions.Status = d.status()
	for _, t := range d.targets() {
		if !t.held(now) {
			continue
		}
		if t.hold.announce != "" {
			d.actions.HeldBack = append(d.actions.HeldBack, HeldBack{Attempt: d.attempt(t), Text: t.hold.announce})
		}
		d.again(t.hold.until)
	}
	return d.actions
}

func newDecision(now time.Time, s Snapshot) *decision {
	d := &decision{Snapshot: s, now: now, stopped: map[string]bool{}}
	d.findTargets()
	d.sort()
	d.findSurplus()
	d.sortEvents()
	for _, t := range d.targets() {
		if t.version != nil {
			t.hold = d.findHold(t)
			t.tried = t.hold.trial() && d.trialInFlight(t)
		}
	}
	return d
}

// again asks for another look at a time, if nothing changes before.
func (d *decision) again(at time.Time) {
	wait := max(at.Sub(d.now), time.Millisecond) // what is due and must wait waits for a change
	if d.actions.Again == 0 || wait < d.actions.Again {
		d.actions.Again = wait
	}
}

// sort puts every desktop into one bucket. The order of the cases is the order of precedence.
func (d *decision) sort() {
	desktops := slices.Clone(d.Desktops)
	slices.SortFunc(desktops, bySeat)
	for _, desktop := range desktops {
		bucket := &d.rest
		state := store.State(desktop)
		switch {
		case dataHostToRecord(desktop) != "":
			bucket = &d.amend
		case d.deletion(desktop) != nil:
			bucket = &d.removing
		case d.isOver(desktop):
			bucket = &d.over
		case desktop.GetIncarnation().GetDesired() == v1.DesiredState_DESIRED_STATE_DELETED:
			bucket = &d.retiring
		case state == v1.DesktopState_DESKTOP_STATE_LOST:
			bucket = &d.lost
		case servedNobody(desktop):
			bucket = &d.failed
		case desktop.GetClaim() != nil:
			// Whatever became of it, it is its user's until they let go.
		case d.toRefresh(desktop):
			bucket = &d.used
		case store.Broken(state):
			bucket = &d.failed
		}
		*bucket = append(*bucket, desktop)
	}
}

// bySeat orders desktops of one pool by number: with equal beginnings, the shorter name has the smaller one.
func bySeat(a, b *v1.Desktop) int {
	x, y := a.GetMeta().GetName(), b.GetMeta().GetName()
	return cmp.Or(cmp.Compare(len(x), len(y)), cmp.Compare(x, y))
}

// deletion returns the wish that the desktop goes, its own or the pool's.
func (d *decision) deletion(desktop *v1.Desktop) *v1.Deletion {
	if own := desktop.GetMeta().GetDeletion(); own != nil {
		return own
	}
	return d.Pool.GetMeta().GetDeletion()
}

func (d *decision) full() bool {
	a := &d.actions
	return len(a.Create)+len(a.Amend)+len(a.Retire)+len(a.Renew)+len(a.Remove)+len(a.Wake)+len(a.Cool) >= maxChanges
}
