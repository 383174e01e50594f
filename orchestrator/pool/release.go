package pool

import (
	"fmt"
	"strings"
	"time"

	"daybreak/orchestrator/store"
	v1 "daybreak/proto/daybreak/v1"
)

// target is a version that new lives may get, and what speaks against it now.
type target struct {
	version *v1.ImageVersion // nil when it cannot be run
	why     string           // it cannot be run because …
	hold    hold
	tried   bool // after a hold one life tries it, and that is not decided yet
}

func (t *target) held(now time.Time) bool { return t != nil && t.hold.active(now) }

// open: lives with this version may begin now.
func (d *decision) open(t *target) bool {
	return t != nil && t.version != nil && !t.held(d.now) && !t.tried
}

// take notes that a life with the target is being made.
func (t *target) take() { t.tried = t.tried || t.hold.trial() }

// findTargets reads the release. Before the first one, the pool runs what people name, or what its image has as current.
func (d *decision) findTargets() {
	release, image := d.Pool.GetRelease(), d.Pool.GetSpec().GetImage()
	if release.GetVersion() == 0 && release.GetNext() == 0 {
		d.base = d.runnable(d.wanted())
		return
	}
	if of := release.GetImage(); of != "" && of != image { // its numbers say nothing
		if d.base = d.runnable(d.wanted()); d.base.version != nil {
			d.base = &target{why: fmt.Sprintf("the pool ran image %s: desktops wait until its move to image %s begins", of, image)}
		}
		return
	}
	if d.base = d.runnable(release.GetVersion()); release.GetVersion() == 0 {
		d.base = &target{why: fmt.Sprintf("the pool ran another image: what is not admitted to version %d of image %s waits", release.GetNext(), image)}
	}
	if release.GetNext() == 0 {
		return
	}
	d.next = d.runnable(release.GetNext())
	if release.GetVersion() == release.GetNext() { // another image: there is no version before it
		d.base = d.next
	}
	for _, desktop := range d.Desktops {
		if d.runs(desktop, d.next) {
			d.onNext++
		}
	}
}

// targets are the versions that new lives may get, each once.
func (d *decision) targets() []*target {
	if d.next == nil || d.next == d.base {
		return []*target{d.base}
	}
	return []*target{d.base, d.next}
}

// wanted is the version that people want the pool to run; 0 when there is none yet.
func (d *decision) wanted() uint32 {
	if version := d.Pool.GetSpec().GetVersion(); version != 0 {
		return version
	}
	return d.Image.GetStatus().GetCurrent()
}

// runnable returns a version of the pool's image as a target, with the reason if it cannot be run.
func (d *decision) runnable(number uint32) *target {
	spec := d.Pool.GetSpec()
	cannot := func(format string, args ...any) *target { return &target{why: fmt.Sprintf(format, args...)} }
	if !d.ZoneExists {
		return cannot("zone %s does not exist: create it, desktops wait for it", spec.GetZone())
	}
	if d.Image == nil {
		return cannot("image %s does not exist: import and publish it, desktops wait for it", spec.GetImage())
	}
	if number == 0 {
		return cannot("image %s has no published version: publish one, desktops wait for it", spec.GetImage())
	}
	version := store.Version(d.Image, number)
	switch {
	case version == nil:
		return cannot("image %s has no version %d: import it, or name another in the pool", spec.GetImage(), number)
	case version.GetState() != v1.VersionState_VERSION_STATE_READY:
		state := strings.ToLower(strings.TrimPrefix(version.GetState().String(), "VERSION_STATE_"))
		return cannot("version %d of image %s is %s: only a published version is run", number, spec.GetImage(), state)
	}
	return &target{version: version}
}

// runs: the desktop's present life is of the target's version.
func (d *decision) runs(desktop *v1.Desktop, t *target) bool {
	inc := desktop.GetIncarnation()
	return t != nil && t.version != nil && inc.GetImage() == d.Pool.GetSpec().GetImage() && inc.GetVersion() == t.version.GetNumber()
}

// targetFor returns what the next life of a desktop (nil: of a new one) is to run, nil while it has to wait. What is
// being rolled out goes to as many as are admitted to it, those counted whose life with it is not over; while it is held
// back, the pool goes on with what it had.
func (d *decision) targetFor(desktop *v1.Desktop) *target {
	others := d.onNext
	if d.runs(desktop, d.next) {
		others--
	}
	if others < int(d.Pool.GetRelease().GetAdmitted()) && d.open(d.next) && !(d.lostUnder(desktop) && d.open(d.base) && d.unproven()) {
		return d.next
	}
	if d.open(d.base) {
		return d.base
	}
	return nil
}

// unproven: nothing has shown yet that the next version gets ready, and a desktop that nobody holds can show it. Until then it
// is not for those who hold one, unless they were told of it, or all go back to it.
func (d *decision) unproven() bool {
	unclaimed := false
	for _, other := range d.Desktops {
		if d.runs(other, d.next) && store.State(other) == v1.DesktopState_DESKTOP_STATE_READY {
			return false
		}
		unclaimed = unclaimed || other.GetClaim() == nil && other.GetSpec().GetOwner() == ""
	}
	return unclaimed && !d.Pool.GetRelease().GetRollback()
}

// lostUnder: somebody holds the desktop, and no decision ended its life: it failed, or its host was removed.
func (d *decision) lostUnder(desktop *v1.Desktop) bool {
	_, failed := store.Reached(desktop, v1.DesktopState_DESKTOP_STATE_FAILED)
	host := desktop.GetIncarnation().GetHost()
	return desktop.GetClaim() != nil && (failed || host != "" && !d.Hosts[host])
}

// give makes the count of lives of the next version right after a life was decided; desktop is as it was, nil if new.
func (d *decision) give(desktop *v1.Desktop, t *target) {
	t.take()
	if d.runs(desktop, d.next) {
		d.onNext--
	}
	if t == d.next {
		d.onNext++
	}
}

// waitsWithdrawn: the life has not begun to run, and its version must not be started any more.
func (d *decision) waitsWithdrawn(desktop *v1.Desktop) bool {
	inc := desktop.GetIncarnation()
	if store.State(desktop) >= v1.DesktopState_DESKTOP_STATE_STARTING || inc.GetImage() != d.Pool.GetSpec().GetImage() {
		return false
	}
	return store.Version(d.Image, inc.GetVersion()).GetState() == v1.VersionState_VERSION_STATE_WITHDRAWN
}
