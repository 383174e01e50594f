package pool

import (
	"fmt"
	"strconv"
	"strings"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"daybreak/orchestrator/store"
	v1 "daybreak/proto/daybreak/v1"
)

// Reasons of lives: of a seat's first one, and of one that follows a user's.
const (
	reasonNew      = "new"
	reasonReleased = "refresh after release"
)

// Defaults of a shape and of a readiness test, as the protos promise them.
const (
	defaultVCPUs            = 1
	defaultMemoryMiB        = 1024
	defaultOverlayMiB       = 1024
	defaultProbeSeconds     = 10
	defaultReadinessSeconds = 300
)

// maxIncarnationReason is the proto's bound of Incarnation.reason, in characters.
const maxIncarnationReason = 512

func isStarting(state v1.DesktopState) bool {
	return state >= v1.DesktopState_DESKTOP_STATE_PENDING && state <= v1.DesktopState_DESKTOP_STATE_STARTING
}

// isOver: the life was placed and nothing of it is left but data: its host said so, or an admin attested that the host
// is off and removed it. Or it was told to end before it had a place, and nobody places such a one but for its data.
func (d *decision) isOver(desktop *v1.Desktop) bool {
	inc := desktop.GetIncarnation()
	host := inc.GetHost()
	if host == "" {
		return inc.GetDesired() == v1.DesiredState_DESIRED_STATE_DELETED && desktop.GetSpec().GetDataHost() == ""
	}
	return store.State(desktop) == v1.DesktopState_DESKTOP_STATE_DELETED || !d.Hosts[host]
}

// holdsData: a data disk of this desktop may exist.
func holdsData(d *v1.Desktop) bool {
	inc := d.GetIncarnation()
	return d.GetSpec().GetDataHost() != "" || d.GetStatus().GetDataDisk() ||
		inc.GetShape().GetDataDiskGib() > 0 && inc.GetHost() != ""
}

// dataHostToRecord returns the host on which a data disk was made that the seat does not name yet.
func dataHostToRecord(d *v1.Desktop) string {
	if d.GetSpec().GetDataHost() == "" && store.Present(d).GetDataDisk() {
		return d.GetIncarnation().GetHost()
	}
	return ""
}

// failure says in one line why a desktop is not well.
func failure(d *v1.Desktop) string {
	if message := store.Present(d).GetMessage(); message != "" {
		return message
	}
	if store.State(d) != v1.DesktopState_DESKTOP_STATE_FAILED {
		return "the VM stopped by itself"
	}
	return "the host gave no reason"
}

// seatNumber returns n of a desktop named pool-n.
func seatNumber(d *v1.Desktop) int {
	name := d.GetMeta().GetName()
	n, err := strconv.Atoi(name[strings.LastIndexByte(name, '-')+1:])
	if err != nil {
		return 0
	}
	return n
}

// seat makes a new desktop with its first life.
func (d *decision) seat(number int, identity Identity, t *target) *v1.Desktop {
	desktop := &v1.Desktop{
		Meta: &v1.Meta{Name: fmt.Sprintf("%s-%d", d.Pool.GetMeta().GetName(), number), Uid: identity.UID},
		Spec: &v1.DesktopSpec{
			Pool: d.Pool.GetMeta().GetName(), Zone: d.Pool.GetSpec().GetZone(), Mac: identity.MAC, VmUuid: identity.VMUUID,
		},
	}
	desktop.Incarnation = d.following(desktop, t, reasonNew)
	desktop.Incarnation.Desired = d.birth(nil, t)
	return desktop
}

// following returns the life that follows the desktop's present one, unplaced. Without a target (a life that only disposes
// of a disk) it repeats what the present one ran.
func (d *decision) following(desktop *v1.Desktop, t *target, reason string) *v1.Incarnation {
	before := desktop.GetIncarnation()
	next := &v1.Incarnation{
		Generation: max(d.Revision, before.GetGeneration()+1),
		Image:      before.GetImage(),
		Version:    before.GetVersion(),
		Digest:     before.GetDigest(),
		Shape:      shape(d.Pool.GetSpec().GetShape()),
		Readiness:  readiness(d.Pool.GetSpec().GetReadiness()),
		Desired:    v1.DesiredState_DESIRED_STATE_READY,
		Created:    timestamppb.New(d.now),
		Reason:     store.Cut(reason, maxIncarnationReason),
	}
	if t != nil {
		next.Image, next.Version, next.Digest = d.Pool.GetSpec().GetImage(), t.version.GetNumber(), t.version.GetDigest()
		next.Signatures = t.version.GetSignatures()
	}
	if holdsData(desktop) { // a data disk stays, and never shrinks, whatever the pool says by now
		next.Shape.DataDiskGib = max(next.Shape.DataDiskGib, before.GetShape().GetDataDiskGib())
	}
	if claim := desktop.GetClaim(); claim != nil { // its life is over, its user is not
		next.UsedBy = claim.GetUser()
	}
	return next
}

