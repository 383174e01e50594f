package dispatch

import (
	"math"
	"slices"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	v1 "daybreak/proto/daybreak/v1"
)

const (
	// usagePeriod is the least time between two writes that only say how much of a host is in use, and nothing urgent.
	usagePeriod = 30 * time.Second
	// maxKept bounds what Host.status lists of kept disks, since an object has a limit of size.
	maxKept = 512
	// maxHeldBack is what the message of a host's use takes.
	maxHeldBack = 512
)

// facts is what dispatch knows of a host in this term.
type facts struct {
	// hello and report are the newest; nil until the host spoke in this term.
	hello  *v1.WatchAssignmentsRequest
	report *v1.ReportRequest
	// spoke says that a report came in this term, in whichever session.
	spoke bool
	// silent says that nothing was heard for longer than the grace period.
	silent  bool
	heard   time.Time
	unknown []*v1.Orphan
}

// hostStatus decides what Host.status shall be, and whether that is worth a write. usageWritten is when a write last
// carried the usage.
func hostStatus(old *v1.HostStatus, f facts, now, usageWritten time.Time) (*v1.HostStatus, bool) {
	next := &v1.HostStatus{}
	if old != nil {
		next = proto.Clone(old).(*v1.HostStatus)
	}
	switch {
	case f.silent && old.GetPhase() != v1.HostPhase_HOST_PHASE_DOWN:
		next.Phase = v1.HostPhase_HOST_PHASE_DOWN
		next.Unheard = false
		next.Message = "not heard since " + f.heard.UTC().Format("2006-01-02 15:04:05 MST") + "; its desktops may well run"
	case !f.silent && f.report == nil && !f.spoke && !next.GetUnheard() && wasHeard(old):
		next.Unheard = true // the leader before heard it, this one has not
		return next, true
	case f.silent || f.report == nil:
		return nil, false
	default:
		spoken(next, f)
	}
	if next.GetPhase() != old.GetPhase() {
		next.PhaseSince = timestamppb.New(now)
	}
	same := proto.Equal(next, old)
	if f.silent {
		return next, !same
	}
	next.Usage = rounded(f.report.GetUsage())
	switch {
	case !same || urgent(old.GetUsage(), next.GetUsage()):
		return next, true
	case now.Sub(usageWritten) < usagePeriod || proto.Equal(next, old):
		return nil, false
	}
	return next, true
}

// wasHeard: some leader heard the host, and none called it DOWN since.
func wasHeard(s *v1.HostStatus) bool {
	return s.GetPhase() == v1.HostPhase_HOST_PHASE_UP || s.GetPhase() == v1.HostPhase_HOST_PHASE_DEGRADED
}

// spoken copies what the host said, but for its usage.
func spoken(next *v1.HostStatus, f facts) {
	next.Phase, next.Unheard = v1.HostPhase_HOST_PHASE_UP, false
	next.Message = text(f.report.GetUnwell(), maxMessage)
	if next.GetMessage() != "" {
		next.Phase = v1.HostPhase_HOST_PHASE_DEGRADED
	}
	next.BootId = f.hello.GetBootId()
	next.AgentVersion = text(f.hello.GetAgentVersion(), maxWord)
	next.Capacity = f.hello.GetCapacity()
	next.Zones = sorted(f.hello.GetZones())
	next.PeerAddress = text(f.hello.GetPeerAddress(), maxPeerAddress)
	next.Images = sorted(f.report.GetImages())
	next.Orphans = f.unknown
	next.KeptDisks = f.report.GetKeptDisks()
	if len(next.GetOrphans()) > maxOrphans {
		next.Orphans = next.GetOrphans()[:maxOrphans]
	}
	if len(next.GetKeptDisks()) > maxKept {
		next.KeptDisks = next.GetKeptDisks()[:maxKept]
	}
}

func sorted(words []string) []string {
	words = slices.Clone(words)
	slices.Sort(words)
	return slices.Compact(words)
}

// rounded makes usage coarse, so that noise is not written.
func rounded(u *v1.HostUsage) *v1.HostUsage {
	if u == nil {
		return nil
	}
	percent := func(share float64) float64 { return math.Round(share/5) * 5 }
	return &v1.HostUsage{
		StoreAvailableBytes: u.GetStoreAvailableBytes() &^ (256<<20 - 1),
		MemoryAvailableMib:  u.GetMemoryAvailableMib() &^ 63,
		BootsInFlight:       u.GetBootsInFlight(),
		Running:             u.GetRunning(),
		PsiCpu:              percent(u.GetPsiCpu()),
		PsiMemory:           percent(u.GetPsiMemory()),
		PsiIo:               percent(u.GetPsiIo()),
		BuildMemoryMib:      u.GetBuildMemoryMib(),
		BootLimit:           u.GetBootLimit(),
		RunningMemoryMib:    u.GetRunningMemoryMib(),
		HeldBack:            text(u.GetHeldBack(), maxHeldBack),
		StoreReadRate:       u.GetStoreReadRate() &^ (1<<20 - 1),
	}
}

// urgent says whether a host's use changed in a way that people and the planner wait for: a VM came or went, a boot began or
// ended, or desktops begin or cease to be held back. Those who look at a desktop's new state look at its host beside it, and
// the state is written anyway.
func urgent(old, next *v1.HostUsage) bool {
	return next.GetRunning() != old.GetRunning() || next.GetBootsInFlight() != old.GetBootsInFlight() ||
		next.GetRunningMemoryMib() != old.GetRunningMemoryMib() || next.GetBuildMemoryMib() != old.GetBuildMemoryMib() ||
		(next.GetHeldBack() == "") != (old.GetHeldBack() == "")
}

// tooManySilent says whether silence is so wide that it is more likely our own deafness: more than two hosts and more
// than 30 % of them.
func tooManySilent(silent, hosts int) bool {
	return silent > 2 && silent*10 > hosts*3
}

// period stretches the time between reports so that all hosts together send at most 200 a second, but never so far that
// two lost reports look like silence. luck is a random number in [0, 1) that spreads hosts by a tenth either way.
func period(base, grace time.Duration, hosts int, luck float64) time.Duration {
	stretched := max(base, time.Duration(hosts)*time.Second/200)
	stretched = min(stretched, max(base, grace/3))
	return time.Duration(float64(stretched) * (0.9 + 0.2*luck))
}
