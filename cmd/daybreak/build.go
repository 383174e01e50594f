package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"google.golang.org/grpc"

	"daybreak/cmd/daybreak/show"
	v1 "daybreak/proto/daybreak/v1"
)

// filePiece is how much of a file goes into one message.
const filePiece = 256 << 10

// buildCall is one build as the command line sees it.
type buildCall struct {
	app     *app
	wanted  *patching
	files   []*os.File
	screen  *screen // nil unless interactive
	log     *os.File
	output  io.Writer
	bar     *progress
	said    string
	midLine bool // the output stands in the middle of a line
	began   time.Time
}

// newBuildCall opens all that the build needs on this machine, so that what is wrong here shows before anything begins.
func (a *app) newBuildCall(p *patching) (_ *buildCall, err error) {
	b := &buildCall{app: a, wanted: p, output: a.out, bar: newProgress(a.errs), began: time.Now()}
	defer func() {
		if err != nil {
			b.close()
		}
	}()
	if b.files, err = p.finish(); err != nil {
		return nil, err
	}
	if p.format == formatJSON {
		b.output = a.errs // standard output is for the result
	}
	if isTerminal(b.output) {
		b.output = &plainWriter{out: b.output}
	}
	if p.log != "" {
		if b.log, err = os.OpenFile(p.log, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600); err != nil {
			return nil, err
		}
		b.output = io.MultiWriter(b.log, b.output)
	}
	if p.order.GetInteractive() {
		b.screen, err = listenScreen(p.screen)
	}
	return b, err
}

func (b *buildCall) close() {
	closeFiles(b.files)
	b.bar.done()
	if b.screen != nil {
		b.screen.close()
	}
	if b.log != nil {
		_ = b.log.Close()
	}
}

// run does the build and tells how it went.
func (b *buildCall) run(ctx context.Context, conn *grpc.ClientConn) error {
	result, err := b.build(ctx, v1.NewImageServiceClient(conn))
	b.bar.done()
	if err != nil {
		b.newLine()
		if ctx.Err() != nil {
			fmt.Fprintf(b.app.errs, "cancelled: the host takes the VM and its disk away, and no new version is left that could be run\n"+
				"(had the build just ended, 'daybreak image versions %s' shows its version)\n", b.wanted.order.GetImage())
		}
		return err
	}
	if result == nil {
		return errEmpty
	}
	if b.wanted.publish && !result.GetUnchanged() {
		published, err := v1.NewImageServiceClient(conn).Publish(ctx, &v1.PublishRequest{
			Image: b.wanted.order.GetImage(), Version: result.GetVersion().GetNumber(),
		})
		if err != nil {
			return err
		}
		result.Version = published.GetVersion()
	}
	if b.log != nil {
		if err := b.log.Close(); err != nil {
			return fmt.Errorf("write the log: %w", err)
		}
		b.log = nil
	}
	b.newLine()
	if b.wanted.format == formatJSON {
		return printJSON(b.app.out, result)
	}
	b.tell(result)
	return nil
}

// build talks with the control plane until the build is over.
func (b *buildCall) build(ctx context.Context, client v1.ImageServiceClient) (*v1.BuildResult, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	stream, err := client.Build(ctx)
	if err != nil {
		return nil, err
	}
	words := make(chan *v1.BuildRequest)
	spoken := make(chan struct{})
	go func() { // ends with ctx, and is waited for
		defer close(spoken)
		if err := b.speak(ctx, stream, words); err != nil {
			cancel(err)
		}
	}()
	result, err := b.hear(ctx, stream, words)
	if why := context.Cause(ctx); err != nil && why != nil && !errors.Is(why, context.Canceled) {
		err = why // what went wrong on this side, and not that the stream ended for it
	}
	cancel(nil)
	<-spoken
	return result, err
}

// speak says the order, sends the files, and then what comes up.
func (b *buildCall) speak(ctx context.Context, stream v1.ImageService_BuildClient, words <-chan *v1.BuildRequest) error {
	send := func(request *v1.BuildRequest) (gone bool) {
		return stream.Send(request) != nil // why, is for who hears to say
	}
	if send(&v1.BuildRequest{Say: &v1.BuildRequest_Order{Order: b.wanted.order}}) {
		return nil
	}
	for i, file := range b.files {
		left := int64(b.wanted.order.GetFiles()[i].GetSize())
		for left > 0 {
			piece := make([]byte, min(left, filePiece))
			if _, err := io.ReadFull(file, piece); err != nil {
				return fmt.Errorf("read %s: %w: did it shrink meanwhile?", file.Name(), err)
			}
			left -= int64(len(piece))
			if send(&v1.BuildRequest{Say: &v1.BuildRequest_FilePiece{FilePiece: piece}}) {
				return nil
			}
		}
	}
	for {
		select {
		case <-ctx.Done():
			return nil
		case word := <-words:
			if send(word) {
				return nil
			}
		}
	}
}

