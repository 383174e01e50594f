package store_test

import (
	"context"
	"testing"

	"daybreak/orchestrator/store"
	"daybreak/orchestrator/store/storetest"
)

// electable lets the suite hold elections.
type electable struct {
	*store.Memory
	elections int64
}

func (e *electable) Elect(context.Context) (store.Guard, error) {
	e.elections++
	guard := store.Guard{Key: "leader", Revision: e.elections}
	e.SetGuard(guard)
	return guard, nil
}

func TestMemory(t *testing.T) {
	storetest.Run(t, func(*testing.T) store.Backend { return &electable{Memory: store.NewMemory()} })
}
