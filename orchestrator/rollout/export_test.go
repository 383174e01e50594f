package rollout

import "time"

// What people ask for, as the Steward does it, without a store.

func StartFor(now time.Time, s Snapshot) (Actions, error) {
	d := newDecision(now, s)
	err := d.startFor("hanako")
	return d.actions(), err
}

func BackFor(now time.Time, s Snapshot) (Actions, error) {
	d := newDecision(now, s)
	err := d.backFor("hanako", "")
	return d.actions(), err
}

func ResumeFor(now time.Time, s Snapshot) (Actions, error) {
	d := newDecision(now, s)
	err := d.resumeFor("hanako")
	return d.actions(), err
}
