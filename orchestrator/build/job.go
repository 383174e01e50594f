package build

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync/atomic"
	"time"
	"unicode"

	"golang.org/x/sync/errgroup"

	"daybreak/images"
	"daybreak/orchestrator/store"
	v1 "daybreak/proto/daybreak/v1"
)

const (
	// maxWhy bounds what an agent's words may be in an event or an error, in characters.
	maxWhy = 700
	// againLimit is how long a host may refuse to check what it has just made, and againPause how long it is left alone then.
	againLimit = 30 * time.Second
	againPause = 500 * time.Millisecond
)

// job is one build from its order to its end.
type job struct {
	relay  *Relay
	plan   *plan
	host   string
	by     string
	people People
	words  <-chan heard[*v1.BuildRequest] // nil once the admin has said all
	// seal tells that somebody else than the stream's owner sealed the build.
	seal chan struct{}
	// waiting: an interactive build waits for its admin.
	waiting atomic.Bool

	refused   map[string]bool // hosts that did not want it
	filesLeft uint64          // bytes of the order's files that are still to come
	said      uint64          // bytes of output so far
	log       tail
	manifest  []byte
}

// first calls hosts until one comes: the one that was named, or the best, then the next best.
func (j *job) first(ctx context.Context) (*leg, Agent, error) {
	for {
		l, agent, err := j.relay.begin(ctx, j.host, j.plan)
		var no *refusal
		if !errors.As(err, &no) || j.plan.order.GetHost() != "" || errors.Is(err, store.ErrNotLeader) || ctx.Err() != nil {
			return l, agent, err
		}
		j.refused[j.host] = true
		if j.relay.admit(j.relay.deps.Mirror.View(), j) != nil {
			return nil, nil, err // what the last one said tells more than that there is no other
		}
	}
}

// again calls the host that has just made a version to check it. It may still be tidying up, and then refuses.
func (j *job) again(ctx context.Context, p *plan) (*leg, Agent, error) {
	for began := time.Now(); ; {
		l, agent, err := j.relay.begin(ctx, j.host, p)
		var no *refusal
		if !errors.As(err, &no) || errors.Is(err, store.ErrNotLeader) || time.Since(began) > againLimit {
			return l, agent, err
		}
		select {
		case <-ctx.Done():
			return nil, nil, context.Cause(ctx)
		case <-j.relay.deps.Closing:
			return nil, nil, ErrStopping
		case <-time.After(againPause):
		}
	}
}

// leg does one part of the job on its host, to which its agent has come, and returns how it ended. What the agent itself
// says is in the outcome, with its error; an error means that it could not say.
func (j *job) leg(ctx context.Context, p *plan, l *leg, agent Agent) (*v1.BuildOutcome, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	updates := listen(ctx, agent.Recv)
	var group errgroup.Group
	group.Go(func() error {
		cancel(j.up(ctx, p, agent))
		return nil
	})
	outcome, err := j.down(ctx, p, updates)
	cancel(errLegOver)
	// Only now can whoever waits in a Send to the agent give up.
	j.relay.end(l)
	return outcome, errors.Join(err, group.Wait())
}

// errLegOver ends what hands on words to an agent that has ended its part.
var errLegOver = errors.New("the agent has ended its part")

// up hands on what the admin says, until the leg ends. It returns why the build must end, nil for no reason of its own.
func (j *job) up(ctx context.Context, p *plan, agent Agent) error {
	send := func(task *v1.BuildTask) error {
		if err := agent.Send(task); err != nil {
			return gone(j.host, err)
		}
		return nil
	}
	if err := send(&v1.BuildTask{Say: &v1.BuildTask_Assignment{Assignment: p.assignment()}}); err != nil {
		return err
	}
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-j.seal:
			if !p.order.GetInteractive() {
				continue
			}
			if err := send(&v1.BuildTask{Say: &v1.BuildTask_Seal{Seal: &v1.SealNow{}}}); err != nil {
				return err
			}
		case w := <-j.words:
			task, err := j.task(w)
			if err != nil {
				return err
			}
			if task == nil {
				continue
			}
			if err := send(task); err != nil {
				return err
			}
		}
	}
}

