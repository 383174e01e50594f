package api

import (
	"context"
	"testing"

	healthv1 "google.golang.org/grpc/health/grpc_health_v1"

	"daybreak/orchestrator/store"
	v1 "daybreak/proto/daybreak/v1"
)

// A server that has not read the store yet, or is about to end, does not say that it serves.
func TestHealthFollowsTheMirror(t *testing.T) {
	var late *store.Mirror
	r := newRig(t, func(config *Config) {
		late = store.NewMirror(config.Backend)
		config.Mirror = late
	})
	watch, err := healthv1.NewHealthClient(r.as(v1.Role_ROLE_VIEWER)).Watch(t.Context(), &healthv1.HealthCheckRequest{})
	if err != nil {
		t.Fatal(err)
	}
	expect := func(when string, want healthv1.HealthCheckResponse_ServingStatus) {
		t.Helper()
		if got, err := watch.Recv(); err != nil || got.GetStatus() != want {
			t.Fatalf("%s: %v, %v; want %v", when, got, err, want)
		}
	}
	expect("before the first sync", healthv1.HealthCheckResponse_NOT_SERVING)
	ctx, cancel := context.WithCancel(t.Context())
	mirrored := make(chan error, 1)
	go func() { mirrored <- late.Run(ctx) }()
	expect("synced", healthv1.HealthCheckResponse_SERVING)
	stopped := make(chan error, 1)
	go func() { stopped <- r.stop() }()
	expect("at shutdown", healthv1.HealthCheckResponse_NOT_SERVING)
	cancel()
	<-mirrored
	<-stopped
}
