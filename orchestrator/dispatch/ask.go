package dispatch

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"time"

	"buf.build/go/protovalidate"
	"github.com/google/uuid"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/timestamppb"

	"daybreak/orchestrator/store"
	v1 "daybreak/proto/daybreak/v1"
)

// Sentinels of questions to hosts. A desktop that does not exist is store.ErrNotFound, a server that does not lead
// store.ErrNotLeader, and no answer in time context.DeadlineExceeded.
var (
	// ErrUnreachable: the host has no session now, or lost it before it answered.
	ErrUnreachable = errors.New("host is not reachable")
	// ErrBusy: too many questions wait for answers.
	ErrBusy = errors.New("too many questions wait for an answer")
	// ErrNotRunning: the desktop has no VM that could be asked.
	ErrNotRunning = errors.New("desktop is not running")
	// ErrRefused: the host answered, but not with what was asked for.
	ErrRefused = errors.New("host could not do it")
)

const (
	// askLimit bounds how long a question waits for its answer.
	askLimit = 20 * time.Second
	// maxAsks and maxHostAsks bound the questions that wait, in all and for one host.
	maxAsks     = 256
	maxHostAsks = 16
)

// question waits for its answer.
type question struct {
	session *session
	ask     *v1.Ask
	answer  chan answer // has room for one: whoever answers never waits
}

type answer struct {
	png []byte
	err error
}

var pngSignature = []byte("\x89PNG\r\n\x1a\n")

// Screenshot asks the desktop's host for a picture of its screen and returns the PNG. It waits for ctx, 20 s at most.
func (s *Server) Screenshot(ctx context.Context, desktop string) ([]byte, error) {
	t := s.leading()
	if t == nil {
		return nil, fmt.Errorf("take screenshot of desktop %s: %w", desktop, store.ErrNotLeader)
	}
	host, generation, err := t.showing(desktop)
	if err != nil {
		return nil, fmt.Errorf("take screenshot of desktop %s: %w", desktop, err)
	}
	a, err := t.ask(ctx, host, &v1.Ask{Id: uuid.NewString(), Question: &v1.Ask_Screenshot{
		Screenshot: &v1.ScreenshotAsk{Desktop: desktop, Generation: generation},
	}})
	if err != nil {
		return nil, fmt.Errorf("take screenshot of desktop %s: %w", desktop, err)
	}
	return a.png, nil
}

// CallBuild calls the host's agent to a build: when it returns nil the agent will open a Build stream with this id, which
// nobody can guess. It waits for ctx, 20 s at most.
func (s *Server) CallBuild(ctx context.Context, host, id string, build *v1.BuildAsk) error {
	t := s.leading()
	if t == nil {
		return fmt.Errorf("call host %s to a build: %w", host, store.ErrNotLeader)
	}
	if _, err := t.ask(ctx, host, &v1.Ask{Id: id, Question: &v1.Ask_Build{Build: build}}); err != nil {
		return fmt.Errorf("call host %s to a build: %w", host, err)
	}
	return nil
}

// showing says on which host the desktop has a VM, and of which generation.
func (t *term) showing(desktop string) (host string, generation int64, err error) {
	d, ok := store.Lookup[*v1.Desktop](t.mirror.View(), desktop)
	if !ok {
		return "", 0, store.ErrNotFound
	}
	host, generation = d.GetIncarnation().GetHost(), d.GetIncarnation().GetGeneration()
	if host == "" || !running(store.Present(d).GetState()) {
		return "", 0, ErrNotRunning
	}
	return host, generation, nil
}

// ask puts a question on the host's stream and waits for the answer.
func (t *term) ask(ctx context.Context, host string, ask *v1.Ask) (answer, error) {
	ctx, cancel := context.WithTimeout(ctx, askLimit)
	defer cancel()
	if deadline, ok := ctx.Deadline(); ok {
		ask.Deadline = timestamppb.New(deadline)
	}
	q, err := t.put(host, ask)
	if err != nil {
		return answer{}, err
	}
	defer t.withdraw(ask.GetId())
	select {
	case <-ctx.Done():
		return answer{}, fmt.Errorf("host %s did not answer: %w", host, ctx.Err())
	case a := <-q.answer:
		return a, a.err
	}
}

func (t *term) put(host string, ask *v1.Ask) (*question, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	p, ok := t.peers[host]
	if !ok || p.session == nil {
		return nil, fmt.Errorf("host %s has no session: %w", host, ErrUnreachable)
	}
	waiting := 0
	for _, q := range t.asked {
		if q.session == p.session {
			waiting++
		}
	}
	if waiting >= maxHostAsks || len(t.asked) >= maxAsks {
		return nil, fmt.Errorf("ask host %s: %w", host, ErrBusy)
	}
	q := &question{session: p.session, ask: ask, answer: make(chan answer, 1)}
	t.asked[ask.GetId()] = q
	p.session.note(func(n *news) { n.asks = append(n.asks, ask) })
	return q, nil
}

// withdraw forgets a question, also where it was not sent yet.
func (t *term) withdraw(id string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	q, ok := t.asked[id]
	if !ok {
		return
	}
	delete(t.asked, id)
	waiting := q.session.news.asks
	for i, ask := range waiting {
		if ask.GetId() == id {
			q.session.news.asks = append(waiting[:i:i], waiting[i+1:]...)
			return
		}
	}
}

// dropQuestions answers what a session that ends leaves open. The caller holds mu.
func (t *term) dropQuestions(s *session) {
	for id, q := range t.asked {
		if q.session == s {
			delete(t.asked, id)
			q.answer <- answer{err: fmt.Errorf("the host's session ended: %w", ErrUnreachable)}
		}
	}
}

// Answer implements v1.AgentServiceServer. Only the session that was asked may answer, once.
func (s *Server) Answer(ctx context.Context, req *v1.AnswerRequest) (*v1.AnswerResponse, error) {
	host, t, err := s.caller(ctx)
	if err != nil {
		return nil, err
	}
	if err := protovalidate.Validate(req); err != nil {
		return nil, status.Errorf(codes.InvalidArgument, "answer of host %s: %v", host, err)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	p, ok := t.peers[host]
	if !ok || p.session == nil || p.session.id != req.GetSessionId() {
		return nil, status.Errorf(codes.FailedPrecondition, "session %s is not the present one of host %s", req.GetSessionId(), host)
	}
	q, ok := t.asked[req.GetId()]
	if !ok || q.session != p.session {
		return nil, status.Errorf(codes.NotFound, "nobody waits for answer %q of host %s: it may be late", req.GetId(), host)
	}
	delete(t.asked, req.GetId())
	q.answer <- answered(q.ask, req)
	return &v1.AnswerResponse{}, nil
}

func answered(ask *v1.Ask, req *v1.AnswerRequest) answer {
	if why := req.GetError(); why != "" {
		return answer{err: fmt.Errorf("%s: %w", text(why, maxMessage), ErrRefused)}
	}
	if ask.GetScreenshot() != nil && !bytes.HasPrefix(req.GetPng(), pngSignature) {
		return answer{err: fmt.Errorf("the answer is no PNG picture: %w", ErrRefused)}
	}
	return answer{png: req.GetPng()}
}
