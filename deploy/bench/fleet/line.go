package fleet

import (
	"context"
	"net"
	"sync/atomic"

	"golang.org/x/time/rate"
)

const (
	// segment is how much goes through a line at once.
	segment = 32 << 10
	// socketBuffer keeps the kernel from taking much more than the line lets through.
	socketBuffer = 64 << 10
)

// Line is a machine's connection to the network: so many bytes a second in each direction, all connections together.
type Line struct {
	up, down       *rate.Limiter
	sent, received atomic.Int64
}

// NewLine makes a line; 0 is as fast as can be.
func NewLine(bytesPerSecond int64) *Line {
	limit := rate.Inf
	if bytesPerSecond > 0 {
		limit = rate.Limit(bytesPerSecond)
	}
	return &Line{up: rate.NewLimiter(limit, segment), down: rate.NewLimiter(limit, segment)}
}

// Sent is how many bytes went out so far.
func (l *Line) Sent() int64 { return l.sent.Load() }

// Received is how many bytes came in so far.
func (l *Line) Received() int64 { return l.received.Load() }

func (l *Line) dial(ctx context.Context, address string) (net.Conn, error) {
	var dialer net.Dialer
	c, err := dialer.DialContext(ctx, "tcp", address)
	return l.wrap(c), err
}

func (l *Line) wrap(c net.Conn) net.Conn {
	if tcp, ok := c.(*net.TCPConn); ok && l.up.Limit() != rate.Inf {
		_ = tcp.SetReadBuffer(socketBuffer)
		_ = tcp.SetWriteBuffer(socketBuffer)
	}
	return &conn{Conn: c, line: l}
}

type listener struct {
	net.Listener
	line *Line
}

func (l *Line) listener(inner net.Listener) net.Listener { return &listener{inner, l} }

func (l *listener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return l.line.wrap(c), nil
}

type conn struct {
	net.Conn
	line *Line
}

func (c *conn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p[:min(len(p), segment)])
	c.line.received.Add(int64(n))
	if n > 0 {
		if waitErr := c.line.down.WaitN(context.Background(), n); waitErr != nil {
			return n, waitErr
		}
	}
	return n, err
}

func (c *conn) Write(p []byte) (written int, err error) {
	for len(p) > 0 && err == nil {
		part := p[:min(len(p), segment)]
		if err := c.line.up.WaitN(context.Background(), len(part)); err != nil {
			return written, err
		}
		var n int
		n, err = c.Conn.Write(part)
		c.line.sent.Add(int64(n))
		written += n
		p = p[n:]
	}
	return written, err
}
