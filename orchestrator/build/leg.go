package build

import (
	"context"
	"errors"
	"fmt"
	"time"

	"buf.build/go/protovalidate"
	"github.com/google/uuid"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"daybreak/orchestrator/store"
	v1 "daybreak/proto/daybreak/v1"
)

// leg is one VM's part of a build: a patch has two, since what it made is checked.
type leg struct {
	id, host string
	// mayPut: the leg makes content, and its host may put chunks into the store.
	mayPut bool
	// arrived hands the agent's stream over; it has room for the one that there is.
	arrived chan Agent
	// over is closed when nothing is said or heard any more on the agent's stream, which ends then.
	over chan struct{}

	// Guarded by the relay's mutex.
	taken bool // the agent's stream is there
	room  int64
}

// refusal is why a host could not be called to a build.
type refusal struct{ err error }

func (r *refusal) Error() string { return r.err.Error() }
func (r *refusal) Unwrap() error { return r.err }

// begin calls the host to a leg and waits until its agent opens the stream. Unless there is an error the caller ends the leg.
func (r *Relay) begin(ctx context.Context, host string, p *plan) (_ *leg, _ Agent, err error) {
	l := &leg{
		id: uuid.NewString(), host: host, mayPut: p.order.GetKind() == v1.BuildKind_BUILD_KIND_PATCH,
		arrived: make(chan Agent, 1), over: make(chan struct{}),
		// Each chunk once, and once more when the line broke: more than that is no disk of this size.
		room: 2*int64(p.version.GetSizeBytes()) + 64<<20, //nolint:gosec // at most 1 TiB
	}
	r.mu.Lock()
	r.legs[l.id] = l
	r.mu.Unlock()
	defer func() {
		if err != nil {
			r.end(l)
		}
	}()
	ask := &v1.BuildAsk{MemoryMib: p.order.GetShape().GetMemoryMib()}
	if err := r.deps.Call.CallBuild(ctx, host, l.id, ask); err != nil {
		return nil, nil, &refusal{err}
	}
	limit := time.NewTimer(arrivalLimit)
	defer limit.Stop()
	select {
	case <-ctx.Done():
		return nil, nil, context.Cause(ctx)
	case <-r.deps.Closing:
		return nil, nil, ErrStopping
	case <-limit.C:
		return nil, nil, fmt.Errorf("host %s agreed to the build and did not come to it within %v: %w", host, arrivalLimit, ErrFailed)
	case agent := <-l.arrived:
		return l, agent, nil
	}
}

// end ends the agent's stream of a leg, and with it the VM.
func (r *Relay) end(l *leg) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.legs, l.id)
	close(l.over)
}

// Serve is the agent's end of a build: the host's agent has opened a stream, whose first message says to which. It returns
// when the build is over.
func (r *Relay) Serve(host string, agent Agent) error {
	first, err := agent.Recv()
	if err != nil {
		return err
	}
	l := r.arrive(host, first.GetId())
	if l == nil {
		return fmt.Errorf("nobody waits for host %s to begin a build with this id: it may have ended: %w", host, store.ErrNotFound)
	}
	l.arrived <- agent
	<-l.over
	return nil
}

// arrive finds the leg that a host was called to. Each can be begun once, by its host only.
func (r *Relay) arrive(host, id string) *leg {
	r.mu.Lock()
	defer r.mu.Unlock()
	l, ok := r.legs[id]
	if !ok || l.host != host || l.taken {
		return nil
	}
	l.taken = true
	return l
}

// Admit says whether a host may put so many bytes of chunks into the store: while it makes a version, and no more than
// its disk can have. ErrNotBuilding and ErrTooMuch otherwise. With 0 bytes it only asks whether there is such a build.
func (r *Relay) Admit(host string, bytes int64) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	found := false
	for _, l := range r.legs {
		if l.host != host || !l.taken || !l.mayPut {
			continue
		}
		found = true
		if bytes <= l.room {
			l.room -= bytes
			return nil
		}
	}
	if found {
		return fmt.Errorf("host %s: %w", host, ErrTooMuch)
	}
	return fmt.Errorf("host %s makes no image version now: %w", host, ErrNotBuilding)
}

// heard is the next message of a stream, or why there is none.
type heard[M any] struct {
	message M
	err     error
}

// listen reads a stream until it ends or ctx does. Nothing is read ahead: who does not take a message holds up the sender.
//
// The goroutine cannot be waited for: Recv returns when the stream's handler has returned, which is what ends ctx too.
func listen[M proto.Message](ctx context.Context, recv func() (M, error)) <-chan heard[M] {
	messages := make(chan heard[M])
	go func() {
		for {
			m, err := recv()
			if err == nil {
				err = protovalidate.Validate(m)
			}
			select {
			case <-ctx.Done():
				return
			case messages <- heard[M]{m, err}:
			}
			if err != nil {
				return
			}
		}
	}()
	return messages
}

// firstOrder reads the message that begins a build.
func firstOrder(ctx context.Context, words <-chan heard[*v1.BuildRequest]) (*v1.BuildOrder, error) {
	select {
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	case w := <-words:
		if w.err != nil {
			return nil, mistaken(w.err)
		}
		if w.message.GetOrder() == nil {
			return nil, fmt.Errorf("the first message has no order: %w", ErrInvalid)
		}
		return w.message.GetOrder(), nil
	}
}

// mistaken tells a message that breaks a rule from a stream that broke.
func mistaken(err error) error {
	var broken *protovalidate.ValidationError
	if errors.As(err, &broken) {
		return fmt.Errorf("%w: %w", err, ErrInvalid)
	}
	return err
}

// gone says that an agent's stream ended before its build did.
func gone(host string, err error) error {
	why := "its agent hung up"
	var broken *protovalidate.ValidationError
	switch {
	case errors.As(err, &broken):
		why = clean("its agent broke the rules: "+err.Error(), maxWhy)
	case status.Code(err) == codes.DeadlineExceeded:
		why = "its certificate ended"
	}
	return fmt.Errorf("host %s: %s: %w", host, why, ErrFailed)
}
