package dispatch

import (
	"slices"
	"strings"
	"unicode"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	v1 "daybreak/proto/daybreak/v1"
)

// rank orders the states of one incarnation. READY and SUSPENDED take turns; a FAILED one can only end.
var rank = map[v1.DesktopState]int{
	v1.DesktopState_DESKTOP_STATE_PENDING:   1,
	v1.DesktopState_DESKTOP_STATE_PLACED:    2,
	v1.DesktopState_DESKTOP_STATE_PREPARING: 3,
	v1.DesktopState_DESKTOP_STATE_PREPARED:  4,
	v1.DesktopState_DESKTOP_STATE_STARTING:  5,
	v1.DesktopState_DESKTOP_STATE_READY:     6,
	v1.DesktopState_DESKTOP_STATE_SUSPENDED: 6,
	v1.DesktopState_DESKTOP_STATE_STOPPING:  7,
	v1.DesktopState_DESKTOP_STATE_STOPPED:   8,
	v1.DesktopState_DESKTOP_STATE_FAILED:    9,
	v1.DesktopState_DESKTOP_STATE_DELETED:   10,
}

// reportable says whether a state is one that an agent can see: PENDING and LOST are the control plane's words.
func reportable(s v1.DesktopState) bool {
	return rank[s] > rank[v1.DesktopState_DESKTOP_STATE_PENDING]
}

// ended says whether a host's silence changes nothing any more for an incarnation.
func ended(s v1.DesktopState) bool {
	return s == v1.DesktopState_DESKTOP_STATE_DELETED || s == v1.DesktopState_DESKTOP_STATE_FAILED
}

// outcome is what a report means for the stored status.
type outcome int

const (
	outcomeSame outcome = iota
	outcomeChanged
	// outcomeForeign: the report speaks of another life or another host's desktop.
	outcomeForeign
	// outcomeBackward: the report would take the incarnation back to where it was before.
	outcomeBackward
)

// names says whether a report of that host, uid and generation speaks of the life that the desktop has now.
func names(d *v1.Desktop, host, uid string, generation int64) bool {
	return d.GetIncarnation().GetHost() == host && d.GetMeta().GetUid() == uid && d.GetIncarnation().GetGeneration() == generation
}

// advance decides what the desktop's status is after a report of its host: within one generation states only move
// forward, but LOST gives way to whatever the host says when it is back.
func advance(d *v1.Desktop, host, uid string, reported *v1.DesktopStatus) (*v1.DesktopStatus, outcome) {
	if !names(d, host, uid, reported.GetGeneration()) {
		return nil, outcomeForeign
	}
	old := d.GetStatus()
	if old.GetGeneration() != reported.GetGeneration() {
		return reported, outcomeChanged
	}
	if old.GetState() != v1.DesktopState_DESKTOP_STATE_LOST && rank[reported.GetState()] < rank[old.GetState()] {
		return nil, outcomeBackward
	}
	if reported = remember(old, reported); proto.Equal(old, reported) {
		return nil, outcomeSame
	}
	return reported, outcomeChanged
}

// remember adds to a report the states that the life was in before and that the report does not know of: a host that lost its
// journal must not make a desktop look as if it had never been ready, and nobody had worked on it.
func remember(old, reported *v1.DesktopStatus) *v1.DesktopStatus {
	known := map[v1.DesktopState]bool{}
	for _, at := range reported.GetTimes() {
		known[at.GetState()] = true
	}
	var forgotten []*v1.StateTime
	for _, at := range old.GetTimes() {
		if !known[at.GetState()] && at.GetState() != v1.DesktopState_DESKTOP_STATE_LOST {
			forgotten = append(forgotten, at)
		}
	}
	if len(forgotten) == 0 || len(forgotten)+len(reported.GetTimes()) > maxTimes {
		return reported
	}
	whole := proto.CloneOf(reported)
	whole.Times = append(forgotten, whole.GetTimes()...)
	slices.SortStableFunc(whole.Times, func(a, b *v1.StateTime) int { return a.GetAt().AsTime().Compare(b.GetAt().AsTime()) })
	return whole
}

// lose decides what the status of a desktop is whose host is not heard: LOST, unless it has ended.
func lose(d *v1.Desktop, host string, now *timestamppb.Timestamp, why string) (*v1.DesktopStatus, outcome) {
	life, old := d.GetIncarnation(), d.GetStatus()
	if life.GetHost() != host {
		return nil, outcomeForeign
	}
	next := &v1.DesktopStatus{Generation: life.GetGeneration()}
	if old.GetGeneration() == life.GetGeneration() {
		if ended(old.GetState()) || old.GetState() == v1.DesktopState_DESKTOP_STATE_LOST {
			return nil, outcomeSame
		}
		next = proto.Clone(old).(*v1.DesktopStatus)
	}
	next.State, next.Message, next.Since = v1.DesktopState_DESKTOP_STATE_LOST, why, now
	if len(next.GetTimes()) < maxTimes {
		next.Times = append(next.Times, &v1.StateTime{State: next.GetState(), At: now})
	}
	return next, outcomeChanged
}

const (
	maxTimes   = 64
	maxMessage = 1024
	maxWord    = 64
	maxAddress = 16
	maxUsers   = 1024
	// maxPeerAddress is what the message of a host's status takes.
	maxPeerAddress = 262
)

// clean makes what passed through a guest fit to be stored and shown, before the report is validated: a guest must not
// be able to get its host's reports refused.
func clean(s *v1.DesktopStatus) {
	s.Message = text(s.GetMessage(), maxMessage)
	s.ProgressPercent = min(s.GetProgressPercent(), 100)
	if len(s.GetTimes()) > maxTimes {
		s.Times = s.GetTimes()[:maxTimes]
	}
	s.Session = cleanSession(s.GetSession())
	if s.GetDeclined().CheckValid() != nil {
		s.Declined = nil
	}
	if s.GetSince().CheckValid() != nil {
		s.Since = nil
	}
	if boot := s.GetBoot(); boot != nil && boot.GetTook().CheckValid() != nil {
		s.Boot = nil
	}
	guest := s.GetGuest()
	if guest == nil {
		return
	}
	guest.ImageVersion = text(guest.GetImageVersion(), maxWord)
	guest.BootNonce = text(guest.GetBootNonce(), maxWord)
	guest.Hostname = text(guest.GetHostname(), maxWord)
	guest.AgentVersion = text(guest.GetAgentVersion(), maxWord)
	if len(guest.GetAddresses()) > maxAddress {
		guest.Addresses = guest.GetAddresses()[:maxAddress]
	}
	for i, address := range guest.GetAddresses() {
		guest.Addresses[i] = text(address, maxWord)
	}
}

// cleanSession drops what makes no sense of a guest's word on its use: what is not known is not idle.
func cleanSession(s *v1.GuestSession) *v1.GuestSession {
	if s == nil || s.GetAsked().CheckValid() != nil {
		return nil
	}
	s.Users = min(s.GetUsers(), maxUsers)
	if since := s.GetInputIdleSince(); since != nil && since.CheckValid() != nil {
		s.InputIdleSince = nil
	} else if since != nil && since.AsTime().After(s.GetAsked().AsTime()) {
		s.InputIdleSince = s.GetAsked()
	}
	return s
}

// text drops what is not printable and cuts to a number of characters.
func text(s string, limit int) string {
	s = strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return -1
	}, s)
	if len(s) <= limit {
		return s
	}
	if letters := []rune(s); len(letters) > limit {
		return string(letters[:limit])
	}
	return s
}
