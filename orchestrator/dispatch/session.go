package dispatch

import (
	"context"
	"errors"
	"fmt"
	"time"

	"buf.build/go/protovalidate"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"daybreak/orchestrator/store"
	v1 "daybreak/proto/daybreak/v1"
)

const (
	// debounce gathers changes that come together into one message.
	debounce = 60 * time.Millisecond
	// maxStreams bounds a host's calls of Watch that have not returned: replaced ones end when their peer reads or dies.
	maxStreams = 4
	// warnPeriod is the least time between two events about one host's hello.
	warnPeriod = 10 * time.Minute
)

// session is one round with one host. Its fields are guarded by the term's mutex.
type session struct {
	id   string
	peer *peer
	end  context.CancelCauseFunc
	wake chan struct{}
	news news
	// sequence is that of the newest report; full says that the first one came; busy that one is being written.
	sequence   uint64
	full, busy bool
}

// note adds to what the session must send. Nothing happens to a session that is nil.
func (s *session) note(add func(*news)) {
	if s == nil {
		return
	}
	add(&s.news)
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

func newNews() news {
	return news{desktops: map[string]struct{}{}}
}

// Watch implements v1.AgentServiceServer: it opens the host's session and sends assignments until the session ends.
func (s *Server) Watch(hello *v1.WatchAssignmentsRequest, stream v1.AgentService_WatchServer) error {
	host, t, err := s.caller(stream.Context())
	if err != nil {
		return err
	}
	if err := protovalidate.Validate(hello); err != nil {
		return status.Errorf(codes.InvalidArgument, "hello of host %s: %v", host, err)
	}
	if err := t.admit(stream.Context(), host, hello); err != nil {
		return err
	}
	ctx, end := context.WithCancelCause(stream.Context())
	defer end(nil)
	session, err := t.begin(host, hello, end, time.Now())
	if err != nil {
		return err
	}
	defer t.leave(session)
	return t.stream(ctx, session, stream.Send)
}

// admit refuses a host that is not in the store and an agent that remembers a later epoch than ours.
func (t *term) admit(ctx context.Context, host string, hello *v1.WatchAssignmentsRequest) error {
	stored, err := store.Get[*v1.Host](ctx, t.store, host)
	if errors.Is(err, store.ErrNotFound) {
		return errUnknownHost(host)
	}
	if err != nil {
		return status.Errorf(codes.Unavailable, "read host %s: %v", host, err)
	}
	if _, err := t.mirror.Wait(ctx, stored.GetMeta().GetRevision()); err != nil {
		return status.FromContextError(err).Err()
	}
	if hello.GetClusterEpoch() <= t.cfg.Epoch {
		return nil
	}
	why := fmt.Sprintf("host %s has met cluster epoch %d, this control plane is at %d: its store is older than what its hosts know; "+
		"restore the newer one", host, hello.GetClusterEpoch(), t.cfg.Epoch)
	t.warn(ctx, stored, "EpochRefused", why)
	return status.Error(codes.FailedPrecondition, why)
}

// warn writes an event about a host's hello, now and then only.
func (t *term) warn(ctx context.Context, host *v1.Host, reason, message string) {
	now := time.Now()
	t.mu.Lock()
	p := t.peer(host.GetMeta().GetName(), now)
	due := now.Sub(p.warned) >= warnPeriod
	if due {
		p.warned = now
	}
	t.mu.Unlock()
	if due {
		t.event(ctx, now, notice{host, reason, message, true})
	}
}

// begin makes the host's new session and ends the one before.
func (t *term) begin(host string, hello *v1.WatchAssignmentsRequest, end context.CancelCauseFunc, now time.Time) (*session, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed != nil {
		return nil, t.closed
	}
	if t.streams >= t.cfg.MaxSessions {
		return nil, status.Errorf(codes.ResourceExhausted, "%d sessions are open, the most that are served: try later", t.streams)
	}
	p := t.peer(host, now)
	if p.streams >= maxStreams || !p.sessions.AllowN(now, 1) {
		return nil, status.Errorf(codes.ResourceExhausted,
			"host %s begins sessions too often: do two machines use its certificate? Wait before the next", host)
	}
	t.endSession(p, status.Errorf(codes.Aborted, "a newer session of host %s began", host))
	p.session = &session{id: hello.GetSessionId(), peer: p, end: end, wake: make(chan struct{}, 1), news: newNews()}
	p.hello, p.heard, p.silent = hello, now, false
	p.report = nil // the hello speaks for a whole only together with a report of its session
	p.streams++
	t.streams++
	t.metrics.sessions.Set(float64(t.streams))
	t.log.Info().Str("host", host).Str("session", hello.GetSessionId()).Str("version", hello.GetAgentVersion()).Msg("session began")
	return p.session, nil
}

// endSession ends the session that a host has, if any. The caller holds mu.
func (t *term) endSession(p *peer, why error) {
	if p.session == nil {
		return
	}
	t.dropQuestions(p.session)
	p.session.end(why)
	p.session = nil
	p.erase = nil
	clear(p.orphans)
}

// leave is the last act of a call of Watch.
func (t *term) leave(s *session) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.streams--
	s.peer.streams--
	t.metrics.sessions.Set(float64(t.streams))
	if s.peer.session == s {
		t.endSession(s.peer, status.Error(codes.Canceled, "the stream of assignments ended"))
	}
}

// cause says why a session ended, as a status.
func cause(ctx context.Context) error {
	why := context.Cause(ctx)
	if _, ok := status.FromError(why); ok {
		return why
	}
	return status.FromContextError(why).Err()
}

// stream sends what the host shall run, first all of it, then what changes. A slow host makes nobody else wait: what
// changes meanwhile is gathered by desktop.
func (t *term) stream(ctx context.Context, s *session, send func(*v1.Assignments) error) error {
	out := newOutbox(s.peer.name, t.cfg.Epoch)
	for {
		n := t.take(s)
		for _, m := range out.messages(t.mirror.View(), n) {
			if err := send(m); err != nil {
				return err
			}
			t.metrics.assignments.WithLabelValues("set").Add(float64(len(m.GetSet())))
			t.metrics.assignments.WithLabelValues("drop").Add(float64(len(m.GetDrop())))
		}
		select {
		case <-ctx.Done():
			return cause(ctx)
		case <-s.wake:
		}
		select {
		case <-ctx.Done():
			return cause(ctx)
		case <-time.After(debounce):
		}
	}
}

// take hands out what is new for a session and begins a new list.
func (t *term) take(s *session) news {
	t.mu.Lock()
	defer t.mu.Unlock()
	n := s.news
	s.news = newNews()
	if s.peer.session == s {
		n.erase = s.peer.erase
	}
	return n
}