func (d *decision) renewalReason(desktop *v1.Desktop, t *target) string {
	inc := desktop.GetIncarnation()
	_, failed := store.Reached(desktop, v1.DesktopState_DESKTOP_STATE_FAILED)
	switch {
	case inc.GetHost() == "":
		return fmt.Sprintf("replaces generation %d, which had no host yet", inc.GetGeneration())
	case !d.Hosts[inc.GetHost()]:
		return fmt.Sprintf("replaces generation %d: its host %s was removed", inc.GetGeneration(), inc.GetHost())
	case failed:
		text := fmt.Sprintf("replaces generation %d, which failed", inc.GetGeneration())
		if message := store.Present(desktop).GetMessage(); message != "" {
			text += ": " + message
		}
		return text
	case desktop.GetClaim().GetReclaim().GetActing():
		return fmt.Sprintf("follows generation %d, whose user %s was away", inc.GetGeneration(), desktop.GetClaim().GetUser())
	case desktop.GetClaim() != nil:
		return fmt.Sprintf("replaces generation %d, which ran version %d; %s goes on with it", inc.GetGeneration(), inc.GetVersion(),
			desktop.GetClaim().GetUser())
	case inc.GetUsedBy() != "":
		return reasonReleased
	case inc.GetVersion() != t.version.GetNumber() || inc.GetImage() != d.Pool.GetSpec().GetImage():
		return fmt.Sprintf("replaces generation %d, which ran version %d of image %s", inc.GetGeneration(), inc.GetVersion(), inc.GetImage())
	}
	return fmt.Sprintf("replaces generation %d, which ended", inc.GetGeneration())
}

// neverReady: the making of this life failed, which says something about its image, shape or host. One that was ready
// and died, or was shut down, says nothing about the next.
func neverReady(d *v1.Desktop) bool {
	_, ready := store.Reached(d, v1.DesktopState_DESKTOP_STATE_READY)
	return !ready
}

// servedNobody: somebody holds the desktop, and its present life, which began or was woken for them, failed before it was ready:
// there is no work on it, and its user goes on with the next one. Any other life was ready when it was claimed, whatever its host
// remembers.
func servedNobody(d *v1.Desktop) bool {
	inc, since := d.GetIncarnation(), d.GetClaim().GetSince().AsTime()
	beganForUser := inc.GetCreated().AsTime().After(since) || inc.GetWoken() != nil && !inc.GetWoken().AsTime().Before(since)
	return d.GetClaim() != nil && beganForUser && store.Broken(store.State(d)) && neverReady(d)
}

func shape(wanted *v1.Shape) *v1.Shape {
	full := &v1.Shape{}
	if wanted != nil {
		full = proto.CloneOf(wanted)
	}
	full.Vcpus = orDefault(full.Vcpus, defaultVCPUs)
	full.MemoryMib = orDefault(full.MemoryMib, defaultMemoryMiB)
	full.OverlayReserveMib = orDefault(full.OverlayReserveMib, defaultOverlayMiB)
	return full
}

func orDefault(value, standard uint32) uint32 {
	if value == 0 {
		return standard
	}
	return value
}

func readiness(wanted *v1.Readiness) *v1.Readiness {
	full := &v1.Readiness{}
	if wanted != nil {
		full = proto.CloneOf(wanted)
	}
	if full.ProbeTimeout == nil {
		full.ProbeTimeout = &durationpb.Duration{Seconds: defaultProbeSeconds}
	}
	if full.Deadline == nil {
		full.Deadline = &durationpb.Duration{Seconds: defaultReadinessSeconds}
	}
	return full
}
