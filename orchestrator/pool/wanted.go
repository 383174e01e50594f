package pool

import (
	"slices"
	"time"

	"daybreak/orchestrator/demand"
	"daybreak/orchestrator/room"
	"daybreak/orchestrator/store"
	v1 "daybreak/proto/daybreak/v1"
)

// lookAhead is how far a fall of what is wanted is looked through: what is wanted again so soon stays warm.
const lookAhead = 30 * time.Minute

// balance is how many of a pool's desktops run or are on the way to it, and how many should.
type balance struct {
	step    demand.Step // what the schedule asks for now
	held    int         // users who hold a desktop that runs, or wait for one
	kept    int         // desktops that run, that nobody holds, and that one user alone can have
	dormant int         // desktops that only their users wake, and that are there for them
	warm    int         // desktops that run or are told to, if there is a host for them
	trying  int         // of these, on the version that is being rolled out
	want    int         // should run now
	soon    int         // the most that should run within lookAhead, now included
}

// isDue: the life is to run by now, or its host began it in its time, and our clock was set back since.
func isDue(now time.Time, desktop *v1.Desktop) bool {
	inc := desktop.GetIncarnation()
	if inc.GetDesired() != v1.DesiredState_DESIRED_STATE_READY {
		return false
	}
	return inc.GetStartAt() == nil || !inc.GetStartAt().AsTime().After(now) || runs(desktop) && beganAt(desktop, inc.GetStartAt().AsTime())
}

// runs: its machine is up, or comes up.
func runs(desktop *v1.Desktop) bool {
	state := store.State(desktop)
	return state == v1.DesktopState_DESKTOP_STATE_STARTING || state == v1.DesktopState_DESKTOP_STATE_READY
}

// beganAt: by its host's clock the life began to start at that time or later.
func beganAt(desktop *v1.Desktop, at time.Time) bool {
	began, ok := store.Reached(desktop, v1.DesktopState_DESKTOP_STATE_STARTING)
	if !ok {
		began, ok = store.Reached(desktop, v1.DesktopState_DESKTOP_STATE_READY)
	}
	return ok && !began.Before(at)
}

// isCold: the life is prepared, or on the way to that, and is not to run yet.
func isCold(now time.Time, desktop *v1.Desktop) bool {
	desired := desktop.GetIncarnation().GetDesired()
	waits := desired == v1.DesiredState_DESIRED_STATE_PREPARED || desired == v1.DesiredState_DESIRED_STATE_READY && !isDue(now, desktop)
	return waits && store.State(desktop) <= v1.DesktopState_DESKTOP_STATE_PREPARED
}

// isStray: the life runs although it is told to wait: its host began it by a plan that was taken back meanwhile.
func isStray(now time.Time, desktop *v1.Desktop) bool {
	desired := desktop.GetIncarnation().GetDesired()
	return runs(desktop) && (desired == v1.DesiredState_DESIRED_STATE_PREPARED || desired == v1.DesiredState_DESIRED_STATE_READY && !isDue(now, desktop))
}

// isSuspended: its memory lies in the store of its host, or is to.
func isSuspended(desktop *v1.Desktop) bool {
	return desktop.GetIncarnation().GetDesired() == v1.DesiredState_DESIRED_STATE_SUSPENDED
}

// awaitsUser: it is suspended, or its user's and shut down, until they are back.
func awaitsUser(now time.Time, desktop *v1.Desktop) bool {
	return isSuspended(desktop) || isCold(now, desktop) && desktop.GetClaim() != nil
}

// isUsersToWake: the pool does not wake the desktop when more should run; one that a user has for ever and does not hold it does.
func (d *decision) isUsersToWake(desktop *v1.Desktop) bool {
	return (desktop.GetClaim() != nil || !isDedicated(d.Pool)) && !store.Broken(store.State(desktop))
}

// awake is how many desktops should run beside so many that sleep until their users are back. Those stand in for what the schedule
// asks for in all, but not for what others hold, nor for the spares beside that: nobody else is served by them.
func (d *decision) awake(step demand.Step, asleep int) int {
	return min(int(d.Pool.GetSpec().GetDesktops())-asleep, max(step.Target-asleep, d.held+d.kept+step.Buffer))
}

// sleeping is said of so many desktops that their users alone wake.
func sleeping(n int) string {
	if n == 1 {
		return "sleeps until its user is back"
	}
	return "sleep until their users are back"
}

// bornCold: the life began to wait, and was told to run later. It takes no desktop out of service while it starts.
func bornCold(desktop *v1.Desktop) bool {
	inc := desktop.GetIncarnation()
	return inc.GetStartAt() != nil || inc.GetWoken() != nil
}

// begun is when the life began, or was told to run, whatever was later.
func begun(inc *v1.Incarnation) time.Time {
	return later(inc.GetCreated().AsTime(), later(inc.GetStartAt().AsTime(), inc.GetWoken().AsTime()))
}

// isOwn: one user alone can have the desktop, whom it was made for or who used it before.
func isOwn(desktop *v1.Desktop) bool {
	return desktop.GetSpec().GetOwner() != "" || desktop.GetClaim() == nil && desktop.GetIncarnation().GetUsedBy() != ""
}

func (d *decision) scheduled() bool { return d.Pool.GetSpec().GetSchedule() != nil }

