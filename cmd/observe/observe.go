// Package observe is what both daemons show of themselves, in the clear: /metrics, /healthz and /readyz.
//
// Here: that HTTP server and its limits. Not here: metrics, or what health is. The daemons under cmd call it.
package observe

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"golang.org/x/sync/errgroup"
)

// Check says what is wrong, for people; empty when all is well.
type Check func() string

// Well is the check of what is well while its process runs.
func Well() string { return "" }

// Run serves until ctx ends, and closes the listener. healthy and ready answer /healthz and /readyz: 200, or 503 with what
// is wrong.
func Run(ctx context.Context, listener net.Listener, gatherer prometheus.Gatherer, healthy, ready Check) error {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(gatherer, promhttp.HandlerOpts{MaxRequestsInFlight: 4, Timeout: 10 * time.Second}))
	mux.Handle("GET /healthz", healthy)
	mux.Handle("GET /readyz", ready)
	server := &http.Server{
		Handler: mux, ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 10 * time.Second, WriteTimeout: 30 * time.Second,
		IdleTimeout: time.Minute, MaxHeaderBytes: 16 << 10,
	}
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error {
		if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
			return fmt.Errorf("serve metrics: %w", err)
		}
		return nil
	})
	group.Go(func() error {
		<-ctx.Done()
		return server.Close()
	})
	return group.Wait()
}

// ServeHTTP implements http.Handler.
func (c Check) ServeHTTP(w http.ResponseWriter, _ *http.Request) {
	if wrong := c(); wrong != "" {
		http.Error(w, wrong, http.StatusServiceUnavailable)
		return
	}
	fmt.Fprintln(w, "ok")
}
