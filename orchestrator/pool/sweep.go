package pool

import (
	"context"
	"time"

	"daybreak/orchestrator/store"
	v1 "daybreak/proto/daybreak/v1"
)

// Events are kept this long, and no more than so many of them, but for those that hold lives back.
const (
	eventLife   = 7 * 24 * time.Hour
	maxEvents   = 10_000
	sweepPeriod = 10 * time.Minute
)

// sweep removes old events until ctx ends.
func (t *term) sweep(ctx context.Context) error {
	ticker := time.NewTicker(sweepPeriod)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case now := <-ticker.C:
			t.sweepOnce(ctx, now)
		}
	}
}

func (t *term) sweepOnce(ctx context.Context, now time.Time) {
	var ops []store.Op
	for _, event := range expired(now, store.All[*v1.Event](t.mirror.View())) {
		ops = append(ops, store.Delete(event))
	}
	if len(ops) == 0 {
		return
	}
	// What is refused or fails now is swept the next time.
	if _, _, err := t.store.CommitEach(ctx, ops); err != nil && ctx.Err() == nil {
		t.log.Warn().Err(err).Int("events", len(ops)).Msg("old events not swept")
	}
}

// expired returns the events that need not be kept; events are sorted by name, which is by time.
func expired(now time.Time, events []*v1.Event) []*v1.Event {
	var old []*v1.Event
	failed := map[string]bool{} // desktops and pools whose record is kept
	for i, event := range events {
		age, subject := now.Sub(event.GetAt().AsTime()), event.GetSubjectKind()+"/"+event.GetSubject()
		counts := age < holdMemory && recorded(event, failed[subject])
		switch {
		case age > eventLife, len(events)-i > maxEvents && !counts:
			old = append(old, event)
		case counts:
			failed[subject] = true
		}
	}
	return old
}