// task makes of what the admin said what the agent is to hear, nil for nothing.
func (j *job) task(w heard[*v1.BuildRequest]) (*v1.BuildTask, error) {
	if errors.Is(w.err, io.EOF) {
		j.words = nil
		if j.filesLeft > 0 {
			return nil, fmt.Errorf("the stream ended %d bytes before the files did: %w", j.filesLeft, ErrInvalid)
		}
		return nil, nil
	}
	if w.err != nil {
		return nil, mistaken(w.err)
	}
	switch say := w.message.GetSay().(type) {
	case *v1.BuildRequest_FilePiece:
		if uint64(len(say.FilePiece)) > j.filesLeft {
			return nil, fmt.Errorf("the files are longer than the order says, by %d bytes: did one grow? %w",
				uint64(len(say.FilePiece))-j.filesLeft, ErrInvalid)
		}
		j.filesLeft -= uint64(len(say.FilePiece))
		return &v1.BuildTask{Say: &v1.BuildTask_FilePiece{FilePiece: say.FilePiece}}, nil
	case *v1.BuildRequest_Screen:
		if !j.waiting.Load() {
			return nil, nil // there is no screen to be seen, or it is gone
		}
		return &v1.BuildTask{Say: &v1.BuildTask_Screen{Screen: say.Screen}}, nil
	case *v1.BuildRequest_Seal:
		if !j.waiting.CompareAndSwap(true, false) {
			return nil, nil
		}
		return &v1.BuildTask{Say: &v1.BuildTask_Seal{Seal: say.Seal}}, nil
	}
	return nil, fmt.Errorf("only files, the screen and the seal can follow the order: %w", ErrInvalid)
}

// down hands on what the agent says, until it says how its part ended.
func (j *job) down(ctx context.Context, p *plan, updates <-chan heard[*v1.BuildUpdate]) (*v1.BuildOutcome, error) {
	defer j.waiting.Store(false)
	for {
		select {
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		case <-j.relay.deps.Closing:
			return nil, ErrStopping
		case u := <-updates:
			if u.err != nil {
				return nil, gone(j.host, u.err)
			}
			if outcome := u.message.GetOutcome(); outcome != nil {
				return outcome, nil
			}
			if err := j.hand(p, u.message); err != nil {
				return nil, err
			}
		}
	}
}

// hand tells the admin one thing that the agent said, or keeps it.
func (j *job) hand(p *plan, update *v1.BuildUpdate) error {
	patch := p.order.GetKind() == v1.BuildKind_BUILD_KIND_PATCH
	switch say := update.GetSay().(type) {
	case *v1.BuildUpdate_Progress:
		progress := say.Progress
		progress.Text = clean(progress.GetText(), maxWhy)
		progress.Waiting = progress.GetWaiting() && p.order.GetInteractive()
		j.waiting.Store(progress.GetWaiting())
		return j.tell(&v1.BuildResponse{Say: &v1.BuildResponse_Progress{Progress: progress}})
	case *v1.BuildUpdate_Output:
		if j.said += uint64(len(say.Output)); j.said > j.relay.maxOutput {
			return fmt.Errorf("the build on host %s said more than %d MiB: %w", j.host, j.relay.maxOutput>>20, ErrFailed)
		}
		if patch {
			j.log.write(say.Output)
		}
		return j.tell(&v1.BuildResponse{Say: &v1.BuildResponse_Output{Output: say.Output}})
	case *v1.BuildUpdate_Screen:
		if !p.order.GetInteractive() {
			return fmt.Errorf("host %s sent a screen that nobody asked for: %w", j.host, ErrFailed)
		}
		return j.tell(&v1.BuildResponse{Say: &v1.BuildResponse_Screen{Screen: say.Screen}})
	case *v1.BuildUpdate_Manifest:
		if want := images.Count(p.version.GetSizeBytes())*images.DigestBytes + 64; !patch || len(j.manifest)+len(say.Manifest) > want {
			return fmt.Errorf("host %s sent a manifest that is none of this disk: %w", j.host, ErrFailed)
		}
		j.manifest = append(j.manifest, say.Manifest...)
		return nil
	}
	return fmt.Errorf("host %s said what has no place in a build: %w", j.host, ErrFailed)
}

// tell sends the admin something. Only the goroutine that runs the job does.
func (j *job) tell(response *v1.BuildResponse) error {
	return j.people.Send(response)
}

func (j *job) progress(text string) error {
	return j.tell(&v1.BuildResponse{Say: &v1.BuildResponse_Progress{Progress: &v1.BuildProgress{Text: text}}})
}

// tail keeps the end of what was written, as much as one chunk holds.
type tail struct{ kept []byte }

func (t *tail) write(p []byte) {
	t.kept = append(t.kept, p...)
	// Now and then, so that a byte is moved about once.
	if len(t.kept) > 2*images.ChunkBytes {
		t.kept = append(t.kept[:0], t.bytes()...)
	}
}

func (t *tail) bytes() []byte { return t.kept[max(0, len(t.kept)-images.ChunkBytes):] }

// clean takes out of an agent's or a guest's words what is not for print, and cuts them.
func clean(text string, limit int) string {
	text = strings.Map(func(r rune) rune {
		switch {
		case r == '\n' || r == '\t':
			return ' '
		case unicode.IsPrint(r):
			return r
		}
		return -1
	}, text)
	return store.Cut(text, limit)
}
