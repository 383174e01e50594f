package pool

import (
	"cmp"
	"slices"

	"daybreak/orchestrator/store"
	v1 "daybreak/proto/daybreak/v1"
)

// queueOf returns who waits for a desktop of a pool, who waits longest first.
func queueOf(view *store.View, pool string) []*v1.Claim {
	queue := view.ClaimsWaiting(pool)
	slices.SortFunc(queue, inQueue)
	return queue
}

// inQueue orders claims that wait.
func inQueue(a, b *v1.Claim) int {
	return cmp.Or(a.GetQueued().AsTime().Compare(b.GetQueued().AsTime()), cmp.Compare(a.GetMeta().GetName(), b.GetMeta().GetName()))
}