// weigh counts what runs, less the surplus seats that go, and says what should.
func (d *decision) weigh(surplus map[string]bool) {
	d.balance = balance{held: len(d.Queue)}
	for _, desktop := range slices.Concat(d.rest, d.amend) {
		if !surplus[desktop.GetMeta().GetName()] {
			d.count(desktop)
		}
	}
	if len(d.Curve) == 0 {
		d.Curve = demand.Curve(demand.Pool{Spec: d.Pool.GetSpec()}, d.now, d.now.Add(time.Minute))
	}
	d.step = demand.At(d.Curve, d.now)
	d.want, d.soon = d.needs(d.kept)
	if next := d.nextStep(); !next.IsZero() {
		d.again(next)
	}
}

// counts: the desktop runs, or is on the way to it as far as anybody knows.
func (d *decision) counts(desktop *v1.Desktop) bool {
	inc := desktop.GetIncarnation()
	homeless := inc.GetHost() == "" && inc.GetUnplacedReason() != ""
	return !homeless && isDue(d.now, desktop) && !store.Broken(store.State(desktop))
}

// uncount takes a desktop of rest out of the balance: its life ends in this round.
func (d *decision) uncount(desktop *v1.Desktop) {
	if !d.counts(desktop) {
		return
	}
	d.warm--
	if d.runs(desktop, d.next) {
		d.trying--
	}
}

func (d *decision) count(desktop *v1.Desktop) {
	if awaitsUser(d.now, desktop) && d.isUsersToWake(desktop) {
		d.dormant++
	}
	if !d.counts(desktop) {
		return
	}
	d.warm++
	if d.runs(desktop, d.next) {
		d.trying++
	}
	switch {
	case desktop.GetClaim() != nil:
		d.held++
	case isOwn(desktop) && !isDedicated(d.Pool):
		d.kept++
	}
}

// needs is how many desktops should run now, and the most within lookAhead, if so many run that only one user can have.
// The spares stand beside those.
func (d *decision) needs(kept int) (now, soon int) {
	seats := int(d.Pool.GetSpec().GetDesktops())
	now = d.step.Wanted(d.held+kept, seats)
	soon = now
	for _, step := range d.Curve {
		if step.From.After(d.now) && !step.From.After(d.now.Add(lookAhead)) {
			soon = max(soon, step.Wanted(d.held+kept, seats))
		}
	}
	return now, soon
}

// nextStep is when the schedule asks for something else; zero when it does not as far as is known.
func (d *decision) nextStep() time.Time {
	for _, step := range d.Curve {
		if step.From.After(d.now) {
			return step.From
		}
	}
	return time.Time{}
}

// nextRise is when more should run than now, and how many; zero when that is not known.
func (d *decision) nextRise() (time.Time, int) {
	for _, step := range d.Curve {
		wanted := step.Wanted(d.held+d.kept, int(d.Pool.GetSpec().GetDesktops()))
		if step.From.After(d.now) && wanted > d.want {
			return step.From, wanted
		}
	}
	return time.Time{}, 0
}

// birth says what the next life of a seat (nil: of a new one) is to do with a target, and counts it: it runs when somebody
// holds it or it is wanted, and waits else.
func (d *decision) birth(desktop *v1.Desktop, t *target) v1.DesiredState {
	reclaimed := desktop.GetClaim().GetReclaim().GetActing() // its user was away, and wakes it when they are back
	trial := t != nil && t == d.next && d.trials() > 0
	switch {
	case reclaimed:
		return v1.DesiredState_DESIRED_STATE_PREPARED
	case desktop.GetClaim() == nil && d.scheduled() && d.warm >= d.want && !trial:
		return v1.DesiredState_DESIRED_STATE_PREPARED
	}
	d.warm++
	if t != nil && t == d.next {
		d.trying++
	}
	return v1.DesiredState_DESIRED_STATE_READY
}

// trials is how many more desktops have to run the version that is being rolled out, so that its wave proves something.
func (d *decision) trials() int {
	release := d.Pool.GetRelease()
	if d.next == nil || !release.GetMoving() {
		return 0
	}
	return int(release.GetRunning()) - d.trying
}

// host is the account of the host that a desktop lies on; nil when it is not known.
func (d *decision) host(name string) *room.Host {
	rooms := d.rooms()
	at, ok := slices.BinarySearchFunc(rooms, name, func(h *room.Host, name string) int {
		switch {
		case h.Name() < name:
			return -1
		case h.Name() > name:
			return 1
		}
		return 0
	})
	if !ok {
		return nil
	}
	return rooms[at]
}

// rooms are the accounts of all hosts; none when nobody knows.
func (d *decision) rooms() []*room.Host {
	if d.Rooms == nil {
		return nil
	}
	return d.Rooms()
}

// need is what a desktop asks of a host once it runs.
func need(desktop *v1.Desktop, phase room.Phase) room.Need {
	shape := desktop.GetIncarnation().GetShape()
	return room.Need{
		Pool: desktop.GetSpec().GetPool(), Zone: desktop.GetSpec().GetZone(), VCPUs: uint64(shape.GetVcpus()),
		MemoryMiB: uint64(shape.GetMemoryMib()), Phase: phase, State: store.State(desktop),
	}
}
