package libvirt

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"daybreak/hostagent"
)

func TestGateLetsCallsThrough(t *testing.T) {
	g := newGate(2)
	want := errors.New("libvirt said no")
	for range 5 {
		if err := g.do(t.Context(), time.Second, "k", "call", func(int) error { return want }); !errors.Is(err, want) {
			t.Fatalf("do = %v", err)
		}
	}
	if len(g.busy) != 0 || len(g.places) != cap(g.places) || g.hung != 0 {
		t.Errorf("left behind: %v, %d places free, %d hung", g.busy, len(g.places), g.hung)
	}
}

// A daemon that hangs costs as many goroutines as there are places, whatever is asked of it; and when it comes back, all is
// as before.
func TestGateWhenCallsHang(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGate(3)
		back := make(chan struct{})
		hang := func(int) error { <-back; return nil }
		for i := range 3 {
			begun := time.Now()
			if err := g.do(t.Context(), 10*time.Second, fmt.Sprint(i), "call", hang); !errors.Is(err, hostagent.ErrTimeout) {
				t.Fatalf("do = %v, want ErrTimeout", err)
			}
			if took := time.Since(begun); took != 10*time.Second {
				t.Errorf("took %v", took)
			}
		}
		begun := time.Now()
		for range 1000 {
			if err := g.do(t.Context(), 10*time.Second, "", "call", hang); !errors.Is(err, hostagent.ErrTimeout) {
				t.Fatalf("do = %v, want ErrTimeout", err)
			}
		}
		if took := time.Since(begun); took != 0 {
			t.Errorf("calls behind hung ones waited %v", took)
		}
		close(back)
		synctest.Wait()
		if err := g.do(t.Context(), time.Second, "0", "call", func(int) error { return nil }); err != nil {
			t.Errorf("after the daemon came back: %v", err)
		}
		if len(g.busy) != 0 || len(g.places) != cap(g.places) || g.hung != 0 {
			t.Errorf("left behind: %v, %d places free, %d hung", g.busy, len(g.places), g.hung)
		}
	})
}

func TestGateKeepsCallsOfOneKeyApart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGate(4)
		inside, results := 0, make(chan error)
		for range 5 {
			go func() {
				results <- g.do(t.Context(), time.Minute, "desktop", "call", func(int) error {
					if inside++; inside > 1 {
						t.Error("two calls of one key at once")
					}
					time.Sleep(time.Second)
					inside--
					return nil
				})
			}()
		}
		for range 5 {
			if err := <-results; err != nil {
				t.Error(err)
			}
		}
		// Behind a call that hangs nothing waits; other keys go on.
		back := make(chan struct{})
		if err := g.do(t.Context(), time.Second, "desktop", "call", func(int) error { <-back; return nil }); !errors.Is(err, hostagent.ErrTimeout) {
			t.Fatalf("do = %v", err)
		}
		begun := time.Now()
		if err := g.do(t.Context(), time.Minute, "desktop", "call", func(int) error { return nil }); !errors.Is(err, hostagent.ErrTimeout) || time.Since(begun) != 0 {
			t.Errorf("behind a call that hangs: %v after %v", err, time.Since(begun))
		}
		if err := g.do(t.Context(), time.Minute, "another", "call", func(int) error { return nil }); err != nil {
			t.Errorf("another key: %v", err)
		}
		close(back)
		synctest.Wait()
	})
}

func TestGateObeysItsCaller(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGate(1)
		back := make(chan struct{})
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		begun := time.Now()
		err := g.do(ctx, time.Minute, "", "call", func(int) error { <-back; return nil })
		if !errors.Is(err, hostagent.ErrTimeout) || !errors.Is(err, context.DeadlineExceeded) || time.Since(begun) != time.Second {
			t.Errorf("do = %v after %v", err, time.Since(begun))
		}
		close(back)
		synctest.Wait()
	})
}

// A start that hangs for ever keeps out its own desktop only, and comes back when its QEMU is ended.
func TestGateUnblocks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGate(4)
		qemu := make(chan struct{})
		begun := time.Now()
		err := g.do(t.Context(), time.Minute, "desktop", "start", func(int) error { <-qemu; return errors.New("QEMU ended") })
		if !errors.Is(err, hostagent.ErrTimeout) || time.Since(begun) != time.Minute {
			t.Fatalf("start = %v after %v", err, time.Since(begun))
		}
		quick := func(int) error { return nil }
		if err := g.do(t.Context(), time.Minute, "another", "start", quick); err != nil {
			t.Errorf("another desktop: %v", err)
		}
		if err := g.unblock(t.Context(), "another", "free", func() error { t.Error("nothing hung and was freed"); return nil }); err != nil {
			t.Errorf("unblock where nothing hangs: %v", err)
		}
		// What cannot be ended, or is not known, says nothing of the start.
		err = g.unblock(t.Context(), "desktop", "free", func() error { return hostagent.ErrNotFound })
		if !errors.Is(err, hostagent.ErrTimeout) || errors.Is(err, hostagent.ErrNotFound) {
			t.Errorf("nothing was found: %v", err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if err := g.unblock(ctx, "desktop", "free", func() error { return nil }); !errors.Is(err, hostagent.ErrTimeout) {
			t.Errorf("the start did not come back: %v", err)
		}
		err = g.unblock(t.Context(), "desktop", "free", func() error {
			time.AfterFunc(10*time.Second, func() { close(qemu) }) // SIGKILL
			return nil
		})
		if err != nil {
			t.Errorf("unblock = %v", err)
		}
		if err := g.do(t.Context(), time.Minute, "desktop", "destroy", quick); err != nil {
			t.Errorf("after it was freed: %v", err)
		}
		synctest.Wait()
		if len(g.busy) != 0 || len(g.places) != cap(g.places) || g.hung != 0 {
			t.Errorf("left behind: %v, %d places free, %d hung", g.busy, len(g.places), g.hung)
		}
	})
}
