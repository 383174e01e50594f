package main

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"sync"
)

const (
	// screenPiece is how much of what a viewer says goes into one message.
	screenPiece = 32 << 10
	// maxGreeting bounds what is held of a screen server's greeting until a viewer comes; it has 12 bytes.
	maxGreeting = 4096
)

// screen lets one VNC viewer at a time see the VM of an interactive build.
//
// The screen server speaks first, so its greeting is here before the viewer is, and waits. When a viewer has gone the host
// connects to the screen anew: what still comes of the old connection is dropped until the next greeting.
type screen struct {
	listener net.Listener

	mu       sync.Mutex
	looking  net.Conn // nil while nobody looks
	greeting []byte
	stale    bool
}

func listenScreen(address string) (*screen, error) {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return nil, wrongUsage("--screen wants ADDRESS:PORT, found %q", address)
	}
	if ip := net.ParseIP(host); host != "localhost" && (ip == nil || !ip.IsLoopback()) {
		return nil, wrongUsage("--screen wants an address of this machine alone, such as 127.0.0.1:0: there is no password, found %q", address)
	}
	listener, err := net.Listen("tcp", address)
	if err != nil {
		return nil, fmt.Errorf("listen for VNC viewers: %w", err)
	}
	return &screen{listener: listener}, nil
}

func (s *screen) address() string { return s.listener.Addr().String() }

// viewer is the address as VNC viewers take it: one colon would mean a display.
func (s *screen) viewer() string {
	host, port, _ := net.SplitHostPort(s.address())
	return net.JoinHostPort(host, ":"+port)
}

// serve begins to take viewers, until ctx ends; say sends what they say and tells whether anybody still hears it.
func (s *screen) serve(ctx context.Context, say func([]byte) bool) {
	context.AfterFunc(ctx, s.close)
	go func() { // ends when the listener is closed
		for {
			conn, err := s.listener.Accept()
			if err != nil {
				return
			}
			if !s.take(conn) {
				_ = conn.Close() // somebody looks already
				continue
			}
			go s.relay(conn, say) // ends when the viewer's connection does; close closes that
		}
	}()
}

// take makes a connection the viewer's, if there is none, and gives it the greeting that waits.
func (s *screen) take(conn net.Conn) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.looking != nil {
		return false
	}
	s.looking = conn
	if len(s.greeting) > 0 {
		_, _ = conn.Write(s.greeting) // whoever reads the connection finds out that it is gone
		s.greeting = nil
	}
	return true
}

// relay hands on what a viewer says.
func (s *screen) relay(conn net.Conn, say func([]byte) bool) {
	for {
		piece := make([]byte, screenPiece)
		n, err := conn.Read(piece)
		if n > 0 && !say(piece[:n]) {
			break
		}
		if err != nil {
			break
		}
	}
	s.mu.Lock()
	s.looking, s.greeting, s.stale = nil, nil, true
	s.mu.Unlock()
	_ = conn.Close()
	say(nil)
}

// show gives the viewer what the screen says. A viewer that does not read holds up the build's messages, as it should: the
// screen is the one thing that it waits for.
func (s *screen) show(piece []byte) {
	s.mu.Lock()
	if s.stale {
		if !bytes.HasPrefix(piece, []byte("RFB ")) {
			s.mu.Unlock()
			return
		}
		s.stale = false
	}
	viewer := s.looking
	if viewer == nil && len(s.greeting)+len(piece) <= maxGreeting {
		s.greeting = append(s.greeting, piece...)
	}
	s.mu.Unlock()
	if viewer != nil {
		_, _ = viewer.Write(piece) // relay finds out that it is gone
	}
}

func (s *screen) close() {
	_ = s.listener.Close()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.looking != nil {
		_ = s.looking.Close()
	}
}
