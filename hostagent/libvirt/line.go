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

// Times of a connection. libvirtd is asked for a sign of life every keepAlive seconds; after keepAliveMisses without one
// the connection counts as dead, and the calls that hang on it come back.
const (
	keepAlive       = 5
	keepAliveMisses = 3
	minReconnect    = 250 * time.Millisecond
	maxReconnect    = 10 * time.Second
)

// errNotConnected is transient: libvirtd is being restarted, or was never there.
var errNotConnected = errors.New("libvirtd is not there")

// line is one connection and the calls on it.
type line struct {
	name string
	gate *gate

	mu   sync.Mutex
	conn *lv.Connect // nil while there is none; guarded by mu
	why  error       // why there is none; guarded by mu
}

func newLine(name string, places int) *line {
	return &line{name: name, gate: newGate(places), why: errors.New("not connected yet")}
}

// do runs call with the line's connection; see gate.do.
func (l *line) do(ctx context.Context, timeout time.Duration, key, what string, call func(*lv.Connect) error) error {
	return l.gate.do(ctx, timeout, key, what, func() error {
		c, err := l.acquire()
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
func (l *line) acquire() (*lv.Connect, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.conn == nil {
		return nil, fmt.Errorf("%w: %w", errNotConnected, l.why)
	}
	if err := l.conn.Ref(); err != nil {
		return nil, fmt.Errorf("use connection: %w", err)
	}
	return l.conn, nil
}

// set replaces the connection and returns the one before.
func (l *line) set(c *lv.Connect, why error) (before *lv.Connect) {
	l.mu.Lock()
	defer l.mu.Unlock()
	before, l.conn, l.why = l.conn, c, why
	return before
}

// keepUp connects a line, and connects it again whenever the connection died, until ctx ends.
func (h *Host) keepUp(ctx context.Context, l *line) error {
	wait := minReconnect
	for {
		c, dead, err := h.connect(ctx, l)
		if err == nil {
			l.set(c, nil)
			wait = minReconnect
			h.log.Info().Str("line", l.name).Msg("connected to libvirtd")
			h.hint()
			select {
			case <-dead:
				err = errors.New("libvirtd closed the connection")
			case <-ctx.Done():
			}
		}
		if before := l.set(nil, err); before != nil {
			// It may hang as any call may; the calls still on it hold references of their own.
			go before.Close() //nolint:errcheck // it is given up
		}
		if ctx.Err() != nil {
			return nil
		}
		h.log.Warn().Err(err).Str("line", l.name).Dur("retry_in", wait).Msg("no connection to libvirtd")
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
func (h *Host) connect(ctx context.Context, l *line) (*lv.Connect, <-chan struct{}, error) {
	type result struct {
		c    *lv.Connect
		dead <-chan struct{}
		err  error
	}
	done := make(chan result, 1)
	go func() {
		c, dead, err := h.dial(l)
		done <- result{c, dead, err}
	}()
	select {
	case r := <-done:
		return r.c, r.dead, r.err
	case <-ctx.Done():
		return nil, nil, fmt.Errorf("connect to libvirtd: %w", ctx.Err())
	}
}

func (h *Host) dial(l *line) (_ *lv.Connect, _ <-chan struct{}, err error) {
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
	if err := c.SetKeepAlive(keepAlive, keepAliveMisses); err != nil {
		return nil, nil, fmt.Errorf("connect to libvirtd: %w", err)
	}
	if l == h.lists {
		if err := h.watch(c); err != nil {
			return nil, nil, fmt.Errorf("connect to libvirtd: %w", err)
		}
	}
	return c, dead, nil
}
