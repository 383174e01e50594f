package build

import (
	"context"
	"errors"
	"fmt"
	"net"
	"time"

	"golang.org/x/sync/errgroup"

	v1 "daybreak/proto/daybreak/v1"
)

var (
	// errSealed ends an interactive build's wait.
	errSealed = errors.New("the admin is done")
	// errViewer ends one viewer's turn.
	errViewer = errors.New("the viewer is gone")
)

// screenPause between two viewers keeps a screen server that hangs up at once from being called without end.
const screenPause = 200 * time.Millisecond

// attend waits until the admin is done with a VM, and lets a viewer of the admin see its screen meanwhile.
func (v *vm) attend(ctx context.Context) error {
	if err := v.j.talk.waiting(); err != nil {
		return err
	}
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error {
		select {
		case <-v.j.talk.seal:
			return errSealed
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	})
	group.Go(func() error {
		for {
			if err := v.showScreen(ctx); err != nil {
				return err
			}
		}
	})
	if err := group.Wait(); !errors.Is(err, errSealed) {
		return err
	}
	return nil
}

// showScreen serves one viewer. The screen server speaks first, so it is connected before there is a viewer: its greeting
// waits for one in the admin's command. It returns nil when the viewer, or the server, has gone.
func (v *vm) showScreen(ctx context.Context) error {
	var dialer net.Dialer
	conn, err := dialer.DialContext(ctx, "unix", v.vnc)
	if err != nil {
		return fmt.Errorf("connect to the VM's screen: %w", err)
	}
	group, serving := errgroup.WithContext(ctx)
	group.Go(func() error {
		defer conn.Close() // ends the reader
		return v.toScreen(serving, conn)
	})
	group.Go(func() error { return v.fromScreen(conn) })
	if err := group.Wait(); !errors.Is(err, errViewer) {
		return err
	}
	if !pause(ctx, screenPause) {
		return context.Cause(ctx)
	}
	return nil
}

func (v *vm) toScreen(ctx context.Context, conn net.Conn) error {
	for {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case piece := <-v.j.talk.screen:
			if len(piece) == 0 {
				return errViewer
			}
			if _, err := conn.Write(piece); err != nil {
				return errViewer
			}
		}
	}
}

func (v *vm) fromScreen(conn net.Conn) error {
	buf := make([]byte, sendBytes)
	for {
		n, err := conn.Read(buf)
		if n > 0 {
			piece := append([]byte(nil), buf[:n]...)
			if err := v.j.talk.send(&v1.BuildUpdate{Say: &v1.BuildUpdate_Screen{Screen: piece}}); err != nil {
				return err
			}
		}
		if err != nil {
			return errViewer
		}
	}
}
