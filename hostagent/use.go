package hostagent

import (
	"context"
	"time"

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
	said, err := w.agent.guest.Session(ctx, e.life)
	now := time.Now()
	p.nextUse, p.lookedAt = now.Add(useEvery), now
	if err != nil {
		return err
	}
	next := &v1.GuestSession{Asked: timestamppb.New(now), UsersKnown: said.UsersKnown}
	if said.UsersKnown {
		next.Users = min(said.Users, maxUsers)
	}
	if said.InputKnown && said.InputIdle >= 0 {
		next.InputIdleSince = timestamppb.New(now.Add(-said.InputIdle))
	}
	wanted := e.assignment.GetIncarnation().GetLookAt()
	if !newsOfUse(e.status.GetSession(), next, wanted) {
		return nil
	}
	return w.agent.book.update(e.life, now, func(status *v1.DesktopStatus) { status.Session = next })
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