// hear shows what the control plane says until it says the result.
func (b *buildCall) hear(ctx context.Context, stream v1.ImageService_BuildClient, words chan<- *v1.BuildRequest) (*v1.BuildResult, error) {
	var result *v1.BuildResult
	waits := false
	for {
		response, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return result, nil
		}
		if err != nil {
			return nil, err
		}
		switch say := response.GetSay().(type) {
		case *v1.BuildResponse_Progress:
			b.show(say.Progress)
			if say.Progress.GetWaiting() && !waits && b.screen != nil {
				waits = true
				b.invite(ctx, words)
			}
		case *v1.BuildResponse_Output:
			if err := b.write(say.Output); err != nil {
				return nil, fmt.Errorf("write the script's output: %w", err)
			}
		case *v1.BuildResponse_Screen:
			if b.screen != nil {
				b.screen.show(say.Screen)
			}
		case *v1.BuildResponse_Result:
			result = say.Result
		}
	}
}

// show shows a step: on a line of its own, or, while it says how far it is, on one that is written over.
func (b *buildCall) show(p *v1.BuildProgress) {
	b.newLine()
	if p.GetPercent() > 0 {
		b.bar.show(fmt.Sprintf("%3d%%  %s", p.GetPercent(), p.GetText()))
		return
	}
	b.bar.done()
	if p.GetText() != b.said {
		fmt.Fprintf(b.app.errs, "--> %s\n", show.Clean(p.GetText()))
	}
	b.said = p.GetText()
}

func (b *buildCall) write(output []byte) error {
	if len(output) == 0 {
		return nil
	}
	b.bar.done()
	b.midLine = output[len(output)-1] != '\n'
	_, err := b.output.Write(output)
	return err
}

// newLine ends a line that the output left open.
func (b *buildCall) newLine() {
	if b.midLine {
		b.midLine = false
		fmt.Fprintln(b.app.errs)
	}
}

// invite says how to see the VM's screen and how to go on, and lets both happen.
func (b *buildCall) invite(ctx context.Context, words chan<- *v1.BuildRequest) {
	image := b.wanted.order.GetImage()
	fmt.Fprintf(b.app.errs, "The VM is at your service. Its screen is at %s: vncviewer %s\n", b.screen.address(), b.screen.viewer())
	say := func(request *v1.BuildRequest) bool {
		select {
		case <-ctx.Done():
			return false
		case words <- request:
			return true
		}
	}
	b.screen.serve(ctx, func(piece []byte) bool {
		return say(&v1.BuildRequest{Say: &v1.BuildRequest_Screen{Screen: piece}})
	})
	if !isTerminal(b.app.in) {
		fmt.Fprintf(b.app.errs, "When you are done: daybreak image seal %s\n", image)
		return
	}
	fmt.Fprintf(b.app.errs, "When you are done press Enter here, or run: daybreak image seal %s\n", image)
	go func() { // a read from a terminal ends with the process only
		var one [1]byte
		for n, err := 0, error(nil); one[0] != '\n'; n, err = b.app.in.Read(one[:]) {
			if err != nil && n == 0 {
				return
			}
		}
		say(&v1.BuildRequest{Say: &v1.BuildRequest_Seal{Seal: &v1.SealNow{}}})
	}()
}

// tell says in a sentence what came of the build.
func (b *buildCall) tell(result *v1.BuildResult) {
	v, image := result.GetVersion(), b.wanted.order.GetImage()
	took := show.Span(time.Since(b.began).Truncate(time.Second))
	switch {
	case b.wanted.order.GetKind() == v1.BuildKind_BUILD_KIND_CHECK:
		fmt.Fprintf(b.app.out, "image/%s version %d passed its check, in %s: %s\n", image, v.GetNumber(), took, show.Clean(v.GetCheck()))
		return
	case result.GetUnchanged():
		fmt.Fprintf(b.app.out, "image/%s stays at version %d: the patch changed nothing\n", image, v.GetNumber())
		return
	}
	state := strings.ToLower(strings.TrimPrefix(v.GetState().String(), "VERSION_STATE_"))
	line := fmt.Sprintf("image/%s version %d is %s: %s read, %s sent, in %s", image, v.GetNumber(), state,
		show.Bytes(result.GetReadBytes()), show.Bytes(result.GetSentBytes()), took)
	if b.wanted.publish {
		line += "; published"
	} else {
		line += fmt.Sprintf("; publish it with 'daybreak image publish %s %d'", image, v.GetNumber())
	}
	fmt.Fprintln(b.app.out, line)
	if v.GetCheck() != "" {
		fmt.Fprintln(b.app.errs, "its check: "+show.Clean(v.GetCheck()))
	}
}
