package rollout

import (
	"time"

	"daybreak/orchestrator/store"
	v1 "daybreak/proto/daybreak/v1"
)

// census sorts the desktops of a pool by what they are to the rollout that runs.
type census struct {
	seats int // desktops that there are or shall be, the more of both
	live  int // desktops that nobody asked to go

	on       int           // their present life runs the wanted version
	good     int           // of these, ready
	cold     int           // of these, prepared and not to run now, as the schedule says
	starting int           // of these, on the way to ready, or about to be made anew
	stuck    []*v1.Desktop // of these, on a silent host, without a host, or broken and held: nobody waits for them
	inUse    []*v1.Desktop // run another version, and a user holds them
	away     []*v1.Desktop // run another version on a host that is not heard from
	movable  int           // run another version, and could be taken
	between  int           // between two lives
	free     int           // ready and held by nobody, whatever they run
}

// off is how many desktops run another version.
func (c census) off() int { return len(c.inUse) + len(c.away) + c.movable }

func (d *decision) census() census {
	c := census{}
	hosts := map[string]bool{}
	for _, host := range d.Hosts {
		hosts[host.GetMeta().GetName()] = true
	}
	for _, desktop := range d.Desktops {
		if desktop.GetMeta().GetDeletion() == nil {
			c.live++
			c.count(d.now, desktop, hosts, d.active.GetSpec())
		}
	}
	c.seats = max(c.live, int(d.Pool.GetSpec().GetDesktops()))
	return c
}

func (c *census) count(now time.Time, desktop *v1.Desktop, hosts map[string]bool, to *v1.RolloutSpec) {
	inc, state := desktop.GetIncarnation(), store.State(desktop)
	lost := state == v1.DesktopState_DESKTOP_STATE_LOST
	claimed := desktop.GetClaim() != nil
	if isFree(desktop) {
		c.free++
	}
	switch {
	case inc.GetDesired() == v1.DesiredState_DESIRED_STATE_DELETED && lost:
		// Whenever its host is back, its next life runs what it should.
	case inc.GetDesired() == v1.DesiredState_DESIRED_STATE_DELETED, state == v1.DesktopState_DESKTOP_STATE_DELETED,
		inc.GetHost() != "" && !hosts[inc.GetHost()]:
		c.between++
	case runs(desktop, to.GetImage(), to.GetToVersion()):
		c.on++
		c.countOn(now, desktop, state, claimed)
	case claimed:
		c.inUse = append(c.inUse, desktop)
	case lost:
		c.away = append(c.away, desktop)
	default:
		c.movable++
	}
}

// countOn counts a desktop that runs the wanted version.
func (c *census) countOn(now time.Time, desktop *v1.Desktop, state v1.DesktopState, claimed bool) {
	released := !claimed && desktop.GetIncarnation().GetUsedBy() != ""
	switch {
	case isReady(state) && !released:
		c.good++
	case isCold(now, desktop, state):
		c.cold++
	case state == v1.DesktopState_DESKTOP_STATE_LOST, claimed && store.Broken(state),
		state == v1.DesktopState_DESKTOP_STATE_PENDING && desktop.GetIncarnation().GetUnplacedReason() != "":
		c.stuck = append(c.stuck, desktop)
	default:
		c.starting++
	}
}

// isCold: the desktop is prepared, and waits until the schedule wants it. It proves only that its disk could be made.
func isCold(now time.Time, d *v1.Desktop, state v1.DesktopState) bool {
	inc := d.GetIncarnation()
	later := inc.GetDesired() == v1.DesiredState_DESIRED_STATE_READY && inc.GetStartAt().AsTime().After(now)
	return state == v1.DesktopState_DESKTOP_STATE_PREPARED && (inc.GetDesired() == v1.DesiredState_DESIRED_STATE_PREPARED || later)
}

// runs tells whether the desktop's present life runs a version.
func runs(d *v1.Desktop, image string, version uint32) bool {
	inc := d.GetIncarnation()
	return inc.GetImage() == image && inc.GetVersion() == version
}

// isFree: a user who comes now could have it.
func isFree(d *v1.Desktop) bool {
	inc := d.GetIncarnation()
	return store.State(d) == v1.DesktopState_DESKTOP_STATE_READY && d.GetClaim() == nil && inc.GetUsedBy() == "" &&
		inc.GetDesired() == v1.DesiredState_DESIRED_STATE_READY
}

func isReady(state v1.DesktopState) bool {
	return state == v1.DesktopState_DESKTOP_STATE_READY || state == v1.DesktopState_DESKTOP_STATE_SUSPENDED
}
