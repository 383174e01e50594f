package libvirt

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	lv "libvirt.org/go/libvirt"

	"daybreak/hostagent"
)

const (
	minReconnect = 250 * time.Millisecond
	maxReconnect = 10 * time.Second
)

// errNotConnected is transient: libvirtd is being restarted, or was never there.
var errNotConnected = errors.New("libvirtd is not there")

// line is the calls of one kind. Each of its places has a connection of its own.
//
// libvirt's client library before 10.3 uses freed stack memory when a second thread makes a call on a connection while a
// first waits for an answer on it, or when the connection's keep-alive timer fires meanwhile (CVE-2024-4418): a libvirtd
// that hung for some seconds took the whole agent with it. So no connection ever has two calls under way, and keep-alive
// is not turned on; on a UNIX socket the kernel tells at once when libvirtd has died.
type line struct {
	gate  *gate
	wires []*wire
}

// wire is one connection.
type wire struct {
	name string

	mu   sync.Mutex
	conn *lv.Connect // nil while there is none; guarded by mu
	why  error       // why there is none; guarded by mu
}

func newLine(name string, places int) *line {
	l := &line{gate: newGate(places)}
	for i := range places {
		l.wires = append(l.wires, &wire{name: fmt.Sprintf("%s-%d", name, i), why: errors.New("not connected yet")})
	}
	return l
}

// do runs call with a connection; see gate.do.
func (l *line) do(ctx context.Context, timeout time.Duration, key, what string, call func(*lv.Connect) error) error {
	return l.gate.do(ctx, timeout, key, what, func(place int) error {
		c, err := l.wires[place].acquire()
		if err != nil {
			return fmt.Errorf("%s: %w", what, err)
		}
		defer c.Close() //nolint:errcheck // drops a reference
		return unknown(call(c))
	})
}

// unknown marks the errors of calls whose connection died under them: they may have been heard.
func unknown(err error) error {
	var e lv.Error
	if errors.As(err, &e) && (e.Domain == lv.FROM_RPC || e.Code == lv.ERR_RPC) {
		return fmt.Errorf("%w: %w", err, hostagent.ErrTimeout)
	}
	return err
}

// acquire returns the connection with a reference of its own, so that nobody closes it under the caller.
func (w *wire) acquire() (*lv.Connect, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.conn == nil {
		return nil, fmt.Errorf("%w: %w", errNotConnected, w.why)
	}
	if err := w.conn.Ref(); err != nil {
		return nil, fmt.Errorf("use connection: %w", err)
	}
	return w.conn, nil
}

// set replaces the connection and returns the one before.
func (w *wire) set(c *lv.Connect, why error) (before *lv.Connect) {
	w.mu.Lock()
	defer w.mu.Unlock()
	before, w.conn, w.why = w.conn, c, why
	return before
}

// keepUp connects a wire, and connects it again whenever the connection died, until ctx ends.
func (h *Host) keepUp(ctx context.Context, w *wire) error {
	wait, lost := minReconnect, false
	for {
		c, dead, err := h.connect(ctx, w)
		if err == nil {
			w.set(c, nil)
			wait = minReconnect
			if lost {
				h.log.Info().Str("connection", w.name).Msg("connected to libvirtd again")
			}
			h.hint()
			select {
			case <-dead:
				err = errors.New("libvirtd closed the connection")
			case <-ctx.Done():
			}
		}
		if before := w.set(nil, err); before != nil {
			// It may hang as any call may; a call still on it holds a reference of its own.
			go before.Close() //nolint:errcheck // it is given up
		}
		if ctx.Err() != nil {
			return nil
		}
		lost = true
		h.log.Warn().Err(err).Str("connection", w.name).Dur("retry_in", wait).Msg("no connection to libvirtd")
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return nil
		}
		wait = min(2*wait, maxReconnect)
	}
}

// connect makes one connection. dead is closed when it has died.
//
// It waits for libvirt's answer as long as it takes: an attempt that hangs comes back when libvirtd does, or dies, and a
// second one beside it would hang too.
func (h *Host) connect(ctx context.Context, w *wire) (*lv.Connect, <-chan struct{}, error) {
	type result struct {
		c    *lv.Connect
		dead <-chan struct{}
		err  error
	}
	done := make(chan result, 1)
	go func() {
		c, dead, err := h.dial(w)
		done <- result{c, dead, err}
	}()
	select {
	case r := <-done:
		return r.c, r.dead, r.err
	case <-ctx.Done():
		return nil, nil, fmt.Errorf("connect to libvirtd: %w", ctx.Err())
	}
}

func (h *Host) dial(w *wire) (_ *lv.Connect, _ <-chan struct{}, err error) {
	c, err := lv.NewConnect(h.cfg.URI)
	if err != nil {
		return nil, nil, fmt.Errorf("connect to libvirtd: %w", err)
	}
	defer func() {
		if err != nil {
			_, closeErr := c.Close()
			err = errors.Join(err, closeErr)
		}
	}()
	dead := make(chan struct{})
	var once sync.Once
	if err := c.RegisterCloseCallback(func(*lv.Connect, lv.ConnectCloseReason) { once.Do(func() { close(dead) }) }); err != nil {
		return nil, nil, fmt.Errorf("connect to libvirtd: %w", err)
	}
	// One connection tells of events; all would tell of each.
	if w == h.lists.wires[0] {
		if err := h.watch(c); err != nil {
			return nil, nil, fmt.Errorf("connect to libvirtd: %w", err)
		}
	}
	return c, dead, nil
}
