package pool

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"

	"google.golang.org/protobuf/types/known/timestamppb"

	"daybreak/orchestrator/store"
	v1 "daybreak/proto/daybreak/v1"
)

// maxMessage is the proto's bound of PoolStatus.message and of an event's, in characters.
const maxMessage = 1024

// maxWantedReason is that of PoolStatus.wanted_reason.
const maxWantedReason = 256

// status counts what is and says in words what is not as it should be.
func (d *decision) status() *v1.PoolStatus {
	s := &v1.PoolStatus{Desktops: uint32(len(d.Desktops)), HeldUntil: heldUntil(d.base.hold, d.now), Versions: d.versions(), Queued: uint32(len(d.Queue))}
	d.tellWanted(s)
	for _, desktop := range d.Desktops {
		if desktop.GetClaim() != nil {
			s.Claimed++
		}
		if d.isOver(desktop) {
			continue // nothing of it is left; it is neither starting nor failed
		}
		switch state := store.State(desktop); {
		case state == v1.DesktopState_DESKTOP_STATE_READY:
			s.Ready++
			if d.isFree(desktop) {
				s.Free++
			}
		case state == v1.DesktopState_DESKTOP_STATE_LOST:
			s.Failed++
		case desktop.GetIncarnation().GetDesired() == v1.DesiredState_DESIRED_STATE_DELETED:
			// on its way out
		case isCold(d.now, desktop):
			s.Cold++
		case isSuspended(desktop):
			s.Suspended++
		case isStarting(state), state == v1.DesktopState_DESKTOP_STATE_SUSPENDED:
			s.Starting++
		case store.Broken(state):
			s.Failed++
		}
	}
	s.Message = store.Cut(strings.Join(d.remarks(s), "; "), maxMessage)
	return s
}

// tellWanted says how many desktops should run now, and when more should.
func (d *decision) tellWanted(s *v1.PoolStatus) {
	s.Wanted, s.WantedReason = uint32(d.want), d.step.Reason
	if d.want > d.step.Target {
		s.WantedReason = store.Cut(fmt.Sprintf("%d held or waited for, %d spare (%s)", d.held, d.want-d.held, d.step.BufferReason), maxWantedReason)
	}
	at, target := d.nextRise()
	if at.IsZero() {
		return
	}
	s.NextDeadline, s.NextTarget = timestamppb.New(at), uint32(target)
	for _, plan := range d.Plans {
		for _, shortfall := range plan.GetShortfalls() {
			if shortfall.GetDeadline().AsTime().Equal(at) {
				s.NextShortfall += shortfall.GetDesktops()
			}
		}
	}
}

// remarks lists why the pool is not what it should be, the most important first; none when it is.
func (d *decision) remarks(s *v1.PoolStatus) []string {
	var remarks []string
	say := func(format string, args ...any) { remarks = append(remarks, fmt.Sprintf(format, args...)) }
	deleting := d.Pool.GetMeta().GetDeletion() != nil
	if deleting {
		say("the pool is being deleted, %s left", plural(len(d.Desktops), "desktop"))
	}
	if !deleting {
		for _, why := range d.hindrances() {
			say("%s", why)
		}
	}
	for _, group := range d.troubles() {
		if n := len(group.desktops); n > 0 {
			say("%s %s, %s: %s", plural(n, "desktop"), group.what, example(n, group.desktops[0]), group.why(group.desktops[0]))
		}
	}
	if short := d.shortage(); short != "" && !deleting {
		say("%s", short)
	}
	if kept := d.surplusKept(); kept != "" {
		say("%s", kept)
	}
	if deleting {
		return remarks
	}
	var first []string
	if int(s.Ready) < d.awake(d.step, d.dormant) || len(remarks) > 0 {
		first = append(first, d.progress(s))
	}
	if full := d.fullness(s); full != "" {
		first = append(first, full)
	}
	return append(first, remarks...)
}

// progress says how far the pool is on the way to what is wanted.
func (d *decision) progress(s *v1.PoolStatus) string {
	text := fmt.Sprintf("%d of %d are ready, %d on the way", s.Ready, s.Wanted, s.Starting)
	if n := d.dormant; n > 0 && s.Ready < s.Wanted {
		text += fmt.Sprintf(", %d %s", n, sleeping(n))
	}
	anew, going := 0, 0
	for _, desktop := range slices.Concat(d.retiring, d.over) {
		if d.surplus[desktop.GetMeta().GetName()] {
			going++
		} else {
			anew++
		}
	}
	if anew > 0 {
		text += fmt.Sprintf(", %d being made anew", anew)
	}
	if going > 0 {
		text += fmt.Sprintf(", %d going for good", going)
	}
	return text
}

