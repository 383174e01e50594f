package sim

import (
	"context"
	"errors"
	"net"
	"sync"
)

// network says what a host's link does.
type network int

const (
	networkUp network = iota
	// networkCut: what is sent is lost, and nobody is told.
	networkCut
	// networkReset: connections break at once and none is made.
	networkReset
	// networkStalled: nothing gets through until the link is up again; then everything does.
	networkStalled
)

var errReset = errors.New("connection reset by peer")

// link is the wire between one host and the control plane.
type link struct {
	mu      sync.Mutex
	mode    network
	changed chan struct{} // closed and made anew when mode changes
	conns   map[*conn]struct{}
}

func newLink() *link {
	return &link{changed: make(chan struct{}), conns: map[*conn]struct{}{}}
}

// set changes what the link does. Connections that lost bytes stay broken.
func (l *link) set(mode network) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.mode = mode
	close(l.changed)
	l.changed = make(chan struct{})
	for c := range l.conns {
		switch mode {
		case networkCut:
			c.lost = true
		case networkReset:
			_ = c.Conn.Close()
		case networkUp, networkStalled:
		}
	}
}

func (l *link) now() (network, <-chan struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.mode, l.changed
}

// dial connects over the link.
func (l *link) dial(ctx context.Context, connect func(context.Context) (net.Conn, error)) (net.Conn, error) {
	for {
		mode, changed := l.now()
		switch mode {
		case networkReset:
			return nil, errReset
		case networkUp:
			inner, err := connect(ctx)
			if err != nil {
				return nil, err
			}
			c := &conn{Conn: inner, link: l, closed: make(chan struct{})}
			l.mu.Lock()
			defer l.mu.Unlock()
			l.conns[c] = struct{}{}
			return c, nil
		case networkCut, networkStalled:
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-changed:
		}
	}
}

// conn is a connection over a link, the host's end of it.
type conn struct {
	net.Conn
	link   *link
	lost   bool // guarded by the link's mutex
	closed chan struct{}
	once   sync.Once
}

// wait returns when bytes may pass; false when they are lost.
func (c *conn) wait() (bool, error) {
	for {
		mode, changed := c.link.now()
		c.link.mu.Lock()
		lost := c.lost
		c.link.mu.Unlock()
		if lost {
			return false, nil
		}
		if mode != networkStalled {
			return true, nil
		}
		select {
		case <-c.closed:
			return false, net.ErrClosed
		case <-changed:
		}
	}
}

func (c *conn) Write(p []byte) (int, error) {
	passes, err := c.wait()
	if err != nil {
		return 0, err
	}
	if !passes {
		return len(p), nil
	}
	return c.Conn.Write(p)
}

func (c *conn) Read(p []byte) (int, error) {
	for {
		n, err := c.Conn.Read(p)
		if err != nil {
			return n, err
		}
		passes, err := c.wait()
		if err != nil {
			return 0, err
		}
		if passes {
			return n, nil
		}
	}
}

func (c *conn) Close() error {
	c.once.Do(func() {
		close(c.closed)
		c.link.mu.Lock()
		delete(c.link.conns, c)
		c.link.mu.Unlock()
	})
	return c.Conn.Close()
}
