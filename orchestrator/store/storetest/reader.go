package storetest

import (
	"context"
	"testing"

	"daybreak/orchestrator/store"
)

// Mirror returns a mirror of a backend that runs until the test ends.
func Mirror(t testing.TB, b store.Backend) *store.Mirror {
	mirror := store.NewMirror(b)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- mirror.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		<-ended
	})
	return mirror
}
