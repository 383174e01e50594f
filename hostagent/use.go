package hostagent

import (
	"context"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	v1 "daybreak/proto/daybreak/v1"
)

// How often a guest is asked who uses it, and how often the answer is told.
const (
	useEvery = time.Minute
	// useAgain is the pause after a look that the control plane wants, and that the guest did not answer.
	useAgain = 10 * time.Second
	// useTold: an answer that says nothing new is told when the last one is as old as that.
	useTold = 5 * time.Minute
	// idleSlack: input that was idle since about the same time is no news.
	idleSlack = 30 * time.Second
	maxUsers  = 1024
	// useFresh is how long the guest's word counts that nobody uses it, right before the host acts upon that.
	useFresh = 10 * time.Second
	// maxUnsaid: a guest that did not say so often whether it is used counts as used.
	maxUnsaid = 3
)

// nextLook says when the guest is to be asked who uses it; zero means never. Only the guests of lives that ever had a user are
// asked, unless the control plane wants to know.
func (s situation) nextLook() time.Time {
	var next time.Time
	if s.assignment.GetUsed() {
		next = s.nextUse
	}
	wanted := s.assignment.GetIncarnation().GetLookAt()
	if asked := s.status.GetSession().GetAsked(); wanted != nil && (asked == nil || asked.AsTime().Before(wanted.AsTime())) {
		// By this host's clock, which the answer's time is of.
		at := wanted.AsTime()
		if !s.lookedAt.Before(at) {
			at = s.lookedAt.Add(useAgain)
		}
		next = earlier(next, at)
	}
	return next
}

// askUse asks the guest who uses it.
func (w *worker) askUse(ctx context.Context, e entry, p *progress) error {
	next, err := w.session(ctx, e, p)
	if err != nil {
		return err
	}
	wanted := e.assignment.GetIncarnation().GetLookAt()
	if !newsOfUse(e.status.GetSession(), next, wanted) {
		return nil
	}
	return w.agent.book.update(e.life, next.GetAsked().AsTime(), func(status *v1.DesktopStatus) { status.Session = next })
}

// session is what the guest says of its use now.
func (w *worker) session(ctx context.Context, e entry, p *progress) (*v1.GuestSession, error) {
	said, err := w.agent.guest.Session(ctx, e.life)
	now := time.Now()
	p.nextUse, p.lookedAt = now.Add(useEvery), now
	if err != nil {
		return nil, err
	}
	next := &v1.GuestSession{Asked: timestamppb.New(now), UsersKnown: said.UsersKnown}
	if said.UsersKnown {
		next.Users = min(said.Users, maxUsers)
	}
	if said.InputKnown && said.InputIdle >= 0 {
		next.InputIdleSince = timestamppb.New(now.Add(-said.InputIdle))
	}
	return next, nil
}

// heed returns what is done instead of an act that rests on nobody's using the desktop: the order may have been long on its
// way, and its user may be back. It comes to nothing while the guest has not said otherwise right before.
func (s situation) heed(now time.Time, act step) step {
	since := s.assignment.GetIncarnation().GetUnlessUsedSince()
	switch {
	case since == nil || s.status.GetState() != v1.DesktopState_DESKTOP_STATE_READY || s.domain != presentNow:
		return act
	case proto.Equal(since, s.status.GetDeclined()):
		return s.running(now) // for good, whatever the guest says by now: the control plane goes by it
	case act.do == wait && act.state == s.status.GetState() || act.do == askSaver || now.Sub(s.unusedAt).Abs() < useFresh:
		return act
	}
	look := s.stay(s.status.GetMessage())
	if look.do = confirm; now.Before(s.nextConfirm) {
		look.do, look.until = wait, s.nextConfirm
	}
	return look
}

// confirm has the guest say whether somebody uses the desktop that is to be suspended or ended since nobody does. If so, or if it
// is not to be known, the order is declined.
func (w *worker) confirm(ctx context.Context, e entry, p *progress) error {
	since := e.assignment.GetIncarnation().GetUnlessUsedSince()
	next, err := w.session(ctx, e, p)
	if ctx.Err() != nil {
		return ctx.Err() // broken off: there is another order
	}
	now, input := time.Now(), next.GetInputIdleSince()
	p.nextConfirm = now.Add(useAgain)
	switch {
	case next.GetUsersKnown() && (next.GetUsers() == 0 || input != nil) && !input.AsTime().After(since.AsTime()):
		p.unusedAt, p.nextConfirm = now, time.Time{}
		return nil
	case !next.GetUsersKnown():
		if p.unsaid++; p.unsaid < maxUnsaid {
			return err
		}
	}
	return w.agent.book.update(e.life, now, func(status *v1.DesktopStatus) {
		status.Declined = since
		if next != nil {
			status.Session = next
		}
	})
}

// newsOfUse reports whether an answer is worth telling.
func newsOfUse(old, next *v1.GuestSession, wanted *timestamppb.Timestamp) bool {
	switch {
	case old == nil || old.GetUsersKnown() != next.GetUsersKnown() || old.GetUsers() != next.GetUsers():
		return true
	case (old.GetInputIdleSince() == nil) != (next.GetInputIdleSince() == nil):
		return true
	case wanted != nil && old.GetAsked().AsTime().Before(wanted.AsTime()):
		return true
	}
	moved := next.GetInputIdleSince().AsTime().Sub(old.GetInputIdleSince().AsTime()).Abs()
	return moved > idleSlack || next.GetAsked().AsTime().Sub(old.GetAsked().AsTime()) >= useTold
}
