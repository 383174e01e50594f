package api

import (
	"slices"
	"time"

	"google.golang.org/protobuf/proto"

	"daybreak/orchestrator/demand"
	v1 "daybreak/proto/daybreak/v1"
)

// mergeWishes settles the passing wishes of a schedule that is applied over another, either of which may be nil. An empty list cannot be told
// from none on the wire: a schedule without wishes, as people keep it in a file, leaves those in place that are not over. A wish that
// the pool has is taken back by one that is equal to it but ends where it begins.
func mergeWishes(next, before *v1.Schedule, now time.Time) {
	if next == nil || before == nil {
		return
	}
	if len(next.GetExtra()) == 0 {
		for _, wish := range before.GetExtra() {
			if wish.GetUntil().AsTime().After(now) {
				next.Extra = append(next.Extra, proto.CloneOf(wish))
			}
		}
		return
	}
	next.Extra = slices.DeleteFunc(next.Extra, func(wish *v1.ExtraTarget) bool {
		return proto.Equal(wish.GetFrom(), wish.GetUntil()) && slices.ContainsFunc(before.GetExtra(), func(had *v1.ExtraTarget) bool {
			ended := proto.CloneOf(had)
			ended.Until = ended.GetFrom()
			return proto.Equal(ended, wish)
		})
	})
}

// checkSchedule finds what the rules in the .proto cannot say of when how many desktops run. before is nil for a new pool.
func checkSchedule(spec, before *v1.PoolSpec, now time.Time) []mistake {
	var mistakes []mistake
	for _, m := range demand.Check(spec, before, now) {
		mistakes = append(mistakes, mistake{m.Field, m.Reason})
	}
	return mistakes
}
