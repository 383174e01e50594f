package api

import (
	"sync"
	"time"

	"golang.org/x/time/rate"
	"google.golang.org/grpc"
	"google.golang.org/grpc/keepalive"
)

// What one peer may ask of the server.
const (
	maxMessage     = 4 << 20
	maxStreams     = 256
	maxConnections = 8192
	maxHeaderBytes = 64 << 10
	unaryTimeout   = 30 * time.Second
	// answerBytes is how large an answer that is cut into parts may get: well below what a client accepts by default.
	answerBytes = 2 << 20

	callsPerSecond  = 100
	callsAtOnce     = 400
	enrolsPerSecond = 10
	enrolsAtOnce    = 100
	// strangersLogged is how many refusals of callers without a good token are logged in a minute.
	strangersLogged = 10
)

// serverLimits are the options that bound what a connection can cost.
func serverLimits() []grpc.ServerOption {
	return []grpc.ServerOption{
		grpc.MaxRecvMsgSize(maxMessage),
		grpc.MaxSendMsgSize(maxMessage),
		grpc.MaxConcurrentStreams(maxStreams),
		grpc.MaxHeaderListSize(maxHeaderBytes),
		grpc.ConnectionTimeout(10 * time.Second),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: 5 * time.Second}),
		grpc.KeepaliveParams(keepalive.ServerParameters{
			MaxConnectionIdle: 5 * time.Minute, Time: 20 * time.Second, Timeout: 10 * time.Second,
		}),
	}
}

// throttle limits calls per identity. Identities are those of verified certificates, so their number is bounded by what
// the CA gave out; calls without a certificate share one limit.
type throttle struct {
	nobody *rate.Limiter

	mu       sync.Mutex
	limiters map[string]*rate.Limiter
}

func newThrottle() *throttle {
	return &throttle{nobody: rate.NewLimiter(enrolsPerSecond, enrolsAtOnce), limiters: map[string]*rate.Limiter{}}
}

func (t *throttle) allow(who caller) bool {
	if !who.certified {
		return t.nobody.Allow()
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	limiter := t.limiters[who.String()]
	if limiter == nil {
		limiter = rate.NewLimiter(callsPerSecond, callsAtOnce)
		t.limiters[who.String()] = limiter
	}
	return limiter.Allow()
}
