package hostagent

import (
	"time"

	v1 "daybreak/proto/daybreak/v1"
)

// presence is what the hypervisor's lists say of a life's VM.
type presence int

const (
	// presenceUnknown: no list since the last act, or one that lacked it: nothing follows from that.
	presenceUnknown presence = iota
	// presenceMissing: two lists lacked it.
	presenceMissing
	// presenceAbsent: and the hypervisor, asked for it by name, does not know it.
	presenceAbsent
	presentNow
)

// trouble is a run of failures of a life's steps.
type trouble struct {
	err   error
	since time.Time
	next  time.Time
}

// situation is all that a decision depends on.
type situation struct {
	// assignment is nil for an orphan.
	assignment *v1.Assignment
	// frozen forbids every act; see Agent.
	frozen bool
	status *v1.DesktopStatus
	start  startMark
	// startedAt is when STARTING began.
	startedAt time.Time
	bootID    string
	// told: since this boot of the host the control plane has said all that it shall run.
	told bool
	// domain is whether the VM exists, and domainState what it does.
	domain      presence
	domainState DomainState
	// rival is the generation of another life of this desktop whose VM may exist; 0 when there is none.
	rival int64
	// newest: no higher generation of this desktop was ever seen.
	newest bool
	// hasZone: this host has a network for the assignment's zone.
	hasZone bool
	// untrusted is why the version must not be run here; nil when a trusted publisher signed it.
	untrusted error

	base    fetchState
	overlay bool
	data    bool
	slot    bool
	// slotWhy is why it was given no slot when it last asked; empty when it did not.
	slotWhy string

	// kept is what there is of its saved memory, if known; saver: it may be saved now.
	kept      Kept
	keptKnown bool
	saver     bool
	// woken: this process let it go on, for what it began at wakingSince.
	woken       bool
	wakingSince time.Time

	// answered: the guest agent answered since the start. proven: the probe, if any, passed.
	answered bool
	proven   bool
	// doubt is why the guest is not ready, by the last try.
	doubt        string
	nextPing     time.Time
	nextDescribe time.Time
	// noticed is the id of the last notice that was shown, or given up.
	noticed  string
	nextTell time.Time
	// nextUse is when to ask again who uses the guest, lookedAt when it was last tried.
	nextUse, lookedAt time.Time
	// unusedAt is when the guest last said, for this assignment, that nobody uses it; nextConfirm when it may be asked that again.
	unusedAt, nextConfirm time.Time

	// stopAsked is when this process asked the guest to power off.
	stopAsked      time.Time
	overlayTrashed bool
	dataTrashed    bool

	trouble trouble
}
