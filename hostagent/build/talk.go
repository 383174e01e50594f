package build

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"buf.build/go/protovalidate"

	v1 "daybreak/proto/daybreak/v1"
)

const (
	// assignmentTimeout is how long the control plane may take to say what is to be done.
	assignmentTimeout = 30 * time.Second
	// pieceTimeout is how long the next piece of a file may take.
	pieceTimeout = 5 * time.Minute
	// stallEvery: while nobody takes a file's next piece nothing is received either, not even the end; a word to the other
	// side finds that out.
	stallEvery = 5 * time.Second
	// endTimeout is how long the other side may take to hear the outcome.
	endTimeout = 15 * time.Second
	// sendBytes of output, screen or manifest go into one message at most.
	sendBytes     = 64 << 10
	manifestBytes = 512 << 10
)

// errGone: nobody wants the build any more.
var errGone = errors.New("the admin or the control plane went away")

type stream interface {
	Send(*v1.BuildUpdate) error
	Recv() (*v1.BuildTask, error)
	CloseSend() error
}

// talk is the stream with the control plane.
type talk struct {
	stream stream
	// pieces of files, in order; screen is what the admin's viewer says; seal is closed when the admin is done.
	pieces, screen chan []byte
	seal           chan struct{}
	// interactive: there is somebody who listens to screen.
	interactive bool
	// rest is what is left of the piece at hand; used by one reader.
	rest []byte

	mu sync.Mutex // of sending
	// at is what was said last of how far it is. Guarded by mu.
	at *v1.BuildProgress
}

// begin says which build it is and hears what is to be done.
func begin(stream stream, id string) (*talk, *v1.BuildAssignment, error) {
	if err := stream.Send(&v1.BuildUpdate{Say: &v1.BuildUpdate_Id{Id: id}}); err != nil && !errors.Is(err, io.EOF) {
		return nil, nil, fmt.Errorf("begin build: %w", err)
	}
	task, err := stream.Recv()
	if err != nil {
		return nil, nil, fmt.Errorf("begin build: %w", err)
	}
	assignment := task.GetAssignment()
	if assignment == nil {
		return nil, nil, errors.New("begin build: the first message has no assignment")
	}
	if err := protovalidate.Validate(assignment); err != nil {
		return nil, nil, fmt.Errorf("begin build: the assignment is not valid: %w", err)
	}
	return &talk{
		stream: stream, pieces: make(chan []byte, 4), screen: make(chan []byte, 16), seal: make(chan struct{}),
		interactive: assignment.GetOrder().GetInteractive(), at: &v1.BuildProgress{},
	}, assignment, nil
}

// listen takes in what comes until the stream ends, which is always an error.
func (t *talk) listen(ctx context.Context) error {
	sealed := false
	for {
		task, err := t.stream.Recv()
		if err != nil {
			return fmt.Errorf("%w: %w", errGone, err)
		}
		switch say := task.GetSay().(type) {
		case *v1.BuildTask_FilePiece:
			if err := t.handOver(ctx, say.FilePiece); err != nil {
				return err
			}
		case *v1.BuildTask_Screen:
			if !t.interactive {
				continue
			}
			select {
			case t.screen <- say.Screen:
			case <-ctx.Done():
				return ctx.Err()
			}
		case *v1.BuildTask_Seal:
			if !sealed {
				close(t.seal)
			}
			sealed = true
		}
	}
}

func (t *talk) handOver(ctx context.Context, piece []byte) error {
	tick := time.NewTicker(stallEvery)
	defer tick.Stop()
	for len(piece) > 0 {
		select {
		case t.pieces <- piece:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
			t.mu.Lock()
			err := t.stream.Send(&v1.BuildUpdate{Say: &v1.BuildUpdate_Progress{Progress: t.at}})
			t.mu.Unlock()
			if err != nil {
				return fmt.Errorf("%w: %w", errGone, err)
			}
		}
	}
	return nil
}

// send sends a message. That the stream has ended is listen's to say.
func (t *talk) send(update *v1.BuildUpdate) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if err := t.stream.Send(update); err != nil {
		return fmt.Errorf("%w: %w", errGone, err)
	}
	return nil
}

// progress says what the build does now.
func (t *talk) progress(text string, percent uint32) error {
	at := &v1.BuildProgress{Text: text, Percent: min(percent, 100)}
	t.mu.Lock()
	t.at = at
	t.mu.Unlock()
	return t.send(&v1.BuildUpdate{Say: &v1.BuildUpdate_Progress{Progress: at}})
}

// waiting says that the admin has the word.
func (t *talk) waiting() error {
	return t.send(&v1.BuildUpdate{Say: &v1.BuildUpdate_Progress{Progress: &v1.BuildProgress{Text: "waiting for its admin to seal it", Waiting: true}}})
}

// output sends output of the script.
func (t *talk) output(text []byte) error {
	for len(text) > 0 {
		n := min(len(text), sendBytes)
		if err := t.send(&v1.BuildUpdate{Say: &v1.BuildUpdate_Output{Output: text[:n]}}); err != nil {
			return err
		}
		text = text[n:]
	}
	return nil
}

// manifest sends a manifest.
func (t *talk) manifest(encoded []byte) error {
	for len(encoded) > 0 {
		n := min(len(encoded), manifestBytes)
		if err := t.send(&v1.BuildUpdate{Say: &v1.BuildUpdate_Manifest{Manifest: encoded[:n]}}); err != nil {
			return err
		}
		encoded = encoded[n:]
	}
	return nil
}

// file reads the next size bytes of the order's files, until ctx ends.
func (t *talk) file(ctx context.Context, size uint64) io.Reader {
	return io.LimitReader(readFunc(func(p []byte) (int, error) { return t.read(ctx, p) }), int64(size))
}

type readFunc func(p []byte) (int, error)

func (f readFunc) Read(p []byte) (int, error) { return f(p) }

func (t *talk) read(ctx context.Context, p []byte) (int, error) {
	if len(t.rest) == 0 {
		timer := time.NewTimer(pieceTimeout)
		defer timer.Stop()
		select {
		case t.rest = <-t.pieces:
		case <-ctx.Done():
			return 0, context.Cause(ctx)
		case <-timer.C:
			return 0, fmt.Errorf("the next piece of a file did not come within %v", pieceTimeout)
		}
	}
	n := copy(p, t.rest)
	t.rest = t.rest[n:]
	return n, nil
}