// hindrances say what keeps lives of the pool's versions from beginning.
func (d *decision) hindrances() []string {
	var found []string
	for _, t := range d.targets() {
		if t.why != "" {
			found = append(found, t.why)
		}
	}
	if d.base.held(d.now) {
		found = append(found, fmt.Sprintf("no desktop is made before %s because too many failed in a row",
			clock(d.Clock, d.base.hold.until)))
	}
	if d.next != d.base && d.next.held(d.now) {
		found = append(found, fmt.Sprintf("version %d is not tried before %s because too many failed in a row",
			d.next.version.GetNumber(), clock(d.Clock, d.next.hold.until)))
	}
	return found
}

// versions counts desktops by the version of the pool's image that they run, lowest first.
func (d *decision) versions() []*v1.VersionCount {
	counts := map[uint32]*v1.VersionCount{}
	for _, desktop := range d.Desktops {
		inc := desktop.GetIncarnation()
		if d.isOver(desktop) || inc.GetImage() != d.Pool.GetSpec().GetImage() {
			continue
		}
		count := counts[inc.GetVersion()]
		if count == nil {
			count = &v1.VersionCount{Version: inc.GetVersion()}
			counts[inc.GetVersion()] = count
		}
		count.Desktops++
		if store.State(desktop) == v1.DesktopState_DESKTOP_STATE_READY {
			count.Ready++
		}
	}
	return slices.SortedFunc(maps.Values(counts), func(a, b *v1.VersionCount) int {
		return cmp.Compare(a.GetVersion(), b.GetVersion())
	})
}

// trouble is a group of desktops with one kind of problem, told by the example of the first.
type trouble struct {
	what     string
	desktops []*v1.Desktop
	why      func(*v1.Desktop) string
}

func (d *decision) troubles() []trouble {
	failed := trouble{what: "failed", why: d.failureOf, desktops: d.failed}
	held := trouble{what: "failed while claimed", why: func(desktop *v1.Desktop) string {
		return failure(desktop) + " (release the claim to have it made anew)"
	}}
	waits := trouble{what: "cannot go before their claim is released", why: func(desktop *v1.Desktop) string {
		return "held by " + desktop.GetClaim().GetUser()
	}}
	unplaced := trouble{what: "without a host", why: func(desktop *v1.Desktop) string {
		return desktop.GetIncarnation().GetUnplacedReason()
	}}
	lost := trouble{what: "on a host that is not heard from", desktops: d.lost, why: func(desktop *v1.Desktop) string {
		return "it may still run on " + desktop.GetIncarnation().GetHost() +
			"; it is made anew when the host is back, or deleted with the word that it is off"
	}}
	paused := trouble{what: "paused", why: func(desktop *v1.Desktop) string {
		return "the store of host " + desktop.GetIncarnation().GetHost() + " is full or failing"
	}}
	for _, desktop := range d.Desktops {
		switch {
		case d.deletion(desktop) != nil && desktop.GetClaim() != nil:
			waits.desktops = append(waits.desktops, desktop)
		case desktop.GetClaim() != nil && store.Broken(store.State(desktop)) && !servedNobody(desktop):
			held.desktops = append(held.desktops, desktop)
		case desktop.GetIncarnation().GetUnplacedReason() != "":
			unplaced.desktops = append(unplaced.desktops, desktop)
		case store.Present(desktop).GetPausedIo():
			paused.desktops = append(paused.desktops, desktop)
		}
	}
	return []trouble{failed, held, unplaced, lost, paused, waits}
}

// surplusKept says what is beyond the count and may not be taken away.
func (d *decision) surplusKept() string {
	excess := len(d.Desktops) - len(d.removing) - int(d.Pool.GetSpec().GetDesktops())
	if excess <= 0 || d.Pool.GetMeta().GetDeletion() != nil {
		return ""
	}
	claimed, data, owned := 0, 0, 0
	for _, desktop := range d.Desktops {
		switch {
		case d.deletion(desktop) != nil:
		case desktop.GetClaim() != nil:
			claimed++
		case holdsData(desktop):
			data++
		case desktop.GetSpec().GetOwner() != "":
			owned++
		default:
			excess--
		}
	}
	if excess <= 0 {
		return "" // enough of them can go
	}
	text := fmt.Sprintf("%s more than wanted: %d are claimed, and %d hold data", plural(excess, "desktop"), claimed, data)
	if owned > 0 {
		text += fmt.Sprintf(", and %d are for one user for ever", owned)
	}
	return text + " (delete those by name)"
}

func example(n int, desktop *v1.Desktop) string {
	if n == 1 {
		return desktop.GetMeta().GetName()
	}
	return "for example " + desktop.GetMeta().GetName()
}

func plural(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}
