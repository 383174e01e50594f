package identity

import (
	"context"
	"math/rand/v2"
	"time"

	"github.com/rs/zerolog"
	"google.golang.org/grpc"
)

// Renewer renews an identity in time for as long as it runs.
type Renewer struct {
	Identity *Identity
	// Dial makes a connection with the identity's TLS to a server that gives certificates out.
	Dial func() (*grpc.ClientConn, error)
	Log  zerolog.Logger
}

// Run renews at two thirds of each certificate's life, a little later on some hosts than on others, and tries again after
// a failure. It ends with ctx only.
func (r Renewer) Run(ctx context.Context) error {
	var failures int
	for {
		from, until := r.Identity.Validity()
		wait := time.Until(r.Identity.RenewalDue()) + rand.N(until.Sub(from)/12+1)
		if failures > 0 {
			wait = retryAfter(time.Until(until), failures)
		}
		timer := time.NewTimer(max(wait, 0))
		select {
		case <-ctx.Done():
			timer.Stop()
			return ctx.Err()
		case <-timer.C:
		}
		if err := r.once(ctx); err != nil {
			failures++
			r.Log.Error().Err(err).Time("expires", until).Msg("certificate not renewed; it will be tried again")
			continue
		}
		failures = 0
		_, until = r.Identity.Validity()
		r.Log.Info().Time("expires", until).Msg("certificate renewed")
	}
}

func (r Renewer) once(ctx context.Context) error {
	conn, err := r.Dial()
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()
	return r.Identity.Renew(ctx, conn)
}

// retryAfter grows with each failure up to an hour, but leaves room for several attempts before the end.
func retryAfter(left time.Duration, failures int) time.Duration {
	wait := min(time.Minute<<min(failures-1, 6), time.Hour, max(left/8, time.Minute))
	return wait/2 + rand.N(wait/2)
}
