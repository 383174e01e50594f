package room

import (
	"time"

	"daybreak/orchestrator/store"
	v1 "daybreak/proto/daybreak/v1"
)

// Phase is what a life takes of its host.
type Phase int

// The phases.
const (
	// Runs, may run, or is told to run at some time: all of it.
	Runs Phase = iota
	// Cold: prepared, or on the way to that, and told no more. Store space only.
	Cold
	// Suspended: store space, for its saved memory too.
	Suspended
)

// PhaseOf says what a desktop's present life takes of its host, or will when it has one. What is not certain counts as
// running: a life that may have been started before it was told not to, and one on a silent host.
func PhaseOf(d *v1.Desktop) Phase {
	state := store.State(d)
	switch d.GetIncarnation().GetDesired() {
	case v1.DesiredState_DESIRED_STATE_PREPARED:
		if state <= v1.DesktopState_DESKTOP_STATE_PREPARED {
			return Cold
		}
	case v1.DesiredState_DESIRED_STATE_SUSPENDED:
		if state == v1.DesktopState_DESKTOP_STATE_SUSPENDED {
			return Suspended
		}
	case v1.DesiredState_DESIRED_STATE_DELETED:
		switch {
		case state == v1.DesktopState_DESKTOP_STATE_SUSPENDED:
			return Suspended
		case state <= v1.DesktopState_DESKTOP_STATE_PREPARED && !d.GetIncarnation().GetStartAt().AsTime().Before(Never()):
			return Cold
		}
	}
	return Runs
}

// Never is the start time of a life that ends and was never to run: its host may have promised its memory to others.
func Never() time.Time { return time.Date(9999, 12, 31, 0, 0, 0, 0, time.UTC) }

// Need is what one life asks of a host.
type Need struct {
	Pool, Zone string
	Digest     string
	DataHost   string // the only host, if set
	VCPUs      uint64
	MemoryMiB  uint64
	OverlayMiB uint64
	DataMiB    uint64 // the data disk
	BaseMiB    uint64 // what the base may take where it is not yet
	Phase      Phase
	State      v1.DesktopState
	Desired    v1.DesiredState
}

// NeedOf is what a desktop's present life asks.
func NeedOf(view *store.View, d *v1.Desktop) Need {
	inc := d.GetIncarnation()
	n := Need{
		Pool: d.GetSpec().GetPool(), Zone: d.GetSpec().GetZone(), Digest: inc.GetDigest(), DataHost: d.GetSpec().GetDataHost(),
		VCPUs: uint64(inc.GetShape().GetVcpus()), MemoryMiB: uint64(inc.GetShape().GetMemoryMib()),
		OverlayMiB: uint64(inc.GetShape().GetOverlayReserveMib()),
		DataMiB:    uint64(inc.GetShape().GetDataDiskGib()) * 1024,
		Phase:      PhaseOf(d), State: store.State(d), Desired: inc.GetDesired(),
	}
	image, _ := store.Lookup[*v1.Image](view, inc.GetImage())
	for _, version := range image.GetStatus().GetVersions() {
		if version.GetDigest() == inc.GetDigest() {
			n.BaseMiB = Mebibytes(version.GetSizeBytes())
		}
	}
	return n
}

// saves: the memory of the life lies in the host's store, or is to lie there.
func (n Need) saves() bool {
	return n.Desired == v1.DesiredState_DESIRED_STATE_SUSPENDED || n.State == v1.DesktopState_DESKTOP_STATE_SUSPENDED
}

// ToReserve is the store space that a life may fill, MiB.
func (n Need) ToReserve() int64 {
	space := n.OverlayMiB + n.DataMiB
	if n.saves() {
		space += n.MemoryMiB
	}
	return int64(space)
}

// Mebibytes rounds up, since it is used for needs.
func Mebibytes(bytes uint64) uint64 { return bytes/mib + min(1, bytes%mib) }
